//! The uniform symmetric grid: `value = scale * code`, one scale a group of consecutive inputs of one output
//! row.
//!
//! A grid of b bits has the codes `-2^(b-1) ..= 2^(b-1)-1` for 2, 3 and 4 bits. At 8 bits the lowest code is
//! -127, not -128: kernels that multiply int8 by int8 rely on `|code| <= 127` (a product of two -128
//! overflows the pairwise 16-bit sums). The scale that covers a group is `max|w| / highest`, so the lowest
//! code lies beyond the largest weight.
//!
//! With the clip search, the covering scale is multiplied by p = 1 - i/100, i = 0..80, and the p with the
//! smallest `sum |value - w|^2.4` wins, the first one on a tie (the "mse" search of QuaRot, GPTAQ and
//! ResComp; 2.4 comes from GPTQ's published code).

use super::Real;

/// Weights whose largest magnitude is below this get the scale of this magnitude, so that no scale is zero.
const SMALLEST_RANGE: f64 = 1e-5;
/// The clip search tries this many shrink factors, in steps of 1/100.
const CLIP_STEPS: usize = 80;
/// The cost of this many weights is summed in lanes before it is compared with the best cost.
const CHUNK: usize = 64;
/// Partial sums, so that the compiler can vectorize without reordering.
const LANES: usize = 8;

/// A number of bits that no grid exists for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} bits a weight are not supported: expected 2, 3, 4 or 8")]
pub struct UnsupportedBits {
    /// What was asked for.
    pub found: u8,
}

/// The integer codes `lowest..=highest` of a uniform symmetric grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    lowest: i8,
    highest: i8,
}

impl Grid {
    /// The symmetric grid of `bits` bits: -2..=1, -4..=3, -8..=7, and -127..=127 for 8 bits.
    ///
    /// # Errors
    /// [`UnsupportedBits`] unless `bits` is 2, 3, 4 or 8.
    pub fn symmetric(bits: u8) -> Result<Self, UnsupportedBits> {
        match bits {
            2 => Ok(Self { lowest: -2, highest: 1 }),
            3 => Ok(Self { lowest: -4, highest: 3 }),
            4 => Ok(Self { lowest: -8, highest: 7 }),
            8 => Ok(Self { lowest: -127, highest: 127 }),
            found => Err(UnsupportedBits { found }),
        }
    }

    /// The smallest code.
    pub fn lowest(self) -> i8 {
        self.lowest
    }

    /// The largest code.
    pub fn highest(self) -> i8 {
        self.highest
    }

    /// The code whose value is nearest to `weight`, halves to even. `scale` must be positive.
    #[inline]
    pub fn code<T: Real>(self, weight: T, scale: T) -> i8 {
        self.rounded(weight, scale).to_code()
    }

    /// [`Grid::code`] before its conversion to an integer.
    #[inline(always)]
    pub(crate) fn rounded<T: Real>(self, weight: T, scale: T) -> T {
        (weight / scale)
            .round_half_even()
            .limit(T::from_f64(self.lowest.into()), T::from_f64(self.highest.into()))
    }

    /// `weight` limited to the values between the lowest and the highest code, without rounding.
    #[inline]
    pub(crate) fn limit<T: Real>(self, weight: T, scale: T) -> T {
        weight.limit(T::from_f64(self.lowest.into()) * scale, T::from_f64(self.highest.into()) * scale)
    }
}

/// How the device stores a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleFormat {
    /// As computed.
    Full,
    /// Rounded to the nearest IEEE 754 binary16 *before* codes are chosen, so the solver sees the scale that
    /// the device multiplies by. Limited to the normal positive range, 2^-14 ..= 65504.
    F16,
}

impl ScaleFormat {
    /// `scale` as the device will read it.
    #[inline]
    pub fn round<T: Real>(self, scale: T) -> T {
        match self {
            Self::Full => scale,
            Self::F16 => T::from_f64(scale.to_normal_f16().to_f64()),
        }
    }
}

/// Chooses the scale of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleSearch {
    /// The codes that the scale has to serve.
    pub grid: Grid,
    /// Whether shrunken scales are tried.
    pub clip_search: bool,
    /// The format every candidate is rounded to before it is tried.
    pub format: ScaleFormat,
}

