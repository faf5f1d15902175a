//! Finds, and where allowed installs, a toolchain that builds for a target; then makes cargo commands for it.
//!
//! The order: a compiler that is there with the target's library and a linker; `rustup target add`; the distribution's
//! packages. [`plan`] decides, [`facts`] looks, this file runs. Every toolchain and triple has its own target directory
//! (`target/cross-TRIPLE`), so that two compilers do not rebuild each other's work.

pub(crate) mod facts;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::error::Error;
use crate::output;
use crate::root;
use crate::system::Install;
use crate::target::Target;
use facts::Facts;
use plan::{Choice, Decision, Kind, Link, Step, Wanted};

/// Time limit of `rustup target add`: without a way out to its server it may hang for long instead of failing.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// A cargo that builds for one triple, with everything it must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The cargo to run.
    pub(crate) cargo: PathBuf,
    /// The compiler it must use.
    pub(crate) rustc: PathBuf,
    /// What it builds for.
    pub(crate) triple: String,
    /// The linker, where the compiler is told one.
    pub(crate) linker: Option<PathBuf>,
    /// Variables of every command.
    pub(crate) environment: Vec<(String, String)>,
    /// Arguments of every command.
    pub(crate) arguments: Vec<String>,
    /// Where it builds.
    pub(crate) target_directory: PathBuf,
    /// One line for people: which compiler, which linker.
    pub(crate) how: String,
}

/// A toolchain that builds programs for `target`.
///
/// # Errors
/// `Exit::Missing`, with the commands that help, when there is none and it cannot or may not be installed.
pub(crate) fn find(target: &Target, install: Install) -> Result<Toolchain, Error> {
    let wanted = Wanted {
        name: target.name.clone(),
        triples: target.triples.clone(),
        minimum: minimum_version()?,
        kind: Kind::Linux,
    };
    find_wanted(&wanted, &target.cpu, install)
}

/// A toolchain that builds the image of a target without an operating system.
///
/// # Errors
/// As [`find`].
pub(crate) fn find_image(target: &Target, install: Install) -> Result<Toolchain, Error> {
    let wanted = Wanted {
        name: target.name.clone(),
        triples: target.triples.clone(),
        minimum: minimum_version()?,
        kind: Kind::Bare,
    };
    let mut toolchain = find_wanted(&wanted, &target.cpu, install)?;
    toolchain.abort_at_panics();
    Ok(toolchain)
}

/// The workspace's `rust-version`.
fn minimum_version() -> Result<(u32, u32), Error> {
    let version = env!("CARGO_PKG_RUST_VERSION");
    facts::version_of(version)
        .ok_or_else(|| Error::input(format!("Cargo.toml: rust-version: cannot read `{version}`")))
}

fn find_wanted(wanted: &Wanted, cpu: &str, install: Install) -> Result<Toolchain, Error> {
    let mut tried = Vec::new();
    // Compilers that have a triple's library but could not link a program with it.
    let mut unusable: Vec<(PathBuf, String)> = Vec::new();
    loop {
        let mut facts = Facts::probe(&wanted.triples);
        for compiler in &mut facts.compilers {
            compiler.libraries.retain(|triple| !unusable.contains(&(compiler.rustc.clone(), triple.clone())));
        }
        match plan::decide(wanted, &facts, install, &tried) {
            Decision::Ready(choice) => {
                let root = root::root()?;
                let toolchain = Toolchain::new(&choice, cpu, &root::target_directory(&root));
                if wanted.kind == Kind::Bare {
                    return Ok(toolchain);
                }
                match toolchain.links() {
                    Ok(()) => return Ok(toolchain),
                    Err(error) => output::note(&format!("note: {error}")),
                }
                unusable.push((choice.compiler.rustc, choice.triple));
            }
            Decision::Install(step) => {
                if let Err(error) = run_step(&step, &facts) {
                    // The next way is tried; the final error says what did not help.
                    output::note(&format!("note: {error}"));
                }
                tried.push(step);
            }
            Decision::Missing(error) => return Err(error),
        }
    }
}

fn run_step(step: &Step, facts: &Facts) -> Result<(), Error> {
    match step {
        Step::RustupTarget { toolchain, triple } => {
            let mut command = Command::new("rustup");
            command::clean(&mut command);
            command.args(["target", "add", "--toolchain", toolchain, triple]);
            let status = command::run(&mut command, Some(RUSTUP_LIMIT))?;
            if status.success() {
                Ok(())
            } else {
                Err(Error::missing(format!("rustup cannot add {triple} ({status})")))
            }
        }
        Step::Packages(packages) => packages.install(facts.privilege),
    }
}

/// A triple whose code is to run where memory isn't mapped, and must be read at aligned addresses: every load of a vector is sixteen loads of
/// bytes then, and an image has three quarters more instructions. Images map memory before anything else, and read at any address. rustc doesn't know the feature by name, warns, and hands it to LLVM.
const ALIGNED_TRIPLE: &str = "aarch64-unknown-none";

