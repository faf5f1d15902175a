//! 2 to 6 bits on AVX2, with VPSHUFB.
//!
//! VPMADDUBSW multiplies unsigned by signed bytes and adds pairs in int16. So the tables hold levels plus their bound, which are
//! not negative, and `bound * sum(activations)` is taken off at the end of a group. A pair is at most 2 * 126 * 127 = 32004 at 4
//! and 6 bits, which fits its int16 and is widened at once, and 2 * 62 * 127 = 15748 at 2, 3 and 5 bits, two of which fit.

use super::load;
use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{
    BLOCK_STEPS, BLOCK_UNITS, Block, Blocks, LowPart, NibbleTable, STEP_UNITS, ScaleCodes, TABLES,
    is_stacked, low_part, nibble_tables, width,
};
use core::arch::x86_64::*;
use rescomp_formats::encodings::int3::SPARE_BITS;
use rescomp_formats::encodings::{MAX_UNIT_WORDS, UNIT_ELEMS};
use rescomp_formats::matrix::TABLE_ENTRIES;

products! { "avx2,fma,f16c", "avx2":
    INT2 = "int2", Blocks<Codebook, 2>, gemv_int2_avx2, gemm_int2_avx2;
    INT3 = "int3", Blocks<Codebook, 3>, gemv_int3_avx2, gemm_int3_avx2;
    INT4 = "int4", Blocks<Codebook, 4>, gemv_int4_avx2, gemm_int4_avx2;
    INT5 = "int5", Blocks<Codebook, 5>, gemv_int5_avx2, gemm_int5_avx2;
    INT6 = "int6", Blocks<Codebook, 6>, gemv_int6_avx2, gemm_int6_avx2;
}

struct Codebook;

/// The tables of a matrix, each in both halves of a register.
#[derive(Clone, Copy)]
struct Tables {
    /// Levels plus their bound, by nibble: as many tables as the width needs.
    levels: [__m256i; TABLES],
    multipliers: __m128i,
}

const fn bound<const WORDS: usize>() -> i8 {
    width::<WORDS>().level_bound()
}

impl<const WORDS: usize> Block<WORDS> for Codebook {
    const MOST_TOKENS: usize = 4;
    type Tables = Tables;
    type Sums = __m256;

    #[inline(always)]
    fn tables(levels: &[i8; TABLE_ENTRIES], multipliers: &[u8; TABLE_ENTRIES]) -> Tables {
        // SAFETY: instantiated only in the functions above, which have AVX2.
        unsafe { tables::<WORDS>(levels, multipliers) }
    }

    #[inline(always)]
    fn zero() -> __m256 {
        // SAFETY: instantiated only in the functions above, which have AVX2.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn rows(sums: __m256, row_scales: &[u16; TILE_ROWS], unit: f32) -> [f32; TILE_ROWS] {
        // SAFETY: instantiated only in the functions above, which have AVX2 and F16C.
        unsafe { rows(sums, row_scales, unit) }
    }

