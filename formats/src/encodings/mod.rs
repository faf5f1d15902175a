//! How the codes of a matrix are packed into bits.
//!
//! The unit of packing is 32 consecutive columns of one row, seen as eight *quads* of four columns: column `4 * quad + lane`.
//! A unit of `b` bits a code is `b` *words* of four bytes; byte `lane` of each word carries codes of that lane only. So a word
//! spread over the byte lanes of a vector register unpacks with shifts and masks alone, and four consecutive bytes always meet
//! four consecutive activations, which is what a four-way dot product instruction wants. Layouts (`crate::layouts`) only
//! permute words.
//!
//! Here a code is a field of bits. What it stands for, [`crate::matrix`] says: at 2, 3 and 4 bits an index into a table of
//! levels, at 5 and 6 bits the number of an evenly spaced level ([`stacked`]), at 8 bits a signed number.

pub mod int1;
pub mod int2;
pub mod int3;
pub mod int4;
pub mod int5;
pub mod int6;
pub mod int8;
pub mod stacked;

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
    /// 2 bits: indices of 4 levels.
    Int2,
    /// 3 bits: indices of 8 levels.
    Int3,
    /// 4 bits: indices of 16 levels.
    Int4,
    /// 5 bits: 32 evenly spaced levels, -31, -29 .. 31.
    Int5,
    /// 6 bits: 64 evenly spaced levels, -63, -61 .. 63.
    Int6,
    /// 8 bits: two's complement numbers -127..=127. -128 is refused so that two products fit an int16.
    Int8,
}

impl CodeWidth {
    /// Every width, narrowest first.
    pub const ALL: [CodeWidth; 6] = [
        CodeWidth::Int2,
        CodeWidth::Int3,
        CodeWidth::Int4,
        CodeWidth::Int5,
        CodeWidth::Int6,
        CodeWidth::Int8,
    ];

    /// The width of this many bits, where there is one.
    pub const fn from_bits(bits: u8) -> Option<CodeWidth> {
        match bits {
            2 => Some(CodeWidth::Int2),
            3 => Some(CodeWidth::Int3),
            4 => Some(CodeWidth::Int4),
            5 => Some(CodeWidth::Int5),
            6 => Some(CodeWidth::Int6),
            8 => Some(CodeWidth::Int8),
            _ => None,
        }
    }

    /// Whether this program reads matrices of this width.
    pub const fn is_built(self) -> bool {
        match self {
            CodeWidth::Int2 => cfg!(feature = "int2"),
            CodeWidth::Int3 => cfg!(feature = "int3"),
            CodeWidth::Int4 => cfg!(feature = "int4"),
            CodeWidth::Int5 => cfg!(feature = "int5"),
            CodeWidth::Int6 => cfg!(feature = "int6"),
            CodeWidth::Int8 => cfg!(feature = "int8"),
        }
    }

