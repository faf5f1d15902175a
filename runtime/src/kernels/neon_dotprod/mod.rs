//! NEON with the dotprod extension (Cortex-A55, A76, Neoverse N1): four products a lane in one SDOT.
#![allow(unsafe_code, reason = "processor intrinsics")]

mod insn;
mod int8;

use super::{Kernels, ProductNames, neon};

static KERNELS: Kernels = Kernels {
    name: "neon_dotprod",
    gemv_int8: int8::gemv,
    gemm_int8: int8::gemm,
    product_names: ProductNames {
        gemv_int8: "gemv_int8_nr8k4_neon_dotprod",
        gemm_int8: "gemm_int8_nr8k4_neon_dotprod",
    },
    // SAFETY: `detect` requires NEON too.
    ..unsafe { neon::table() }
};

/// The table, where the processor has NEON and dotprod.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found =
        std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(not(feature = "std"))]
    let found = cfg!(all(target_feature = "neon", target_feature = "dotprod"));
    found.then_some(&KERNELS)
}
