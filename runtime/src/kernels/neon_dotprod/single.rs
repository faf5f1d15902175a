//! The products for one token: two tiles side by side, in units of assembly.
//!
//! At 2 to 4 bits no table of levels is looked up where levels are evenly spaced, two apart or, at 4 bits, one apart (`--levels even`): a
//! sum of levels times activations is then one of codes times activations, and the lowest level times the sum of the activations.
//!
//! Integer sums of a step, times their multipliers, stay below 64 * 63 * 127 * 255 < 2^31; before it is complete, a sum of codes stays below
//! 64 * (15 + 63) * 127.

use super::fields;
use super::insn::sdot_all;
use super::units;
use crate::kernels::neon::lookup::{self, Tables};
use crate::kernels::neon::pair_walk::{
    Beside, CodebookToken, Cursor, NO_SUMS, PartSums, Parts, Rows, are_summed, pair_walk,
};
use crate::kernels::neon::sums;
use crate::kernels::nr8k4::codebook::{BLOCK_UNITS, STEP_UNITS, lookup_tables, width};
use crate::kernels::nr8k4::even::Even;
use crate::kernels::nr8k4::pairs::{Pair, PairsOfTiles};
use crate::kernels::nr8k4::prepared::{Coded, Scaled};
use crate::kernels::quantized::Activations;
use core::arch::aarch64::*;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

/// Tables, and how levels are found.
#[derive(Clone, Copy)]
pub(super) struct Levels {
    tables: Tables,
    /// Whether codes are multiplied in place of levels: these are as far apart as that takes, and [`CodebookToken::sums`] has room.
    by_codes: bool,
}

/// Whether a width has a way to multiply codes.
const fn multiplies_codes<const WORDS: usize>() -> bool {
    WORDS <= 4
}

/// Whether [`fields`] has it.
const fn has_fields<const WORDS: usize>() -> bool {
    WORDS <= 3
}

/// The walk along a codebook matrix.
pub(super) struct Single<const WORDS: usize>;

impl<const WORDS: usize> Pair for Single<WORDS> {
    const WIDTH: CodeWidth = width::<WORDS>();
    type Prepared<'a> = Coded<'a, Levels, WORDS>;
    type Token<'a, 's> = CodebookToken<'a, 's, Levels, WORDS>;
    type Scratch = PartSums;
    const SCRATCH: PartSums = NO_SUMS;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        let (levels, multipliers) = lookup_tables(matrix);
        // SAFETY: instantiated only in the products of this backend, which have NEON and dotprod.
        let tables = unsafe { lookup::tables::<WORDS>(levels, multipliers) };
        let mut prepared = Coded::new(Levels { tables, by_codes: false }, matrix, activations);
        prepared.tables.by_codes = multiplies_codes::<WORDS>()
            && are_summed(prepared.tokens.units, prepared.group)
            && Even::of_codes::<WORDS>(levels).is_some();
        prepared
    }

    #[inline(always)]
    fn token<'a, 's>(
        matrix: Self::Prepared<'a>,
        token: usize,
        scratch: &'s mut PartSums,
    ) -> Self::Token<'a, 's> {
        let of_token = CodebookToken::new(matrix, token);
        if !(multiplies_codes::<WORDS>() && matrix.tables.by_codes) {
            return of_token;
        }
        for (units, sum) in of_token.parts(scratch) {
            // SAFETY: likewise.
            sum.write(unsafe { lowest_sum::<WORDS>(units, matrix.tables.tables.levels[0]) });
        }
        // SAFETY: all are written.
        unsafe { of_token.with_sums(scratch) }
    }

    #[inline(always)]
    fn outputs(token: &Self::Token<'_, '_>, tiles: Range<usize>, rows: &mut [f32]) {
        let Levels { tables, by_codes } = token.matrix.tables;
        // SAFETY: has NEON and dotprod, likewise.
        unsafe {
            if multiplies_codes::<WORDS>() && by_codes {
                walk(Sums::<WORDS, true> { tables }, token, tiles, rows);
            } else {
                walk(Sums::<WORDS, false> { tables }, token, tiles, rows);
            }
        }
    }
}

