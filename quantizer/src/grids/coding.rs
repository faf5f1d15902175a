//! Coded scales: `scale = row scale * multiplier / 2^14`, a binary16 for every row and a 4-bit code for every group.
//!
//! The scales of a row lie close together (within an octave for 99 of 100 groups of the models measured), so sixteen multipliers do
//! nearly what a binary16 a group does, at a quarter of its bits. The multipliers are integers up to 255, the same for all rows of
//! a matrix and fitted to its scales: dense where most of them are, yet reaching far enough for the few that are much smaller.

use super::Real;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What a multiplier of 1 means: multipliers are 256ths and levels 64ths, so that row scales are about as large as weights, well inside
/// the range of a binary16.
pub const CODED_UNIT: f64 = 1.0 / (256.0 * 64.0);
/// The same for the scale of a whole row.
pub const ROW_UNIT: f64 = 1.0 / 64.0;
/// Multipliers of a matrix.
pub const MULTIPLIERS: usize = 16;
/// The multipliers of a matrix, increasing, from 1 to 255.
pub type Multipliers = [u8; MULTIPLIERS];
/// The largest multiplier.
const LARGEST: f64 = 255.0;
/// Ratios of scales are counted down to 255 to 1.
const OCTAVES: usize = 8;
/// Bins of that count.
const BINS_AN_OCTAVE: usize = 16;
/// Rows of a strip.
const STRIP_ROWS: usize = 64;
/// The most steps of Lloyd's iteration.
const LLOYD_STEPS: usize = 12;
/// Row scales that are tried: the one that makes the largest multiplier the row's largest scale, times 2 to the power of these.
const ROW_SHIFTS: [f64; 9] = [-0.125, -0.09375, -0.0625, -0.03125, 0.0, 0.03125, 0.0625, 0.09375, 0.125];

/// Which numbers a row's scale may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowScales {
    /// All of binary16.
    Any,
    /// Those of three significant bits from 2^-8 on: three bits times the eight of a multiplier are the eleven of a binary16, so that the scale of
    /// every group is one. Formats with a binary16 a group then hold the matrix exactly.
    Short,
}

impl RowScales {
    /// The smallest one that is short: times the unit of a multiplier it is the smallest binary16 above zero, times 4.
    const LEAST_SHORT: f64 = 1.0 / 256.0;
    /// The largest one.
    const MOST_SHORT: f64 = 57_344.0;

    /// The one nearest to `row_scale`, of a row that is several groups.
    pub(crate) fn nearest<T: Real>(self, row_scale: f64) -> T {
        let stored = self.nearest_of_whole_row::<T>(row_scale);
        if self == Self::Any {
            return stored;
        }
        let stored = stored.to_f64();
        // Three significant bits are the integers from 4 to 7 times a power of two.
        let unit = (stored.log2().floor() - 2.0).exp2();
        T::from_f64(((stored / unit).round() * unit).min(Self::MOST_SHORT))
    }

    /// The same of a row that is one group: its scale needs no bits for a multiplier, but must not be too small either.
    pub(crate) fn nearest_of_whole_row<T: Real>(self, row_scale: f64) -> T {
        let least = if self == Self::Short { Self::LEAST_SHORT } else { 0.0 };
        T::from_f64(T::from_f64(row_scale.max(least)).to_normal_f16().to_f64())
    }
}

/// How the scales of a matrix are stored. A group's scale is its row's times a multiplier, exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaleCoding<T> {
    /// What codes stand for.
    pub multipliers: Multipliers,
    /// m binary16 numbers, positive.
    pub row_scales: Vec<T>,
}

