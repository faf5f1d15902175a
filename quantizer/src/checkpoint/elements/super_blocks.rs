//! Blocks of 256 elements whose parts have scales of their own, quantized under a binary16 for the block:
//!
//! ```text
//! Q4_K: d, m, 12 bytes of scales, 128 bytes            element i = (d * scale) * number i - (m * offset)
//! Q5_K: d, m, 12 bytes of scales, 32 bytes, 128 bytes  of part i / 32, eight of each, 6 bits
//! Q6_K: 128 bytes, 64 bytes, 16 scales, d              element i = (d * scale) * (number i - 32)
//!                                                      of part i / 16, signed bytes
//! ```
//!
//! The low four bits of Q4_K and Q5_K come in runs of 32 bytes: run `r` holds elements `64 r ..` in its lower halves and
//! `64 r + 32 ..` in its upper halves. The fifth bit of element `i` is bit `i / 32` of byte `i % 32`.
//!
//! Q6_K has two halves of 128 elements. Of 64 bytes of low bits in each, the lower halves are elements `0..64` and the upper
//! halves `64..128`; the high two bits of element `i` are bits `2 (i / 32) ..` of byte `i % 32` of that half's 32.

use super::floats::binary16;

pub(super) const ELEMENTS: usize = 256;
const SCALE_BYTES: usize = 12;
pub(super) const Q4K_BYTES: usize = 4 + SCALE_BYTES + ELEMENTS / 2;
pub(super) const Q5K_BYTES: usize = 4 + SCALE_BYTES + ELEMENTS / 8 + ELEMENTS / 2;
pub(super) const Q6K_BYTES: usize = ELEMENTS / 2 + ELEMENTS / 4 + ELEMENTS / 16 + 2;

/// Every whole block of `BYTES` bytes.
pub(super) fn widen<const BYTES: usize>(
    bytes: &[u8],
    block: impl Fn(&[u8; BYTES]) -> [f32; ELEMENTS],
) -> Vec<f32> {
    bytes.as_chunks::<BYTES>().0.iter().flat_map(block).collect()
}

pub(super) fn q4_k(block: &[u8; Q4K_BYTES]) -> [f32; ELEMENTS] {
    let (head, low) = block.split_at(4 + SCALE_BYTES);
    with_offsets(head, |i| low_bits(low, i))
}

pub(super) fn q5_k(block: &[u8; Q5K_BYTES]) -> [f32; ELEMENTS] {
    let (head, numbers) = block.split_at(4 + SCALE_BYTES);
    let (fifth, low) = numbers.split_at(ELEMENTS / 8);
    with_offsets(head, |i| low_bits(low, i) | (((fifth[i % 32] >> (i / 32)) & 1) << 4))
}

pub(super) fn q6_k(block: &[u8; Q6K_BYTES]) -> [f32; ELEMENTS] {
    let (low, rest) = block.split_at(ELEMENTS / 2);
    let (high, rest) = rest.split_at(ELEMENTS / 4);
    let scale = binary16([rest[16], rest[17]]);
    std::array::from_fn(|i| {
        let (half, within) = (i / 128, i % 128);
        let low = low[half * 64 + within % 64] >> (4 * (within / 64));
        let high = high[half * 32 + within % 32] >> (2 * (within / 32));
        let number = (low & 15) | ((high & 3) << 4);
        scale * f32::from(rest[i / 16].cast_signed()) * (f32::from(number) - 32.0)
    })
}

fn low_bits(bytes: &[u8], i: usize) -> u8 {
    let byte = bytes[i / 64 * 32 + i % 32];
    if i % 64 < 32 { byte & 15 } else { byte >> 4 }
}

/// `head` is the two binary16 numbers and the twelve bytes of scales and offsets.
fn with_offsets(head: &[u8], number: impl Fn(usize) -> u8) -> [f32; ELEMENTS] {
    let (scale, offset) = (binary16([head[0], head[1]]), binary16([head[2], head[3]]));
    let parts: [(f32, f32); 8] = std::array::from_fn(|part| {
        let (of_scale, of_offset) = scale_and_offset(&head[4..], part);
        (scale * f32::from(of_scale), offset * f32::from(of_offset))
    });
    std::array::from_fn(|i| {
        let (scale, offset) = parts[i / 32];
        scale * f32::from(number(i)) - offset
    })
}

