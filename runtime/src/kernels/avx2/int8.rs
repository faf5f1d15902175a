//! 8-bit codes on AVX2.
//!
//! VPMADDUBSW multiplies unsigned by signed bytes: `|w| * (a with the sign of w) = w * a`. A pair is at most
//! 2 * 127 * 127 = 32258, which fits its int16, and is widened at once.

use super::step::steps;
use super::{add_step, load};
use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::scaled::{Step, Steps, WORDS};
use core::arch::x86_64::*;
use rescomp_formats::encodings::UNIT_ELEMS;

products! { "avx2,fma,f16c", "avx2":
    INT8 = "int8", Steps<Int8>, gemv_int8_avx2, gemm_int8_avx2;
}

struct Int8;

steps! { most_tokens: 4 }

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
    weights: [&[[Word; WORDS]]; TILES],
    weight_scales: [&[u16; TILE_ROWS]; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [f32; TOKENS],
    sums: &mut [[__m256; TOKENS]; TILES],
) {
    let units = if UNITS == 0 { weights[0].len() } else { UNITS };
    let ones = _mm256_set1_epi16(1);
    let mut integers = [[_mm256_setzero_si256(); TOKENS]; TILES];
    for unit in 0..units {
        for word in 0..WORDS {
            for tile in 0..TILES {
                // SAFETY: has AVX2.
                let codes = unsafe { load(&weights[tile][unit][word]) };
                let magnitudes = _mm256_abs_epi8(codes);
                for token in 0..TOKENS {
                    let (quads, _) = activations[token][unit].as_chunks::<4>();
                    let quad = i32::from_le_bytes(quads[word].map(|code| code as u8));
                    let signed = _mm256_sign_epi8(_mm256_set1_epi32(quad), codes);
                    let quads = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, signed), ones);
                    integers[tile][token] = _mm256_add_epi32(integers[tile][token], quads);
                }
            }
        }
    }
    for token in 0..TOKENS {
        for tile in 0..TILES {
            sums[tile][token] = add_step(
                integers[tile][token],
                weight_scales[tile],
                activation_scales[token],
                sums[tile][token],
            );
        }
    }
}