impl<T: Real> ScaleCoding<T> {
    /// The coding with such row scales that fits `scales` (m x `groups`, row-major, positive) well, by their squared relative errors
    /// times `weights` (as many as scales, or none for all the same); `scales` become what it can store.
    ///
    /// Lloyd's iteration from a companded start: rows and codes for the multipliers, then multipliers for these.
    ///
    /// # Panics
    /// Where `groups` is 0.
    pub fn fit(scales: &mut [T], groups: usize, weights: Option<&[f64]>, row_scales: RowScales) -> Self {
        let total = |multipliers: &Multipliers| -> f64 {
            let of_strip = |(scales, weights)| -> f64 {
                rows(scales, groups, weights)
                    .map(|(row, weights)| fit_row(row, weights, multipliers, row_scales).1)
                    .sum()
            };
            let of_strips: Vec<f64> = strips(scales, groups, weights).map(of_strip).collect();
            of_strips.iter().sum()
        };
        let mut now = companded(scales, groups, weights);
        let mut cost = total(&now);
        for _ in 0..LLOYD_STEPS {
            let next = centroids(scales, groups, weights, &now, row_scales);
            let next_cost = total(&next);
            if next_cost >= cost {
                break;
            }
            (now, cost) = (next, next_cost);
        }
        let multipliers = now;
        let row_scales = scales
            .par_chunks_mut(groups)
            .enumerate()
            .map(|(at, row)| {
                let weights = weights.map(|weights| &weights[at * groups..(at + 1) * groups]);
                let (row_scale, _) = fit_row(row, weights, &multipliers, row_scales);
                row.iter_mut().for_each(|scale| *scale = nearest(*scale, row_scale, &multipliers));
                row_scale
            })
            .collect();
        Self { multipliers, row_scales }
    }
}

/// Strips of scales and of their weights, a fixed number of rows each: what is summed over them does not depend on the number of threads.
fn strips<'a, T: Real>(
    scales: &'a [T],
    groups: usize,
    weights: Option<&'a [f64]>,
) -> impl IndexedParallelIterator<Item = (&'a [T], Option<&'a [f64]>)> {
    let elems = STRIP_ROWS * groups;
    scales.par_chunks(elems).enumerate().map(move |(strip, scales)| {
        (scales, weights.map(|weights| &weights[strip * elems..strip * elems + scales.len()]))
    })
}

/// The rows of scales and of their weights.
fn rows<'a, T>(
    scales: &'a [T],
    groups: usize,
    weights: Option<&'a [f64]>,
) -> impl Iterator<Item = (&'a [T], Option<&'a [f64]>)> {
    let weights = move |row: usize| weights.map(|weights| &weights[row * groups..(row + 1) * groups]);
    scales.chunks(groups).enumerate().map(move |(row, scales)| (scales, weights(row)))
}

/// Multipliers on a logarithmic scale, about as dense as the cube root of how often the ratio of a scale to its row's largest
/// occurs: the best density for small squared errors (Panter and Dite 1951).
fn companded<T: Real>(scales: &[T], groups: usize, weights: Option<&[f64]>) -> Multipliers {
    let mut counts = [0.0; OCTAVES * BINS_AN_OCTAVE];
    for (row, weights) in rows(scales, groups, weights) {
        let largest =
            row.iter().fold(T::ZERO, |largest, scale| if *scale > largest { *scale } else { largest });
        for (group, scale) in row.iter().enumerate() {
            let octaves = (largest.to_f64() / scale.to_f64()).log2();
            let bin = ((octaves * BINS_AN_OCTAVE as f64) as usize).min(counts.len() - 1);
            counts[bin] += weights.map_or(1.0, |weights| weights[group]);
        }
    }
    let weights = counts.map(f64::cbrt);
    let total: f64 = weights.iter().sum();
    // The middles of sixteen parts of the same weight, from the largest multiplier down.
    let (mut bin, mut below) = (0, 0.0);
    let mut multipliers = [0; MULTIPLIERS];
    for (part, multiplier) in multipliers.iter_mut().rev().enumerate() {
        let at = (part as f64 + 0.5) / MULTIPLIERS as f64 * total;
        while bin + 1 < weights.len() && below + weights[bin] < at {
            below += weights[bin];
            bin += 1;
        }
        let inside = if weights[bin] > 0.0 { ((at - below) / weights[bin]).clamp(0.0, 1.0) } else { 0.0 };
        let octaves = (bin as f64 + inside) / BINS_AN_OCTAVE as f64;
        *multiplier = (LARGEST * (-octaves).exp2()).round().clamp(1.0, LARGEST) as u8;
    }
    increasing(multipliers)
}

