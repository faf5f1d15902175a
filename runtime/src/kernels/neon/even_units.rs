//! The integer part of [`super::even`]: codes of 2 to 4 bits times activations, both tiles side by side, in pieces of assembly, which the
//! compiler would interleave with others until it ran out of registers.
//!
//! LD4R or DUP put each quad of activations beside each of four rows. A word of two tiles is four registers, out of which AND and shifts take
//! the codes.
//!
//! At 3 bits AND leaves the low codes of words four times too large. So those of a part come first; its sums, at most 6 * 4 * 7 * 127 = 21336 in
//! a lane, are divided by four; and the products of all other codes are added, of words that are read once more, since loads have room beside
//! the arithmetic and registers have none. SLI joins the spare bits of three words.

use super::pair_walk::{Beside, Cursor};
use core::arch::aarch64::*;
use core::arch::asm;
use rescomp_formats::encodings::int3::LOW_CODE;

/// Sums of products by tile, of rows 0 and 1, 2 and 3, 4 and 5, 6 and 7: four lanes each.
pub(super) type Lanes = [int16x8_t; 8];

/// The sums of a part.
///
/// # Safety
/// So many units are there, and at 4 bits a sum.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn lanes_of_part<const WORDS: usize, const UNITS: usize>(
    at: &mut Cursor,
    beside: &mut Beside,
) -> Lanes {
    // SAFETY: so many units are there, and a sum.
    unsafe {
        if WORDS == 3 {
            let mut again = *at;
            let mut lanes = begin_low_codes(&mut again);
            if UNITS == 2 {
                lanes = add_low_codes(&mut again, lanes);
            }
            lanes = add_other_codes(at, quarter(lanes));
            return if UNITS == 2 { add_other_codes(at, lanes) } else { lanes };
        }
        let mut lanes = begin::<WORDS>(at, beside);
        lanes = half_unit::<WORDS>(at, lanes);
        if UNITS == 2 {
            lanes = half_unit::<WORDS>(at, lanes);
            lanes = half_unit::<WORDS>(at, lanes);
        }
        lanes
    }
}

/// Adds the products of a quad of half the rows: of 0 to 3 in register `$low` and of 4 to 7 in `$high`, with the activations in `$quad`. One
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

