//! 4-bit codes on NEON without dotprod.
//!
//! SMLAL adds products to int16. A lane (a row, and a column modulo four) takes one product a quad; at most 8 * 127 each, the
//! 32 of the longest step make 32512, which fits. So nothing is widened before the end of a step.

use crate::kernels::neon::sums::{self, Sums};
use crate::kernels::nr8k4::{self, Step, Word};
use crate::kernels::{Activations, OutputRows, TILE_ROWS};
use core::arch::aarch64::*;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

const UNIT_WORDS: usize = 4;

pub(super) fn gemv(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
    unsafe { gemv_int4_neon(m, a, tiles, output) }
}

pub(super) fn gemm(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
    unsafe { gemm_int4_neon(m, a, tiles, output) }
}

#[inline(never)]
#[target_feature(enable = "neon")]
fn gemv_int4_neon(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
    nr8k4::gemv::<Int4, UNIT_WORDS>(m, a, tiles, output);
}

#[inline(never)]
#[target_feature(enable = "neon")]
fn gemm_int4_neon(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
    nr8k4::gemm::<Int4, UNIT_WORDS>(m, a, tiles, output);
}

struct Int4;

impl Step<UNIT_WORDS> for Int4 {
    const WIDTH: CodeWidth = CodeWidth::Int4;
    type Sums = Sums;

    #[inline(always)]
    fn zero() -> Sums {
        // SAFETY: instantiated only in the functions above, which have NEON.
        unsafe { sums::zero() }
    }

    #[inline(always)]
    fn rows(sums: Sums) -> [f32; TILE_ROWS] {
        // SAFETY: instantiated only in the functions above, which have NEON.
        unsafe { sums::rows(sums) }
    }

    #[inline(always)]
    fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
        weights: [&[[Word; UNIT_WORDS]]; TILES],
        weight_scales: [&[u16; TILE_ROWS]; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [f32; TOKENS],
        sums: &mut [[Sums; TOKENS]; TILES],
    ) {
        // SAFETY: instantiated only in the functions above, which have NEON.
        unsafe { add::<TILES, TOKENS, UNITS>(weights, weight_scales, activations, activation_scales, sums) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
    weights: [&[[Word; UNIT_WORDS]]; TILES],
    weight_scales: [&[u16; TILE_ROWS]; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [f32; TOKENS],
    sums: &mut [[Sums; TOKENS]; TILES],
) {
    let units = if UNITS == 0 { weights[0].len() } else { UNITS };
    // By tile, token and half: rows 0 and 1 of the half, then 2 and 3, four columns each.
    let mut products = [[[[vdupq_n_s16(0); 2]; 2]; TOKENS]; TILES];
    for unit in 0..units {
        let mut codes = [[vdupq_n_s8(0); 2]; TOKENS];
        for token in 0..TOKENS {
            codes[token] = sums::load_activations(&activations[token][unit]);
        }
        let mut quads = [[vdupq_n_s8(0); 2]; TOKENS];
        for word in 0..UNIT_WORDS {
            for token in 0..TOKENS {
                quads[token] = [quad(codes[token][0], word), quad(codes[token][1], word)];
            }
            for tile in 0..TILES {
                for half in 0..2 {
                    let both = sums::load_weights(&weights[tile][unit][word], half);
                    let low = vshrq_n_s8::<4>(vshlq_n_s8::<4>(both));
                    let high = vshrq_n_s8::<4>(both);
                    for token in 0..TOKENS {
                        let [first, second] = &mut products[tile][token][half];
                        *first = vmlal_s8(*first, vget_low_s8(low), vget_low_s8(quads[token][0]));
                        *second = vmlal_high_s8(*second, low, quads[token][0]);
                        *first = vmlal_s8(*first, vget_low_s8(high), vget_low_s8(quads[token][1]));
                        *second = vmlal_high_s8(*second, high, quads[token][1]);
                    }
                }
            }
        }
    }
    for tile in 0..TILES {
        let scales = sums::scales(weight_scales[tile]);
        for token in 0..TOKENS {
            let [low, high] = products[tile][token];
            let integers = [rows_of_half(low), rows_of_half(high)];
            sums[tile][token] = sums::add_step(sums[tile][token], integers, scales, activation_scales[token]);
        }
    }
}

/// Sums each row's four columns.
#[inline]
#[target_feature(enable = "neon")]
fn rows_of_half([first, second]: [int16x8_t; 2]) -> float32x4_t {
    vcvtq_f32_s32(vpaddq_s32(vpaddlq_s16(first), vpaddlq_s16(second)))
}

/// Four activations (quad 0 to 3 of a register) beside each of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn quad(codes: int8x16_t, index: usize) -> int8x16_t {
    let quads = vreinterpretq_s32_s8(codes);
    // The index is a constant once the loop around this is unrolled.
    vreinterpretq_s8_s32(match index {
        0 => vdupq_laneq_s32::<0>(quads),
        1 => vdupq_laneq_s32::<1>(quads),
        2 => vdupq_laneq_s32::<2>(quads),
        _ => vdupq_laneq_s32::<3>(quads),
    })
}
