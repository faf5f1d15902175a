//! AVX2 with FMA and F16C: hosts, so that calibration and evaluation run the device's arithmetic at speed.
#![allow(unsafe_code, reason = "processor intrinsics")]

pub(super) mod attention_int8;
pub(super) mod block;
mod codebook;
mod int8;
pub(super) mod lanes;
pub(super) mod lookup;
pub(super) mod step;

use super::instantiate::{instantiate, table};
use super::{Kernels, TILE_ROWS};
use core::arch::x86_64::*;
use lanes::Avx2Lanes;

instantiate!(Avx2Lanes, "avx2,fma,f16c");

/// The processor has AVX2, FMA and F16C wherever this table is used: it leaves the module through `detect` alone.
static KERNELS: Kernels = table!("avx2");

/// The table, where the processor has AVX2, FMA and F16C.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found = std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c");
    #[cfg(not(feature = "std"))]
    let found = cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"));
    found.then_some(&KERNELS)
}

/// Loads 32 bytes.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(in crate::kernels) unsafe fn load<T>(bytes: &[T; 32]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 readable bytes; no alignment needed.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// `fma(f32(integers), weight_scales * activation_scale, sums)`, a row a lane.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) fn add_step(
    integers: __m256i,
    weight_scales: &[u16; TILE_ROWS],
    activation_scale: f32,
    sums: __m256,
) -> __m256 {
    let scales = _mm256_mul_ps(lanes::widened(weight_scales), _mm256_set1_ps(activation_scale));
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(integers), scales, sums)
}
