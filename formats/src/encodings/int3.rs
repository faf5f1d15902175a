//! 3 bits a code: each nibble of a word holds one code and a spare bit; the spare bits of three words are a fourth code.
//!
//! Word `w` carries quad `2 w` in its low nibbles and quad `2 w + 1` in its high nibbles; the spare bits of the low nibbles are quad
//! 6, those of the high nibbles quad 7. With `c` the nibble's own code and `s` the spare one:
//!
//! | word | bit 3 | bit 2 | bit 1 | bit 0 |
//! |---|---|---|---|---|
//! | 0 | s bit 2 | c bit 2 | c bit 1 | c bit 0 |
//! | 1 | c bit 2 | s bit 1 | c bit 1 | c bit 0 |
//! | 2 | c bit 2 | c bit 1 | s bit 0 | c bit 0 |
//!
//! A kernel indexes a table of sixteen by the whole nibble, one table a word, which ignores the spare bit and undoes the order.
//! The spare bits have different places, so two bitwise selections join them, without a shift, to a nibble of `s` and a bit
//! that a fourth table ignores.

use super::{UNIT_ELEMS, WORD_BYTES};

/// The nibble of word `word` that holds code `own` and its bit of code `spare`.
const fn nibble(word: usize, own: u8, spare: u8) -> u8 {
    match word {
        0 => (spare & 4) << 1 | own & 7,
        1 => (own & 4) << 1 | (spare & 2) << 1 | own & 3,
        _ => (own & 6) << 1 | (spare & 1) << 1 | own & 1,
    }
}

/// The code that a nibble of word `word` holds, whatever its spare bit. The fourth "word" is the nibble of joined spare bits.
pub const fn code_of_nibble(word: usize, nibble: u8) -> u8 {
    match word {
        0 => nibble & 7,
        1 => (nibble & 8) >> 1 | nibble & 3,
        2 => (nibble & 12) >> 1 | nibble & 1,
        _ => (nibble & 14) >> 1,
    }
}

/// The bits of a byte of words 0, 1 and 2 that are spare.
pub const SPARE_BITS: [u8; 3] = [0x88, 0x44, 0x22];

/// Packs 32 codes into 3 words.
pub fn encode(codes: &[u8; UNIT_ELEMS]) -> [[u8; WORD_BYTES]; 3] {
    core::array::from_fn(|word| {
        core::array::from_fn(|lane| {
            let quad = |quad: usize| codes[4 * quad + lane];
            nibble(word, quad(2 * word), quad(6)) | nibble(word, quad(2 * word + 1), quad(7)) << 4
        })
    })
}

/// Unpacks 3 words into 32 codes.
pub fn decode(words: [[u8; WORD_BYTES]; 3]) -> [u8; UNIT_ELEMS] {
    core::array::from_fn(|column| {
        let (quad, lane) = (column / 4, column % 4);
        let byte = match quad / 2 {
            3 => (0..3).fold(0, |byte, word| byte | words[word][lane] & SPARE_BITS[word]),
            word => words[word][lane],
        };
        code_of_nibble(quad / 2, byte >> (4 * (quad % 2)) & 15)
    })
}
