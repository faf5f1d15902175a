//! Sixteen lanes as one register.
//!
//! The methods are safe to the trait and must not be: a value of this type is made only inside functions that are compiled for
//! AVX-512 and reached through `detect`. That is the "has AVX-512" of every block below.

use crate::kernels::avx2::lanes::{fold_eight, fold_eight_larger, fold_eights};
use crate::kernels::lanes::{Elementwise, FOLDED_TOGETHER, LANES, Lanes, Whole};
use core::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512Lanes(__m512);

/// One call of a function that needs AVX-512.
macro_rules! lanes {
    ($function:ident $(, $operand:expr)*) => {
        // SAFETY: has AVX-512 F and DQ (head of this file).
        Avx512Lanes(unsafe { $function($($operand),*) })
    };
}

impl Elementwise for Avx512Lanes {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        lanes!(_mm512_set1_ps, value)
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        lanes!(_mm512_add_ps, self.0, other.0)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        lanes!(_mm512_sub_ps, self.0, other.0)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        lanes!(_mm512_mul_ps, self.0, other.0)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        lanes!(_mm512_div_ps, self.0, other.0)
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        lanes!(_mm512_fmadd_ps, self.0, factor.0, addend.0)
    }
    #[inline(always)]
    fn negate(self) -> Self {
        lanes!(_mm512_xor_ps, self.0, Self::splat(-0.0).0)
    }
    // VMAXPS and VMINPS give their second operand where the comparison is false, as the trait defines it.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        lanes!(_mm512_max_ps, self.0, other.0)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        lanes!(_mm512_min_ps, self.0, other.0)
    }
    #[inline(always)]
    fn zero_where_less(self, value: Self, bound: Self) -> Self {
        lanes!(zero_where_less, self.0, value.0, bound.0)
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        lanes!(power_of_two, self.0)
    }
}

impl Lanes for Avx512Lanes {
    type Part = Whole<Self>;
    const SUMS: usize = 20;
    const ROWS: usize = 4;

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        // Sixteen readable values, no alignment needed.
        lanes!(_mm512_loadu_ps, values.as_ptr())
    }
    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        lanes!(widened, values)
    }
    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: sixteen writable values; has AVX-512.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) };
    }
    #[inline(always)]
    fn larger_magnitude(self, other: Self) -> Self {
        lanes!(larger_magnitude, self.0, other.0)
    }
    #[inline(always)]
    fn to_codes(self) -> [i8; LANES] {
        // SAFETY: has AVX-512.
        unsafe { to_codes(self.0) }
    }
    #[inline(always)]
    fn to_words(self) -> [i16; LANES] {
        // SAFETY: has AVX-512.
        unsafe { to_words(self.0) }
    }
    #[inline(always)]
    fn to_f16(self) -> [u16; LANES] {
        // SAFETY: has AVX-512.
        unsafe { to_f16(self.0) }
    }
    #[inline(always)]
    fn load_partial(values: &[f32], fill: f32) -> Self {
        lanes!(load_partial, values, fill)
    }
    #[inline(always)]
    fn store_partial(self, values: &mut [f32]) {
        // SAFETY: has AVX-512.
        unsafe { store_partial(self.0, values) };
    }
    #[inline(always)]
    fn fold_larger(self) -> f32 {
        // SAFETY: has AVX-512.
        let eight = unsafe { larger_of_halves(self.0) };
        // SAFETY: likewise.
        unsafe { fold_eight_larger(eight) }
    }
    #[inline(always)]
    fn fold_sum(self) -> f32 {
        // SAFETY: has AVX-512.
        let eight = unsafe { halves_added(self.0) };
        // SAFETY: likewise.
        unsafe { fold_eight(eight) }
    }
    #[inline(always)]
    fn fold_sums(sums: [Self; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER] {
        // SAFETY: has AVX-512.
        let eights = unsafe { all_halves_added(sums) };
        // SAFETY: likewise.
        unsafe { fold_eights(eights) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn widened(values: &[u16; LANES]) -> __m512 {
    // SAFETY: 32 readable bytes; no alignment needed.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(values.as_ptr().cast()) })
}

/// The lanes of so many values, of at most sixteen.
#[inline(always)]
fn first_lanes(count: usize) -> __mmask16 {
    ((1_u32 << count.min(LANES)) - 1) as __mmask16
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_partial(values: &[f32], fill: f32) -> __m512 {
    let fill = _mm512_set1_ps(fill);
    // SAFETY: only lanes of values are read; no alignment needed.
    unsafe { _mm512_mask_loadu_ps(fill, first_lanes(values.len()), values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_partial(lanes: __m512, values: &mut [f32]) {
    // SAFETY: only lanes of values are written; no alignment needed.
    unsafe { _mm512_mask_storeu_ps(values.as_mut_ptr(), first_lanes(values.len()), lanes) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn zero_where_less(lanes: __m512, value: __m512, bound: __m512) -> __m512 {
    _mm512_maskz_mov_ps(!_mm512_cmp_ps_mask::<_CMP_LT_OQ>(value, bound), lanes)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn power_of_two(shifted: __m512) -> __m512 {
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_castps_si512(_mm512_set1_ps(1.0))))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn larger_magnitude(a: __m512, b: __m512) -> __m512 {
    let sign = _mm512_set1_ps(-0.0);
    let b = _mm512_castps_si512(_mm512_andnot_ps(sign, b));
    _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), b))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn to_codes(lanes: __m512) -> [i8; LANES] {
    // Rounds to nearest, ties to even: the mode that Rust guarantees.
    let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(lanes));
    let mut codes = [0; LANES];
    // SAFETY: 16 writable bytes; no alignment needed.
    unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), bytes) };
    codes
}

#[inline]
#[target_feature(enable = "avx512f")]
fn to_words(lanes: __m512) -> [i16; LANES] {
    // Rounds to nearest, ties to even: the mode that Rust guarantees.
    let words = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(lanes));
    let mut numbers = [0; LANES];
    // SAFETY: 32 writable bytes; no alignment needed.
    unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), words) };
    numbers
}

#[inline]
#[target_feature(enable = "avx512f")]
fn to_f16(lanes: __m512) -> [u16; LANES] {
    let narrowed = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(lanes);
    let mut numbers = [0; LANES];
    // SAFETY: 32 writable bytes; no alignment needed.
    unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), narrowed) };
    numbers
}

/// The larger lanes of both halves.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn larger_of_halves(lanes: __m512) -> __m256 {
    _mm256_max_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes))
}

/// The first fold, of sixteen lanes to eight.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn halves_added(lanes: __m512) -> __m256 {
    _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes))
}

/// That of several. No closure: one is compiled without these instructions, and then called for each.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn all_halves_added(sums: [Avx512Lanes; FOLDED_TOGETHER]) -> [__m256; FOLDED_TOGETHER] {
    let mut eights = [_mm256_setzero_ps(); FOLDED_TOGETHER];
    for (eight, sum) in eights.iter_mut().zip(sums) {
        *eight = halves_added(sum.0);
    }
    eights
}
