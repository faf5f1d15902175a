//! Codes of 2 and 3 bits, multiplied in place of levels: one AND or shift and one SDOT for each 16.
//!
//! Not all codes come out of a byte by one operation: masked, they are as many times too large as their place says. So sums go by stages, first of
//! those that are right, then four times those and the ones that are four times too large, and so on:
//!
//! | | stages | sum of codes | `lowest * sum(activations)` |
//! |---|---|---|---|
//! | 2 bits | quads 0 and 3, 1, 2 of a word | 16 times | 8 times |
//! | 3 bits | high codes of three words and quad 6, low codes, quad 7 | 8 times | 4 times |
//!
//! Levels are two apart, so that is 8 or 4 times the sum of levels, and the conversion to f32 divides. 8 * 64 * 63 * 127 * 255 < 2^31.

use super::pieces::{both_rows, load, multiply, piece};
use core::arch::aarch64::*;
use core::arch::asm;
use rescomp_formats::encodings::int3::LOW_CODE;

/// The binary places that sums of `WORDS` bits have: they are 8 or 4 times too large. At other widths, which are not summed here, none.
pub(super) const fn places<const WORDS: usize>() -> i32 {
    match WORDS {
        2 => 3,
        3 => 2,
        _ => 0,
    }
}

/// How often `lowest * sum(activations)` is part of `begin`.
pub(super) const LOWEST_TIMES: i8 = 2;

/// A quad of two registers, their fields under `$mask`.
macro_rules! masked {
    ($low_rows:literal, $high_rows:literal, $mask:literal, $activations:literal, $quad:literal) => {
        concat!(
            both_rows!("and", "v24", "v25", $low_rows, $high_rows, $mask),
            multiply!("v24", "v25", $activations, $quad),
        )
    };
}

/// A quad of two registers, the highest field of each byte.
macro_rules! shifted {
    ($low_rows:literal, $high_rows:literal, $shift:literal, $activations:literal, $quad:literal) => {
        concat!(
            both_rows!("ushr", "v24", "v25", $low_rows, $high_rows, $shift),
            multiply!("v24", "v25", $activations, $quad),
        )
    };
}

/// Both sums so many binary places higher.
macro_rules! next_stage {
    ($places:literal) => {
        concat!("shl {a:v}.4s, {a:v}.4s, ", $places, "\nshl {b:v}.4s, {b:v}.4s, ", $places, "\n")
    };
}

/// Adds what is part of `begin`.
macro_rules! lowest {
    () => {
        "add {a:v}.4s, {a:v}.4s, {begin:v}.4s\nadd {b:v}.4s, {b:v}.4s, {begin:v}.4s\n"
    };
}

/// The ends of the words of half a unit of 2 bits.
macro_rules! ends {
    ($low_rows:literal, $high_rows:literal, $activations:literal) => {
        concat!(
            masked!($low_rows, $high_rows, "{first:v}.16b", $activations, "0"),
            shifted!($low_rows, $high_rows, "#6", $activations, "3"),
        )
    };
}

/// The codes of a unit of 3 bits that come out of a byte by one operation: quads 1, 3 and 5 by a shift, quad 6 out of the joined spare
/// bits, which remain in registers `$c` and `$d`.
macro_rules! right_codes {
    ($c:literal, $d:literal, $low_quads:literal, $high_quads:literal) => {
        concat!(
            load!("v16", "v19", "64"),
            load!($c, $d, "32"),
            shifted!("v16", "v17", "#5", $low_quads, "1"),
            shifted!("v18", "v19", "#5", $low_quads, "3"),
            both_rows!("sli", "v18", "v19", "v16", "v17", "#2"),
            shifted!($c, $d, "#5", $high_quads, "1"),
            both_rows!("sli", $c, $d, "v18", "v19", "#2"),
            masked!($c, $d, "{first:v}.16b", $high_quads, "2"),
        )
    };
}

/// The low codes of the words of a unit of 3 bits, which are read once more.
macro_rules! low_codes {
    ($low_quads:literal, $high_quads:literal) => {
        concat!(
            load!("v16", "v19", "64"),
            masked!("v16", "v17", "{second:v}.16b", $low_quads, "0"),
            masked!("v18", "v19", "{second:v}.16b", $low_quads, "2"),
            load!("v16", "v17", "32"),
            masked!("v16", "v17", "{second:v}.16b", $high_quads, "0"),
        )
    };
}

