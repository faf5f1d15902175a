//! Printing that never panics: a closed pipe ends the command with its exit code instead.

use std::io::Write;

use crate::error::Exit;

/// Writes one line to standard output.
///
/// A reader that went away (`cargo xtask targets | head -1`) ends the process with `Exit::Disk`, without a message:
/// carrying on would be work that nobody reads, and success would be a lie.
pub(crate) fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
        std::process::exit(i32::from(Exit::Disk.code()));
    }
}

/// Writes one line to standard error; nothing can be done when that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
