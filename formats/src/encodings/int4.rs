//! 4 bits a code: word `w` carries quad `w` in its low nibbles and quad `w + 4` in its high nibbles.

use super::{UNIT_ELEMS, WORD_BYTES};

/// Packs 32 codes into 4 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 4] {
    core::array::from_fn(|word| {
        core::array::from_fn(|lane| codes[4 * word + lane] & 0xf | codes[4 * (word + 4) + lane] << 4)
    })
}

/// Unpacks 4 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; 4]) -> [u8; UNIT_ELEMS] {
    core::array::from_fn(|column| {
        let (quad, lane) = (column / 4, column % 4);
        words[quad % 4][lane] >> (4 * (quad / 4)) & 0xf
    })
}
