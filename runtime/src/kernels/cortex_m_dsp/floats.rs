//! The float operations, number by number: the bits of [`canonical`](crate::kernels::canonical), whose sixteen lanes this processor has no
//! registers for. Loops over lanes that lie in memory take both more code and more time.
//!
//! What is summed in sixteen lanes is summed four at a time, each four over the whole length: they stay in registers.

use super::insn::widened_pair;
use crate::kernels::attention::scores_each;
use crate::kernels::attention_f16::limited;
use crate::kernels::canonical::{
    ROUNDER, SMALLEST_PEAK, exp_each, rotate_each, silu_multiply_each, square_root,
};
use crate::kernels::lanes::{Elementwise, LANES};
use crate::kernels::{fold_sum, scalar::widened};

/// A number as it lies in memory.
trait Number: Copy {
    const ZERO: Self;
    fn widen(four: [Self; 4]) -> [f32; 4];
}

impl Number for f32 {
    const ZERO: f32 = 0.0;
    #[inline(always)]
    fn widen(four: [f32; 4]) -> [f32; 4] {
        four
    }
}

/// The bits of a binary16 number.
impl Number for u16 {
    const ZERO: u16 = 0;
    #[inline(always)]
    fn widen([a, b, c, d]: [u16; 4]) -> [f32; 4] {
        let ([a, b], [c, d]) = (widened_pair([a, b]), widened_pair([c, d]));
        [a, b, c, d]
    }
}

/// `lanes[i mod 16] = fma(a[i], b[i], lanes[i mod 16])`; a last part of the lanes is filled up with zeros.
fn add_products<S: Number>(lanes: &mut [f32; LANES], a: &[f32], b: &[S]) {
    assert_eq!(a.len(), b.len(), "dot product of different lengths");
    let (a, a_rest) = a.as_chunks();
    let (b, b_rest) = b.as_chunks();
    add_whole(lanes, a, b);
    if !a_rest.is_empty() {
        let (mut a, mut b) = ([0.0; LANES], [S::ZERO; LANES]);
        a[..a_rest.len()].copy_from_slice(a_rest);
        b[..b_rest.len()].copy_from_slice(b_rest);
        add_whole(lanes, &[a], &[b]);
    }
}

#[inline(never)]
fn add_whole<S: Number>(lanes: &mut [f32; LANES], a: &[[f32; LANES]], b: &[[S; LANES]]) {
    for (quad, lanes) in lanes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let [mut s, mut t, mut u, mut v] = *lanes;
        for (a, b) in a.iter().zip(b) {
            let [a0, a1, a2, a3] = a.as_chunks::<4>().0[quad];
            let [b0, b1, b2, b3] = S::widen(b.as_chunks::<4>().0[quad]);
            s = a0.fma(b0, s);
            t = a1.fma(b1, t);
            u = a2.fma(b2, u);
            v = a3.fma(b3, v);
        }
        *lanes = [s, t, u, v];
    }
}

pub(super) fn dot_lanes(lanes: &mut [f32; LANES], a: &[f32], b: &[f32]) {
    add_products(lanes, a, b);
}

#[inline(never)]
fn dot<S: Number>(a: &[f32], b: &[S]) -> f32 {
    let mut lanes = [0.0; LANES];
    add_products(&mut lanes, a, b);
    fold_sum(&lanes)
}

pub(super) fn keep_f16(values: &[f32], kept: &mut [u16]) {
    assert_eq!(values.len(), kept.len(), "as many numbers kept as there are");
    for (&value, kept) in values.iter().zip(kept) {
        *kept = half::f16::from_f32(limited(value)).to_bits();
    }
}

pub(super) fn scores_f16(queries: &[f32], head_dim: usize, keys: &[u16], scale: f32, scores: &mut [f32]) {
    let Some(count) = scores_each(queries.len(), head_dim, scores.len()) else { return };
    assert!(count * head_dim <= keys.len(), "scores of more keys than there are");
    for (query, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(count)) {
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(head_dim)) {
            *score = dot(query, key) * scale;
        }
    }
}