/// Eight scales and eight offsets of 6 bits in 12 bytes. Bytes `0..4` and `4..8` hold the first four of each in their low 6
/// bits; the last four have their low 4 bits in bytes `8..12`, scale below offset, and their high 2 bits above those of
/// the first four.
fn scale_and_offset(bytes: &[u8], part: usize) -> (u8, u8) {
    match part.checked_sub(4) {
        None => (bytes[part] & 63, bytes[part + 4] & 63),
        Some(part) => {
            let low = bytes[part + 8];
            ((low & 15) | (bytes[part] >> 6 << 4), (low >> 4) | (bytes[part + 4] >> 6 << 4))
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::ElementType;
    use super::*;

    const SCALES: [u8; 8] = [1, 63, 32, 7, 16, 63, 33, 48];
    const OFFSETS: [u8; 8] = [63, 0, 5, 31, 17, 1, 62, 40];

    /// The other direction of [`scale_and_offset`], written from the format's description of the bytes.
    fn packed_scales() -> [u8; SCALE_BYTES] {
        let mut bytes = [0; SCALE_BYTES];
        for part in 0..4 {
            bytes[part] = SCALES[part] | ((SCALES[part + 4] >> 4) << 6);
            bytes[part + 4] = OFFSETS[part] | ((OFFSETS[part + 4] >> 4) << 6);
            bytes[part + 8] = (SCALES[part + 4] & 15) | ((OFFSETS[part + 4] & 15) << 4);
        }
        bytes
    }

    fn halves(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
    }

    /// Numbers without a period that the layouts have, of so many values.
    fn numbers(values: usize) -> [u8; ELEMENTS] {
        std::array::from_fn(|i| ((i * i + i / 7) % values) as u8)
    }

    fn packed_low_bits(numbers: &[u8; ELEMENTS]) -> Vec<u8> {
        let run = |run: &[u8]| (0..32).map(|i| (run[i] & 15) | ((run[i + 32] & 15) << 4)).collect::<Vec<_>>();
        numbers.chunks(64).flat_map(run).collect()
    }

    fn assert_with_offsets(element: ElementType, block: &[u8], numbers: &[u8; ELEMENTS]) {
        let expected = |i: usize| {
            0.5 * f32::from(SCALES[i / 32]) * f32::from(numbers[i]) - 0.25 * f32::from(OFFSETS[i / 32])
        };
        let expected: Vec<f32> = (0..ELEMENTS).map(expected).collect();
        assert_eq!(element.widen(block), expected, "{}", element.name());
        assert_eq!(element.widen(&[block, block].concat()), [expected.as_slice(), &expected].concat());
    }

    #[test]
    fn scales_and_offsets_of_six_bits() {
        for part in 0..8 {
            assert_eq!(scale_and_offset(&packed_scales(), part), (SCALES[part], OFFSETS[part]), "{part}");
        }
    }

    #[test]
    fn four_bits() {
        let numbers = numbers(16);
        let block = [halves(&[0.5, 0.25]), packed_scales().to_vec(), packed_low_bits(&numbers)].concat();
        assert_eq!(block.len(), 144);
        assert_with_offsets(ElementType::Q4K, &block, &numbers);
    }

    #[test]
    fn five_bits() {
        let numbers = numbers(32);
        let mut fifth = vec![0_u8; 32];
        for (i, &number) in numbers.iter().enumerate() {
            fifth[i % 32] |= (number >> 4) << (i / 32);
        }
        let block =
            [halves(&[0.5, 0.25]), packed_scales().to_vec(), fifth, packed_low_bits(&numbers)].concat();
        assert_eq!(block.len(), 176);
        assert_with_offsets(ElementType::Q5K, &block, &numbers);
    }

    #[test]
    fn six_bits() {
        let numbers = numbers(64);
        let scales: [i8; 16] = std::array::from_fn(|part| (part as i32 * 17 - 128) as i8);
        let (mut low, mut high) = (vec![0_u8; 128], vec![0_u8; 64]);
        for (half, numbers) in numbers.chunks(128).enumerate() {
            for i in 0..32 {
                let quarter = |quarter: usize| numbers[i + 32 * quarter];
                low[64 * half + i] = (quarter(0) & 15) | ((quarter(2) & 15) << 4);
                low[64 * half + 32 + i] = (quarter(1) & 15) | ((quarter(3) & 15) << 4);
                high[32 * half + i] = (0..4).map(|at| (quarter(at) >> 4) << (2 * at)).sum();
            }
        }
        let scale_bytes = scales.map(i8::cast_unsigned).to_vec();
        let block = [low, high, scale_bytes, halves(&[0.5])].concat();
        assert_eq!(block.len(), 210);
        let expected = |i: usize| 0.5 * f32::from(scales[i / 16]) * (f32::from(numbers[i]) - 32.0);
        let expected: Vec<f32> = (0..ELEMENTS).map(expected).collect();
        assert_eq!(ElementType::Q6K.widen(&block), expected);
    }
}
