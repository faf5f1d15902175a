//! One token at 2 to 4 bits on NEON without dotprod where levels are evenly spaced: codes are multiplied in place of levels, so nothing
//! is looked up.
//!
//! SMULL and SMLAL make products in int16 ([`even_units`]). A lane (a row, and a column modulo four) takes all 16 products of a step: at
//! most 16 * 15 * 127 = 30480. What the sums of levels have besides, `lowest * sum(activations)`, is added where they fit, whatever the sums
//! of the codes wrapped to.
//!
//! | | levels | 2 lanes, int16 | 4 lanes, a row | times multiplier |
//! |---|---|---|---|---|
//! | 2 bits | two apart, at most 4 | of codes | of levels: 64 * 4 * 127 = 32512, int16 | SMULL: 255 * 32512 < 2^24 |
//! | 3 bits | two apart, at most 8 | of codes: 32 * 7 * 127 = 28448 | of levels: 65024, int32 | f32: 255 * 65024 < 2^24 |
//! | 4 bits | one apart, at most 8 | of levels: 32 * 8 * 127 = 32512 | 65024, int32 | likewise |
//!
//! So totals are integers below 2^24, which f32 holds. A Cortex-A72 makes these products in one of its two pipelines, eight a cycle: a
//! step's 1024 take it for 128 cycles, and all else is chosen to fit beside them. There MUL of four int32 takes that pipeline for two
//! cycles, FMUL takes each of both for one.

use super::codebook;
use super::even_units;
use super::insn;
use super::lookup;
use super::pair_sums;
use super::pair_walk::{
    Beside, CodebookToken, Cursor, NO_SUMS, PartSums, Parts, Rows, are_summed, pair_walk,
};
use super::sums;
use crate::kernels::nr8k4::codebook::{
    BLOCK_UNITS, STEP_UNITS, codebook as codebook_of, lookup_tables, width,
};
use crate::kernels::nr8k4::even::Even;
use crate::kernels::nr8k4::pairs::{Pair, gemv_by_pairs};
use crate::kernels::nr8k4::prepared::{Coded, group_of};
use crate::kernels::quantized::MatrixProduct;
use crate::kernels::{Activations, OutputRows, Products};
use core::arch::aarch64::*;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

/// The products at 2 bits.
pub(super) const INT2: Products = Products { gemv: gemv_int2, ..pair_sums::INT2 };
/// The products at 3 bits.
pub(super) const INT3: Products = Products { gemv: gemv_int3, ..codebook::INT3 };
/// The products at 4 bits.
pub(super) const INT4: Products = Products { gemv: gemv_int4, ..codebook::INT4 };

macro_rules! gemv {
    ($gemv:ident, $kernel:ident, $WORDS:literal, $otherwise:expr) => {
        fn $gemv(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
            #[inline(never)]
            #[target_feature(enable = "neon")]
            fn $kernel(
                m: &MatrixView<'_>,
                a: &Activations<'_>,
                tiles: Range<usize>,
                output: &mut OutputRows<'_>,
            ) {
                gemv_by_pairs::<Codes<$WORDS>>(m, a, tiles, output);
            }
            const OTHERWISE: MatrixProduct = $otherwise;
            if !applies::<$WORDS>(m) {
                return OTHERWISE(m, a, tiles, output);
            }
            // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
            unsafe { $kernel(m, a, tiles, output) }
        }
    };
}
gemv!(gemv_int2, gemv_int2_neon, 2, pair_sums::INT2.gemv);
gemv!(gemv_int3, gemv_int3_neon, 3, codebook::INT3.gemv);
gemv!(gemv_int4, gemv_int4_neon, 4, codebook::INT4.gemv);

/// Whether sums fit (see above), and there is room for those of the activations.
fn applies<const WORDS: usize>(matrix: &MatrixView<'_>) -> bool {
    let bound = if WORDS == 2 { 4 } else { 8 };
    are_summed(matrix.shape().units(), group_of(matrix.shape()))
        && Even::of_codes::<WORDS>(codebook_of(matrix).levels)
            .is_some_and(|even| even.bound(1 << WORDS) <= bound)
}

/// The walk along a matrix of evenly spaced levels.
struct Codes<const WORDS: usize>;

