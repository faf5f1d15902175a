//! 5 bits a code, stacked: four words of the high four bits, as [`int4`] packs codes, then the word of the low bit, as [`int1`]
//! does.

use super::{UNIT_ELEMS, WORD_BYTES, int1, int4};

/// Packs 32 codes into 5 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 5] {
    let ([a, b, c, d], [low]) = (int4::encode(&codes.map(|code| code >> 1)), int1::encode(codes));
    [a, b, c, d, low]
}

/// Unpacks 5 words into 32 codes.
pub fn decode([a, b, c, d, low]: [[u8; WORD_BYTES]; 5]) -> [u8; UNIT_ELEMS] {
    let (high, low) = (int4::decode([a, b, c, d]), int1::decode([low]));
    core::array::from_fn(|column| high[column] << 1 | low[column])
}
