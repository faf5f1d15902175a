//! How the scale of a group is found and how the device stores it.
//!
//! A scale is `p * max|w| / highest level`, p = 1 for the one that covers the group. The clip search tries p = 1 - i/100, i = 0..80,
//! and keeps the one with the smallest `sum |value - w|^2.4`, the first one on a tie (the "mse" search of QuaRot, GPTAQ and ResComp; 2.4
//! comes from GPTQ's published code), or the smallest `sum h (value - w)^2` for weights of known importance.

use super::coding::{ROW_UNIT, RowScales};
use super::{Grid, Real, ScaleCoding};

/// Weights whose largest magnitude is below this get the scale of this magnitude, so that no scale is zero.
const SMALLEST_RANGE: f64 = 1e-5;
/// The clip search tries this many shrink factors, in steps of 1/100.
const CLIP_STEPS: usize = 80;
/// The cost of this many weights is summed in lanes before it is compared with the best cost.
const CHUNK: usize = 64;
/// Partial sums, so that the compiler can vectorize without reordering.
const LANES: usize = 8;

/// How the device stores scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleFormat {
    /// As computed.
    Full,
    /// Rounded to the nearest IEEE 754 binary16 *before* codes are chosen, so the solver sees the scale that
    /// the device multiplies by. Limited to the normal positive range, 2^-14 ..= 65504.
    F16,
    /// One binary16 a row times one of the matrix's sixteen multipliers a group, see [`super::coding`]; [`ScaleFormat::Row`] where a
    /// group is a row. Scales that are found during the sweep can't be coded.
    Coded,
    /// The binary16 of a whole row, in units of [`super::coding::ROW_UNIT`].
    Row,
    /// As [`ScaleFormat::Coded`], with row scales so short that the scale of every group is a binary16 ([`RowScales::Short`]).
    CodedShort,
    /// As [`ScaleFormat::Row`], with scales that are a binary16 in units of 1, too.
    RowShort,
}

impl ScaleFormat {
    /// Whether scales are coded where a row has several.
    pub fn is_coded(self) -> bool {
        matches!(self, Self::Coded | Self::CodedShort)
    }

    /// The format of rows that are one group: a single scale has nothing to be coded under.
    pub(crate) fn of_whole_rows(self) -> Self {
        match self {
            Self::Coded => Self::Row,
            Self::CodedShort => Self::RowShort,
            other => other,
        }
    }

    /// Which row scales there are, where there are some.
    pub(crate) fn row_scales(self) -> RowScales {
        match self {
            Self::CodedShort | Self::RowShort => RowScales::Short,
            Self::Full | Self::F16 | Self::Coded | Self::Row => RowScales::Any,
        }
    }

    /// `scale` as the device will read it, as far as that is known without the other scales: coded scales are rounded later.
    #[inline]
    pub fn round<T: Real>(self, scale: T) -> T {
        match self {
            Self::Full | Self::Coded | Self::CodedShort => scale,
            Self::F16 => T::from_f64(scale.to_normal_f16().to_f64()),
            Self::Row | Self::RowShort => {
                let row_scale: T = self.row_scales().nearest_of_whole_row(scale.to_f64() / ROW_UNIT);
                row_scale * T::from_f64(ROW_UNIT)
            }
        }
    }

    /// Codes the scales of a matrix, `groups` a row, where this is the format: they become what can be stored. `importance` of a
    /// group says what an error in its weights costs; without, all relative errors cost the same.
    pub(crate) fn code<T: Real>(
        self,
        scales: &mut [T],
        groups: usize,
        importance: Option<&[f64]>,
    ) -> Option<ScaleCoding<T>> {
        // The rounding error of a group is proportional to its scale.
        let weight = |(at, scale): (usize, &T)| {
            importance.map(|importance| importance[at % groups] * scale.to_f64() * scale.to_f64())
        };
        let weights: Option<Vec<f64>> = scales.iter().enumerate().map(weight).collect();
        match self {
            Self::Coded | Self::CodedShort => {
                Some(ScaleCoding::fit(scales, groups, weights.as_deref(), self.row_scales()))
            }
            Self::Full | Self::F16 | Self::Row | Self::RowShort => None,
        }
    }
}

/// Chooses the scale of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleSearch {
    /// The levels that the scale has to serve.
    pub grid: Grid,
    /// Whether shrunken scales are tried.
    pub clip_search: bool,
    /// The format every candidate is rounded to before it is tried.
    pub format: ScaleFormat,
}

