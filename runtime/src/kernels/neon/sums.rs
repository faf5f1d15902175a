//! Eight row sums in two registers, for NEON with and without dotprod.
//!
//! Every function here is for a processor with NEON and is called from functions compiled for it.

use crate::kernels::TILE_ROWS;
use crate::kernels::nr8k4::pairs::PairRows;
use core::arch::aarch64::*;
use core::arch::asm;

/// Rows 0 to 3 and 4 to 7 of a tile.
pub(in crate::kernels) type Sums = [float32x4_t; 2];

#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn zero() -> Sums {
    [vdupq_n_f32(0.0); 2]
}

#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn rows(sums: Sums) -> [f32; TILE_ROWS] {
    let mut rows = [0.0; TILE_ROWS];
    let (halves, _) = rows.as_chunks_mut::<4>();
    for (half, sums) in halves.iter_mut().zip(sums) {
        // SAFETY: four writable values.
        unsafe { vst1q_f32(half.as_mut_ptr(), sums) };
    }
    rows
}

/// Puts the outputs of two tiles in their place.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn put([a, b, c, d]: [float32x4_t; 4], place: &mut PairRows) {
    // SAFETY: sixteen writable values. In assembly, since the compiler would choose anew between two places for each store.
    unsafe {
        asm!(
            "stp {a:q}, {b:q}, [{place}]",
            "stp {c:q}, {d:q}, [{place}, #32]",
            place = in(reg) place,
            a = in(vreg) a,
            b = in(vreg) b,
            c = in(vreg) c,
            d = in(vreg) d,
            options(nostack, preserves_flags),
        );
    }
}

/// The scales of a tile's rows.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn widened(values: &[u16; TILE_ROWS]) -> Sums {
    // SAFETY: eight readable values.
    let halves = vreinterpretq_f16_u16(unsafe { vld1q_u16(values.as_ptr()) });
    [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
}

/// `sums * (row_scales * unit)`, by row.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn scaled(sums: Sums, row_scales: &[u16; TILE_ROWS], unit: f32) -> Sums {
    let [low, high] = widened(row_scales);
    [vmulq_f32(sums[0], vmulq_n_f32(low, unit)), vmulq_f32(sums[1], vmulq_n_f32(high, unit))]
}

/// [`scaled`], in memory.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn scaled_rows(
    sums: Sums,
    row_scales: &[u16; TILE_ROWS],
    unit: f32,
) -> [f32; TILE_ROWS] {
    rows(scaled(sums, row_scales, unit))
}

/// `fma(f32(totals), activation_scale, sums)`.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn add_total(sums: Sums, totals: [int32x4_t; 2], activation_scale: f32) -> Sums {
    [
        vfmaq_n_f32(sums[0], vcvtq_f32_s32(totals[0]), activation_scale),
        vfmaq_n_f32(sums[1], vcvtq_f32_s32(totals[1]), activation_scale),
    ]
}

/// `fma(integers, weight_scales * activation_scale, sums)`, the integers as `f32` already.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn add_step(
    sums: Sums,
    integers: [float32x4_t; 2],
    scales: Sums,
    activation_scale: f32,
) -> Sums {
    [
        vfmaq_f32(sums[0], integers[0], vmulq_n_f32(scales[0], activation_scale)),
        vfmaq_f32(sums[1], integers[1], vmulq_n_f32(scales[1], activation_scale)),
    ]
}

/// Loads 16 bytes of a word of weights (`half` 0 or 1: rows 0 to 3 or 4 to 7) or of activations.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn load_weights(word: &[u8; 32], half: usize) -> int8x16_t {
    let (halves, _) = word.as_chunks::<16>();
    // SAFETY: 16 readable bytes.
    vreinterpretq_s8_u8(unsafe { vld1q_u8(halves[half].as_ptr()) })
}

/// The activations of a unit: quads 0 to 3 and 4 to 7.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn load_activations(codes: &[i8; 32]) -> [int8x16_t; 2] {
    let (halves, _) = codes.as_chunks::<16>();
    [
        // SAFETY: 16 readable bytes.
        unsafe { vld1q_s8(halves[0].as_ptr()) },
        // SAFETY: likewise.
        unsafe { vld1q_s8(halves[1].as_ptr()) },
    ]
}
