//! The shape of a matrix, and where things lie in its section.

use super::{MAX_COLS, MAX_ROWS, STEP_ELEMS, TABLES_BYTES};
use crate::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use crate::layouts::Layout;
use crate::section::SECTION_ALIGNMENT_BYTES;

/// Scale codes are padded to a multiple of this many bytes.
const SCALE_CODES_ALIGNMENT_BYTES: usize = 16;

/// Why a shape isn't one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ShapeError {
    /// The number of rows is zero or above [`MAX_ROWS`].
    Rows(u32),
    /// The number of columns is zero or above [`MAX_COLS`].
    Cols(u32),
    /// The group size is neither 32, 64, 128, nor the padded length of a row.
    Group {
        /// The group size found, in columns.
        found: u32,
        /// The padded length of a row, in columns.
        padded_cols: u32,
    },
    /// The bytes exceed the address space of this machine.
    TooLarge,
    /// The rank of a correction is no multiple of 32, or larger than the matrix has rows or columns.
    Rank {
        /// The rank found.
        found: u32,
        /// The largest that the matrix can have; 0 where it can have none.
        most: u32,
    },
}

impl core::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            ShapeError::Rows(rows) => write!(f, "{rows} rows; expected 1 to {MAX_ROWS}"),
            ShapeError::Cols(cols) => write!(f, "{cols} columns; expected 1 to {MAX_COLS}"),
            ShapeError::Group { found, padded_cols } => {
                write!(
                    f,
                    "groups of {found} columns; expected 32, 64, 128 or the padded row of {padded_cols}"
                )
            }
            ShapeError::TooLarge => write!(f, "the matrix exceeds the address space of this machine"),
            ShapeError::Rank { found, most } => {
                write!(f, "a correction of rank {found}; expected a multiple of 32 up to {most}")
            }
        }
    }
}

impl core::error::Error for ShapeError {}

/// The shape of a quantized matrix. Only [`MatrixShape::new`] makes one, so its sizes fit `usize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixShape {
    rows: usize,
    cols: usize,
    group_elems: usize,
    width: CodeWidth,
    layout: Layout,
}

impl MatrixShape {
    /// A matrix of `rows` x `cols` in groups of `group_elems` columns: 32, 64, 128, or a whole row, which is spelled as the row
    /// length padded to a multiple of 32.
    ///
    /// # Errors
    /// [`ShapeError`], where a number is out of its bounds.
    pub fn new(
        rows: u32,
        cols: u32,
        group_elems: u32,
        width: CodeWidth,
        layout: Layout,
    ) -> Result<Self, ShapeError> {
        if rows == 0 || rows > MAX_ROWS {
            return Err(ShapeError::Rows(rows));
        }
        if cols == 0 || cols > MAX_COLS {
            return Err(ShapeError::Cols(cols));
        }
        let padded_cols = cols.next_multiple_of(UNIT_ELEMS as u32);
        if !matches!(group_elems, 32 | 64 | 128) && group_elems != padded_cols {
            return Err(ShapeError::Group { found: group_elems, padded_cols });
        }
        let shape = MatrixShape {
            rows: rows as usize,
            cols: cols as usize,
            group_elems: group_elems as usize,
            width,
            layout,
        };
        // Two bytes a group are more than half a byte a group and two a row; the rest bounds tables and paddings.
        let bytes = u64::from(rows).next_multiple_of(layout.tile_rows() as u64)
            * (u64::from(padded_cols) * width.bits() as u64 / 8 + 2 * shape.groups() as u64 + 2)
            + 3 * SECTION_ALIGNMENT_BYTES as u64;
        if bytes > isize::MAX as u64 {
            return Err(ShapeError::TooLarge);
        }
        Ok(shape)
    }

    /// The group size that stands for a whole row of `cols` columns.
    pub const fn whole_row(cols: u32) -> u32 {
        cols.next_multiple_of(UNIT_ELEMS as u32)
    }

