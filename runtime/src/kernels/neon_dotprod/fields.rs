//! Codes of 2 bits, four to a byte, multiplied in place of levels: one AND or shift and one SDOT for each 16.
//!
//! Only the fields at the ends of a byte come out as codes; masked, the two between are 4 and 16 times theirs. So sums go by stages, of
//! the ends, then four times those and the one, then four times that and the other: 16 times the sum of the codes' products.
//!
//! Levels are two apart, so a sum of levels is twice that of codes and `lowest * sum(activations)`; 8 times that is what
//! [`sum_of_part`] gives, and the conversion to f32 divides. 8 * 64 * 63 * 127 * 255 < 2^31.

use core::arch::aarch64::*;
use core::arch::asm;

/// The binary places that sums have: they are 8 times too large.
pub(super) const PLACES: i32 = 3;
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
            "and v24.16b, ",
            $low_rows,
            ".16b, {",
            $mask,
            ":v}.16b\n",
            "and v25.16b, ",
            $high_rows,
            ".16b, {",
            $mask,
            ":v}.16b\n",
            multiply!($activations, $quad),
        )
    };
}

/// The last quad of two registers.
macro_rules! last {
    ($low_rows:literal, $high_rows:literal, $activations:literal) => {
        concat!(
            "ushr v24.16b, ",
            $low_rows,
            ".16b, #6\n",
            "ushr v25.16b, ",
            $high_rows,
            ".16b, #6\n",
            multiply!($activations, "3"),
        )
    };
}

/// Both sums four times.
macro_rules! next_stage {
    () => {
        "shl {a:v}.4s, {a:v}.4s, #2\nshl {b:v}.4s, {b:v}.4s, #2\n"
    };
}

/// 8 times the sums of the levels' products, of rows 0 to 3 and 4 to 7 of a tile, over `UNITS` units (1 or 2). `begin` is
/// [`LOWEST_TIMES`] the lowest level times the sum of the activations.
///
/// # Safety
/// `words` points at the words of so many units; it is moved behind them.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sum_of_part<const UNITS: usize>(
    words: &mut *const u8,
    activations: [[int8x16_t; 2]; 2],
    begin: int32x4_t,
) -> [int32x4_t; 2] {
    let mut sums = [vdupq_n_s32(0); 2];
    let [[x, y], [z, w]] = activations;
    macro_rules! sum {
        ([$($instructions:expr),*], [$($name:ident = $value:ident),*]) => {
            // SAFETY: the caller vouches for the words; the processor has the instructions.
            unsafe {
                asm!(
                    $($instructions,)*
                    words = inout(reg) *words,
                    a = inout(vreg) sums[0],
                    b = inout(vreg) sums[1],
                    begin = in(vreg) begin,
                    first = in(vreg) vdupq_n_u8(0b0000_0011),
                    second = in(vreg) vdupq_n_u8(0b0000_1100),
                    third = in(vreg) vdupq_n_u8(0b0011_0000),
                    $($name = in(vreg) $value,)*
                    out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
                    out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
                    options(readonly, nostack, preserves_flags),
                );
            }
        };
    }
    macro_rules! lowest {
        () => {
            "add {a:v}.4s, {a:v}.4s, {begin:v}.4s\nadd {b:v}.4s, {b:v}.4s, {begin:v}.4s\n"
        };
    }
    if UNITS == 2 {
        sum!(
            [
                "ld1 {{ v16.16b-v19.16b }}, [{words}], #64",
                "ld1 {{ v20.16b-v23.16b }}, [{words}], #64",
                masked!("v16", "v17", "first", "x", "0"),
                last!("v16", "v17", "x"),
                masked!("v18", "v19", "first", "y", "0"),
                last!("v18", "v19", "y"),
                masked!("v20", "v21", "first", "z", "0"),
                last!("v20", "v21", "z"),
                masked!("v22", "v23", "first", "w", "0"),
                last!("v22", "v23", "w"),
                next_stage!(),
                lowest!(),
                masked!("v16", "v17", "second", "x", "1"),
                masked!("v18", "v19", "second", "y", "1"),
                masked!("v20", "v21", "second", "z", "1"),
                masked!("v22", "v23", "second", "w", "1"),
                next_stage!(),
                masked!("v16", "v17", "third", "x", "2"),
                masked!("v18", "v19", "third", "y", "2"),
                masked!("v20", "v21", "third", "z", "2"),
                masked!("v22", "v23", "third", "w", "2")
            ],
            [x = x, y = y, z = z, w = w]
        );
    } else {
        sum!(
            [
                "ld1 {{ v16.16b-v19.16b }}, [{words}], #64",
                masked!("v16", "v17", "first", "x", "0"),
                last!("v16", "v17", "x"),
                masked!("v18", "v19", "first", "y", "0"),
                last!("v18", "v19", "y"),
                next_stage!(),
                lowest!(),
                masked!("v16", "v17", "second", "x", "1"),
                masked!("v18", "v19", "second", "y", "1"),
                next_stage!(),
                masked!("v16", "v17", "third", "x", "2"),
                masked!("v18", "v19", "third", "y", "2")
            ],
            [x = x, y = y]
        );
    }
    sums
}
