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

use super::insn::both_rows;
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

/// Adds the products of a quad.
macro_rules! multiply {
    ($activations:literal, $quad:literal) => {
        concat!(
            "sdot {a:v}.4s, v24.16b, {",
            $activations,
            ":v}.4b[",
            $quad,
            "]\n",
            "sdot {b:v}.4s, v25.16b, {",
            $activations,
            ":v}.4b[",
            $quad,
            "]\n",
        )
    };
}

/// A quad of two registers, their fields under `$mask`.
macro_rules! masked {
    ($low_rows:literal, $high_rows:literal, $mask:literal, $activations:literal, $quad:literal) => {
        concat!(
            both_rows!("and", "v24", "v25", $low_rows, $high_rows, $mask),
            multiply!($activations, $quad),
        )
    };
}

/// A quad of two registers, the highest field of each byte.
macro_rules! shifted {
    ($low_rows:literal, $high_rows:literal, $shift:literal, $activations:literal, $quad:literal) => {
        concat!(
            both_rows!("ushr", "v24", "v25", $low_rows, $high_rows, $shift),
            multiply!($activations, $quad),
        )
    };
}

/// Both sums four times, or twice.
macro_rules! next_stage {
    () => {
        next_stage!("2")
    };
    ($places:literal) => {
        concat!("shl {a:v}.4s, {a:v}.4s, #", $places, "\nshl {b:v}.4s, {b:v}.4s, #", $places, "\n")
    };
}

/// Adds what is part of `begin`.
macro_rules! lowest {
    () => {
        "add {a:v}.4s, {a:v}.4s, {begin:v}.4s\nadd {b:v}.4s, {b:v}.4s, {begin:v}.4s\n"
    };
}

/// The codes of a unit of 3 bits that come out of a byte by one operation: quads 1, 3 and 5 by a shift, quad 6 out of the joined spare
/// bits, which remain in registers `$c` and `$d`.
macro_rules! right_codes {
    ($c:literal, $d:literal, $first:literal, $second:literal) => {
        concat!(
            "ld1 {{ v16.16b-v19.16b }}, [{words}], #64\n",
            "ld1 {{ ",
            $c,
            ".16b-",
            $d,
            ".16b }}, [{words}], #32\n",
            shifted!("v16", "v17", "#5", $first, "1"),
            shifted!("v18", "v19", "#5", $first, "3"),
            both_rows!("sli", "v18", "v19", "v16", "v17", "#2"),
            shifted!($c, $d, "#5", $second, "1"),
            both_rows!("sli", $c, $d, "v18", "v19", "#2"),
            masked!($c, $d, "{right:v}.16b", $second, "2"),
        )
    };
}

/// The low codes of the words of a unit of 3 bits.
macro_rules! low_codes {
    ($first:literal, $second:literal) => {
        concat!(
            "ld1 {{ v16.16b-v19.16b }}, [{words}], #64\n",
            masked!("v16", "v17", "{low:v}.16b", $first, "0"),
            masked!("v18", "v19", "{low:v}.16b", $first, "2"),
            "ld1 {{ v16.16b-v17.16b }}, [{words}], #32\n",
            masked!("v16", "v17", "{low:v}.16b", $second, "0"),
        )
    };
}

