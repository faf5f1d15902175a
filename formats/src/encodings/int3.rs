//! 3 bits a code: fields of 3 + 3 + 2 bits in each of three bytes, two's complement.
//!
//! | word | bits 0-2 | bits 3-5 | bit 6 | bit 7 |
//! |---|---|---|---|---|
//! | 0 | quad 0 | quad 1 | quad 6, bit 0 | quad 6, bit 1 |
//! | 1 | quad 2 | quad 3 | quad 7, bit 0 | quad 7, bit 1 |
//! | 2 | quad 4 | quad 5 | quad 6, bit 2 | quad 7, bit 2 |
//!
//! Six of eight quads unpack with a shift and a mask; the other two cost one more step, shared by both.

use super::{UNIT_ELEMS, WORD_BYTES, sign_extend};

/// Packs 32 codes into 3 words.
pub fn encode(codes: &[i8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 3] {
    core::array::from_fn(|word| {
        core::array::from_fn(|lane| {
            let quad = |quad: usize| codes[4 * quad + lane] as u8 & 7;
            let top = match word {
                0 => quad(6) & 3,
                1 => quad(7) & 3,
                _ => quad(6) >> 2 | (quad(7) >> 2) << 1,
            };
            quad(2 * word) | quad(2 * word + 1) << 3 | top << 6
        })
    })
}

/// Unpacks 3 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; 3]) -> [i8; UNIT_ELEMS] {
    core::array::from_fn(|column| {
        let (quad, lane) = (column / 4, column % 4);
        let field = match quad {
            6 => words[0][lane] >> 6 | (words[2][lane] >> 6 & 1) << 2,
            7 => words[1][lane] >> 6 | (words[2][lane] >> 7) << 2,
            _ => words[quad / 2][lane] >> (3 * (quad % 2)),
        };
        sign_extend(field, 3)
    })
}
