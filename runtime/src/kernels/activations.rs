//! LayerNorm, GELU and the bound on scores, written once over sixteen lanes as [`super::canonical`]'s operations are.
//!
//! tanh and erf are odd: `x P(x^2) / Q(x^2)`, fitted to the smallest relative error and clamped where f32 has reached 1. Bounds against the
//! exact value, measured by `activations_are_right` in the tests of this folder: 4 ulp each.

use super::canonical::{exp_each, square_root};
use super::lanes::{Elementwise, Lanes};

/// tanh on -9..=9, relative error 2.1e-8: coefficients of P and Q, lowest power first.
const TANH: Odd<5, 5> = Odd {
    top: 9.0,
    numerator: [1.0, 0.133_810_24, 3.495_586_6e-3, 2.060_905_9e-5, 1.335_462_9e-8],
    denominator: [1.0, 0.467_143_4, 2.587_697_7e-2, 3.285_632_4e-4, 7.776_545e-7],
};
/// erf on -3.92..=3.92, relative error 1.9e-8.
#[expect(clippy::approx_constant, reason = "fitted, and not the slope at 0")]
const ERF: Odd<6, 6> = Odd {
    top: 3.92,
    numerator: [1.128_379_1, 0.190_402_6, 5.274_824_4e-2, 3.765_462_4e-3, 2.848_810_7e-4, 2.050_138_2e-6],
    denominator: [1.0, 0.502_072_63, 0.114_107_54, 1.496_890_2e-2, 1.162_501_6e-3, 3.809_216_3e-5],
};

/// sqrt(2 / pi) doubled, and 0.044715 times it: GELU by tanh is `x / (1 + exp(-2 u))`.
const GELU_LINEAR: f32 = 1.595_769_2;
const GELU_CUBIC: f32 = 0.071_354_814;

/// An odd function as a quotient of polynomials in the square of its argument.
struct Odd<const P: usize, const Q: usize> {
    top: f32,
    numerator: [f32; P],
    denominator: [f32; Q],
}

impl<const P: usize, const Q: usize> Odd<P, Q> {
    #[inline(always)]
    fn at<E: Elementwise>(&self, x: E) -> E {
        let x = E::splat(-self.top).larger(E::splat(self.top).smaller(x));
        let square = x.mul(x);
        x.mul(polynomial(&self.numerator, square)).div(polynomial(&self.denominator, square))
    }
}

/// From the highest power down, a fused multiply-add each.
#[inline(always)]
fn polynomial<E: Elementwise, const N: usize>(coefficients: &[f32; N], y: E) -> E {
    let mut sum = E::splat(coefficients[N - 1]);
    for &coefficient in coefficients[..N - 1].iter().rev() {
        sum = sum.fma(y, E::splat(coefficient));
    }
    sum
}

/// Replaces every value by what an expression gives for it. (No closure: its body would be compiled without the backend's features.)
macro_rules! replace_each {
    ($lanes:ty, $values:ident, $x:ident => $result:expr) => {
        let (values, rest) = $values.as_chunks_mut();
        for values in values {
            let $x = <$lanes>::load(values);
            $result.store(values);
        }
        if !rest.is_empty() {
            let $x = <$lanes>::load_partial(rest, 0.0);
            $result.store_partial(rest);
        }
    };
}

#[inline(always)]
fn gelu_tanh_each<E: Elementwise>(x: E) -> E {
    let inner = x.mul(x).fma(E::splat(GELU_CUBIC), E::splat(GELU_LINEAR)).mul(x);
    x.div(E::splat(1.0).add(exp_each(inner.negate())))
}

#[inline(always)]
pub(in crate::kernels) fn gelu_tanh<L: Lanes>(values: &mut [f32]) {
    replace_each!(L, values, x => gelu_tanh_each(x));
}

#[inline(always)]
fn gelu_each<E: Elementwise>(x: E) -> E {
    let erf = ERF.at(x.mul(E::splat(core::f32::consts::FRAC_1_SQRT_2)));
    x.mul(E::splat(0.5)).mul(erf.add(E::splat(1.0)))
}

#[inline(always)]
pub(in crate::kernels) fn gelu<L: Lanes>(values: &mut [f32]) {
    replace_each!(L, values, x => gelu_each(x));
}

#[inline(always)]
pub(in crate::kernels) fn soft_cap<L: Lanes>(values: &mut [f32], cap: f32) {
    let cap = L::splat(cap);
    replace_each!(L, values, x => TANH.at(x.div(cap)).mul(cap));
}

#[inline(always)]
pub(in crate::kernels) fn layer_norm<L: Lanes>(
    input: &[f32],
    gain: &[f32],
    bias: &[f32],
    epsilon: f32,
    output: &mut [f32],
) {
    let n = input.len();
    assert!(n == gain.len() && n == bias.len() && n == output.len(), "LayerNorm of different lengths");
    let mean = L::splat(sum::<L>(input) / n as f32);
    let (x, x_rest) = input.as_chunks();
    let (y, y_rest) = output.as_chunks_mut();
    let mut squares = L::splat(0.0);
    for (x, y) in x.iter().zip(&mut *y) {
        let centred = L::load(x).sub(mean);
        squares = centred.fma(centred, squares);
        centred.store(y);
    }
    if !x_rest.is_empty() {
        L::load_partial(x_rest, 0.0).sub(mean).store_partial(y_rest);
        // Loaded again, so that lanes beyond the last value are 0 and not the mean.
        let centred = L::load_partial(y_rest, 0.0);
        squares = centred.fma(centred, squares);
    }
    let r = L::splat(1.0 / square_root(squares.fold_sum() / n as f32 + epsilon));
    let (g, g_rest) = gain.as_chunks();
    let (b, b_rest) = bias.as_chunks();
    for ((y, g), b) in y.iter_mut().zip(g).zip(b) {
        L::load(y).mul(r).fma(L::load(g), L::load(b)).store(y);
    }
    if !y_rest.is_empty() {
        let (g, b) = (L::load_partial(g_rest, 0.0), L::load_partial(b_rest, 0.0));
        L::load_partial(y_rest, 0.0).mul(r).fma(g, b).store_partial(y_rest);
    }
}

/// The sum of all values.
#[inline(always)]
fn sum<L: Lanes>(values: &[f32]) -> f32 {
    let (values, rest) = values.as_chunks();
    let mut sum = L::splat(0.0);
    for values in values {
        sum = sum.add(L::load(values));
    }
    if !rest.is_empty() {
        sum = sum.add(L::load_partial(rest, 0.0));
    }
    sum.fold_sum()
}
