//! 64-bit ARM processors emulated by QEMU's user mode: a Linux program runs as if on the named processor.
//!
//! User emulation translates instructions and passes system calls on, so paths and files are the host's. It tells whether a
//! processor has the instructions a program uses (a Cortex-A72 has no SDOT: a program that uses it dies of SIGILL there as
//! on the board), and that numbers are right; it tells nothing about time.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::error::Error;
use crate::system::{Install, Packages, Privilege, System};

/// QEMU for aarch64 Linux programs.
#[derive(Clone, Debug)]
pub(crate) struct Emulator {
    program: PathBuf,
    version: String,
    cpus: Vec<String>,
}

impl Emulator {
    /// Finds QEMU on the search path, or installs it.
    ///
    /// # Errors
    /// `Exit::Missing` naming the command that helps.
    pub(crate) fn find(install: Install) -> Result<Emulator, Error> {
        if let Some(found) = Emulator::on_path() {
            return found;
        }
        let (system, privilege) = (System::probe(), Privilege::probe());
        let packages = plan(&system, privilege, install)?;
        packages.install(privilege)?;
        Emulator::on_path().unwrap_or_else(|| {
            Err(Error::missing("qemu-user is installed, but no qemu-aarch64 is on the search path"))
        })
    }

    fn on_path() -> Option<Result<Emulator, Error>> {
        let program = ["qemu-aarch64", "qemu-aarch64-static"].into_iter().find_map(command::in_path)?;
        Some(Emulator::asked(program))
    }

    fn asked(program: PathBuf) -> Result<Emulator, Error> {
        let silent = || Error::missing(format!("{} does not answer", program.display()));
        let version = command::ask(Command::new(&program).arg("--version")).ok_or_else(silent)?;
        // QEMU 7.2 answers and ends with 1 all the same.
        let (_, help) = command::ask_any(Command::new(&program).args(["-cpu", "help"])).ok_or_else(silent)?;
        let version = version.lines().next().unwrap_or_default().to_owned();
        Ok(Emulator { version, cpus: cpus_of(&help), program })
    }

    /// QEMU's name and version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Refuses processors this QEMU does not know.
    ///
    /// # Errors
    /// `Exit::Missing` naming the first unknown one and those there are.
    pub(crate) fn knows(&self, cpus: &[String]) -> Result<(), Error> {
        match cpus.iter().find(|cpu| !self.cpus.contains(cpu)) {
            None => Ok(()),
            Some(cpu) => Err(Error::missing(format!(
                "{} cannot emulate `{cpu}`; it knows {}",
                self.version,
                self.cpus.join(", ")
            ))),
        }
    }

    /// The command that runs `program` on an emulated `cpu`.
    pub(crate) fn command(&self, cpu: &str, program: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-cpu", cpu]).arg(program);
        command
    }

    /// The same, with a line on standard error for each block of instructions that is translated or executed.
    pub(crate) fn tracing(&self, cpu: &str, program: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-cpu", cpu, "-d", "in_asm,exec,nochain"]).arg(program);
        command
    }
}

/// The packages to install, or why they cannot be.
fn plan(system: &System, privilege: Privilege, install: Install) -> Result<Packages, Error> {
    let packages = Packages::own(&["qemu-user"]);
    let missing =
        Error::missing("no qemu-aarch64 is on the search path: emulated processors need QEMU's user mode");
    match system {
        System::Debian | System::DebianRelative(_) => match (install, privilege) {
            (Install::No, _) => Err(missing
                .because("--no-install was given, so nothing was installed")
                .remedy(packages.shown(privilege))),
            (Install::Allowed, Privilege::None) => Err(missing
                .because("packages need root or a sudo that asks for no password (`sudo -n`)")
                .remedy(packages.shown(privilege))),
            (Install::Allowed, _) => Ok(packages),
        },
        System::OtherLinux(_) => Err(missing
            .remedy(format!("{}: install the package with qemu-aarch64 (often `qemu-user`)", system.name()))),
        System::MacOs | System::Other(_) => Err(missing
            .because(format!("QEMU's user mode runs on Linux only, and this is {}", system.name()))
            .remedy("run it in a Linux machine or container, or with --host-only")),
    }
}

/// The names in the answer to `-cpu help`: a heading, then one name a line, with remarks behind it in newer versions.
fn cpus_of(help: &str) -> Vec<String> {
    let lines = help.lines().filter(|line| line.starts_with(' '));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn processors_are_read_from_the_help() {
        let help = "Available CPUs:\n  a64fx\n  cortex-a72\n  max (deprecated remark)\n";
        assert_eq!(cpus_of(help), ["a64fx", "cortex-a72", "max"]);
    }

    #[test]
    fn an_emulator_on_this_machine_knows_the_processors_of_the_tests() {
        let Some(found) = Emulator::on_path() else {
            eprintln!("skipped: no qemu-aarch64 on the search path");
            return;
        };
        let cpus = ["cortex-a53", "cortex-a72", "max"].map(str::to_owned);
        assert_eq!(found.expect("answers").knows(&cpus), Ok(()));
    }

    #[test]
    fn an_unknown_processor_is_named() {
        let emulator =
            Emulator { program: "qemu".into(), version: "QEMU 7.2".into(), cpus: vec!["max".into()] };
        assert_eq!(emulator.knows(&["max".to_owned()]), Ok(()));
        let error = emulator.knows(&["max".to_owned(), "cortex-a999".to_owned()]).expect_err("unknown");
        assert_eq!(error.exit(), Exit::Missing);
        assert_eq!(error.to_string(), "QEMU 7.2 cannot emulate `cortex-a999`; it knows max");
    }

    #[test]
    fn a_missing_emulator_is_installed_or_its_remedy_named() {
        let installed = plan(&System::Debian, Privilege::Root, Install::Allowed).expect("installs");
        assert_eq!(installed, Packages::own(&["qemu-user"]));
        let remedies = [
            (System::Debian, Privilege::Root, Install::No, "remedy: apt-get update && env "),
            (System::Debian, Privilege::None, Install::Allowed, "remedy: sudo apt-get update"),
            (System::OtherLinux("arch".into()), Privilege::Root, Install::Allowed, "remedy: arch: install"),
            (System::MacOs, Privilege::None, Install::Allowed, "--host-only"),
        ];
        for (system, privilege, install, expected) in remedies {
            let error = plan(&system, privilege, install).expect_err("not installed");
            assert_eq!(error.exit(), Exit::Missing);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
