//! Errors: one line for the user, naming the file, and the exit code of their kind.

use std::fmt;
use std::path::Path;

use crate::exit::Exit;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    exit: Exit,
    message: String,
}

impl Error {
    /// The check missed a bound.
    pub(crate) fn failed(path: &Path, message: impl fmt::Display) -> Error {
        Error { exit: Exit::Failed, message: format!("{}: {message}", path.display()) }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Error {
        Error { exit: Exit::Input, message: message.into() }
    }

    /// A file's contents are wrong, or do not go with the command line.
    pub(crate) fn input(path: &Path, message: impl fmt::Display) -> Error {
        Error { exit: Exit::Input, message: format!("{}: {message}", path.display()) }
    }

    /// A file could not be read or written.
    pub(crate) fn disk(path: &Path, message: impl fmt::Display) -> Error {
        Error { exit: Exit::Disk, message: format!("{}: {message}", path.display()) }
    }

    /// A file could not be read, as a message says that names it.
    pub(crate) fn disk_message(message: impl fmt::Display) -> Error {
        Error { exit: Exit::Disk, message: message.to_string() }
    }

    /// The system refused something that is no file.
    pub(crate) fn system(doing: &str, source: &dyn std::error::Error) -> Error {
        Error { exit: Exit::Failed, message: format!("cannot {doing}: {source}") }
    }

    /// This machine does not compute what it should.
    pub(crate) fn wrong_machine(message: impl fmt::Display) -> Error {
        Error { exit: Exit::Failed, message: message.to_string() }
    }

    /// The exit code of this error.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
