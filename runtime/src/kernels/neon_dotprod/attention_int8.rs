//! Attention over int8 codes with dotprod.
//!
//! Weighted sums: values lie in quads of positions, so that SDOT by element multiplies those of four columns with the four weights of a
//! quad. Weights of 15 bits, sign included, are two limbs: `code = 128 high + low`, -128 <= high <= 127 and 0 <= low <= 127. A block's sums are
//! at most 64 * 128 * 127 of each, and fit an int32 when they are joined.

use super::insn::{sdot, sdot_all};
use crate::kernels::attention_int8::{BLOCK, Block, Int8Sums, KEYS};
use crate::kernels::code_products::scores_in_chunks;
use crate::kernels::instantiate::attention_int8;
use crate::kernels::lanes::LANES;
use crate::kernels::neon;
use crate::kernels::neon::attention_int8::{Products, add_scaled, load};
use core::arch::aarch64::*;

attention_int8!(AttentionSums, "neon,dotprod");

struct AttentionSums;

impl Int8Sums for AttentionSums {
    type Lanes = neon::lanes::NeonLanes;
    const INTERLEAVED: usize = 4;

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
        // SAFETY: instantiated only in the functions above, which have dotprod.
        unsafe { columns(block, outputs) }
    }
}

impl Products for AttentionSums {
    #[inline(always)]
    unsafe fn add_products(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { sdot_all(sums, a, b) }
    }
}

/// The high and the low limbs of a row's weights, four quads a register.
type Limbs = [[[i8; LANES]; BLOCK / LANES]; 2];

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn limbs(codes: &[i16; BLOCK]) -> Limbs {
    let mut limbs = [[[0; LANES]; BLOCK / LANES]; 2];
    let [high, low] = &mut limbs;
    for ((codes, high), low) in codes.as_chunks::<LANES>().0.iter().zip(high).zip(low) {
        // SAFETY: eight readable numbers.
        let first = unsafe { vld1q_s16(codes.as_ptr()) };
        // SAFETY: eight more.
        let second = unsafe { vld1q_s16(codes[8..].as_ptr()) };
        let bytes = vuzp1q_s8(vreinterpretq_s8_s16(first), vreinterpretq_s8_s16(second));
        let bytes = vandq_s8(bytes, vdupq_n_s8(127));
        // SAFETY: sixteen writable bytes.
        unsafe { vst1q_s8(low.as_mut_ptr(), bytes) };
        let bytes = vshrn_high_n_s16::<7>(vshrn_n_s16::<7>(first), second);
        // SAFETY: sixteen writable bytes.
        unsafe { vst1q_s8(high.as_mut_ptr(), bytes) };
    }
    limbs
}

/// As many columns at once as their sums fit the registers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn columns<const Q: usize>(block: &Block<'_, Q>, outputs: &mut [&mut [f32]; Q]) -> usize {
    let mut weights = [[[[0; LANES]; BLOCK / LANES]; 2]; Q];
    for (weights, codes) in weights.iter_mut().zip(&block.codes) {
        *weights = limbs(codes);
    }
    let (e, mut at) = (outputs[0].len(), 0);
    while Q == 1 && at + 32 <= e {
        add_columns::<Q, 8>(block, &weights, at, outputs);
        at += 32;
    }
    while Q <= 3 && at + 16 <= e {
        add_columns::<Q, 4>(block, &weights, at, outputs);
        at += 16;
    }
    while at + 8 <= e {
        add_columns::<Q, 2>(block, &weights, at, outputs);
        at += 8;
    }
    while at + 4 <= e {
        add_columns::<Q, 1>(block, &weights, at, outputs);
        at += 4;
    }
    at
}

/// Sums of `R` times four columns, for each row those with the high limbs and those with the low ones.
type Sums<const Q: usize, const R: usize> = [[[int32x4_t; R]; 2]; Q];

/// `R` times four columns from column `at` on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_columns<const Q: usize, const R: usize>(
    block: &Block<'_, Q>,
    weights: &[Limbs; Q],
    at: usize,
    outputs: &mut [&mut [f32]; Q],
) {
    let quad = 4 * outputs[0].len();
    let mut sums = [[[vdupq_n_s32(0); R]; 2]; Q];
    let values = &block.values[4 * at..];
    let quads = block.positions.div_ceil(4);
    let mut limbs = [[vdupq_n_s8(0); 2]; Q];
    for four in 0..quads / 4 {
        for (limbs, weights) in limbs.iter_mut().zip(weights) {
            *limbs = [load(&weights[0][four]), load(&weights[1][four])];
        }
        let values = &values[4 * four * quad..];
        add_quad::<Q, R, 0>(values, limbs, &mut sums);
        add_quad::<Q, R, 1>(&values[quad..], limbs, &mut sums);
        add_quad::<Q, R, 2>(&values[2 * quad..], limbs, &mut sums);
        add_quad::<Q, R, 3>(&values[3 * quad..], limbs, &mut sums);
    }
    for index in quads / 4 * 4..quads {
        for (limbs, [high, low]) in limbs.iter_mut().zip(weights) {
            *limbs = [lone_quad(high, index), lone_quad(low, index)];
        }
        add_quad::<Q, R, 0>(&values[index * quad..], limbs, &mut sums);
    }
    for ((sums, output), &unit) in sums.iter().zip(outputs).zip(&block.units) {
        let Some(output) = output[at..].as_chunks_mut().0.first_chunk_mut::<R>() else { return };
        for register in 0..R {
            let sums = vaddq_s32(vshlq_n_s32::<7>(sums[0][register]), sums[1][register]);
            add_scaled(sums, unit, &mut output[register]);
        }
    }
}

/// The weights of a quad as quad 0.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn lone_quad(limbs: &[[i8; LANES]; BLOCK / LANES], index: usize) -> int8x16_t {
    let quad = limbs.as_flattened().as_chunks::<4>().0[index];
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(quad.map(|limb| limb as u8))))
}

/// Adds the values of four positions times their weights, which are quad `QUAD` of the limbs.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_quad<const Q: usize, const R: usize, const QUAD: usize>(
    values: &[i8],
    limbs: [[int8x16_t; 2]; Q],
    sums: &mut Sums<Q, R>,
) {
    let Some(values) = values.as_chunks().0.first_chunk::<R>() else { return };
    for register in 0..R {
        let values = load(&values[register]);
        for (sums, limbs) in sums.iter_mut().zip(limbs) {
            sums[0][register] = sdot::<QUAD>(sums[0][register], values, limbs[0]);
            sums[1][register] = sdot::<QUAD>(sums[1][register], values, limbs[1]);
        }
    }
}
