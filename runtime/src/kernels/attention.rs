//! Attention's operations on the keys and values of one head: scores, softmax, weighted sum. Written once over sixteen lanes, like the
//! rest of [`super::canonical`], in the order of docs/numerics.md.
//!
//! No closures here but those of iterators: one that touches lanes would be a function of its own, compiled without the backend's features.
//!
//! Heads of 32, 64 and 128 have instances of their own: the query stays in registers and every loop over the head is unrolled. Other
//! heads take the general code, and get the same bits.

use super::canonical::{dot, exp_each};
use super::lanes::{Elementwise, FOLDED_TOGETHER, LANES, Lanes, Stored, fold};

#[inline(always)]
pub(super) fn scores_f32<L: Lanes>(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    scores_with::<L, f32>(query, keys, scale, scores);
}

#[inline(always)]
pub(super) fn scores_f16<L: Lanes>(query: &[f32], keys: &[u16], scale: f32, scores: &mut [f32]) {
    scores_with::<L, u16>(query, keys, scale, scores);
}

#[inline(always)]
fn scores_with<L: Lanes, S: Stored>(query: &[f32], keys: &[S], scale: f32, scores: &mut [f32]) {
    match query.len() {
        32 => scores_of::<L, S, 2>(query, keys, scale, scores),
        64 => scores_of::<L, S, 4>(query, keys, scale, scores),
        128 => scores_of::<L, S, 8>(query, keys, scale, scores),
        _ => scores_of_any::<L, S>(query, keys, scale, scores),
    }
}

/// Of a head of `N` times sixteen.
#[inline(always)]
fn scores_of<L: Lanes, S: Stored, const N: usize>(query: &[f32], keys: &[S], scale: f32, scores: &mut [f32]) {
    let query = chunks::<L, f32, N>(query);
    let keys = &keys[..scores.len() * N * LANES];
    let (blocks, rest) = scores.as_chunks_mut::<FOLDED_TOGETHER>();
    let (key_blocks, key_rest) = keys.split_at(blocks.len() * FOLDED_TOGETHER * N * LANES);
    for (scores, keys) in blocks.iter_mut().zip(key_blocks.chunks_exact(FOLDED_TOGETHER * N * LANES)) {
        let mut sums = [L::splat(0.0); FOLDED_TOGETHER];
        for (sum, key) in sums.iter_mut().zip(keys.chunks_exact(N * LANES)) {
            *sum = products(query, key);
        }
        let folded = L::fold_sums(sums);
        for (score, folded) in scores.iter_mut().zip(folded) {
            *score = folded * scale;
        }
    }
    for (result, key) in rest.iter_mut().zip(key_rest.chunks_exact(N * LANES)) {
        *result = products(query, key).fold_sum() * scale;
    }
}

/// The products of a query and a key, summed by lane.
#[inline(always)]
fn products<L: Lanes, S: Stored, const N: usize>(query: [L; N], key: &[S]) -> L {
    let mut sum = L::splat(0.0);
    for (query, key) in query.into_iter().zip(chunks::<L, S, N>(key)) {
        sum = query.fma(key, sum);
    }
    sum
}

/// `N` times sixteen values, in registers.
#[inline(always)]
fn chunks<L: Lanes, S: Stored, const N: usize>(values: &[S]) -> [L; N] {
    let (values, _) = values[..N * LANES].as_chunks();
    let mut chunks = [L::splat(0.0); N];
    for (chunk, values) in chunks.iter_mut().zip(values) {
        *chunk = S::load(values);
    }
    chunks
}

#[inline(always)]
fn scores_of_any<L: Lanes, S: Stored>(query: &[f32], keys: &[S], scale: f32, scores: &mut [f32]) {
    let mut keys = &keys[..scores.len() * query.len()];
    for score in scores {
        let (key, later) = keys.split_at(query.len());
        *score = dot::<L, S>(query, key) * scale;
        keys = later;
    }
}

#[inline(always)]
fn maximum(a: f32, b: f32) -> f32 {
    a.larger(b)
}

