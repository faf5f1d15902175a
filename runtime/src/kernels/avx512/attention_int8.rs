//! Attention over int8 codes: the sums of AVX2 with VPDPWSSD in place of two instructions, and for twice as many queries at once.

use super::lanes::Avx512Lanes;
use crate::kernels::attention_int8::{Block, Int8Sums, KEYS};
use crate::kernels::avx2::attention_int8::{self as sums, Products};
use crate::kernels::code_products::scores_in_chunks;
use crate::kernels::instantiate::attention_int8;
use core::arch::x86_64::{__m256i, _mm256_dpwssd_epi32};

attention_int8!(AttentionSums, "avx512f,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c");

struct AttentionSums;

impl Int8Sums for AttentionSums {
    type Lanes = Avx512Lanes;
    const INTERLEAVED: usize = sums::POSITIONS;

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
        // SAFETY: instantiated only in the functions above, which have VNNI and AVX2.
        unsafe { sums::columns::<Self, Q>(block, outputs) }
    }
}

impl Products for AttentionSums {
    #[inline(always)]
    unsafe fn add_pairs(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { add(sums, a, b) }
    }
}

#[inline]
#[target_feature(enable = "avx512vl,avx512vnni")]
fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
    _mm256_dpwssd_epi32(sums, a, b)
}
