//! Maps weight files into memory: the one place of this crate with unsafe code.
//!
//! A checkpoint is often larger than the memory it is quantized in; mapped, only the tensor at hand is resident.
#![allow(unsafe_code, reason = "mapping a file is unsafe: another process may change it under the map")]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// Maps a regular file for reading. The file must not be changed or shortened while the map lives: the bytes would
/// change under the reader, and access beyond a new end kills the process.
///
/// # Errors
/// The file cannot be opened, is not a regular file, or cannot be mapped.
pub(super) fn map(path: &Path) -> io::Result<Mmap> {
    // Asked before opening, as opening a named pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"));
    }
    let file = File::open(path)?;
    // SAFETY: the map is read-only, and a checkpoint is not written to while it is being quantized, which this
    // function's doc demands. Its bytes are only ever decoded as integers and floats, for which every bit pattern is
    // a value, and lengths are taken from the map itself, never read twice from the file.
    unsafe { Mmap::map(&file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_files_and_refuses_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        std::fs::write(&path, b"bytes").unwrap();
        assert_eq!(&map(&path).unwrap()[..], b"bytes");
        std::fs::write(&path, b"").unwrap();
        assert!(map(&path).unwrap().is_empty());
        assert_eq!(map(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(map(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
