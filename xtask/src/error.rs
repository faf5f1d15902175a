//! Exit codes and errors of the commands.
//!
//! Every command returns `Result<(), Error>`. An [`Error`] is one line for the user, the causes below it, and the [`Exit`]
//! code of its kind, so that scripts tell "the model got worse" from "a tool is missing". `docs/exit-codes.md` is the
//! table for users; `cargo xtask tidy` compares it with [`Exit::ALL`].

use std::fmt;
use std::path::Path;

/// How a command ended, as its process exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// A check or a bound was missed, or tests failed.
    Failed = 1,
    /// The command line or an input file is wrong.
    Input = 2,
    /// A tool or a target is missing.
    Missing = 3,
    /// Reading or writing a file failed.
    Disk = 4,
    /// Interrupted (Ctrl-C).
    Interrupted = 130,
}

impl Exit {
    /// Every code, in ascending order.
    pub(crate) const ALL: [Exit; 6] =
        [Exit::Success, Exit::Failed, Exit::Input, Exit::Missing, Exit::Disk, Exit::Interrupted];

    /// The number the process ends with.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// What the code tells, as `docs/exit-codes.md` and `--help` say it.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "all went well",
            Exit::Failed => "a check or a bound was missed, or tests failed",
            Exit::Input => "the command line or an input file is wrong",
            Exit::Missing => "a tool or a target is missing",
            Exit::Disk => "reading or writing a file failed",
            Exit::Interrupted => "interrupted (Ctrl-C)",
        }
    }
}

/// What went wrong: one line, its causes from near to far, what to do about it, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    remedies: Vec<String>,
}

impl Error {
    /// An error of any kind.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Error {
        Error { exit, message: message.into(), causes: Vec::new(), remedies: Vec::new() }
    }

    /// A check or a bound was missed, or tests failed.
    pub(crate) fn failed(message: impl Into<String>) -> Error {
        Error::new(Exit::Failed, message)
    }

    /// The command line or an input file is wrong.
    pub(crate) fn input(message: impl Into<String>) -> Error {
        Error::new(Exit::Input, message)
    }

    /// A tool or a target is missing.
    pub(crate) fn missing(message: impl Into<String>) -> Error {
        Error::new(Exit::Missing, message)
    }

    /// Reading or writing `path` failed; `doing` says which, for instance "read".
    pub(crate) fn disk(doing: &str, path: &Path, source: &std::io::Error) -> Error {
        Error::new(Exit::Disk, format!("cannot {doing} {}", path.display())).caused_by(source)
    }

    /// Adds a cause and the causes behind it.
    pub(crate) fn caused_by(mut self, source: &dyn std::error::Error) -> Error {
        let mut next = Some(source);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// Adds a cause in words.
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Error {
        self.causes.push(cause.into());
        self
    }

    /// Adds a command or an action that helps.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedies.push(remedy.into());
        self
    }

    /// The exit code of this error.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  cause: {cause}")?;
        }
        for remedy in &self.remedies {
            write!(f, "\n  remedy: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_one_line_then_its_causes_then_the_remedies() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::disk("read", Path::new("a/b.toml"), &source).because("second").remedy("create it");
        assert_eq!(
            error.to_string(),
            "cannot read a/b.toml\n  cause: no such file\n  cause: second\n  remedy: create it"
        );
        assert_eq!(error.exit().code(), 4);
    }

    #[test]
    fn exit_codes_ascend_and_have_meanings() {
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        assert!(Exit::ALL.iter().all(|exit| !exit.meaning().is_empty()));
    }
}
