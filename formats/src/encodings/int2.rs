//! 2 bits a code: word `w` carries quads `4 w` to `4 w + 3` in bits 0-1, 2-3, 4-5 and 6-7.
//!
//! A nibble holds two codes, so one index register serves two tables of sixteen: one that looks at the low two bits of an index
//! and one that looks at the high two. No code is isolated by a mask of its own.

use super::{UNIT_ELEMS, WORD_BYTES};

/// Packs 32 codes into 2 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 2] {
    core::array::from_fn(|word| {
        core::array::from_fn(|lane| {
            (0..4).fold(0, |byte, field| byte | (codes[4 * (4 * word + field) + lane] & 3) << (2 * field))
        })
    })
}

/// Unpacks 2 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; 2]) -> [u8; UNIT_ELEMS] {
    core::array::from_fn(|column| {
        let (quad, lane) = (column / 4, column % 4);
        words[quad / 4][lane] >> (2 * (quad % 4)) & 3
    })
}
