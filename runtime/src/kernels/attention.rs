//! What attention does with scores of any keys: softmax, and weighted sums of values. Written once over sixteen lanes, like the rest of
//! [`super::canonical`], in the order of docs/numerics.md.
//!
//! No closures here but those of iterators: one that touches lanes would be a function of its own, compiled without the backend's features.
//!
//! Up to [`MOST_TOGETHER`] queries share each load of a value, and its widening.

use super::MOST_TOGETHER;
use super::canonical::exp_each;
use super::lanes::{LANES, Lanes, Stored};

/// How many scores each query has, from the lengths of all queries and all scores; `None` where there are none.
#[inline(always)]
pub(super) fn scores_each(queries: usize, head_dim: usize, scores: usize) -> Option<usize> {
    assert!(head_dim > 0 && queries.is_multiple_of(head_dim), "queries of another length");
    let heads = queries / head_dim;
    if heads == 0 || scores == 0 {
        return None;
    }
    assert!(scores.is_multiple_of(heads), "scores of another length");
    Some(scores / heads)
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
pub(super) fn softmax<L: Lanes>(scores: &mut [f32]) {
    let (chunks, rest) = scores.as_chunks_mut();
    let mut largest = L::splat(f32::NEG_INFINITY);
    for chunk in chunks.iter() {
        largest = largest.larger(L::load(chunk));
    }
    if !rest.is_empty() {
        largest = largest.larger(L::load_partial(rest, f32::NEG_INFINITY));
    }
    let largest = L::splat(largest.fold_larger());
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
pub(super) fn weighted_sums_f32<L: Lanes>(weights: &[&[f32]], values: &[f32], outputs: &mut [&mut [f32]]) {
    weighted_sums::<L, f32>(weights, values, outputs);
}

#[inline(always)]
pub(super) fn weighted_sums_f16<L: Lanes>(weights: &[&[f32]], values: &[u16], outputs: &mut [&mut [f32]]) {
    weighted_sums::<L, u16>(weights, values, outputs);
}

#[inline(always)]
fn weighted_sums<L: Lanes, S: Stored>(weights: &[&[f32]], values: &[S], outputs: &mut [&mut [f32]]) {
    assert_eq!(weights.len(), outputs.len(), "as many outputs as rows of weights");
    let groups = weights.chunks(L::ROWS).zip(outputs.chunks_mut(L::ROWS));
    for (weights, outputs) in groups {
        match (weights, outputs) {
            ([a], [x]) => weighted_sums_of::<L, S, 1>([a], values, [x]),
            ([a, b], [x, y]) => weighted_sums_of::<L, S, 2>([a, b], values, [x, y]),
            ([a, b, c], [x, y, z]) => weighted_sums_of::<L, S, 3>([a, b, c], values, [x, y, z]),
            ([a, b, c, d], [x, y, z, w]) => {
                weighted_sums_of::<L, S, MOST_TOGETHER>([a, b, c, d], values, [x, y, z, w]);
            }
            _ => {}
        }
    }
}

/// The weighted sums of `Q` queries. As far as all of them see the values, they share their loads.
#[inline(always)]
fn weighted_sums_of<L: Lanes, S: Stored, const Q: usize>(
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
    // Columns at once: as many as the sums fit the registers, but no more than a usual head has.
    while L::SUMS / Q >= 4 && at + 4 * LANES <= e {
        weighted_block::<L, S, Q, 4>(weights, values, at, &mut outputs);
        at += 4 * LANES;
    }
    while L::SUMS / Q >= 2 && at + 2 * LANES <= e {
        weighted_block::<L, S, Q, 2>(weights, values, at, &mut outputs);
        at += 2 * LANES;
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
    // As long as the loop, so that it needs no check of an index.
    let mut together = weights;
    for weights in &mut together {
        *weights = &weights[..shared];
    }
    for (token, values) in (0..shared).zip(values.get(at..).unwrap_or_default().chunks(e)) {
        let values = chunks(values);
        for (sums, weights) in sums.iter_mut().zip(together) {
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