impl ScaleSearch {
    /// The scale for the weights of one group of one row: positive, and finite if all weights are.
    #[inline(always)]
    pub fn scale<T: Real>(&self, weights: &[T]) -> T {
        let mut range = T::from_f64(SMALLEST_RANGE);
        for weight in weights {
            let magnitude = weight.magnitude();
            if magnitude > range {
                range = magnitude;
            }
        }
        let highest = T::from_f64(self.grid.highest().into());
        let mut best = self.format.round(range / highest);
        if !self.clip_search {
            return best;
        }
        let mut lowest_cost = T::INFINITY;
        for step in 0..CLIP_STEPS {
            let shrink = T::from_f64(1.0 - step as f64 / 100.0);
            let candidate = self.format.round(shrink * range / highest);
            if let Some(cost) = self.cost_below(weights, candidate, lowest_cost) {
                lowest_cost = cost;
                best = candidate;
            }
        }
        best
    }

    /// The same for `sum h (value - w)^2`, h the `importance` of each weight (as many or more). Without clip search: as
    /// [`ScaleSearch::scale`].
    #[inline(always)]
    pub fn weighted_scale<T: Real>(&self, weights: &[T], importance: &[T]) -> T {
        let covering = ScaleSearch { clip_search: false, ..*self }.scale(weights);
        if !self.clip_search {
            return covering;
        }
        let smallest = T::from_f64(SMALLEST_RANGE);
        let range = weights
            .iter()
            .fold(smallest, |range, w| if w.magnitude() > range { w.magnitude() } else { range });
        let highest = T::from_f64(self.grid.highest().into());
        let (mut best, mut lowest_cost) = (covering, T::INFINITY);
        for step in 0..CLIP_STEPS {
            let shrink = T::from_f64(1.0 - step as f64 / 100.0);
            let scale = self.format.round(shrink * range / highest);
            let mut cost = T::ZERO;
            for (weights, importance) in weights.chunks(CHUNK).zip(importance.chunks(CHUNK)) {
                let mut errors = self.errors(weights, scale);
                for (error, importance) in errors.iter_mut().zip(importance) {
                    *error = *importance * *error * *error;
                }
                cost += sum(&errors[..weights.len()]);
            }
            if cost < lowest_cost {
                (best, lowest_cost) = (scale, cost);
            }
        }
        best
    }

    /// `value - w` of up to [`CHUNK`] weights; the rest is of no meaning.
    #[inline(always)]
    fn errors<T: Real>(&self, weights: &[T], scale: T) -> [T; CHUNK] {
        let mut errors = self.rounded(weights, scale);
        for (error, weight) in errors.iter_mut().zip(weights) {
            *error = scale * *error - *weight;
        }
        errors
    }

    /// `sum |value - w|^2.4`, or `None` as soon as it is known not to be below `limit`.
    #[inline(always)]
    fn cost_below<T: Real>(&self, weights: &[T], scale: T, limit: T) -> Option<T> {
        let mut total = T::ZERO;
        for weights in weights.chunks(CHUNK) {
            let mut errors = self.errors(weights, scale);
            for error in &mut errors {
                *error = error.power_2_4();
            }
            total += sum(&errors[..weights.len()]);
            if total >= limit {
                return None;
            }
        }
        (total < limit).then_some(total)
    }

    /// The levels of up to [`CHUNK`] weights; the rest is of no meaning.
    #[inline(always)]
    fn rounded<T: Real>(&self, weights: &[T], scale: T) -> [T; CHUNK] {
        let mut rounded = [T::ZERO; CHUNK];
        for (rounded, weight) in rounded.iter_mut().zip(weights) {
            *rounded = *weight / scale;
        }
        self.grid.round_all(&mut rounded);
        rounded
    }
}

