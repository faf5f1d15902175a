//! The keys and values of a layer, and what they are kept as: binary16 on devices, f32 where the full-precision model runs.

use crate::kernels::{Attention, Kernels};
use bytemuck::Pod;
use rescomp_formats::spec::ModelSpec;

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

/// Keys and values of one layer, for every sequence: `sequences x g x c x e` each.
#[derive(Debug)]
pub struct LayerCache<'a, S> {
    /// Keys, already rotated.
    pub keys: &'a mut [S],
    /// Values.
    pub values: &'a mut [S],
}

/// Elements of the keys (and of the values) of one layer and one sequence.
pub fn cache_elems(spec: &ModelSpec, context: usize) -> u64 {
    (spec.kv_width() as u64).saturating_mul(context as u64)
}
