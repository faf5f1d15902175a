//! The walk over a matrix in layout nr8k4 that the backends' integer products share.
//!
//! For some tiles and some tokens at a time, their row sums in registers:
//!
//! ```text
//! for each step: sums = fma(f32(integer sums of the step), weight scales * activation scale, sums)
//! ```
//!
//! A backend supplies one step ([`Step`]); for that it unpacks a word of weights once for all tokens of the pass.

use super::quantized::{Activations, check};
use super::{OutputRows, TILE_ROWS};
use core::array::from_fn;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::{MatrixView, Scaling};

/// Rows of a tile side by side: one word of eight rows, as layout nr8k4 stores it.
pub(super) type Word = [u8; TILE_ROWS * WORD_BYTES];

/// One step of a product, for one backend and width. `UNIT_WORDS` is its words a unit.
///
/// The methods are `#[inline(always)]`: they become part of the backend's `#[target_feature]` function.
pub(super) trait Step<const UNIT_WORDS: usize> {
    /// The width of the codes.
    const WIDTH: CodeWidth;
    /// Eight row sums in registers.
    type Sums: Copy;

    /// Sums of +0.
    fn zero() -> Self::Sums;
    /// The sums, by row.
    fn rows(sums: Self::Sums) -> [f32; TILE_ROWS];
    /// Adds one step to `sums`. `weights` and `activations` hold the same number of units: `UNITS`, or 1 where that is 0.
    ///
    /// With `UNITS` there is one call of each instance in a product of several tiles or tokens, and the compiler inlines what
    /// is called once, whatever its size: so the sums stay in registers.
    fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
        weights: [&[[Word; UNIT_WORDS]]; TILES],
        weight_scales: [&[u16; TILE_ROWS]; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [f32; TOKENS],
        sums: &mut [[Self::Sums; TOKENS]; TILES],
    );
}

/// The product for one token at a time: two tiles side by side, for independent chains and shared activations.
#[inline(always)]
pub(super) fn gemv<S: Step<UNIT_WORDS>, const UNIT_WORDS: usize>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(S::WIDTH));
    for token in 0..activations.tokens {
        let mut tile = tiles.start;
        while tile < tiles.end {
            let at = Place { first_tile: tiles.start, tile, token };
            if tile + 1 < tiles.end {
                pass::<S, UNIT_WORDS, 2, 1>(matrix, activations, at, output);
                tile += 2;
            } else {
                pass::<S, UNIT_WORDS, 1, 1>(matrix, activations, at, output);
                tile += 1;
            }
        }
    }
}

/// The product for several tokens: each word is unpacked once for four of them.
#[inline(always)]
pub(super) fn gemm<S: Step<UNIT_WORDS>, const UNIT_WORDS: usize>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(S::WIDTH));
    for tile in tiles.clone() {
        let mut token = 0;
        while token < activations.tokens {
            let at = Place { first_tile: tiles.start, tile, token };
            match activations.tokens - token {
                1 => {
                    pass::<S, UNIT_WORDS, 1, 1>(matrix, activations, at, output);
                    token += 1;
                }
                2 | 3 => {
                    pass::<S, UNIT_WORDS, 1, 2>(matrix, activations, at, output);
                    token += 2;
                }
                _ => {
                    pass::<S, UNIT_WORDS, 1, 4>(matrix, activations, at, output);
                    token += 4;
                }
            }
        }
    }
}

/// Where a pass begins.
#[derive(Clone, Copy)]
struct Place {
    /// The tile that the output begins with.
    first_tile: usize,
    tile: usize,
    token: usize,
}

/// `TILES` tiles times `TOKENS` tokens.
#[inline(always)]
fn pass<S: Step<UNIT_WORDS>, const UNIT_WORDS: usize, const TILES: usize, const TOKENS: usize>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    at: Place,
    output: &mut OutputRows<'_>,
) {
    // With the length of a step known, its loop unrolls.
    let sums = match matrix.shape().step_elems() / UNIT_ELEMS {
        1 => walk::<S, UNIT_WORDS, TILES, TOKENS, 1>(matrix, activations, at),
        _ => walk::<S, UNIT_WORDS, TILES, TOKENS, 2>(matrix, activations, at),
    };
    for (index, sums) in sums.into_iter().enumerate() {
        for (token, sums) in sums.into_iter().enumerate() {
            let row = (at.tile - at.first_tile + index) * TILE_ROWS;
            output.store(at.token + token, row, &S::rows(sums));
        }
    }
}

/// The f16 scales; none where the matrix has a codebook, which `check` has refused.
#[inline(always)]
fn group_scales<'a>(matrix: &MatrixView<'a>) -> &'a [u16] {
    match matrix.scaling() {
        Scaling::Groups(scales) => scales,
        Scaling::Codebook(_) => &[],
    }
}

#[inline(always)]
fn walk<
    S: Step<UNIT_WORDS>,
    const UNIT_WORDS: usize,
    const TILES: usize,
    const TOKENS: usize,
    const STEP_UNITS: usize,
>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    at: Place,
) -> [[S::Sums; TOKENS]; TILES] {
    let shape = matrix.shape();
    let (units, groups) = (shape.units(), shape.groups());
    let whole_steps = units / STEP_UNITS;
    let steps_per_group = shape.group_elems().div_ceil(shape.step_elems());
    let group_of_step = |step: usize| step / steps_per_group;
    let (words, _) = matrix.codes().as_chunks::<{ TILE_ROWS * WORD_BYTES }>();
    let (words, _) = words.as_chunks::<UNIT_WORDS>();
    let weights = from_fn(|tile| words[(at.tile + tile) * units..][..units].as_chunks::<STEP_UNITS>());
    let weights: [(&[[[Word; UNIT_WORDS]; STEP_UNITS]], _); TILES] = weights;
    let (scales, _) = group_scales(matrix).as_chunks::<TILE_ROWS>();
    let scales: [&[[u16; TILE_ROWS]]; TILES] = from_fn(|tile| &scales[(at.tile + tile) * groups..][..groups]);
    let (codes, _) = activations.codes.as_chunks::<UNIT_ELEMS>();
    let codes: [_; TOKENS] =
        from_fn(|token| codes[(at.token + token) * units..][..units].as_chunks::<STEP_UNITS>());
    let steps = shape.steps();
    let activation_scales: [_; TOKENS] =
        from_fn(|token| activations.scales[(at.token + token) * steps..][..steps].split_at(whole_steps));

    let mut sums = [[S::zero(); TOKENS]; TILES];
    for step in 0..whole_steps {
        S::add::<TILES, TOKENS, STEP_UNITS>(
            from_fn(|tile| weights[tile].0[step].as_slice()),
            from_fn(|tile| &scales[tile][group_of_step(step)]),
            from_fn(|token| codes[token].0[step].as_slice()),
            from_fn(|token| activation_scales[token].0[step]),
            &mut sums,
        );
    }
    if whole_steps < steps {
        S::add::<TILES, TOKENS, 0>(
            from_fn(|tile| weights[tile].1),
            from_fn(|tile| &scales[tile][group_of_step(whole_steps)]),
            from_fn(|token| codes[token].1),
            from_fn(|token| activation_scales[token].1[0]),
            &mut sums,
        );
    }
    sums
}
