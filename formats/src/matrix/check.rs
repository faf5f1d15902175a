//! Checking the contents of a matrix.

use super::{Codebook, MatrixError, MatrixShape, MatrixView, Scaling, TABLE_ENTRIES, TABLES_BYTES};
use crate::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};

/// f16 bits of infinity. Positive finite values, and they alone, are below; negative zero isn't.
const INFINITY_BITS: u16 = 0x7c00;

/// Whether f16 bits are a scale: finite and not negative.
pub(super) fn is_scale(bits: u16) -> bool {
    bits < INFINITY_BITS
}

/// Checks levels: each the `fixed` one of a stacked width, else rising strictly within the width's bound. `levels` are as many as
/// the width or its table has.
pub(super) fn check_levels(
    width: CodeWidth,
    levels: &[i8],
    fixed: fn(CodeWidth, u8) -> Option<i8>,
) -> Result<(), MatrixError> {
    let bound = width.level_bound();
    let mut next = -bound;
    for (index, &found) in levels.iter().enumerate() {
        let (lowest, highest) = match fixed(width, index as u8) {
            Some(level) => (level, level),
            // Leaves room for those that follow; there are at most 16.
            None => (next, bound - (levels.len() - 1 - index) as i8),
        };
        if !(lowest..=highest).contains(&found) {
            return Err(MatrixError::Level { index, found, lowest, highest });
        }
        next = found + 1;
    }
    Ok(())
}

/// Checks the multipliers of a codebook: rising strictly from 1 or more, or all zero where no scale code indexes them.
pub(super) fn check_multipliers(
    shape: &MatrixShape,
    multipliers: &[u8; TABLE_ENTRIES],
) -> Result<(), MatrixError> {
    let mut lowest = u8::from(shape.has_scale_codes());
    for (index, &found) in multipliers.iter().enumerate() {
        // Leaves room for those that follow.
        let highest = if shape.has_scale_codes() { u8::MAX - (TABLE_ENTRIES - 1 - index) as u8 } else { 0 };
        if !(lowest..=highest).contains(&found) {
            return Err(MatrixError::Multiplier { index, found, lowest, highest });
        }
        if shape.has_scale_codes() {
            lowest = found.saturating_add(1);
        }
    }
    Ok(())
}

impl MatrixView<'_> {
    /// Checks the contents: tables in order and within their bounds, scales finite and not negative, codes in range, padding
    /// zero. `section` is what the view was made from. Time is linear in the bytes.
    ///
    /// # Errors
    /// The first [`MatrixError`] found: tables, then padding between the parts, then by row.
    pub fn check(&self, section: &[u8]) -> Result<(), MatrixError> {
        let shape = &self.shape;
        let zero = |range: core::ops::Range<usize>| {
            let start = range.start;
            match section[range].iter().position(|&byte| byte != 0) {
                None => Ok(()),
                Some(at) => {
                    let offset_bytes = start + at;
                    Err(MatrixError::Padding { offset_bytes, found: section[offset_bytes].into() })
                }
            }
        };
        if let Scaling::Codebook(codebook) = &self.scaling {
            let levels = shape.width().table_levels();
            check_levels(shape.width(), &codebook.levels[..levels], CodeWidth::fixed_table_level)?;
            zero(levels..TABLE_ENTRIES)?;
            check_multipliers(shape, codebook.multipliers)?;
            zero(2 * TABLE_ENTRIES..TABLES_BYTES)?;
        }
        zero(shape.codes_offset_bytes() + shape.codes_bytes()..shape.scale_codes_offset_bytes())?;
        zero(shape.scale_codes_offset_bytes() + shape.scale_codes_bytes()..shape.scales_offset_bytes())?;
        for row in 0..shape.padded_rows() {
            match &self.scaling {
                Scaling::Groups(scales) => self.check_group_scales(scales, row)?,
                Scaling::Codebook(codebook) => self.check_row_scale(codebook, row)?,
            }
            self.check_codes(row)?;
        }
        Ok(())
    }

    fn check_group_scales(&self, scales: &[u16], row: usize) -> Result<(), MatrixError> {
        let shape = &self.shape;
        for group in 0..shape.groups() {
            let index = shape.scale_index(row, group);
            let bits = scales[index];
            if !is_scale(bits) {
                return Err(MatrixError::Scale { row, group, bits });
            }
            if row >= shape.rows() && bits != 0 {
                let offset_bytes = shape.scales_offset_bytes() + 2 * index;
                return Err(MatrixError::Padding { offset_bytes, found: bits });
            }
        }
        Ok(())
    }

    /// Checks a row's scale, and that its scale codes are zero where there is no group.
    fn check_row_scale(&self, codebook: &Codebook<'_>, row: usize) -> Result<(), MatrixError> {
        let shape = &self.shape;
        let bits = codebook.row_scales[row];
        if !is_scale(bits) {
            return Err(MatrixError::RowScale { row, bits });
        }
        if row >= shape.rows() && bits != 0 {
            let offset_bytes = shape.scales_offset_bytes() + 2 * row;
            return Err(MatrixError::Padding { offset_bytes, found: bits });
        }
        for pair in 0..shape.scale_code_pairs() {
            let index = shape.scale_code_index(row, pair);
            let padding = match codebook.scale_codes[index] {
                byte if row >= shape.rows() => byte,
                byte if 2 * pair + 1 == shape.groups() => byte >> 4,
                _ => 0,
            };
            if padding != 0 {
                let offset_bytes = shape.scale_codes_offset_bytes() + index;
                return Err(MatrixError::Padding { offset_bytes, found: padding.into() });
            }
        }
        Ok(())
    }

    fn check_codes(&self, row: usize) -> Result<(), MatrixError> {
        let shape = &self.shape;
        let whole_units = if row < shape.rows() { shape.cols() / UNIT_ELEMS } else { 0 };
        // Every pattern of a narrow width indexes a level; only 8 bits and the padding need a look.
        let first = if shape.has_codebook() { whole_units } else { 0 };
        for unit in first..shape.units() {
            for (lane, code) in self.unit_codes(row, unit).into_iter().enumerate() {
                let col = unit * UNIT_ELEMS + lane;
                if row >= shape.rows() || col >= shape.cols() {
                    if code != 0 {
                        // A code of 8 bits has a byte; a narrower one shares the words of its unit.
                        let offset_bytes = match shape.has_codebook() {
                            true => shape.codes_offset_bytes() + WORD_BYTES * shape.word_index(row, unit, 0),
                            false => shape.code_byte(row, col),
                        };
                        return Err(MatrixError::Padding { offset_bytes, found: code.into() });
                    }
                } else if !shape.has_codebook() && code as i8 == i8::MIN {
                    return Err(MatrixError::Code { row, col, found: i8::MIN.into() });
                }
            }
        }
        Ok(())
    }
}
