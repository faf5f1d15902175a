//! The obvious integer product: any width, any layout, code by code. The other products are tested against it.

use crate::kernels::lanes::Elementwise;
use crate::kernels::quantized::{check, step_columns};
use crate::kernels::{Activations, OutputRows, Products, TILE_ROWS};
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{MatrixView, Scaling};

/// Tokens that share one decoding of a row.
const TOKENS: usize = 8;

/// See [`MatrixProduct`](crate::kernels::MatrixProduct).
pub(crate) fn product(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, None);
    let rows = matrix.shape().rows();
    for (index, tile) in tiles.enumerate() {
        for first in (0..activations.tokens).step_by(TOKENS) {
            let tokens = first..activations.tokens.min(first + TOKENS);
            let mut sums = [[0.0; TILE_ROWS]; TOKENS];
            for row in tile * TILE_ROWS..rows.min((tile + 1) * TILE_ROWS) {
                for (sums, sum) in sums.iter_mut().zip(row_sums(matrix, activations, row, tokens.clone())) {
                    sums[row % TILE_ROWS] = sum;
                }
            }
            for (token, sums) in tokens.zip(&sums) {
                output.store(token, index * TILE_ROWS, sums);
            }
        }
    }
}

/// One row times up to [`TOKENS`] tokens.
fn row_sums(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    row: usize,
    tokens: Range<usize>,
) -> [f32; TOKENS] {
    let shape = matrix.shape();
    let mut sums = [0.0f32; TOKENS];
    for (step, columns) in step_columns(shape).enumerate() {
        let mut integers = [0i32; TOKENS];
        for start in columns.clone().step_by(UNIT_ELEMS) {
            let levels = matrix.unit_levels(row, start / UNIT_ELEMS);
            let multiplier = i32::from(matrix.multiplier(row, start / shape.group_elems()));
            for (token, integer) in tokens.clone().zip(&mut integers) {
                let at = token * shape.padded_cols() + start;
                let products = levels
                    .iter()
                    .zip(&activations.codes[at..at + UNIT_ELEMS])
                    .map(|(&level, &activation)| i32::from(level) * i32::from(activation));
                *integer += multiplier * products.sum::<i32>();
            }
        }
        // A codebook's scale belongs to the row, and comes last.
        let group_scale = match matrix.scaling() {
            Scaling::Groups(_) => matrix.scale(row, columns.start / shape.group_elems()),
            Scaling::Codebook(_) => 1.0,
        };
        for ((token, integer), sum) in tokens.clone().zip(integers).zip(&mut sums) {
            let scale = group_scale * activations.scales[token * shape.steps() + step];
            *sum = (integer as f32).fma(scale, *sum);
        }
    }
    match matrix.scaling() {
        Scaling::Groups(_) => sums,
        Scaling::Codebook(_) => sums.map(|sum| sum * matrix.scale(row, 0)),
    }
}

/// This product for matrices of one kind, with its full names.
pub(crate) const fn products(layout: Layout, width: CodeWidth) -> Products {
    macro_rules! named {
        ($kind:literal) => {
            Products {
                gemv: product,
                gemm: product,
                gemv_name: concat!("gemv_", $kind, "_portable"),
                gemm_name: concat!("gemm_", $kind, "_portable"),
            }
        };
    }
    match (layout, width) {
        (Layout::Rows, CodeWidth::Int2) => named!("int2_rows"),
        (Layout::Rows, CodeWidth::Int3) => named!("int3_rows"),
        (Layout::Rows, CodeWidth::Int4) => named!("int4_rows"),
        (Layout::Rows, CodeWidth::Int5) => named!("int5_rows"),
        (Layout::Rows, CodeWidth::Int6) => named!("int6_rows"),
        (Layout::Rows, CodeWidth::Int8) => named!("int8_rows"),
        (Layout::Nr8k4, CodeWidth::Int2) => named!("int2_nr8k4"),
        (Layout::Nr8k4, CodeWidth::Int3) => named!("int3_nr8k4"),
        (Layout::Nr8k4, CodeWidth::Int4) => named!("int4_nr8k4"),
        (Layout::Nr8k4, CodeWidth::Int5) => named!("int5_nr8k4"),
        (Layout::Nr8k4, CodeWidth::Int6) => named!("int6_nr8k4"),
        (Layout::Nr8k4, CodeWidth::Int8) => named!("int8_nr8k4"),
    }
}