/// The nearest table without equal neighbours.
fn increasing(mut multipliers: Multipliers) -> Multipliers {
    for k in 1..MULTIPLIERS {
        multipliers[k] = multipliers[k].max(multipliers[k - 1].saturating_add(1));
    }
    for k in (0..MULTIPLIERS - 1).rev() {
        multipliers[k] = multipliers[k].min(multipliers[k + 1] - 1);
    }
    multipliers
}

/// For every multiplier the one that is best for the scales which are coded by it, in order.
fn centroids<T: Real>(
    scales: &[T],
    groups: usize,
    weights: Option<&[f64]>,
    multipliers: &Multipliers,
    row_scales: RowScales,
) -> Multipliers {
    // sum (m r / s - 1)^2 is least for m = sum (r / s) / sum (r / s)^2.
    let of_strip = |(scales, weights): (&[T], Option<&[f64]>)| {
        let mut sums = [(0.0_f64, 0.0_f64); MULTIPLIERS];
        for (row, weights) in rows(scales, groups, weights) {
            let (row_scale, _) = fit_row(row, weights, multipliers, row_scales);
            for (group, scale) in row.iter().enumerate() {
                let code = nearest_code(*scale, row_scale, multipliers);
                let ratio = row_scale.to_f64() * CODED_UNIT / scale.to_f64();
                let weight = weights.map_or(1.0, |weights| weights[group]);
                sums[code].0 += weight * ratio;
                sums[code].1 += weight * ratio * ratio;
            }
        }
        sums
    };
    let of_strips: Vec<_> = strips(scales, groups, weights).map(of_strip).collect();
    let mut sums = [(0.0_f64, 0.0_f64); MULTIPLIERS];
    for of_strip in of_strips {
        for (sum, (first, second)) in sums.iter_mut().zip(of_strip) {
            sum.0 += first;
            sum.1 += second;
        }
    }
    let mut next = *multipliers;
    for (next, (first, second)) in next.iter_mut().zip(sums) {
        if second > 0.0 {
            *next = (first / second).round().clamp(1.0, LARGEST) as u8;
        }
    }
    // Rounding may make neighbours equal.
    increasing(next)
}

/// The row scale that stores a row's scales best, and the sum of squared relative errors, weighted where there is a weight for each
/// group.
pub(crate) fn fit_row<T: Real>(
    scales: &[T],
    weights: Option<&[f64]>,
    multipliers: &Multipliers,
    row_scales: RowScales,
) -> (T, f64) {
    let largest =
        scales.iter().fold(T::ZERO, |largest, scale| if *scale > largest { *scale } else { largest });
    let (mut best, mut least) = (T::ONE, f64::INFINITY);
    for shift in ROW_SHIFTS {
        let row_scale = row_scales.nearest(
            largest.to_f64() / (f64::from(multipliers[MULTIPLIERS - 1]) * CODED_UNIT) * shift.exp2(),
        );
        let error = |(group, scale): (usize, &T)| {
            let relative = nearest(*scale, row_scale, multipliers).to_f64() / scale.to_f64() - 1.0;
            relative * relative * weights.map_or(1.0, |weights| weights[group])
        };
        let cost: f64 = scales.iter().enumerate().map(error).sum();
        if cost < least {
            (best, least) = (row_scale, cost);
        }
    }
    (best, least)
}

/// The product of `row_scale` and a multiplier that is nearest to `scale`.
pub(crate) fn nearest<T: Real>(scale: T, row_scale: T, multipliers: &Multipliers) -> T {
    let multiplier = multipliers[nearest_code(scale, row_scale, multipliers)];
    row_scale * T::from_f64(f64::from(multiplier) * CODED_UNIT)
}

