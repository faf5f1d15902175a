//! One token at 2 and 4 bits on NEON without dotprod where levels are evenly spaced: codes are multiplied in place of levels, so nothing
//! is looked up.
//!
//! SMULL and SMLAL make products in int16. A lane (a row, and a column modulo four) takes all 16 products of a step: at most 16 * 15 *
//! 127 = 30480. What the sums of levels have besides, `lowest * sum(activations)`, is added where sums of lanes are still int16: those of
//! the levels fit there whatever the sums of the codes wrapped to.
//!
//! | | levels | 2 lanes | 4 lanes, a row | times multiplier |
//! |---|---|---|---|---|
//! | 2 bits | two apart, at most 4 | of codes | 64 * 4 * 127 = 32512, int16 | SMULL: 255 * 32512 < 2^24 |
//! | 4 bits | one apart, at most 8 | 32 * 8 * 127 = 32512, int16 | 65024, int32 | f32: 255 * 65024 < 2^24 |
//!
//! So totals are integers below 2^24, which f32 holds. A Cortex-A72 makes these products in one of its two pipelines, eight a cycle: a
//! step's 1024 take it for 128 cycles, and all else is chosen to fit beside them. There MUL of four int32 takes that pipeline for two
//! cycles, FMUL takes each of both for one.

use super::codebook;
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
use crate::kernels::nr8k4::pairs::{Pair, PairsOfTiles, gemv_by_pairs};
use crate::kernels::nr8k4::prepared::{Coded, group_of};
use crate::kernels::quantized::MatrixProduct;
use crate::kernels::{Activations, OutputRows, Products};
use crate::parts::{Part, not_built};
use core::arch::aarch64::*;
use core::arch::asm;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

/// The products at 2 bits.
pub(super) const INT2: Products = Products { gemv: gemv_int2, ..pair_sums::INT2 };
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
        unsafe {
            match token.matrix.group {
                32 if cfg!(feature = "groups-32") => walk::<_, _, WORDS, 32>(sums, token, tiles, rows),
                64 if cfg!(feature = "groups-64") => walk::<_, _, WORDS, 64>(sums, token, tiles, rows),
                _ if cfg!(feature = "other-groups") => walk::<_, _, WORDS, 0>(sums, token, tiles, rows),
                _ => not_built(Part::OtherGroups),
            }
        }
    }
}

pair_walk! { "neon" }

/// The lowest level times the sums of a part's activations, eight int16: at 4 bits those of columns 0 to 3 modulo four, twice, as lanes of
/// products begin with them; at 2 bits that of all columns.
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
    let mut lanes = vaddq_s16(quads, vextq_s16::<4>(quads, quads));
    if WORDS == 2 {
        lanes = vpaddq_s16(lanes, lanes);
        lanes = vpaddq_s16(lanes, lanes);
    }
    vreinterpretq_s32_s16(vmulq_n_s16(lanes, lowest.into()))
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

/// By tile rows 0 and 1, 2 and 3, 4 and 5, 6 and 7: four lanes each.
type Lanes = [int16x8_t; 8];

/// The sums of a part by tile: at 2 bits the rows in the first of two registers, at 4 bits two lanes of rows 0 to 3 and 4 to 7.
type Integers = [[int16x8_t; 2]; 2];

/// Those times multipliers, in rows 0 to 3 and 4 to 7 of both tiles: integers below 2^24, which f32 holds.
type Totals = Rows<float32x4_t>;

