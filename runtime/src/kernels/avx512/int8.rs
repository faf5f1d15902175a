//! 8-bit codes on AVX-512 VNNI.
//!
//! VPDPBUSD multiplies unsigned by signed bytes: codes plus 128, and `128 * sum(activations)` is taken off at the end of a step.

use crate::kernels::TILE_ROWS;
use crate::kernels::avx2::lookup::{quad, sum_in_every_lane};
use crate::kernels::avx2::step::steps;
use crate::kernels::avx2::{add_step, load};
use crate::kernels::instantiate::products;
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::scaled::{Step, Steps, WORDS};
use core::arch::x86_64::*;
use rescomp_formats::encodings::UNIT_ELEMS;

products! { "avx512f,avx512vl,avx512vnni,avx2,fma,f16c", "avx512":
    INT8 = "int8", Steps<Int8>, gemv_int8_avx512, gemm_int8_avx512;
}

struct Int8;

steps! { most_tokens: 8 }

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
    weights: [&[[Word; WORDS]]; TILES],
    weight_scales: [&[u16; TILE_ROWS]; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [f32; TOKENS],
    sums: &mut [[__m256; TOKENS]; TILES],
) {
    let units = if UNITS == 0 { weights[0].len() } else { UNITS };
    let half_range = _mm256_set1_epi8(-128);
    let mut integers = [[_mm256_setzero_si256(); TOKENS]; TILES];
    let mut offsets = [_mm256_setzero_si256(); TOKENS];
    for unit in 0..units {
        for token in 0..TOKENS {
            // SAFETY: has AVX2.
            let codes = unsafe { load(&activations[token][unit]) };
            offsets[token] = _mm256_dpbusd_epi32(offsets[token], half_range, codes);
        }
        for word in 0..WORDS {
            for tile in 0..TILES {
                // SAFETY: has AVX2.
                let codes = unsafe { load(&weights[tile][unit][word]) };
                let shifted = _mm256_xor_si256(codes, half_range);
                for token in 0..TOKENS {
                    let (quads, _) = activations[token][unit].as_chunks::<4>();
                    integers[tile][token] =
                        _mm256_dpbusd_epi32(integers[tile][token], shifted, quad(quads[word]));
                }
            }
        }
    }
    for token in 0..TOKENS {
        let offset = sum_in_every_lane(offsets[token]);
        for tile in 0..TILES {
            let exact = _mm256_sub_epi32(integers[tile][token], offset);
            sums[tile][token] =
                add_step(exact, weight_scales[tile], activation_scales[token], sums[tile][token]);
        }
    }
}
