//! Commands on a device, through the system's OpenSSH client over one connection.

use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

use crate::command;
use crate::error::Error;

/// What ssh itself ends with where it cannot connect.
const NOT_CONNECTED: i32 = 255;
/// Bytes sent between two updates of the progress.
const PART_BYTES: usize = 1 << 16;

/// A device that commands run on.
#[derive(Debug)]
pub(super) struct Remote {
    host: String,
    options: Vec<String>,
    /// Holds the socket of the shared connection.
    sockets: TempDir,
}

impl Remote {
    /// A device; `options` are of ssh's `-o`. Nothing is connected yet.
    ///
    /// # Errors
    /// `Exit::Missing` without an ssh client, `Exit::Input` for a host that is an option.
    pub(super) fn new(host: &str, options: &[String]) -> Result<Remote, Error> {
        if host.is_empty() || host.starts_with('-') {
            return Err(Error::input(format!("--host {host:?}: expected user@board")));
        }
        command::in_path("ssh").ok_or_else(|| {
            Error::missing("there is no ssh client")
                .remedy("install OpenSSH's (Debian: apt-get install openssh-client)")
        })?;
        let sockets = tempfile::tempdir()
            .map_err(|error| Error::disk("make a folder in", &std::env::temp_dir(), &error))?;
        Ok(Remote { host: host.to_owned(), options: options.to_vec(), sockets })
    }

    /// The host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        // One connection for all commands: one greeting, and at most one question for a password.
        let socket = self.sockets.path().join("%C");
        ssh.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60"]);
        ssh.arg("-o").arg(format!("ControlPath={}", socket.display()));
        for option in &self.options {
            ssh.args(["-o", option]);
        }
        ssh
    }

    /// A POSIX shell script on the device.
    fn script(&self, script: &str) -> Command {
        let mut ssh = self.ssh();
        ssh.args(["--", &self.host]).arg(format!("exec sh -c {}", quoted(script)));
        ssh
    }

    /// Runs a script and returns what it prints, whatever it ends with.
    ///
    /// # Errors
    /// `Exit::Missing` where the device cannot be reached.
    pub(super) fn run_any(&self, script: &str) -> Result<Output, Error> {
        let output = self.script(script).stdin(Stdio::null()).output();
        let output = output.map_err(|error| Error::missing("cannot run ssh").caused_by(&error))?;
        match output.status.code() {
            Some(NOT_CONNECTED) => Err(self.unreachable(&output.stderr)),
            _ => Ok(output),
        }
    }

    /// Runs a script that must succeed and returns what it prints; `doing` says what for.
    ///
    /// # Errors
    /// `Exit::Failed` with what it said, `Exit::Missing` where the device cannot be reached.
    pub(super) fn run(&self, doing: &str, script: &str) -> Result<String, Error> {
        let output = self.run_any(script)?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(self.failed(doing, output.status, &output.stderr)),
        }
    }

    /// Appends bytes to a file (a quoted path) on the device; `sent` hears of each part.
    ///
    /// # Errors
    /// As [`Remote::run`].
    pub(super) fn append(
        &self,
        quoted_path: &str,
        bytes: &[u8],
        mut sent: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut command = self.script(&format!("cat >> {quoted_path}"));
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| Error::missing("cannot run ssh").caused_by(&error))?;
        if let Some(mut stdin) = child.stdin.take() {
            for part in bytes.chunks(PART_BYTES) {
                // A pipe that breaks is explained by how ssh ends.
                if stdin.write_all(part).is_err() {
                    break;
                }
                sent(part.len() as u64);
            }
        }
        let mut said = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_end(&mut said);
        }
        let status = child.wait().map_err(|error| Error::missing("cannot wait for ssh").caused_by(&error))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(NOT_CONNECTED) => Err(self.unreachable(&said)),
            _ => Err(self.failed(&format!("write {quoted_path}"), status, &said)),
        }
    }

    fn unreachable(&self, said: &[u8]) -> Error {
        Error::missing(format!("{} cannot be reached by ssh", self.host))
            .because(String::from_utf8_lossy(said).trim().to_owned())
            .remedy(format!("`ssh {}` must work", self.host))
    }

    fn failed(&self, doing: &str, status: ExitStatus, said: &[u8]) -> Error {
        Error::failed(format!("{}: cannot {doing} ({status})", self.host))
            .because(String::from_utf8_lossy(said).trim().to_owned())
    }
}

impl Drop for Remote {
    /// Ends the shared connection, which would otherwise outlive the command by a minute.
    fn drop(&mut self) {
        let mut ssh = self.ssh();
        ssh.args(["-O", "exit", "--", &self.host]);
        let _ = ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A word for a POSIX shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_and_hosts_are_no_options() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $x"), "'it'\\''s $x'");
        for host in ["-oProxyCommand=x", ""] {
            assert!(Remote::new(host, &[]).expect_err("refused").to_string().contains("expected user@board"));
        }
    }
}