impl<const WORDS: usize> Parts for Sums<WORDS> {
    const STEP_BY_STEP: bool = true;
    type Integers = Integers;
    type Totals = Totals;

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
    // SAFETY: the halves of so many units are there, and a sum.
    let [a, b, c, d, e, f, g, h] = unsafe {
        let mut lanes = begin::<WORDS>(at, beside);
        lanes = half_unit::<WORDS>(at, lanes);
        if UNITS == 2 {
            lanes = half_unit::<WORDS>(at, lanes);
            lanes = half_unit::<WORDS>(at, lanes);
        }
        lanes
    };
    let mut rows = [[vpaddq_s16(a, b), vpaddq_s16(c, d)], [vpaddq_s16(e, f), vpaddq_s16(g, h)]];
    if WORDS == 2 {
        // SAFETY: a sum is there.
        let lowest = vreinterpretq_s16_s32(unsafe { beside.next_sum() });
        for rows in &mut rows {
            let codes = vpaddq_s16(rows[0], rows[1]);
            rows[0] = vaddq_s16(vaddq_s16(codes, codes), lowest);
        }
    }
    rows
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
    let multipliers = vqtbl1q_u8(multipliers, nibbles);
    let multipliers = [vmovl_u8(vget_low_u8(multipliers)), vmovl_high_u8(multipliers)];
    let mut with = totals.unwrap_or([vdupq_n_f32(0.0); 4]);
    for tile in 0..2 {
        let (of_tile, with) = (integers[tile], &mut with[2 * tile..][..2]);
        if WORDS == 2 {
            let (rows, multipliers) = (of_tile[0], vreinterpretq_s16_u16(multipliers[tile]));
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
                let integers = vcvtq_f32_s32(vpaddlq_s16(of_tile[half]));
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

/// Adds the products of a quad, rows 0 to 3 in register `$low` and 4 to 7 in `$high`, with the activations in `$quad`. One
/// sum's come once in eight instructions, both tiles by turns: a processor that computes in order waits for the one before.
macro_rules! products {
    ($operation:literal, [$a:literal, $b:literal, $c:literal, $d:literal], $low:literal, $high:literal, $quad:literal) => {
        concat!(
            $operation, " {", $a, ":v}.8h, ", $low, ".8b, ", $quad, ".8b\n", $operation, "2 {", $b,
            ":v}.8h, ", $low, ".16b, ", $quad, ".16b\n", $operation, " {", $c, ":v}.8h, ", $high, ".8b, ",
            $quad, ".8b\n", $operation, "2 {", $d, ":v}.8h, ", $high, ".16b, ", $quad, ".16b\n",
        )
    };
}

/// The same operation on both registers of a word.
macro_rules! both {
    ($operation:literal, [$a:literal, $b:literal], [$from_a:literal, $from_b:literal], $with:literal) => {
        concat!(
            $operation, " ", $a, ".16b, ", $from_a, ".16b, ", $with, "\n", $operation, " ", $b, ".16b, ",
            $from_b, ".16b, ", $with, "\n",
        )
    };
}

/// A quad of both tiles, from registers 24 to 27.
macro_rules! quad {
    ($operation:literal, $quad:literal) => {
        concat!(
            products!($operation, ["a", "b", "c", "d"], "v24", "v25", $quad),
            products!($operation, ["e", "f", "g", "h"], "v26", "v27", $quad),
        )
    };
}

/// The next word of both tiles.
macro_rules! load_words {
    () => {
        "ld1 {{ v20.16b-v21.16b }}, [{first}], #32\nld1 {{ v22.16b-v23.16b }}, [{second}], #32\n"
    };
}

/// The quad in the high nibbles of a word of both tiles.
macro_rules! high_nibbles {
    ($quad:literal) => {
        concat!(
            both!("ushr", ["v24", "v25"], ["v20", "v21"], "#4"),
            both!("ushr", ["v26", "v27"], ["v22", "v23"], "#4"),
            quad!("smlal", $quad),
        )
    };
}

/// A word of both tiles at 4 bits: two quads.
macro_rules! words_of_nibbles {
    ($low:literal, $high:literal) => {
        concat!(
            load_words!(),
            both!("and", ["v24", "v25"], ["v20", "v21"], "{mask:v}.16b"),
            both!("and", ["v26", "v27"], ["v22", "v23"], "{mask:v}.16b"),
            quad!("smlal", $low),
            high_nibbles!($high),
        )
    };
}

/// The first half unit of a part of both tiles at 4 bits. Lanes begin with `[{sums}]`, each loaded four instructions before its product: so
/// late that it doesn't hold up others, and early enough for a processor that computes in order.
macro_rules! first_of_nibbles {
    () => {
        concat!(
            load_words!(),
            "ldr {a:q}, [{sums}]\nand v24.16b, v20.16b, {mask:v}.16b\n",
            "ldr {b:q}, [{sums}]\nand v25.16b, v21.16b, {mask:v}.16b\n",
            "ldr {c:q}, [{sums}]\nand v26.16b, v22.16b, {mask:v}.16b\n",
            "ldr {d:q}, [{sums}]\nand v27.16b, v23.16b, {mask:v}.16b\n",
            "ldr {e:q}, [{sums}]\nsmlal {a:v}.8h, v24.8b, v16.8b\n",
            "ldr {f:q}, [{sums}]\nsmlal2 {b:v}.8h, v24.16b, v16.16b\n",
            "ldr {g:q}, [{sums}]\nsmlal {c:v}.8h, v25.8b, v16.8b\n",
            "ldr {h:q}, [{sums}], #16\nsmlal2 {d:v}.8h, v25.16b, v16.16b\n",
            products!("smlal", ["e", "f", "g", "h"], "v26", "v27", "v16"),
            high_nibbles!("v17"),
            words_of_nibbles!("v18", "v19"),
        )
    };
}

/// Half a unit of both tiles at 4 bits: two words.
macro_rules! tiles_of_nibbles {
    () => {
        concat!(words_of_nibbles!("v16", "v17"), words_of_nibbles!("v18", "v19"))
    };
}

/// Half a unit of both tiles at 2 bits: a word, four quads.
macro_rules! tiles_of_fields {
    ($operation:literal) => {
        concat!(
            load_words!(),
            both!("and", ["v24", "v25"], ["v20", "v21"], "{mask:v}.16b"),
            both!("and", ["v26", "v27"], ["v22", "v23"], "{mask:v}.16b"),
            quad!($operation, "v16"),
            both!("ushr", ["v24", "v25"], ["v20", "v21"], "#2"),
            both!("ushr", ["v26", "v27"], ["v22", "v23"], "#2"),
            both!("and", ["v24", "v25"], ["v24", "v25"], "{mask:v}.16b"),
            both!("and", ["v26", "v27"], ["v26", "v27"], "{mask:v}.16b"),
            quad!("smlal", "v17"),
            both!("ushr", ["v24", "v25"], ["v20", "v21"], "#4"),
            both!("ushr", ["v26", "v27"], ["v22", "v23"], "#4"),
            both!("and", ["v24", "v25"], ["v24", "v25"], "{mask:v}.16b"),
            both!("and", ["v26", "v27"], ["v26", "v27"], "{mask:v}.16b"),
            quad!("smlal", "v18"),
            both!("ushr", ["v24", "v25"], ["v20", "v21"], "#6"),
            both!("ushr", ["v26", "v27"], ["v22", "v23"], "#6"),
            quad!("smlal", "v19"),
        )
    };
}

/// A half unit of both tiles: `$instructions` with the lanes of sums `$direction` of registers.
///
/// LD4R puts each quad of activations beside each of four rows. One piece of assembly, which the compiler would interleave with others
/// until it ran out of registers.
macro_rules! half_unit {
    ([$($instructions:expr),*], $at:ident, $direction:ident $lanes:ident, mask: $mask:literal $(, $operand:ident: $value:expr)?) => {
        asm!(
            "ld4r {{ v16.4s-v19.4s }}, [{codes}], #16",
            $($instructions,)*
            codes = inout(reg) $at.codes,
            first = inout(reg) $at.words[0],
            second = inout(reg) $at.words[1],
            $($operand = inout(reg) $value,)?
            mask = in(vreg) vdupq_n_u8($mask),
            a = $direction(vreg) $lanes[0],
            b = $direction(vreg) $lanes[1],
            c = $direction(vreg) $lanes[2],
            d = $direction(vreg) $lanes[3],
            e = $direction(vreg) $lanes[4],
            f = $direction(vreg) $lanes[5],
            g = $direction(vreg) $lanes[6],
            h = $direction(vreg) $lanes[7],
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
            out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
            out("v26") _, out("v27") _,
            options(readonly, nostack, preserves_flags),
        )
    };
}

/// Begins the lanes of a part with the products of its first half unit: at 4 bits beside what the sums of codes lack, which loads put there
/// (an addition at the end would wait for all products).
///
/// # Safety
/// Half a unit is there, and a sum.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn begin<const WORDS: usize>(at: &mut Cursor, beside: &mut Beside) -> Lanes {
    let mut lanes = [vdupq_n_s16(0); 8];
    // SAFETY: the caller vouches for words, activations and the sum; the processor has the instructions.
    unsafe {
        if WORDS == 2 {
            half_unit!([tiles_of_fields!("smull")], at, out lanes, mask: 3);
        } else {
            half_unit!([first_of_nibbles!()], at, out lanes, mask: 15, sums: beside.sums);
        }
    }
    lanes
}

/// Adds the products of the next half unit to the lanes of both tiles.
///
/// # Safety
/// Half a unit is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn half_unit<const WORDS: usize>(at: &mut Cursor, mut lanes: Lanes) -> Lanes {
    // SAFETY: the caller vouches for the words and activations; the processor has the instructions.
    unsafe {
        if WORDS == 2 {
            half_unit!([tiles_of_fields!("smlal")], at, inout lanes, mask: 3);
        } else {
            half_unit!([tiles_of_nibbles!()], at, inout lanes, mask: 15);
        }
    }
    lanes
}
