//! Attention over int8 codes on AVX2.

use super::lanes::Avx2Lanes;
use crate::kernels::attention_int8::Int8Sums;
use crate::kernels::instantiate::attention_int8;

attention_int8!(AttentionSums, "avx2,fma,f16c");

struct AttentionSums;

impl Int8Sums for AttentionSums {
    type Lanes = Avx2Lanes;
}
