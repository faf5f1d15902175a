//! The floating-point types that the solvers are generic over.

use std::fmt::{Debug, Display};

use faer::traits::RealField;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` (the production type) or `f64` (the type of the reference).
///
/// Sealed: the solvers rely on the rounding rules of IEEE 754 binary formats.
pub trait Real: sealed::Sealed + RealField + Copy + Send + Sync + Display + Debug + 'static {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Positive infinity.
    const INFINITY: Self;

    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// The same value as `f64`, exactly.
    fn to_f64(self) -> f64;
    /// Absolute value.
    fn magnitude(self) -> Self;
    /// `|self|^2.4` to a few units in the last place. Basic arithmetic only: faster than the library's power,
    /// because it vectorizes, and the same on every machine. Magnitudes whose square underflows count as 0.
    fn power_2_4(self) -> Self;
    /// The nearest integer, halves to even (as numpy's `round` and IEEE 754's `roundTiesToEven`), for
    /// magnitudes up to 2^21.
    fn round_half_even(self) -> Self;
    /// `self` limited to `lowest..=highest`; a NaN stays one.
    fn limit(self, lowest: Self, highest: Self) -> Self;
    /// Neither infinite nor NaN.
    fn finite(self) -> bool;
    /// The integer of the same value, saturating; 0 for a NaN.
    fn to_code(self) -> i8;
    /// The nearest `f16`, limited to the normal positive range: never zero, subnormal or infinite.
    fn to_normal_f16(self) -> half::f16;
}

macro_rules! impl_real {
    ($type:ty, $to_f16:ident, $newton_steps:literal) => {
        impl Real for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = <$type>::INFINITY;

            #[inline]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            #[inline]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline]
            fn magnitude(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn power_2_4(self) -> Self {
                // x = self^2; y = x^(-1/5) by Newton's method, which takes no division; then x times x y^4, the fifth root of x.
                let square = self * self;
                let normal = if square < <$type>::MIN_POSITIVE { <$type>::MIN_POSITIVE } else { square };
                // Minus a fifth of the exponent (and of the mantissa, as if it were linear): within 5 % of y. Differences far from 0; one that is
                // checked would keep loops from being vectorized.
                let one = <$type>::to_bits(1.0);
                let mut inverse = <$type>::from_bits((one + one / 5).wrapping_sub(normal.to_bits() / 5));
                for _ in 0..$newton_steps {
                    let second = inverse * inverse;
                    let fifth = second * second * inverse;
                    inverse += 0.2 * inverse * (1.0 - normal * fifth);
                }
                let second = inverse * inverse;
                square * (normal * second * second)
            }
            #[inline(always)]
            fn round_half_even(self) -> Self {
                // Beyond 2^(mantissa bits) numbers are integers: the addition rounds, in the default mode
                // half to even. `round_ties_even` is a call of the C library on a plain x86-64.
                let beyond = 1.5 / <$type>::EPSILON;
                (self + beyond) - beyond
            }
            #[inline(always)]
            fn limit(self, lowest: Self, highest: Self) -> Self {
                // Not `clamp`: its assertion keeps loops from being vectorized.
                let limited = if self < lowest { lowest } else { self };
                if limited > highest { highest } else { limited }
            }
            #[inline]
            fn finite(self) -> bool {
                self.is_finite()
            }
            #[inline]
            fn to_code(self) -> i8 {
                self as i8
            }
            #[inline]
            fn to_normal_f16(self) -> half::f16 {
                let rounded = half::f16::$to_f16(self);
                if rounded > half::f16::MAX {
                    half::f16::MAX
                } else if rounded >= half::f16::MIN_POSITIVE {
                    rounded
                } else {
                    half::f16::MIN_POSITIVE
                }
            }
        }
    };
}

// Newton's method squares the relative error (times 3): 5e-2, 8e-3, 2e-4, 1e-7, 4e-14, 5e-27.
impl_real!(f32, from_f32, 4);
impl_real!(f64, from_f64, 5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_agrees_with_the_library() {
        let mut worst = (0.0_f64, 0.0_f64);
        for step in 0..40_000 {
            let magnitude = 10.0_f64.powf(f64::from(step - 30_000) / 2000.0);
            let double = magnitude.power_2_4() / magnitude.powf(2.4) - 1.0;
            let single =
                f64::from((magnitude as f32).power_2_4()) / f64::from(magnitude as f32).powf(2.4) - 1.0;
            worst = (worst.0.max(double.abs()), worst.1.max(single.abs()));
            assert_eq!((-magnitude).power_2_4(), magnitude.power_2_4());
        }
        // The library is not exact here: 1e-15 to a power that is 2.4 only to 9e-17 is off by 3e-15.
        assert!(worst.0 < 32.0 * f64::EPSILON && worst.1 < 5.0 * f64::from(f32::EPSILON), "{worst:?}");
        assert_eq!((0.0_f32.power_2_4(), 0.0_f64.power_2_4()), (0.0, 0.0));
    }

    #[test]
    fn rounding_is_half_to_even() {
        for quarter in -600..=600 {
            let (single, double) = (quarter as f32 / 4.0, f64::from(quarter) / 4.0);
            assert_eq!(single.round_half_even(), single.round_ties_even());
            assert_eq!(double.round_half_even(), double.round_ties_even());
            let (below, above) = (single.next_down(), single.next_up());
            assert_eq!(below.round_half_even(), below.round_ties_even());
            assert_eq!(above.round_half_even(), above.round_ties_even());
        }
        assert!(f32::NAN.round_half_even().is_nan() && f32::NAN.limit(-1.0, 1.0).is_nan());
    }
}