#[inline(always)]
pub(super) fn softmax<L: Lanes>(scores: &mut [f32]) {
    let (chunks, rest) = scores.as_chunks_mut();
    let mut largest = L::splat(f32::NEG_INFINITY);
    for chunk in chunks.iter() {
        largest = largest.larger(L::load(chunk));
    }
    if !rest.is_empty() {
        largest = largest.larger(L::load_partial(rest, f32::NEG_INFINITY));
    }
    let largest = L::splat(fold(largest, maximum));
    let mut sum = L::splat(0.0);
    for chunk in chunks.iter_mut() {
        let e = exp_each(L::load(chunk).sub(largest));
        e.store(chunk);
        sum = sum.add(e);
    }
    if !rest.is_empty() {
        exp_each(L::load_partial(rest, 0.0).sub(largest)).store_partial(rest);
        sum = sum.add(L::load_partial(rest, 0.0));
    }
    let factor = L::splat(1.0 / sum.fold_sum());
    for chunk in chunks {
        L::load(chunk).mul(factor).store(chunk);
    }
    if !rest.is_empty() {
        L::load_partial(rest, 0.0).mul(factor).store_partial(rest);
    }
}

#[inline(always)]
pub(super) fn weighted_sum_f32<L: Lanes>(weights: &[f32], values: &[f32], output: &mut [f32]) {
    // Four times sixteen lanes at once: a usual head, and enough chains of additions to keep the pipeline full.
    weighted_sums::<L, f32, 1, 4>([weights], values, [output]);
}

#[inline(always)]
pub(super) fn weighted_sum_f16<L: Lanes>(weights: &[f32], values: &[u16], output: &mut [f32]) {
    weighted_sums::<L, u16, 1, 4>([weights], values, [output]);
}

#[inline(always)]
pub(super) fn weighted_sum_pair_f32<L: Lanes>(
    weights: [&[f32]; 2],
    values: &[f32],
    outputs: [&mut [f32]; 2],
) {
    weighted_sums::<L, f32, 2, 2>(weights, values, outputs);
}

#[inline(always)]
pub(super) fn weighted_sum_pair_f16<L: Lanes>(
    weights: [&[f32]; 2],
    values: &[u16],
    outputs: [&mut [f32]; 2],
) {
    weighted_sums::<L, u16, 2, 2>(weights, values, outputs);
}

/// The weighted sums of `Q` queries, `N` times sixteen columns at once. As far as all of them see the values, they share their loads.
#[inline(always)]
fn weighted_sums<L: Lanes, S: Stored, const Q: usize, const N: usize>(
    weights: [&[f32]; Q],
    values: &[S],
    mut outputs: [&mut [f32]; Q],
) {
    let e = outputs.first().map_or(0, |output| output.len());
    assert!(outputs.iter().all(|output| output.len() == e), "outputs of different lengths");
    assert!(
        weights.iter().all(|weights| weights.len() * e <= values.len()),
        "weighted sum beyond its values"
    );
    let mut at = 0;
    while at + N * LANES <= e {
        weighted_block::<L, S, Q, N>(weights, values, at, &mut outputs);
        at += N * LANES;
    }
    while at + LANES <= e {
        weighted_block::<L, S, Q, 1>(weights, values, at, &mut outputs);
        at += LANES;
    }
    if at < e {
        for (weights, output) in weights.into_iter().zip(outputs) {
            let mut sum = L::splat(0.0);
            for (&weight, values) in weights.iter().zip(values.chunks_exact(e)) {
                sum = L::splat(weight).fma(S::load_partial(&values[at..]), sum);
            }
            sum.store_partial(&mut output[at..]);
        }
    }
}

/// `N` times sixteen columns from column `at` on, in registers.
#[inline(always)]
fn weighted_block<L: Lanes, S: Stored, const Q: usize, const N: usize>(
    weights: [&[f32]; Q],
    values: &[S],
    at: usize,
    outputs: &mut [&mut [f32]; Q],
) {
    let e = outputs.first().map_or(0, |output| output.len());
    let shared = weights.iter().map(|weights| weights.len()).min().unwrap_or(0);
    let mut sums = [[L::splat(0.0); N]; Q];
    for token in 0..shared {
        let values = chunks(&values[token * e + at..]);
        for (sums, weights) in sums.iter_mut().zip(weights) {
            add_weighted(sums, weights[token], values);
        }
    }
    for (sums, weights) in sums.iter_mut().zip(weights) {
        for (token, &weight) in weights.iter().enumerate().skip(shared) {
            add_weighted(sums, weight, chunks(&values[token * e + at..]));
        }
    }
    for (sums, output) in sums.into_iter().zip(outputs) {
        let (output, _) = output[at..].as_chunks_mut();
        for (sum, output) in sums.into_iter().zip(output) {
            sum.store(output);
        }
    }
}

#[inline(always)]
fn add_weighted<L: Lanes, const N: usize>(sums: &mut [L; N], weight: f32, values: [L; N]) {
    let weight = L::splat(weight);
    for (sum, values) in sums.iter_mut().zip(values) {
        *sum = weight.fma(values, *sum);
    }
}
