//! `cargo xtask check`: a container computes on its target what the host measured.

use crate::error::Error;
use crate::flags::CheckFlags;

/// Runs the command.
///
/// # Errors
/// Always: it is not built yet.
pub(crate) fn run(_flags: &CheckFlags) -> Result<(), Error> {
    Err(Error::failed("check: not built yet"))
}
