//! Why a container is refused: which section, which byte, what was expected and what was found.

use crate::container::SignatureError;
use crate::manifest::RecordError;
use crate::matrix::{MatrixError, ShapeError};
use crate::section::{SectionKind, SectionName};
use crate::spec::SpecError;
use crate::tokenizer::TokenizerFormatError;
use core::fmt;

/// Where a field is.
fn place(f: &mut fmt::Formatter<'_>, section: Option<SectionName>) -> fmt::Result {
    match section {
        Some(section) => write!(f, "{section}: "),
        None => f.write_str("head: "),
    }
}

/// Why a container is refused. Offsets are bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ContainerError {
    /// The file has another length than it says, or than is needed to go on reading.
    Length {
        /// What was being read.
        what: &'static str,
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The file does not begin at a multiple of 64 bytes in memory.
    Unaligned,
    /// The first eight bytes aren't a container's.
    Magic {
        /// What they are.
        found: [u8; 8],
    },
    /// A version that this reader does not know.
    Version {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// A field of the head or of a section's entry has a value that it can't have.
    Field {
        /// The section whose entry it is in; `None` for the head.
        section: Option<SectionName>,
        /// The field.
        field: &'static str,
        /// Offset of the field.
        offset: u64,
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A field exceeds its bound.
    Limit {
        /// The section whose entry it is in; `None` for the head.
        section: Option<SectionName>,
        /// The field.
        field: &'static str,
        /// Offset of the field.
        offset: u64,
        /// The most it may be.
        limit: u64,
        /// What it is.
        found: u64,
    },
    /// A checksum differs.
    Checksum {
        /// The part of the file, where it isn't a section.
        part: &'static str,
        /// The section, where it is one.
        section: Option<SectionName>,
        /// Offset of the part.
        offset: u64,
        /// The stored CRC-32.
        expected: u32,
        /// The CRC-32 of the bytes.
        found: u32,
    },
    /// It isn't what the trusted key signed.
    Signature(SignatureError),
    /// A section's SHA-256 differs.
    Digest {
        /// The section.
        section: SectionName,
        /// Offset of the section.
        offset: u64,
        /// The table's digest.
        expected: [u8; 32],
        /// The digest of the bytes.
        found: [u8; 32],
    },
    /// A byte between sections isn't zero.
    Padding {
        /// Offset of the byte.
        offset: u64,
        /// What it is.
        found: u8,
    },
    /// The manifest isn't a postcard message of the expected type.
    Manifest {
        /// Offset of the manifest, or of the first byte after the message.
        offset: u64,
        /// What was found instead.
        found: &'static str,
    },
    /// A field of the manifest has a value that it can't have.
    Record {
        /// Offset of the manifest.
        offset: u64,
        /// Why.
        error: RecordError,
    },
    /// The manifest describes no possible model.
    Spec(SpecError),
    /// The program was built without what the container has.
    NotBuilt {
        /// The part: a feature of this crate.
        part: &'static str,
    },
    /// The table has another section in this place.
    Order {
        /// Place in the table.
        index: u32,
        /// Offset of the entry.
        offset: u64,
        /// What belongs there.
        expected: SectionName,
        /// Kind number found.
        kind: u16,
        /// Layer found.
        layer: u16,
    },
    /// A section has another encoding or layout than its kind can have.
    Encoding {
        /// The section.
        section: SectionName,
        /// Offset of the encoding, in the section table.
        offset: u64,
        /// What it can have.
        expected: &'static str,
        /// Encoding number found.
        encoding: u8,
        /// Layout number found.
        layout: u8,
    },
    /// A matrix has a shape that it can't have.
    Shape {
        /// The section.
        section: SectionName,
        /// Offset of its entry in the section table.
        offset: u64,
        /// Why.
        error: ShapeError,
    },
    /// A band of the embedding has more or fewer rows than tokens.
    BandRows {
        /// The band.
        section: SectionName,
        /// Offset of its number of rows, in the section table.
        offset: u64,
        /// Tokens of the band.
        expected: u32,
        /// Rows of the band.
        found: u32,
    },
    /// A matrix has contents that it can't have.
    Matrix {
        /// The section.
        section: SectionName,
        /// Offset of the first byte that can't be.
        offset: u64,
        /// Why.
        error: MatrixError,
    },
    /// A number of an f32 section isn't finite.
    NotFinite {
        /// The section.
        section: SectionName,
        /// Offset of the number.
        offset: u64,
        /// Its bits.
        bits: u32,
    },
    /// The tokenizer breaks its structure; its error counts bytes from the start of the section.
    Tokenizer {
        /// Offset of the first byte that can't be.
        offset: u64,
        /// Why.
        error: TokenizerFormatError,
    },
    /// A section with a structure of its own breaks it.
    Structure {
        /// The section.
        section: SectionName,
        /// Offset of the first byte that can't be.
        offset: u64,
        /// What was expected there.
        expected: &'static str,
        /// What was found.
        found: u64,
    },
}

impl fmt::Display for ContainerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { what, expected, found } => {
                write!(f, "{what}: expected {expected} bytes, found {found}")
            }
            Self::Unaligned => write!(f, "the container does not begin at a multiple of 64 bytes in memory"),
            Self::Magic { found } => {
                write!(f, "not a rescomp container: byte 0: expected \"RESCOMP\\x1a\", found {found:02x?}")
            }
            Self::Version { major, minor } => write!(
                f,
                "byte 8: container version {major}.{minor}; this reader knows {}.{}",
                crate::container::MAJOR,
                crate::container::MINOR
            ),
            Self::Field { section, field, offset, expected, found } => {
                place(f, section)?;
                write!(f, "byte {offset}: {field}: expected {expected}, found {found}")
            }
            Self::Limit { section, field, offset, limit, found } => {
                place(f, section)?;
                write!(f, "byte {offset}: {field}: expected at most {limit}, found {found}")
            }
            Self::Checksum { part, section, offset, expected, found } => {
                match section {
                    Some(section) => write!(f, "{section}")?,
                    None => f.write_str(part)?,
                }
                write!(f, " at byte {offset}: expected CRC-32 {expected:08x}, found {found:08x}")
            }
            Self::Signature(error) => write!(f, "{error}"),
            Self::Digest { section, offset, expected, found } => {
                write!(f, "{section} at byte {offset}: expected SHA-256 ")?;
                expected.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(", found ")?;
                found.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Padding { offset, found } => write!(f, "byte {offset}: padding: expected 0, found {found}"),
            Self::Manifest { offset, found } => {
                write!(
                    f,
                    "manifest: byte {offset}: expected a postcard message of this version's manifest, found {found}"
                )
            }
            Self::Record { offset, error } => write!(f, "manifest at byte {offset}: {error}"),
            Self::Spec(error) => {
                write!(f, "manifest at byte {}: model {error}", crate::container::HEAD_BYTES)
            }
            Self::NotBuilt { part } => {
                write!(
                    f,
                    "the container needs `{part}`, and this program was built without it (a feature of rescomp-formats)"
                )
            }
            Self::Order { index, offset, expected, kind, layer } => {
                write!(f, "section {index}: byte {offset}: expected {expected}, found kind {kind}")?;
                match SectionKind::from_number(kind) {
                    Some(kind) => write!(f, " ({})", kind.name())?,
                    None => f.write_str(" (unknown)")?,
                }
                write!(f, ", layer {layer}")
            }
            Self::Encoding { section, offset, expected, encoding, layout } => {
                write!(
                    f,
                    "{section}: byte {offset}: expected {expected}, found encoding {encoding} with layout {layout}"
                )
            }
            Self::Shape { section, offset, error } => write!(f, "{section}: byte {offset}: {error}"),
            Self::BandRows { section, offset, expected, found } => {
                write!(f, "{section}: byte {offset}: rows: expected {expected}, one a token, found {found}")
            }
            Self::Matrix { section, offset, error } => write!(f, "{section}: byte {offset}: {error}"),
            Self::NotFinite { section, offset, bits } => {
                write!(f, "{section}: byte {offset}: expected a finite number, found bits {bits:#010x}")
            }
            Self::Tokenizer { offset, error: TokenizerFormatError { problem, expected, found, .. } } => {
                write!(f, "tokenizer: byte {offset}: {}: expected {expected}, found {found}", problem.text())
            }
            Self::Structure { section, offset, expected, found } => {
                write!(f, "{section}: byte {offset}: expected {expected}, found {found}")
            }
        }
    }
}

impl core::error::Error for ContainerError {}
