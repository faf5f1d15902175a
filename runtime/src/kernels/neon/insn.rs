//! Instructions that the compiler doesn't choose, or doesn't leave in their place, by itself.

use core::arch::aarch64::{int8x16_t, int16x8_t, int32x4_t};
use core::arch::asm;

/// SMULL, SMULL2, SMLAL, SMLAL2: products of two quads of levels, `with` activations, of rows 0 and 1, and 2 and 3.
///
/// Not `pure`, so that products stay in the order of the source: with intrinsics the compiler interleaves the words of a step until it
/// runs out of registers, which costs an eighth more instructions at 4 bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiply(levels: [int8x16_t; 2], with: [int8x16_t; 2]) -> [int16x8_t; 2] {
    let (first, second);
    // SAFETY: instructions on registers alone, on a processor that has them.
    unsafe {
        asm!(
            "smull {first:v}.8h, {even:v}.8b, {with_even:v}.8b",
            "smull2 {second:v}.8h, {even:v}.16b, {with_even:v}.16b",
            "smlal {first:v}.8h, {odd:v}.8b, {with_odd:v}.8b",
            "smlal2 {second:v}.8h, {odd:v}.16b, {with_odd:v}.16b",
            first = out(vreg) first,
            second = out(vreg) second,
            even = in(vreg) levels[0],
            odd = in(vreg) levels[1],
            with_even = in(vreg) with[0],
            with_odd = in(vreg) with[1],
            options(nomem, nostack, preserves_flags),
        );
    }
    [first, second]
}

/// SMLAL and SMLAL2 add the products of two more quads to `products`; SADALP adds pairs of those to `sums`, or, without sums yet,
/// SADDLP begins them. In order, likewise.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiply_and_widen(
    sums: Option<[int32x4_t; 2]>,
    products: [int16x8_t; 2],
    levels: [int8x16_t; 2],
    with: [int8x16_t; 2],
) -> [int32x4_t; 2] {
    let (mut low, mut high);
    macro_rules! multiply_and {
        ($widen:literal, $direction:ident) => {
            // SAFETY: instructions on registers alone, on a processor that has them.
            unsafe {
                asm!(
                    "smlal {first:v}.8h, {even:v}.8b, {with_even:v}.8b",
                    "smlal2 {second:v}.8h, {even:v}.16b, {with_even:v}.16b",
                    "smlal {first:v}.8h, {odd:v}.8b, {with_odd:v}.8b",
                    "smlal2 {second:v}.8h, {odd:v}.16b, {with_odd:v}.16b",
                    concat!($widen, " {low:v}.4s, {first:v}.8h"),
                    concat!($widen, " {high:v}.4s, {second:v}.8h"),
                    first = inout(vreg) products[0] => _,
                    second = inout(vreg) products[1] => _,
                    low = $direction(vreg) low,
                    high = $direction(vreg) high,
                    even = in(vreg) levels[0],
                    odd = in(vreg) levels[1],
                    with_even = in(vreg) with[0],
                    with_odd = in(vreg) with[1],
                    options(nomem, nostack, preserves_flags),
                );
            }
        };
    }
    match sums {
        Some(sums) => {
            [low, high] = sums;
            multiply_and!("sadalp", inout);
        }
        None => multiply_and!("saddlp", lateout),
    }
    [low, high]
}

/// `sums + 2 * (a + b)` of each pair in `pairs`. The compiler would add three times.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_pairs_twice(mut sums: int32x4_t, pairs: int16x8_t) -> int32x4_t {
    // SAFETY: the processor has the instruction.
    unsafe {
        asm!(
            "sadalp {sums:v}.4s, {pairs:v}.8h",
            "sadalp {sums:v}.4s, {pairs:v}.8h",
            sums = inout(vreg) sums,
            pairs = in(vreg) pairs,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
