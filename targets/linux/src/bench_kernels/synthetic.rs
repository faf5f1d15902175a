//! A matrix without a model, for products whose cost does not depend on what is in it: one tile of rows, packed as any matrix is, over and
//! over.
//!
//! Only the first tile is packed code by code, so that a program that is emulated instruction by instruction soon comes to the products.

use half::f16;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{
    CodebookMatrix, MatrixShape, MatrixView, TABLE_ENTRIES, TABLES_BYTES, pack_codebook, pack_scaled,
};
use rescomp_runtime::memory::AlignedBytes;

use super::flags::{Group, Levels, Shape};
use crate::error::Error;

/// The layout that has kernels of its own.
const LAYOUT: Layout = Layout::Nr8k4;

/// A matrix in memory of its own.
#[derive(Debug)]
pub(crate) struct Synthetic {
    shape: MatrixShape,
    section: AlignedBytes,
}

impl Synthetic {
    /// A matrix of this shape, width and spacing of levels.
    ///
    /// # Errors
    /// `Exit::Input` for a shape that no matrix has.
    pub(crate) fn new(shape: Shape, group: Group, bits: u8, spacing: Levels) -> Result<Synthetic, Error> {
        let width = CodeWidth::from_bits(bits)
            .ok_or_else(|| Error::usage(format!("--bits {bits}: expected 2, 3, 4, 5, 6 or 8")))?;
        let wrong = |why: &dyn std::fmt::Display| Error::usage(format!("--shapes {shape}: {why}"));
        let of_rows = |rows| {
            MatrixShape::new(rows, shape.cols, group.elems(shape.cols), width, LAYOUT)
                .map_err(|error| wrong(&error))
        };
        let (whole, tile) = (of_rows(shape.rows)?, of_rows(LAYOUT.tile_rows() as u32)?);
        let tile_section = packed(&tile, spacing).map_err(|error| wrong(&error))?;
        Ok(Synthetic { shape: whole, section: AlignedBytes::new(&repeated(&tile, &tile_section, &whole)) })
    }

    /// Its shape.
    pub(crate) fn shape(&self) -> &MatrixShape {
        &self.shape
    }

    /// Its bytes as kernels take them.
    ///
    /// # Errors
    /// `Exit::Failed`, should the section not be one.
    pub(crate) fn view(&self) -> Result<MatrixView<'_>, Error> {
        MatrixView::new(self.shape, &self.section)
            .map_err(|error| Error::system("view a matrix of one's own", &error))
    }
}

/// The section of a matrix with codes and scales of all kinds.
fn packed(shape: &MatrixShape, spacing: Levels) -> Result<Vec<u8>, rescomp_formats::matrix::PackError> {
    let mut section = vec![0; shape.section_bytes()];
    let (rows, cols, groups) = (shape.rows(), shape.cols(), shape.groups());
    match shape.width().levels() {
        None => {
            // 251 is prime, so columns and rows differ; -125..=125 leaves out what no code is.
            let codes: Vec<i8> =
                (0..rows * cols).map(|index| ((index * 7919 % 251) as i32 - 125) as i8).collect();
            let scales: Vec<f16> =
                (0..rows * groups).map(|index| f16::from_f32(0.01 + index as f32 * 1e-4)).collect();
            pack_scaled(shape, &codes, &scales, &mut section)?;
        }
        Some(count) => {
            let codes: Vec<u8> = (0..rows * cols).map(|index| (index * 7919 % 251 % count) as u8).collect();
            let has_codes = shape.has_scale_codes();
            let scale_codes = if has_codes { rows * groups } else { 0 };
            let matrix = CodebookMatrix {
                levels: &levels(shape.width(), count, spacing),
                multipliers: std::array::from_fn(|index| if has_codes { 16 * index as u8 + 15 } else { 0 }),
                codes: &codes,
                scale_codes: &(0..scale_codes)
                    .map(|index| (index * 5 % TABLE_ENTRIES) as u8)
                    .collect::<Vec<_>>(),
                row_scales: &vec![f16::from_f32(0.5); rows],
            };
            pack_codebook(shape, &matrix, &mut section)?;
        }
    }
    Ok(section)
}

