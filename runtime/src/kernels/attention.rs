//! Attention's operations on the keys and values that a group of query heads shares: scores, softmax, weighted sums. Written once over
//! sixteen lanes, like the rest of [`super::canonical`], in the order of docs/numerics.md.
//!
//! No closures here but those of iterators: one that touches lanes would be a function of its own, compiled without the backend's features.
//!
//! Up to [`MOST_TOGETHER`] queries share each load of a key or value, and its widening. Heads of 32, 64 and 128 have instances of their
//! own, in which every loop over the head is unrolled. Other heads take the general code, and get the same bits.

use super::MOST_TOGETHER;
use super::canonical::{dot, exp_each};
use super::lanes::{Elementwise, FOLDED_TOGETHER, LANES, Lanes, Part, Stored, fold};

#[inline(always)]
pub(super) fn scores_f32<L: Lanes>(
    queries: &[f32],
    head_dim: usize,
    keys: &[f32],
    scale: f32,
    scores: &mut [f32],
) {
    scores_with::<L, f32>(queries, head_dim, keys, scale, scores);
}

#[inline(always)]
pub(super) fn scores_f16<L: Lanes>(
    queries: &[f32],
    head_dim: usize,
    keys: &[u16],
    scale: f32,
    scores: &mut [f32],
) {
    scores_with::<L, u16>(queries, head_dim, keys, scale, scores);
}

#[inline(always)]
fn scores_with<L: Lanes, S: Stored>(
    queries: &[f32],
    head_dim: usize,
    keys: &[S],
    scale: f32,
    scores: &mut [f32],
) {
    assert!(head_dim > 0 && queries.len().is_multiple_of(head_dim), "queries of another length");
    let heads = queries.len() / head_dim;
    if heads == 0 || scores.is_empty() {
        return;
    }
    let count = scores.len() / heads;
    assert!(count * heads == scores.len() && count * head_dim <= keys.len(), "scores of another length");
    match head_dim {
        32 if L::UNROLLED_HEADS && cfg!(feature = "head-32") => {
            scores_of::<L, S, 2>(queries, keys, scale, scores, count)
        }
        64 if L::UNROLLED_HEADS && cfg!(feature = "head-64") => {
            scores_of::<L, S, 4>(queries, keys, scale, scores, count)
        }
        128 if L::UNROLLED_HEADS && cfg!(feature = "head-128") => {
            scores_of::<L, S, 8>(queries, keys, scale, scores, count)
        }
        _ => {
            for (query, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(count)) {
                for (score, key) in scores.iter_mut().zip(keys.chunks_exact(head_dim)) {
                    *score = dot::<L, S>(query, key) * scale;
                }
            }
        }
    }
}

/// Of heads of `N` times sixteen, `count` scores each.
#[inline(always)]
fn scores_of<L: Lanes, S: Stored, const N: usize>(
    mut queries: &[f32],
    keys: &[S],
    scale: f32,
    mut scores: &mut [f32],
    count: usize,
) {
    while !queries.is_empty() {
        let together = (queries.len() / (N * LANES)).min(MOST_TOGETHER);
        let (now, later) = scores.split_at_mut(together * count);
        match together {
            1 => scores_together::<L, S, N, 1>(queries, keys, scale, now, count),
            2 => scores_together::<L, S, N, 2>(queries, keys, scale, now, count),
            3 => scores_together::<L, S, N, 3>(queries, keys, scale, now, count),
            _ => scores_together::<L, S, N, MOST_TOGETHER>(queries, keys, scale, now, count),
        }
        queries = &queries[together * N * LANES..];
        scores = later;
    }
}

/// Keys whose products share the loads of the queries.
const KEYS_TOGETHER: usize = 2;

