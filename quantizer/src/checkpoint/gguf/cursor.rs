//! Reads a file from front to back; what leads beyond its end is an error that says where.

use std::fmt::Display;
use std::path::Path;

use super::super::CheckpointError;

/// Most bytes of a name: far more than any has, and little to repeat in an error.
const MAX_NAME_BYTES: u64 = 1 << 16;

/// A place in a file. `path` only names the file in errors.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self::within(path, bytes, 0)
    }

    /// From byte `at` on, which must not be beyond the end.
    pub(super) fn within(path: &'a Path, bytes: &'a [u8], at: usize) -> Self {
        Self { path, bytes, at: at.min(bytes.len()) }
    }

    /// The next byte's place in the file.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Bytes of the whole file.
    pub(super) fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, count: u64, part: impl Display) -> Result<&'a [u8], CheckpointError> {
        let rest = self.rest();
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let Some(taken) = taken else {
            let found = format!("{} to the end of the file", rest.len());
            return Err(self.wrong(self.at, part, format!("{count} bytes"), found));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const BYTES: usize>(&mut self, part: impl Display) -> Result<[u8; BYTES], CheckpointError> {
        let taken = self.take(BYTES as u64, part)?;
        // As many were taken: the default is never used.
        Ok(taken.try_into().unwrap_or([0; BYTES]))
    }

    pub(super) fn u8(&mut self, part: impl Display) -> Result<u8, CheckpointError> {
        self.array::<1>(part).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, part: impl Display) -> Result<u16, CheckpointError> {
        self.array(part).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, part: impl Display) -> Result<u32, CheckpointError> {
        self.array(part).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, part: impl Display) -> Result<u64, CheckpointError> {
        self.array(part).map(u64::from_le_bytes)
    }

    /// A length and as many bytes of UTF-8.
    pub(super) fn text(&mut self, part: impl Display + Copy) -> Result<&'a str, CheckpointError> {
        let length = self.u64(format_args!("length of {part}"))?;
        let begin = self.at;
        let bytes = self.take(length, part)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let at = begin + error.valid_up_to();
            self.wrong(at, part, "UTF-8", format!("the byte {}", self.bytes[at]))
        })
    }

    /// A text that names something: neither empty nor long.
    pub(super) fn name(&mut self, part: impl Display + Copy) -> Result<&'a str, CheckpointError> {
        let begin = self.at;
        let length = self.u64(format_args!("length of {part}"))?;
        if !(1..=MAX_NAME_BYTES).contains(&length) {
            let expected = format!("1 to {MAX_NAME_BYTES}");
            return Err(self.wrong(begin, format_args!("length of {part}"), expected, length));
        }
        self.at = begin;
        self.text(part)
    }

    pub(super) fn wrong(
        &self,
        at: usize,
        part: impl Display,
        expected: impl Display,
        found: impl Display,
    ) -> CheckpointError {
        CheckpointError::Gguf {
            path: self.path.to_owned(),
            part: part.to_string(),
            byte_offset: at as u64,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
