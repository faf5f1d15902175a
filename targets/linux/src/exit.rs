//! Exit codes: the same numbers with the same meanings as those of the project's other commands (docs/exit-codes.md).

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// The check missed a bound.
    Failed = 1,
    /// The command line or an input file is wrong.
    Input = 2,
    /// Reading or writing a file failed.
    Disk = 4,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// The number the process ends with.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// The end of every help text.
pub(crate) const HELP: &str = "Exit codes: 0 all went well, 1 the check missed a bound, 2 wrong command line or input \
                               file, 4 a file could not be read or written, 130 interrupted.";
