//! Attention over keys and values that are kept as int8 codes, a scale for each head: the rules of docs/numerics.md, written once over a
//! backend's sums of integers.
//!
//! ```text
//! scores         a few queries, quantized into codes on the stack
//!   Int8Sums::scores       of four keys at once; where fewer are left, the last one stands in for those that are missing
//! weighted sums  blocks of 64 positions, aligned in the cache; each row's weights become codes of 14 bits, a unit for each block
//!   Int8Sums::columns      sums of a block, in columns that fit the registers
//!   rest_of_columns        those that are left
//! ```
//! Integer sums have no order, so a backend is free inside a head and inside a block, and bound between blocks. No closures here that touch
//! lanes: they would be functions of their own, compiled without the backend's features.

use super::MOST_TOGETHER;
use super::attention::scores_each;
use super::canonical::{SMALLEST_PEAK, quantize_step};
use super::lanes::{Elementwise, LANES, Lanes};

/// Numbers of a head at most (formats/src/spec.rs). Sums of so many products are exact in an f32: `1024 * 127 * 127 < 2^24`.
pub(super) const MOST_HEAD: usize = 1024;
/// Keys whose sums are scaled side by side.
pub(super) const KEYS: usize = 4;
/// Positions whose weights share a unit. A block's sums are at most `64 * 16383 * 127 < 2^31`.
pub(super) const BLOCK: usize = 64;
/// The largest code of a weight: two limbs of seven bits.
const LARGEST_CODE: f32 = 16383.0;
/// Positions in the grain of memory for values: [`Int8Sums::INTERLEAVED`] divides it.
pub const GRAIN: usize = 4;

/// The sums of a backend.
pub(super) trait Int8Sums {
    /// Its float operations.
    type Lanes: Lanes;
    /// Positions whose values lie side by side, column by column: 1, 2 or 4.
    const INTERLEAVED: usize = 1;
    /// Queries that share the loads of keys and values, at most [`MOST_TOGETHER`].
    const TOGETHER: usize = MOST_TOGETHER;

    /// For each query and key, `f32(sum of products) * (key_scale * factor)`. All have `N` times sixteen codes, or where `N` is 0 any number.
    #[inline(always)]
    fn scores<const Q: usize, const N: usize>(
        queries: [&[i8]; Q],
        factors: [f32; Q],
        keys: [&[i8]; KEYS],
        key_scales: &[f32; KEYS],
    ) -> [[f32; KEYS]; Q] {
        let mut scores = [[0.0; KEYS]; Q];
        for ((scores, query), factor) in scores.iter_mut().zip(queries).zip(factors) {
            for ((score, key), scale) in scores.iter_mut().zip(keys).zip(key_scales) {
                let products = query.iter().zip(key).map(|(query, key)| i32::from(*query) * i32::from(*key));
                *score = products.sum::<i32>() as f32 * (scale * factor);
            }
        }
        scores
    }

    /// Adds `sum of code * value`, times the row's unit, to the first columns of each row's output; returns how many columns.
    #[inline(always)]
    fn columns<const Q: usize>(_block: &Block<'_, Q>, _outputs: &mut [&mut [f32]; Q]) -> usize {
        0
    }
}

/// Positions of a block, from its aligned beginning on, and rows of weights over them.
pub(super) struct Block<'a, const Q: usize> {
    /// Of positions that a row doesn't see, 0.
    pub(super) codes: [[i16; BLOCK]; Q],
    pub(super) units: [f32; Q],
    /// Positions up to the last that any row sees.
    pub(super) positions: usize,
    /// Their values, those of the last grain all: what was never kept there has a code of 0.
    pub(super) values: &'a [i8],
}

#[inline(always)]
pub(super) fn keep_key_int8<S: Int8Sums>(values: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(values.len(), codes.len(), "as many codes as numbers");
    quantize_step::<S::Lanes>(values, codes)
}

