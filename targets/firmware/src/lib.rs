//! What the programs for devices without an operating system share: the same check and the same generation, in memory that is given
//! to them.
//!
//! ```text
//! Command::parse(words)            what to do
//! check(container, ..) -> Report   the windows, a token at a time and in tiles; equal digests or not
//! generate(container, ..)          the most likely text behind a prompt
//! ```
//! Nothing here knows a board. A program supplies the container, the memory, the kernel table and a way to write text.
#![cfg_attr(not(test), no_std)]

mod check;
mod command;
mod escaped;
mod failure;
mod generate;

pub use check::{Report, TILE, check};
pub use command::{Command, CommandError, DEFAULT_PROMPT, MAX_PROMPT_BYTES, Test};
pub use escaped::Escaped;
pub use failure::Failure;
pub use generate::{Ending, Generated, generate};

use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_runtime::parts;

/// Opens the container of an image, and checks everything in it, its digest included.
///
/// # Errors
/// [`Failure::NoContainer`] for an image without one, [`Failure::Container`] for one that can't be, [`Failure::Runtime`] for one that needs what
/// the image was built without.
#[inline(never)]
pub fn open(bytes: &[u8]) -> Result<CheckedContainer<'_>, Failure> {
    if bytes.is_empty() {
        return Err(Failure::NoContainer);
    }
    let container = Container::open(bytes)?.check(Integrity::Digest)?;
    parts::expect(&container)?;
    Ok(container)
}
