//! How the elements of a tensor are stored, and what numbers they are.
//!
//! Floats are stored one by one. The other types are those of GGUF files: blocks of 32 or 256 consecutive elements of
//! a row that share scales, each element an integer of a few bits. All widen to the f32 numbers that GGUF's reference
//! implementation computes from them, in the same order of operations.

mod blocks_of_32;
mod floats;
mod super_blocks;

/// The types of elements that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// Blocks of 32: a scale and signed numbers of 4 bits.
    Q4_0,
    /// Blocks of 32: a scale, an offset and numbers of 4 bits.
    Q4_1,
    /// Blocks of 32: a scale and signed numbers of 5 bits.
    Q5_0,
    /// Blocks of 32: a scale, an offset and numbers of 5 bits.
    Q5_1,
    /// Blocks of 32: a scale and signed numbers of 8 bits.
    Q8_0,
    /// Blocks of 256: scales and offsets of 6 bits for every 32, numbers of 4 bits.
    Q4K,
    /// Blocks of 256: scales and offsets of 6 bits for every 32, numbers of 5 bits.
    Q5K,
    /// Blocks of 256: scales of 8 bits for every 16, signed numbers of 6 bits.
    Q6K,
}

impl ElementType {
    /// Every type, floats first.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The name, as both file formats spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements that are stored together: those of a row are a multiple of it.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => blocks_of_32::ELEMENTS,
            Self::Q4K | Self::Q5K | Self::Q6K => super_blocks::ELEMENTS,
        }
    }

    /// Bytes of as many elements.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => blocks_of_32::Q4_0_BYTES,
            Self::Q4_1 => blocks_of_32::Q4_1_BYTES,
            Self::Q5_0 => blocks_of_32::Q5_0_BYTES,
            Self::Q5_1 => blocks_of_32::Q5_1_BYTES,
            Self::Q8_0 => blocks_of_32::Q8_0_BYTES,
            Self::Q4K => super_blocks::Q4K_BYTES,
            Self::Q5K => super_blocks::Q5K_BYTES,
            Self::Q6K => super_blocks::Q6K_BYTES,
        }
    }

    /// The elements of whole blocks as f32; what is left over after the last whole block is not read. Floats are exact.
    /// The bytes need not be aligned.
    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => floats::widen(bytes, f32::from_le_bytes),
            Self::F16 => floats::widen(bytes, floats::binary16),
            Self::Bf16 => floats::widen(bytes, floats::brain16),
            Self::Q4_0 => blocks_of_32::widen(bytes, blocks_of_32::q4_0),
            Self::Q4_1 => blocks_of_32::widen(bytes, blocks_of_32::q4_1),
            Self::Q5_0 => blocks_of_32::widen(bytes, blocks_of_32::q5_0),
            Self::Q5_1 => blocks_of_32::widen(bytes, blocks_of_32::q5_1),
            Self::Q8_0 => blocks_of_32::widen(bytes, blocks_of_32::q8_0),
            Self::Q4K => super_blocks::widen(bytes, super_blocks::q4_k),
            Self::Q5K => super_blocks::widen(bytes, super_blocks::q5_k),
            Self::Q6K => super_blocks::widen(bytes, super_blocks::q6_k),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_widen_to_the_elements_of_their_whole_blocks(
            bytes in proptest::collection::vec(any::<u8>(), 0..1200),
        ) {
            for element in ElementType::ALL {
                let blocks = bytes.len() / element.block_bytes();
                prop_assert_eq!(element.widen(&bytes).len(), blocks * element.block_elements());
            }
        }

        /// Finite scales make finite numbers: the largest is far below the largest f32.
        #[test]
        fn finite_scales_make_finite_numbers(bytes in proptest::collection::vec(any::<u8>(), 210)) {
            for element in ElementType::ALL.into_iter().filter(|element| element.block_elements() > 1) {
                let mut block = bytes[..element.block_bytes()].to_vec();
                // The binary16 numbers of the block: an exponent of all ones is what isn't finite.
                let halves: &[usize] = match element {
                    ElementType::Q6K => &[208],
                    ElementType::Q4_0 | ElementType::Q5_0 | ElementType::Q8_0 => &[0],
                    _ => &[0, 2],
                };
                for &at in halves {
                    block[at + 1] &= !0x40;
                }
                prop_assert!(element.widen(&block).iter().all(|value| value.is_finite()), "{}", element.name());
                block[halves[0] + 1] |= 0x7c;
                prop_assert!(!element.widen(&block).iter().all(|value| value.is_finite()), "{}", element.name());
            }
        }
    }
}
