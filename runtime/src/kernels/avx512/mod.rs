//! AVX-512 with VNNI: hosts of the last years. Sixteen float lanes are one register; the integer products are those of AVX2 with
//! VPDPBUSD in place of three instructions, on twice as many registers.
#![allow(unsafe_code, reason = "processor intrinsics")]

mod attention_int8;
mod codebook;
mod int8;
mod lanes;

use super::instantiate::{instantiate, table};
use super::{Kernels, avx2};
use lanes::Avx512Lanes;

instantiate!(Avx512Lanes, "avx512f,avx512dq,avx2,fma,f16c");

/// The processor has all that `detect` asks for wherever this table is used: it leaves the module through `detect` alone.
static KERNELS: Kernels = table!("avx512");

/// The table, where the processor has AVX2, FMA, F16C and AVX-512 F, DQ, VL and VNNI.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found = std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512dq")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512vnni");
    #[cfg(not(feature = "std"))]
    let found = cfg!(all(
        target_feature = "avx512f",
        target_feature = "avx512dq",
        target_feature = "avx512vl",
        target_feature = "avx512vnni"
    ));
    (found && avx2::detect().is_some()).then_some(&KERNELS)
}
