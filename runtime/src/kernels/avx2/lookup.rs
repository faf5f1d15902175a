//! Levels of codes by VPSHUFB, eight rows a register, and the end of a group: what AVX2 and AVX-512 VNNI do alike.
//!
//! Both multiply unsigned by signed bytes. So the tables hold levels plus their bound, which are not negative, and
//! `bound * sum(activations)` is taken off at the end of a group.

use super::lanes::widened;
use super::load;
use crate::kernels::TILE_ROWS;
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{
    LowPart, NibbleTable, TABLES, is_stacked, low_part, nibble_tables, width,
};
use core::arch::x86_64::*;
use rescomp_formats::encodings::MAX_UNIT_WORDS;
use rescomp_formats::encodings::int3::SPARE_BITS;
use rescomp_formats::matrix::TABLE_ENTRIES;

/// The tables of a matrix, each in both halves of a register.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Tables {
    /// Levels plus their bound, by nibble: as many tables as the width needs.
    levels: [__m256i; TABLES],
    multipliers: __m128i,
}

pub(in crate::kernels) const fn bound<const WORDS: usize>() -> i8 {
    width::<WORDS>().level_bound()
}

#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn tables<const WORDS: usize>(
    levels: &[i8; TABLE_ENTRIES],
    multipliers: &[u8; TABLE_ENTRIES],
) -> Tables {
    // SAFETY: 16 readable bytes; no alignment needed.
    let levels = unsafe { _mm_loadu_si128(levels.as_ptr().cast()) };
    let levels = _mm_add_epi8(levels, _mm_set1_epi8(bound::<WORDS>()));
    let mut by_nibble = [_mm256_setzero_si256(); TABLES];
    for (table, entries) in by_nibble.iter_mut().zip(const { &nibble_tables::<WORDS>() }) {
        *table = _mm256_broadcastsi128_si256(match entries {
            NibbleTable::Levels(pattern) => {
                // SAFETY: 16 readable bytes; no alignment needed.
                _mm_shuffle_epi8(levels, unsafe { _mm_loadu_si128(pattern.as_ptr().cast()) })
            }
            // SAFETY: likewise.
            NibbleTable::Low(low) => unsafe { _mm_loadu_si128(low.as_ptr().cast()) },
        });
    }
    // SAFETY: 16 readable bytes; no alignment needed.
    let multipliers = unsafe { _mm_loadu_si128(multipliers.as_ptr().cast()) };
    Tables { levels: by_nibble, multipliers }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(in crate::kernels) fn rows(sums: __m256, row_scales: &[u16; TILE_ROWS], unit: f32) -> [f32; TILE_ROWS] {
    let outputs = _mm256_mul_ps(sums, _mm256_mul_ps(widened(row_scales), _mm256_set1_ps(unit)));
    let mut rows = [0.0; TILE_ROWS];
    // SAFETY: eight writable values; no alignment needed.
    unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), outputs) };
    rows
}

/// The levels plus bound of a tile's rows in a unit, by quad.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn quads<const WORDS: usize>(tables: &Tables, words: &[Word; WORDS]) -> [__m256i; 8] {
    let mut codes = [_mm256_setzero_si256(); MAX_UNIT_WORDS];
    for (codes, word) in codes.iter_mut().zip(words) {
        // SAFETY: has AVX2.
        *codes = unsafe { load(word) };
    }
    if WORDS == 3 {
        return quads_of_three_bits(tables, [codes[0], codes[1], codes[2]]);
    }
    let mut quads = [_mm256_setzero_si256(); 8];
    for pair in 0..4 {
        let [low, high] = nibbles(codes[if WORDS == 2 { pair / 2 } else { pair }]);
        // At 2 bits a nibble holds both quads.
        let (even, odd) = match (WORDS, pair % 2) {
            (2, 0) => ((0, low), (1, low)),
            (2, _) => ((0, high), (1, high)),
            _ => ((0, low), (0, high)),
        };
        quads[2 * pair] = _mm256_shuffle_epi8(tables.levels[even.0], even.1);
        quads[2 * pair + 1] = _mm256_shuffle_epi8(tables.levels[odd.0], odd.1);
        if is_stacked::<WORDS>() {
            let LowPart { word, nibble, tables: [even, odd] } = low_part::<WORDS>(pair);
            let low = nibbles(codes[word])[nibble];
            for (quad, table) in [(2 * pair, even), (2 * pair + 1, odd)] {
                let part = _mm256_shuffle_epi8(tables.levels[table], low);
                quads[quad] = _mm256_add_epi8(quads[quad], part);
            }
        }
    }
    quads
}

/// [`quads`] at 3 bits. A lookup ignores bits 4 to 6 of an index, and the table the one beside a code.
#[inline]
#[target_feature(enable = "avx2")]
fn quads_of_three_bits(tables: &Tables, words: [__m256i; 3]) -> [__m256i; 8] {
    let (table, code) = (tables.levels[0], _mm256_set1_epi8(7));
    // The fourth word, two bits lower.
    let mut joined = _mm256_setzero_si256();
    let mut quads = [_mm256_setzero_si256(); 8];
    for (pair, word) in words.into_iter().enumerate() {
        let spare = _mm256_and_si256(word, _mm256_set1_epi8(SPARE_BITS as i8));
        joined = _mm256_or_si256(_mm256_slli_epi16::<2>(joined), spare);
        let low = _mm256_and_si256(_mm256_srli_epi16::<2>(word), code);
        let high = _mm256_and_si256(_mm256_srli_epi16::<5>(word), code);
        quads[2 * pair] = _mm256_shuffle_epi8(table, low);
        quads[2 * pair + 1] = _mm256_shuffle_epi8(table, high);
    }
    quads[6] = _mm256_shuffle_epi8(table, joined);
    quads[7] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<3>(joined), code));
    quads
}

/// The low and the high nibble of each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(codes: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    [_mm256_and_si256(codes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask)]
}

/// Adds a group's integer sums times its multipliers, which the low nibbles of `scale_codes` choose, to `totals`.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn add_group<const TILES: usize, const TOKENS: usize>(
    tables: &Tables,
    scale_codes: [u64; TILES],
    integers: [[__m256i; TOKENS]; TILES],
    offsets: [__m256i; TOKENS],
    totals: &mut [[__m256i; TOKENS]; TILES],
) {
    for tile in 0..TILES {
        let nibbles = _mm_cvtsi64_si128((scale_codes[tile] & 0x0f0f_0f0f_0f0f_0f0f) as i64);
        let multipliers = _mm256_cvtepu8_epi32(_mm_shuffle_epi8(tables.multipliers, nibbles));
        for token in 0..TOKENS {
            let exact = _mm256_sub_epi32(integers[tile][token], sum_in_every_lane(offsets[token]));
            let product = _mm256_mullo_epi32(exact, multipliers);
            totals[tile][token] = _mm256_add_epi32(totals[tile][token], product);
        }
    }
}

/// Four activations in every lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn quad(codes: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes(codes.map(|code| code as u8)))
}

/// The sum of eight lanes, in each of them.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn sum_in_every_lane(lanes: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(lanes, _mm256_permute2x128_si256::<0x01>(lanes, lanes));
    let sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32::<0b01_00_11_10>(sum));
    _mm256_add_epi32(sum, _mm256_shuffle_epi32::<0b10_11_00_01>(sum))
}