/// So many times the sums of the levels' products as [`places`] says, of rows 0 to 3 and 4 to 7 of a tile, over `UNITS` units (1 or 2). `begin` is
/// [`LOWEST_TIMES`] the lowest level times the sum of the activations.
///
/// # Safety
/// `words` points at the words of so many units; it is moved behind them.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sum_of_part<const WORDS: usize, const UNITS: usize>(
    words: &mut *const u8,
    activations: [[int8x16_t; 2]; 2],
    begin: int32x4_t,
) -> [int32x4_t; 2] {
    let mut sums = [vdupq_n_s32(0); 2];
    let [unit, [z, w]] = activations;
    // The fields of a byte, by stage.
    let [first, second, third] =
        const { if WORDS == 2 { [3, 3 << 2, 3 << 4] } else { [7, LOW_CODE, 7 << 3] } };
    let (first, second, third) = (vdupq_n_u8(first), vdupq_n_u8(second), vdupq_n_u8(third));
    macro_rules! sum {
        ([$($instructions:expr),*], [$($operands:tt)*]) => {
            piece!(
                words,
                unit,
                sums,
                [$($instructions),*],
                [
                    begin = in(vreg) begin,
                    first = in(vreg) first,
                    second = in(vreg) second,
                    third = in(vreg) third,
                    $($operands)*
                ]
            )
        };
    }
    match (WORDS, UNITS) {
        (2, 2) => sum!(
            [
                load!("v16", "v19", "64"),
                load!("v20", "v23", "64"),
                ends!("v16", "v17", "x"),
                ends!("v18", "v19", "y"),
                ends!("v20", "v21", "z"),
                ends!("v22", "v23", "w"),
                next_stage!("#2"),
                lowest!(),
                masked!("v16", "v17", "{second:v}.16b", "x", "1"),
                masked!("v18", "v19", "{second:v}.16b", "y", "1"),
                masked!("v20", "v21", "{second:v}.16b", "z", "1"),
                masked!("v22", "v23", "{second:v}.16b", "w", "1"),
                next_stage!("#2"),
                masked!("v16", "v17", "{third:v}.16b", "x", "2"),
                masked!("v18", "v19", "{third:v}.16b", "y", "2"),
                masked!("v20", "v21", "{third:v}.16b", "z", "2"),
                masked!("v22", "v23", "{third:v}.16b", "w", "2")
            ],
            [z = in(vreg) z, w = in(vreg) w,]
        ),
        (2, _) => sum!(
            [
                load!("v16", "v19", "64"),
                ends!("v16", "v17", "x"),
                ends!("v18", "v19", "y"),
                next_stage!("#2"),
                lowest!(),
                masked!("v16", "v17", "{second:v}.16b", "x", "1"),
                masked!("v18", "v19", "{second:v}.16b", "y", "1"),
                next_stage!("#2"),
                masked!("v16", "v17", "{third:v}.16b", "x", "2"),
                masked!("v18", "v19", "{third:v}.16b", "y", "2")
            ],
            []
        ),
        (_, 2) => sum!(
            [
                right_codes!("v20", "v21", "x", "y"),
                right_codes!("v22", "v23", "z", "w"),
                next_stage!("#2"),
                lowest!(),
                "sub {words}, {words}, #192",
                low_codes!("x", "y"),
                low_codes!("z", "w"),
                next_stage!("#1"),
                masked!("v20", "v21", "{third:v}.16b", "y", "3"),
                masked!("v22", "v23", "{third:v}.16b", "w", "3")
            ],
            [z = in(vreg) z, w = in(vreg) w,]
        ),
        _ => sum!(
            [
                right_codes!("v20", "v21", "x", "y"),
                next_stage!("#2"),
                lowest!(),
                "sub {words}, {words}, #96",
                low_codes!("x", "y"),
                next_stage!("#1"),
                masked!("v20", "v21", "{third:v}.16b", "y", "3")
            ],
            []
        ),
    }
    sums
}
