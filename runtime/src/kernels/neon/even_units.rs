//! The integer part of [`super::even`]: codes of 2 to 4 bits times activations, both tiles side by side, in pieces of assembly, which the
//! compiler would interleave with others until it ran out of registers.
//!
//! LD4R puts each quad of activations beside each of four rows. A word of two tiles is four registers, out of which AND and shifts take the
//! codes. At 3 bits the spare bit of words 1 and 2 is between those of a code: AND, AND and USRA close the gap in both nibbles. Two BIT join
//! the spare bits.

use super::pair_walk::{Beside, Cursor};
use core::arch::aarch64::*;
use core::arch::asm;
use rescomp_formats::encodings::int3::SPARE_BITS;

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
            let lanes = begin_unit(at);
            return if UNITS == 2 { add_unit(at, lanes) } else { lanes };
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
            "ld4r {{ v16.4s-v19.4s }}, [{codes}], #16",
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
            [$instructions],
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

/// Words 1 and 2 of both tiles at 3 bits, whose high bits move over the gap that the spare bit leaves: `$high` (an operation and a mask)
/// gives these bits, `$low` masks the others.
macro_rules! close_gap {
    ($operation:literal $high:literal, $low:literal) => {
        concat!(
            each!($operation, ["v28", "v29", "v30", "v31"], ["v24", "v25", "v26", "v27"], $high),
            each!("and", ["v24", "v25", "v26", "v27"], ["v24", "v25", "v26", "v27"], $low),
            each!("usra", ["v24", "v25", "v26", "v27"], ["v28", "v29", "v30", "v31"], "#1"),
        )
    };
}

/// The two quads of such words.
macro_rules! closed {
    ($low:literal, $high:literal) => {
        concat!(
            each!("and", ["v28", "v29", "v30", "v31"], ["v24", "v25", "v26", "v27"], "{code:v}.16b"),
            quad!("smlal", ["v28", "v29", "v30", "v31"], $low),
            each!("ushr", ["v24", "v25", "v26", "v27"], ["v24", "v25", "v26", "v27"], "#4"),
            quad!("smlal", ["v24", "v25", "v26", "v27"], $high),
        )
    };
}

/// A quad of word 0 of both tiles, or of the joined spare bits, from between other bits.
macro_rules! shifted {
    ($shift:literal, $quad:literal) => {
        concat!(
            each!("ushr", ["v28", "v29", "v30", "v31"], ["v20", "v21", "v22", "v23"], $shift),
            each!("and", ["v28", "v29", "v30", "v31"], ["v28", "v29", "v30", "v31"], "{code:v}.16b"),
            quad!("smlal", ["v28", "v29", "v30", "v31"], $quad),
        )
    };
}

/// What a unit at 3 bits masks: a code in the low bits; the top bit of each nibble, the lower two, the lowest; the spare bits of words 1 and
/// 2. Loaded for each unit: all of them and the sums don't fit the registers, and the compiler would make them anew with vector operations,
/// of which there are enough.
static MASKS: [[u8; 16]; 6] =
    [[0x07; 16], [0x88; 16], [0x33; 16], [0x11; 16], [SPARE_BITS[1]; 16], [SPARE_BITS[2]; 16]];

/// A unit of both tiles at 3 bits: three words, and a fourth of their spare bits, which BIT joins in the registers of word 0.
macro_rules! unit_of_three {
    ($operation:literal, $at:ident, $direction:ident $lanes:ident) => {
        tiles!(
            [
                "ldp {code:q}, {top:q}, [{masks}]",
                "ldp {low_two:q}, {lowest:q}, [{masks}, #32]",
                "ldp {spare_of_second:q}, {spare_of_third:q}, [{masks}, #64]",
                load_words!(["v20", "v21", "v22", "v23"]),
                each!("and", ["v28", "v29", "v30", "v31"], ["v20", "v21", "v22", "v23"], "{code:v}.16b"),
                quad!($operation, ["v28", "v29", "v30", "v31"], "v16"),
                load_words!(["v24", "v25", "v26", "v27"]),
                shifted!("#4", "v17"),
                each!("bit", ["v20", "v21", "v22", "v23"], ["v24", "v25", "v26", "v27"], "{spare_of_second:v}.16b"),
                close_gap!("and" "{top:v}.16b", "{low_two:v}.16b"),
                closed!("v18", "v19"),
                "ld4r {{ v16.4s-v19.4s }}, [{codes}], #16",
                load_words!(["v24", "v25", "v26", "v27"]),
                each!("bit", ["v20", "v21", "v22", "v23"], ["v24", "v25", "v26", "v27"], "{spare_of_third:v}.16b"),
                close_gap!("bic" "{low_two:v}.16b", "{lowest:v}.16b"),
                closed!("v16", "v17"),
                shifted!("#1", "v18"),
                each!("ushr", ["v20", "v21", "v22", "v23"], ["v20", "v21", "v22", "v23"], "#5"),
                quad!("smlal", ["v20", "v21", "v22", "v23"], "v19")
            ],
            $at,
            $direction $lanes,
            with: [
                masks = in(reg) &MASKS,
                code = out(vreg) _,
                top = out(vreg) _,
                low_two = out(vreg) _,
                lowest = out(vreg) _,
                spare_of_second = out(vreg) _,
                spare_of_third = out(vreg) _,
            ],
            also: ["v28", "v29", "v30", "v31"]
        )
    };
}

/// The lanes of a unit of both tiles at 3 bits.
///
/// # Safety
/// A unit is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn begin_unit(at: &mut Cursor) -> Lanes {
    let mut lanes = [vdupq_n_s16(0); 8];
    // SAFETY: the caller vouches for the words and activations; the processor has the instructions.
    unsafe { unit_of_three!("smull", at, out lanes) };
    lanes
}

/// Adds the products of the next unit of both tiles at 3 bits to their lanes.
///
/// # Safety
/// A unit is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_unit(at: &mut Cursor, mut lanes: Lanes) -> Lanes {
    // SAFETY: the caller vouches for the words and activations; the processor has the instructions.
    unsafe { unit_of_three!("smlal", at, inout lanes) };
    lanes
}