impl ScaleSearch {
    /// The scale for the weights of one group of one row: positive, and finite if all weights are.
    pub fn scale<T: Real>(&self, weights: &[T]) -> T {
        let mut range = T::from_f64(SMALLEST_RANGE);
        for weight in weights {
            let magnitude = weight.magnitude();
            if magnitude > range {
                range = magnitude;
            }
        }
        let highest = T::from_f64(self.grid.highest.into());
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
    pub fn weighted_scale<T: Real>(&self, weights: &[T], importance: &[T]) -> T {
        let covering = ScaleSearch { clip_search: false, ..*self }.scale(weights);
        if !self.clip_search {
            return covering;
        }
        let smallest = T::from_f64(SMALLEST_RANGE);
        let range = weights
            .iter()
            .fold(smallest, |range, w| if w.magnitude() > range { w.magnitude() } else { range });
        let highest = T::from_f64(self.grid.highest.into());
        let (mut best, mut lowest_cost) = (covering, T::INFINITY);
        for step in 0..CLIP_STEPS {
            let shrink = T::from_f64(1.0 - step as f64 / 100.0);
            let scale = self.format.round(shrink * range / highest);
            let mut cost = T::ZERO;
            for (weight, importance) in weights.iter().zip(importance) {
                let error = scale * self.grid.rounded(*weight, scale) - *weight;
                cost += *importance * error * error;
            }
            if cost < lowest_cost {
                (best, lowest_cost) = (scale, cost);
            }
        }
        best
    }

    /// `sum |value - w|^2.4`, or `None` as soon as it is known not to be below `limit`.
    fn cost_below<T: Real>(&self, weights: &[T], scale: T, limit: T) -> Option<T> {
        let mut total = T::ZERO;
        for chunk in weights.chunks(CHUNK) {
            let mut sums = [T::ZERO; LANES];
            let whole = chunk.chunks_exact(LANES);
            for (sum, weight) in sums.iter_mut().zip(whole.remainder()) {
                *sum = self.cost(*weight, scale);
            }
            for weights in whole {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += self.cost(*weight, scale);
                }
            }
            total += sums.iter().fold(T::ZERO, |total, sum| total + *sum);
            if total >= limit {
                return None;
            }
        }
        (total < limit).then_some(total)
    }

    #[inline(always)]
    fn cost<T: Real>(&self, weight: T, scale: T) -> T {
        (scale * self.grid.rounded(weight, scale) - weight).power_2_4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(bits: u8, clip_search: bool, format: ScaleFormat) -> ScaleSearch {
        ScaleSearch { grid: Grid::symmetric(bits).unwrap(), clip_search, format }
    }

    #[test]
    fn grids_hold_their_codes_and_refuse_other_bits() {
        for (bits, lowest, highest) in [(2, -2, 1), (3, -4, 3), (4, -8, 7), (8, -127, 127)] {
            let grid = Grid::symmetric(bits).unwrap();
            assert_eq!((grid.lowest(), grid.highest()), (lowest, highest));
            assert_eq!(grid.code(-1e9_f32, 0.5), lowest);
            assert_eq!(grid.code(1e9_f32, 0.5), highest);
        }
        for bits in [0, 1, 5, 6, 7, 9, 255] {
            assert_eq!(Grid::symmetric(bits), Err(UnsupportedBits { found: bits }));
        }
    }

    #[test]
    fn halves_round_to_even() {
        let grid = Grid::symmetric(4).unwrap();
        let codes: Vec<i8> =
            [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5].iter().map(|w| grid.code(*w, 1.0_f64)).collect();
        assert_eq!(codes, [-2, -2, 0, 0, 2, 2]);
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
        for bits in [2, 3, 4, 8] {
            let searched = search(bits, true, ScaleFormat::Full);
            let chosen = searched.scale(&weights);
            let cost = |scale: f64| -> f64 {
                let grid = searched.grid;
                weights.iter().map(|w| (scale * f64::from(grid.code(*w, scale)) - w).abs().powf(2.4)).sum()
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
                let error = |w: f64| scale * f64::from(searched.grid.code(w, scale)) - w;
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