/// Of `Q` heads: each key is loaded once for all.
#[inline(always)]
fn scores_together<L: Lanes, S: Stored, const N: usize, const Q: usize>(
    queries: &[f32],
    keys: &[S],
    scale: f32,
    scores: &mut [f32],
    count: usize,
) {
    let (queries, _) = queries.as_chunks::<LANES>();
    let (queries, _) = queries.as_chunks::<N>();
    let (keys, _) = keys.as_chunks::<LANES>();
    let (keys, _) = keys.as_chunks::<N>();
    let Some(queries) = queries.first_chunk::<Q>() else { return };
    let (blocks, rest) = keys[..count].as_chunks::<FOLDED_TOGETHER>();
    let nothing = L::Part::zero();
    let mut sums = [[nothing.folded(nothing); FOLDED_TOGETHER]; Q];
    for (block, keys) in blocks.iter().enumerate() {
        let (pairs, _) = keys.as_chunks::<KEYS_TOGETHER>();
        for (pair, keys) in pairs.iter().enumerate() {
            products::<L, S, N, Q, KEYS_TOGETHER>(queries, keys, pair * KEYS_TOGETHER, &mut sums);
        }
        for (sums, scores) in sums.iter().zip(scores.chunks_exact_mut(count)) {
            let (scores, _) = scores.as_chunks_mut::<FOLDED_TOGETHER>();
            for (score, folded) in scores[block].iter_mut().zip(L::Part::fold_sums(*sums)) {
                *score = folded * scale;
            }
        }
    }
    for (index, key) in rest.iter().enumerate() {
        products::<L, S, N, Q, 1>(queries, core::array::from_ref(key), index, &mut sums);
    }
    for (sums, scores) in sums.iter().zip(scores.chunks_exact_mut(count)) {
        let last = &mut scores[blocks.len() * FOLDED_TOGETHER..];
        for (score, folded) in last.iter_mut().zip(L::Part::fold_sums(*sums)) {
            *score = folded * scale;
        }
    }
}

/// The products of `Q` queries and `T` keys, summed by lane and folded as far as a part is, in places `first` on of `sums`.
#[inline(always)]
fn products<L: Lanes, S: Stored, const N: usize, const Q: usize, const T: usize>(
    queries: &[[[f32; LANES]; N]; Q],
    keys: &[[[S; LANES]; N]; T],
    first: usize,
    sums: &mut [[<L::Part as Part>::Folded; FOLDED_TOGETHER]; Q],
) {
    let low = products_of_part::<L, S, N, Q, T>(queries, keys, 0);
    let high = match L::Part::LANES {
        LANES => low,
        _ => products_of_part::<L, S, N, Q, T>(queries, keys, 1),
    };
    for (key, (low, high)) in low.into_iter().zip(high).enumerate() {
        for (sums, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
            sums[first + key] = low.folded(high);
        }
    }
}

/// The products of one part of the lanes, summed: a part at a time, so that the sums fit the registers.
#[inline(always)]
fn products_of_part<L: Lanes, S: Stored, const N: usize, const Q: usize, const T: usize>(
    queries: &[[[f32; LANES]; N]; Q],
    keys: &[[[S; LANES]; N]; T],
    part: usize,
) -> [[L::Part; Q]; T] {
    let mut of_part = [[L::Part::zero(); Q]; T];
    for chunk in 0..N {
        for (sums, key) in of_part.iter_mut().zip(keys) {
            let key = S::load_part::<L::Part>(&key[chunk], part);
            for (sum, query) in sums.iter_mut().zip(queries) {
                *sum = L::Part::load(&query[chunk], part).fma(key, *sum);
            }
        }
    }
    of_part
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
pub(super) fn maximum(a: f32, b: f32) -> f32 {
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

#[inline(always)]
pub(super) fn keep_f32<L: Lanes>(values: &[f32], kept: &mut [f32]) {
    kept.copy_from_slice(values);
}

/// The largest binary16 number. Larger keys and values are kept as this one, so that none is infinite.
const LARGEST_F16: f32 = 65504.0;

#[inline(always)]
pub(super) fn keep_f16<L: Lanes>(values: &[f32], kept: &mut [u16]) {
    assert_eq!(values.len(), kept.len(), "as many numbers kept as there are");
    let (values, values_rest) = values.as_chunks();
    let (kept, kept_rest) = kept.as_chunks_mut();
    for (values, kept) in values.iter().zip(kept) {
        *kept = limited(L::load(values)).to_f16();
    }
    if !values_rest.is_empty() {
        let last = limited(L::load_partial(values_rest, 0.0)).to_f16();
        kept_rest.copy_from_slice(&last[..kept_rest.len()]);
    }
}

/// A NaN stays one.
#[inline(always)]
pub(super) fn limited<E: Elementwise>(values: E) -> E {
    E::splat(-LARGEST_F16).larger(E::splat(LARGEST_F16).smaller(values))
}
