//! Products for one token by a backend's own walk along two tiles.

use crate::kernels::quantized::{Activations, check};
use crate::kernels::{OutputRows, TILE_ROWS};
use core::ops::Range;
use core::slice::IterMut;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::matrix::MatrixView;

/// A way along the columns of a matrix for two tiles and one token.
pub(in crate::kernels) trait Pair {
    /// The width of the codes.
    const WIDTH: CodeWidth;
    /// What is made ready once a product.
    type Prepared<'a>: Copy;
    /// What is made ready once a token.
    type Token<'a, 's>;
    /// What of it lies in memory: as much as any token may need, and not initialized, since that alone would take a hundredth of a small
    /// product.
    type Scratch;
    /// It, of no value yet.
    const SCRATCH: Self::Scratch;

    /// Makes it ready.
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a>;

    /// Makes a token ready.
    fn token<'a, 's>(
        prepared: Self::Prepared<'a>,
        token: usize,
        scratch: &'s mut Self::Scratch,
    ) -> Self::Token<'a, 's>;

    /// Puts the outputs of `tiles` in `rows`, as many as it has of them.
    fn outputs(token: &Self::Token<'_, '_>, tiles: Range<usize>, rows: &mut [f32]);
}

/// The product for one token at a time by pairs of tiles.
#[inline(always)]
pub(in crate::kernels) fn gemv_by_pairs<P: Pair>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(P::WIDTH));
    let prepared = P::prepare(matrix, activations);
    let mut scratch = P::SCRATCH;
    for token in 0..activations.tokens {
        let of_token = P::token(prepared, token, &mut scratch);
        P::outputs(&of_token, tiles.clone(), output.token_rows(token));
    }
}

/// The rows of two tiles.
pub(in crate::kernels) type PairRows = [f32; 2 * TILE_ROWS];

/// Pair after pair of tiles, and where their outputs go. Behind the last whole pair of rows there is room for another, of which
/// [`PairsOfTiles::finish`] keeps what is wanted.
pub(in crate::kernels) struct PairsOfTiles<'a> {
    tiles: Range<usize>,
    whole: IterMut<'a, PairRows>,
    rest: &'a mut [f32],
    last: PairRows,
}

impl<'a> PairsOfTiles<'a> {
    /// `tiles` and their rows: `rows` may have fewer, and what it has more stays as it is.
    #[inline(always)]
    pub(in crate::kernels) fn new(tiles: Range<usize>, rows: &'a mut [f32]) -> Self {
        let count = rows.len().min(tiles.len() * TILE_ROWS);
        let (whole, rest) = rows[..count].as_chunks_mut();
        PairsOfTiles { tiles, whole: whole.iter_mut(), rest, last: [0.0; 2 * TILE_ROWS] }
    }

    /// How often to call `next_pair`.
    #[inline(always)]
    pub(in crate::kernels) fn count(&self) -> usize {
        self.whole.len() + usize::from(!self.rest.is_empty())
    }

    /// The next pair and the place of its outputs. A last tile without a neighbour comes twice, which spares the code for one.
    #[inline(always)]
    pub(in crate::kernels) fn next_pair(&mut self) -> ([usize; 2], &mut PairRows) {
        let first = self.tiles.start;
        let second = if first + 1 < self.tiles.end { first + 1 } else { first };
        self.tiles.start += 2;
        ([first, second], self.whole.next().unwrap_or(&mut self.last))
    }

    /// To be called behind the last pair.
    #[inline(always)]
    pub(in crate::kernels) fn finish(self) {
        self.rest.copy_from_slice(&self.last[..self.rest.len()]);
    }
}
