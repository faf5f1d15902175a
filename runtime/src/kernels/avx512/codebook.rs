//! 2 to 6 bits on AVX-512 VNNI.
//!
//! VPDPBUSD multiplies unsigned by signed bytes and adds four products to an int32, exactly.

use crate::kernels::TILE_ROWS;
use crate::kernels::avx2::block::blocks;
use crate::kernels::avx2::load;
use crate::kernels::avx2::lookup::{self, Tables, add_group, bound, quad, quads};
use crate::kernels::instantiate::products;
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{BLOCK_STEPS, Block, Blocks, STEP_UNITS, ScaleCodes};
use core::arch::x86_64::*;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::matrix::TABLE_ENTRIES;

products! { "avx512f,avx512vl,avx512vnni,avx2,fma,f16c", "avx512":
    INT2 = "int2", Blocks<Codebook, 2>, gemv_int2_avx512, gemm_int2_avx512;
    INT3 = "int3", Blocks<Codebook, 3>, gemv_int3_avx512, gemm_int3_avx512;
    INT4 = "int4", Blocks<Codebook, 4>, gemv_int4_avx512, gemm_int4_avx512;
    INT5 = "int5", Blocks<Codebook, 5>, gemv_int5_avx512, gemm_int5_avx512;
    INT6 = "int6", Blocks<Codebook, 6>, gemv_int6_avx512, gemm_int6_avx512;
}

struct Codebook;

blocks! { "avx512f,avx512vl,avx512vnni,avx2,fma,f16c", most_tokens: 8 }

#[inline]
#[target_feature(enable = "avx512vl,avx512vnni")]
fn add_quads<const WORDS: usize, const TOKENS: usize>(
    sums: __m256i,
    levels: [__m256i; 8],
    activations: &[i8; UNIT_ELEMS],
) -> __m256i {
    let (with, _) = activations.as_chunks();
    if TOKENS > 2 {
        let mut sums = sums;
        for at in 0..8 {
            sums = _mm256_dpbusd_epi32(sums, levels[at], quad(with[at]));
        }
        return sums;
    }
    // Few tokens make few chains, and each VPDPBUSD of one waits four or five cycles for the one before.
    let mut chains = [_mm256_setzero_si256(); 2];
    for at in 0..8 {
        chains[at % 2] = _mm256_dpbusd_epi32(chains[at % 2], levels[at], quad(with[at]));
    }
    _mm256_add_epi32(sums, _mm256_add_epi32(chains[0], chains[1]))
}

#[inline]
#[target_feature(enable = "avx512vl,avx512vnni")]
fn add_offset<const WORDS: usize>(sums: __m256i, activations: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(sums, _mm256_set1_epi8(bound::<WORDS>()), activations)
}
