//! Instructions whose intrinsics aren't stable in Rust yet.

use core::arch::aarch64::{int8x16_t, int32x4_t};
use core::arch::asm;

/// SMMLA: to the square `[r0 t0, r0 t1, r1 t0, r1 t1]` of sums adds the products of two rows and two tokens over eight columns:
/// `weights` has eight of row 0, then of row 1, `activations` eight of token 0, then of token 1.
///
/// Not `pure`, so that products stay in the order of the source, as those of `neon_dotprod` must.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn smmla(mut sums: int32x4_t, weights: int8x16_t, activations: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction on registers alone, on a processor that has it.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {weights:v}.16b, {activations:v}.16b",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            activations = in(vreg) activations,
            options(nomem, nostack, preserves_flags),
        );
    }
    sums
}
