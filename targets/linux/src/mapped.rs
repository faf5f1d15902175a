//! A file's bytes in memory: mapped, or copied to where pages are large.
//!
//! A mapped file takes no memory of its own: its pages are the system's, and only those that are used are read. But they are small, 4 KiB
//! mostly, and a processor's own guesses at what is read next end with a page, as does what one entry of its address cache covers.
//! In pages of 2 MiB it reads weights a quarter to a half faster (docs/benchmarks.md). Only anonymous memory gets those, so the file is
//! copied there where memory is ample.
#![allow(unsafe_code, reason = "a memory map is shared with whoever writes the file")]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use clap::ValueEnum;
use memmap2::{Advice, Mmap, MmapMut, MmapOptions};

use crate::error::Error;

/// A file is copied where so many times its bytes are free.
const AMPLE: u64 = 4;

/// Where the container's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// In the system's copy of the file.
    Map,
    /// In memory of the program's own, with large pages.
    Copy,
}

/// The bytes of a file. They begin at a page, so at a multiple of 64 bytes.
#[derive(Debug)]
pub(crate) enum FileBytes {
    /// See [`Load::Map`].
    Mapped(Mmap),
    /// See [`Load::Copy`].
    Copied(MmapMut),
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(bytes) => bytes,
            FileBytes::Copied(bytes) => bytes,
        }
    }
}

/// Maps or copies a file; where nothing is asked for, it is copied where that makes it faster and memory is ample.
///
/// A mapped file must not be written to while the program runs: copy a new container beside it and rename it.
///
/// # Errors
/// `Exit::Disk` where the file isn't there or can't be read, `Exit::Input` where it is empty or no regular file.
pub(crate) fn open(path: &Path, load: Option<Load>) -> Result<FileBytes, Error> {
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
    let mut file = File::open(path).map_err(failed)?;
    let load = load.unwrap_or_else(|| default_load(metadata.len()));
    if load == Load::Copy {
        let bytes = usize::try_from(metadata.len()).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mut copy = large_pages(bytes).map_err(failed)?;
        file.read_exact(&mut copy).map_err(failed)?;
        return Ok(FileBytes::Copied(copy));
    }
    // SAFETY: the map is read-only and its file isn't written to while the program runs, which this function's doc demands. Its
    // length is taken from the map and never read again from the file.
    unsafe { Mmap::map(&file) }.map_err(failed).map(FileBytes::Mapped)
}

/// Zeroed memory, in large pages where the system has them.
///
/// # Errors
/// Where there isn't as much, or it is none.
pub(crate) fn large_pages(bytes: usize) -> io::Result<MmapMut> {
    let memory = MmapOptions::new().len(bytes).map_anon()?;
    // Small pages do as well, if slower.
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}

fn default_load(file_bytes: u64) -> Load {
    let large_pages = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let meminfo = std::fs::read_to_string("/proc/meminfo");
    if large_pages.is_ok_and(|setting| has_large_pages(&setting))
        && meminfo.is_ok_and(|meminfo| available_bytes(&meminfo) / AMPLE >= file_bytes)
    {
        Load::Copy
    } else {
        Load::Map
    }
}

/// Whether memory gets large pages where a program asks for them. The setting in force stands in brackets.
fn has_large_pages(setting: &str) -> bool {
    setting.contains("[always]") || setting.contains("[madvise]")
}

/// Bytes that are free or can be made so, by the system's own estimate; 0 where it gives none.
fn available_bytes(meminfo: &str) -> u64 {
    let kibibytes = meminfo.lines().find_map(|line| {
        let rest = line.strip_prefix("MemAvailable:")?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert!(has_large_pages("always [madvise] never\n"));
        assert!(has_large_pages("[always] madvise never\n"));
        assert!(!has_large_pages("always madvise [never]\n"));
        assert_eq!(available_bytes("MemTotal:  10 kB\nMemAvailable:    2048 kB\n"), 2 << 20);
        assert_eq!(available_bytes("MemTotal:  10 kB\n"), 0);
        assert_eq!(available_bytes("MemAvailable: some\n"), 0);
    }

    #[test]
    fn both_ways_give_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..10_000_u32).map(|index| (index % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("a file");
        for load in [Some(Load::Map), Some(Load::Copy), None] {
            let found = open(&path, load).expect("bytes");
            assert_eq!(*found, bytes);
            assert_eq!(found.as_ptr() as usize % 64, 0);
        }
    }
}
