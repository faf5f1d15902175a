//! Why bytes aren't a matrix.

use super::{MatrixShape, TABLE_ENTRIES};
use crate::section::SECTION_ALIGNMENT_BYTES;
use half::f16;

/// Why bytes aren't a matrix of the shape that they should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MatrixError {
    /// The section has another size.
    Length {
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The section does not start at a multiple of two bytes in memory.
    Unaligned,
    /// A level is beyond the width's bound, not above the one before, or not the only one that its width allows.
    Level {
        /// Index in the table.
        index: usize,
        /// The level found.
        found: i8,
        /// The lowest that it may be.
        lowest: i8,
        /// The highest that it may be.
        highest: i8,
    },
    /// A multiplier is not above the one before (or not above zero), or not zero in a matrix without scale codes.
    Multiplier {
        /// Index in the table.
        index: usize,
        /// The multiplier found.
        found: u8,
        /// The lowest that it may be.
        lowest: u8,
        /// The highest that it may be.
        highest: u8,
    },
    /// A group's scale is NaN, infinite or negative.
    Scale {
        /// Row of the scale.
        row: usize,
        /// Group within the row.
        group: usize,
        /// Its f16 bits.
        bits: u16,
    },
    /// A row's scale is NaN, infinite or negative.
    RowScale {
        /// The row.
        row: usize,
        /// Its f16 bits.
        bits: u16,
    },
    /// A code is outside its width's range (only -128 at 8 bits can be).
    Code {
        /// Row of the code.
        row: usize,
        /// Column of the code.
        col: usize,
        /// The code found.
        found: i16,
    },
    /// A padding byte, code or scale isn't zero.
    Padding {
        /// Byte offset in the section.
        offset_bytes: usize,
        /// What it is.
        found: u16,
    },
}

/// What an entry of a table may be.
struct Rising<T> {
    lowest: T,
    highest: T,
}

impl<T: core::fmt::Display + PartialEq> core::fmt::Display for Rising<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Rising { lowest, highest } = self;
        if lowest == highest {
            write!(f, "{lowest}")
        } else {
            write!(f, "{lowest} to {highest}, rising strictly")
        }
    }
}

impl core::fmt::Display for MatrixError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let expected = "expected a finite number, 0 or more, found";
        match *self {
            MatrixError::Length { expected, found } => write!(f, "expected {expected} bytes, found {found}"),
            MatrixError::Unaligned => {
                write!(f, "its address is odd; expected a multiple of {SECTION_ALIGNMENT_BYTES}")
            }
            MatrixError::Level { index, found, lowest, highest } => {
                write!(f, "level {index}: expected {}, found {found}", Rising { lowest, highest })
            }
            MatrixError::Multiplier { index, found, lowest, highest } => {
                write!(f, "multiplier {index}: expected {}, found {found}", Rising { lowest, highest })
            }
            MatrixError::Scale { row, group, bits } => {
                let value = f16::from_bits(bits).to_f32();
                write!(f, "scale of row {row}, group {group}: {expected} {value} (bits {bits:#06x})")
            }
            MatrixError::RowScale { row, bits } => {
                let value = f16::from_bits(bits).to_f32();
                write!(f, "scale of row {row}: {expected} {value} (bits {bits:#06x})")
            }
            MatrixError::Code { row, col, found } => {
                write!(f, "code of row {row}, column {col}: expected one of its width, found {found}")
            }
            MatrixError::Padding { offset_bytes, found } => {
                write!(f, "padding at byte {offset_bytes} of the section: expected 0, found {found}")
            }
        }
    }
}

impl core::error::Error for MatrixError {}

impl MatrixError {
    /// The first byte, in the section of a matrix of this shape, that can't be.
    pub fn offset_bytes(&self, shape: &MatrixShape) -> usize {
        match *self {
            MatrixError::Length { .. } | MatrixError::Unaligned => 0,
            MatrixError::Level { index, .. } => index,
            MatrixError::Multiplier { index, .. } => TABLE_ENTRIES + index,
            MatrixError::Scale { row, group, .. } => {
                shape.scales_offset_bytes() + 2 * shape.scale_index(row, group)
            }
            MatrixError::RowScale { row, .. } => shape.scales_offset_bytes() + 2 * row,
            // Only a code of 8 bits can be out of range.
            MatrixError::Code { row, col, .. } => shape.code_byte(row, col),
            MatrixError::Padding { offset_bytes, .. } => offset_bytes,
        }
    }
}
