//! GGUF files: sizes, tokenizer and weights in one file, as llama.cpp and its relatives read it.
//!
//! ```text
//! "GGUF", u32 version, u64 tensors, u64 entries
//! entries:  key, u32 type, value          -> metadata   (arrays stay in the file: only their place is kept)
//! tensors:  name, sizes, u32 type, offset -> directory  (checked: whole blocks, aligned, in the file, no overlap)
//! padding, then the tensors' bytes        -> TensorStore
//! ```
//!
//! All numbers are little-endian; texts have a u64 length in front. Versions 2 and 3 are the same but for byte orders, of which the
//! little one is read.
//!
//! The parser is our own. Of the crates that were looked at, `gguf` 0.1 and `ggus` 0.5 trust counts and type codes of the file (memory of
//! any size, recursion of any depth, unknown codes made into enums), `gguf-rs` 0.1 replaces bytes of tokens that are not UTF-8 and
//! has wrong sizes for BF16, and `gguf-rs-lib` 0.3, which does bound its memory, copies every array and says of none of its errors where in the
//! file they are. An importer must: name, byte, expected, found.

mod chat_template;
mod cursor;
mod directory;
#[cfg(test)]
mod family_tests;
mod metadata;
mod rotary;
mod sentence_piece;
mod sizes;
#[cfg(test)]
mod test_file;
#[cfg(test)]
mod tests;
mod tokenizer;
#[cfg(test)]
mod tokenizer_tests;

use std::path::Path;

pub use chat_template::GgufChatTemplate;
pub(super) use chat_template::chat_template;
use metadata::Metadata;
pub(super) use rotary::{LONG_DIVISORS, ROPE_DIVISORS, SHORT_DIVISORS};
pub(super) use sizes::{EMBEDDING, HEAD, Sizes, sizes};
pub use tokenizer::GgufTokenizer;

use super::{CheckpointError, TensorStore, mmap};
use cursor::Cursor;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// The alignment of tensors where the file gives none.
const DEFAULT_ALIGNMENT: u32 = 32;

/// An opened file: its metadata, and its tensors under the file's own names.
#[derive(Debug)]
pub(super) struct Gguf {
    pub(super) metadata: Metadata,
    pub(super) store: TensorStore,
}

impl Gguf {
    /// Maps a file, and reads everything in front of the tensors' bytes.
    ///
    /// # Errors
    /// The file cannot be mapped; it is not GGUF of a version that is read; a length, count, type or offset leads out of the
    /// file or contradicts another; a tensor has a type that is not read.
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = mmap::map(path).map_err(|cause| CheckpointError::Read { path: path.to_owned(), cause })?;
        let mut cursor = Cursor::new(path, &map);
        let (tensors, entries) = head(&mut cursor)?;
        let metadata = Metadata::read(&mut cursor, entries)?;
        let alignment = metadata.fields(path, &map).alignment()?;
        let directory = directory::read(&mut cursor, tensors, alignment)?;
        let mut store = TensorStore::new(path);
        store.add_file(path.to_owned(), map);
        for (name, stored) in directory {
            store.add_tensor(name, stored)?;
        }
        Ok(Self { metadata, store })
    }

    /// The metadata, with what reading it needs.
    pub(super) fn fields(&self) -> metadata::Fields<'_> {
        self.metadata.fields(self.store.path(), self.store.file_bytes(0))
    }
}

/// Magic and version; the numbers of tensors and of entries.
fn head(cursor: &mut Cursor<'_>) -> Result<(u64, u64), CheckpointError> {
    const EXPECTED: &str = "\"GGUF\" (a model is a GGUF file or a Hugging Face folder)";
    let found = cursor.rest();
    let found = &found[..found.len().min(MAGIC.len())];
    if found != MAGIC {
        return Err(cursor.wrong(0, "magic number", EXPECTED, found.escape_ascii()));
    }
    cursor.take(MAGIC.len() as u64, "magic number")?;
    let at = cursor.at();
    let version = cursor.u32("version")?;
    if !VERSIONS.contains(&version) {
        let swapped = VERSIONS.contains(&version.swap_bytes());
        let found = if swapped { "a big-endian file".to_owned() } else { version.to_string() };
        return Err(cursor.wrong(at, "version", "2 or 3, little-endian", found));
    }
    Ok((cursor.u64("number of tensors")?, cursor.u64("number of entries")?))
}
