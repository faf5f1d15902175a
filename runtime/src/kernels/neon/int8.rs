//! 8-bit codes on NEON without dotprod.
//!
//! SMULL and SMLAL make two products in int16: at most 2 * 127 * 127 = 32258, which fits, a third wouldn't. SADALP widens them.

use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::neon::sums::{self, Sums};
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::scaled::{Step, Steps, WORDS};
use core::arch::aarch64::*;
use rescomp_formats::encodings::UNIT_ELEMS;

products! { "neon", "neon":
    INT8 = "int8", Steps<Int8>, gemv_int8_neon, gemm_int8_neon;
}

struct Int8;

impl Step for Int8 {
    const MOST_TOKENS: usize = 2;
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
        weights: [&[[Word; WORDS]]; TILES],
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
    weights: [&[[Word; WORDS]]; TILES],
    weight_scales: [&[u16; TILE_ROWS]; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [f32; TOKENS],
    sums: &mut [[Sums; TOKENS]; TILES],
) {
    let units = if UNITS == 0 { weights[0].len() } else { UNITS };
    // By tile, token and half: rows 0 and 1 of the half, then 2 and 3, two sums each.
    let mut integers = [[[[vdupq_n_s32(0); 2]; 2]; TOKENS]; TILES];
    for unit in 0..units {
        let mut codes = [[vdupq_n_s8(0); 2]; TOKENS];
        for token in 0..TOKENS {
            codes[token] = sums::load_activations(&activations[token][unit]);
        }
        let mut quads = [[vdupq_n_s8(0); 2]; TOKENS];
        for pair in 0..WORDS / 2 {
            for token in 0..TOKENS {
                let codes = codes[token][pair / 2];
                quads[token] = [quad(codes, pair % 2 * 2), quad(codes, pair % 2 * 2 + 1)];
            }
            for tile in 0..TILES {
                for half in 0..2 {
                    let even = sums::load_weights(&weights[tile][unit][2 * pair], half);
                    let odd = sums::load_weights(&weights[tile][unit][2 * pair + 1], half);
                    for token in 0..TOKENS {
                        let [with_even, with_odd] = quads[token];
                        let first = vmull_s8(vget_low_s8(even), vget_low_s8(with_even));
                        let first = vmlal_s8(first, vget_low_s8(odd), vget_low_s8(with_odd));
                        let second = vmlal_high_s8(vmull_high_s8(even, with_even), odd, with_odd);
                        let integers = &mut integers[tile][token][half];
                        integers[0] = vpadalq_s16(integers[0], first);
                        integers[1] = vpadalq_s16(integers[1], second);
                    }
                }
            }
        }
    }
    for tile in 0..TILES {
        let scales = sums::widened(weight_scales[tile]);
        for token in 0..TOKENS {
            let [[a, b], [c, d]] = integers[tile][token];
            let integers = [vcvtq_f32_s32(vpaddq_s32(a, b)), vcvtq_f32_s32(vpaddq_s32(c, d))];
            sums[tile][token] = sums::add_step(sums[tile][token], integers, scales, activation_scales[token]);
        }
    }
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
