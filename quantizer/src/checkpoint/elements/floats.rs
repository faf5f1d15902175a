//! Floats, little-endian, one by one.

use half::{bf16, f16};

/// Every whole element of `BYTES` bytes.
pub(super) fn widen<const BYTES: usize>(bytes: &[u8], element: impl Fn([u8; BYTES]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<BYTES>().0.iter().map(|&bytes| element(bytes)).collect()
}

pub(super) fn binary16(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

pub(super) fn brain16(bytes: [u8; 2]) -> f32 {
    bf16::from_le_bytes(bytes).to_f32()
}

#[cfg(test)]
mod tests {
    use super::super::ElementType;

    #[test]
    fn floats_are_exact() {
        let of = |element: ElementType, bytes: &[u8]| element.widen(bytes);
        assert_eq!(of(ElementType::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]), [1.0, -2.0]);
        assert_eq!(of(ElementType::F16, &[0, 0x3c, 1, 0]), [1.0, 2_f32.powi(-24)]);
        assert_eq!(of(ElementType::Bf16, &[0x80, 0x3f, 0x40, 0xc0]), [1.0, -3.0]);
    }
}
