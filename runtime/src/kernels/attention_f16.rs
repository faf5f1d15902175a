//! Keeping keys and values as binary16, and the scores of queries with such keys. Written once over sixteen lanes, like the rest of
//! [`super::canonical`], in the order of docs/numerics.md.
//!
//! No closures here but those of iterators: one that touches lanes would be a function of its own, compiled without the backend's features.
//!
//! Up to [`MOST_TOGETHER`] queries share each load of a key and its widening. Heads of 32, 64 and 128 have instances of their own, in which every
//! loop over the head is unrolled. Other heads take the general code, and get the same bits.

use super::MOST_TOGETHER;
use super::attention::scores_each;
use super::canonical::dot;
use super::lanes::{Elementwise, FOLDED_TOGETHER, LANES, Lanes, Part};

#[inline(always)]
pub(super) fn scores_f16<L: Lanes>(
    queries: &[f32],
    head_dim: usize,
    keys: &[u16],
    scale: f32,
    scores: &mut [f32],
) {
    let Some(count) = scores_each(queries.len(), head_dim, scores.len()) else { return };
    assert!(count * head_dim <= keys.len(), "scores of more keys than there are");
    match head_dim {
        32 if L::IN_REGISTERS && cfg!(feature = "head-32") => {
            scores_of::<L, 2>(queries, keys, scale, scores, count)
        }
        64 if L::IN_REGISTERS && cfg!(feature = "head-64") => {
            scores_of::<L, 4>(queries, keys, scale, scores, count)
        }
        128 if L::IN_REGISTERS && cfg!(feature = "head-128") => {
            scores_of::<L, 8>(queries, keys, scale, scores, count)
        }
        _ => {
            for (query, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(count)) {
                for (score, key) in scores.iter_mut().zip(keys.chunks_exact(head_dim)) {
                    *score = dot::<L, u16>(query, key) * scale;
                }
            }
        }
    }
}

/// Of heads of `N` times sixteen, `count` scores each.
#[inline(always)]
fn scores_of<L: Lanes, const N: usize>(
    mut queries: &[f32],
    keys: &[u16],
    scale: f32,
    mut scores: &mut [f32],
    count: usize,
) {
    while !queries.is_empty() {
        let together = (queries.len() / (N * LANES)).min(MOST_TOGETHER);
        let (now, later) = scores.split_at_mut(together * count);
        match together {
            1 => scores_together::<L, N, 1>(queries, keys, scale, now, count),
            2 => scores_together::<L, N, 2>(queries, keys, scale, now, count),
            3 => scores_together::<L, N, 3>(queries, keys, scale, now, count),
            _ => scores_together::<L, N, MOST_TOGETHER>(queries, keys, scale, now, count),
        }
        queries = &queries[together * N * LANES..];
        scores = later;
    }
}

/// Keys whose products share the loads of the queries.
const KEYS_TOGETHER: usize = 2;

/// Of `Q` heads: each key is loaded once for all.
#[inline(always)]
fn scores_together<L: Lanes, const N: usize, const Q: usize>(
    queries: &[f32],
    keys: &[u16],
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
            products::<L, N, Q, KEYS_TOGETHER>(queries, keys, pair * KEYS_TOGETHER, &mut sums);
        }
        for (sums, scores) in sums.iter().zip(scores.chunks_exact_mut(count)) {
            let (scores, _) = scores.as_chunks_mut::<FOLDED_TOGETHER>();
            for (score, folded) in scores[block].iter_mut().zip(L::Part::fold_sums(*sums)) {
                *score = folded * scale;
            }
        }
    }
    for (index, key) in rest.iter().enumerate() {
        products::<L, N, Q, 1>(queries, core::array::from_ref(key), index, &mut sums);
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
fn products<L: Lanes, const N: usize, const Q: usize, const T: usize>(
    queries: &[[[f32; LANES]; N]; Q],
    keys: &[[[u16; LANES]; N]; T],
    first: usize,
    sums: &mut [[<L::Part as Part>::Folded; FOLDED_TOGETHER]; Q],
) {
    let low = products_of_part::<L, N, Q, T>(queries, keys, 0);
    let high = match L::Part::LANES {
        LANES => low,
        _ => products_of_part::<L, N, Q, T>(queries, keys, 1),
    };
    for (key, (low, high)) in low.into_iter().zip(high).enumerate() {
        for (sums, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
            sums[first + key] = low.folded(high);
        }
    }
}

/// The products of one part of the lanes, summed: a part at a time, so that the sums fit the registers.
#[inline(always)]
fn products_of_part<L: Lanes, const N: usize, const Q: usize, const T: usize>(
    queries: &[[[f32; LANES]; N]; Q],
    keys: &[[[u16; LANES]; N]; T],
    part: usize,
) -> [[L::Part; Q]; T] {
    let mut of_part = [[L::Part::zero(); Q]; T];
    for chunk in 0..N {
        for (sums, key) in of_part.iter_mut().zip(keys) {
            let key = L::Part::load_f16(&key[chunk], part);
            for (sum, query) in sums.iter_mut().zip(queries) {
                *sum = L::Part::load(&query[chunk], part).fma(key, *sum);
            }
        }
    }
    of_part
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
