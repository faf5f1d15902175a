//! A matrix in borrowed bytes.

use super::{MatrixError, MatrixShape, TABLE_ENTRIES};
use crate::encodings::stacked::low_level;
use crate::encodings::{MAX_UNIT_WORDS, UNIT_ELEMS, WORD_BYTES};
use half::f16;

/// What codes are multiplied with.
#[derive(Clone, Copy, Debug)]
pub enum Scaling<'a> {
    /// 8 bits: f16 bits, [`MatrixShape::scales`] of them in the layout's order, one a group.
    Groups(&'a [u16]),
    /// 2 to 6 bits.
    Codebook(Codebook<'a>),
}

/// Tables and scales of a codebook matrix.
#[derive(Clone, Copy, Debug)]
pub struct Codebook<'a> {
    /// What codes index: with all their bits, or at 5 and 6 bits with the high four. Entries beyond the width's are zero.
    pub levels: &'a [i8; TABLE_ENTRIES],
    /// What scale codes index; zeros where there are no scale codes, and every multiplier is 1.
    pub multipliers: &'a [u8; TABLE_ENTRIES],
    /// Two groups of a row a byte, [`MatrixShape::scale_codes_bytes`] in the layout's order.
    pub scale_codes: &'a [u8],
    /// f16 bits, one a padded row.
    pub row_scales: &'a [u16],
}

/// A quantized matrix in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    pub(super) shape: MatrixShape,
    codes: &'a [u8],
    pub(super) scaling: Scaling<'a>,
}

impl<'a> MatrixView<'a> {
    /// Views the bytes of a section. Sizes are checked; contents by [`MatrixView::check`].
    ///
    /// # Errors
    /// [`MatrixError::Length`] or [`MatrixError::Unaligned`].
    pub fn new(shape: MatrixShape, section: &'a [u8]) -> Result<Self, MatrixError> {
        let length = MatrixError::Length { expected: shape.section_bytes(), found: section.len() };
        if section.len() != shape.section_bytes() {
            return Err(length);
        }
        let (front, scales) = section.split_at(shape.scales_offset_bytes());
        let scales: &[u16] = bytemuck::try_cast_slice(scales).map_err(|_| MatrixError::Unaligned)?;
        let scaling = if shape.has_codebook() {
            let (levels, rest) = front.split_first_chunk().ok_or(length)?;
            let multipliers = rest.first_chunk().ok_or(length)?;
            Scaling::Codebook(Codebook {
                levels: bytemuck::cast_ref::<[u8; TABLE_ENTRIES], [i8; TABLE_ENTRIES]>(levels),
                multipliers,
                scale_codes: &front[shape.scale_codes_offset_bytes()..][..shape.scale_codes_bytes()],
                row_scales: scales,
            })
        } else {
            Scaling::Groups(scales)
        };
        let codes = &front[shape.codes_offset_bytes()..][..shape.codes_bytes()];
        Ok(MatrixView { shape, codes, scaling })
    }

    /// The shape.
    pub fn shape(&self) -> &MatrixShape {
        &self.shape
    }
    /// The codes, [`MatrixShape::codes_bytes`] bytes in the layout's order.
    pub fn codes(&self) -> &'a [u8] {
        self.codes
    }
    /// What the codes are multiplied with.
    pub fn scaling(&self) -> Scaling<'a> {
        self.scaling
    }

    /// The codes of columns `32 * unit ..` of a row, as bits.
    ///
    /// # Panics
    /// Where `row` or `unit` is out of range.
    pub fn unit_codes(&self, row: usize, unit: usize) -> [u8; UNIT_ELEMS] {
        let mut words = [[0; WORD_BYTES]; MAX_UNIT_WORDS];
        for (index, word) in words.iter_mut().take(self.shape.width().bits()).enumerate() {
            let at = WORD_BYTES * self.shape.word_index(row, unit, index);
            word.copy_from_slice(&self.codes[at..at + WORD_BYTES]);
        }
        self.shape.width().decode_unit(&words)
    }

    /// The levels of columns `32 * unit ..` of a row: what is multiplied with activations.
    ///
    /// # Panics
    /// Where `row` or `unit` is out of range.
    pub fn unit_levels(&self, row: usize, unit: usize) -> [i8; UNIT_ELEMS] {
        let codes = self.unit_codes(row, unit);
        match &self.scaling {
            Scaling::Groups(_) => codes.map(|code| code as i8),
            Scaling::Codebook(codebook) => {
                let low_bits = self.shape.width().low_bits();
                // A narrow code is below 16 but for its low bits. Only levels that `check` refuses could wrap.
                codes.map(|code| {
                    codebook.levels[usize::from(code >> low_bits)].wrapping_add(low_level(low_bits, code))
                })
            }
        }
    }

    /// What a group's integer sum is multiplied with before the row's scale; 1 where there are no scale codes.
    ///
    /// # Panics
    /// Where `row` or `group` is out of range.
    pub fn multiplier(&self, row: usize, group: usize) -> u8 {
        match &self.scaling {
            Scaling::Codebook(codebook) if self.shape.has_scale_codes() => {
                let byte = codebook.scale_codes[self.shape.scale_code_index(row, group / 2)];
                codebook.multipliers[usize::from(byte >> (4 * (group % 2)) & 15)]
            }
            _ => 1,
        }
    }

    /// The scale of a group: in a codebook matrix that of its row times [`MatrixShape::row_scale_unit`], exactly.
    ///
    /// # Panics
    /// Where `row` or `group` is out of range.
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        let f32_of = |bits| f16::from_bits(bits).to_f32();
        match self.scaling {
            Scaling::Groups(scales) => f32_of(scales[self.shape.scale_index(row, group)]),
            Scaling::Codebook(codebook) => f32_of(codebook.row_scales[row]) * self.shape.row_scale_unit(),
        }
    }

    /// Writes the values of columns `32 * unit ..` of a row to `output`, as many as it has:
    /// `f32(level * multiplier) * f32(scale)`, the product in brackets exact, the other rounded once (docs/numerics.md).
    ///
    /// # Panics
    /// Where `row` or `unit` is out of range or `output` longer than the rest of the padded row.
    pub fn decode_columns(&self, row: usize, unit: usize, output: &mut [f32]) {
        for (unit, values) in (unit..).zip(output.chunks_mut(UNIT_ELEMS)) {
            let group = unit * UNIT_ELEMS / self.shape.group_elems();
            let (multiplier, scale) = (i16::from(self.multiplier(row, group)), self.scale(row, group));
            for (value, level) in values.iter_mut().zip(self.unit_levels(row, unit)) {
                *value = f32::from(i16::from(level) * multiplier) * scale;
            }
        }
    }

    /// Writes the values of a row to `output` (as many columns as it has, from column 0): [`MatrixView::decode_columns`].
    ///
    /// # Panics
    /// Where `row` is out of range or `output` longer than the padded row.
    pub fn decode_row(&self, row: usize, output: &mut [f32]) {
        self.decode_columns(row, 0, output);
    }
}
