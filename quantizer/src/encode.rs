//! From solved codes and scales to the packed section of a container.

use crate::methods::{GroupSize, Solution};
use crate::plan::MatrixFormat;
use half::f16;
use rescomp_formats::container::write::Contents;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{
    CodebookMatrix, MatrixShape, PackError, ShapeError, TABLE_ENTRIES, pack_codebook, pack_scaled,
};

/// Why a solution can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No encoding has this many bits.
    #[error("{0} bits: expected 2, 3, 4 or 8")]
    Bits(u8),
    /// The matrix is larger than a container can hold, or its groups have no encoding.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A code or scale is out of its range.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A scale is not an f16 number: the solver was told to store scales otherwise.
    #[error("row {row}, group {group}: scale {scale} is not an f16 number")]
    Scale {
        /// Row of the scale.
        row: usize,
        /// Its group.
        group: usize,
        /// The scale.
        scale: f64,
    },
    /// Rows of several groups need scale codes and row scales, and the solver gives f16 scales.
    #[error("{groups} groups a row with an f16 scale each: expected scale codes and row scales")]
    ScaleCodes {
        /// Groups a row.
        groups: usize,
    },
}

/// Packs a solution for a layout: 8 bits with f16 scales a group, fewer bits as a codebook.
///
/// # Errors
/// [`EncodeError`].
pub fn encode(
    solution: &Solution<f64>,
    MatrixFormat { bits, group }: MatrixFormat,
    layout: Layout,
) -> Result<Contents, EncodeError> {
    let width = CodeWidth::from_bits(bits).ok_or(EncodeError::Bits(bits))?;
    let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let group_elems = match group {
        GroupSize::Elements(elems) => size(elems.get()),
        GroupSize::Row => MatrixShape::whole_row(size(solution.columns)),
    };
    let shape = MatrixShape::new(size(solution.rows), size(solution.columns), group_elems, width, layout)?;
    let mut scales = Vec::with_capacity(solution.scales.len());
    for (index, &scale) in solution.scales.iter().enumerate() {
        let stored = f16::from_f64(scale);
        if stored.to_f64() != scale {
            let groups = solution.groups_per_row();
            return Err(EncodeError::Scale { row: index / groups, group: index % groups, scale });
        }
        scales.push(stored);
    }
    let mut section = vec![0; shape.section_bytes()];
    match width.levels() {
        None => pack_scaled(&shape, &solution.codes, &scales, &mut section)?,
        Some(_) if shape.has_scale_codes() => return Err(EncodeError::ScaleCodes { groups: shape.groups() }),
        Some(levels) => {
            // The solver's uniform grid as a table; its one scale a row is the row's.
            let lowest = -(levels as i64 / 2) as i8;
            let levels: Vec<i8> = (lowest..).take(levels).collect();
            let matrix = CodebookMatrix {
                levels: &levels,
                multipliers: [0; TABLE_ENTRIES],
                codes: &solution
                    .codes
                    .iter()
                    .map(|code| code.wrapping_sub(lowest) as u8)
                    .collect::<Vec<u8>>(),
                scale_codes: &[],
                row_scales: &scales,
            };
            pack_codebook(&shape, &matrix, &mut section)?;
        }
    }
    Ok(Contents::Matrix(shape, section))
}
