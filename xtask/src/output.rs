//! Printing that never panics: a closed pipe ends the command with its exit code instead.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Exit};

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

/// A report as one JSON object.
///
/// # Errors
/// `Exit::Failed` for what JSON cannot hold.
pub(crate) fn json(report: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(report).map_err(|error| Error::failed("the report is not JSON").caused_by(&error))
}

/// Writes one line to standard error; nothing can be done when that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The file with another ending beside a Markdown file.
///
/// # Errors
/// `Exit::Input` for a name that is none, or has that ending itself.
pub(crate) fn beside(markdown: &Path, ending: &str) -> Result<PathBuf, Error> {
    let other = markdown.with_extension(ending);
    if other == markdown || markdown.file_name().is_none() {
        let message = format!("--output {}: expected the name of a Markdown file", markdown.display());
        return Err(Error::input(message)
            .remedy(format!("give FILE.md; what else there is goes to FILE.{ending} and the like")));
    }
    Ok(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_go_beside_the_markdown() {
        assert_eq!(beside(Path::new("a/b.md"), "json").expect("a name"), Path::new("a/b.json"));
        assert_eq!(beside(Path::new("a/b"), "svg").expect("a name"), Path::new("a/b.svg"));
        assert!(beside(Path::new("a/b.json"), "json").is_err() && beside(Path::new("/"), "json").is_err());
    }
}
