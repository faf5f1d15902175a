//! One token at 2 to 6 bits on NEON without dotprod, levels by table lookup: two tiles side by side.

use super::codebook::{self, Integers};
use super::lookup::{self, Tables};
use super::pair_walk::{Beside, CodebookToken, Cursor, Parts, Rows, pair_walk};
use crate::kernels::Activations;
use crate::kernels::nr8k4::codebook::{BLOCK_UNITS, STEP_UNITS, lookup_tables, width};
use crate::kernels::nr8k4::pairs::Pair;
use crate::kernels::nr8k4::prepared::Coded;
use core::arch::aarch64::*;
use core::ops::Range;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::matrix::MatrixView;

/// The walk along a codebook matrix.
pub(super) struct Single<const WORDS: usize>;

impl<const WORDS: usize> Pair for Single<WORDS> {
    const WIDTH: CodeWidth = width::<WORDS>();
    type Prepared<'a> = Coded<'a, Tables, WORDS>;
    type Token<'a, 's> = CodebookToken<'a, 's, Tables, WORDS>;
    type Scratch = ();
    const SCRATCH: () = ();

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        let (levels, multipliers) = lookup_tables(matrix);
        // SAFETY: instantiated only in the products of this backend, which have NEON.
        let tables = unsafe { lookup::tables::<WORDS>(levels, multipliers) };
        Coded::new(tables, matrix, activations)
    }

    #[inline(always)]
    fn token<'a, 's>(matrix: Self::Prepared<'a>, token: usize, _: &'s mut ()) -> Self::Token<'a, 's> {
        CodebookToken::new(matrix, token)
    }

    #[inline(always)]
    fn outputs(token: &Self::Token<'_, '_>, tiles: Range<usize>, rows: &mut [f32]) {
        let sums = Sums::<WORDS> { tables: token.matrix.tables };
        // SAFETY: has NEON, likewise.
        unsafe { walk(sums, token, tiles, rows) }
    }
}

pair_walk! { "neon" }

/// Sums of levels times activations.
#[derive(Clone, Copy)]
struct Sums<const WORDS: usize> {
    tables: Tables,
}

impl<const WORDS: usize> Parts for Sums<WORDS> {
    const STEP_BY_STEP: bool = true;
    type Integers = Rows<int32x4_t>;
    type Totals = Rows<int32x4_t>;

    #[inline(always)]
    fn zero(&self) -> Rows<int32x4_t> {
        // SAFETY: has NEON.
        unsafe { [vdupq_n_s32(0); 4] }
    }

    #[inline(always)]
    unsafe fn next<const UNITS: usize>(&self, at: &mut Cursor, _: &mut Beside) -> Rows<int32x4_t> {
        // SAFETY: so many units are there; has NEON.
        unsafe { next::<WORDS, UNITS>(self.tables, at) }
    }

    #[inline(always)]
    fn multiply(&self, nibbles: uint8x16_t, integers: Rows<int32x4_t>) -> Rows<int32x4_t> {
        // SAFETY: has NEON.
        unsafe { multiply(self.tables.multipliers, nibbles, integers, None) }
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
            let totals = multiply(self.tables.multipliers, nibbles, integers, totals);
            for index in 0..4 {
                sums[index] = vfmaq_n_f32(sums[index], vcvtq_f32_s32(totals[index]), scale);
            }
        }
    }
}

/// The integer sums of a part.
///
/// # Safety
/// So many units are there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn next<const WORDS: usize, const UNITS: usize>(tables: Tables, at: &mut Cursor) -> Rows<int32x4_t> {
    let mut integers: [[Integers; 1]; 2] = [[codebook::zero()]; 2];
    // SAFETY: a unit is left.
    unsafe { codebook::next_unit::<WORDS, true>(tables, at, &mut integers) };
    if UNITS == 2 {
        // SAFETY: likewise.
        unsafe { codebook::next_unit::<WORDS, false>(tables, at, &mut integers) };
    }
    let [[first], [second]] = integers;
    let ([a, b], [c, d]) = (codebook::by_row(first), codebook::by_row(second));
    [a, b, c, d]
}

/// Integers times the multipliers that `nibbles` name, and `totals`.
#[inline]
#[target_feature(enable = "neon")]
fn multiply(
    multipliers: uint8x16_t,
    nibbles: uint8x16_t,
    integers: Rows<int32x4_t>,
    totals: Option<Rows<int32x4_t>>,
) -> Rows<int32x4_t> {
    let [first, second] = lookup::multipliers_of_tiles(multipliers, nibbles);
    let multipliers = [
        vmovl_u16(vget_low_u16(first)),
        vmovl_high_u16(first),
        vmovl_u16(vget_low_u16(second)),
        vmovl_high_u16(second),
    ];
    let mut products = integers;
    for index in 0..4 {
        let multipliers = vreinterpretq_s32_u32(multipliers[index]);
        products[index] = match totals {
            Some(totals) => vmlaq_s32(totals[index], integers[index], multipliers),
            None => vmulq_s32(integers[index], multipliers),
        };
    }
    products
}