/// Levels of a width, where a matrix chooses them; normal ones evenly over its range, which no kernel computes otherwise.
fn levels(width: CodeWidth, count: usize, spacing: Levels) -> Vec<i8> {
    let bound = i32::from(width.level_bound());
    let even = |code: usize| match spacing {
        Levels::Normal => (2 * bound * code as i32 / (count as i32 - 1) - bound) as i8,
        Levels::Even if count < 16 => (2 * code as i32 - (count as i32 - 1)) as i8,
        Levels::Uniform | Levels::Even => (code as i32 - count as i32 / 2) as i8,
    };
    (0..count).map(|code| width.fixed_level(code as u8).unwrap_or(even(code))).collect()
}

/// The section of `whole`, whose tiles are all like the one that `tile` is. In this layout a tile's codes and its scales are runs of bytes.
fn repeated(tile: &MatrixShape, tile_section: &[u8], whole: &MatrixShape) -> Vec<u8> {
    let mut section = vec![0; whole.section_bytes()];
    if whole.has_codebook() {
        section[..TABLES_BYTES].copy_from_slice(&tile_section[..TABLES_BYTES]);
    }
    let parts = |shape: &MatrixShape| {
        [
            (shape.codes_offset_bytes(), shape.codes_bytes()),
            (shape.scale_codes_offset_bytes(), shape.scale_codes_bytes()),
            (shape.scales_offset_bytes(), 2 * shape.scales()),
        ]
    };
    for ((from, bytes), (to, all_bytes)) in parts(tile).into_iter().zip(parts(whole)) {
        if bytes > 0 {
            let source = &tile_section[from..from + bytes];
            section[to..to + all_bytes].chunks_exact_mut(bytes).for_each(|part| part.copy_from_slice(source));
        }
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_valid_and_every_tile_is_the_first() {
        for bits in [2, 3, 4, 5, 6, 8] {
            for group in [Group::Elems(32), Group::Elems(64), Group::Elems(128), Group::Row] {
                for (rows, cols) in [(8, 1), (16, 64), (24, 576), (8, 100)] {
                    let matrix =
                        Synthetic::new(Shape { rows, cols }, group, bits, Levels::Normal).expect("a matrix");
                    let view = matrix.view().expect("a view");
                    assert_eq!(view.check(&matrix.section), Ok(()), "{bits} {group:?} {rows}x{cols}");
                    let row = |row: usize| {
                        let mut values = vec![0.0; cols as usize];
                        view.decode_row(row, &mut values);
                        values
                    };
                    assert!((8..rows as usize).all(|index| row(index) == row(index % 8)));
                    assert!(cols == 1 || row(0).iter().any(|value| *value != row(0)[0]), "all alike");
                }
            }
        }
    }

    #[test]
    fn levels_are_spaced_as_asked() {
        assert_eq!(levels(CodeWidth::Int2, 4, Levels::Uniform), [-2, -1, 0, 1]);
        assert_eq!(levels(CodeWidth::Int4, 16, Levels::Uniform), (-8..8).collect::<Vec<i8>>());
        assert_eq!(levels(CodeWidth::Int2, 4, Levels::Even), [-3, -1, 1, 3]);
        assert_eq!(levels(CodeWidth::Int3, 8, Levels::Even), [-7, -5, -3, -1, 1, 3, 5, 7]);
        assert_eq!(levels(CodeWidth::Int4, 16, Levels::Even), (-8..8).collect::<Vec<i8>>());
        let normal = levels(CodeWidth::Int4, 16, Levels::Normal);
        assert!(normal.windows(2).all(|pair| pair[1] - pair[0] > 1), "{normal:?}");
        // At 5 bits the width itself says.
        assert_eq!(levels(CodeWidth::Int5, 16, Levels::Uniform), levels(CodeWidth::Int5, 16, Levels::Normal));
    }

    #[test]
    fn what_is_no_matrix_is_refused() {
        let shape = Shape { rows: 8, cols: 1 << 24 };
        let error = Synthetic::new(shape, Group::Elems(64), 4, Levels::Normal).expect_err("refused");
        assert!(error.to_string().contains("--shapes 8x16777216"), "{error}");
        let error = Synthetic::new(Shape { rows: 8, cols: 64 }, Group::Elems(64), 7, Levels::Normal)
            .expect_err("refused");
        assert!(error.to_string().contains("--bits 7"), "{error}");
    }
}
