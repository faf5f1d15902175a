//! How the codes of a matrix are packed into bits.
//!
//! The unit of packing is 32 consecutive columns of one row, seen as eight *quads* of four columns: column `4 * quad + lane`.
//! A unit of `b` bits a code is `b` *words* of four bytes; byte `lane` of each word carries codes of that lane only. So a word
//! spread over the byte lanes of a vector register unpacks with shifts and masks alone, and four consecutive bytes always meet
//! four consecutive activations, which is what a four-way dot product instruction wants. Layouts (`crate::layouts`) only
//! permute words.
//!
//! Codes are signed and symmetric: the value of a weight is `code * scale`, one f16 scale a group of columns.

pub mod int2;
pub mod int3;
pub mod int4;
pub mod int8;

use serde::{Deserialize, Serialize};

/// Columns in a unit of packing.
pub const UNIT_ELEMS: usize = 32;
/// Bytes in a word: one byte for each lane of a quad.
pub const WORD_BYTES: usize = 4;
/// Most words in a unit (8 bits).
pub const MAX_UNIT_WORDS: usize = 8;

/// Bits a code, and how they are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CodeWidth {
    /// 2 bits, codes -2..=1.
    Int2,
    /// 3 bits, codes -4..=3.
    Int3,
    /// 4 bits, codes -8..=7.
    Int4,
    /// 8 bits, codes -127..=127: -128 is refused so that two products fit an int16.
    Int8,
}

impl CodeWidth {
    /// Every width, narrowest first.
    pub const ALL: [CodeWidth; 4] = [CodeWidth::Int2, CodeWidth::Int3, CodeWidth::Int4, CodeWidth::Int8];

    /// The width of this many bits, where there is one.
    pub const fn from_bits(bits: u8) -> Option<CodeWidth> {
        match bits {
            2 => Some(CodeWidth::Int2),
            3 => Some(CodeWidth::Int3),
            4 => Some(CodeWidth::Int4),
            8 => Some(CodeWidth::Int8),
            _ => None,
        }
    }

    /// Bits a code; also words a unit.
    pub const fn bits(self) -> usize {
        match self {
            CodeWidth::Int2 => 2,
            CodeWidth::Int3 => 3,
            CodeWidth::Int4 => 4,
            CodeWidth::Int8 => 8,
        }
    }

    /// The lowest and the highest code.
    pub const fn range(self) -> (i8, i8) {
        match self {
            CodeWidth::Int2 => (-2, 1),
            CodeWidth::Int3 => (-4, 3),
            CodeWidth::Int4 => (-8, 7),
            CodeWidth::Int8 => (-127, 127),
        }
    }

    /// Bytes of one unit of 32 codes.
    pub const fn unit_bytes(self) -> usize {
        self.bits() * WORD_BYTES
    }

    /// Unpacks a unit: `words` are the first [`CodeWidth::bits`] words.
    pub fn decode_unit(self, words: &[[u8; WORD_BYTES]; MAX_UNIT_WORDS]) -> [i8; UNIT_ELEMS] {
        match self {
            CodeWidth::Int2 => int2::decode([words[0], words[1]]),
            CodeWidth::Int3 => int3::decode([words[0], words[1], words[2]]),
            CodeWidth::Int4 => int4::decode([words[0], words[1], words[2], words[3]]),
            CodeWidth::Int8 => int8::decode(*words),
        }
    }

    /// Packs a unit into the first [`CodeWidth::bits`] words; the rest are zero. Bits of a code outside the width are dropped,
    /// so the caller checks [`CodeWidth::range`] first.
    pub fn encode_unit(self, codes: &[i8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; MAX_UNIT_WORDS] {
        let mut words = [[0; WORD_BYTES]; MAX_UNIT_WORDS];
        match self {
            CodeWidth::Int2 => words[..2].copy_from_slice(&int2::encode(codes)),
            CodeWidth::Int3 => words[..3].copy_from_slice(&int3::encode(codes)),
            CodeWidth::Int4 => words[..4].copy_from_slice(&int4::encode(codes)),
            CodeWidth::Int8 => words = int8::encode(codes),
        }
        words
    }
}

/// Sign-extends the low `bits` bits of `field`.
pub(crate) const fn sign_extend(field: u8, bits: u32) -> i8 {
    let shift = 8 - bits;
    ((field << shift) as i8) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decode_inverts_encode(raw in prop::array::uniform32(any::<u8>())) {
            for width in CodeWidth::ALL {
                let (lowest, highest) = width.range();
                let span = (i16::from(highest) - i16::from(lowest) + 1) as u16;
                let codes = raw.map(|r| (i16::from(lowest) + (u16::from(r) % span) as i16) as i8);
                prop_assert_eq!(width.decode_unit(&width.encode_unit(&codes)), codes);
            }
        }
    }

    #[test]
    fn every_code_in_every_place_survives() {
        for width in CodeWidth::ALL {
            let (lowest, highest) = width.range();
            for place in 0..UNIT_ELEMS {
                for code in lowest..=highest {
                    let mut codes = [lowest; UNIT_ELEMS];
                    codes[place] = code;
                    assert_eq!(
                        width.decode_unit(&width.encode_unit(&codes)),
                        codes,
                        "{width:?} {place} {code}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_lane_stays_in_its_byte() {
        for width in CodeWidth::ALL {
            for place in 0..UNIT_ELEMS {
                let mut codes = [0; UNIT_ELEMS];
                codes[place] = -1;
                for word in width.encode_unit(&codes) {
                    for (lane, byte) in word.into_iter().enumerate() {
                        assert!(byte == 0 || lane == place % WORD_BYTES, "{width:?} {place}");
                    }
                }
            }
        }
    }
}
