//! The float operations of docs/numerics.md, written once over sixteen lanes and instantiated by every backend.
//!
//! Bounds against the exact value, measured by `measured_errors_stay_in_their_bounds` in the tests of this folder:
//! [`exp`] 1 ulp on -87..=88, [`sin_cos_turn`] 1.5 ulp and
//! 7e-8, half of which is the rounding of the angle.

use super::lanes::{Elementwise, LANES, Lanes, Stored};
use rescomp_formats::hadamard::Hadamard;
use rescomp_formats::matrix::STEP_ELEMS;

pub(super) use super::activations::{gelu, gelu_tanh, layer_norm, soft_cap};
pub(super) use super::attention::{softmax, weighted_sums_f16, weighted_sums_f32};
pub(super) use super::attention_f16::{keep_f16, scores_f16};
pub(super) use super::attention_f32::scores_f32;
pub(super) use super::attention_int8::{keep_key_int8, keep_value_int8, scores_int8, weighted_sums_int8};

/// Below this, `exp` is exactly 0; the result just above it, 1.6e-38, is a normal number.
const EXP_BOTTOM: f32 = -87.0;
/// Above this, `exp` stays where it is: the power of two is at most 2^127.
const EXP_TOP: f32 = 88.375;
/// Adding it rounds to an integer, which then stands in the low bits.
pub(super) const ROUNDER: f32 = 12_582_912.0;
/// Twelve bits of ln 2 and the rest, so that `n * LN2_HIGH` is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -0.000_212_194_44;
/// Minimax polynomial of e^r on -ln2/2..=ln2/2, relative error 3.2e-9; from r^6 down to r^2, below them 1 + r.
const EXP_POLYNOMIAL: [f32; 5] = [0.001_381_982_4, 0.008_368_687, 0.041_668_277, 0.166_665_21, 0.499_999_94];

/// e^x by reduction to r = x - n ln 2, a polynomial, and 2^n. NaN stays NaN.
#[inline(always)]
pub(super) fn exp_each<E: Elementwise>(x: E) -> E {
    let clamped = E::splat(EXP_BOTTOM).larger(E::splat(EXP_TOP).smaller(x));
    let shifted = clamped.fma(E::splat(core::f32::consts::LOG2_E), E::splat(ROUNDER));
    let n = shifted.sub(E::splat(ROUNDER));
    let r = n.fma(E::splat(-LN2_LOW), n.fma(E::splat(-LN2_HIGH), clamped));
    let mut p = E::splat(EXP_POLYNOMIAL[0]);
    p = p.fma(r, E::splat(EXP_POLYNOMIAL[1]));
    p = p.fma(r, E::splat(EXP_POLYNOMIAL[2]));
    p = p.fma(r, E::splat(EXP_POLYNOMIAL[3]));
    p = p.fma(r, E::splat(EXP_POLYNOMIAL[4]));
    p = p.fma(r, E::splat(1.0));
    p = p.fma(r, E::splat(1.0));
    p.mul(shifted.power_of_two()).zero_where_less(x, E::splat(EXP_BOTTOM))
}

/// e^x: exactly 0 below -87, constant above 88.375 (2.4e38), never NaN for a number.
pub fn exp(x: f32) -> f32 {
    exp_each(x)
}

/// The square root, rounded once: IEEE 754 has one result.
#[inline(always)]
pub(crate) fn square_root(value: f32) -> f32 {
    // The instruction where libm has none of it.
    #[cfg(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf"))]
    return crate::kernels::cortex_m_dsp::insn::square_root(value);
    #[cfg(not(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf")))]
    libm::sqrtf(value)
}

/// 2 pi and what its rounding leaves.
const TAU_HIGH: f32 = core::f32::consts::TAU;
const TAU_LOW: f32 = -1.748_455_5e-7;
/// (sin(2 pi y) / y - 2 pi) / y^2 as a polynomial in y^2 on |y| <= 1/8, highest power first.
const SIN_POLYNOMIAL: [f32; 3] = [-75.465_74, 81.594_23, -41.341_675];
/// cos(2 pi y) as a polynomial in y^2 on |y| <= 1/8, highest power first, below them 1; absolute error 4.1e-10.
const COS_POLYNOMIAL: [f32; 4] = [58.556_885, -85.423_065, 64.939_14, -19.739_208];

