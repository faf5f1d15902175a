//! A file's bytes, mapped into memory: the weights are read in place, and only the pages that are used.
#![allow(unsafe_code, reason = "a memory map is shared with whoever writes the file")]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

use crate::error::Error;

/// Maps a file, read-only. The map begins at a page, so at a multiple of 64 bytes.
///
/// The file must not be written to while the program runs: copy a new container beside it and rename it.
///
/// # Errors
/// `Exit::Disk` where the file isn't there or can't be mapped, `Exit::Input` where it is empty or no regular file.
pub(crate) fn map(path: &Path) -> Result<Mmap, Error> {
    let failed = |error: io::Error| Error::disk(path, format_args!("cannot read: {error}"));
    // Asked before opening, as opening a named pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::input(path, "expected a container, found a folder"));
    }
    if !metadata.is_file() {
        return Err(Error::input(path, "expected a container, found a device, pipe or socket"));
    }
    if metadata.len() == 0 {
        return Err(Error::input(path, "expected a container, found an empty file"));
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and its file isn't written to while the program runs, which this function's doc demands. Its
    // length is taken from the map and never read again from the file.
    unsafe { Mmap::map(&file) }.map_err(failed)
}
