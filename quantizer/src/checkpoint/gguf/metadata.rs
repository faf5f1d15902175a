//! Metadata: typed values by key. Numbers are kept; texts and arrays stay in the file and are read where they are needed.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::CheckpointError;
use super::DEFAULT_ALIGNMENT;
use super::cursor::Cursor;

/// Most entries: models have some dozens.
const MAX_ENTRIES: u64 = 1 << 16;
/// Most bytes of alignment.
const MAX_ALIGNMENT: u32 = 1 << 16;
/// Characters of a value that an error repeats.
const SHOWN: usize = 60;

/// Values by key.
#[derive(Debug)]
pub(in super::super) struct Metadata {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where the value begins in the file.
    at: usize,
    value: Value,
}

/// A value. Text and arrays are those at [`Entry::at`], and known to be whole.
#[derive(Clone, Copy, Debug)]
enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text,
    Array { kind: Kind, count: u64 },
}

/// Types of values, by their codes in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, CheckpointError> {
        let at = cursor.at();
        let code = cursor.u32(format_args!("type of {key}"))?;
        let kind = usize::try_from(code).ok().and_then(|code| Self::ALL.get(code));
        kind.copied().ok_or_else(|| {
            let expected = format!("a code from 0 to {}", Self::ALL.len() - 1);
            cursor.wrong(at, format_args!("type of {key}"), expected, code)
        })
    }

    /// Bytes of a value; `None` where they differ.
    fn bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

impl Value {
    fn read(cursor: &mut Cursor<'_>, kind: Kind, key: &str) -> Result<Self, CheckpointError> {
        Ok(match kind {
            Kind::U8 => Self::Integer(cursor.u8(key)?.into()),
            Kind::I8 => Self::Integer(cursor.u8(key)?.cast_signed().into()),
            Kind::U16 => Self::Integer(cursor.u16(key)?.into()),
            Kind::I16 => Self::Integer(cursor.u16(key)?.cast_signed().into()),
            Kind::U32 => Self::Integer(cursor.u32(key)?.into()),
            Kind::I32 => Self::Integer(cursor.u32(key)?.cast_signed().into()),
            Kind::U64 => Self::Integer(cursor.u64(key)?.into()),
            Kind::I64 => Self::Integer(cursor.u64(key)?.cast_signed().into()),
            Kind::F32 => Self::Float(f32::from_bits(cursor.u32(key)?).into()),
            Kind::F64 => Self::Float(f64::from_bits(cursor.u64(key)?)),
            Kind::Bool => {
                let at = cursor.at();
                match cursor.u8(key)? {
                    0 => Self::Bool(false),
                    1 => Self::Bool(true),
                    other => return Err(cursor.wrong(at, key, "0 or 1", other)),
                }
            }
            Kind::Text => {
                cursor.text(key)?;
                Self::Text
            }
            Kind::Array => {
                let at = cursor.at();
                let kind = Kind::read(cursor, key)?;
                let count = cursor.u64(format_args!("length of {key}"))?;
                match (kind, kind.bytes()) {
                    // No writer makes them, and their depth would have to be bounded.
                    (Kind::Array, _) => {
                        return Err(cursor.wrong(at, key, "an array of values", "an array of arrays"));
                    }
                    (_, Some(bytes)) => {
                        cursor.take(count.saturating_mul(bytes), key)?;
                    }
                    (_, None) => {
                        for index in 0..count {
                            cursor.text(format_args!("{key}[{index}]"))?;
                        }
                    }
                }
                Self::Array { kind, count }
            }
        })
    }
}

impl Metadata {
    /// Reads so many entries.
    pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Self, CheckpointError> {
        if count > MAX_ENTRIES {
            let (at, expected) = (cursor.at() - 8, format!("at most {MAX_ENTRIES}"));
            return Err(cursor.wrong(at, "number of entries", expected, count));
        }
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let begin = cursor.at();
            let key = cursor.name(format_args!("key {index}"))?;
            let kind = Kind::read(cursor, key)?;
            let at = cursor.at();
            let value = Value::read(cursor, kind, key)?;
            if entries.insert(key.to_owned(), Entry { at, value }).is_some() {
                return Err(cursor.wrong(begin, key, "a key once", "it again"));
            }
        }
        Ok(Self { entries })
    }

    /// For reading values of this file.
    pub(super) fn fields<'a>(&'a self, path: &'a Path, bytes: &'a [u8]) -> Fields<'a> {
        Fields { path, bytes, metadata: self }
    }
}

