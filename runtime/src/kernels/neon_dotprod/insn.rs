//! Instructions whose intrinsics aren't stable in Rust yet, or that the compiler doesn't choose by itself.

use core::arch::aarch64::{int8x16_t, int32x4_t};
use core::arch::asm;

/// SDOT by element: to each of four lanes of `sums`, adds the products of its four `weights` and the four `activations` of quad
/// `QUAD` (0 to 3).
///
/// Not `pure`, so that products stay in the order of the source: else the compiler interleaves the words of a step until it runs out
/// of registers, which costs 7 % more instructions at 3 bits.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot<const QUAD: usize>(
    mut sums: int32x4_t,
    weights: int8x16_t,
    activations: int8x16_t,
) -> int32x4_t {
    const { assert!(QUAD < 4) };
    // SAFETY: an instruction on registers alone, on a processor that has it.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {activations:v}.4b[{quad}]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            activations = in(vreg) activations,
            quad = const QUAD,
            options(nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// SDOT by vector: to each of four lanes of `sums`, adds the products of its four `weights` and four `activations`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot_all(mut sums: int32x4_t, weights: int8x16_t, activations: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction on registers alone, on a processor that has it.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {activations:v}.16b",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            activations = in(vreg) activations,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
