//! From solved levels and scales to the packed section of a container.

use crate::grids::coding::{CODED_UNIT, ROW_UNIT};
use crate::methods::{GroupSize, LowRank, Solution};
use crate::plan::MatrixFormat;
use half::f16;
use rescomp_formats::container::write::Contents;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{
    CodebookMatrix, LowRankShape, MatrixShape, PackError, ShapeError, TABLE_ENTRIES, pack_codebook,
    pack_scaled,
};

/// Why a solution can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No encoding has this many bits.
    #[error("{0} bits: expected 2, 3, 4, 5, 6 or 8")]
    Bits(u8),
    /// The matrix is larger than a container can hold, or its groups have no encoding.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A code or scale is out of its range.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A scale is not what the container can store: the solver was told to store scales otherwise.
    #[error("row {row}, group {group}: scale {scale} is not {expected}")]
    Scale {
        /// Row of the scale.
        row: usize,
        /// Its group.
        group: usize,
        /// The scale.
        scale: f64,
        /// What it should be.
        expected: &'static str,
    },
    /// A level is not one of the solution's own grid.
    #[error("row {row}, column {column}: {level} is no level of the grid")]
    Level {
        /// Row of the level.
        row: usize,
        /// Its column.
        column: usize,
        /// The level.
        level: i8,
    },
    /// Rows of several groups need coded scales.
    #[error("{groups} groups a row without scale codes: the solver was told to store scales otherwise")]
    NotCoded {
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
    format: MatrixFormat,
    layout: Layout,
) -> Result<Contents, EncodeError> {
    let shape = shape((solution.rows, solution.columns), format, layout)?;
    let mut section = vec![0; shape.section_bytes()];
    if !shape.has_codebook() {
        let scales = stored(&solution.scales, 1.0, solution.groups_per_row())?;
        pack_scaled(&shape, &solution.codes, &scales, &mut section)?;
        return Ok(Contents::Matrix(shape, section));
    }
    let (multipliers, scale_codes, row_scales) = match &solution.coding {
        None if shape.has_scale_codes() => return Err(EncodeError::NotCoded { groups: shape.groups() }),
        None => ([0; TABLE_ENTRIES], Vec::new(), stored(&solution.scales, ROW_UNIT, 1)?),
        Some(coding) => {
            let row_scales = stored(&coding.row_scales, 1.0, 1)?;
            (coding.multipliers, scale_codes(solution, &coding.multipliers, &coding.row_scales)?, row_scales)
        }
    };
    let levels = solution.grid.levels();
    let codes = codes(solution, &levels)?;
    let matrix = CodebookMatrix {
        levels: &levels,
        multipliers,
        codes: &codes,
        scale_codes: &scale_codes,
        row_scales: &row_scales,
    };
    pack_codebook(&shape, &matrix, &mut section)?;
    Ok(Contents::Matrix(shape, section))
}

/// Packs a solution and the factors of its correction, where it has one, as one section.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_corrected(
    solution: &Solution<f64>,
    low_rank: Option<&LowRank>,
    format: MatrixFormat,
    layout: Layout,
) -> Result<Contents, EncodeError> {
    let contents = encode(solution, format, layout)?;
    let (Some(LowRank { right, left }), Contents::Matrix(shape, matrix)) = (low_rank, &contents) else {
        return Ok(contents);
    };
    let corrected = LowRankShape::new(*shape, u32::try_from(right.rows).unwrap_or(u32::MAX))?;
    let factor = |solution: &Solution<f64>, shape: &MatrixShape| {
        let mut section = vec![0; shape.section_bytes()];
        let scales = stored(&solution.scales, 1.0, solution.groups_per_row())?;
        pack_scaled(shape, &solution.codes, &scales, &mut section)?;
        Ok::<_, EncodeError>(section)
    };
    let (right, left) = (factor(right, corrected.right())?, factor(left, corrected.left())?);
    Ok(Contents::corrected(corrected, [matrix, &right, &left]).map_err(PackError::Content)?)
}

/// Bytes of the section of a matrix of some rows and columns in this format, with its correction where it has one.
///
/// # Errors
/// [`EncodeError::Bits`] and [`EncodeError::Shape`].
pub fn section_bytes(
    (rows, columns): (usize, usize),
    format: MatrixFormat,
    layout: Layout,
) -> Result<usize, EncodeError> {
    let shape = shape((rows, columns), format, layout)?;
    Ok(match format.rank_of(rows, columns) {
        0 => shape.section_bytes(),
        rank => LowRankShape::new(shape, u32::try_from(rank).unwrap_or(u32::MAX))?.section_bytes(),
    })
}

