//! What keys and values are kept as: binary16 on devices, f32 where the full-precision model runs.

use crate::kernels::{Attention, Kernels};
use bytemuck::Pod;

/// A number of the cache.
pub trait CacheElem: Pod + Send + Sync {
    /// Attention over such numbers.
    fn attention(kernels: &Kernels) -> Attention<Self>;
}

impl CacheElem for f32 {
    fn attention(kernels: &Kernels) -> Attention<f32> {
        kernels.attention_f32
    }
}

/// The bits of a binary16 number.
impl CacheElem for u16 {
    fn attention(kernels: &Kernels) -> Attention<u16> {
        kernels.attention_f16
    }
}
