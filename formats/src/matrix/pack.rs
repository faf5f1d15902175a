//! Packing a matrix into the bytes of a section.

use super::check::{check_levels, check_multipliers, is_scale};
use super::{MatrixError, MatrixShape, TABLE_ENTRIES};
use crate::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use half::f16;

/// Why a matrix can't be packed.
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
    /// The shape's width is for the other form of matrix.
    Form {
        /// Bits a code.
        bits: usize,
        /// What the caller has.
        expected: &'static str,
    },
    /// A scale code is above 15.
    ScaleCode {
        /// Its row.
        row: usize,
        /// Its group.
        group: usize,
        /// The code found.
        found: u8,
    },
    /// A level, multiplier, code or scale isn't one.
    Content(MatrixError),
}

impl core::fmt::Display for PackError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PackError::Length { what, expected, found } => {
                write!(f, "{what}: expected a length of {expected}, found {found}")
            }
            PackError::Form { bits, expected } => write!(f, "{bits} bits a code: expected {expected}"),
            PackError::ScaleCode { row, group, found } => {
                write!(f, "scale code of row {row}, group {group}: expected 0 to 15, found {found}")
            }
            PackError::Content(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PackError {}

/// A matrix of 2 to 6 bits: `row_scales[row] * multipliers[scale_code] / 256 * levels[code] / 64`.
#[derive(Clone, Copy, Debug)]
pub struct CodebookMatrix<'a> {
    /// The levels, 2^bits, rising strictly within [`CodeWidth::level_bound`]; at 5 and 6 bits those of [`CodeWidth::fixed_level`].
    pub levels: &'a [i8],
    /// The multipliers, rising strictly from 1 or more; all zero where a row is one group.
    pub multipliers: [u8; TABLE_ENTRIES],
    /// Indices of levels, rows x cols, row-major.
    pub codes: &'a [u8],
    /// Indices of multipliers, rows x groups, row-major; empty where a row is one group.
    pub scale_codes: &'a [u8],
    /// A scale a row.
    pub row_scales: &'a [f16],
}

/// Packs a codebook matrix into `section`.
///
/// # Errors
/// [`PackError`], where the shape is one of 8 bits, a length disagrees with it, or a number is out of its range or order.
pub fn pack_codebook(
    shape: &MatrixShape,
    matrix: &CodebookMatrix<'_>,
    section: &mut [u8],
) -> Result<(), PackError> {
    let Some(levels) = shape.width().levels() else {
        return Err(PackError::Form { bits: shape.width().bits(), expected: "2 to 6 with a codebook" });
    };
    let groups = if shape.has_scale_codes() { shape.groups() } else { 0 };
    expect_length("levels", levels, matrix.levels.len())?;
    expect_length("codes", shape.rows() * shape.cols(), matrix.codes.len())?;
    expect_length("scale codes", shape.rows() * groups, matrix.scale_codes.len())?;
    expect_length("row scales", shape.rows(), matrix.row_scales.len())?;
    expect_length("section", shape.section_bytes(), section.len())?;
    check_levels(shape.width(), matrix.levels, CodeWidth::fixed_level).map_err(PackError::Content)?;
    check_multipliers(shape, &matrix.multipliers).map_err(PackError::Content)?;
    section.fill(0);
    for (index, byte) in section[..shape.width().table_levels()].iter_mut().enumerate() {
        *byte = shape.width().fixed_table_level(index as u8).unwrap_or(matrix.levels[index]) as u8;
    }
    section[TABLE_ENTRIES..2 * TABLE_ENTRIES].copy_from_slice(&matrix.multipliers);
    for (row, codes) in matrix.codes.chunks_exact(shape.cols()).enumerate() {
        if let Some(col) = codes.iter().position(|&code| usize::from(code) >= levels) {
            return Err(PackError::Content(MatrixError::Code { row, col, found: codes[col].into() }));
        }
        put_codes(shape, row, codes, section);
        for group in 0..groups {
            let found = matrix.scale_codes[row * groups + group];
            if usize::from(found) >= TABLE_ENTRIES {
                return Err(PackError::ScaleCode { row, group, found });
            }
            let at = shape.scale_codes_offset_bytes() + shape.scale_code_index(row, group / 2);
            section[at] |= found << (4 * (group % 2));
        }
        let bits = matrix.row_scales[row].to_bits();
        if !is_scale(bits) {
            return Err(PackError::Content(MatrixError::RowScale { row, bits }));
        }
        put_scale(shape, row, bits, section);
    }
    Ok(())
}

/// Packs a matrix of 8 bits into `section`: `codes` (rows x cols, row-major) and `scales` (rows x groups, row-major).
///
/// # Errors
/// [`PackError`], where the shape is one of fewer bits, a length disagrees with it, a code is -128, or a scale isn't finite and
/// 0 or more.
pub fn pack_scaled(
    shape: &MatrixShape,
    codes: &[i8],
    scales: &[f16],
    section: &mut [u8],
) -> Result<(), PackError> {
    if shape.has_codebook() {
        return Err(PackError::Form { bits: shape.width().bits(), expected: "8 with scales a group" });
    }
    expect_length("codes", shape.rows() * shape.cols(), codes.len())?;
    expect_length("scales", shape.rows() * shape.groups(), scales.len())?;
    expect_length("section", shape.section_bytes(), section.len())?;
    section.fill(0);
    for (row, row_codes) in codes.chunks_exact(shape.cols()).enumerate() {
        if let Some(col) = row_codes.iter().position(|&code| code == i8::MIN) {
            return Err(PackError::Content(MatrixError::Code { row, col, found: row_codes[col].into() }));
        }
        put_codes(shape, row, bytemuck::cast_slice(row_codes), section);
        for group in 0..shape.groups() {
            let bits = scales[row * shape.groups() + group].to_bits();
            if !is_scale(bits) {
                return Err(PackError::Content(MatrixError::Scale { row, group, bits }));
            }
            put_scale(shape, shape.scale_index(row, group), bits, section);
        }
    }
    Ok(())
}

fn expect_length(what: &'static str, expected: usize, found: usize) -> Result<(), PackError> {
    if expected == found { Ok(()) } else { Err(PackError::Length { what, expected, found }) }
}

/// Packs the codes of a row.
fn put_codes(shape: &MatrixShape, row: usize, codes: &[u8], section: &mut [u8]) {
    for (unit, chunk) in codes.chunks(UNIT_ELEMS).enumerate() {
        let mut padded = [0; UNIT_ELEMS];
        padded[..chunk.len()].copy_from_slice(chunk);
        let words = shape.width().encode_unit(&padded);
        for (index, word) in words.iter().take(shape.width().bits()).enumerate() {
            let at = shape.codes_offset_bytes() + WORD_BYTES * shape.word_index(row, unit, index);
            section[at..at + WORD_BYTES].copy_from_slice(word);
        }
    }
}

/// Writes one f16 scale.
fn put_scale(shape: &MatrixShape, index: usize, bits: u16, section: &mut [u8]) {
    let at = shape.scales_offset_bytes() + 2 * index;
    section[at..at + 2].copy_from_slice(&bits.to_le_bytes());
}
