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
    /// `self` to the power `exponent`.
    fn power(self, exponent: Self) -> Self;
    /// The nearest integer, halves to even (as numpy's `round` and IEEE 754's `roundTiesToEven`).
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
    ($type:ty, $to_f16:ident) => {
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
            #[inline]
            fn power(self, exponent: Self) -> Self {
                self.powf(exponent)
            }
            #[inline]
            fn round_half_even(self) -> Self {
                self.round_ties_even()
            }
            #[inline]
            fn limit(self, lowest: Self, highest: Self) -> Self {
                self.clamp(lowest, highest)
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

impl_real!(f32, from_f32);
impl_real!(f64, from_f64);
