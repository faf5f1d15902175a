//! Scores of queries with f32 keys, whose positions lie side by side: a lane is a key, so nothing is folded across lanes.
//!
//! ```text
//! keys of a head:   [position / 16][element][position % 16]
//! sums[i]        =  sum over elements i, i + 16, .. of query[element] * keys[element]      the lanes of docs/numerics.md,
//! score          =  the sixteen sums, folded in halves, times the scale                    each for sixteen keys at once
//! ```
//! The full-precision model runs with such keys, and so do encoders and classifiers: all tokens at once, so that a key that is kept in sixteen
//! strides is read for many queries.
//!
//! No closures here but those of iterators: one that touches lanes would be a function of its own, compiled without the backend's features.

#![expect(
    clippy::needless_range_loop,
    reason = "loops of a fixed length over several arrays: zipped, they were not unrolled, and the sums left the registers"
)]

use super::attention::scores_each;
use super::lanes::{Elementwise, LANES, Lanes};

/// Positions whose keys lie side by side.
pub const POSITIONS_TOGETHER: usize = LANES;

/// Keeps the key of a position among those of one head: `keys` has whole blocks of [`POSITIONS_TOGETHER`] positions.
///
/// # Panics
/// Where `keys` ends before the position's block does.
pub fn keep_key_f32(values: &[f32], position: usize, keys: &mut [f32]) {
    let block_elems = values.len() * POSITIONS_TOGETHER;
    let block = &mut keys[position / POSITIONS_TOGETHER * block_elems..][..block_elems];
    let (rows, _) = block.as_chunks_mut::<POSITIONS_TOGETHER>();
    for (row, value) in rows.iter_mut().zip(values) {
        row[position % POSITIONS_TOGETHER] = *value;
    }
}

/// The keys of sixteen positions: a row an element.
type Block<'a> = &'a [[f32; LANES]];

/// Values that fit the registers as sums where two queries and two blocks are computed at once: four partial folds of each, and one more that is
/// being made.
const SUMS_OF_PAIRS: usize = 20;

#[inline(always)]
pub(super) fn scores_f32<L: Lanes>(
    mut queries: &[f32],
    head_dim: usize,
    keys: &[f32],
    first: usize,
    scale: f32,
    mut scores: &mut [f32],
) {
    let Some(count) = scores_each(queries.len(), head_dim, scores.len()) else { return };
    let (rows, _) = keys.as_chunks();
    let (before, end) = (first / LANES * head_dim, (first + count).div_ceil(LANES) * head_dim);
    assert!(end <= rows.len(), "scores of more keys than there are");
    let (rows, skipped) = (&rows[before..end], first % LANES);
    if !L::IN_REGISTERS {
        for (query, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(count)) {
            scores_one_by_one(query, rows, skipped, scale, scores);
        }
        return;
    }
    let whole = head_dim.is_multiple_of(LANES);
    while whole && L::SUMS >= SUMS_OF_PAIRS && queries.len() >= 2 * head_dim {
        let (left, right, later) =
            (&queries[..head_dim], &queries[head_dim..2 * head_dim], &queries[2 * head_dim..]);
        let (now, later_scores) = scores.split_at_mut(2 * count);
        let (to_left, to_right) = now.split_at_mut(count);
        scores_of::<L, false, 2>([left, right], rows, skipped, scale, [to_left, to_right]);
        (queries, scores) = (later, later_scores);
    }
    for (query, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(count)) {
        match whole {
            true => scores_of::<L, false, 1>([query], rows, skipped, scale, [scores]),
            false => scores_of::<L, true, 1>([query], rows, skipped, scale, [scores]),
        }
    }
}

/// The scores of a query with all blocks but the first `skipped` lanes, where sixteen lanes lie in memory.
#[inline(always)]
fn scores_one_by_one(query: &[f32], rows: Block<'_>, skipped: usize, scale: f32, scores: &mut [f32]) {
    let rest = query.len() % LANES;
    for (index, score) in scores.iter_mut().enumerate() {
        let (block, lane) = ((skipped + index) / LANES, (skipped + index) % LANES);
        let mut sums = [0.0_f32; LANES];
        for (element, (query, keys)) in query.iter().zip(&rows[block * query.len()..]).enumerate() {
            let sum = &mut sums[element % LANES];
            *sum = query.fma(keys[lane], *sum);
        }
        if rest > 0 {
            // As in `quarter`.
            sums[rest..].iter_mut().for_each(|sum| *sum += 0.0);
        }
        *score = sums.fold_sum() * scale;
    }
}

