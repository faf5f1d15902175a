//! Products for one token by a backend's own walk along two tiles.

use crate::kernels::quantized::{Activations, check};
use crate::kernels::{OutputRows, TILE_ROWS};
use core::ops::Range;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::matrix::MatrixView;

/// A way along the columns of a matrix for two tiles and one token.
pub(in crate::kernels) trait Pair {
    /// The width of the codes.
    const WIDTH: CodeWidth;
    /// What is made ready once a product.
    type Prepared<'a>: Copy;
    /// What is made ready once a token.
    type Token<'a>;

    /// Makes it ready.
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a>;

    /// Makes a token ready.
    fn token<'a>(prepared: Self::Prepared<'a>, token: usize) -> Self::Token<'a>;

    /// The outputs of these tiles, neighbours, or one and the same.
    fn outputs(token: &Self::Token<'_>, tiles: [usize; 2]) -> [[f32; TILE_ROWS]; 2];
}

/// The product for one token at a time by pairs of tiles. A last one without a partner is computed twice, which spares the
/// code for one.
#[inline(always)]
pub(in crate::kernels) fn gemv_by_pairs<P: Pair>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(P::WIDTH));
    let prepared = P::prepare(matrix, activations);
    for token in 0..activations.tokens {
        let of_token = P::token(prepared, token);
        let mut first = tiles.start;
        while first < tiles.end {
            let second = if first + 1 < tiles.end { first + 1 } else { first };
            let outputs = P::outputs(&of_token, [first, second]);
            for (tile, rows) in [first, second].into_iter().zip(&outputs) {
                output.store(token, (tile - tiles.start) * TILE_ROWS, rows);
            }
            first += 2;
        }
    }
}
