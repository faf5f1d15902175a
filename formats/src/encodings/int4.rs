//! 4 bits a code: word `w` carries quad `w` in its low nibbles and quad `w + 4` in its high nibbles, two's complement.
//!
//! A kernel gets both without subtracting an offset: `byte << 4` is 16 times the low code, `byte & 0xf0` 16 times the high one.

use super::{UNIT_ELEMS, WORD_BYTES, sign_extend};

/// Packs 32 codes into 4 words.
pub fn encode(codes: &[i8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 4] {
    core::array::from_fn(|word| {
        core::array::from_fn(|lane| {
            let low = codes[4 * word + lane] as u8 & 0xf;
            let high = codes[4 * (word + 4) + lane] as u8 & 0xf;
            high << 4 | low
        })
    })
}

/// Unpacks 4 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; 4]) -> [i8; UNIT_ELEMS] {
    core::array::from_fn(|column| {
        let (quad, lane) = (column / 4, column % 4);
        sign_extend(words[quad % 4][lane] >> (4 * (quad / 4)), 4)
    })
}
