//! Tensors of a GGUF file: blocks of 32 weights with a binary16 scale in front, and plain floats.

use half::f16;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::section::SectionName;

use super::super::{ExportError, ScaledIntegers};
use super::BlockType;
use super::file::{Tensor, TensorType};

/// Levels that Q4_0 has.
const Q4_0_LEVELS: (i8, i8) = (-8, 7);
/// Levels that Q8_0 has, as far as a container has them.
const Q8_0_LEVELS: (i8, i8) = (-127, 127);

/// A matrix in blocks of a type: the one that is asked for, or the smallest that has its levels.
///
/// # Errors
/// [`ExportError::RowLength`], [`ExportError::Level`].
pub(super) fn matrix(
    name: String,
    matrix: &ScaledIntegers,
    wanted: BlockType,
    row_order: impl Fn(usize) -> usize,
) -> Result<Tensor, ExportError> {
    let (low, high) = matrix.range();
    let kind = match wanted {
        BlockType::Smallest if low < Q4_0_LEVELS.0 || high > Q4_0_LEVELS.1 => TensorType::Q8_0,
        BlockType::Smallest | BlockType::Q4_0 => TensorType::Q4_0,
        BlockType::Q8_0 => TensorType::Q8_0,
    };
    let levels = if kind == TensorType::Q4_0 { Q4_0_LEVELS } else { Q8_0_LEVELS };
    matrix.check_range(kind.name(), levels, "--bits 4")?;
    check_rows(matrix.name, matrix.columns, kind.name())?;
    let mut bytes = Vec::new();
    for row in (0..matrix.rows).map(row_order) {
        let codes = matrix.codes[row * matrix.columns..][..matrix.columns].as_chunks::<UNIT_ELEMS>().0;
        let scales = &matrix.scales[row * matrix.units()..][..matrix.units()];
        for (codes, scale) in codes.iter().zip(scales) {
            push_block(&mut bytes, kind, codes, *scale);
        }
    }
    Ok(Tensor { name, shape: vec![matrix.rows, matrix.columns], kind, bytes })
}

fn check_rows(tensor: SectionName, columns: usize, kind: &'static str) -> Result<(), ExportError> {
    match columns.is_multiple_of(UNIT_ELEMS) {
        true => Ok(()),
        false => Err(ExportError::RowLength { tensor, kind, multiple: UNIT_ELEMS, columns }),
    }
}

fn push_block(bytes: &mut Vec<u8>, kind: TensorType, codes: &[i8; UNIT_ELEMS], scale: f16) {
    bytes.extend(scale.to_le_bytes());
    if kind == TensorType::Q4_0 {
        let (low, high) = codes.split_at(UNIT_ELEMS / 2);
        // From -8..=7 to 0..=15; the first half of the block in the low nibbles, the second in the high ones.
        bytes.extend(low.iter().zip(high).map(|(low, high)| ((low + 8) | (high + 8) << 4).cast_unsigned()));
    } else {
        bytes.extend(codes.map(i8::cast_unsigned));
    }
}

/// A vector of 32-bit floats.
pub(super) fn floats(name: String, values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { name, shape: vec![values.len()], kind: TensorType::F32, bytes }
}

/// The rows of queries or keys as llama.cpp has them: rotary pairs of neighbours, where a container has pairs of a head's halves. `row` is one of the
/// file, the result the container's.
pub(super) fn row_of_neighbours(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + within % 2 * (head_dim / 2) + within / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_neighbours_in_every_head() {
        let rows: Vec<usize> = (0..12).map(|row| row_of_neighbours(row, 6)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }

    #[test]
    fn blocks_have_their_scale_and_both_halves() {
        let codes: [i8; UNIT_ELEMS] = std::array::from_fn(|i| (i % 16) as i8 - 8);
        let mut bytes = Vec::new();
        push_block(&mut bytes, TensorType::Q4_0, &codes, f16::ONE);
        assert_eq!(bytes[..2], [0, 0x3c]);
        assert_eq!(bytes[2..], std::array::from_fn::<u8, 16, _>(|i| (i | i << 4) as u8));
        bytes.clear();
        push_block(&mut bytes, TensorType::Q8_0, &codes, f16::ONE);
        assert_eq!((bytes.len(), bytes[2], bytes[33]), (34, 0xf8, 7));
    }
}