    /// The feature with this width.
    pub const fn feature(self) -> &'static str {
        match self {
            CodeWidth::Int2 => "int2",
            CodeWidth::Int3 => "int3",
            CodeWidth::Int4 => "int4",
            CodeWidth::Int5 => "int5",
            CodeWidth::Int6 => "int6",
            CodeWidth::Int8 => "int8",
        }
    }

    /// Bits a code; also words a unit.
    pub const fn bits(self) -> usize {
        match self {
            CodeWidth::Int2 => 2,
            CodeWidth::Int3 => 3,
            CodeWidth::Int4 => 4,
            CodeWidth::Int5 => 5,
            CodeWidth::Int6 => 6,
            CodeWidth::Int8 => 8,
        }
    }

    /// Levels that codes of this width index; `None` where codes are numbers themselves.
    pub const fn levels(self) -> Option<usize> {
        match self {
            CodeWidth::Int8 => None,
            _ => Some(1 << self.bits()),
        }
    }

    /// Low bits of a code that don't index the table of levels but add their own part: 1 and 2 at the stacked widths of 5 and 6
    /// bits, else 0. See [`stacked`].
    pub const fn low_bits(self) -> usize {
        match self {
            CodeWidth::Int5 | CodeWidth::Int6 => self.bits() - stacked::HIGH_BITS,
            CodeWidth::Int2 | CodeWidth::Int3 | CodeWidth::Int4 | CodeWidth::Int8 => 0,
        }
    }

    /// Entries of the table of levels, which the bits of a code above the low ones index; 0 where codes are numbers themselves.
    pub const fn table_levels(self) -> usize {
        match self.levels() {
            Some(levels) => levels >> self.low_bits(),
            None => 0,
        }
    }

    /// The level of this code at the stacked widths; `None` at the others, whose levels a matrix chooses.
    pub const fn fixed_level(self, code: u8) -> Option<i8> {
        match self.low_bits() {
            0 => None,
            low => Some(stacked::high_level(low, code >> low) + stacked::low_level(low, code)),
        }
    }

    /// The entry of the table of levels at the stacked widths; `None` at the others.
    pub const fn fixed_table_level(self, index: u8) -> Option<i8> {
        match self.low_bits() {
            0 => None,
            low => Some(stacked::high_level(low, index)),
        }
    }

    /// The largest magnitude of a level, or of a code that is a number. Sums of products with activations of up to 127 must fit
    /// the int16 accumulators of processors without dot product instructions: eight products at 2, 3 and 5 bits, four at 4 and
    /// 6 bits, two at 8.
    pub const fn level_bound(self) -> i8 {
        match self {
            CodeWidth::Int2 | CodeWidth::Int3 | CodeWidth::Int5 => 31,
            CodeWidth::Int4 | CodeWidth::Int6 => 63,
            CodeWidth::Int8 => 127,
        }
    }

    /// Bytes of one unit of 32 codes.
    pub const fn unit_bytes(self) -> usize {
        self.bits() * WORD_BYTES
    }

    /// Unpacks a unit: `words` are the first [`CodeWidth::bits`] words.
    pub fn decode_unit(self, words: &[[u8; WORD_BYTES]; MAX_UNIT_WORDS]) -> [u8; UNIT_ELEMS] {
        let &[a, b, c, d, e, f, ..] = words;
        match self {
            width if !width.is_built() => [0; UNIT_ELEMS],
            CodeWidth::Int2 => int2::decode([a, b]),
            CodeWidth::Int3 => int3::decode([a, b, c]),
            CodeWidth::Int4 => int4::decode([a, b, c, d]),
            CodeWidth::Int5 => int5::decode([a, b, c, d, e]),
            CodeWidth::Int6 => int6::decode([a, b, c, d, e, f]),
            CodeWidth::Int8 => int8::decode(*words),
        }
    }

    /// Packs a unit into the first [`CodeWidth::bits`] words; the rest are zero. Bits of a code outside the width are dropped,
    /// so the caller checks first that there are none.
    pub fn encode_unit(self, codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; MAX_UNIT_WORDS] {
        let mut words = [[0; WORD_BYTES]; MAX_UNIT_WORDS];
        match self {
            CodeWidth::Int2 => words[..2].copy_from_slice(&int2::encode(codes)),
            CodeWidth::Int3 => words[..3].copy_from_slice(&int3::encode(codes)),
            CodeWidth::Int4 => words[..4].copy_from_slice(&int4::encode(codes)),
            CodeWidth::Int5 => words[..5].copy_from_slice(&int5::encode(codes)),
            CodeWidth::Int6 => words[..6].copy_from_slice(&int6::encode(codes)),
            CodeWidth::Int8 => words = int8::encode(codes),
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(width: CodeWidth) -> u8 {
        0xff >> (8 - width.bits())
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(raw in prop::array::uniform32(any::<u8>())) {
            for width in CodeWidth::ALL {
                let codes = raw.map(|code| code & mask(width));
                prop_assert_eq!(width.decode_unit(&width.encode_unit(&codes)), codes);
                // Bits outside the width are dropped, not spread over the neighbours.
                prop_assert_eq!(width.encode_unit(&raw), width.encode_unit(&codes));
            }
        }
    }

    #[test]
    fn every_code_in_every_place_survives() {
        for width in CodeWidth::ALL {
            for place in 0..UNIT_ELEMS {
                for code in 0..=mask(width) {
                    for around in [0, mask(width)] {
                        let mut codes = [around; UNIT_ELEMS];
                        codes[place] = code;
                        let found = width.decode_unit(&width.encode_unit(&codes));
                        assert_eq!(found, codes, "{width:?} {place} {code}");
                    }
                }
            }
        }
    }

    /// Packing only moves bits: each bit of the words is one bit of one code, and the other way round. With the two tests after it, this is
    /// the inverse for every content.
    #[test]
    fn packing_is_a_permutation_of_bits() {
        for width in CodeWidth::ALL {
            let mut used = [0_u8; UNIT_ELEMS];
            for word in 0..width.bits() {
                for bit in 0..8 * WORD_BYTES {
                    let mut words = [[0; WORD_BYTES]; MAX_UNIT_WORDS];
                    words[word][bit / 8] = 1 << (bit % 8);
                    let codes = width.decode_unit(&words);
                    let ones: u32 = codes.iter().map(|code| code.count_ones()).sum();
                    assert_eq!(ones, 1, "{width:?}: bit {bit} of word {word}");
                    for (used, code) in used.iter_mut().zip(codes) {
                        assert_eq!(
                            *used & code,
                            0,
                            "{width:?}: bit {bit} of word {word} is another's as well"
                        );
                        *used |= code;
                    }
                    assert_eq!(width.encode_unit(&codes), words, "{width:?}: bit {bit} of word {word}");
                }
            }
            assert_eq!(used, [mask(width); UNIT_ELEMS], "{width:?}: every bit of every code");
        }
    }

    /// Every two bytes of a lane's words, in all their values, before two surroundings.
    #[test]
    fn encode_inverts_decode_for_all_pairs_of_bytes() {
        let step = if cfg!(miri) { 51 } else { 1 };
        for width in CodeWidth::ALL {
            let lanes = [0, WORD_BYTES - 1];
            for (lane, around) in lanes.into_iter().zip([0, 0xff]) {
                for (first, second) in (0..width.bits()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    let mut words = [[0; WORD_BYTES]; MAX_UNIT_WORDS];
                    words[..width.bits()].fill([around; WORD_BYTES]);
                    for (a, b) in
                        (0..=255).step_by(step).flat_map(|a| (0..=255).step_by(step).map(move |b| (a, b)))
                    {
                        (words[first][lane], words[second][lane]) = (a, b);
                        assert_eq!(
                            width.encode_unit(&width.decode_unit(&words)),
                            words,
                            "{width:?} {words:?}"
                        );
                    }
                }
            }
        }
    }

    /// Nothing but moving: what two contents differ in decodes to what their codes differ in.
    #[test]
    fn decoding_is_linear() {
        let mut state = 1_u32;
        let mut random = || {
            core::array::from_fn::<_, MAX_UNIT_WORDS, _>(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state ^ state >> 16).to_le_bytes()
            })
        };
        for width in CodeWidth::ALL {
            for _ in 0..if cfg!(miri) { 8 } else { 4096 } {
                let (a, b) = (random(), random());
                let both =
                    core::array::from_fn(|word| core::array::from_fn(|lane| a[word][lane] ^ b[word][lane]));
                let (codes_a, codes_b) = (width.decode_unit(&a), width.decode_unit(&b));
                assert_eq!(
                    width.decode_unit(&both),
                    core::array::from_fn(|place| codes_a[place] ^ codes_b[place])
                );
            }
        }
    }

    #[test]
    fn a_lane_stays_in_its_byte() {
        for width in CodeWidth::ALL {
            for place in 0..UNIT_ELEMS {
                let mut codes = [0; UNIT_ELEMS];
                codes[place] = 0xff;
                for word in width.encode_unit(&codes) {
                    for (lane, byte) in word.into_iter().enumerate() {
                        assert!(byte == 0 || lane == place % WORD_BYTES, "{width:?} {place}");
                    }
                }
            }
        }
    }

    /// What kernels do at 3 bits: spare bits don't matter to the codes beside them, and two insertions behind shifts join them.
    #[test]
    fn spare_bits_are_apart_and_join() {
        for (byte, other) in (0..=255).flat_map(|byte| (0..=255).map(move |other| (byte, other))) {
            let [low, high] = int3::codes_of_byte(byte);
            assert_eq!(int3::codes_of_byte(byte ^ other & int3::SPARE_BITS), [low, high]);
            assert_eq!(byte & int3::LOW_CODE, 4 * low);
            let third = byte.wrapping_mul(37) ^ other;
            let insert = |into: u8, from: u8| from << 2 | into & int3::SPARE_BITS;
            let joined = insert(third, insert(other, byte));
            assert_eq!(
                int3::codes_of_byte(int3::fourth_byte([byte, other, third])),
                [joined & 7, joined >> 3 & 7]
            );
        }
    }

    #[test]
    fn stacked_levels_are_the_odd_numbers_within_the_bound() {
        for width in [CodeWidth::Int5, CodeWidth::Int6] {
            let bound = width.level_bound();
            for code in 0..=mask(width) {
                assert_eq!(width.fixed_level(code), Some((2 * i16::from(code) - i16::from(bound)) as i8));
            }
            assert_eq!(width.fixed_level(mask(width)), Some(bound));
        }
        for width in [CodeWidth::Int2, CodeWidth::Int3, CodeWidth::Int4, CodeWidth::Int8] {
            assert_eq!(width.fixed_level(0), None);
            assert!((0..=255).all(|code| stacked::low_level(width.low_bits(), code) == 0));
        }
    }
}
