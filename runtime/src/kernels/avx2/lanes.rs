//! Sixteen lanes as two registers.
//!
//! The methods are safe to the trait and must not be: a value of this type is made only inside functions that are compiled for
//! AVX2 and FMA and reached through `detect`. That is the "has AVX2" of every block below.

use crate::kernels::lanes::{Elementwise, FOLDED_TOGETHER, LANES, Lanes, Part};
use core::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx2Lanes([__m256; 2]);

/// One intrinsic on both registers.
macro_rules! each {
    ($intrinsic:ident $(, $operand:expr)*) => {
        Avx2Lanes([
            // SAFETY: has AVX2 and FMA (head of this file).
            unsafe { $intrinsic($($operand.0[0]),*) },
            // SAFETY: likewise.
            unsafe { $intrinsic($($operand.0[1]),*) },
        ])
    };
}

impl Elementwise for Avx2Lanes {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: has AVX2.
        Avx2Lanes([unsafe { _mm256_set1_ps(value) }; 2])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(_mm256_add_ps, self, other)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(_mm256_sub_ps, self, other)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each!(_mm256_mul_ps, self, other)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each!(_mm256_div_ps, self, other)
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        each!(_mm256_fmadd_ps, self, factor, addend)
    }
    #[inline(always)]
    fn negate(self) -> Self {
        each!(_mm256_xor_ps, self, Self::splat(-0.0))
    }
    // MAXPS and MINPS give their second operand where the comparison is false, as the trait defines it.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        each!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        each!(_mm256_min_ps, self, other)
    }
    #[inline(always)]
    fn zero_where_less(self, value: Self, bound: Self) -> Self {
        let less = each!(less_than, value, bound);
        each!(_mm256_andnot_ps, less, self)
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        each!(power_of_two, self)
    }
}

impl Lanes for Avx2Lanes {
    type Part = Avx2Half;
    const SUMS: usize = 4;
    // Sharing was measured to be slower: what it saves is little here, and registers are few.
    const ROWS: usize = 1;

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        let (halves, _) = values.as_chunks::<8>();
        Avx2Lanes([
            // SAFETY: eight readable values; has AVX2.
            unsafe { _mm256_loadu_ps(halves[0].as_ptr()) },
            // SAFETY: likewise.
            unsafe { _mm256_loadu_ps(halves[1].as_ptr()) },
        ])
    }
    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        let (halves, _) = values.as_chunks::<8>();
        Avx2Lanes([
            // SAFETY: has F16C.
            unsafe { widened(&halves[0]) },
            // SAFETY: likewise.
            unsafe { widened(&halves[1]) },
        ])
    }
    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        let (halves, _) = values.as_chunks_mut::<8>();
        for (half, register) in halves.iter_mut().zip(self.0) {
            // SAFETY: eight writable values; has AVX2.
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), register) };
        }
    }
    #[inline(always)]
    fn larger_magnitude(self, other: Self) -> Self {
        each!(larger_magnitude, self, other)
    }
    #[inline(always)]
    fn to_codes(self) -> [i8; LANES] {
        // SAFETY: has AVX2.
        unsafe { to_codes(self.0[0], self.0[1]) }
    }
    #[inline(always)]
    fn to_words(self) -> [i16; LANES] {
        // SAFETY: has AVX2.
        unsafe { to_words(self.0) }
    }
    #[inline(always)]
    fn to_f16(self) -> [u16; LANES] {
        // SAFETY: has F16C.
        unsafe { to_f16(self.0) }
    }
    #[inline(always)]
    fn fold_larger(self) -> f32 {
        // SAFETY: has AVX2.
        unsafe { fold_larger(self.0[0], self.0[1]) }
    }
    #[inline(always)]
    fn fold_sum(self) -> f32 {
        // SAFETY: has AVX2.
        unsafe { fold_sum(self.0[0], self.0[1]) }
    }
}

/// One of the registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2Half(__m256);

