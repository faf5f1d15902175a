//! The walk over a matrix of 8 bits:
//!
//! ```text
//! for each step: sums = fma(f32(integer sums of the step), weight scales * activation scale, sums)
//! ```
//!
//! A backend supplies one step ([`Step`]).

use super::prepared::Scaled;
use super::{Walk, Word};
use crate::kernels::TILE_ROWS;
use crate::kernels::prefetch::{distance, prefetch};
use crate::kernels::quantized::Activations;
use core::array::from_fn;
use core::marker::PhantomData;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::{MatrixView, Scaling};

/// Words a unit.
pub(in crate::kernels) const WORDS: usize = 8;

/// One step of a product, for one backend.
///
/// The methods are `#[inline(always)]`: they become part of the backend's `#[target_feature]` function.
pub(in crate::kernels) trait Step {
    /// See [`Walk::MOST_TOKENS`].
    const MOST_TOKENS: usize;
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
        weights: [&[[Word; WORDS]]; TILES],
        weight_scales: [&[u16; TILE_ROWS]; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [f32; TOKENS],
        sums: &mut [[Self::Sums; TOKENS]; TILES],
    );
}

/// The walk of a backend's step.
pub(in crate::kernels) struct Steps<S>(PhantomData<S>);

impl<S: Step> Walk for Steps<S> {
    const WIDTH: CodeWidth = CodeWidth::Int8;
    const MOST_TOKENS: usize = S::MOST_TOKENS;
    type Prepared<'a> = Scaled<'a>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Scaled<'a> {
        Scaled::new(matrix, activations)
    }

    #[inline(always)]
    fn outputs<const TILES: usize, const TOKENS: usize>(
        matrix: &Scaled<'_>,
        tile: usize,
        token: usize,
    ) -> [[[f32; TILE_ROWS]; TOKENS]; TILES] {
        // With the length of a step known, its loop unrolls.
        let sums = if cfg!(feature = "groups-32") && matrix.step_units == 1 {
            walk::<S, TILES, TOKENS, 1>(matrix, tile, token)
        } else {
            walk::<S, TILES, TOKENS, 2>(matrix, tile, token)
        };
        sums.map(|sums| sums.map(S::rows))
    }
}

/// The f16 scales; none where the matrix has a codebook, which `check` has refused.
#[inline(always)]
pub(in crate::kernels) fn group_scales<'a>(matrix: &MatrixView<'a>) -> &'a [u16] {
    match matrix.scaling() {
        Scaling::Groups(scales) => scales,
        Scaling::Codebook(_) => &[],
    }
}

#[inline(always)]
fn walk<S: Step, const TILES: usize, const TOKENS: usize, const STEP_UNITS: usize>(
    matrix: &Scaled<'_>,
    tile: usize,
    token: usize,
) -> [[S::Sums; TOKENS]; TILES] {
    let (units, steps) = (matrix.tokens.units, matrix.tokens.steps);
    let whole_steps = units / STEP_UNITS;
    let weights: [(&[[[Word; WORDS]; STEP_UNITS]], _); TILES] =
        from_fn(|index| matrix.words(tile + index).as_chunks());
    let scales: [&[[u16; TILE_ROWS]]; TILES] = from_fn(|index| matrix.weight_scales(tile + index));
    let codes: [(&[[[i8; UNIT_ELEMS]; STEP_UNITS]], _); TOKENS] =
        from_fn(|index| matrix.tokens.codes(token + index).as_chunks());
    let activation_scales: [(&[f32], &[f32]); TOKENS] =
        from_fn(|index| matrix.tokens.scales(token + index).split_at(whole_steps));

    let mut sums = [[S::zero(); TOKENS]; TILES];
    let ahead = distance(TILES * units * size_of::<[Word; WORDS]>());
    for step in 0..whole_steps {
        if TOKENS == 1 {
            // The same step of later tiles.
            for (words, _) in weights {
                prefetch(&words[step], ahead);
            }
        }
        S::add::<TILES, TOKENS, STEP_UNITS>(
            from_fn(|index| weights[index].0[step].as_slice()),
            from_fn(|index| &scales[index][matrix.group_of_step(step)]),
            from_fn(|index| codes[index].0[step].as_slice()),
            from_fn(|index| activation_scales[index].0[step]),
            &mut sums,
        );
    }
    if whole_steps < steps {
        S::add::<TILES, TOKENS, 0>(
            from_fn(|index| weights[index].1),
            from_fn(|index| &scales[index][matrix.group_of_step(whole_steps)]),
            from_fn(|index| codes[index].1),
            from_fn(|index| activation_scales[index].1[0]),
            &mut sums,
        );
    }
    sums
}
