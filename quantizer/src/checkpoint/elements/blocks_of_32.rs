//! Blocks of 32 elements with a scale `d`, and an offset `m` in some, both binary16:
//!
//! ```text
//! Q8_0: d, 32 bytes                    element i = d * signed byte i
//! Q4_0: d, 16 bytes                    element i = d * (nibble i - 8)
//! Q4_1: d, m, 16 bytes                 element i = d * nibble i + m
//! Q5_0: d, u32 of high bits, 16 bytes  element i = d * (nibble i + 16 * bit i - 16)
//! Q5_1: d, m, u32, 16 bytes            element i = d * (nibble i + 16 * bit i) + m
//! ```
//!
//! Nibble `i` is the lower half of byte `i` for the first 16 elements, the upper half of byte `i - 16` for the others.

use super::floats::binary16;

pub(super) const ELEMENTS: usize = 32;
pub(super) const Q8_0_BYTES: usize = 2 + 32;
pub(super) const Q4_0_BYTES: usize = 2 + 16;
pub(super) const Q4_1_BYTES: usize = 4 + 16;
pub(super) const Q5_0_BYTES: usize = 2 + 4 + 16;
pub(super) const Q5_1_BYTES: usize = 4 + 4 + 16;

/// Every whole block of `BYTES` bytes.
pub(super) fn widen<const BYTES: usize>(
    bytes: &[u8],
    block: impl Fn(&[u8; BYTES]) -> [f32; ELEMENTS],
) -> Vec<f32> {
    bytes.as_chunks::<BYTES>().0.iter().flat_map(block).collect()
}

pub(super) fn q8_0(&[d0, d1, ref quants @ ..]: &[u8; Q8_0_BYTES]) -> [f32; ELEMENTS] {
    let scale = binary16([d0, d1]);
    quants.map(|quant| scale * f32::from(quant.cast_signed()))
}

pub(super) fn q4_0(&[d0, d1, ref quants @ ..]: &[u8; Q4_0_BYTES]) -> [f32; ELEMENTS] {
    let scale = binary16([d0, d1]);
    nibbles(quants).map(|nibble| scale * (f32::from(nibble) - 8.0))
}

pub(super) fn q4_1(&[d0, d1, m0, m1, ref quants @ ..]: &[u8; Q4_1_BYTES]) -> [f32; ELEMENTS] {
    let (scale, offset) = (binary16([d0, d1]), binary16([m0, m1]));
    nibbles(quants).map(|nibble| scale * f32::from(nibble) + offset)
}

pub(super) fn q5_0(&[d0, d1, h0, h1, h2, h3, ref quants @ ..]: &[u8; Q5_0_BYTES]) -> [f32; ELEMENTS] {
    let scale = binary16([d0, d1]);
    with_high_bits(nibbles(quants), [h0, h1, h2, h3]).map(|quant| scale * (f32::from(quant) - 16.0))
}

pub(super) fn q5_1(&[d0, d1, m0, m1, h0, h1, h2, h3, ref quants @ ..]: &[u8; Q5_1_BYTES]) -> [f32; ELEMENTS] {
    let (scale, offset) = (binary16([d0, d1]), binary16([m0, m1]));
    with_high_bits(nibbles(quants), [h0, h1, h2, h3]).map(|quant| scale * f32::from(quant) + offset)
}

fn nibbles(bytes: &[u8; 16]) -> [u8; ELEMENTS] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

fn with_high_bits(nibbles: [u8; ELEMENTS], bits: [u8; 4]) -> [u8; ELEMENTS] {
    let bits = u32::from_le_bytes(bits);
    std::array::from_fn(|i| nibbles[i] | if (bits >> i) & 1 == 1 { 16 } else { 0 })
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::ElementType;
    use super::ELEMENTS;

    fn half(value: f32) -> [u8; 2] {
        f16::from_f32(value).to_le_bytes()
    }

    /// Lower halves count up, upper halves down: no two elements at mirrored places are alike.
    fn packed() -> [u8; 16] {
        std::array::from_fn(|i| (i | ((15 - i) << 4)) as u8)
    }

    fn numbers() -> [i32; ELEMENTS] {
        std::array::from_fn(|i| if i < 16 { i as i32 } else { 31 - i as i32 })
    }

    fn assert_elements(element: ElementType, block: &[u8], expected: impl Fn(usize) -> f32) {
        let expected: Vec<f32> = (0..ELEMENTS).map(expected).collect();
        assert_eq!(element.widen(block), expected, "{}", element.name());
        // A second block stands on its own.
        let twice = element.widen(&[block, block].concat());
        assert_eq!(twice, [expected.as_slice(), &expected].concat());
    }

    #[test]
    fn signed_bytes() {
        let bytes: [u8; 32] = std::array::from_fn(|i| (i as i32 * 8 - 128).cast_unsigned() as u8);
        let block = [half(0.25).as_slice(), &bytes].concat();
        assert_elements(ElementType::Q8_0, &block, |i| 0.25 * (i as f32 * 8.0 - 128.0));
    }

    #[test]
    fn four_bits() {
        let block = [half(0.5).as_slice(), &packed()].concat();
        assert_elements(ElementType::Q4_0, &block, |i| 0.5 * (numbers()[i] - 8) as f32);
        let block = [half(0.5).as_slice(), &half(-3.0), &packed()].concat();
        assert_elements(ElementType::Q4_1, &block, |i| 0.5 * numbers()[i] as f32 - 3.0);
    }

    #[test]
    fn five_bits() {
        // The high bit of elements 0, 3, 17 and 31.
        let bits = (1_u32 | 1 << 3 | 1 << 17 | 1 << 31).to_le_bytes();
        let number = |i: usize| numbers()[i] + if [0, 3, 17, 31].contains(&i) { 16 } else { 0 };
        let block = [half(-0.5).as_slice(), &bits, &packed()].concat();
        assert_elements(ElementType::Q5_0, &block, |i| -0.5 * (number(i) - 16) as f32);
        let block = [half(0.5).as_slice(), &half(-8.0), &bits, &packed()].concat();
        assert_elements(ElementType::Q5_1, &block, |i| 0.5 * number(i) as f32 - 8.0);
    }
}