fn nearest_code<T: Real>(scale: T, row_scale: T, multipliers: &Multipliers) -> usize {
    let wanted = scale / (row_scale * T::from_f64(CODED_UNIT));
    // Between two multipliers their mean decides; increasing, so as many means lie below as the code says.
    let above = |pair: &[u8]| wanted > T::from_f64(0.5 * (f64::from(pair[0]) + f64::from(pair[1])));
    multipliers.windows(2).filter(|pair| above(pair)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn multipliers_increase_whatever_the_scales() {
        for ratio in [1.0, 0.99, 0.5, 1e-3, 1e-9] {
            for groups in [1, 2, 7] {
                let mut scales: Vec<f64> =
                    (0..groups * 9).map(|i| if i % groups == 0 { 1.0 } else { ratio }).collect();
                let coding = ScaleCoding::fit(&mut scales, groups, None, RowScales::Any);
                assert!(coding.multipliers.is_sorted_by(|low, high| low < high), "{:?}", coding.multipliers);
                assert!(coding.multipliers[0] >= 1 && scales.iter().all(|scale| *scale > 0.0));
            }
        }
    }

    proptest! {
        #[test]
        fn scales_of_an_octave_keep_their_size(seed in 0_u64..1000, groups in 1_usize..20, size in -6.0_f64..2.0) {
            let noise = |i: usize| ((i as u64 + seed * 7919) * 2_654_435_761 % 100_003) as f64 / 100_003.0;
            let original: Vec<f64> = (0..5 * groups).map(|i| 10_f64.powf(size) * noise(i).exp2()).collect();
            let mut scales = original.clone();
            let coding = ScaleCoding::fit(&mut scales, groups, None, RowScales::Any);
            for (index, (scale, original)) in scales.iter().zip(&original).enumerate() {
                // Sixteen steps an octave are 4.4 % apart.
                let row_scale = coding.row_scales[index / groups];
                prop_assert!((scale / original - 1.0).abs() < 0.06, "{scale} for {original}");
                let multiplier = scale / row_scale / CODED_UNIT;
                prop_assert!(coding.multipliers.iter().any(|m| f64::from(*m) == multiplier));
                prop_assert_eq!(half::f16::from_f64(row_scale).to_f64(), row_scale);
            }
            let again = ScaleCoding::fit(&mut scales.clone(), groups, None, RowScales::Any);
            prop_assert_eq!(again.row_scales.len(), 5);
        }
    }

    #[test]
    fn short_row_scales_make_every_scale_a_binary16() {
        for size in [1e-9, 1e-5, 3e-4, 0.011, 0.7, 900.0, 1e6] {
            let mut scales: Vec<f64> =
                (0..40).map(|i| size * (1.0 + (i * 29 % 40) as f64 / 7.0).sqrt()).collect();
            let original = scales.clone();
            let coding = ScaleCoding::fit(&mut scales, 4, None, RowScales::Short);
            for (index, (scale, original)) in scales.iter().zip(&original).enumerate() {
                assert_eq!(half::f16::from_f64(*scale).to_f64(), *scale);
                let row_scale = coding.row_scales[index / 4];
                assert_eq!(half::f16::from_f64(row_scale).to_f64(), row_scale);
                let fits = (3e-4..900.0).contains(&size);
                assert!(!fits || (scale / original - 1.0).abs() < 0.12, "{scale} for {original}");
            }
            let whole: f64 = RowScales::Short.nearest_of_whole_row::<f64>(size / ROW_UNIT) * ROW_UNIT;
            assert_eq!(half::f16::from_f64(whole).to_f64(), whole);
        }
    }

    #[test]
    fn far_apart_scales_get_a_wide_table() {
        let mut scales = [1.0_f64, 0.5, 0.25, 0.13, 0.07, 0.03].repeat(4);
        let original = scales.clone();
        ScaleCoding::fit(&mut scales, 6, None, RowScales::Any);
        for (scale, original) in scales.iter().zip(&original) {
            assert!((scale / original - 1.0).abs() < 0.3, "{scale} for {original}");
        }
    }
}
