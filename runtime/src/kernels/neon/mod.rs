//! NEON as every ARMv8-A core has it (Cortex-A53, A72), without dotprod: products in int16, widened pairwise.
#![allow(unsafe_code, reason = "processor intrinsics")]

pub(super) mod block;
mod codebook;
mod insn;
mod int8;
mod lanes;
pub(super) mod lookup;
pub(super) mod sums;

use super::instantiate::instantiate;
use super::{Attention, Kernels};
use lanes::NeonLanes;

instantiate!(NeonLanes, "neon");

/// The table, also for the backends that add to NEON.
///
/// # Safety
/// The processor has NEON wherever the table is used.
pub(super) const unsafe fn table() -> Kernels {
    Kernels {
        name: "neon",
        int2: codebook::INT2,
        int3: codebook::INT3,
        int4: codebook::INT4,
        int5: codebook::INT5,
        int6: codebook::INT6,
        int8: int8::INT8,
        quantize_activations,
        attention_f32: Attention {
            scores: scores_f32,
            weighted_sum: weighted_sum_f32,
            weighted_sum_pair: weighted_sum_pair_f32,
        },
        attention_f16: Attention {
            scores: scores_f16,
            weighted_sum: weighted_sum_f16,
            weighted_sum_pair: weighted_sum_pair_f16,
        },
        dot_lanes,
        rms_norm,
        softmax,
        silu_multiply,
        add,
        rotate,
    }
}

// SAFETY: private; `detect` hands it out only where the processor has NEON.
static KERNELS: Kernels = unsafe { table() };

/// The table, where the processor has NEON. Targets without floating point in their ABI don't promise it.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found = std::arch::is_aarch64_feature_detected!("neon");
    #[cfg(not(feature = "std"))]
    let found = cfg!(target_feature = "neon");
    found.then_some(&KERNELS)
}
