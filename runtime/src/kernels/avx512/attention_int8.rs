//! Attention over int8 codes: the sums of AVX2 with the float operations of AVX-512.

use super::lanes::Avx512Lanes;
use crate::kernels::attention_int8::{Block, Int8Sums, KEYS};
use crate::kernels::avx2::attention_int8 as sums;
use crate::kernels::instantiate::attention_int8;

attention_int8!(AttentionSums, "avx512f,avx512dq,avx2,fma,f16c");

struct AttentionSums;

impl Int8Sums for AttentionSums {
    type Lanes = Avx512Lanes;
    const INTERLEAVED: usize = sums::POSITIONS;
    const TOGETHER: usize = sums::ROWS;

    #[inline(always)]
    fn scores<const Q: usize, const N: usize>(
        queries: [&[i8]; Q],
        factors: [f32; Q],
        keys: [&[i8]; KEYS],
        key_scales: &[f32; KEYS],
    ) -> [[f32; KEYS]; Q] {
        // SAFETY: instantiated only in the functions above, which have AVX2 too.
        unsafe { sums::scores::<Q, N>(queries, factors, keys, key_scales) }
    }

    #[inline(always)]
    fn columns<const Q: usize>(block: &Block<'_, Q>, outputs: &mut [&mut [f32]; Q]) -> usize {
        // SAFETY: instantiated only in the functions above, which have AVX2 too.
        unsafe { sums::columns(block, outputs) }
    }
}
