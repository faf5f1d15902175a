//! 8 bits a code: word `w` carries quad `w`, one byte a lane.

use super::{MAX_UNIT_WORDS, UNIT_ELEMS, WORD_BYTES};

/// Packs 32 codes into 8 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; MAX_UNIT_WORDS] {
    core::array::from_fn(|word| core::array::from_fn(|lane| codes[4 * word + lane]))
}

/// Unpacks 8 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; MAX_UNIT_WORDS]) -> [u8; UNIT_ELEMS] {
    core::array::from_fn(|column| words[column / 4][column % 4])
}
