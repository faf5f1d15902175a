//! The matrix product with `f32` activations, for accuracy work: any width, any layout, the same bits on every backend.

use super::lanes::LANES;
use super::{Kernels, OutputRows, TILE_ROWS, fold_sum};
use core::ops::Range;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::matrix::MatrixView;

/// Tokens that share one decoding of a row.
const TOKENS: usize = 16;
/// Columns that are decoded at once: a multiple of the lanes and of a unit.
const RUN_ELEMS: usize = 128;

/// The product of a quantized matrix with `input` (tokens x columns, not padded): rows `8 * tiles.start ..` of the output for
/// all tokens, the first row of `output` being row `8 * tiles.start`. Each element is `dot(values of the row, input)`
/// (docs/numerics.md).
///
/// # Panics
/// Where `input` has another length, `output` fewer tokens, or `tiles` ends beyond the matrix.
pub fn matrix_product_f32(
    kernels: &Kernels,
    matrix: &MatrixView<'_>,
    input: &[f32],
    tokens: usize,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    let shape = matrix.shape();
    assert_eq!(Some(input.len()), tokens.checked_mul(shape.cols()), "input of {tokens} tokens");
    assert!(tiles.end <= shape.rows().div_ceil(TILE_ROWS), "tiles {tiles:?} of {} rows", shape.rows());
    for (index, tile) in tiles.enumerate() {
        let rows = tile * TILE_ROWS..shape.rows().min((tile + 1) * TILE_ROWS);
        for (block, input) in input.chunks(TOKENS * shape.cols()).enumerate() {
            let mut sums = [[0.0; TILE_ROWS]; TOKENS];
            for (lane, row) in rows.clone().enumerate() {
                add_row(kernels, matrix, row, input, lane, &mut sums);
            }
            let tokens = input.len() / shape.cols();
            for (token, sums) in sums.iter().take(tokens).enumerate() {
                output.store(block * TOKENS + token, index * TILE_ROWS, sums);
            }
        }
    }
}

/// One row times up to [`TOKENS`] tokens, into element `lane` of each token's sums.
fn add_row(
    kernels: &Kernels,
    matrix: &MatrixView<'_>,
    row: usize,
    input: &[f32],
    lane: usize,
    sums: &mut [[f32; TILE_ROWS]; TOKENS],
) {
    let cols = matrix.shape().cols();
    let mut lanes = [[0.0; LANES]; TOKENS];
    for from in (0..cols).step_by(RUN_ELEMS) {
        let to = cols.min(from + RUN_ELEMS);
        let mut values = [0.0; RUN_ELEMS];
        let values = &mut values[..to - from];
        matrix.decode_columns(row, from / UNIT_ELEMS, values);
        for (input, lanes) in input.chunks(cols).zip(&mut lanes) {
            (kernels.dot_lanes)(lanes, values, &input[from..to]);
        }
    }
    for ((_, lanes), sums) in input.chunks(cols).zip(&lanes).zip(sums.iter_mut()) {
        sums[lane] = fold_sum(lanes);
    }
}
