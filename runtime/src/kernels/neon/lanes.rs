//! Sixteen lanes as four registers.
//!
//! The methods are safe to the trait and must not be: a value of this type is made only inside functions that are compiled for
//! NEON and reached through `detect`. That is the "has NEON" of every block below.

use super::sums;
use crate::kernels::lanes::{Elementwise, FOLDED_TOGETHER, LANES, Lanes, Part};
use core::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct NeonLanes([float32x4_t; 4]);

/// One intrinsic on all four registers.
macro_rules! each {
    ($intrinsic:ident $(, $operand:expr)*) => {
        NeonLanes([
            // SAFETY: has NEON (head of this file).
            unsafe { $intrinsic($($operand.0[0]),*) },
            // SAFETY: likewise.
            unsafe { $intrinsic($($operand.0[1]),*) },
            // SAFETY: likewise.
            unsafe { $intrinsic($($operand.0[2]),*) },
            // SAFETY: likewise.
            unsafe { $intrinsic($($operand.0[3]),*) },
        ])
    };
}

impl Elementwise for NeonLanes {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: has NEON.
        NeonLanes([unsafe { vdupq_n_f32(value) }; 4])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(vaddq_f32, self, other)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(vsubq_f32, self, other)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each!(vmulq_f32, self, other)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each!(vdivq_f32, self, other)
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        each!(vfmaq_f32, addend, self, factor)
    }
    #[inline(always)]
    fn negate(self) -> Self {
        each!(vnegq_f32, self)
    }
    // FMAX and FMIN treat zeros and NaN otherwise than the trait does, so compare and select.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        each!(larger, self, other)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        each!(smaller, self, other)
    }
    #[inline(always)]
    fn zero_where_less(self, value: Self, bound: Self) -> Self {
        each!(zero_where_less, self, value, bound)
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        each!(power_of_two, self)
    }
}

impl Lanes for NeonLanes {
    type Part = NeonHalf;
    const SUMS: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        let (quarters, _) = values.as_chunks::<4>();
        let mut registers = Self::splat(0.0);
        for (register, quarter) in registers.0.iter_mut().zip(quarters) {
            // SAFETY: four readable values; has NEON.
            *register = unsafe { vld1q_f32(quarter.as_ptr()) };
        }
        registers
    }
    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        let (halves, _) = values.as_chunks::<8>();
        // SAFETY: has NEON.
        let [a, b] = unsafe { sums::widened(&halves[0]) };
        // SAFETY: likewise.
        let [c, d] = unsafe { sums::widened(&halves[1]) };
        NeonLanes([a, b, c, d])
    }
    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        let (quarters, _) = values.as_chunks_mut::<4>();
        for (quarter, register) in quarters.iter_mut().zip(self.0) {
            // SAFETY: four writable values; has NEON.
            unsafe { vst1q_f32(quarter.as_mut_ptr(), register) };
        }
    }
    #[inline(always)]
    fn larger_magnitude(self, other: Self) -> Self {
        each!(larger_magnitude, self, other)
    }
    #[inline(always)]
    fn quotients(a: f32, b: f32) -> [f32; 2] {
        // SAFETY: has NEON.
        unsafe { quotients(a, b) }
    }
    #[inline(always)]
    fn to_codes(self) -> [i8; LANES] {
        // SAFETY: has NEON.
        unsafe { to_codes(self.0) }
    }
    #[inline(always)]
    fn to_words(self) -> [i16; LANES] {
        // SAFETY: has NEON.
        unsafe { to_words(self.0) }
    }
    #[inline(always)]
    fn to_f16(self) -> [u16; LANES] {
        // SAFETY: has NEON.
        unsafe { to_f16(self.0) }
    }
    #[inline(always)]
    fn fold_magnitude(self) -> f32 {
        // SAFETY: has NEON.
        unsafe { fold_magnitude(self.0) }
    }
    #[inline(always)]
    fn fold_sum(self) -> f32 {
        // SAFETY: has NEON.
        unsafe { fold_sum(self.0) }
    }
}

/// Two of the registers.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct NeonHalf([float32x4_t; 2]);

impl Part for NeonHalf {
    /// Four lanes.
    type Folded = float32x4_t;
    const LANES: usize = 8;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: has NEON.
        NeonHalf([unsafe { vdupq_n_f32(0.0) }; 2])
    }
    #[inline(always)]
    fn load(values: &[f32; LANES], part: usize) -> Self {
        let (quarters, _) = values.as_chunks::<4>();
        NeonHalf([
            // SAFETY: four readable values; has NEON.
            unsafe { vld1q_f32(quarters[2 * part].as_ptr()) },
            // SAFETY: likewise.
            unsafe { vld1q_f32(quarters[2 * part + 1].as_ptr()) },
        ])
    }
    #[inline(always)]
    fn load_f16(values: &[u16; LANES], part: usize) -> Self {
        let (halves, _) = values.as_chunks::<8>();
        // SAFETY: has NEON.
        NeonHalf(unsafe { sums::widened(&halves[part]) })
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        NeonHalf([
            // SAFETY: has NEON.
            unsafe { vfmaq_f32(addend.0[0], self.0[0], factor.0[0]) },
            // SAFETY: likewise.
            unsafe { vfmaq_f32(addend.0[1], self.0[1], factor.0[1]) },
        ])
    }
    #[inline(always)]
    fn folded(self, second: Self) -> float32x4_t {
        let ([a, b], [c, d]) = (self.0, second.0);
        // SAFETY: has NEON.
        unsafe { vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d)) }
    }
    #[inline(always)]
    fn fold_sums(sums: [float32x4_t; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER] {
        // SAFETY: has NEON.
        unsafe { fold_fours(sums) }
    }
}