pair_walk! { "neon,dotprod" }

/// The lowest level times the sum of the activations of a part, so often as `fields` has it where it is taken.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn lowest_sum<const WORDS: usize>(units: &[[i8; UNIT_ELEMS]], levels: int8x16_t) -> int32x4_t {
    let lowest = vdupq_laneq_s8::<0>(levels);
    let mut lanes = vdupq_n_s32(0);
    for unit in units {
        for codes in sums::load_activations(unit) {
            lanes = sdot_all(lanes, lowest, codes);
        }
    }
    let sum = vaddvq_s32(lanes);
    vdupq_n_s32(if has_fields::<WORDS>() { sum * i32::from(fields::LOWEST_TIMES) } else { sum })
}

/// Sums of levels times activations. `BY_CODES`: those of codes, and what they lack.
#[derive(Clone, Copy)]
struct Sums<const WORDS: usize, const BY_CODES: bool> {
    tables: Tables,
}

impl<const WORDS: usize, const BY_CODES: bool> Parts for Sums<WORDS, BY_CODES> {
    const STEP_BY_STEP: bool = false;
    type Integers = Rows<int32x4_t>;
    type Totals = Rows<int32x4_t>;

    #[inline(always)]
    fn zero(&self) -> Rows<int32x4_t> {
        // SAFETY: has NEON.
        unsafe { [vdupq_n_s32(0); 4] }
    }

    #[inline(always)]
    unsafe fn next<const UNITS: usize>(&self, at: &mut Cursor, beside: &mut Beside) -> Rows<int32x4_t> {
        // SAFETY: so many units are there; has NEON and dotprod.
        unsafe { next::<WORDS, BY_CODES, UNITS>(&self.tables, at, beside) }
    }

    #[inline(always)]
    fn multiply(&self, nibbles: uint8x16_t, mut integers: Rows<int32x4_t>) -> Rows<int32x4_t> {
        // SAFETY: has NEON.
        unsafe { units::multiply(self.tables.multipliers, nibbles, &mut integers) };
        integers
    }

    #[inline(always)]
    fn end_step(
        &self,
        nibbles: uint8x16_t,
        integers: Rows<int32x4_t>,
        totals: Option<Rows<int32x4_t>>,
        scale: f32,
        sums: &mut Rows<float32x4_t>,
    ) {
        // SAFETY: has NEON.
        unsafe {
            units::end_step::<WORDS, BY_CODES>(
                self.tables.multipliers,
                nibbles,
                integers,
                totals,
                scale,
                sums,
            );
        };
    }
}

/// The integer sums of a part.
///
/// # Safety
/// So many units are there.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn next<const WORDS: usize, const BY_CODES: bool, const UNITS: usize>(
    tables: &Tables,
    at: &mut Cursor,
    beside: &mut Beside,
) -> Rows<int32x4_t> {
    // SAFETY: a part is left.
    let begin = if BY_CODES { unsafe { beside.next_sum() } } else { vdupq_n_s32(0) };
    let mut activations = [[vdupq_n_s8(0); 2]; 2];
    for unit in 0..UNITS {
        // SAFETY: a unit is left.
        activations[unit] = unsafe { at.next_activations() };
    }
    let mut integers = [begin; 4];
    if has_fields::<WORDS>() && BY_CODES {
        for tile in 0..2 {
            // SAFETY: so many units of both tiles are left.
            let sums =
                unsafe { fields::sum_of_part::<WORDS, UNITS>(&mut at.words[tile], activations, begin) };
            [integers[2 * tile], integers[2 * tile + 1]] = sums;
        }
        return integers;
    }
    for unit in 0..UNITS {
        for tile in 0..2 {
            let (words, integers) = (&mut at.words[tile], &mut integers[2 * tile..][..2]);
            // SAFETY: a unit of both tiles is left.
            unsafe {
                units::add_codebook_unit::<WORDS, BY_CODES>(
                    &tables.levels,
                    words,
                    activations[unit],
                    integers,
                );
            }
        }
    }
    integers
}