/// The sum, in lanes. No place is counted here: that would be checked in some builds, and each check keeps loops from being vectorized.
#[inline(always)]
fn sum<T: Real>(costs: &[T]) -> T {
    let mut sums = [T::ZERO; LANES];
    let (whole, rest) = costs.as_chunks::<LANES>();
    sums[..rest.len()].copy_from_slice(rest);
    for costs in whole {
        for (sum, cost) in sums.iter_mut().zip(costs) {
            *sum += *cost;
        }
    }
    sums.iter().fold(T::ZERO, |total, sum| total + *sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(bits: u8, clip_search: bool, format: ScaleFormat) -> ScaleSearch {
        ScaleSearch { grid: Grid::symmetric(bits).unwrap(), clip_search, format }
    }

    #[test]
    fn covering_scale_reaches_the_largest_weight() {
        let scale = search(3, false, ScaleFormat::Full).scale(&[0.1_f64, -0.9, 0.3]);
        assert_eq!(scale, 0.9 / 3.0);
        assert_eq!(search(3, false, ScaleFormat::Full).scale(&[0.0_f64; 4]), 1e-5 / 3.0);
    }

    #[test]
    fn clip_search_finds_the_least_cost_of_its_candidates() {
        let weights: Vec<f64> = (0..64).map(|i| ((i * 37 % 64) as f64 / 31.5 - 1.0).powi(3)).collect();
        for bits in [2, 3, 4, 5, 6, 8] {
            let searched = search(bits, true, ScaleFormat::Full);
            let chosen = searched.scale(&weights);
            let cost = |scale: f64| -> f64 {
                let grid = searched.grid;
                weights.iter().map(|w| (scale * f64::from(grid.level(*w, scale)) - w).abs().powf(2.4)).sum()
            };
            let range = weights.iter().fold(0.0_f64, |r, w| r.max(w.abs()));
            let candidates =
                (0..80).map(|i| (1.0 - f64::from(i) / 100.0) * range / f64::from(searched.grid.highest()));
            let least = candidates.map(cost).fold(f64::INFINITY, f64::min);
            assert!(cost(chosen) <= least * (1.0 + 1e-12), "{bits} bits");
        }
    }

    #[test]
    fn weighted_search_finds_the_least_weighted_cost() {
        let weights: Vec<f64> = (0..48).map(|i| ((i * 37 % 64) as f64 / 31.5 - 1.0).powi(3)).collect();
        let importance: Vec<f64> = (0..48).map(|i| 1.0 + (i * 11 % 7) as f64).collect();
        for bits in [2, 3, 4] {
            let searched = search(bits, true, ScaleFormat::F16);
            let cost = |scale: f64, importance: &[f64]| -> f64 {
                let error = |w: f64| scale * f64::from(searched.grid.level(w, scale)) - w;
                weights.iter().zip(importance).map(|(w, h)| h * error(*w).powi(2)).sum()
            };
            let range = weights.iter().fold(0.0_f64, |r, w| r.max(w.abs()));
            let candidate =
                |i: i32| (1.0 - f64::from(i) / 100.0) * range / f64::from(searched.grid.highest());
            let least = |importance: &[f64]| {
                let costs = (0..80).map(|i| cost(ScaleFormat::F16.round(candidate(i)), importance));
                costs.fold(f64::INFINITY, f64::min)
            };
            let chosen = searched.weighted_scale(&weights, &importance);
            assert!((cost(chosen, &importance) / least(&importance) - 1.0).abs() < 1e-12, "{bits} bits");
            // All that counts is one weight: its error is as small as any candidate makes it.
            let mut one = vec![0.0; 48];
            one[20] = 1.0;
            let chosen = searched.weighted_scale(&weights, &one);
            assert!(cost(chosen, &one) <= least(&one), "{bits} bits");
            let covering = search(bits, false, ScaleFormat::F16);
            assert_eq!(covering.weighted_scale(&weights, &one), covering.scale(&weights));
        }
        let searched = search(3, true, ScaleFormat::F16);
        assert!(searched.weighted_scale(&[0.0_f32; 8], &[0.0; 8]) > 0.0);
    }

    #[test]
    fn f16_scales_stay_in_the_normal_positive_range() {
        let scale = |w: f64| search(4, false, ScaleFormat::F16).scale(&[w]);
        assert_eq!(scale(0.0), 2.0_f64.powi(-14));
        assert_eq!(scale(1e30), 65504.0);
        for weight in [1e-3, 0.37, 11.0, 4000.0] {
            let exact = weight / 7.0;
            assert_eq!(half::f16::from_f64(scale(weight)).to_f64(), scale(weight));
            assert!((scale(weight) - exact).abs() <= exact * 2.0_f64.powi(-11), "{weight}");
        }
        let searched = search(3, true, ScaleFormat::F16).scale(&[0.11_f32, -0.93, 0.41, 0.02]);
        assert_eq!(half::f16::from_f32(searched).to_f32(), searched);
    }
}
