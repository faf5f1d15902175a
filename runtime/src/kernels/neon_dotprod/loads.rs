//! Words and scale codes in registers, as the products for one token and those of `neon_i8mm` take them.
//!
//! Every function here is for a processor with NEON and is called from functions compiled for it.

use crate::kernels::nr8k4::Word;
use core::arch::aarch64::*;

/// A word of a unit: rows 0 to 3 and 4 to 7 of a tile.
pub(in crate::kernels) type Halves = [uint8x16_t; 2];

/// Two words in one instruction, which costs a load as much as one and an instruction less than two.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn load_two(words: &[Word; 2]) -> [Halves; 2] {
    // SAFETY: 64 readable bytes.
    let uint8x16x4_t(a, b, c, d) = unsafe { vld1q_u8_x4(words.as_ptr().cast()) };
    [[a, b], [c, d]]
}

/// One word.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn load_one(word: &Word) -> Halves {
    // SAFETY: 32 readable bytes.
    let uint8x16x2_t(a, b) = unsafe { vld1q_u8_x2(word.as_ptr()) };
    [a, b]
}
