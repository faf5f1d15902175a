//! 3 bits a code: a byte of a word holds two codes and two spare bits, and the spare bits of three words are two codes more.
//!
//! | word | bits 5-7 | bits 2-4 | bits 0-1 |
//! |---|---|---|---|
//! | `w` in 0..3 | quad `2 w + 1` | quad `2 w` | bits `6 - 2 w` and `7 - 2 w` of the fourth word |
//! | fourth | quad 7 | quad 6 | - |
//!
//! So a kernel takes a high code by a shift and a low one, four times too large, by a mask. Spare bits are the lowest, where a shift with
//! insertion (SLI) joins those of two words.

use super::{UNIT_ELEMS, WORD_BYTES};

/// Where the low code of a byte begins.
const LOW_SHIFT: u32 = 2;
/// Where the high code of a byte begins.
const HIGH_SHIFT: u32 = 5;
/// The low code of a byte.
pub const LOW_CODE: u8 = 7 << LOW_SHIFT;
/// The spare bits of a byte.
pub const SPARE_BITS: u8 = 3;

/// The low and the high code of a byte, whatever its spare bits.
pub const fn codes_of_byte(byte: u8) -> [u8; 2] {
    [byte >> LOW_SHIFT & 7, byte >> HIGH_SHIFT]
}

/// The byte of the fourth word, from those of the three others.
pub const fn fourth_byte([a, b, c]: [u8; 3]) -> u8 {
    (a & SPARE_BITS) << 6 | (b & SPARE_BITS) << 4 | (c & SPARE_BITS) << 2
}

/// Packs 32 codes into 3 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 3] {
    core::array::from_fn(|word| {
        core::array::from_fn(|lane| {
            let byte = |word: usize| {
                let [low, high] = [0, 1].map(|quad| codes[4 * (2 * word + quad) + lane] & 7);
                low << LOW_SHIFT | high << HIGH_SHIFT
            };
            byte(word) | byte(3) >> (6 - 2 * word) & SPARE_BITS
        })
    })
}

/// Unpacks 3 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; 3]) -> [u8; UNIT_ELEMS] {
    core::array::from_fn(|column| {
        let (quad, lane) = (column / 4, column % 4);
        let byte = match quad / 2 {
            3 => fourth_byte(words.map(|word| word[lane])),
            word => words[word][lane],
        };
        codes_of_byte(byte)[quad % 2]
    })
}
