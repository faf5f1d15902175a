//! Products of a backend whose walk pays for many tokens only.

use super::{Walk, put};
use crate::kernels::quantized::{Activations, MatrixProduct, check};
use crate::kernels::{OutputRows, TILE_ROWS};
use core::hint::black_box;
use core::ops::Range;
use rescomp_formats::matrix::MatrixView;

/// Tiles whose weights, at most some 100 KB, stay in a cache between the passes of [`gemm_of_many`].
const TILES_IN_CACHE: usize = 4;

/// The product for several tokens by a walk that takes eight of them or, where `FEWEST` is 4 and not 8, four. Another product computes
/// the rest.
#[inline(always)]
pub(in crate::kernels) fn gemm_of_many<W: Walk, const FEWEST: usize>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
    rest: MatrixProduct,
) {
    check(matrix, activations, &tiles, output, Some(W::WIDTH));
    let prepared = W::prepare(matrix, activations);
    let (many, shape) = (activations.tokens / FEWEST * FEWEST, matrix.shape());
    for first in tiles.clone().step_by(TILES_IN_CACHE) {
        let near = first..tiles.end.min(first + TILES_IN_CACHE);
        for tile in near.clone() {
            let row = (tile - tiles.start) * TILE_ROWS;
            let mut token = 0;
            while token < many {
                if FEWEST == 8 || many - token >= 8 {
                    put(output, row, token, W::outputs::<1, 8>(black_box(&prepared), tile, token));
                    token += 8;
                } else {
                    put(output, row, token, W::outputs::<1, 4>(black_box(&prepared), tile, token));
                    token += 4;
                }
            }
        }
        if many < activations.tokens {
            let left = Activations {
                codes: &activations.codes[many * shape.padded_cols()..],
                scales: &activations.scales[many * shape.steps()..],
                tokens: activations.tokens - many,
            };
            rest(matrix, &left, near, &mut output.rest(many, (first - tiles.start) * TILE_ROWS));
        }
    }
}