impl Part for Avx2Half {
    /// Eight lanes.
    type Folded = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: has AVX2.
        Avx2Half(unsafe { _mm256_setzero_ps() })
    }
    #[inline(always)]
    fn load(values: &[f32; LANES], part: usize) -> Self {
        let (halves, _) = values.as_chunks::<8>();
        // SAFETY: eight readable values; has AVX2.
        Avx2Half(unsafe { _mm256_loadu_ps(halves[part].as_ptr()) })
    }
    #[inline(always)]
    fn load_f16(values: &[u16; LANES], part: usize) -> Self {
        let (halves, _) = values.as_chunks::<8>();
        // SAFETY: has F16C.
        Avx2Half(unsafe { widened(&halves[part]) })
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        // SAFETY: has FMA.
        Avx2Half(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    fn folded(self, second: Self) -> __m256 {
        // SAFETY: has AVX2.
        unsafe { _mm256_add_ps(self.0, second.0) }
    }
    #[inline(always)]
    fn fold_sums(sums: [__m256; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER] {
        // SAFETY: has AVX2.
        unsafe { fold_eights(sums) }
    }
}

/// Eight binary16 numbers, exactly.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(in crate::kernels) fn widened(values: &[u16; 8]) -> __m256 {
    // SAFETY: 16 readable bytes; no alignment needed.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn less_than(value: __m256, bound: __m256) -> __m256 {
    _mm256_cmp_ps::<_CMP_LT_OQ>(value, bound)
}

#[inline]
#[target_feature(enable = "avx2")]
fn power_of_two(shifted: __m256) -> __m256 {
    let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
    _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_castps_si256(_mm256_set1_ps(1.0))))
}

#[inline]
#[target_feature(enable = "avx2")]
fn larger_magnitude(a: __m256, b: __m256) -> __m256 {
    let sign = _mm256_set1_ps(-0.0);
    let b = _mm256_castps_si256(_mm256_andnot_ps(sign, b));
    _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn to_codes(low: __m256, high: __m256) -> [i8; LANES] {
    // Rounds to nearest, ties to even: the mode that Rust guarantees.
    let words = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
    // Packing works within halves of 128 bits; put the four quarters back in order.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
    let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
    let mut codes = [0; LANES];
    // SAFETY: 16 writable bytes; no alignment needed.
    unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), bytes) };
    codes
}

#[inline]
#[target_feature(enable = "avx2")]
fn to_words([low, high]: [__m256; 2]) -> [i16; LANES] {
    // As in `to_codes`.
    let words = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
    let mut numbers = [0; LANES];
    // SAFETY: 32 writable bytes; no alignment needed.
    unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), words) };
    numbers
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn to_f16(lanes: [__m256; 2]) -> [u16; LANES] {
    let mut numbers = [0; LANES];
    let (halves, _) = numbers.as_chunks_mut::<8>();
    for (half, lanes) in halves.iter_mut().zip(lanes) {
        let narrowed = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(lanes);
        // SAFETY: 16 writable bytes; no alignment needed.
        unsafe { _mm_storeu_si128(half.as_mut_ptr().cast(), narrowed) };
    }
    numbers
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold_sum(low: __m256, high: __m256) -> f32 {
    fold_eight(_mm256_add_ps(low, high))
}

/// The folds after the first one.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn fold_eight(eight: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<0b01>(two, two)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold_larger(low: __m256, high: __m256) -> f32 {
    fold_eight_larger(_mm256_max_ps(low, high))
}

/// The folds after the first one of [`crate::kernels::lanes::Lanes::fold_larger`]. VMAXPS gives its second operand where the comparison is false, as lanes do.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn fold_eight_larger(eight: __m256) -> f32 {
    let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<0b01>(two, two)))
}

/// The halves of two sums, added: a function, since closures are compiled without these instructions where something else calls them.
#[inline]
#[target_feature(enable = "avx2")]
fn halves_added(a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
}

/// The halves of four sums' halves, added.
#[inline]
#[target_feature(enable = "avx2")]
fn quarters_added(a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(_mm256_shuffle_ps::<0b01_00_01_00>(a, b), _mm256_shuffle_ps::<0b11_10_11_10>(a, b))
}

/// The folds of [`fold_eight`], two sums a register, then four, then eight.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn fold_eights(eight: [__m256; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER] {
    // Sums 0 and 4, 1 and 5, .. each in their half of the register.
    let [e0, e1, e2, e3, e4, e5, e6, e7] = eight;
    let a = quarters_added(halves_added(e0, e4), halves_added(e1, e5));
    let b = quarters_added(halves_added(e2, e6), halves_added(e3, e7));
    let one =
        _mm256_add_ps(_mm256_shuffle_ps::<0b10_00_10_00>(a, b), _mm256_shuffle_ps::<0b11_01_11_01>(a, b));
    let mut folded = [0.0; FOLDED_TOGETHER];
    // SAFETY: eight writable values; no alignment needed.
    unsafe { _mm256_storeu_ps(folded.as_mut_ptr(), one) };
    folded
}
