//! One lane as `f32`, sixteen as an array: the definition of the lane operations.

use crate::kernels::lanes::{Elementwise, LANES, Lanes, Whole};

/// The number with these bits of binary16, exactly.
#[inline(always)]
pub(in crate::kernels) fn widened(bits: u16) -> f32 {
    #[cfg(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf"))]
    return crate::kernels::cortex_m_dsp::insn::widened(bits);
    #[cfg(not(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf")))]
    half::f16::from_bits(bits).to_f32()
}

impl Elementwise for f32 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self / other
    }
    #[cfg(feature = "std")]
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        self.mul_add(factor, addend)
    }
    #[cfg(not(feature = "std"))]
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        // The instruction where there is one: libm's on a microcontroller is a hundred times as long.
        #[cfg(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf"))]
        return crate::kernels::cortex_m_dsp::insn::fma(self, factor, addend);
        #[cfg(not(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf")))]
        libm::fmaf(self, factor, addend)
    }
    #[inline(always)]
    fn negate(self) -> Self {
        -self
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
    #[inline(always)]
    fn zero_where_less(self, value: Self, bound: Self) -> Self {
        if value < bound { 0.0 } else { self }
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        f32::from_bits((self.to_bits() << 23).wrapping_add(1f32.to_bits()))
    }
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], operation: fn(f32, f32) -> f32) -> [f32; LANES] {
    core::array::from_fn(|lane| operation(a[lane], b[lane]))
}

impl Elementwise for [f32; LANES] {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        zip(self, other, Elementwise::add)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        zip(self, other, Elementwise::sub)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        zip(self, other, Elementwise::mul)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        zip(self, other, Elementwise::div)
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        core::array::from_fn(|lane| self[lane].fma(factor[lane], addend[lane]))
    }
    #[inline(always)]
    fn negate(self) -> Self {
        self.map(Elementwise::negate)
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        zip(self, other, Elementwise::larger)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        zip(self, other, Elementwise::smaller)
    }
    #[inline(always)]
    fn zero_where_less(self, value: Self, bound: Self) -> Self {
        core::array::from_fn(|lane| self[lane].zero_where_less(value[lane], bound[lane]))
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        self.map(Elementwise::power_of_two)
    }
}

impl Lanes for [f32; LANES] {
    type Part = Whole<Self>;
    const SUMS: usize = 4;
    const ROWS: usize = 1;
    const IN_REGISTERS: bool = false;

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        *values
    }
    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        values.map(widened)
    }
    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        *values = self;
    }
    #[inline(always)]
    fn larger_magnitude(self, other: Self) -> Self {
        zip(self, other, |a, b| f32::from_bits(a.to_bits().max(b.abs().to_bits())))
    }
    #[inline(always)]
    fn to_codes(self) -> [i8; LANES] {
        // Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits.
        self.map(|value| (value + 12_582_912.0).to_bits() as i8)
    }
    #[inline(always)]
    fn to_words(self) -> [i16; LANES] {
        self.map(|value| (value + 12_582_912.0).to_bits() as i16)
    }
    #[inline(always)]
    fn to_f16(self) -> [u16; LANES] {
        self.map(|value| half::f16::from_f32(value).to_bits())
    }
}
