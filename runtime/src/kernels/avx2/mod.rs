//! AVX2 with FMA and F16C: hosts, so that calibration and evaluation run the device's arithmetic at speed.
#![allow(unsafe_code, reason = "processor intrinsics")]

pub(super) mod block;
mod codebook;
mod int8;
pub(super) mod lanes;
pub(super) mod lookup;

use super::instantiate::instantiate;
use super::{Attention, Kernels, TILE_ROWS};
use core::arch::x86_64::*;
use lanes::Avx2Lanes;

instantiate!(Avx2Lanes, "avx2,fma,f16c");

/// The processor has AVX2, FMA and F16C wherever this table is used: it leaves the module through `detect` alone.
static KERNELS: Kernels = Kernels {
    name: "avx2",
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
};

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
    // SAFETY: 16 readable bytes; no alignment needed.
    let halves = unsafe { _mm_loadu_si128(weight_scales.as_ptr().cast()) };
    let scales = _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(activation_scale));
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(integers), scales, sums)
}