/// A quad of both tiles.
macro_rules! quad {
    ($operation:literal, [$a:literal, $b:literal, $c:literal, $d:literal], $quad:literal) => {
        concat!(
            products!($operation, ["a", "b", "c", "d"], $a, $b, $quad),
            products!($operation, ["e", "f", "g", "h"], $c, $d, $quad),
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

/// The same operation on the registers of a word of both tiles.
macro_rules! each {
    ($operation:literal, [$a:literal, $b:literal, $c:literal, $d:literal], [$from_a:literal, $from_b:literal, $from_c:literal, $from_d:literal], $with:literal) => {
        concat!(
            both!($operation, [$a, $b], [$from_a, $from_b], $with),
            both!($operation, [$c, $d], [$from_c, $from_d], $with),
        )
    };
}

/// The next word of both tiles.
macro_rules! load_words {
    ([$a:literal, $b:literal, $c:literal, $d:literal]) => {
        concat!(
            "ld1 {{ ",
            $a,
            ".16b-",
            $b,
            ".16b }}, [{first}], #32\n",
            "ld1 {{ ",
            $c,
            ".16b-",
            $d,
            ".16b }}, [{second}], #32\n",
        )
    };
}

/// The quad in the high nibbles of a word of both tiles.
macro_rules! high_nibbles {
    ($quad:literal) => {
        concat!(
            each!("ushr", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], "#4"),
            quad!("smlal", ["v24", "v25", "v26", "v27"], $quad),
        )
    };
}

/// A word of both tiles at 4 bits: two quads.
macro_rules! words_of_nibbles {
    ($low:literal, $high:literal) => {
        concat!(
            load_words!(["v20", "v21", "v22", "v23"]),
            each!("and", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], "{mask:v}.16b"),
            quad!("smlal", ["v24", "v25", "v26", "v27"], $low),
            high_nibbles!($high),
        )
    };
}

/// The first half unit of a part of both tiles at 4 bits. Lanes begin with `[{sums}]`, each loaded four instructions before its product: so
/// late that it doesn't hold up others, and early enough for a processor that computes in order.
macro_rules! first_of_nibbles {
    () => {
        concat!(
            load_words!(["v20", "v21", "v22", "v23"]),
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

/// A quad of both tiles at 2 bits, between the ends of a byte.
macro_rules! middle_field {
    ($shift:literal, $quad:literal) => {
        concat!(
            each!("ushr", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], $shift),
            each!("and", ["v24", "v25", "v26", "v27"], ["v24", "v25", "v26", "v27"], "{mask:v}.16b"),
            quad!("smlal", ["v24", "v25", "v26", "v27"], $quad),
        )
    };
}

/// Half a unit of both tiles at 2 bits: a word, four quads.
macro_rules! tiles_of_fields {
    ($operation:literal) => {
        concat!(
            load_words!(["v20", "v21", "v22", "v23"]),
            each!("and", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], "{mask:v}.16b"),
            quad!($operation, ["v24", "v25", "v26", "v27"], "v16"),
            middle_field!("#2", "v17"),
            middle_field!("#4", "v18"),
            each!("ushr", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], "#6"),
            quad!("smlal", ["v24", "v25", "v26", "v27"], "v19"),
        )
    };
}

/// `$instructions` for the next columns of both tiles, with the lanes of sums `$direction` of registers, the operands `$with`, and registers
/// `$also` to be overwritten beside 16 to 27.
macro_rules! tiles {
    ([$($instructions:expr),*], $at:ident, $direction:ident $lanes:ident, with: [$($with:tt)*], also: [$($also:tt),*]) => {
        asm!(
            $($instructions,)*
            codes = inout(reg) $at.codes,
            first = inout(reg) $at.words[0],
            second = inout(reg) $at.words[1],
            a = $direction(vreg) $lanes[0],
            b = $direction(vreg) $lanes[1],
            c = $direction(vreg) $lanes[2],
            d = $direction(vreg) $lanes[3],
            e = $direction(vreg) $lanes[4],
            f = $direction(vreg) $lanes[5],
            g = $direction(vreg) $lanes[6],
            h = $direction(vreg) $lanes[7],
            $($with)*
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
            out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
            out("v26") _, out("v27") _,
            $(out($also) _,)*
            options(readonly, nostack, preserves_flags),
        )
    };
}

/// Half a unit of both tiles at 2 or 4 bits.
macro_rules! half_unit {
    ($instructions:expr, $at:ident, $direction:ident $lanes:ident, mask: $mask:literal $(, sums: $sums:expr)?) => {
        tiles!(
            ["ld4r {{ v16.4s-v19.4s }}, [{codes}], #16", $instructions],
            $at,
            $direction $lanes,
            with: [mask = in(vreg) vdupq_n_u8($mask), $(sums = inout(reg) $sums,)?],
            also: []
        )
    };
}

/// Begins the lanes of a part with the products of its first half unit: at 4 bits beside what the sums of codes lack, which loads put there
/// (an addition at the end would wait for all products).
///
/// # Safety
/// Half a unit is there, and at 4 bits a sum.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn begin<const WORDS: usize>(at: &mut Cursor, beside: &mut Beside) -> Lanes {
    let mut lanes = [vdupq_n_s16(0); 8];
    // SAFETY: the caller vouches for words, activations and the sum; the processor has the instructions.
    unsafe {
        if WORDS == 2 {
            half_unit!(tiles_of_fields!("smull"), at, out lanes, mask: 3);
        } else {
            half_unit!(first_of_nibbles!(), at, out lanes, mask: 15, sums: beside.sums);
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
            half_unit!(tiles_of_fields!("smlal"), at, inout lanes, mask: 3);
        } else {
            half_unit!(tiles_of_nibbles!(), at, inout lanes, mask: 15);
        }
    }
    lanes
}

/// One quad of the activations in registers 16 and 17 beside each of four rows.
macro_rules! quad_beside {
    ($to:literal, $from:literal, $quad:literal) => {
        concat!("dup ", $to, ".4s, ", $from, ".s[", $quad, "]\n")
    };
}