/// The last two of [`fold_sum`]'s folds, two sums a register, then four.
#[inline]
#[target_feature(enable = "neon")]
fn fold_fours(sums: [float32x4_t; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER] {
    let two =
        [[sums[0], sums[1]], [sums[2], sums[3]], [sums[4], sums[5]], [sums[6], sums[7]]].map(|[a, b]| {
            let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
            vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(a, b)), vreinterpretq_f32_f64(vzip2q_f64(a, b)))
        });
    let mut folded = [0.0; FOLDED_TOGETHER];
    // SAFETY: eight writable values.
    unsafe { vst1q_f32(folded.as_mut_ptr(), vpaddq_f32(two[0], two[1])) };
    // SAFETY: likewise.
    unsafe { vst1q_f32(folded[4..].as_mut_ptr(), vpaddq_f32(two[2], two[3])) };
    folded
}

#[inline]
#[target_feature(enable = "neon")]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(a, b), a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn zero_where_less(result: float32x4_t, value: float32x4_t, bound: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(result), vcltq_f32(value, bound)))
}

#[inline]
#[target_feature(enable = "neon")]
fn power_of_two(shifted: float32x4_t) -> float32x4_t {
    let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted));
    vreinterpretq_f32_u32(vaddq_u32(exponent, vdupq_n_u32(1f32.to_bits())))
}

#[inline]
#[target_feature(enable = "neon")]
fn larger_magnitude(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    larger_bits(a, vabsq_f32(b))
}

#[inline]
#[target_feature(enable = "neon")]
fn larger_bits(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
}

/// Both by one division.
#[inline]
#[target_feature(enable = "neon")]
fn quotients(a: f32, b: f32) -> [f32; 2] {
    let both = vset_lane_f32::<1>(b, vdup_n_f32(a));
    let quotients = vdiv_f32(both, vrev64_f32(both));
    [vget_lane_f32::<0>(quotients), vget_lane_f32::<1>(quotients)]
}

#[inline]
#[target_feature(enable = "neon")]
fn to_codes(lanes: [float32x4_t; 4]) -> [i8; LANES] {
    let [low, high] = rounded(lanes);
    let mut codes = [0; LANES];
    // SAFETY: 16 writable bytes.
    unsafe { vst1q_s8(codes.as_mut_ptr(), vqmovn_high_s16(vqmovn_s16(low), high)) };
    codes
}

#[inline]
#[target_feature(enable = "neon")]
fn to_words(lanes: [float32x4_t; 4]) -> [i16; LANES] {
    let mut words = [0; LANES];
    let (halves, _) = words.as_chunks_mut::<8>();
    for (half, lanes) in halves.iter_mut().zip(rounded(lanes)) {
        // SAFETY: eight writable numbers.
        unsafe { vst1q_s16(half.as_mut_ptr(), lanes) };
    }
    words
}

/// To integers, which fit. Narrowed with saturation, because the compiler makes UZP1 of what is not: three operations of a Cortex-A72 for
/// two narrowings of one each.
#[inline]
#[target_feature(enable = "neon")]
fn rounded([a, b, c, d]: [float32x4_t; 4]) -> [int16x8_t; 2] {
    // FCVTNS rounds to nearest, ties to even.
    let [a, b, c, d] = [vcvtnq_s32_f32(a), vcvtnq_s32_f32(b), vcvtnq_s32_f32(c), vcvtnq_s32_f32(d)];
    [vqmovn_high_s32(vqmovn_s32(a), b), vqmovn_high_s32(vqmovn_s32(c), d)]
}

#[inline]
#[target_feature(enable = "neon")]
fn to_f16(lanes: [float32x4_t; 4]) -> [u16; LANES] {
    // FCVTN rounds to nearest, ties to even.
    let mut numbers = [0; LANES];
    let (quarters, _) = numbers.as_chunks_mut::<4>();
    for (quarter, lanes) in quarters.iter_mut().zip(lanes) {
        // SAFETY: four writable numbers.
        unsafe { vst1_u16(quarter.as_mut_ptr(), vreinterpret_u16_f16(vcvt_f16_f32(lanes))) };
    }
    numbers
}

#[inline]
#[target_feature(enable = "neon")]
fn fold_magnitude([a, b, c, d]: [float32x4_t; 4]) -> f32 {
    let largest = larger_bits(larger_bits(a, b), larger_bits(c, d));
    f32::from_bits(vmaxvq_u32(vreinterpretq_u32_f32(largest)))
}

#[inline]
#[target_feature(enable = "neon")]
fn fold_sum([a, b, c, d]: [float32x4_t; 4]) -> f32 {
    let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    vpadds_f32(two)
}