/// Metadata with the file it was read from. Keys that are absent are `None`, or named by an error.
#[derive(Clone, Copy)]
pub(in super::super) struct Fields<'a> {
    pub(super) path: &'a Path,
    bytes: &'a [u8],
    metadata: &'a Metadata,
}

impl<'a> Fields<'a> {
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.metadata.entries.keys().map(String::as_str)
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        self.metadata.entries.get(key).copied()
    }

    fn cursor(&self, entry: Entry) -> Cursor<'a> {
        Cursor::within(self.path, self.bytes, entry.at)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Text => self.cursor(entry).text(key).map(Some),
            _ => Err(self.wrong(key, "a text")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        match self.entry(key).map(|entry| entry.value) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        match self.entry(key).map(|entry| entry.value) {
            None => Ok(None),
            Some(Value::Float(number)) if number.is_finite() => Ok(Some(number)),
            Some(_) => Err(self.wrong(key, "a finite floating-point number")),
        }
    }

    /// A whole number from `least` to `most`, of any integer type.
    pub(super) fn whole(&self, key: &str, least: u32, most: u32) -> Result<Option<u32>, CheckpointError> {
        match self.entry(key).map(|entry| entry.value) {
            None => Ok(None),
            Some(Value::Integer(number)) if (i128::from(least)..=i128::from(most)).contains(&number) => {
                // In the range of the bounds.
                Ok(u32::try_from(number).ok())
            }
            Some(_) => Err(self.wrong(key, format!("a whole number from {least} to {most}"))),
        }
    }

    /// A size from 1 to its cap.
    pub(super) fn size(&self, key: &str, cap: u32) -> Result<u32, CheckpointError> {
        self.whole(key, 1, cap)?.ok_or_else(|| self.wrong(key, format!("a whole number from 1 to {cap}")))
    }

    /// An array of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, CheckpointError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let Value::Array { kind: Kind::Text, count } = entry.value else {
            return Err(self.wrong(key, "an array of texts"));
        };
        let mut cursor = self.elements(entry)?;
        (0..count)
            .map(|index| cursor.text(format_args!("{key}[{index}]")))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An array of 32-bit integers.
    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, CheckpointError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let Value::Array { kind: Kind::I32 | Kind::U32, count } = entry.value else {
            return Err(self.wrong(key, "an array of 32-bit integers"));
        };
        let bytes = self.elements(entry)?.take(count.saturating_mul(4), key)?;
        Ok(Some(bytes.as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect()))
    }

    /// An array of 32-bit floats.
    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, CheckpointError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let Value::Array { kind: Kind::F32, count } = entry.value else {
            return Err(self.wrong(key, "an array of 32-bit floats"));
        };
        let bytes = self.elements(entry)?.take(count.saturating_mul(4), key)?;
        Ok(Some(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()))
    }

    /// At the first element of an array: behind its type and length.
    fn elements(&self, entry: Entry) -> Result<Cursor<'a>, CheckpointError> {
        let mut cursor = self.cursor(entry);
        cursor.take(4 + 8, "type and length of an array")?;
        Ok(cursor)
    }

    /// The alignment of tensors, in bytes.
    pub(super) fn alignment(&self) -> Result<u64, CheckpointError> {
        let key = "general.alignment";
        let alignment = self.whole(key, 1, MAX_ALIGNMENT)?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() {
            return Err(self.wrong(key, "a power of two"));
        }
        Ok(alignment.into())
    }

    /// The value of a key is not what it must be: says where it is and what is there.
    pub(super) fn wrong(&self, key: &str, expected: impl ToString) -> CheckpointError {
        let (path, expected) = (self.path.to_owned(), expected.to_string());
        match self.entry(key) {
            None => CheckpointError::Field { path, field: key.to_owned(), expected, found: "nothing".into() },
            Some(entry) => CheckpointError::Gguf {
                path,
                part: key.to_owned(),
                byte_offset: entry.at as u64,
                expected,
                found: self.shown(key, entry),
            },
        }
    }

    /// The value of a key is valid, and asks for something that is not supported.
    pub(super) fn unsupported(&self, key: &str, supported: &'static str) -> CheckpointError {
        let found = self.entry(key).map_or("absent".to_owned(), |entry| self.shown(key, entry));
        let (path, field) = (self.path.to_owned(), key.to_owned());
        CheckpointError::Unsupported { path, field, found, supported }
    }

    fn shown(&self, key: &str, entry: Entry) -> String {
        match entry.value {
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Array { kind, count } => format!("an array of {count} values of type {kind:?}"),
            Value::Text => {
                let text = self.cursor(entry).text(key).unwrap_or_default();
                let more = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
                format!("{:?}{more}", text.chars().take(SHOWN).collect::<String>())
            }
        }
    }
}