#[inline(always)]
pub(super) fn keep_value_int8<S: Int8Sums>(values: &[f32], position: usize, kept: &mut [i8]) -> f32 {
    let e = values.len();
    assert!(e > 0 && e <= MOST_HEAD && kept.len().is_multiple_of(GRAIN * e), "values of another length");
    let mut codes = [0; MOST_HEAD];
    let codes = &mut codes[..e];
    let scale = quantize_step::<S::Lanes>(values, codes);
    let first = position / S::INTERLEAVED * S::INTERLEAVED * e;
    let columns = kept[first..][..S::INTERLEAVED * e].chunks_exact_mut(S::INTERLEAVED);
    for (column, code) in columns.zip(codes) {
        column[position % S::INTERLEAVED] = *code;
    }
    scale
}

#[inline(always)]
pub(super) fn scores_int8<S: Int8Sums>(
    queries: &[f32],
    head_dim: usize,
    keys: &[i8],
    key_scales: &[f32],
    scale: f32,
    scores: &mut [f32],
) {
    assert!(head_dim <= MOST_HEAD, "a head of more than {MOST_HEAD} numbers");
    let Some(count) = scores_each(queries.len(), head_dim, scores.len()) else { return };
    assert!(
        count * head_dim <= keys.len() && count <= key_scales.len(),
        "scores of more keys than there are"
    );
    let keys = Keys { head_dim, codes: &keys[..count * head_dim], scales: &key_scales[..count], scale };
    match head_dim {
        32 if S::Lanes::IN_REGISTERS && cfg!(feature = "head-32") => {
            scores_of::<S, 2, 32>(queries, &keys, scores);
        }
        64 if S::Lanes::IN_REGISTERS && cfg!(feature = "head-64") => {
            scores_of::<S, 4, 64>(queries, &keys, scores);
        }
        128 if S::Lanes::IN_REGISTERS && cfg!(feature = "head-128") => {
            scores_of::<S, 8, 128>(queries, &keys, scores);
        }
        ..=256 => scores_of::<S, 0, 256>(queries, &keys, scores),
        _ => {
            for (queries, scores) in queries.chunks_exact(head_dim).zip(scores.chunks_exact_mut(count)) {
                scores_together::<S, 0, MOST_HEAD, 1>(queries, &keys, scores);
            }
        }
    }
}

/// Keys of a head, one scale each, and what all scores are multiplied with.
struct Keys<'a> {
    head_dim: usize,
    codes: &'a [i8],
    scales: &'a [f32],
    scale: f32,
}

/// Of heads of `N` times sixteen numbers, or where `N` is 0 of any number; `ROOM` is at least that.
#[inline(always)]
fn scores_of<S: Int8Sums, const N: usize, const ROOM: usize>(
    mut queries: &[f32],
    keys: &Keys<'_>,
    mut scores: &mut [f32],
) {
    let head_dim = if N == 0 { keys.head_dim } else { N * LANES };
    while !queries.is_empty() {
        let together = (queries.len() / head_dim).min(S::TOGETHER);
        let (now, later) = scores.split_at_mut(together * keys.scales.len());
        match together {
            2 if S::TOGETHER >= 2 => scores_together::<S, N, ROOM, 2>(queries, keys, now),
            3 if S::TOGETHER >= 3 => scores_together::<S, N, ROOM, 3>(queries, keys, now),
            MOST_TOGETHER if S::TOGETHER >= MOST_TOGETHER => {
                scores_together::<S, N, ROOM, MOST_TOGETHER>(queries, keys, now);
            }
            _ => scores_together::<S, N, ROOM, 1>(queries, keys, now),
        }
        queries = &queries[together * head_dim..];
        scores = later;
    }
}

