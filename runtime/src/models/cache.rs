//! What keys and values are kept as: binary16 on devices, f32 where the full-precision model runs.

use crate::kernels::{Attention, Kernels};
use bytemuck::Pod;

/// The largest binary16 number. Larger keys and values are kept as this one, so that none is infinite.
const LARGEST_F16: f32 = 65504.0;

/// A number of the cache.
pub trait CacheElem: Pod + Send + Sync {
    /// The nearest number, ties to even.
    fn from_f32(value: f32) -> Self;
    /// Attention over such numbers.
    fn attention(kernels: &Kernels) -> Attention<Self>;
}

impl CacheElem for f32 {
    fn from_f32(value: f32) -> f32 {
        value
    }
    fn attention(kernels: &Kernels) -> Attention<f32> {
        kernels.attention_f32
    }
}

/// The bits of a binary16 number.
impl CacheElem for u16 {
    fn from_f32(value: f32) -> u16 {
        half::f16::from_f32(value.clamp(-LARGEST_F16, LARGEST_F16)).to_bits()
    }
    fn attention(kernels: &Kernels) -> Attention<u16> {
        kernels.attention_f16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_the_nearest_and_finite() {
        for (value, kept) in [
            (0.0, 0.0),
            (1.0, 1.0),
            // Halfway between 1 and the next number: the even one.
            (1.0 + 1.0 / 2048.0, 1.0),
            (1.0 + 3.0 / 2048.0, 1.0 + 2.0 / 1024.0),
            (-65504.0, -65504.0),
            (1e9, 65504.0),
            (f32::NEG_INFINITY, -65504.0),
            (1e-9, 0.0),
        ] {
            assert_eq!(half::f16::from_bits(u16::from_f32(value)).to_f32(), kept, "{value}");
            assert_eq!(f32::from_f32(value).to_bits(), value.to_bits());
        }
    }
}
