//! Products with matrices in layout nr8k4, shared by the backends: which tiles and tokens are computed together.
//!
//! ```text
//! gemv, gemm (here)          for some tiles and tokens at a time ..
//!   Walk (codebook, scaled)  .. along the columns, their row sums in registers ..
//!     a backend's step       .. unpack a word of weights once for all tokens of the pass, multiply, add
//! ```
//! Everything is `#[inline(always)]`: it becomes part of a backend's `#[target_feature]` function.

pub(super) mod codebook;
#[cfg(target_arch = "aarch64")]
pub(super) mod even;
#[cfg(target_arch = "aarch64")]
pub(super) mod many;
#[cfg(target_arch = "aarch64")]
pub(super) mod pairs;
pub(super) mod prepared;
pub(super) mod scaled;

use super::quantized::{Activations, check};
use super::{OutputRows, TILE_ROWS};
use core::hint::black_box;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, WORD_BYTES};
use rescomp_formats::matrix::MatrixView;

/// Rows of a tile side by side: one word of eight rows, as layout nr8k4 stores it.
pub(super) type Word = [u8; TILE_ROWS * WORD_BYTES];

/// A way along the columns of a matrix, for one backend and width.
pub(super) trait Walk {
    /// The width of the codes.
    const WIDTH: CodeWidth;
    /// Most tokens at once, 2, 4 or 8: as many as the sums and operands of fit the registers.
    const MOST_TOKENS: usize;
    /// What is made ready once a product.
    type Prepared<'a>: Copy;

    /// Makes it ready.
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a>;

    /// The outputs of `TILES` tiles from `tile` on and `TOKENS` tokens from `token` on.
    fn outputs<const TILES: usize, const TOKENS: usize>(
        prepared: &Self::Prepared<'_>,
        tile: usize,
        token: usize,
    ) -> [[[f32; TILE_ROWS]; TOKENS]; TILES];
}

/// The product for one token at a time: two tiles side by side, for independent chains and shared activations.
#[inline(always)]
pub(super) fn gemv<W: Walk>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(W::WIDTH));
    // Behind `black_box` the compiler takes it from memory for each few tiles. Known to it, all of it is kept in registers along the walk,
    // which then lacks them: 4 bits took a sixth longer on AVX2.
    let prepared = W::prepare(matrix, activations);
    for token in 0..activations.tokens {
        let mut tile = tiles.start;
        while tile < tiles.end {
            let row = (tile - tiles.start) * TILE_ROWS;
            if tile + 1 < tiles.end {
                put(output, row, token, W::outputs::<2, 1>(black_box(&prepared), tile, token));
                tile += 2;
            } else {
                put(output, row, token, W::outputs::<1, 1>(black_box(&prepared), tile, token));
                tile += 1;
            }
        }
    }
}

/// The product for several tokens: each word is unpacked once for [`Walk::MOST_TOKENS`] of them.
#[inline(always)]
pub(super) fn gemm<W: Walk>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(W::WIDTH));
    let prepared = W::prepare(matrix, activations);
    for tile in tiles.clone() {
        let row = (tile - tiles.start) * TILE_ROWS;
        let mut token = 0;
        while token < activations.tokens {
            match activations.tokens - token {
                1 => {
                    put(output, row, token, W::outputs::<1, 1>(black_box(&prepared), tile, token));
                    token += 1;
                }
                left if W::MOST_TOKENS < 4 || left < 4 => {
                    put(output, row, token, W::outputs::<1, 2>(black_box(&prepared), tile, token));
                    token += 2;
                }
                left if W::MOST_TOKENS < 8 || left < 8 => {
                    put(output, row, token, W::outputs::<1, 4>(black_box(&prepared), tile, token));
                    token += 4;
                }
                _ => {
                    put(output, row, token, W::outputs::<1, 8>(black_box(&prepared), tile, token));
                    token += 8;
                }
            }
        }
    }
}

#[inline(always)]
fn put<const TILES: usize, const TOKENS: usize>(
    output: &mut OutputRows<'_>,
    row: usize,
    token: usize,
    outputs: [[[f32; TILE_ROWS]; TOKENS]; TILES],
) {
    for (index, of_tile) in outputs.iter().enumerate() {
        for (offset, rows) in of_tile.iter().enumerate() {
            output.store(token + offset, row + index * TILE_ROWS, rows);
        }
    }
}