impl Toolchain {
    /// Turns a choice into commands; `cpu` is the target's processor, `generic` for the baseline.
    fn new(choice: &Choice, cpu: &str, target_directory: &Path) -> Toolchain {
        let Choice { compiler, triple, link, is_static, builds_core } = choice;
        let mut flags: Vec<String> = Vec::new();
        let mut linker = None;
        let linked = match link {
            Link::Default => "the compiler's own linker".to_owned(),
            Link::C(path) => {
                flags.push(format!("-Clinker={}", path.display()));
                linker = Some(path.clone());
                path.display().to_string()
            }
            Link::Lld(path) => {
                flags.push(format!("-Clinker={}", path.display()));
                flags.push("-Clinker-flavor=ld.lld".to_owned());
                linker = Some(path.clone());
                path.display().to_string()
            }
        };
        if triple.contains("-linux-") {
            flags.push(format!("-Ctarget-feature={}crt-static", if *is_static { '+' } else { '-' }));
        }
        if triple == ALIGNED_TRIPLE {
            flags.push("-Ctarget-feature=-strict-align".to_owned());
        }
        if cpu != "generic" {
            flags.push(format!("-Ctarget-cpu={cpu}"));
        }
        let rustc = compiler.rustc.display().to_string();
        let mut environment = vec![
            ("RUSTC".to_owned(), rustc.clone()),
            // Replaces any other source of flags, so what is built does not depend on the user's configuration.
            (command::ENCODED_FLAGS.to_owned(), flags.join(command::FLAG_SEPARATOR)),
        ];
        let mut arguments = Vec::new();
        if *builds_core {
            environment.push(("RUSTC_BOOTSTRAP".to_owned(), "1".to_owned()));
            arguments.push("-Zbuild-std=core".to_owned());
        }
        let source = if *builds_core { ", core built from its sources" } else { "" };
        Toolchain {
            cargo: compiler.cargo.clone(),
            rustc: compiler.rustc.clone(),
            triple: triple.clone(),
            linker,
            environment,
            arguments,
            target_directory: target_directory.join(format!("cross-{triple}")),
            how: format!("{triple} by {rustc} {}, linked by {linked}{source}", compiler.release),
        }
    }

    /// Where `core` is built from its sources, a panic becomes one instruction that traps: no message, no formatting, no code of panics
    /// in the image. A compiled `core` has its own, and the image's handler says where it was.
    fn abort_at_panics(&mut self) {
        if self.arguments.is_empty() {
            return;
        }
        for (name, value) in &mut self.environment {
            if name == command::ENCODED_FLAGS {
                // SHA-256 with its rounds in a loop: a container is read once, and the unrolled code takes 5 KiB.
                let flags =
                    ["-Zunstable-options", "-Cpanic=immediate-abort", "--cfg=sha2_backend_soft=\"compact\""];
                let all = value.split(command::FLAG_SEPARATOR).filter(|flag| !flag.is_empty()).chain(flags);
                *value = all.collect::<Vec<_>>().join(command::FLAG_SEPARATOR);
            }
        }
        // Its `core` is another one than the libraries' of `build-no-std`.
        self.target_directory.as_mut_os_string().push("-image");
    }

    /// Whether a panic is one instruction, as [`find_image`] has it where it can.
    pub(crate) fn aborts_at_panics(&self) -> bool {
        self.environment.iter().any(|(_, value)| value.contains("-Cpanic=immediate-abort"))
    }

    /// Compiles and links an empty program: a linker that is there may still lack a library or the architecture, and that is
    /// better known now than after minutes of building.
    fn links(&self) -> Result<(), Error> {
        let failed = |because: &str| {
            Error::missing(format!("{} cannot link a program for {}", self.rustc.display(), self.triple))
                .because(because)
        };
        let folder = tempfile::tempdir().map_err(|error| failed(&error.to_string()))?;
        let source = folder.path().join("main.rs");
        std::fs::write(&source, "fn main() {}\n").map_err(|error| Error::disk("write", &source, &error))?;
        let mut command = Command::new(&self.rustc);
        command::clean(&mut command);
        command.current_dir(folder.path()).args(["--target", &self.triple, "--edition", "2021"]);
        let flags = self.environment.iter().find(|(name, _)| name == command::ENCODED_FLAGS);
        command.args(flags.iter().flat_map(|(_, flags)| flags.split(command::FLAG_SEPARATOR)));
        let result = command.arg(&source).output().map_err(|error| failed(&error.to_string()))?;
        match result.status.success() {
            true => Ok(()),
            false => Err(failed(String::from_utf8_lossy(&result.stderr).trim())),
        }
    }

    /// `cargo SUBCOMMAND` for this triple in a clean environment, run in `root`; the caller adds packages and features.
    pub(crate) fn cargo(&self, root: &Path, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command::clean(&mut command);
        command.current_dir(root).arg(subcommand).arg("--target").arg(&self.triple);
        command.arg("--target-dir").arg(&self.target_directory).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// `cargo build` of one package without its default features.
    pub(crate) fn build(&self, root: &Path, package: &str, features: &[&str]) -> Command {
        let mut command = self.cargo(root, "build");
        command.args(["--package", package, "--no-default-features", "--profile", "release"]);
        if !features.is_empty() {
            command.args(["--features", &features.join(",")]);
        }
        command
    }

    /// `cargo build` of an image with a profile of its own, without its default features.
    pub(crate) fn build_image(
        &self,
        root: &Path,
        package: &str,
        profile: &str,
        features: &[String],
    ) -> Command {
        let mut command = self.cargo(root, "build");
        command.args(["--package", package, "--no-default-features", "--profile", profile]);
        command.args(["--features", &features.join(",")]);
        command
    }

    /// Where a built program lies.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.program_of("release", name)
    }

    /// Likewise one of another profile.
    pub(crate) fn program_of(&self, profile: &str, name: &str) -> PathBuf {
        self.target_directory.join(&self.triple).join(profile).join(name)
    }
}