/// Of the first `Q` queries: each key is loaded once for all.
#[inline(always)]
fn scores_together<S: Int8Sums, const N: usize, const ROOM: usize, const Q: usize>(
    queries: &[f32],
    keys: &Keys<'_>,
    scores: &mut [f32],
) {
    let Keys { head_dim, codes, scales, scale } = *keys;
    let head_dim = if N == 0 { head_dim } else { N * LANES };
    let mut query_codes = [[0; ROOM]; Q];
    let mut factors = [0.0; Q];
    for ((query, codes), factor) in queries.chunks_exact(head_dim).zip(&mut query_codes).zip(&mut factors) {
        *factor = quantize_step::<S::Lanes>(query, &mut codes[..head_dim]) * scale;
    }
    let mut queries: [&[i8]; Q] = [&[]; Q];
    for (query, codes) in queries.iter_mut().zip(&query_codes) {
        *query = &codes[..head_dim];
    }
    let count = scales.len();
    let (blocks, rest) = scales.as_chunks::<KEYS>();
    for (block, (key_scales, codes)) in blocks.iter().zip(codes.chunks_exact(KEYS * head_dim)).enumerate() {
        let mut keys: [&[i8]; KEYS] = [&[]; KEYS];
        for (key, codes) in keys.iter_mut().zip(codes.chunks_exact(head_dim)) {
            *key = codes;
        }
        let found = S::scores::<Q, N>(queries, factors, keys, key_scales);
        for (scores, found) in scores.chunks_exact_mut(count).zip(found) {
            scores[block * KEYS..][..KEYS].copy_from_slice(&found);
        }
    }
    let first = count - rest.len();
    let Some(last) = codes.chunks_exact(head_dim).next_back().filter(|_| !rest.is_empty()) else { return };
    let (mut keys, mut key_scales) = ([last; KEYS], [0.0; KEYS]);
    key_scales[..rest.len()].copy_from_slice(rest);
    for (key, codes) in keys.iter_mut().zip(codes[first * head_dim..].chunks_exact(head_dim)) {
        *key = codes;
    }
    let found = S::scores::<Q, N>(queries, factors, keys, &key_scales);
    for (scores, found) in scores.chunks_exact_mut(count).zip(found) {
        scores[first..].copy_from_slice(&found[..rest.len()]);
    }
}

#[inline(always)]
pub(super) fn weighted_sums_int8<S: Int8Sums>(
    weights: &[&[f32]],
    first: usize,
    values: &[i8],
    value_scales: &[f32],
    outputs: &mut [&mut [f32]],
) {
    assert_eq!(weights.len(), outputs.len(), "as many outputs as rows of weights");
    let values = Values { first, codes: values, scales: value_scales };
    for (weights, outputs) in weights.chunks(S::TOGETHER).zip(outputs.chunks_mut(S::TOGETHER)) {
        match (weights, outputs) {
            ([a], [x]) => weighted_sums_of::<S, 1>([a], values, [x]),
            ([a, b], [x, y]) if S::TOGETHER >= 2 => weighted_sums_of::<S, 2>([a, b], values, [x, y]),
            ([a, b, c], [x, y, z]) if S::TOGETHER >= 3 => {
                weighted_sums_of::<S, 3>([a, b, c], values, [x, y, z]);
            }
            ([a, b, c, d], [x, y, z, w]) if S::TOGETHER >= MOST_TOGETHER => {
                weighted_sums_of::<S, MOST_TOGETHER>([a, b, c, d], values, [x, y, z, w]);
            }
            _ => {}
        }
    }
}

/// Values of a head from position 0 on, one scale each, and the position that rows of weights begin at.
#[derive(Clone, Copy)]
struct Values<'a> {
    first: usize,
    codes: &'a [i8],
    scales: &'a [f32],
}