    #[inline(always)]
    fn add<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
        tables: Tables,
        weights: [&[[Word; WORDS]; BLOCK_UNITS]; TILES],
        scale_codes: [ScaleCodes; TILES],
        activations: [&[[i8; UNIT_ELEMS]; BLOCK_UNITS]; TOKENS],
        scales: [&[f32; BLOCK_STEPS]; TOKENS],
        sums: &mut [[__m256; TOKENS]; TILES],
    ) {
        let (weights, activations) = (weights.map(|w| w.as_slice()), activations.map(|a| a.as_slice()));
        let scales = scales.map(|scales| scales.as_slice());
        // SAFETY: instantiated only in the functions above, which have AVX2 and FMA.
        unsafe {
            add::<WORDS, TILES, TOKENS, true, GROUP>(tables, weights, scale_codes, activations, scales, sums)
        }
    }

    #[inline(always)]
    fn add_rest<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
        tables: Tables,
        weights: [&[[Word; WORDS]]; TILES],
        scale_codes: [ScaleCodes; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        scales: [&[f32]; TOKENS],
        sums: &mut [[__m256; TOKENS]; TILES],
    ) {
        // SAFETY: instantiated only in the functions above, which have AVX2 and FMA.
        unsafe {
            add::<WORDS, TILES, TOKENS, false, GROUP>(tables, weights, scale_codes, activations, scales, sums)
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn tables<const WORDS: usize>(levels: &[i8; TABLE_ENTRIES], multipliers: &[u8; TABLE_ENTRIES]) -> Tables {
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
fn rows(sums: __m256, row_scales: &[u16; TILE_ROWS], unit: f32) -> [f32; TILE_ROWS] {
    // SAFETY: 16 readable bytes; no alignment needed.
    let scales = unsafe { _mm_loadu_si128(row_scales.as_ptr().cast()) };
    let outputs = _mm256_mul_ps(sums, _mm256_mul_ps(_mm256_cvtph_ps(scales), _mm256_set1_ps(unit)));
    let mut rows = [0.0; TILE_ROWS];
    // SAFETY: eight writable values; no alignment needed.
    unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), outputs) };
    rows
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const WORDS: usize, const TILES: usize, const TOKENS: usize, const WHOLE: bool, const GROUP: usize>(
    tables: Tables,
    weights: [&[[Word; WORDS]]; TILES],
    scale_codes: [ScaleCodes; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [&[f32]; TOKENS],
    sums: &mut [[__m256; TOKENS]; TILES],
) {
    let units = if WHOLE { BLOCK_UNITS } else { weights[0].len() };
    for step in 0..units.div_ceil(STEP_UNITS) {
        let step_units = STEP_UNITS * step..units.min(STEP_UNITS * (step + 1));
        let mut totals = [[_mm256_setzero_si256(); TOKENS]; TILES];
        if GROUP == 32 {
            for unit in step_units {
                let nibble = 4 * (unit % STEP_UNITS);
                let mut integers = [[_mm256_setzero_si256(); TOKENS]; TILES];
                let mut offsets = [_mm256_setzero_si256(); TOKENS];
                add_unit(
                    &tables,
                    weights.map(|w| &w[unit]),
                    activations.map(|a| &a[unit]),
                    &mut integers,
                    &mut offsets,
                );
                add_group(
                    &tables,
                    scale_codes.map(|codes| codes[step] >> nibble),
                    integers,
                    offsets,
                    &mut totals,
                );
            }
        } else {
            let mut integers = [[_mm256_setzero_si256(); TOKENS]; TILES];
            let mut offsets = [_mm256_setzero_si256(); TOKENS];
            for unit in step_units {
                add_unit(
                    &tables,
                    weights.map(|w| &w[unit]),
                    activations.map(|a| &a[unit]),
                    &mut integers,
                    &mut offsets,
                );
            }
            add_group(
                &tables,
                scale_codes.map(|codes| codes[0] >> (4 * step)),
                integers,
                offsets,
                &mut totals,
            );
        }
        for token in 0..TOKENS {
            let scale = _mm256_set1_ps(activation_scales[token][step]);
            for tile in 0..TILES {
                let total = _mm256_cvtepi32_ps(totals[tile][token]);
                sums[tile][token] = _mm256_fmadd_ps(total, scale, sums[tile][token]);
            }
        }
    }
}

/// Adds a unit's products of levels plus bound to `integers`, and of the bound alone to `offsets`, there not yet by row.
#[inline]
#[target_feature(enable = "avx2")]
fn add_unit<const WORDS: usize, const TILES: usize, const TOKENS: usize>(
    tables: &Tables,
    weights: [&[Word; WORDS]; TILES],
    activations: [&[i8; UNIT_ELEMS]; TOKENS],
    integers: &mut [[__m256i; TOKENS]; TILES],
    offsets: &mut [__m256i; TOKENS],
) {
    let ones = _mm256_set1_epi16(1);
    for token in 0..TOKENS {
        // SAFETY: has AVX2.
        let codes = unsafe { load(activations[token]) };
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(bound::<WORDS>()), codes);
        offsets[token] = _mm256_add_epi32(offsets[token], _mm256_madd_epi16(pairs, ones));
    }
    for tile in 0..TILES {
        let quads = quads(tables, weights[tile]);
        for token in 0..TOKENS {
            let (with, _) = activations[token].as_chunks::<4>();
            for pair in 0..4 {
                let even = _mm256_maddubs_epi16(quads[2 * pair], quad(with[2 * pair]));
                let odd = _mm256_maddubs_epi16(quads[2 * pair + 1], quad(with[2 * pair + 1]));
                let sum = &mut integers[tile][token];
                if bound::<WORDS>() > 31 {
                    // Two pairs don't fit.
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(even, ones));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(odd, ones));
                } else {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_add_epi16(even, odd), ones));
                }
            }
        }
    }
}

/// The levels plus bound of a tile's rows in a unit, by quad.
#[inline]
#[target_feature(enable = "avx2")]
fn quads<const WORDS: usize>(tables: &Tables, words: &[Word; WORDS]) -> [__m256i; 8] {
    let mut codes = [_mm256_setzero_si256(); MAX_UNIT_WORDS];
    for (codes, word) in codes.iter_mut().zip(words) {
        // SAFETY: has AVX2.
        *codes = unsafe { load(word) };
    }
    if WORDS == 3 {
        for word in 0..3 {
            let spare = _mm256_and_si256(codes[word], _mm256_set1_epi8(SPARE_BITS[word] as i8));
            codes[3] = _mm256_or_si256(codes[3], spare);
        }
    }
    let mut quads = [_mm256_setzero_si256(); 8];
    for pair in 0..4 {
        let [low, high] = nibbles(codes[if WORDS == 2 { pair / 2 } else { pair }]);
        // At 2 bits a nibble holds both quads.
        let (even, odd) = match (WORDS, pair % 2) {
            (2, 0) => ((0, low), (1, low)),
            (2, _) => ((0, high), (1, high)),
            (3, _) => ((pair, low), (pair, high)),
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
fn add_group<const TILES: usize, const TOKENS: usize>(
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
fn quad(codes: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes(codes.map(|code| code as u8)))
}

/// The sum of eight lanes, in each of them.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_in_every_lane(lanes: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(lanes, _mm256_permute2x128_si256::<0x01>(lanes, lanes));
    let sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32::<0b01_00_11_10>(sum));
    _mm256_add_epi32(sum, _mm256_shuffle_epi32::<0b10_11_00_01>(sum))
}
