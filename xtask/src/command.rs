//! Running other programs: printed before they run, without input, with a time limit, in a clean environment.
//!
//! `cargo xtask` itself runs below a cargo that may belong to rustup, which leaves variables (`RUSTUP_TOOLCHAIN`, `CARGO`,
//! `LD_LIBRARY_PATH`, ...) that would bend another toolchain's cargo; [`clean`] takes them out of a child's environment.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::output;

/// Time limit of a question to a tool that answers at once, such as `rustc --version`.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Variables that a surrounding cargo, rustup or clippy sets, or that choose another toolchain.
const TOOLCHAIN_VARIABLES: [&str; 19] = [
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTDOCFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUSTUP_TOOLCHAIN_SOURCE",
    "RUST_RECURSION_COUNT",
];

/// The variable of compiler flags that takes precedence over every other source of them.
pub(crate) const ENCODED_FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";

/// Separates the flags in it, so that paths may have spaces.
pub(crate) const FLAG_SEPARATOR: &str = "\u{1f}";

/// Prefixes of variables that cargo sets for the crate it runs: this one, not the child's.
const CRATE_PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

/// Takes the surrounding toolchain's variables out of `command`'s environment.
pub(crate) fn clean(command: &mut Command) {
    for variable in TOOLCHAIN_VARIABLES {
        command.env_remove(variable);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| CRATE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    // cargo puts the toolchain's own libraries in front; another compiler must not load them.
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        match without_toolchain_folders(&paths) {
            Some(rest) => command.env("LD_LIBRARY_PATH", rest),
            None => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
}

/// The entries of a library path that are not cargo's: not in a target directory, not in a compiler's `rustlib`, and not a
/// rustup toolchain's `lib`. `None` when nothing is left.
fn without_toolchain_folders(paths: &OsStr) -> Option<OsString> {
    let cargos = |path: &Path| {
        let names: Vec<&str> = path.iter().filter_map(OsStr::to_str).collect();
        names.iter().any(|name| ["toolchains", "rustlib", "debug", "release"].contains(name))
    };
    let rest: Vec<PathBuf> =
        std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty() && !cargos(path)).collect();
    if rest.is_empty() { None } else { std::env::join_paths(rest).ok() }
}

/// Every executable called `name` on the search path, first found first.
pub(crate) fn all_in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&path).map(|folder| folder.join(&file)).filter(|path| is_executable(path)).collect()
}

/// The executable that `name` means on the search path.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    all_in_path(name).into_iter().next()
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// The command as one would type it, with the variables it sets. Encoded flags are shown as `RUSTFLAGS`, which can be typed.
pub(crate) fn show(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        let Some(value) = value else { continue };
        words.push(if name == ENCODED_FLAGS {
            let flags = value.to_string_lossy().replace(FLAG_SEPARATOR, " ");
            format!("RUSTFLAGS={}", quoted(OsStr::new(&flags)))
        } else {
            format!("{}={}", name.to_string_lossy(), quoted(value))
        });
    }
    words.push(quoted(command.get_program()));
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Asks a tool and returns what it prints, or `None` when it is missing, fails or takes longer than [`ANSWER_LIMIT`].
/// Not printed: it changes nothing.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let (status, text) = ask_any(command)?;
    status.success().then_some(text)
}

/// As [`ask`], for tools whose answer does not depend on their exit code.
pub(crate) fn ask_any(command: &mut Command) -> Option<(ExitStatus, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let reader = child.stdout.take().map(|mut stdout| {
        std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        })
    });
    let status = wait(&mut child, Some(ANSWER_LIMIT)).ok()??;
    Some((status, reader?.join().ok()?.ok()?))
}