/// What it needs of the tables.
#[derive(Clone, Copy)]
struct Tables {
    lowest: i8,
    multipliers: uint8x16_t,
}

impl<const WORDS: usize> Pair for Codes<WORDS> {
    const WIDTH: CodeWidth = width::<WORDS>();
    type Prepared<'a> = Coded<'a, Tables, WORDS>;
    type Token<'a, 's> = CodebookToken<'a, 's, Tables, WORDS>;
    type Scratch = PartSums;
    const SCRATCH: PartSums = NO_SUMS;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        let (levels, multipliers) = lookup_tables(matrix);
        // SAFETY: 16 readable bytes; instantiated only in the products above, which have NEON.
        let multipliers = unsafe { vld1q_u8(multipliers.as_ptr()) };
        Coded::new(Tables { lowest: levels[0], multipliers }, matrix, activations)
    }

    #[inline(always)]
    fn token<'a, 's>(
        matrix: Self::Prepared<'a>,
        token: usize,
        scratch: &'s mut PartSums,
    ) -> Self::Token<'a, 's> {
        let of_token = CodebookToken::new(matrix, token);
        for (units, sum) in of_token.parts(scratch) {
            // SAFETY: has NEON, likewise.
            sum.write(unsafe { lowest_sum::<WORDS>(units, matrix.tables.lowest) });
        }
        // SAFETY: all are written.
        unsafe { of_token.with_sums(scratch) }
    }

    #[inline(always)]
    fn outputs(token: &Self::Token<'_, '_>, tiles: Range<usize>, rows: &mut [f32]) {
        let sums = Sums::<WORDS> { multipliers: token.matrix.tables.multipliers };
        // SAFETY: has NEON, likewise.
        unsafe { walk(sums, token, tiles, rows) }
    }
}

pair_walk! { "neon" }

/// The lowest level times the sums of a part's activations. At 4 bits those of columns 0 to 3 modulo four, int16 twice, as lanes of products
/// begin with them; else that of all columns, at 2 bits as int16.
#[inline]
#[target_feature(enable = "neon")]
fn lowest_sum<const WORDS: usize>(units: &[[i8; UNIT_ELEMS]], lowest: i8) -> int32x4_t {
    let mut quads = vdupq_n_s16(0);
    match units {
        [first, second] => quads = vaddq_s16(quads_of_unit(first), quads_of_unit(second)),
        _ => {
            for unit in units {
                quads = vaddq_s16(quads, quads_of_unit(unit));
            }
        }
    }
    let columns = vaddq_s16(quads, vextq_s16::<4>(quads, quads));
    match WORDS {
        2 => {
            let pairs = vpaddq_s16(columns, columns);
            vreinterpretq_s32_s16(vmulq_n_s16(vpaddq_s16(pairs, pairs), lowest.into()))
        }
        3 => {
            let pairs = vpaddlq_s16(columns);
            vmulq_n_s32(vpaddq_s32(pairs, pairs), lowest.into())
        }
        _ => vreinterpretq_s32_s16(vmulq_n_s16(columns, lowest.into())),
    }
}

/// The sums of a unit's even and of its odd quads, by column.
#[inline]
#[target_feature(enable = "neon")]
fn quads_of_unit(unit: &[i8; UNIT_ELEMS]) -> int16x8_t {
    let [a, b] = sums::load_activations(unit);
    vaddq_s16(vaddl_s8(vget_low_s8(a), vget_high_s8(a)), vaddl_s8(vget_low_s8(b), vget_high_s8(b)))
}

/// Sums of codes times activations, by the multipliers of a matrix.
#[derive(Clone, Copy)]
struct Sums<const WORDS: usize> {
    multipliers: uint8x16_t,
}

/// The sums of a part by tile: at 2 bits the rows as int16 in the first of two registers, else rows 0 to 3 and 4 to 7.
type Integers = [[int32x4_t; 2]; 2];

/// Those times multipliers, in rows 0 to 3 and 4 to 7 of both tiles: integers below 2^24, which f32 holds.
type Totals = Rows<float32x4_t>;

impl<const WORDS: usize> Parts for Sums<WORDS> {
    const STEP_BY_STEP: bool = true;
    // Modelled on a Cortex-A72, 0.136 cycles a weight for 0.140. At 2 and 3 bits it takes more instructions and gains nothing.
    const ENDS_LATE: bool = WORDS == 4;
    type Integers = Integers;
    type Totals = Totals;