/// What the product of a matrix of 8 bits needs of a token.
pub(super) struct ScaledToken<'a> {
    matrix: Scaled<'a>,
    codes: &'a [[i8; UNIT_ELEMS]],
    scales: &'a [f32],
}

/// The walk along a matrix of 8 bits.
pub(super) struct SingleInt8;

impl Pair for SingleInt8 {
    const WIDTH: CodeWidth = CodeWidth::Int8;
    type Prepared<'a> = Scaled<'a>;
    type Token<'a, 's> = ScaledToken<'a>;
    type Scratch = ();
    const SCRATCH: () = ();

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        Scaled::new(matrix, activations)
    }

    #[inline(always)]
    fn token<'a>(matrix: Self::Prepared<'a>, token: usize, _: &mut ()) -> ScaledToken<'a> {
        ScaledToken { matrix, codes: matrix.tokens.codes(token), scales: matrix.tokens.scales(token) }
    }

    #[inline(always)]
    fn outputs(token: &ScaledToken<'_>, tiles: Range<usize>, rows: &mut [f32]) {
        // SAFETY: instantiated only in the products of this backend, which have NEON and dotprod.
        unsafe {
            match token.matrix.step_units {
                1 if cfg!(feature = "groups-32") => walk_int8::<1>(token, tiles, rows),
                _ => walk_int8::<2>(token, tiles, rows),
            }
        }
    }
}

/// Puts the outputs of `tiles` in `rows`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn walk_int8<const UNITS: usize>(token: &ScaledToken<'_>, tiles: Range<usize>, rows: &mut [f32]) {
    let mut pairs = PairsOfTiles::new(tiles, rows);
    for _ in 0..pairs.count() {
        let (tiles, place) = pairs.next_pair();
        sums::put(rows_int8::<UNITS>(token, tiles), place);
    }
    pairs.finish();
}

/// The outputs of two tiles.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn rows_int8<const UNITS: usize>(token: &ScaledToken<'_>, tiles: [usize; 2]) -> Rows<float32x4_t> {
    let ScaledToken { ref matrix, codes, scales } = *token;
    let units = codes.len();
    let weight_scales = tiles.map(|tile| matrix.weight_scales(tile));
    let words = tiles.map(|tile| matrix.words(tile).as_ptr().cast());
    let mut at = Cursor { words, codes: codes.as_ptr() };
    let mut row_sums: Rows<float32x4_t> = [vdupq_n_f32(0.0); 4];
    macro_rules! step {
        ($step:expr, $scale:expr, $units:expr) => {
            let mut integers = [vdupq_n_s32(0); 4];
            for _ in 0..$units {
                // SAFETY: a unit is left.
                let activations = unsafe { at.next_activations() };
                // SAFETY: a unit of both tiles is left.
                unsafe { units::add_int8_units(&mut at.words, activations, &mut integers) };
            }
            let group = matrix.group_of_step($step);
            for tile in 0..2 {
                let of_rows = sums::widened(&weight_scales[tile][group]);
                for half in 0..2 {
                    let scale = vmulq_n_f32(of_rows[half], $scale);
                    let sums = &mut row_sums[2 * tile + half];
                    *sums = vfmaq_f32(*sums, vcvtq_f32_s32(integers[2 * tile + half]), scale);
                }
            }
        };
    }
    let whole = units / UNITS;
    for (step, &scale) in scales.iter().take(whole).enumerate() {
        step!(step, scale, UNITS);
    }
    if units % UNITS > 0 {
        step!(whole, scales[whole], 1);
    }
    row_sums
}
