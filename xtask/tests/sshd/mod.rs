//! An OpenSSH server on this machine, for one test: its own keys, its own port, this user.
#![allow(unreachable_pub, reason = "shared with the test file, which is a program of its own")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running server; it ends with the value.
pub struct Sshd {
    server: Child,
    port: u16,
    folder: TempDir,
}

impl Sshd {
    /// Starts a server. `None`, with a line that says why, where there is none to start.
    pub fn start() -> Option<Sshd> {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"]
            .iter()
            .find(|path| Path::new(path).is_file());
        let Some(sshd) = sshd else {
            eprintln!("SKIPPED: needs sshd (Debian: apt-get install openssh-server)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.path().join(key))
                .status()
                .expect("ssh-keygen runs");
            assert!(made.success());
        }
        fs::copy(folder.path().join("user.pub"), folder.path().join("authorized")).expect("writable");
        // Where the server, started by root, drops its privileges.
        let _ = fs::create_dir_all("/run/sshd");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\nLogLevel ERROR\n",
            path("host"),
            path("authorized"),
            path("pid")
        );
        fs::write(folder.path().join("config"), config).expect("writable");
        let server = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(folder.path().join("config"))
            .stdin(Stdio::null())
            .spawn()
            .expect("sshd starts");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "sshd does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Sshd { server, port, folder })
    }

    /// The folder on the "device" that is deployed to. A space in its name, so that quoting shows.
    pub fn device(&self) -> PathBuf {
        self.folder.path().join("the device")
    }

    /// `cargo xtask` with these words, then the host, the folder and ssh's options, then `more`.
    pub fn xtask(&self, words: &[&str], more: &[&str]) -> Command {
        let user = Command::new("id").arg("-un").output().expect("id runs").stdout;
        let user = String::from_utf8(user).expect("UTF-8");
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(words)
            .arg("--host")
            .arg(format!("{}@127.0.0.1", user.trim()))
            .arg("--dir")
            .arg(self.device());
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        for option in [
            format!("Port={}", self.port),
            format!("IdentityFile={}", path("user")),
            format!("UserKnownHostsFile={}", path("known")),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=accept-new".to_owned(),
            "BatchMode=yes".to_owned(),
        ] {
            command.arg("--ssh-option").arg(option);
        }
        command.args(more).stdin(Stdio::null());
        command
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
