//! AVX-512 for the float operations of hosts that have it: sixteen lanes are one register. The integer products are those of AVX2, and
//! their names say so.
#![allow(unsafe_code, reason = "processor intrinsics")]

mod lanes;

use super::instantiate::instantiate;
use super::{Kernels, avx2};
use lanes::Avx512Lanes;

instantiate!(Avx512Lanes, "avx512f,avx512dq,avx2,fma,f16c");

static KERNELS: Kernels = Kernels {
    name: "avx512",
    quantize_activations,
    scores,
    dot_lanes,
    rms_norm,
    softmax,
    weighted_sum,
    weighted_sum_pair,
    silu_multiply,
    add,
    rotate,
    // SAFETY: private; `detect` hands it out only where the processor has AVX2, FMA and F16C, too.
    ..unsafe { avx2::table() }
};

/// The table, where the processor has AVX2, FMA, F16C and AVX-512 F and DQ.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found = std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512dq");
    #[cfg(not(feature = "std"))]
    let found = cfg!(all(target_feature = "avx512f", target_feature = "avx512dq"));
    (found && avx2::detect().is_some()).then_some(&KERNELS)
}
