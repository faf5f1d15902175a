//! 6 bits a code, stacked: four words of the high four bits, as [`int4`] packs codes, then two words of the low two bits, as
//! [`int2`] does.

use super::{UNIT_ELEMS, WORD_BYTES, int2, int4};

/// Packs 32 codes into 6 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 6] {
    let ([a, b, c, d], [e, f]) = (int4::encode(&codes.map(|code| code >> 2)), int2::encode(codes));
    [a, b, c, d, e, f]
}

/// Unpacks 6 words into 32 codes.
pub fn decode([a, b, c, d, e, f]: [[u8; WORD_BYTES]; 6]) -> [u8; UNIT_ELEMS] {
    let (high, low) = (int4::decode([a, b, c, d]), int2::decode([e, f]));
    core::array::from_fn(|column| high[column] << 2 | low[column])
}
