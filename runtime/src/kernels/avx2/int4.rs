//! 4-bit codes on AVX2.
//!
//! VPMADDUBSW multiplies unsigned by signed bytes and adds pairs in int16. So codes become unsigned by an offset of 8
//! (`nibble xor 8` is `code + 8`), and `8 * sum(activations)` is taken off at the end of a step:
//! `sum((code + 8) * a) - 8 * sum(a) = sum(code * a)`. A pair is at most 2 * 15 * 127 = 3810, so the eight pairs that a unit of
//! 32 columns brings to a lane fit an int16.

use super::{add_step, load};
use crate::kernels::nr8k4::{self, Step, Word};
use crate::kernels::{Activations, OutputRows, TILE_ROWS};
use core::arch::x86_64::*;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

const UNIT_WORDS: usize = 4;

pub(super) fn gemv(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
    unsafe { gemv_int4_avx2(m, a, tiles, output) }
}

pub(super) fn gemm(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
    unsafe { gemm_int4_avx2(m, a, tiles, output) }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn gemv_int4_avx2(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
    nr8k4::gemv::<Int4, UNIT_WORDS>(m, a, tiles, output);
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn gemm_int4_avx2(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
    nr8k4::gemm::<Int4, UNIT_WORDS>(m, a, tiles, output);
}

struct Int4;

impl Step<UNIT_WORDS> for Int4 {
    const WIDTH: CodeWidth = CodeWidth::Int4;
    type Sums = __m256;

    #[inline(always)]
    fn zero() -> __m256 {
        // SAFETY: instantiated only in the functions above, which have AVX2.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn rows(sums: __m256) -> [f32; TILE_ROWS] {
        let mut rows = [0.0; TILE_ROWS];
        // SAFETY: eight writable values; instantiated only in the functions above, which have AVX2.
        unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), sums) };
        rows
    }

    #[inline(always)]
    fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
        weights: [&[[Word; UNIT_WORDS]]; TILES],
        weight_scales: [&[u16; TILE_ROWS]; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [f32; TOKENS],
        sums: &mut [[__m256; TOKENS]; TILES],
    ) {
        // SAFETY: instantiated only in the functions above, which have AVX2, FMA and F16C.
        unsafe { add::<TILES, TOKENS, UNITS>(weights, weight_scales, activations, activation_scales, sums) }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
    weights: [&[[Word; UNIT_WORDS]]; TILES],
    weight_scales: [&[u16; TILE_ROWS]; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [f32; TOKENS],
    sums: &mut [[__m256; TOKENS]; TILES],
) {
    let units = if UNITS == 0 { weights[0].len() } else { UNITS };
    let (ones, nibble) = (_mm256_set1_epi16(1), _mm256_set1_epi8(0x0f));
    let (flip, eights) = (_mm256_set1_epi8(0x88u8 as i8), _mm256_set1_epi8(8));
    let mut integers = [[_mm256_setzero_si256(); TOKENS]; TILES];
    let mut offsets = [_mm256_setzero_si256(); TOKENS];
    for unit in 0..units {
        for token in 0..TOKENS {
            // SAFETY: has AVX2.
            let codes = unsafe { load(&activations[token][unit]) };
            let pairs = _mm256_maddubs_epi16(eights, codes);
            offsets[token] = _mm256_add_epi32(offsets[token], _mm256_madd_epi16(pairs, ones));
        }
        let mut pairs = [[_mm256_setzero_si256(); TOKENS]; TILES];
        for word in 0..UNIT_WORDS {
            for tile in 0..TILES {
                // SAFETY: has AVX2.
                let codes = unsafe { load(&weights[tile][unit][word]) };
                let codes = _mm256_xor_si256(codes, flip);
                let low = _mm256_and_si256(codes, nibble);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
                for token in 0..TOKENS {
                    let (quads, _) = activations[token][unit].as_chunks::<4>();
                    let with_low = _mm256_maddubs_epi16(low, quad(quads[word]));
                    let with_high = _mm256_maddubs_epi16(high, quad(quads[word + 4]));
                    let both = _mm256_add_epi16(with_low, with_high);
                    pairs[tile][token] = _mm256_add_epi16(pairs[tile][token], both);
                }
            }
        }
        for tile in 0..TILES {
            for token in 0..TOKENS {
                let quads = _mm256_madd_epi16(pairs[tile][token], ones);
                integers[tile][token] = _mm256_add_epi32(integers[tile][token], quads);
            }
        }
    }
    for token in 0..TOKENS {
        let offset = sum_in_every_lane(offsets[token]);
        for tile in 0..TILES {
            let integers = _mm256_sub_epi32(integers[tile][token], offset);
            sums[tile][token] =
                add_step(integers, weight_scales[tile], activation_scales[token], sums[tile][token]);
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
