//! Levels and multipliers by TBL, for NEON with and without dotprod.
//!
//! Every function here is for a processor with NEON and is called from functions compiled for it.

use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{NibbleTable, TABLES, is_stacked, low_part, nibble_tables};
use core::arch::aarch64::*;
use rescomp_formats::encodings::int3::LOW_CODE;
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

/// The words of a unit by pair of quads, and in each rows 0 to 3 and 4 to 7 of a tile.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Loaded {
    codes: [[uint8x16_t; 2]; 4],
    /// Of the low bits at a stacked width.
    low: [[uint8x16_t; 2]; 4],
}

/// Nothing loaded.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn nothing() -> Loaded {
    let nothing = [[vdupq_n_u8(0); 2]; 4];
    Loaded { codes: nothing, low: nothing }
}

/// Loads what holds quads `2 * PAIR` and `2 * PAIR + 1` of a unit, where no earlier pair has. To be called with rising `PAIR`.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn load<const WORDS: usize, const PAIR: usize>(
    words: &[Word; WORDS],
    loaded: &mut Loaded,
) {
    let codes = &mut loaded.codes;
    if WORDS == 2 && PAIR % 2 == 1 {
        codes[PAIR] = codes[PAIR - 1];
    } else if WORDS == 3 && PAIR == 3 {
        for half in 0..2 {
            codes[PAIR][half] = joined([codes[0][half], codes[1][half], codes[2][half]]);
        }
    } else {
        codes[PAIR] = load_word(&words[if WORDS == 2 { PAIR / 2 } else { PAIR }]);
    }
    if is_stacked::<WORDS>() {
        let word = low_part::<WORDS>(PAIR).word;
        loaded.low[PAIR] = match PAIR {
            1.. if low_part::<WORDS>(PAIR - 1).word == word => loaded.low[PAIR - 1],
            _ => load_word(&words[word]),
        };
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_word(word: &Word) -> [uint8x16_t; 2] {
    let (halves, _) = word.as_chunks::<16>();
    // SAFETY: 16 readable bytes each.
    unsafe { [vld1q_u8(halves[0].as_ptr()), vld1q_u8(halves[1].as_ptr())] }
}

/// The levels of half a tile in quads `2 * PAIR` and `2 * PAIR + 1` of a unit; `WIDE` as below.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn levels<const WORDS: usize, const PAIR: usize, const WIDE: bool>(
    tables: &Tables,
    loaded: &Loaded,
    half: usize,
) -> [int8x16_t; 2] {
    let codes = loaded.codes[PAIR][half];
    match (WORDS, PAIR) {
        (3, 3) => levels_of_joined(tables, codes),
        (3, _) => levels_of_three_bits::<WIDE>(tables, codes),
        _ => levels_of::<WORDS, PAIR>(tables, codes, loaded.low[PAIR][half]),
    }
}

/// The levels of a word of 3 bits, the fourth one included. `WIDE`: by a table of two registers what is four times a code, which spares a
/// shift, and on a Cortex-A72 takes two operations more.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn levels_of_three_bits<const WIDE: bool>(
    tables: &Tables,
    codes: uint8x16_t,
) -> [int8x16_t; 2] {
    let [table, first, second, ..] = tables.levels;
    let low = if WIDE {
        vqtbl2q_s8(int8x16x2_t(first, second), vandq_u8(codes, vdupq_n_u8(LOW_CODE)))
    } else {
        vqtbl1q_s8(table, vandq_u8(vshrq_n_u8::<2>(codes), vdupq_n_u8(7)))
    };
    [low, vqtbl1q_s8(table, vshrq_n_u8::<5>(codes))]
}

/// The levels of the fourth word of 3 bits, from what [`joined`] gives.
#[inline]
#[target_feature(enable = "neon")]
fn levels_of_joined(tables: &Tables, joined: uint8x16_t) -> [int8x16_t; 2] {
    let (table, code) = (tables.levels[0], vdupq_n_u8(7));
    let high = vandq_u8(vshrq_n_u8::<3>(joined), code);
    [vqtbl1q_s8(table, vandq_u8(joined, code)), vqtbl1q_s8(table, high)]
}

/// The levels of half a tile in quads `2 * PAIR` and `2 * PAIR + 1` of a unit, but for 3 bits: `codes` is the word that holds them, `low`
/// the word of their low bits at a stacked width.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn levels_of<const WORDS: usize, const PAIR: usize>(
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
    let levels = [vqtbl1q_s8(tables[0], both[0]), vqtbl1q_s8(tables[0], both[1])];
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

/// The fourth word of 3 bits, from the spare bits of the others.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn fourth_word(words: [uint8x16_t; 3]) -> uint8x16_t {
    vshlq_n_u8::<2>(joined(words))
}

/// The spare bits of three words of 3 bits: bits 0 to 5 are those of the fourth word, two bits lower.
#[inline]
#[target_feature(enable = "neon")]
fn joined([a, b, c]: [uint8x16_t; 3]) -> uint8x16_t {
    vsliq_n_u8::<2>(c, vsliq_n_u8::<2>(b, a))
}

/// The multipliers that the nibbles of two tiles' rows name, by tile.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn multipliers_of_tiles(
    multipliers: uint8x16_t,
    nibbles: uint8x16_t,
) -> [uint16x8_t; 2] {
    let multipliers = vqtbl1q_u8(multipliers, nibbles);
    [vmovl_u8(vget_low_u8(multipliers)), vmovl_high_u8(multipliers)]
}

/// The multipliers of a tile's rows, from the low nibbles (`NIBBLE` 0) or the high ones of a byte a row.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn multipliers<const NIBBLE: usize>(
    tables: &Tables,
    scale_codes: u64,
) -> [int32x4_t; 2] {
    let codes = vcreate_u8(scale_codes);
    let nibbles = if NIBBLE == 0 { vand_u8(codes, vdup_n_u8(15)) } else { vshr_n_u8::<4>(codes) };
    let bytes = vcombine_u8(vqtbl1_u8(tables.multipliers, nibbles), vdup_n_u8(0));
    // Indices beyond the register give zero: the upper three bytes of each number.
    const SPREAD: [[u8; 16]; 2] = [
        [0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 3, 255, 255, 255],
        [4, 255, 255, 255, 5, 255, 255, 255, 6, 255, 255, 255, 7, 255, 255, 255],
    ];
    let mut spread = [vdupq_n_s32(0); 2];
    for (spread, pattern) in spread.iter_mut().zip(&SPREAD) {
        // SAFETY: 16 readable bytes.
        *spread = vreinterpretq_s32_u8(vqtbl1q_u8(bytes, unsafe { vld1q_u8(pattern.as_ptr()) }));
    }
    spread
}

/// Zero in each row.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn zero() -> [int32x4_t; 2] {
    [vdupq_n_s32(0); 2]
}

/// Row by row.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn multiply(integers: [int32x4_t; 2], multipliers: [int32x4_t; 2]) -> [int32x4_t; 2] {
    [vmulq_s32(integers[0], multipliers[0]), vmulq_s32(integers[1], multipliers[1])]
}

/// `totals + integers * multipliers`, row by row.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn multiply_add(
    totals: [int32x4_t; 2],
    integers: [int32x4_t; 2],
    multipliers: [int32x4_t; 2],
) -> [int32x4_t; 2] {
    [vmlaq_s32(totals[0], integers[0], multipliers[0]), vmlaq_s32(totals[1], integers[1], multipliers[1])]
}