    #[inline(always)]
    fn zero(&self) -> Integers {
        // SAFETY: has NEON.
        unsafe { [[vdupq_n_s32(0); 2]; 2] }
    }

    #[inline(always)]
    unsafe fn next<const UNITS: usize>(&self, at: &mut Cursor, beside: &mut Beside) -> Integers {
        // SAFETY: so many units are there; has NEON.
        unsafe { next::<WORDS, UNITS>(at, beside) }
    }

    #[inline(always)]
    fn multiply(&self, nibbles: uint8x16_t, integers: Integers) -> Totals {
        // SAFETY: has NEON.
        unsafe { multiply::<WORDS>(self.multipliers, nibbles, integers, None) }
    }

    #[inline(always)]
    fn end_step(
        &self,
        nibbles: uint8x16_t,
        integers: Integers,
        totals: Option<Totals>,
        scale: f32,
        sums: &mut Rows<float32x4_t>,
    ) {
        // SAFETY: has NEON.
        unsafe {
            let totals = multiply::<WORDS>(self.multipliers, nibbles, integers, totals);
            for index in 0..4 {
                sums[index] = vfmaq_n_f32(sums[index], totals[index], scale);
            }
        }
    }
}

/// The sums of a part.
///
/// # Safety
/// So many units are there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn next<const WORDS: usize, const UNITS: usize>(at: &mut Cursor, beside: &mut Beside) -> Integers {
    // SAFETY: so many units are there, and a sum.
    let [a, b, c, d, e, f, g, h] = unsafe { even_units::lanes_of_part::<WORDS, UNITS>(at, beside) };
    let pairs = [[vpaddq_s16(a, b), vpaddq_s16(c, d)], [vpaddq_s16(e, f), vpaddq_s16(g, h)]];
    let mut integers = [[vdupq_n_s32(0); 2]; 2];
    if WORDS == 4 {
        for tile in 0..2 {
            for half in 0..2 {
                integers[tile][half] = vpaddlq_s16(pairs[tile][half]);
            }
        }
        return integers;
    }
    // SAFETY: a sum is there.
    let lowest = unsafe { beside.next_sum() };
    for tile in 0..2 {
        if WORDS == 2 {
            let codes = vpaddq_s16(pairs[tile][0], pairs[tile][1]);
            let rows = vaddq_s16(vaddq_s16(codes, codes), vreinterpretq_s16_s32(lowest));
            integers[tile][0] = vreinterpretq_s32_s16(rows);
        } else {
            for half in 0..2 {
                integers[tile][half] = insn::add_pairs_twice(lowest, pairs[tile][half]);
            }
        }
    }
    integers
}

/// Integers times the multipliers that `nibbles` name, and `totals`.
#[inline]
#[target_feature(enable = "neon")]
fn multiply<const WORDS: usize>(
    multipliers: uint8x16_t,
    nibbles: uint8x16_t,
    integers: Integers,
    totals: Option<Totals>,
) -> Totals {
    let multipliers = lookup::multipliers_of_tiles(multipliers, nibbles);
    let mut with = totals.unwrap_or([vdupq_n_f32(0.0); 4]);
    for tile in 0..2 {
        let (of_tile, with) = (integers[tile], &mut with[2 * tile..][..2]);
        if WORDS == 2 {
            let rows = vreinterpretq_s16_s32(of_tile[0]);
            let multipliers = vreinterpretq_s16_u16(multipliers[tile]);
            let products =
                [vmull_s16(vget_low_s16(rows), vget_low_s16(multipliers)), vmull_high_s16(rows, multipliers)];
            for half in 0..2 {
                let product = vcvtq_f32_s32(products[half]);
                with[half] = if totals.is_some() { vaddq_f32(with[half], product) } else { product };
            }
        } else {
            let multipliers = [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(multipliers[tile]))),
                vcvtq_f32_u32(vmovl_high_u16(multipliers[tile])),
            ];
            for half in 0..2 {
                let integers = vcvtq_f32_s32(of_tile[half]);
                with[half] = if totals.is_some() {
                    vfmaq_f32(with[half], integers, multipliers[half])
                } else {
                    vmulq_f32(integers, multipliers[half])
                };
            }
        }
    }
    with
}
