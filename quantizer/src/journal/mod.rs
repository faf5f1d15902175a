//! Finished blocks on disk, so that a run that was killed goes on where it stopped.
//!
//! ```text
//! FOLDER/head.json        what decides the result of every block, by name; its SHA-256 (identity)
//! FOLDER/block-0000.bin   the first block's matrices: codes, scales, grid, report (block)
//! FOLDER/block-0001.bin   ...
//! ```
//!
//! A file is written beside its place, flushed to the disk and renamed, so it is there whole or not at all, and it carries a checksum.
//! Each block's file carries the identity of its run: a block of another run, whatever brought it here, is never taken.
//!
//! A resumed run takes the blocks from the first one on while they are whole, and runs both activation streams through them, which
//! costs two forwards and no solving. The streams come out with the very bits that they had, since nothing else goes into them, and
//! every later block is solved from the same numbers on the same machine (identity has what decides their last bits). So the
//! container is, byte for byte, that of a run that was never stopped.

mod block;
mod identity;
mod machine;
#[cfg(test)]
mod tests;

pub use identity::Identity;

use crate::calibrate::QuantizedMatrix;
use crate::checkpoint::LayerWeights;
use crate::files;
use std::io;
use std::path::{Path, PathBuf};

const HEAD_FILE: &str = "head.json";
/// The most that is read of a head.
const HEAD_LIMIT_BYTES: u64 = 1 << 20;

/// Why finished blocks could not be kept or taken.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file could not be read, written or removed.
    #[error("cannot {doing} {path}: {cause}")]
    Disk {
        /// `read`, `write` or `remove`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The finished blocks belong to a run whose result is another.
    #[error("{folder} was begun with other settings: {}", .differences.join("; "))]
    Settings {
        /// The folder.
        folder: PathBuf,
        /// What differs, a setting each.
        differences: Vec<String>,
    },
    /// A block has no spelling in the file's format.
    #[error("block {layer} cannot be written down: {cause}")]
    Encode {
        /// The block.
        layer: usize,
        /// Why.
        cause: postcard::Error,
    },
}

fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |cause| JournalError::Disk { doing, path, cause }
}

/// A block, as far as an earlier run finished it.
#[derive(Debug)]
pub enum Restored {
    /// Its matrices, in the order of the forward.
    Matrices(Vec<QuantizedMatrix>),
    /// It was not finished.
    Nothing,
    /// Its file cannot be used; the text says why. It and the later blocks have to be solved again.
    Damaged(String),
}

/// What [`Journal::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Finished blocks of this very run, so many.
    Blocks(usize),
    /// A run with other settings; not where it is to be resumed, which is an error then.
    OtherRun,
    /// A head that cannot be read: whose blocks they are is unknown.
    DamagedHead,
}

/// The finished blocks of a run.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    identity: Identity,
    resume: bool,
    /// Blocks from here on are not taken from the folder.
    end: usize,
}

