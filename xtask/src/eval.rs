//! `cargo xtask eval`: measure a model on text.

use crate::error::Error;
use crate::flags::EvalFlags;

/// Runs the command.
///
/// # Errors
/// Always: it is not built yet.
pub(crate) fn run(_flags: &EvalFlags) -> Result<(), Error> {
    Err(Error::failed("eval: not built yet"))
}
