//! A quantized matrix: its shape, the sizes that follow from it, and views of its bytes.
//!
//! A matrix section is the codes (words in the order of its layout), zero bytes up to a multiple of 64, then the scales (f16,
//! little-endian, in the order of its layout). Rows are outputs (`n`), columns inputs (`k`). Columns are padded to a multiple of
//! 32 and rows to a multiple of the layout's tile; the padding has zero codes, and padded rows have zero scales. The last group
//! of a row may be short.

use crate::encodings::{CodeWidth, MAX_UNIT_WORDS, UNIT_ELEMS, WORD_BYTES};
use crate::layouts::Layout;
use crate::section::SECTION_ALIGNMENT_BYTES;
use half::f16;

/// Most rows of a matrix.
pub const MAX_ROWS: u32 = 1 << 24;
/// Most columns of a matrix.
pub const MAX_COLS: u32 = 1 << 20;
/// Most columns that share one activation scale.
pub const MAX_STEP_ELEMS: usize = 128;

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
        let bytes = u64::from(rows).next_multiple_of(layout.tile_rows() as u64)
            * (u64::from(padded_cols) * width.bits() as u64 / 8 + 2 * shape.groups() as u64)
            + SECTION_ALIGNMENT_BYTES as u64;
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
    /// Groups, and so scales, a row; the last one may be short.
    pub const fn groups(&self) -> usize {
        self.padded_cols().div_ceil(self.group_elems)
    }
    /// Columns that share one activation scale (docs/numerics.md).
    pub const fn step_elems(&self) -> usize {
        if self.group_elems < MAX_STEP_ELEMS { self.group_elems } else { MAX_STEP_ELEMS }
    }
    /// Steps, and so activation scales, a row; the last one may be short.
    pub const fn steps(&self) -> usize {
        self.padded_cols().div_ceil(self.step_elems())
    }
    /// Bytes of the codes.
    pub const fn codes_bytes(&self) -> usize {
        self.padded_rows() * self.units() * self.width.unit_bytes()
    }
    /// Where the scales begin in the section, in bytes.
    pub const fn scales_offset_bytes(&self) -> usize {
        self.codes_bytes().next_multiple_of(SECTION_ALIGNMENT_BYTES)
    }
    /// Number of scales, padded rows included.
    pub const fn scales(&self) -> usize {
        self.padded_rows() * self.groups()
    }
    /// Bytes of the section.
    pub const fn section_bytes(&self) -> usize {
        self.scales_offset_bytes() + 2 * self.scales()
    }
    /// Index of a word, in words of four bytes from the start of the codes.
    pub const fn word_index(&self, row: usize, unit: usize, word: usize) -> usize {
        self.layout.word_index(row, unit, word, self.units(), self.width.bits())
    }
    /// Index of a scale, in f16 values from the start of the scales.
    pub const fn scale_index(&self, row: usize, group: usize) -> usize {
        self.layout.scale_index(row, group, self.groups())
    }
}

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
    /// A scale is NaN, infinite or negative.
    Scale {
        /// Row of the scale.
        row: usize,
        /// Group within the row.
        group: usize,
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
        found: i8,
    },
    /// A padding byte, code or scale isn't zero.
    Padding {
        /// Byte offset in the section.
        offset_bytes: usize,
    },
}

impl core::fmt::Display for MatrixError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            MatrixError::Length { expected, found } => write!(f, "expected {expected} bytes, found {found}"),
            MatrixError::Unaligned => {
                write!(f, "its address is odd; expected a multiple of {SECTION_ALIGNMENT_BYTES}")
            }
            MatrixError::Scale { row, group, bits } => write!(
                f,
                "scale of row {row}, group {group}: expected a finite number, 0 or more, found {} (bits {bits:#06x})",
                f16::from_bits(bits).to_f32()
            ),
            MatrixError::Code { row, col, found } => {
                write!(f, "code of row {row}, column {col}: found {found}, which is out of range")
            }
            MatrixError::Padding { offset_bytes } => {
                write!(f, "padding at byte {offset_bytes} of the section: expected zero")
            }
        }
    }
}

impl core::error::Error for MatrixError {}

/// A quantized matrix in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    shape: MatrixShape,
    codes: &'a [u8],
    scales: &'a [u16],
}

impl<'a> MatrixView<'a> {
    /// Views the bytes of a section. Sizes are checked; contents by [`MatrixView::check`].
    ///
    /// # Errors
    /// [`MatrixError::Length`] or [`MatrixError::Unaligned`].
    pub fn new(shape: MatrixShape, section: &'a [u8]) -> Result<Self, MatrixError> {
        let expected = shape.section_bytes();
        if section.len() != expected {
            return Err(MatrixError::Length { expected, found: section.len() });
        }
        let (codes, rest) = section.split_at(shape.scales_offset_bytes());
        let scales = bytemuck::try_cast_slice(rest).map_err(|_| MatrixError::Unaligned)?;
        Ok(MatrixView { shape, codes: &codes[..shape.codes_bytes()], scales })
    }

