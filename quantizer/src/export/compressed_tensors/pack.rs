//! Codes in i32 words, and the scales of groups.

use half::f16;
use rescomp_formats::encodings::UNIT_ELEMS;

use super::super::{ExportError, ScaledIntegers};
use super::{FORMAT, check_columns};

/// How all matrices of a folder are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    /// Bits a code: 4 or 8, for which there are kernels.
    pub(super) bits: usize,
    /// Columns that share a scale; `None` for whole rows.
    pub(super) group: Option<usize>,
}

impl Packing {
    /// The packing that holds all of these.
    ///
    /// # Errors
    /// [`ExportError::Mixed`], [`ExportError::RowLength`], [`ExportError::Level`].
    pub(super) fn of(matrices: &[(String, ScaledIntegers)]) -> Result<Self, ExportError> {
        let in_range = |(_, matrix): &(String, ScaledIntegers)| {
            let (low, high) = matrix.range();
            low >= -8 && high <= 7
        };
        let bits = if matrices.iter().all(in_range) { 4 } else { 8 };
        let Some((_, first)) = matrices.first() else { return Ok(Self { bits, group: None }) };
        let whole_rows = |matrix: &ScaledIntegers| matrix.group_elems >= matrix.columns;
        if matrices.iter().all(|(_, matrix)| whole_rows(matrix)) {
            matrices.iter().try_for_each(|(_, matrix)| check_columns(matrix, UNIT_ELEMS))?;
            return Ok(Self { bits, group: None });
        }
        for (_, matrix) in matrices {
            let format = |of: &ScaledIntegers| format!("{} bits in groups of {}", of.bits, of.group_elems);
            if (matrix.group_elems, matrix.bits) != (first.group_elems, first.bits) {
                return Err(ExportError::Mixed {
                    tensor: matrix.name,
                    expected: format(first),
                    other: first.name,
                    found: format(matrix),
                });
            }
            check_columns(matrix, matrix.group_elems)?;
            matrix.check_range(FORMAT, (-127, 127), "")?;
        }
        Ok(Self { bits, group: Some(first.group_elems) })
    }

    /// The codes of all rows, from the low bits of words up, with half their number added so that they are not negative.
    pub(super) fn words(self, matrix: &ScaledIntegers) -> Vec<u32> {
        let half = 1 << (self.bits - 1);
        let word = |codes: &[i8]| {
            codes.iter().rev().fold(0, |word: u32, &code| {
                // At most 8 bits of a number from 0 on.
                word << self.bits | (i32::from(code) + half) as u32
            })
        };
        matrix.codes.chunks(32 / self.bits).map(word).collect()
    }

    /// The scales of all groups.
    pub(super) fn scales(self, matrix: &ScaledIntegers) -> Vec<f16> {
        let units = matrix.units();
        let step = self.group.map_or(units, |group| group / UNIT_ELEMS);
        matrix.scales.chunks(units).flat_map(|row| row.iter().step_by(step)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_formats::section::{SectionKind, SectionName};

    fn matrix(codes: Vec<i8>, group_elems: usize) -> ScaledIntegers {
        let (rows, columns) = (codes.len() / 64, 64);
        let scales = (0..rows * 2).map(|unit| f16::from_f32((unit + 1) as f32)).collect();
        let name = SectionName { kind: SectionKind::Query, layer: Some(0) };
        ScaledIntegers { name, rows, columns, group_elems, bits: 4, codes, scales }
    }

    #[test]
    fn the_first_code_is_in_the_low_bits() {
        let mut codes = vec![-8; 64];
        (codes[0], codes[7], codes[8]) = (-7, 7, 1);
        let matrices = [("a".to_owned(), matrix(codes, 32))];
        let packing = Packing::of(&matrices).unwrap();
        assert_eq!(packing, Packing { bits: 4, group: Some(32) });
        assert_eq!(packing.words(&matrices[0].1)[..2], [0xf000_0001, 9]);
        assert_eq!(packing.scales(&matrices[0].1).len(), 2);
    }

    #[test]
    fn wide_codes_take_bytes_and_whole_rows_one_scale() {
        let mut codes = vec![0; 128];
        (codes[0], codes[1]) = (-9, 127);
        let matrices = [("a".to_owned(), matrix(codes, 64))];
        let packing = Packing::of(&matrices).unwrap();
        assert_eq!(packing, Packing { bits: 8, group: None });
        assert_eq!(packing.words(&matrices[0].1)[0], 0x8080_ff77);
        assert_eq!(packing.scales(&matrices[0].1), [f16::from_f32(1.0), f16::from_f32(3.0)]);
    }

    #[test]
    fn different_groups_are_refused() {
        let other = ScaledIntegers { group_elems: 64, ..matrix(vec![0; 64], 32) };
        let matrices = [("a".to_owned(), matrix(vec![0; 64], 32)), ("b".to_owned(), other)];
        assert!(matches!(Packing::of(&matrices), Err(ExportError::Mixed { .. })));
    }
}
