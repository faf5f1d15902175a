//! How large the parts of an image are.

use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind};
use serde::Serialize;

use crate::error::Error;

/// The section that keeps room for the stack, which the target's description says the size of.
const STACK: &str = ".stack";

/// Bytes of an image, the container included where it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sizes {
    /// Instructions.
    pub(crate) text_bytes: u64,
    /// Constants, the container among them, and the first values of variables.
    pub(crate) constant_bytes: u64,
    /// Variables.
    pub(crate) variable_bytes: u64,
}

impl Sizes {
    /// Of an ELF file.
    ///
    /// # Errors
    /// `Exit::Disk` and `Exit::Failed`.
    pub(crate) fn of(elf: &Path) -> Result<Sizes, Error> {
        let bytes = std::fs::read(elf).map_err(|error| Error::disk("read", elf, &error))?;
        let file = object::File::parse(&*bytes)
            .map_err(|error| Error::failed(format!("{}: {error}", elf.display())))?;
        let mut sizes = Sizes::default();
        for section in file.sections() {
            // What isn't loaded, as defmt's table, takes nothing of the device.
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
            if !sh_flags.contains(object::elf::SHF_ALLOC) {
                continue;
            }
            if section.name() == Ok(STACK) {
                continue;
            }
            match section.kind() {
                SectionKind::Text => sizes.text_bytes += section.size(),
                SectionKind::Data => {
                    sizes.constant_bytes += section.size();
                    sizes.variable_bytes += section.size();
                }
                SectionKind::UninitializedData => sizes.variable_bytes += section.size(),
                _ => sizes.constant_bytes += section.size(),
            }
        }
        Ok(sizes)
    }
}

/// Refuses an image that has code of panics in it, where it was built to have none.
///
/// # Errors
/// `Exit::Failed` naming the symbol, `Exit::Disk`.
pub(crate) fn check_no_panics(elf: &Path) -> Result<(), Error> {
    let bytes = std::fs::read(elf).map_err(|error| Error::disk("read", elf, &error))?;
    let failed = |why: String| Error::failed(format!("{}: {why}", elf.display()));
    let file = object::File::parse(&*bytes).map_err(|error| failed(error.to_string()))?;
    let mut symbols = file.symbols().filter_map(|symbol| symbol.name().ok()).peekable();
    if symbols.peek().is_none() {
        return Err(failed("it has no symbols to look for panics in".to_owned()));
    }
    match symbols.find(|name| name.contains("core9panicking")) {
        Some(symbol) => Err(failed(format!("the code of panics is in it: {symbol}"))),
        None => Ok(()),
    }
}
