//! NEON as every ARMv8-A core has it (Cortex-A53, A72), without dotprod: products in int16, widened pairwise.
#![allow(unsafe_code, reason = "processor intrinsics")]

mod int8;
mod lanes;
pub(super) mod sums;

use super::instantiate::instantiate;
use super::{Kernels, ProductNames};
use lanes::NeonLanes;

instantiate!(NeonLanes, "neon");

/// The table, also for the backends that add to NEON.
///
/// # Safety
/// The processor has NEON wherever the table is used.
pub(super) const unsafe fn table() -> Kernels {
    Kernels {
        name: "neon",
        gemv_int8: int8::gemv,
        gemm_int8: int8::gemm,
        product_names: ProductNames { gemv_int8: "gemv_int8_nr8k4_neon", gemm_int8: "gemm_int8_nr8k4_neon" },
        quantize_activations,
        dot,
        dot_lanes,
        rms_norm,
        softmax,
        weighted_sum,
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