/// Sine and cosine of `turn`, a fraction of a full turn times 2^64. Only the top 32 bits count.
pub fn sin_cos_turn(turn: u64) -> (f32, f32) {
    let turn = (turn >> 32) as u32;
    // The nearest quarter turn, and what is left: -1/8..1/8 of a turn, exactly.
    let quarter = turn.wrapping_add(1 << 29) >> 30;
    let rest = turn.wrapping_sub(quarter << 30) as i32;
    // At most 2^29, rounded once to 24 bits; the power of two is exact.
    let y = rest as f32 * (1.0 / 4_294_967_296.0);
    let z = y * y;
    let [s2, s1, s0] = SIN_POLYNOMIAL;
    let p = s2.fma(z, s1).fma(z, s0).fma(z, TAU_LOW);
    let sin = y.fma(TAU_HIGH, y * p);
    let [c3, c2, c1, c0] = COS_POLYNOMIAL;
    let cos = c3.fma(z, c2).fma(z, c1).fma(z, c0).fma(z, 1.0);
    match quarter & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[inline(always)]
pub(super) fn dot_lanes<L: Lanes>(lanes: &mut [f32; LANES], a: &[f32], b: &[f32]) {
    accumulate::<L, f32>(L::load(lanes), a, b).store(lanes);
}

#[inline(always)]
pub(super) fn dot<L: Lanes, S: Stored>(a: &[f32], b: &[S]) -> f32 {
    accumulate::<L, S>(L::splat(0.0), a, b).fold_sum()
}

#[inline(always)]
fn accumulate<L: Lanes, S: Stored>(mut sum: L, a: &[f32], b: &[S]) -> L {
    assert_eq!(a.len(), b.len(), "dot product of different lengths");
    let (a, a_rest) = a.as_chunks();
    let (b, b_rest) = b.as_chunks();
    for (a, b) in a.iter().zip(b) {
        sum = L::load(a).fma(S::load(b), sum);
    }
    if !a_rest.is_empty() {
        sum = L::load_partial(a_rest, 0.0).fma(S::load_partial(b_rest), sum);
    }
    sum
}

#[inline(always)]
pub(super) fn rms_norm<L: Lanes>(input: &[f32], gain: &[f32], epsilon: f32, output: &mut [f32]) {
    assert!(input.len() == gain.len() && input.len() == output.len(), "RMSNorm of different lengths");
    let mean = dot::<L, f32>(input, input) / input.len() as f32;
    let r = L::splat(1.0 / square_root(mean + epsilon));
    let (x, x_rest) = input.as_chunks();
    let (g, g_rest) = gain.as_chunks();
    let (y, y_rest) = output.as_chunks_mut();
    for ((x, g), y) in x.iter().zip(g).zip(y) {
        L::load(x).mul(r).mul(L::load(g)).store(y);
    }
    if !x_rest.is_empty() {
        L::load_partial(x_rest, 0.0).mul(r).mul(L::load_partial(g_rest, 0.0)).store_partial(y_rest);
    }
}

#[inline(always)]
pub(super) fn rms_norm_in_place<L: Lanes>(values: &mut [f32], gain: &[f32], epsilon: f32) {
    assert_eq!(values.len(), gain.len(), "RMSNorm of different lengths");
    let mean = dot::<L, f32>(values, values) / values.len() as f32;
    let r = L::splat(1.0 / square_root(mean + epsilon));
    let (x, x_rest) = values.as_chunks_mut();
    let (g, g_rest) = gain.as_chunks();
    for (x, g) in x.iter_mut().zip(g) {
        L::load(x).mul(r).mul(L::load(g)).store(x);
    }
    if !x_rest.is_empty() {
        L::load_partial(x_rest, 0.0).mul(r).mul(L::load_partial(g_rest, 0.0)).store_partial(x_rest);
    }
}

#[inline(always)]
pub(super) fn silu_multiply_each<E: Elementwise>(gate: E, up: E) -> E {
    gate.div(E::splat(1.0).add(exp_each(gate.negate()))).mul(up)
}

#[inline(always)]
pub(super) fn silu_multiply<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up of different lengths");
    let (gate, gate_rest) = gate.as_chunks_mut();
    let (up, up_rest) = up.as_chunks();
    for (gate, up) in gate.iter_mut().zip(up) {
        silu_multiply_each(L::load(gate), L::load(up)).store(gate);
    }
    if !gate_rest.is_empty() {
        silu_multiply_each(L::load_partial(gate_rest, 0.0), L::load_partial(up_rest, 0.0))
            .store_partial(gate_rest);
    }
}

#[inline(always)]
pub(super) fn add<L: Lanes>(sum: &mut [f32], addend: &[f32]) {
    assert_eq!(sum.len(), addend.len(), "sum of different lengths");
    let (sum, sum_rest) = sum.as_chunks_mut();
    let (addend, addend_rest) = addend.as_chunks();
    for (sum, addend) in sum.iter_mut().zip(addend) {
        L::load(sum).add(L::load(addend)).store(sum);
    }
    if !sum_rest.is_empty() {
        L::load_partial(sum_rest, 0.0).add(L::load_partial(addend_rest, 0.0)).store_partial(sum_rest);
    }
}

#[inline(always)]
pub(super) fn rotate_each<E: Elementwise>(low: E, high: E, cos: E, sin: E) -> (E, E) {
    (low.fma(cos, high.mul(sin).negate()), high.fma(cos, low.mul(sin)))
}