/// The shape of a matrix of some rows and columns in this format.
///
/// # Errors
/// [`EncodeError::Bits`] and [`EncodeError::Shape`].
pub fn shape(
    (rows, columns): (usize, usize),
    MatrixFormat { bits, group, .. }: MatrixFormat,
    layout: Layout,
) -> Result<MatrixShape, EncodeError> {
    let width = CodeWidth::from_bits(bits).ok_or(EncodeError::Bits(bits))?;
    // What is too large for a u32 is beyond the bounds of a shape, and refused as such.
    let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let group_elems = match group {
        GroupSize::Elements(elems) => size(elems.get()),
        GroupSize::Row => MatrixShape::whole_row(size(columns)),
    };
    Ok(MatrixShape::new(size(rows), size(columns), group_elems, width, layout)?)
}

/// The f16 numbers that `scales` are in this unit, exactly.
fn stored(scales: &[f64], unit: f64, groups: usize) -> Result<Vec<f16>, EncodeError> {
    let store = |(index, &scale): (usize, &f64)| {
        let stored = f16::from_f64(scale / unit);
        let (row, group) = (index / groups, index % groups);
        match stored.to_f64() * unit == scale {
            true => Ok(stored),
            false => Err(EncodeError::Scale { row, group, scale, expected: "an f16 number of its unit" }),
        }
    };
    scales.iter().enumerate().map(store).collect()
}

/// The multiplier of every group, by its index.
fn scale_codes(
    solution: &Solution<f64>,
    multipliers: &[u8; TABLE_ENTRIES],
    row_scales: &[f64],
) -> Result<Vec<u8>, EncodeError> {
    let groups = solution.groups_per_row();
    let code = |(index, &scale): (usize, &f64)| {
        let (row, group) = (index / groups, index % groups);
        // All factors have few bits: the products are exact.
        let is = |multiplier: &u8| f64::from(*multiplier) * CODED_UNIT * row_scales[row] == scale;
        let code = multipliers.iter().position(is).map(|code| code as u8);
        code.ok_or(EncodeError::Scale { row, group, scale, expected: "its row's times a multiplier" })
    };
    solution.scales.iter().enumerate().map(code).collect()
}

/// The index of every level.
fn codes(solution: &Solution<f64>, levels: &[i8]) -> Result<Vec<u8>, EncodeError> {
    let mut index = [u8::MAX; 256];
    for (code, level) in levels.iter().enumerate() {
        index[usize::from(*level as u8)] = code as u8;
    }
    let code = |(at, &level): (usize, &i8)| match index[usize::from(level as u8)] {
        u8::MAX => {
            let (row, column) = (at / solution.columns, at % solution.columns);
            Err(EncodeError::Level { row, column, level })
        }
        code => Ok(code),
    };
    solution.codes.iter().enumerate().map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grids::ScaleFormat;
    use crate::methods::{SolverOptions, rtn};
    use faer::Mat;
    use rescomp_formats::matrix::MatrixView;

    fn weights() -> Mat<f64> {
        Mat::from_fn(11, 150, |i, j| ((i * 150 + j) as f64 * 0.37).sin() * 0.05 * (1.0 + (j / 32) as f64))
    }

    #[test]
    fn the_container_has_the_solvers_values() {
        for (bits, group) in
            [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| ["32", "64", "128", "row"].map(|g| (bits, g)))
        {
            let format = MatrixFormat::plain(bits, group.parse().unwrap());
            let options = SolverOptions::for_container(bits, format.group);
            let solution = rtn::round_to_nearest(weights().as_ref(), &options).unwrap();
            for layout in [Layout::Rows, Layout::Nr8k4] {
                let Contents::Matrix(shape, section) = encode(&solution, format, layout).unwrap() else {
                    panic!("a matrix");
                };
                let view = MatrixView::new(shape, &section).unwrap();
                view.check(&section).unwrap();
                let mut row = [0.0; 150];
                for (index, expected) in solution.values().chunks(150).enumerate() {
                    view.decode_row(index, &mut row);
                    for (found, expected) in row.iter().zip(expected) {
                        assert_eq!(*found, *expected as f32, "{bits} bits, group {group}, row {index}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_container_cannot_store_is_refused() {
        let group = GroupSize::elements(32).unwrap();
        let format = MatrixFormat::plain(3, group);
        let options = SolverOptions::for_container(3, group);
        let solution = rtn::round_to_nearest(weights().as_ref(), &options).unwrap();
        let refused = |solution: &Solution<f64>, format| encode(solution, format, Layout::Rows).unwrap_err();

        let mut other = solution.clone();
        other.scales[7] *= 1.01;
        assert!(matches!(refused(&other, format), EncodeError::Scale { row: 1, group: 2, .. }));
        let mut other = solution.clone();
        other.codes[151] = 1;
        assert!(matches!(refused(&other, format), EncodeError::Level { row: 1, column: 1, level: 1 }));
        let full = SolverOptions { scale_format: ScaleFormat::Full, ..options };
        let other = rtn::round_to_nearest(weights().as_ref(), &full).unwrap();
        assert!(matches!(refused(&other, format), EncodeError::NotCoded { groups: 5 }));
        assert!(matches!(refused(&solution, MatrixFormat::plain(7, group)), EncodeError::Bits(7)));
    }
}
