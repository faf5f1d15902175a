//! Attention over int8 codes on NEON without dotprod.
//!
//! Scores: SMULL and SMLAL2 make two products in int16, at most 2 * 127 * 127 = 32258; SADALP widens them. Weighted sums: SXTL widens a
//! row of values, which all queries share, and SMLAL multiplies it with weights of 15 bits, sign included; a block's sums fit an int32.

use super::lanes::NeonLanes;
use crate::kernels::attention_int8::{BLOCK, Block, Int8Sums, KEYS};
use crate::kernels::code_products::{CodeProducts, scores_in_chunks};
use crate::kernels::instantiate::attention_int8;
use crate::kernels::lanes::LANES;
use core::arch::aarch64::*;

attention_int8!(AttentionSums, "neon");

struct AttentionSums;

impl Int8Sums for AttentionSums {
    type Lanes = NeonLanes;

    #[inline(always)]
    fn scores<const Q: usize, const N: usize>(
        queries: [&[i8]; Q],
        factors: [f32; Q],
        keys: [&[i8]; KEYS],
        key_scales: &[f32; KEYS],
    ) -> [[f32; KEYS]; Q] {
        scores_in_chunks::<Self, Q, N>(queries, factors, keys, key_scales)
    }

    #[inline(always)]
    fn columns<const Q: usize>(block: &Block<'_, Q>, outputs: &mut [&mut [f32]; Q]) -> usize {
        // SAFETY: instantiated only in the functions above, which have NEON.
        unsafe { columns(block, outputs) }
    }
}

/// Products of codes.
pub(in crate::kernels) trait Products {
    /// Adds sixteen products to four sums.
    ///
    /// # Safety
    /// The processor has NEON, and what a backend asks for beside it.
    unsafe fn add_products(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

impl Products for AttentionSums {
    #[inline(always)]
    unsafe fn add_products(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { add(sums, a, b) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn add(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    vpadalq_s16(sums, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b))
}

impl<P: Products> CodeProducts for P {
    type Codes = int8x16_t;
    type Sums = int32x4_t;

    #[inline(always)]
    fn load(codes: &[i8; LANES]) -> int8x16_t {
        // SAFETY: instantiated only in functions that have NEON and what the backend asks for; likewise below.
        unsafe { load(codes) }
    }
    #[inline(always)]
    fn zero() -> int32x4_t {
        // SAFETY: likewise.
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    fn add(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: likewise.
        unsafe { P::add_products(sums, a, b) }
    }
    #[inline(always)]
    fn scaled(sums: [int32x4_t; KEYS], key_scales: &[f32; KEYS], factor: f32) -> [f32; KEYS] {
        // SAFETY: likewise.
        unsafe { scaled(sums, key_scales, factor) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn load(codes: &[i8; LANES]) -> int8x16_t {
    // SAFETY: 16 readable bytes.
    unsafe { vld1q_s8(codes.as_ptr()) }
}

/// Folds the four sums of each key, and scales them.
#[inline]
#[target_feature(enable = "neon")]
fn scaled([a, b, c, d]: [int32x4_t; KEYS], key_scales: &[f32; KEYS], factor: f32) -> [f32; KEYS] {
    let sums = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
    // SAFETY: four readable numbers.
    let scales = unsafe { vld1q_f32(key_scales.as_ptr()) };
    let scaled = vmulq_f32(vcvtq_f32_s32(sums), vmulq_n_f32(scales, factor));
    let mut scores = [0.0; KEYS];
    // SAFETY: four writable numbers.
    unsafe { vst1q_f32(scores.as_mut_ptr(), scaled) };
    scores
}

/// Adds sums times the row's unit to four outputs.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn add_scaled(sums: int32x4_t, unit: f32, outputs: &mut [f32; 4]) {
    // SAFETY: four readable numbers.
    let before = unsafe { vld1q_f32(outputs.as_ptr()) };
    let scaled = vfmaq_n_f32(before, vcvtq_f32_s32(sums), unit);
    // SAFETY: four writable numbers.
    unsafe { vst1q_f32(outputs.as_mut_ptr(), scaled) };
}

/// As many columns at once as their sums fit the registers.
#[inline]
#[target_feature(enable = "neon")]
fn columns<const Q: usize>(block: &Block<'_, Q>, outputs: &mut [&mut [f32]; Q]) -> usize {
    let (e, mut at) = (outputs[0].len(), 0);
    while Q == 1 && at + 4 * LANES <= e {
        add_columns::<Q, 4>(block, at, outputs);
        at += 4 * LANES;
    }
    while Q <= 2 && at + 2 * LANES <= e {
        add_columns::<Q, 2>(block, at, outputs);
        at += 2 * LANES;
    }
    while at + LANES <= e {
        add_columns::<Q, 1>(block, at, outputs);
        at += LANES;
    }
    at
}

/// Positions whose weights are one operand.
const POSITIONS: usize = 4;

/// `C` times sixteen columns from column `at` on.
#[inline]
#[target_feature(enable = "neon")]
fn add_columns<const Q: usize, const C: usize>(
    block: &Block<'_, Q>,
    at: usize,
    outputs: &mut [&mut [f32]; Q],
) {
    const { assert!(BLOCK.is_multiple_of(POSITIONS)) };
    let e = outputs[0].len();
    let mut sums = [[[vdupq_n_s32(0); 4]; C]; Q];
    let mut weights = [vdup_n_s16(0); Q];
    let rows = block.values.chunks_exact(POSITIONS * e);
    for (index, rows) in rows.enumerate().take(block.positions.div_ceil(POSITIONS)) {
        for (weights, codes) in weights.iter_mut().zip(&block.codes) {
            // SAFETY: four readable numbers.
            *weights = unsafe { vld1_s16(codes.as_chunks::<POSITIONS>().0[index].as_ptr()) };
        }
        add_row::<Q, C, 0>(&rows[at..], weights, &mut sums);
        add_row::<Q, C, 1>(&rows[e + at..], weights, &mut sums);
        add_row::<Q, C, 2>(&rows[2 * e + at..], weights, &mut sums);
        add_row::<Q, C, 3>(&rows[3 * e + at..], weights, &mut sums);
    }
    for ((sums, output), &unit) in sums.iter().zip(outputs).zip(&block.units) {
        let (output, _) = output[at..].as_chunks_mut::<4>();
        let Some(output) = output.as_chunks_mut::<4>().0.first_chunk_mut::<C>() else { return };
        for column in 0..C {
            for quarter in 0..4 {
                add_scaled(sums[column][quarter], unit, &mut output[column][quarter]);
            }
        }
    }
}

/// Adds the values of one position times its weight, which is number `POSITION` of `weights`.
#[inline]
#[target_feature(enable = "neon")]
fn add_row<const Q: usize, const C: usize, const POSITION: i32>(
    values: &[i8],
    weights: [int16x4_t; Q],
    sums: &mut [[[int32x4_t; 4]; C]; Q],
) {
    let Some(values) = values.as_chunks().0.first_chunk::<C>() else { return };
    for column in 0..C {
        let values = load(&values[column]);
        let (low, high) = (vmovl_s8(vget_low_s8(values)), vmovl_high_s8(values));
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let [a, b, c, d] = &mut sums[column];
            *a = vmlal_lane_s16::<POSITION>(*a, vget_low_s16(low), weights);
            *b = vmlal_high_lane_s16::<POSITION>(*b, low, weights);
            *c = vmlal_lane_s16::<POSITION>(*c, vget_low_s16(high), weights);
            *d = vmlal_high_lane_s16::<POSITION>(*d, high, weights);
        }
    }
}
