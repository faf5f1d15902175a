//! `cargo xtask c-library`: the library for C of a target, with its header; and, on request, an example that is compiled with the target's C
//! compiler and tells the host's story.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::command;
use crate::error::Error;
use crate::image;
use crate::interrupt::write_whole;
use crate::output;
use crate::qemu::Emulator;
use crate::root;
use crate::system::Install;
use crate::target::{Runner, Target};
use crate::toolchain::{self, Toolchain};

const PACKAGE: &str = "rescomp-c";
const LIBRARY_FILE: &str = "librescomp.a";
const HEADER_FILE: &str = "rescomp.h";
/// Folder of the crate, in the project.
const CRATE_FOLDER: &str = "targets/c";
/// Its source, which the header is made of, with the modules that it names.
const SOURCE: &str = "src/lib.rs";
const EXAMPLE: &str = "examples/story.c";
/// The prompt that images have too.
const PROMPT: &str = rescomp_firmware::DEFAULT_PROMPT;

/// Options of `c-library`.
#[derive(Debug, Args)]
pub(crate) struct CLibraryFlags {
    /// The target: a name from `cargo xtask targets`, or the path of a target file.
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "aarch64")]
    pub(crate) target: String,
    /// Folder to write to, created where missing [default: dist/TARGET/c in the project].
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Compile the example with the target's C compiler, run it on this container, here or under QEMU, and want the host's story.
    #[arg(long, value_name = "FILE.rescomp")]
    pub(crate) try_container: Option<PathBuf>,
    /// Write the header in the project anew; otherwise one that isn't current is an error.
    #[arg(long)]
    pub(crate) write_header: bool,
    /// Install nothing: a missing tool is an error that names the commands.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Missing` without a toolchain, `Exit::Failed` where something does not build, the header isn't current or the story is another.
pub(crate) fn run(flags: &CLibraryFlags) -> Result<(), Error> {
    let root = root::root()?;
    let target = Target::load(&flags.target)?;
    let install = Install::unless(flags.no_install);
    let header = header(&root, flags.write_header)?;
    let (toolchain, features): (Toolchain, &[&str]) = match target.runner {
        Runner::Linux => (toolchain::find(&target, install)?, &["std", "every-part"]),
        Runner::CortexM | Runner::BareAarch64 => (toolchain::find_image(&target, install)?, &["every-part"]),
    };
    let status = command::run(&mut toolchain.build(&root, PACKAGE, features), None)?;
    if !status.success() {
        return Err(Error::failed(format!("{PACKAGE} does not build for {} ({status})", toolchain.triple)));
    }
    let built = toolchain.program(LIBRARY_FILE);
    let library = std::fs::read(&built).map_err(|error| Error::disk("read", &built, &error))?;
    let folder = flags.output.clone().unwrap_or_else(|| crate::check::dist(&root, &target).join("c"));
    write_whole(&folder.join(LIBRARY_FILE), &library)?;
    write_whole(&folder.join(HEADER_FILE), header.as_bytes())?;
    output::line(&format!("wrote {LIBRARY_FILE} and {HEADER_FILE} to {}", folder.display()));
    match &flags.try_container {
        Some(container) => try_example(&root, &target, &toolchain, &folder, container, install),
        None => Ok(()),
    }
}

/// The header, as cbindgen writes it; the project's is to be the same.
fn header(root: &Path, write: bool) -> Result<String, Error> {
    let folder = root.join(CRATE_FOLDER);
    let failed = |error: &dyn std::fmt::Display| Error::failed(format!("cbindgen: {error}"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).map_err(|error| failed(&error))?;
    let builder = cbindgen::Builder::new().with_config(config).with_src(folder.join(SOURCE));
    let mut bytes = Vec::new();
    builder.generate().map_err(|error| failed(&error))?.write(&mut bytes);
    let text = String::from_utf8(bytes).map_err(|error| failed(&error))?;
    let path = folder.join("include").join(HEADER_FILE);
    if write {
        write_whole(&path, text.as_bytes())?;
    } else if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
        return Err(Error::failed(format!("{} is not what the sources say", path.display()))
            .remedy("cargo xtask c-library --write-header"));
    }
    Ok(text)
}

/// Compiles the example against what was written, runs it, and compares its story.
fn try_example(
    root: &Path,
    target: &Target,
    toolchain: &Toolchain,
    folder: &Path,
    container: &Path,
    install: Install,
) -> Result<(), Error> {
    if target.runner != Runner::Linux {
        return Err(Error::input(format!(
            "--try-container: the example is a program for Linux, and {} is none",
            target.name
        )));
    }
    let compiler = toolchain.linker.clone().unwrap_or_else(|| PathBuf::from("cc"));
    let program = folder.join("story");
    let mut compile = Command::new(compiler);
    compile.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-static", "-I"]).arg(folder);
    compile.arg(root.join(CRATE_FOLDER).join(EXAMPLE)).arg(folder.join(LIBRARY_FILE));
    compile.args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&program);
    let status = command::run(&mut compile, None)?;
    if !status.success() {
        return Err(Error::failed(format!("the example does not compile ({status})")));
    }
    let mut run = match target.architecture.name() == std::env::consts::ARCH {
        true => Command::new(&program),
        false => {
            let cpu = target.qemu_cpus.first().map_or("max", String::as_str);
            Emulator::find(install)?.command(cpu, &program)
        }
    };
    run.arg(container).arg(PROMPT);
    output::note(&format!("$ {}", command::show(&run)));
    let result =
        run.output().map_err(|error| Error::failed("the example does not start").caused_by(&error))?;
    let said = String::from_utf8_lossy(&result.stderr);
    if !result.status.success() {
        return Err(Error::failed(format!("the example ended with {}", result.status)).because(said.trim()));
    }
    let told = String::from_utf8_lossy(&result.stdout);
    let expected = image::story_here(container)?;
    if told.trim_end_matches('\n') != expected.trim_end_matches('\n') {
        return Err(Error::failed(format!("the example tells another story than the host: {told:?}")));
    }
    output::line(said.trim());
    output::line(told.trim_end());
    output::line("the example's story is the host's");
    Ok(())
}
