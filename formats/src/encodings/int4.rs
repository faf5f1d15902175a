//! 4 bits a code: word `w` carries quad `2 w` in its low nibbles and quad `2 w + 1` in its high nibbles.

use super::{UNIT_ELEMS, WORD_BYTES};

/// Packs 32 codes into 4 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 4] {
    core::array::from_fn(|word| {
        core::array::from_fn(|lane| codes[8 * word + lane] & 0xf | codes[8 * word + 4 + lane] << 4)
    })
}

/// Unpacks 4 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; 4]) -> [u8; UNIT_ELEMS] {
    core::array::from_fn(|column| {
        let (quad, lane) = (column / 4, column % 4);
        words[quad / 2][lane] >> (4 * (quad % 2)) & 0xf
    })
}