/// A piece of assembly for the sums of a tile, with the operands that all have and others.
macro_rules! sum {
    ([$($instructions:expr),*], $words:ident, $begin:ident, $sums:ident, [$($name:ident = $value:expr),*]) => {
        // SAFETY: the caller vouches for the words; the processor has the instructions.
        unsafe {
            asm!(
                $($instructions,)*
                words = inout(reg) *$words,
                a = inout(vreg) $sums[0],
                b = inout(vreg) $sums[1],
                begin = in(vreg) $begin,
                $($name = in(vreg) $value,)*
                out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
                out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
                options(readonly, nostack, preserves_flags),
            );
        }
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
    // SAFETY: the caller vouches for the words; has the features.
    unsafe {
        if WORDS == 2 {
            sum_of_two_bits::<UNITS>(words, activations, begin)
        } else {
            sum_of_three_bits::<UNITS>(words, activations, begin)
        }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sum_of_two_bits<const UNITS: usize>(
    words: &mut *const u8,
    activations: [[int8x16_t; 2]; 2],
    begin: int32x4_t,
) -> [int32x4_t; 2] {
    let mut sums = [vdupq_n_s32(0); 2];
    let [[x, y], [z, w]] = activations;
    let (ends, low, high) = (vdupq_n_u8(0b0000_0011), vdupq_n_u8(0b0000_1100), vdupq_n_u8(0b0011_0000));
    if UNITS == 2 {
        sum!(
            [
                "ld1 {{ v16.16b-v19.16b }}, [{words}], #64",
                "ld1 {{ v20.16b-v23.16b }}, [{words}], #64",
                masked!("v16", "v17", "{first:v}.16b", "x", "0"),
                shifted!("v16", "v17", "#6", "x", "3"),
                masked!("v18", "v19", "{first:v}.16b", "y", "0"),
                shifted!("v18", "v19", "#6", "y", "3"),
                masked!("v20", "v21", "{first:v}.16b", "z", "0"),
                shifted!("v20", "v21", "#6", "z", "3"),
                masked!("v22", "v23", "{first:v}.16b", "w", "0"),
                shifted!("v22", "v23", "#6", "w", "3"),
                next_stage!(),
                lowest!(),
                masked!("v16", "v17", "{second:v}.16b", "x", "1"),
                masked!("v18", "v19", "{second:v}.16b", "y", "1"),
                masked!("v20", "v21", "{second:v}.16b", "z", "1"),
                masked!("v22", "v23", "{second:v}.16b", "w", "1"),
                next_stage!(),
                masked!("v16", "v17", "{third:v}.16b", "x", "2"),
                masked!("v18", "v19", "{third:v}.16b", "y", "2"),
                masked!("v20", "v21", "{third:v}.16b", "z", "2"),
                masked!("v22", "v23", "{third:v}.16b", "w", "2")
            ],
            words,
            begin,
            sums,
            [x = x, y = y, z = z, w = w, first = ends, second = low, third = high]
        );
    } else {
        sum!(
            [
                "ld1 {{ v16.16b-v19.16b }}, [{words}], #64",
                masked!("v16", "v17", "{first:v}.16b", "x", "0"),
                shifted!("v16", "v17", "#6", "x", "3"),
                masked!("v18", "v19", "{first:v}.16b", "y", "0"),
                shifted!("v18", "v19", "#6", "y", "3"),
                next_stage!(),
                lowest!(),
                masked!("v16", "v17", "{second:v}.16b", "x", "1"),
                masked!("v18", "v19", "{second:v}.16b", "y", "1"),
                next_stage!(),
                masked!("v16", "v17", "{third:v}.16b", "x", "2"),
                masked!("v18", "v19", "{third:v}.16b", "y", "2")
            ],
            words,
            begin,
            sums,
            [x = x, y = y, first = ends, second = low, third = high]
        );
    }
    sums
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sum_of_three_bits<const UNITS: usize>(
    words: &mut *const u8,
    activations: [[int8x16_t; 2]; 2],
    begin: int32x4_t,
) -> [int32x4_t; 2] {
    let mut sums = [vdupq_n_s32(0); 2];
    let [[x, y], [z, w]] = activations;
    let (right, low, high) = (vdupq_n_u8(7), vdupq_n_u8(LOW_CODE), vdupq_n_u8(7 << 3));
    if UNITS == 2 {
        sum!(
            [
                right_codes!("v20", "v21", "x", "y"),
                right_codes!("v22", "v23", "z", "w"),
                next_stage!(),
                lowest!(),
                "sub {words}, {words}, #192",
                low_codes!("x", "y"),
                low_codes!("z", "w"),
                next_stage!("1"),
                masked!("v20", "v21", "{high:v}.16b", "y", "3"),
                masked!("v22", "v23", "{high:v}.16b", "w", "3")
            ],
            words,
            begin,
            sums,
            [x = x, y = y, z = z, w = w, right = right, low = low, high = high]
        );
    } else {
        sum!(
            [
                right_codes!("v20", "v21", "x", "y"),
                next_stage!(),
                lowest!(),
                "sub {words}, {words}, #96",
                low_codes!("x", "y"),
                next_stage!("1"),
                masked!("v20", "v21", "{high:v}.16b", "y", "3")
            ],
            words,
            begin,
            sums,
            [x = x, y = y, right = right, low = low, high = high]
        );
    }
    sums
}