/// The low codes of a word of both tiles at 3 bits, four times too large.
macro_rules! low_codes {
    ($operation:literal, $activations:literal, $quad:literal) => {
        concat!(
            quad_beside!("v18", $activations, $quad),
            load_words!(["v20", "v21", "v22", "v23"]),
            each!("and", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], "{mask:v}.16b"),
            quad!($operation, ["v24", "v25", "v26", "v27"], "v18"),
        )
    };
}

/// The low codes of a unit of both tiles.
macro_rules! low_codes_of_unit {
    ($operation:literal, $at:ident, $direction:ident $lanes:ident) => {
        tiles!(
            [
                "ldp q16, q17, [{codes}], #32",
                low_codes!($operation, "v16", "0"),
                low_codes!("smlal", "v16", "2"),
                low_codes!("smlal", "v17", "0")
            ],
            $at,
            $direction $lanes,
            with: [mask = in(vreg) vdupq_n_u8(LOW_CODE),],
            also: []
        )
    };
}

/// The lanes of four times the low codes of a unit of both tiles at 3 bits.
///
/// # Safety
/// A unit is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn begin_low_codes(at: &mut Cursor) -> Lanes {
    let mut lanes = [vdupq_n_s16(0); 8];
    // SAFETY: the caller vouches for the words and activations; the processor has the instructions.
    unsafe { low_codes_of_unit!("smull", at, out lanes) };
    lanes
}

/// Adds those of the next unit.
///
/// # Safety
/// A unit is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_low_codes(at: &mut Cursor, mut lanes: Lanes) -> Lanes {
    // SAFETY: the caller vouches for the words and activations; the processor has the instructions.
    unsafe { low_codes_of_unit!("smlal", at, inout lanes) };
    lanes
}

/// A fourth of sums that four divides.
#[inline]
#[target_feature(enable = "neon")]
fn quarter(mut lanes: Lanes) -> Lanes {
    for lane in &mut lanes {
        *lane = vshrq_n_s16::<2>(*lane);
    }
    lanes
}

/// The high codes of the next word of both tiles at 3 bits, which remains in four registers.
macro_rules! high_codes {
    ([$a:literal, $b:literal, $c:literal, $d:literal], $to:literal, $activations:literal, $quad:literal) => {
        concat!(
            quad_beside!($to, $activations, $quad),
            load_words!([$a, $b, $c, $d]),
            each!("ushr", ["v24", "v25", "v26", "v27"], [$a, $b, $c, $d], "#5"),
            quad!("smlal", ["v24", "v25", "v26", "v27"], $to),
        )
    };
}

/// Adds the products of all codes but the low ones of the three words of the next unit of both tiles at 3 bits.
///
/// # Safety
/// A unit is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_other_codes(at: &mut Cursor, mut lanes: Lanes) -> Lanes {
    // SAFETY: the caller vouches for the words and activations; the processor has the instructions.
    unsafe {
        tiles!(
            [
                "ldp q16, q17, [{codes}], #32",
                high_codes!(["v20", "v21", "v22", "v23"], "v18", "v16", "1"),
                high_codes!(["v28", "v29", "v30", "v31"], "v19", "v16", "3"),
                each!("sli", ["v28", "v29", "v30", "v31"], ["v20", "v21", "v22", "v23"], "#2"),
                high_codes!(["v20", "v21", "v22", "v23"], "v18", "v17", "1"),
                each!("sli", ["v20", "v21", "v22", "v23"], ["v28", "v29", "v30", "v31"], "#2"),
                quad_beside!("v19", "v17", "2"),
                each!("and", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], "{mask:v}.16b"),
                quad!("smlal", ["v24", "v25", "v26", "v27"], "v19"),
                quad_beside!("v18", "v17", "3"),
                each!("ushr", ["v24", "v25", "v26", "v27"], ["v20", "v21", "v22", "v23"], "#3"),
                each!("and", ["v24", "v25", "v26", "v27"], ["v24", "v25", "v26", "v27"], "{mask:v}.16b"),
                quad!("smlal", ["v24", "v25", "v26", "v27"], "v18")
            ],
            at,
            inout lanes,
            with: [mask = in(vreg) vdupq_n_u8(7),],
            also: ["v28", "v29", "v30", "v31"]
        );
    }
    lanes
}