/// The scores of `Q` queries with all blocks but the first `skipped` lanes. `PARTIAL`: a head is no multiple of sixteen long.
#[inline(always)]
fn scores_of<L: Lanes, const PARTIAL: bool, const Q: usize>(
    queries: [&[f32]; Q],
    rows: Block<'_>,
    skipped: usize,
    scale: f32,
    scores: [&mut [f32]; Q],
) {
    let head_dim = queries[0].len();
    let mut at = 0;
    if !PARTIAL && L::SUMS >= SUMS_OF_PAIRS {
        for pair in rows.chunks_exact(2 * head_dim) {
            let (left, right) = pair.split_at(head_dim);
            let found = folded::<L, PARTIAL, Q, 2>(queries, [left, right], scale);
            for q in 0..Q {
                write(found[q][0], at, skipped, scores[q]);
                write(found[q][1], at + LANES, skipped, scores[q]);
            }
            at += 2 * LANES;
        }
    }
    for block in rows[at / LANES * head_dim..].chunks_exact(head_dim) {
        let found = folded::<L, PARTIAL, Q, 1>(queries, [block], scale);
        for q in 0..Q {
            write(found[q][0], at, skipped, scores[q]);
        }
        at += LANES;
    }
}

/// Writes scores, the first of which would be number `at` of `skipped` and those in `scores`. What is outside has no place.
#[inline(always)]
fn write<L: Lanes>(found: L, at: usize, skipped: usize, scores: &mut [f32]) {
    if at < skipped {
        let mut all = [0.0; LANES];
        found.store(&mut all);
        return scores.iter_mut().zip(&all[skipped - at..]).for_each(|(score, found)| *score = *found);
    }
    let scores = &mut scores[at - skipped..];
    match scores.first_chunk_mut() {
        Some(place) => found.store(place),
        None => found.store_partial(scores),
    }
}

/// The scores of `Q` queries with the keys of `B` blocks. The sums of lanes are made in the order in which they fold: no more than four of a
/// query and a block are ever waiting for their other halves.
#[inline(always)]
fn folded<L: Lanes, const PARTIAL: bool, const Q: usize, const B: usize>(
    queries: [&[f32]; Q],
    blocks: [Block<'_>; B],
    scale: f32,
) -> [[L; B]; Q] {
    let even = added(
        quarter::<L, PARTIAL, Q, B>(queries, blocks, 0),
        quarter::<L, PARTIAL, Q, B>(queries, blocks, 2),
    );
    let odd = added(
        quarter::<L, PARTIAL, Q, B>(queries, blocks, 1),
        quarter::<L, PARTIAL, Q, B>(queries, blocks, 3),
    );
    let mut scores = added(even, odd);
    for q in 0..Q {
        for b in 0..B {
            scores[q][b] = scores[q][b].mul(L::splat(scale));
        }
    }
    scores
}

/// What the sums `lane`, `lane + 4`, `lane + 8` and `lane + 12` fold to.
#[inline(always)]
fn quarter<L: Lanes, const PARTIAL: bool, const Q: usize, const B: usize>(
    mut queries: [&[f32]; Q],
    mut blocks: [Block<'_>; B],
    lane: usize,
) -> [[L; B]; Q] {
    let head_dim = queries[0].len();
    for query in &mut queries {
        *query = &query[..head_dim];
    }
    for block in &mut blocks {
        *block = &block[..head_dim];
    }
    let mut sums = [[[L::splat(0.0); B]; Q]; 4];
    let mut element = lane;
    while element + 12 < head_dim {
        for step in 0..4 {
            add_products(queries, blocks, element + 4 * step, &mut sums[step]);
        }
        element += LANES;
    }
    if PARTIAL {
        for step in 0..4 {
            if element + 4 * step < head_dim {
                add_products(queries, blocks, element + 4 * step, &mut sums[step]);
            } else if lane + 4 * step >= head_dim % LANES {
                // The last elements are filled up with zeros, whose product is added as well.
                sums[step] = added(sums[step], [[L::splat(0.0); B]; Q]);
            }
        }
    }
    added(added(sums[0], sums[2]), added(sums[1], sums[3]))
}

/// Adds the products of one element.
#[inline(always)]
fn add_products<L: Lanes, const Q: usize, const B: usize>(
    queries: [&[f32]; Q],
    blocks: [Block<'_>; B],
    element: usize,
    sums: &mut [[L; B]; Q],
) {
    let mut keys = [L::splat(0.0); B];
    for b in 0..B {
        keys[b] = L::load(&blocks[b][element]);
    }
    for q in 0..Q {
        let query = L::splat(queries[q][element]);
        for b in 0..B {
            sums[q][b] = query.fma(keys[b], sums[q][b]);
        }
    }
}

#[inline(always)]
fn added<L: Lanes, const Q: usize, const B: usize>(mut left: [[L; B]; Q], right: [[L; B]; Q]) -> [[L; B]; Q] {
    for q in 0..Q {
        for b in 0..B {
            left[q][b] = left[q][b].add(right[q][b]);
        }
    }
    left
}