impl Journal {
    /// Looks for an earlier run in `folder`, which need not exist. Nothing is changed before [`Journal::begin`]. Where `resume` is
    /// false, or the head is damaged, the run starts at the first block.
    ///
    /// # Errors
    /// [`JournalError::Disk`]; [`JournalError::Settings`] where a run with other settings is to be resumed.
    pub fn open(folder: &Path, identity: Identity, resume: bool) -> Result<(Journal, Found), JournalError> {
        let head = folder.join(HEAD_FILE);
        let found = match read_head(&head)? {
            None => Found::Nothing,
            Some(bytes) => match Identity::from_json(&bytes) {
                None => Found::DamagedHead,
                Some(earlier) if earlier == identity => Found::Blocks(count_blocks(folder)),
                Some(earlier) if resume => {
                    let differences = earlier.differences(&identity);
                    return Err(JournalError::Settings { folder: folder.to_owned(), differences });
                }
                Some(_) => Found::OtherRun,
            },
        };
        let end = match found {
            Found::Blocks(blocks) if resume => blocks,
            _ => 0,
        };
        Ok((Journal { folder: folder.to_owned(), identity, resume, end }, found))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what is not taken: an earlier run that is not resumed, files that a killed one left half written.
    ///
    /// # Errors
    /// [`JournalError::Disk`].
    pub fn begin(&mut self) -> Result<(), JournalError> {
        if self.resume && self.end > 0 {
            return self.remove_files(|name| {
                name != HEAD_FILE && block_number(name).is_none_or(|block| block >= self.end)
            });
        }
        self.remove()
    }

    /// The matrices of block `layer`, checked against the weights that they stand for. Ask for the blocks in order: once one is
    /// missing or damaged, it and the later ones are removed.
    ///
    /// # Errors
    /// [`JournalError::Disk`].
    pub fn restore(&mut self, layer: usize, weights: &LayerWeights) -> Result<Restored, JournalError> {
        if layer >= self.end {
            return Ok(Restored::Nothing);
        }
        let path = self.block_path(layer);
        let bytes = std::fs::read(&path).map_err(disk("read", &path))?;
        match block::decode(&bytes, layer, &self.identity.digest(), weights) {
            Ok(matrices) => Ok(Restored::Matrices(matrices)),
            Err(why) => {
                self.end = layer;
                self.remove_files(|name| block_number(name).is_some_and(|block| block >= layer))?;
                let path = path.display();
                Ok(Restored::Damaged(format!(
                    "{path}: {why}; this block and the later ones are solved again"
                )))
            }
        }
    }

    /// Keeps the matrices of a finished block.
    ///
    /// # Errors
    /// [`JournalError::Disk`] or [`JournalError::Encode`].
    pub fn keep(&mut self, layer: usize, matrices: &[QuantizedMatrix]) -> Result<(), JournalError> {
        files::make_folder(&self.folder).map_err(disk("write", &self.folder))?;
        // Another run in the same folder may have replaced or removed the head: then the folder is taken over. Blocks of
        // another run would be refused by their identity.
        let head = self.folder.join(HEAD_FILE);
        let json = self.identity.to_json();
        if read_head(&head)?.as_deref() != Some(json.as_bytes()) {
            self.remove_files(|_| true)?;
            self.write(HEAD_FILE, json.as_bytes())?;
        }
        let bytes = block::encode(layer, &self.identity.digest(), matrices)
            .map_err(|cause| JournalError::Encode { layer, cause })?;
        self.write(&block_name(layer), &bytes)
    }

    /// Whether the folder holds a finished block.
    pub fn has_blocks(&self) -> bool {
        count_blocks(&self.folder) > 0
    }

    /// Removes the folder and what is in it.
    ///
    /// # Errors
    /// [`JournalError::Disk`].
    pub fn remove(&self) -> Result<(), JournalError> {
        let absent_is_fine = |removed: io::Result<()>| match removed {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        // The head first: without it, no block counts.
        let head = self.folder.join(HEAD_FILE);
        absent_is_fine(std::fs::remove_file(&head)).map_err(disk("remove", &head))?;
        absent_is_fine(std::fs::remove_dir_all(&self.folder)).map_err(disk("remove", &self.folder))
    }

    fn block_path(&self, layer: usize) -> PathBuf {
        self.folder.join(block_name(layer))
    }

    /// Removes the files of the folder that `which` names.
    fn remove_files(&self, which: impl Fn(&str) -> bool) -> Result<(), JournalError> {
        let entries = std::fs::read_dir(&self.folder).map_err(disk("read", &self.folder))?;
        for entry in entries {
            let entry = entry.map_err(disk("read", &self.folder))?;
            if which(&entry.file_name().to_string_lossy()) {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(disk("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Writes a file whole.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let path = self.folder.join(name);
        files::replace(&path, bytes, files::FILE, |_| ()).map_err(disk("write", &path))
    }
}

/// The head's bytes; `None` where there is none.
fn read_head(path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path)?, HEAD_LIMIT_BYTES), &mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(disk("read", path)(cause)),
    }
}

fn block_name(layer: usize) -> String {
    format!("block-{layer:04}.bin")
}

fn block_number(name: &str) -> Option<usize> {
    let number: usize = name.strip_prefix("block-")?.strip_suffix(".bin")?.parse().ok()?;
    (block_name(number) == name).then_some(number)
}

/// Blocks from the first one on that have a file.
fn count_blocks(folder: &Path) -> usize {
    (0..).take_while(|&layer| folder.join(block_name(layer)).is_file()).count()
}
