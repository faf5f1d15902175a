//! What every integer matrix product takes, and the checks that all of them begin with.

use super::{OutputRows, TILE_ROWS};
use core::ops::Range;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{MatrixShape, MatrixView};

/// Activations quantized by [`Kernels::quantize_activations`](super::Kernels::quantize_activations), token after token.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// Codes in -127..=127, tokens x padded columns.
    pub codes: &'a [i8],
    /// Scales, tokens x steps.
    pub scales: &'a [f32],
    /// Number of tokens, `m`.
    pub tokens: usize,
}

/// A grouped integer matrix product: rows `8 * tiles.start ..` of the output, for all tokens. The first row of `output` is
/// row `8 * tiles.start`; rows that `output` doesn't have are dropped.
///
/// Panics where the lengths of `activations` disagree with the shape, `output` has fewer tokens, `tiles` ends beyond the
/// matrix, or the kernel is for another width or layout.
pub type MatrixProduct = fn(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
);

/// Panics where the arguments of a [`MatrixProduct`] disagree. `kernel` is the width of a kernel for one width in layout nr8k4.
pub(super) fn check(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: &Range<usize>,
    output: &OutputRows<'_>,
    kernel: Option<CodeWidth>,
) {
    let shape = matrix.shape();
    if let Some(width) = kernel {
        assert_eq!((shape.width(), shape.layout()), (width, Layout::Nr8k4), "kernel for another encoding");
    }
    assert_eq!(
        Some(activations.codes.len()),
        activations.tokens.checked_mul(shape.padded_cols()),
        "activation codes"
    );
    assert_eq!(
        Some(activations.scales.len()),
        activations.tokens.checked_mul(shape.steps()),
        "activation scales"
    );
    assert!(activations.tokens <= output.tokens(), "{} tokens of {}", activations.tokens, output.tokens());
    assert!(tiles.start <= tiles.end, "tiles {tiles:?}");
    assert!(tiles.end <= shape.rows().div_ceil(TILE_ROWS), "tiles {tiles:?} of {} rows", shape.rows());
}

/// The steps of a row as an iterator of their columns: all but the last are of equal length.
pub(super) fn step_columns(shape: &MatrixShape) -> impl Iterator<Item = Range<usize>> + use<> {
    let (cols, step) = (shape.padded_cols(), shape.step_elems());
    (0..cols).step_by(step).map(move |start| start..cols.min(start + step))
}