pub(super) fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, Elementwise::larger);
    let mut lanes = [0.0; LANES];
    for chunk in scores.chunks_mut(LANES) {
        for (score, sum) in chunk.iter_mut().zip(&mut lanes) {
            *score = exp_each(*score - largest);
            *sum += *score;
        }
    }
    let factor = 1.0 / fold_sum(&lanes);
    scores.iter_mut().for_each(|score| *score *= factor);
}

pub(super) fn weighted_sums_f16(weights: &[&[f32]], values: &[u16], outputs: &mut [&mut [f32]]) {
    assert_eq!(weights.len(), outputs.len(), "as many outputs as rows of weights");
    for (weights, output) in weights.iter().zip(outputs) {
        let columns = output.len();
        assert!(weights.len() * columns <= values.len(), "weighted sum beyond its values");
        let (fours, rest) = output.as_chunks_mut::<4>();
        for (four, sums) in fours.iter_mut().enumerate() {
            let [mut s, mut t, mut u, mut v] = [0.0; 4];
            let from = values.get(4 * four..).unwrap_or_default();
            for (&weight, values) in weights.iter().zip(from.chunks(columns)) {
                let Some(&values) = values.first_chunk() else { break };
                let [a, b, c, d] = Number::widen(values);
                s = weight.fma(a, s);
                t = weight.fma(b, t);
                u = weight.fma(c, u);
                v = weight.fma(d, v);
            }
            *sums = [s, t, u, v];
        }
        let first = columns - rest.len();
        for (sum, column) in rest.iter_mut().zip(first..) {
            let values = values.get(column..).unwrap_or_default().iter().step_by(columns);
            *sum = weights
                .iter()
                .zip(values)
                .fold(0.0, |sum, (&weight, &value)| weight.fma(widened(value), sum));
        }
    }
}

/// What numbers are multiplied by for their root mean square to be 1.
fn rms_factor(values: &[f32], epsilon: f32) -> f32 {
    1.0 / square_root(dot(values, values) / values.len() as f32 + epsilon)
}

pub(super) fn rms_norm(input: &[f32], gain: &[f32], epsilon: f32, output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "RMSNorm of different lengths");
    output.copy_from_slice(input);
    rms_norm_in_place(output, gain, epsilon);
}

pub(super) fn rms_norm_in_place(values: &mut [f32], gain: &[f32], epsilon: f32) {
    assert_eq!(values.len(), gain.len(), "RMSNorm of different lengths");
    let factor = rms_factor(values, epsilon);
    for (value, gain) in values.iter_mut().zip(gain) {
        *value = *value * factor * gain;
    }
}

pub(super) fn silu_multiply(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up of different lengths");
    for (gate, &up) in gate.iter_mut().zip(up) {
        *gate = silu_multiply_each(*gate, up);
    }
}

pub(super) fn add(sum: &mut [f32], addend: &[f32]) {
    assert_eq!(sum.len(), addend.len(), "sum of different lengths");
    for (sum, addend) in sum.iter_mut().zip(addend) {
        *sum += addend;
    }
}

pub(super) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(head.len() == 2 * cos.len() && cos.len() == sin.len(), "rotation of different lengths");
    let (low, high) = head.split_at_mut(cos.len());
    for (((low, high), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*low, *high) = rotate_each(*low, *high, cos, sin);
    }
}

pub(super) fn quantize_activations(
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
        let peak = input.iter().fold(0, |peak: u32, value| peak.max(value.abs().to_bits()));
        let peak = f32::from_bits(peak);
        if !peak.is_finite() {
            return false;
        }
        codes.fill(0);
        *scale = 0.0;
        if peak >= SMALLEST_PEAK {
            *scale = peak / 127.0;
            let inverse = 127.0 / peak;
            for (code, value) in codes.iter_mut().zip(input) {
                *code = (value * inverse + ROUNDER).to_bits() as i8;
            }
        }
    }
    true
}
