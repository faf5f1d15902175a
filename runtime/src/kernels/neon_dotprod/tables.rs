//! Levels and multipliers by TBL, as the products for one token and those of `neon_i8mm` take them.
//!
//! Every function here is for a processor with NEON and is called from functions compiled for it.

use super::insn::insert;
use crate::kernels::TILE_ROWS;
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{NibbleTable, TABLES, is_stacked, low_part, nibble_tables};
use core::arch::aarch64::*;
use rescomp_formats::encodings::int3::SPARE_BITS;
use rescomp_formats::matrix::TABLE_ENTRIES;

/// The tables of a matrix in registers.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Tables {
    /// Levels by nibble: as many tables as the width needs.
    pub(in crate::kernels) levels: [int8x16_t; TABLES],
    /// Multipliers by scale code.
    pub(in crate::kernels) multipliers: uint8x16_t,
}

/// Loads the tables of a width.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn tables<const WORDS: usize>(
    levels: &[i8; TABLE_ENTRIES],
    multipliers: &[u8; TABLE_ENTRIES],
) -> Tables {
    // SAFETY: 16 readable bytes.
    let levels = unsafe { vld1q_s8(levels.as_ptr()) };
    let mut by_nibble = [levels; TABLES];
    for (table, entries) in by_nibble.iter_mut().zip(const { &nibble_tables::<WORDS>() }) {
        *table = match entries {
            // SAFETY: 16 readable bytes.
            NibbleTable::Levels(pattern) => vqtbl1q_s8(levels, unsafe { vld1q_u8(pattern.as_ptr()) }),
            // SAFETY: 16 readable bytes.
            NibbleTable::Low(low) => unsafe { vld1q_s8(low.as_ptr()) },
        };
    }
    // SAFETY: 16 readable bytes.
    let multipliers = unsafe { vld1q_u8(multipliers.as_ptr()) };
    Tables { levels: by_nibble, multipliers }
}

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

/// The low and the high nibbles of codes.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn nibbles(codes: uint8x16_t) -> [uint8x16_t; 2] {
    [low_nibbles(codes), high_nibbles(codes)]
}

/// The low nibbles.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn low_nibbles(codes: uint8x16_t) -> uint8x16_t {
    vandq_u8(codes, vdupq_n_u8(15))
}

/// The high ones.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn high_nibbles(codes: uint8x16_t) -> uint8x16_t {
    vshrq_n_u8::<4>(codes)
}

/// The spare bits of three words of 3 bits, joined to nibbles.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn joined([a, b, c]: [uint8x16_t; 3]) -> uint8x16_t {
    let spare = SPARE_BITS.map(|bits| vdupq_n_u8(bits));
    insert(insert(a, b, spare[1]), c, spare[2])
}

/// The levels of half a tile in quads `2 * PAIR` and `2 * PAIR + 1` of a unit: `codes` is the word that holds them (at 3 bits the joined
/// spare bits, for pair 3), `low` the word of their low bits at a stacked width.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn levels<const WORDS: usize, const PAIR: usize>(
    tables: &Tables,
    codes: uint8x16_t,
    low: uint8x16_t,
) -> [int8x16_t; 2] {
    let tables = &tables.levels;
    let both = nibbles(codes);
    if WORDS == 2 {
        // A nibble holds both quads.
        return [vqtbl1q_s8(tables[0], both[PAIR % 2]), vqtbl1q_s8(tables[1], both[PAIR % 2])];
    }
    let table = tables[if WORDS == 3 { PAIR } else { 0 }];
    let levels = [vqtbl1q_s8(table, both[0]), vqtbl1q_s8(table, both[1])];
    if !is_stacked::<WORDS>() {
        return levels;
    }
    let part = low_part::<WORDS>(PAIR);
    let low = nibbles(low)[part.nibble];
    [
        vaddq_s8(levels[0], vqtbl1q_s8(tables[part.tables[0]], low)),
        vaddq_s8(levels[1], vqtbl1q_s8(tables[part.tables[1]], low)),
    ]
}

/// The scale codes of two tiles, a byte a row.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn load_octets([first, second]: [&[u8; TILE_ROWS]; 2]) -> uint8x16_t {
    // SAFETY: eight readable bytes.
    let low = unsafe { vld1_u8(first.as_ptr()) };
    let both = vreinterpretq_u64_u8(vcombine_u8(low, low));
    // SAFETY: eight readable bytes, at any address.
    vreinterpretq_u8_u64(unsafe { vld1q_lane_u64::<1>(second.as_ptr().cast(), both) })
}
