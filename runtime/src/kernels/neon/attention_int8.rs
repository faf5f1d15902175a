//! Attention over int8 codes on NEON without dotprod.

use super::lanes::NeonLanes;
use crate::kernels::attention_int8::Int8Sums;
use crate::kernels::instantiate::attention_int8;

attention_int8!(AttentionSums, "neon");

struct AttentionSums;

impl Int8Sums for AttentionSums {
    type Lanes = NeonLanes;
}
