//! 2 to 6 bits on AVX2.
//!
//! VPMADDUBSW multiplies unsigned by signed bytes and adds pairs in int16. A pair is at most 2 * 126 * 127 = 32004 at 4 and 6 bits, which
//! fits its int16 and is widened at once, and 2 * 62 * 127 = 15748 at 2, 3 and 5 bits, two of which fit.

use super::block::blocks;
use super::load;
use super::lookup::{self, Tables, add_group, bound, quad, quads};
use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{BLOCK_STEPS, Block, Blocks, STEP_UNITS, ScaleCodes};
use core::arch::x86_64::*;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::matrix::TABLE_ENTRIES;

products! { "avx2,fma,f16c", "avx2":
    INT2 = "int2", Blocks<Codebook, 2>, gemv_int2_avx2, gemm_int2_avx2;
    INT3 = "int3", Blocks<Codebook, 3>, gemv_int3_avx2, gemm_int3_avx2;
    INT4 = "int4", Blocks<Codebook, 4>, gemv_int4_avx2, gemm_int4_avx2;
    INT5 = "int5", Blocks<Codebook, 5>, gemv_int5_avx2, gemm_int5_avx2;
    INT6 = "int6", Blocks<Codebook, 6>, gemv_int6_avx2, gemm_int6_avx2;
}

struct Codebook;

blocks! { "avx2,fma", most_tokens: 4 }

#[inline]
#[target_feature(enable = "avx2")]
fn add_quads<const WORDS: usize, const TOKENS: usize>(
    mut sums: __m256i,
    levels: [__m256i; 8],
    activations: &[i8; UNIT_ELEMS],
) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let (with, _) = activations.as_chunks();
    for pair in 0..4 {
        let even = _mm256_maddubs_epi16(levels[2 * pair], quad(with[2 * pair]));
        let odd = _mm256_maddubs_epi16(levels[2 * pair + 1], quad(with[2 * pair + 1]));
        if bound::<WORDS>() > 31 {
            // Two pairs don't fit.
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, ones));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(odd, ones));
        } else {
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_add_epi16(even, odd), ones));
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_offset<const WORDS: usize>(sums: __m256i, activations: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(bound::<WORDS>()), activations);
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}
