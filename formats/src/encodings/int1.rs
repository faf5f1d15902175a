//! 1 bit a code: the word carries quad `q` in bit `q`. No width by itself, but the low part of [`super::int5`].
//!
//! A nibble holds four codes, so one index register serves four tables of sixteen, each of which looks at one bit of an index.

use super::{UNIT_ELEMS, WORD_BYTES};

/// Packs 32 codes into a word.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 1] {
    [core::array::from_fn(|lane| (0..8).fold(0, |byte, quad| byte | (codes[4 * quad + lane] & 1) << quad))]
}

/// Unpacks a word into 32 codes.
pub fn decode([word]: [[u8; WORD_BYTES]; 1]) -> [u8; UNIT_ELEMS] {
    core::array::from_fn(|column| word[column % 4] >> (column / 4) & 1)
}
