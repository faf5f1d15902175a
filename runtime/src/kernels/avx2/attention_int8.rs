//! Attention over int8 codes on AVX2.
//!
//! Codes are widened to 16 bits, and VPMADDWD multiplies sixteen and adds pairs of products: at most 2 * 127 * 127 in scores, and with
//! weights of 15 bits, sign included, 2 * 16383 * 128. Values lie in pairs of positions, so that a pair of products is of one column.

use super::lanes::Avx2Lanes;
use crate::kernels::attention_int8::{Block, Int8Sums, KEYS};
use crate::kernels::code_products::{CodeProducts, scores_in_chunks};
use crate::kernels::instantiate::attention_int8;
use crate::kernels::lanes::LANES;
use core::arch::x86_64::*;

attention_int8!(AttentionSums, "avx2,fma,f16c");

struct AttentionSums;

impl Int8Sums for AttentionSums {
    type Lanes = Avx2Lanes;
    const INTERLEAVED: usize = POSITIONS;
    // Sums of more don't fit the registers.
    const TOGETHER: usize = 2;

    #[inline(always)]
    fn scores<const Q: usize, const N: usize>(
        queries: [&[i8]; Q],
        factors: [f32; Q],
        keys: [&[i8]; KEYS],
        key_scales: &[f32; KEYS],
    ) -> [[f32; KEYS]; Q] {
        scores_in_chunks::<Self, Q, N>(queries, factors, keys, key_scales)
    }

    #[inline(always)]
    fn columns<const Q: usize>(block: &Block<'_, Q>, outputs: &mut [&mut [f32]; Q]) -> usize {
        // SAFETY: instantiated only in the functions above, which have AVX2.
        unsafe { columns::<Self, Q>(block, outputs) }
    }
}

impl Products for AttentionSums {
    #[inline(always)]
    unsafe fn add_pairs(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { add(sums, a, b) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(a, b))
}

/// Products of numbers of 16 bits.
pub(in crate::kernels) trait Products {
    /// Adds pairs of sixteen products to eight sums.
    ///
    /// # Safety
    /// The processor has AVX2, and what a backend asks for beside it.
    unsafe fn add_pairs(sums: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

/// Positions whose values lie side by side.
pub(in crate::kernels) const POSITIONS: usize = 2;

impl<P: Products> CodeProducts for P {
    type Codes = __m256i;
    type Sums = __m256i;

    #[inline(always)]
    fn load(codes: &[i8; LANES]) -> __m256i {
        // SAFETY: instantiated only in functions that have AVX2, FMA and what the backend asks for; likewise below.
        unsafe { widened(codes) }
    }
    #[inline(always)]
    fn zero() -> __m256i {
        // SAFETY: likewise.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: likewise.
        unsafe { P::add_pairs(sums, a, b) }
    }
    #[inline(always)]
    fn scaled(sums: [__m256i; KEYS], key_scales: &[f32; KEYS], factor: f32) -> [f32; KEYS] {
        // SAFETY: likewise.
        unsafe { scaled(sums, key_scales, factor) }
    }
}

/// Sixteen codes in 16 bits each.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(codes: &[i8; LANES]) -> __m256i {
    // SAFETY: 16 readable bytes; no alignment needed.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) })
}

/// Folds the eight sums of each key, and scales them.
#[inline]
#[target_feature(enable = "avx2")]
fn scaled([a, b, c, d]: [__m256i; KEYS], key_scales: &[f32; KEYS], factor: f32) -> [f32; KEYS] {
    let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    // SAFETY: four readable numbers; no alignment needed.
    let scales = unsafe { _mm_loadu_ps(key_scales.as_ptr()) };
    let scales = _mm_mul_ps(scales, _mm_set1_ps(factor));
    let scaled = _mm_mul_ps(_mm_cvtepi32_ps(sums), scales);
    let mut scores = [0.0; KEYS];
    // SAFETY: four writable numbers; no alignment needed.
    unsafe { _mm_storeu_ps(scores.as_mut_ptr(), scaled) };
    scores
}

/// Columns in a register of sums.
const COLUMNS: usize = 8;

/// [`Int8Sums::columns`]: as many columns at once as their sums fit the registers.
///
/// # Safety
/// That of [`Products::add_pairs`], and the processor has FMA.
#[inline(always)]
pub(in crate::kernels) unsafe fn columns<P: Products, const Q: usize>(
    block: &Block<'_, Q>,
    outputs: &mut [&mut [f32]; Q],
) -> usize {
    let (e, mut at) = (outputs[0].len(), 0);
    while at + 4 * COLUMNS <= e {
        // SAFETY: the caller's.
        unsafe { add_columns::<P, Q, 4>(block, at, outputs) };
        at += 4 * COLUMNS;
    }
    while at + COLUMNS <= e {
        // SAFETY: likewise.
        unsafe { add_columns::<P, Q, 1>(block, at, outputs) };
        at += COLUMNS;
    }
    at
}

/// `R` times eight columns from column `at` on.
///
/// # Safety
/// That of [`columns`].
#[inline(always)]
unsafe fn add_columns<P: Products, const Q: usize, const R: usize>(
    block: &Block<'_, Q>,
    at: usize,
    outputs: &mut [&mut [f32]; Q],
) {
    let e = outputs[0].len();
    // SAFETY: the caller's, here and below.
    let zero = unsafe { _mm256_setzero_si256() };
    let (mut sums, mut weights) = ([[zero; R]; Q], [zero; Q]);
    let pairs = block.values.chunks_exact(POSITIONS * e);
    for (index, values) in pairs.enumerate().take(block.positions.div_ceil(POSITIONS)) {
        for (weights, codes) in weights.iter_mut().zip(&block.codes) {
            let [first, second] = codes.as_chunks::<POSITIONS>().0[index];
            let pair = i32::from(second) << 16 | i32::from(first) & 0xffff;
            // SAFETY: likewise.
            *weights = unsafe { _mm256_set1_epi32(pair) };
        }
        let Some(values) = values[POSITIONS * at..].as_chunks().0.first_chunk::<R>() else { return };
        for register in 0..R {
            // SAFETY: likewise.
            let values = unsafe { widened(&values[register]) };
            for (sums, weights) in sums.iter_mut().zip(weights) {
                // SAFETY: likewise.
                sums[register] = unsafe { P::add_pairs(sums[register], values, weights) };
            }
        }
    }
    for ((sums, output), &unit) in sums.iter().zip(outputs).zip(&block.units) {
        let Some(output) = output[at..].as_chunks_mut().0.first_chunk_mut::<R>() else { return };
        for register in 0..R {
            // SAFETY: likewise.
            unsafe { add_scaled(sums[register], unit, &mut output[register]) };
        }
    }
}

/// Adds sums times the row's unit to eight outputs.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_scaled(sums: __m256i, unit: f32, outputs: &mut [f32; COLUMNS]) {
    // SAFETY: eight readable numbers; no alignment needed.
    let before = unsafe { _mm256_loadu_ps(outputs.as_ptr()) };
    let scaled = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(unit), before);
    // SAFETY: eight writable numbers; no alignment needed.
    unsafe { _mm256_storeu_ps(outputs.as_mut_ptr(), scaled) };
}