#[inline(always)]
pub(super) fn rotate<L: Lanes>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(head.len() == 2 * cos.len() && cos.len() == sin.len(), "rotation of different lengths");
    let (low, high) = head.split_at_mut(cos.len());
    let (low, low_rest) = low.as_chunks_mut();
    let (high, high_rest) = high.as_chunks_mut();
    let (cos, cos_rest) = cos.as_chunks();
    let (sin, sin_rest) = sin.as_chunks();
    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        let (l, h) = rotate_each(L::load(low), L::load(high), L::load(cos), L::load(sin));
        l.store(low);
        h.store(high);
    }
    if !low_rest.is_empty() {
        let (l, h) = rotate_each(
            L::load_partial(low_rest, 0.0),
            L::load_partial(high_rest, 0.0),
            L::load_partial(cos_rest, 0.0),
            L::load_partial(sin_rest, 0.0),
        );
        l.store_partial(low_rest);
        h.store_partial(high_rest);
    }
}

/// Additions and one multiplication, in one order for all lanes: compiled with a backend's features, which change no bit. `L` tells the
/// backends' instances apart.
#[inline(always)]
pub(super) fn hadamard<L: Lanes>(transform: &Hadamard, row: &mut [f32]) {
    transform.apply(row, 1.0 / square_root(row.len() as f32));
}

/// A peak below this gives codes of 0, so that `127 / peak` stays finite: 2^-100.
pub(super) const SMALLEST_PEAK: f32 = f32::from_bits((127 - 100) << 23);

#[inline(always)]
pub(super) fn quantize_activations<L: Lanes>(
    input: &[f32],
    step_elems: usize,
    codes: &mut [i8],
    scales: &mut [f32],
) -> bool {
    assert!(step_elems > 0 && input.len() <= codes.len(), "activation codes");
    assert_eq!(scales.len(), codes.len().div_ceil(step_elems), "activation scales");
    let mut inputs = input.chunks(step_elems);
    for (codes, scale) in codes.chunks_mut(step_elems).zip(scales) {
        let input = inputs.next().unwrap_or(&[]);
        *scale = match (input.as_array(), codes.as_mut_array()) {
            (Some(input), Some(codes)) if L::IN_REGISTERS => quantize_whole_step::<L>(input, codes),
            _ => quantize_step::<L>(input, codes),
        };
        if scale.is_nan() {
            return false;
        }
    }
    true
}

/// The factor that makes codes of values up to `peak`, and their scale. `Err`: every code is 0, with this scale.
#[inline(always)]
fn inverse_and_scale<L: Lanes>(peak: f32) -> Result<[f32; 2], f32> {
    if !peak.is_finite() {
        return Err(f32::NAN);
    }
    if peak < SMALLEST_PEAK { Err(0.0) } else { Ok(L::quotients(127.0, peak)) }
}

/// [`quantize_step`] of a step of the usual length: values are loaded once and stay in registers.
#[inline(always)]
fn quantize_whole_step<L: Lanes>(input: &[f32; STEP_ELEMS], codes: &mut [i8; STEP_ELEMS]) -> f32 {
    let (x, _) = input.as_chunks();
    let mut lanes = [L::splat(0.0); STEP_ELEMS / LANES];
    let mut largest = L::splat(0.0);
    for index in 0..lanes.len() {
        lanes[index] = L::load(&x[index]);
        largest = largest.larger_magnitude(lanes[index]);
    }
    match inverse_and_scale::<L>(largest.fold_magnitude()) {
        Ok([inverse, scale]) => {
            let (codes, _) = codes.as_chunks_mut();
            let inverse = L::splat(inverse);
            for index in 0..lanes.len() {
                codes[index] = lanes[index].mul(inverse).to_codes();
            }
            scale
        }
        Err(scale) => {
            codes.fill(0);
            scale
        }
    }
}

/// Quantizes one step to `codes`, of which those beyond it become 0; returns the scale: NaN where a value isn't finite, and every code is then 0.
#[inline(always)]
pub(super) fn quantize_step<L: Lanes>(input: &[f32], codes: &mut [i8]) -> f32 {
    let (x, x_rest) = input.as_chunks();
    let mut largest = L::splat(0.0);
    for x in x {
        largest = largest.larger_magnitude(L::load(x));
    }
    if !x_rest.is_empty() {
        largest = largest.larger_magnitude(L::load_partial(x_rest, 0.0));
    }
    let [inverse, scale] = match inverse_and_scale::<L>(largest.fold_magnitude()) {
        Ok(both) => both,
        Err(scale) => {
            codes.fill(0);
            return scale;
        }
    };
    let inverse = L::splat(inverse);
    let (used, padding) = codes.split_at_mut(input.len());
    padding.fill(0);
    let (codes, codes_rest) = used.as_chunks_mut();
    for (x, codes) in x.iter().zip(codes) {
        *codes = L::load(x).mul(inverse).to_codes();
    }
    if !x_rest.is_empty() {
        let last = L::load_partial(x_rest, 0.0).mul(inverse).to_codes();
        codes_rest.copy_from_slice(&last[..codes_rest.len()]);
    }
    scale
}