/// Prints `command` and runs it; its output goes where this process's goes.
///
/// # Errors
/// `Exit::Missing` when it cannot be started, or takes longer than `limit` (it is then ended).
pub(crate) fn run(command: &mut Command, limit: Option<Duration>) -> Result<ExitStatus, Error> {
    let shown = show(command);
    output::note(&format!("$ {shown}"));
    let mut child = command.stdin(Stdio::null()).spawn().map_err(|source| cannot_start(&shown, &source))?;
    wait(&mut child, limit)
        .map_err(|source| cannot_start(&shown, &source))?
        .ok_or_else(|| too_slow(&shown, limit))
}

/// Prints `command`, runs it, and hands each line of its standard output to `line` as it comes. Standard error goes where
/// this process's goes.
///
/// # Errors
/// `Exit::Missing` when it cannot be started, `Exit::Failed` when it takes longer than `limit` (it is then ended).
pub(crate) fn stream(
    command: &mut Command,
    limit: Option<Duration>,
    line: impl FnMut(&str) + Send,
) -> Result<ExitStatus, Error> {
    let shown = show(command);
    output::note(&format!("$ {shown}"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| cannot_start(&shown, &source))?;
    let stdout = child.stdout.take();
    let status = std::thread::scope(|scope| {
        if let Some(stdout) = stdout {
            scope.spawn(move || each_line(stdout, line));
        }
        wait(&mut child, limit)
    });
    let status = status.map_err(|source| cannot_start(&shown, &source))?;
    status.ok_or_else(|| {
        Error::failed(format!("no end after {} s: {shown}", limit.unwrap_or_default().as_secs()))
    })
}

fn each_line(stdout: impl Read, mut line: impl FnMut(&str)) {
    let mut reader = BufReader::new(stdout);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&bytes);
        line(text.trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
}

/// Waits for `child`; ends it and returns `None` when `limit` has passed.
fn wait(child: &mut Child, limit: Option<Duration>) -> std::io::Result<Option<ExitStatus>> {
    let Some(limit) = limit else { return child.wait().map(Some) };
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn cannot_start(shown: &str, source: &std::io::Error) -> Error {
    Error::missing(format!("cannot run: {shown}")).caused_by(source)
}

fn too_slow(shown: &str, limit: Option<Duration>) -> Error {
    Error::missing(format!("no answer after {} s: {shown}", limit.unwrap_or_default().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed() {
        let mut command = Command::new("cargo");
        command.arg("test").arg("two words").arg("it's").env("A", "b c").env_remove("RUSTC");
        command.env(ENCODED_FLAGS, "-Ca=b\u{1f}-Cd=e");
        assert_eq!(show(&command), "A='b c' RUSTFLAGS='-Ca=b -Cd=e' cargo test 'two words' 'it'\\''s'");
    }

    #[test]
    fn library_folders_of_a_toolchain_are_left_out() {
        let path = "/p/target/debug/deps:/opt/lib:/h/.rustup/toolchains/stable/lib:/usr/lib/rustlib/x/lib";
        assert_eq!(without_toolchain_folders(OsStr::new(path)), Some(OsString::from("/opt/lib")));
        assert_eq!(without_toolchain_folders(OsStr::new("/p/target/debug")), None);
    }

    #[cfg(unix)]
    #[test]
    fn lines_are_streamed_and_the_status_is_returned() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; printf two; exit 3"]);
        let status =
            stream(&mut command, Some(ANSWER_LIMIT), |line| lines.push(line.to_owned())).expect("runs");
        assert_eq!((status.code(), lines), (Some(3), vec!["one".to_owned(), "two".to_owned()]));
    }

    #[cfg(unix)]
    #[test]
    fn a_slow_command_is_ended() {
        let start = Instant::now();
        let error =
            run(Command::new("sleep").arg("60"), Some(Duration::from_millis(200))).expect_err("too slow");
        assert!(error.to_string().contains("sleep 60"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-anywhere"), None).expect_err("missing");
        assert!(error.to_string().contains("no-such-program-anywhere"), "{error}");
        assert_eq!(ask(&mut Command::new("no-such-program-anywhere")), None);
    }
}
