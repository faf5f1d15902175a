//! The machine the commands run on: which system, which rights, and how its packages are installed.
//!
//! Facts are plain data ([`System`], [`Privilege`]) so that the decisions made from them are tested without the machine.

use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::error::Error;

/// Time limit of one package command: a slow mirror, not a hung one.
const PACKAGES_LIMIT: Duration = Duration::from_secs(1800);

/// Whether a command may install what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Install {
    /// Missing parts are installed; each command is printed before it runs.
    Allowed,
    /// A missing part is an error that names the commands (`--no-install`).
    No,
}

impl Install {
    /// From the flag `--no-install`.
    pub(crate) fn unless(no_install: bool) -> Install {
        if no_install { Install::No } else { Install::Allowed }
    }
}

/// The operating system, as far as it decides where tools come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian itself: its packages have a Rust compiler that builds for other architectures.
    Debian,
    /// A relative of Debian (its identifier): apt with cross C compilers, but no fitting Rust packages.
    DebianRelative(String),
    /// Another Linux distribution (its identifier).
    OtherLinux(String),
    /// macOS.
    MacOs,
    /// Anything else, by name.
    Other(String),
}

impl System {
    /// Looks at this machine.
    pub(crate) fn probe() -> System {
        match std::env::consts::OS {
            "linux" => {
                let release = std::fs::read_to_string("/etc/os-release")
                    .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
                System::from_os_release(&release.unwrap_or_default())
            }
            "macos" => System::MacOs,
            other => System::Other(other.to_owned()),
        }
    }

    /// Reads the text of `/etc/os-release` (freedesktop.org, os-release(5)).
    fn from_os_release(text: &str) -> System {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim().trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
        };
        let (id, like) = (field("ID"), field("ID_LIKE"));
        match id.as_str() {
            "debian" => System::Debian,
            "" => System::OtherLinux("unknown".to_owned()),
            _ if like.split_whitespace().any(|relative| relative == "debian" || relative == "ubuntu") => {
                System::DebianRelative(id)
            }
            _ => System::OtherLinux(id),
        }
    }

    /// Whether packages come by apt.
    pub(crate) fn has_apt(&self) -> bool {
        matches!(self, System::Debian | System::DebianRelative(_))
    }

    /// The system's name for messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            System::Debian => "Debian",
            System::DebianRelative(id) | System::OtherLinux(id) | System::Other(id) => id,
            System::MacOs => "macOS",
        }
    }
}

/// The right to install packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// `sudo -n` works without asking for a password.
    Sudo,
    /// Neither.
    None,
}

impl Privilege {
    /// Asks `id` and `sudo -n`.
    pub(crate) fn probe() -> Privilege {
        if command::ask(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0") {
            Privilege::Root
        } else if command::ask(Command::new("sudo").args(["-n", "true"])).is_some() {
            Privilege::Sudo
        } else {
            Privilege::None
        }
    }
}

/// Packages of a distribution with apt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packages {
    /// A foreign Debian architecture (`arm64`) whose packages are among them.
    pub(crate) architecture: Option<String>,
    /// Package names, with `:architecture` where they are foreign.
    pub(crate) names: Vec<String>,
}

impl Packages {
    /// Packages of the machine's own architecture.
    pub(crate) fn own(names: &[&str]) -> Packages {
        Packages { architecture: None, names: names.iter().map(|&name| name.to_owned()).collect() }
    }

    /// The commands in order, as argument lists, for this right. Without any right they are those to type: with sudo.
    pub(crate) fn commands(&self, privilege: Privilege) -> Vec<Vec<String>> {
        let prefix: &[&str] = match privilege {
            Privilege::Root => &[],
            Privilege::Sudo => &["sudo", "-n"],
            Privilege::None => &["sudo"],
        };
        let line = |words: &[&str], names: &[String]| {
            let words = prefix.iter().chain(words).map(|&word| word.to_owned());
            words.chain(names.iter().cloned()).collect::<Vec<_>>()
        };
        let mut commands = Vec::new();
        if let Some(architecture) = &self.architecture {
            commands.push(line(&["dpkg", "--add-architecture", architecture], &[]));
        }
        commands.push(line(&["apt-get", "update"], &[]));
        let install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"];
        commands.push(line(&[&install[..], &["--no-install-recommends"]].concat(), &self.names));
        commands
    }

    /// The commands as one line to type.
    pub(crate) fn shown(&self, privilege: Privilege) -> String {
        let commands = self.commands(privilege);
        commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join(" && ")
    }

    /// Prints and runs the commands.
    ///
    /// # Errors
    /// `Exit::Missing` naming the command that failed.
    pub(crate) fn install(&self, privilege: Privilege) -> Result<(), Error> {
        for words in self.commands(privilege) {
            let Some((program, arguments)) = words.split_first() else { continue };
            let mut command = Command::new(program);
            command.args(arguments);
            let status = command::run(&mut command, Some(PACKAGES_LIMIT))?;
            if !status.success() {
                return Err(Error::missing(format!("`{}` failed ({status})", words.join(" "))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_told_apart_by_os_release() {
        let read = System::from_os_release;
        assert_eq!(read("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"), System::Debian);
        assert_eq!(read("ID=ubuntu\nID_LIKE=debian\n"), System::DebianRelative("ubuntu".to_owned()));
        assert_eq!(
            read("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"),
            System::DebianRelative("linuxmint".to_owned())
        );
        assert_eq!(read("ID=\"fedora\"\n"), System::OtherLinux("fedora".to_owned()));
        assert_eq!(read(""), System::OtherLinux("unknown".to_owned()));
    }

    #[test]
    fn package_commands_follow_the_right_to_install() {
        let packages = Packages { architecture: Some("arm64".to_owned()), names: vec!["a:arm64".to_owned()] };
        assert_eq!(
            packages.shown(Privilege::Root),
            "dpkg --add-architecture arm64 && apt-get update && \
             env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends a:arm64"
        );
        let own = Packages::own(&["qemu-user"]);
        assert!(own.shown(Privilege::Sudo).starts_with("sudo -n apt-get update && sudo -n env"));
        assert!(own.shown(Privilege::None).starts_with("sudo apt-get update && sudo env"));
    }
}