    /// Outputs, `n`.
    pub const fn rows(&self) -> usize {
        self.rows
    }
    /// Inputs, `k`.
    pub const fn cols(&self) -> usize {
        self.cols
    }
    /// Columns that share a scale.
    pub const fn group_elems(&self) -> usize {
        self.group_elems
    }
    /// Bits a code.
    pub const fn width(&self) -> CodeWidth {
        self.width
    }
    /// Order of words and scales.
    pub const fn layout(&self) -> Layout {
        self.layout
    }
    /// Whether codes index a table of levels: the form of the narrow widths.
    pub const fn has_codebook(&self) -> bool {
        // Where the only other width isn't built, the compiler leaves out what is its.
        !CodeWidth::Int8.is_built() || self.width.levels().is_some()
    }
    /// Rows as stored: a multiple of the layout's tile.
    pub const fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(self.layout.tile_rows())
    }
    /// Columns as stored: a multiple of 32.
    pub const fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(UNIT_ELEMS)
    }
    /// Units of 32 columns a row.
    pub const fn units(&self) -> usize {
        self.padded_cols() / UNIT_ELEMS
    }
    /// Groups a row; the last one may be short.
    pub const fn groups(&self) -> usize {
        self.padded_cols().div_ceil(self.group_elems)
    }
    /// Columns that share one activation scale (docs/numerics.md).
    pub const fn step_elems(&self) -> usize {
        if !self.has_codebook() && self.group_elems < STEP_ELEMS { self.group_elems } else { STEP_ELEMS }
    }
    /// Steps, and so activation scales, a row; the last one may be short.
    pub const fn steps(&self) -> usize {
        self.padded_cols().div_ceil(self.step_elems())
    }
    /// Whether groups have scale codes: those of a codebook matrix with several groups a row. One group needs none beside the
    /// row's scale.
    pub const fn has_scale_codes(&self) -> bool {
        self.has_codebook() && self.groups() > 1
    }
    /// What the row scale of a codebook matrix counts: levels are 64ths, multipliers 256ths of it. So row scales are about as large as
    /// weights, well inside the range of f16, and the unit is a power of two, which multiplies exactly.
    pub const fn row_scale_unit(&self) -> f32 {
        Self::unit_of_row_scales(self.has_scale_codes())
    }
    /// [`MatrixShape::row_scale_unit`] of a matrix with scale codes, or without.
    pub const fn unit_of_row_scales(has_scale_codes: bool) -> f32 {
        if has_scale_codes { 1.0 / (64.0 * 256.0) } else { 1.0 / 64.0 }
    }
    /// Bytes of a row's scale codes: two groups a byte; 0 where there are none.
    pub const fn scale_code_pairs(&self) -> usize {
        if self.has_scale_codes() { self.groups().div_ceil(2) } else { 0 }
    }
    /// Number of f16 scales, padded rows included: one a row of a codebook matrix, else one a group.
    pub const fn scales(&self) -> usize {
        self.padded_rows() * if self.has_codebook() { 1 } else { self.groups() }
    }

    /// Where the codes begin in the section, in bytes.
    pub const fn codes_offset_bytes(&self) -> usize {
        if self.has_codebook() { TABLES_BYTES } else { 0 }
    }
    /// Bytes of the codes.
    pub const fn codes_bytes(&self) -> usize {
        self.padded_rows() * self.units() * self.width.unit_bytes()
    }
    /// Where the scale codes begin in the section, in bytes.
    pub const fn scale_codes_offset_bytes(&self) -> usize {
        (self.codes_offset_bytes() + self.codes_bytes()).next_multiple_of(SECTION_ALIGNMENT_BYTES)
    }
    /// Bytes of the scale codes.
    pub const fn scale_codes_bytes(&self) -> usize {
        self.padded_rows() * self.scale_code_pairs()
    }
    /// Where the f16 scales begin in the section, in bytes.
    pub const fn scales_offset_bytes(&self) -> usize {
        self.scale_codes_offset_bytes()
            + self.scale_codes_bytes().next_multiple_of(SCALE_CODES_ALIGNMENT_BYTES)
    }
    /// Bytes of the section.
    pub const fn section_bytes(&self) -> usize {
        self.scales_offset_bytes() + 2 * self.scales()
    }

    /// Index of a word, in words of four bytes from the start of the codes.
    pub const fn word_index(&self, row: usize, unit: usize, word: usize) -> usize {
        self.layout.word_index(row, unit, word, self.units(), self.width.bits())
    }
    /// Where a code of 8 bits lies in the section: the byte of its lane in the word of its quad.
    pub(super) const fn code_byte(&self, row: usize, col: usize) -> usize {
        let (unit, place) = (col / UNIT_ELEMS, col % UNIT_ELEMS);
        let word = self.word_index(row, unit, place / WORD_BYTES);
        self.codes_offset_bytes() + WORD_BYTES * word + place % WORD_BYTES
    }
    /// Index of the byte that holds the scale codes of groups `2 * pair` (low nibble) and `2 * pair + 1` (high nibble) of a row,
    /// from the start of the scale codes.
    pub const fn scale_code_index(&self, row: usize, pair: usize) -> usize {
        self.layout.scale_index(row, pair, self.scale_code_pairs())
    }
    /// Index of an f16 scale of a matrix without a codebook, from the start of the scales.
    pub const fn scale_index(&self, row: usize, group: usize) -> usize {
        self.layout.scale_index(row, group, self.groups())
    }
}
