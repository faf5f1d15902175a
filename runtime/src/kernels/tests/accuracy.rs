//! `scalar` and the canonical functions against f64.

use super::*;
use std::eprintln;
use std::vec;

/// The distance in units of the last place of the result.
fn ulps(found: f32, exact: f64) -> f64 {
    let spacing = f64::from(f32::EPSILON) * 2f64.powi((exact.abs().log2().floor() as i32).max(-126));
    (f64::from(found) - exact).abs() / spacing
}

/// Points of -87..=88, evenly spaced in value and in bits.
fn exp_points() -> impl Iterator<Item = f32> {
    let evenly = (0..=200_000).map(|i| -87.0 + 175.0 / 200_000.0 * i as f32);
    let by_bits = (0..0x42b0_0000u32).step_by(9973).map(f32::from_bits);
    evenly.chain(by_bits.flat_map(|x| [x, -x])).filter(|x| (-87.0..=88.0).contains(x))
}

#[test]
fn measured_errors_stay_in_their_bounds() {
    let worst = exp_points().map(|x| ulps(exp(x), f64::from(x).exp())).fold(0.0, f64::max);
    let (mut worst_absolute, mut worst_sin, mut worst_cos) = (0.0f64, 0.0f64, 0.0f64);
    for i in 0..400_000u64 {
        let turn = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let angle = ((turn >> 32) as i32 as f64) * (core::f64::consts::TAU / 4_294_967_296.0);
        let (sin, cos) = sin_cos_turn(turn);
        for (found, exact, worst) in [(sin, angle.sin(), &mut worst_sin), (cos, angle.cos(), &mut worst_cos)]
        {
            worst_absolute = worst_absolute.max((f64::from(found) - exact).abs());
            // Near the zeros f64's own reduction of the angle is no reference for the last place.
            if exact.abs() > 1e-6 {
                *worst = worst.max(ulps(found, exact));
            }
        }
    }
    eprintln!("exp {worst} ulp; sin {worst_sin} ulp, cos {worst_cos} ulp, both {worst_absolute:e}");
    assert!(worst <= 1.0);
    assert!(worst_sin <= 1.5);
    assert!(worst_cos <= 1.5);
    assert!(worst_absolute <= 7e-8);
}

#[test]
fn exp_has_defined_ends() {
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-0.0), 1.0);
    assert!(exp(-87.0) > 0.0);
    for x in [f32::from_bits((-87f32).to_bits() + 1), -1e3, f32::MIN, f32::NEG_INFINITY] {
        assert_eq!(exp(x).to_bits(), 0);
    }
    for x in [88.375, 88.5, 1e3, f32::MAX, f32::INFINITY] {
        assert_eq!(exp(x), exp(88.375));
    }
    assert!(exp(88.375).is_finite() && exp(88.375) > 2.3e38);
    assert!(exp(f32::NAN).is_nan());
}

#[test]
fn quarter_turns_are_exact() {
    for (quarter, expected) in [(0u64, (0.0, 1.0)), (1, (1.0, 0.0)), (2, (0.0, -1.0)), (3, (-1.0, 0.0))] {
        assert_eq!(sin_cos_turn(quarter << 62), expected);
    }
}

#[test]
fn a_turn_and_its_mirror_agree() {
    for i in 1..10_000u64 {
        let turn = (i * 429_496) << 32;
        let (sin, cos) = sin_cos_turn(turn);
        let (mirrored_sin, mirrored_cos) = sin_cos_turn(turn.wrapping_neg());
        assert_eq!((sin, cos), (-mirrored_sin, mirrored_cos));
    }
}

/// Why the forward pass computes these itself (docs/numerics.md has the figures).
#[test]
fn micromath_is_measured() {
    use micromath::F32Ext;
    let relative = |found: f32, exact: f64| ((f64::from(found) - exact) / exact).abs();
    let points = || (1..100_000).map(|i| i as f32 * 0.01);
    let sqrt = points().map(|x| relative(F32Ext::sqrt(x), f64::from(x).sqrt())).fold(0.0, f64::max);
    let exp = exp_points().map(|x| relative(F32Ext::exp(x), f64::from(x).exp())).fold(0.0, f64::max);
    let ln = points().map(|x| (f64::from(F32Ext::ln(x)) - f64::from(x).ln()).abs()).fold(0.0, f64::max);
    let angles = || (-31_416..=31_416).map(|i| i as f32 * 1e-4);
    let sin = angles().map(|x| (f64::from(F32Ext::sin(x)) - f64::from(x).sin()).abs()).fold(0.0, f64::max);
    let cos = angles().map(|x| (f64::from(F32Ext::cos(x)) - f64::from(x).cos()).abs()).fold(0.0, f64::max);
    eprintln!(
        "micromath: sqrt {sqrt:e} and exp {exp:e} relative; ln {ln:e}, sin {sin:e}, cos {cos:e} absolute"
    );
    // Each is thousands of times the rounding of an f32, and our own stay within it.
    for error in [sqrt, exp, ln, sin, cos] {
        assert!(error > 100.0 * f64::from(f32::EPSILON));
    }
}