    /// The shape.
    pub fn shape(&self) -> &MatrixShape {
        &self.shape
    }
    /// The codes, [`MatrixShape::codes_bytes`] bytes in the layout's order.
    pub fn codes(&self) -> &'a [u8] {
        self.codes
    }
    /// The scales as f16 bits, [`MatrixShape::scales`] of them in the layout's order.
    pub fn scales(&self) -> &'a [u16] {
        self.scales
    }

    /// The codes of columns `32 * unit ..` of a row.
    ///
    /// # Panics
    /// Where `row` or `unit` is out of range.
    pub fn unit_codes(&self, row: usize, unit: usize) -> [i8; UNIT_ELEMS] {
        let mut words = [[0; WORD_BYTES]; MAX_UNIT_WORDS];
        for (index, word) in words.iter_mut().take(self.shape.width.bits()).enumerate() {
            let at = WORD_BYTES * self.shape.word_index(row, unit, index);
            word.copy_from_slice(&self.codes[at..at + WORD_BYTES]);
        }
        self.shape.width.decode_unit(&words)
    }

    /// The scale of a group of a row.
    ///
    /// # Panics
    /// Where `row` or `group` is out of range.
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        f16::from_bits(self.scales[self.shape.scale_index(row, group)]).to_f32()
    }

    /// Writes the values of a row, `code * scale`, to `output` (as many columns as it has, from column 0).
    ///
    /// # Panics
    /// Where `row` is out of range or `output` longer than the padded row.
    pub fn decode_row(&self, row: usize, output: &mut [f32]) {
        for (unit, values) in output.chunks_mut(UNIT_ELEMS).enumerate() {
            let scale = self.scale(row, unit * UNIT_ELEMS / self.shape.group_elems);
            for (value, code) in values.iter_mut().zip(self.unit_codes(row, unit)) {
                *value = f32::from(code) * scale;
            }
        }
    }

    /// Checks the contents: scales finite and not negative, codes in range, padding zero. Time is linear in the bytes.
    ///
    /// # Errors
    /// The first [`MatrixError`] found, by row.
    pub fn check(&self, section: &[u8]) -> Result<(), MatrixError> {
        let shape = &self.shape;
        if let Some(at) =
            section[shape.codes_bytes()..shape.scales_offset_bytes()].iter().position(|&byte| byte != 0)
        {
            return Err(MatrixError::Padding { offset_bytes: shape.codes_bytes() + at });
        }
        for row in 0..shape.padded_rows() {
            for group in 0..shape.groups() {
                let index = shape.scale_index(row, group);
                let bits = self.scales[index];
                // Negative zero and NaN included: positive finite f16 values are exactly the bits below 0x7c00.
                if bits >= 0x7c00 {
                    return Err(MatrixError::Scale { row, group, bits });
                }
                if row >= shape.rows && bits != 0 {
                    return Err(MatrixError::Padding {
                        offset_bytes: shape.scales_offset_bytes() + 2 * index,
                    });
                }
            }
            let whole_units = if row < shape.rows { shape.cols / UNIT_ELEMS } else { 0 };
            for unit in 0..shape.units() {
                // Every pattern of the narrow widths is a code; only whole units at 8 bits and the padding need a look.
                if unit < whole_units && shape.width != CodeWidth::Int8 {
                    continue;
                }
                for (lane, found) in self.unit_codes(row, unit).into_iter().enumerate() {
                    let col = unit * UNIT_ELEMS + lane;
                    if row >= shape.rows || col >= shape.cols {
                        if found != 0 {
                            let offset_bytes = WORD_BYTES * shape.word_index(row, unit, 0);
                            return Err(MatrixError::Padding { offset_bytes });
                        }
                    } else if found < shape.width.range().0 {
                        return Err(MatrixError::Code { row, col, found });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Why codes and scales can't be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackError {
    /// A slice has another length than the shape needs.
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length by the shape.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// A code or scale isn't one.
    Content(MatrixError),
}

impl core::fmt::Display for PackError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PackError::Length { what, expected, found } => {
                write!(f, "{what}: expected a length of {expected}, found {found}")
            }
            PackError::Content(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PackError {}

/// Packs `codes` (rows x cols, row-major) and `scales` (rows x groups, row-major) into `section`.
///
/// # Errors
/// [`PackError`], where a length disagrees with the shape, a code is out of the width's range, or a scale isn't finite and 0 or more.
pub fn pack(shape: &MatrixShape, codes: &[i8], scales: &[f16], section: &mut [u8]) -> Result<(), PackError> {
    let expect = |what, expected, found| {
        if expected == found { Ok(()) } else { Err(PackError::Length { what, expected, found }) }
    };
    expect("codes", shape.rows * shape.cols, codes.len())?;
    expect("scales", shape.rows * shape.groups(), scales.len())?;
    expect("section", shape.section_bytes(), section.len())?;
    section.fill(0);
    let (lowest, highest) = shape.width.range();
    for (row, row_codes) in codes.chunks_exact(shape.cols).enumerate() {
        if let Some(col) = row_codes.iter().position(|code| !(lowest..=highest).contains(code)) {
            return Err(PackError::Content(MatrixError::Code { row, col, found: row_codes[col] }));
        }
        for (unit, chunk) in row_codes.chunks(UNIT_ELEMS).enumerate() {
            let mut padded = [0; UNIT_ELEMS];
            padded[..chunk.len()].copy_from_slice(chunk);
            for (index, word) in shape.width.encode_unit(&padded).iter().take(shape.width.bits()).enumerate()
            {
                let at = WORD_BYTES * shape.word_index(row, unit, index);
                section[at..at + WORD_BYTES].copy_from_slice(word);
            }
        }
        for group in 0..shape.groups() {
            let scale = scales[row * shape.groups() + group];
            if scale.to_bits() >= 0x7c00 {
                return Err(PackError::Content(MatrixError::Scale { row, group, bits: scale.to_bits() }));
            }
            let at = shape.scales_offset_bytes() + 2 * shape.scale_index(row, group);
            section[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    Ok(())
}
