//! Scores over int8 codes, for backends whose registers hold sixteen of them.

use super::attention_int8::KEYS;
use super::lanes::LANES;

/// Products of sixteen codes at a time, in registers. Every method is `#[inline(always)]`, as those of [`super::lanes`] are, and for the same reason.
pub(super) trait CodeProducts {
    /// Sixteen codes, as they are multiplied.
    type Codes: Copy;
    /// Sums of products, of one query and key.
    type Sums: Copy;

    /// Sixteen codes.
    fn load(codes: &[i8; LANES]) -> Self::Codes;
    /// Sums of nothing.
    fn zero() -> Self::Sums;
    /// Adds the products of sixteen codes.
    fn add(sums: Self::Sums, a: Self::Codes, b: Self::Codes) -> Self::Sums;
    /// Folds the sums of each key, and scales them: `f32(sum) * (key_scale * factor)`.
    fn scaled(sums: [Self::Sums; KEYS], key_scales: &[f32; KEYS], factor: f32) -> [f32; KEYS];
}

/// [`super::attention_int8::Int8Sums::scores`], a chunk of sixteen codes at a time: a key's is loaded once for all queries, a query's once for the four keys.
#[inline(always)]
pub(super) fn scores_in_chunks<P: CodeProducts, const Q: usize, const N: usize>(
    queries: [&[i8]; Q],
    factors: [f32; Q],
    keys: [&[i8]; KEYS],
    key_scales: &[f32; KEYS],
) -> [[f32; KEYS]; Q] {
    let mut sums = [[P::zero(); KEYS]; Q];
    let mut of_queries = [P::load(&[0; LANES]); Q];
    let chunks = if N == 0 { keys[0].len() / LANES } else { N };
    for chunk in 0..chunks {
        for (codes, query) in of_queries.iter_mut().zip(queries) {
            *codes = P::load(&query.as_chunks().0[chunk]);
        }
        for (index, key) in keys.iter().enumerate() {
            let key = P::load(&key.as_chunks().0[chunk]);
            for (sums, query) in sums.iter_mut().zip(of_queries) {
                sums[index] = P::add(sums[index], key, query);
            }
        }
    }
    if N == 0 && chunks * LANES < keys[0].len() {
        for (index, key) in keys.iter().enumerate() {
            let key = P::load(&padded(&key[chunks * LANES..]));
            for (sums, query) in sums.iter_mut().zip(queries) {
                sums[index] = P::add(sums[index], key, P::load(&padded(&query[chunks * LANES..])));
            }
        }
    }
    let mut scores = [[0.0; KEYS]; Q];
    for ((scores, sums), factor) in scores.iter_mut().zip(sums).zip(factors) {
        *scores = P::scaled(sums, key_scales, factor);
    }
    scores
}

/// Sixteen codes, and zeros in the place of those that are missing.
#[inline(always)]
fn padded(codes: &[i8]) -> [i8; LANES] {
    let mut padded = [0; LANES];
    padded[..codes.len()].copy_from_slice(codes);
    padded
}