#[test]
fn dot_products_stay_in_their_bound() {
    let mut random = Random(31);
    for length in 1..=300 {
        let (a, b) = (random.values(Kind::Usual, length), random.values(Kind::Mixed, length));
        let terms = || a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        // A lane rounds once an element, and four folds once each; half an epsilon a rounding.
        let roundings = length.div_ceil(16) as f64 + 4.0;
        let bound = roundings * f64::from(f32::EPSILON) * 0.5001 * terms().map(f64::abs).sum::<f64>();
        let found = f64::from(dot(scalar(), &a, &b));
        assert!((found - terms().sum::<f64>()).abs() <= bound + roundings * 1e-45);
    }
}

#[test]
fn activations_are_right() {
    let epsilon = f64::from(f32::EPSILON);
    let xs: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 / 3_000.0).collect();
    let each = |operation: fn(&mut [f32])| {
        let mut ys = xs.clone();
        operation(&mut ys);
        ys
    };
    // erf's own error enters GELU beside 1, and the product rounds; tanh's GELU errs as exp does, whose argument rounds.
    for (&x, y) in xs.iter().zip(each(scalar().gelu)) {
        let x = f64::from(x);
        let exact = 0.5 * x * (1.0 + libm::erf(x / 2_f64.sqrt()));
        assert!((f64::from(y) - exact).abs() <= 4.0 * epsilon * x.abs(), "gelu({x}): {y} {exact}");
    }
    for (&x, y) in xs.iter().zip(each(scalar().gelu_tanh)) {
        let x = f64::from(x);
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        let exact = 0.5 * x * (1.0 + u.tanh());
        assert!((f64::from(y) - exact).abs() <= 4.0 * epsilon * x.abs(), "gelu_tanh({x}): {y} {exact}");
    }
    for cap in [1.0_f32, 30.0, 50.0] {
        let mut ys: Vec<f32> = xs.iter().map(|x| x * cap / 2.0).collect();
        let inputs = ys.clone();
        (scalar().soft_cap)(&mut ys, cap);
        for (x, y) in inputs.into_iter().zip(ys) {
            let (x, cap) = (f64::from(x), f64::from(cap));
            let exact = cap * (x / cap).tanh();
            assert!(
                (f64::from(y) - exact).abs() <= 4.0 * epsilon * exact.abs(),
                "soft_cap({x}): {y} {exact}"
            );
        }
    }
}

#[test]
fn layer_norm_is_right() {
    let mut random = Random(33);
    let epsilon = f64::from(f32::EPSILON);
    for length in 2..=300 {
        let [x, gain, bias] = [(); 3].map(|()| random.values(Kind::Usual, length));
        let mut y = vec![f32::NAN; length];
        (scalar().layer_norm)(&x, &gain, &bias, 1e-5, &mut y);
        let n = length as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let r = 1.0 / (variance + 1e-5).sqrt();
        let largest = x.iter().fold(0.0_f64, |largest, &x| largest.max(f64::from(x).abs()));
        // The mean's roundings are relative to the largest value and move every centred value; the rest is relative.
        let roundings = length.div_ceil(16) as f64 + 12.0;
        for (((&y, &x), &gain), &bias) in y.iter().zip(&x).zip(&gain).zip(&bias) {
            let (gain, bias) = (f64::from(gain), f64::from(bias));
            let exact = (f64::from(x) - mean) * r * gain + bias;
            let bound = roundings
                * epsilon
                * ((largest + largest) * r * gain.abs() * (1.0 + largest * r) + bias.abs());
            assert!((f64::from(y) - exact).abs() <= bound, "{length}: {y} {exact}");
        }
    }
}

#[test]
fn norms_softmax_and_rotation_are_right() {
    let mut random = Random(32);
    let epsilon = f64::from(f32::EPSILON);
    for length in 1..=300 {
        let (x, gain) = (random.values(Kind::Usual, length), random.values(Kind::Usual, length));
        let mut y = vec![0.0; length];
        (scalar().rms_norm)(&x, &gain, 1e-5, &mut y);
        let squares: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let r = 1.0 / (squares / length as f64 + 1e-5).sqrt();
        // The sum of squares rounds as `dot` does and enters by its root; then seven operations.
        let bound = (length.div_ceil(16) as f64 + 11.0) * epsilon * 0.5;
        for ((&y, &x), &gain) in y.iter().zip(&x).zip(&gain) {
            let exact = f64::from(x) * r * f64::from(gain);
            assert!((f64::from(y) - exact).abs() <= bound * exact.abs(), "{y} {exact}");
        }

        let mut weights = x.clone();
        (scalar().softmax)(&mut weights);
        let largest = x.iter().fold(f64::MIN, |m, &x| m.max(f64::from(x)));
        let sum: f64 = x.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
        // The difference (at most 8) rounds absolutely; exp by an ulp, above and below; the sum, the reciprocal, the product.
        let bound = (length.div_ceil(16) as f64 + 4.0 + 2.0 * 8.0 + 2.0 * 2.0 + 4.0) * epsilon * 0.5;
        for (&weight, &x) in weights.iter().zip(&x) {
            let exact = (f64::from(x) - largest).exp() / sum;
            assert!((f64::from(weight) - exact).abs() <= bound * exact, "{weight} {exact}");
        }
    }
    // Turning by a quarter exchanges the halves.
    let mut head = [1.0, 2.0, 3.0, 4.0];
    (scalar().rotate)(&mut head, &[0.0, 0.0], &[1.0, 1.0]);
    assert_eq!(head, [-3.0, -4.0, 1.0, 2.0]);
}