/// The weighted sums of `Q` rows, which share the loads of values.
#[inline(always)]
fn weighted_sums_of<S: Int8Sums, const Q: usize>(
    weights: [&[f32]; Q],
    values: Values<'_>,
    mut outputs: [&mut [f32]; Q],
) {
    let e = outputs.first().map_or(0, |output| output.len());
    assert!(outputs.iter().all(|output| output.len() == e), "outputs of different lengths");
    let Values { first, codes, scales } = values;
    let end = first + weights.iter().map(|weights| weights.len()).max().unwrap_or(0);
    assert!(
        end <= scales.len() && end.next_multiple_of(GRAIN) * e <= codes.len(),
        "weighted sum beyond its values"
    );
    outputs.iter_mut().for_each(|output| output.fill(0.0));
    let mut at = first;
    while at < end {
        let beginning = at / BLOCK * BLOCK;
        let block_end = end.min(beginning + BLOCK);
        let mut block = Block {
            codes: [[0; BLOCK]; Q],
            units: [0.0; Q],
            positions: block_end - beginning,
            values: &codes[beginning * e..block_end.next_multiple_of(GRAIN) * e],
        };
        for ((weights, codes), unit) in weights.iter().zip(&mut block.codes).zip(&mut block.units) {
            let seen = &weights[weights.len().min(at - first)..weights.len().min(block_end - first)];
            *unit = quantize_weights::<S::Lanes>(seen, &scales[at..], at - beginning, codes);
        }
        let done = S::columns(&block, &mut outputs);
        rest_of_columns::<S, Q>(&block, done, &mut outputs);
        at = block_end;
    }
}

/// Makes codes of weights times their values' scales, from place `offset` of the block on; the others stay as they are. Returns their unit: NaN
/// where a product isn't finite.
#[inline(always)]
fn quantize_weights<L: Lanes>(
    weights: &[f32],
    scales: &[f32],
    offset: usize,
    codes: &mut [i16; BLOCK],
) -> f32 {
    const CHUNKS: usize = BLOCK / LANES;
    let mut padded;
    let (weights, scales) = match (weights.as_chunks::<BLOCK>().0, scales.as_chunks::<BLOCK>().0) {
        ([weights], [scales, ..]) => (weights, scales),
        _ => {
            padded = [[0.0; BLOCK]; 2];
            padded[0][offset..][..weights.len()].copy_from_slice(weights);
            padded[1][offset..][..weights.len()].copy_from_slice(&scales[..weights.len()]);
            (&padded[0], &padded[1])
        }
    };
    let (weights, _) = weights.as_chunks::<LANES>();
    let (scales, _) = scales.as_chunks::<LANES>();
    let mut products = [L::splat(0.0); CHUNKS];
    let mut largest = L::splat(0.0);
    for ((product, weights), scales) in products.iter_mut().zip(weights).zip(scales) {
        *product = L::load(weights).mul(L::load(scales));
        largest = largest.larger_magnitude(*product);
    }
    let peak = largest.fold_magnitude();
    if !peak.is_finite() {
        return f32::NAN;
    }
    if peak < SMALLEST_PEAK {
        return 0.0;
    }
    let inverse = L::splat(LARGEST_CODE / peak);
    let (codes, _) = codes.as_chunks_mut::<LANES>();
    for (product, codes) in products.into_iter().zip(codes) {
        *codes = product.mul(inverse).to_words();
    }
    peak / LARGEST_CODE
}

/// [`Int8Sums::columns`] of the columns that a backend leaves.
#[inline(always)]
fn rest_of_columns<S: Int8Sums, const Q: usize>(
    block: &Block<'_, Q>,
    first: usize,
    outputs: &mut [&mut [f32]; Q],
) {
    for ((codes, &unit), output) in block.codes.iter().zip(&block.units).zip(outputs) {
        let (e, unit) = (output.len(), S::Lanes::splat(unit));
        let rest = output.get_mut(first..).unwrap_or_default();
        for (chunk, output) in rest.chunks_mut(LANES).enumerate() {
            let column = first + chunk * LANES;
            let mut sums = [0; LANES];
            for (position, &code) in codes[..block.positions].iter().enumerate() {
                let together = position / S::INTERLEAVED * S::INTERLEAVED * e + position % S::INTERLEAVED;
                let values = block.values[together + column * S::INTERLEAVED..].iter();
                let sums = &mut sums[..output.len()];
                for (sum, &value) in sums.iter_mut().zip(values.step_by(S::INTERLEAVED)) {
                    *sum += i32::from(code) * i32::from(value);
                }
            }
            let sums = S::Lanes::load(&sums.map(|sum| sum as f32));
            sums.fma(unit, S::Lanes::load_partial(output, 0.0)).store_partial(output);
        }
    }
}
