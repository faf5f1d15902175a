//! The levels of a grid: `value = scale * level`, levels being small integers.
//!
//! Uniform grids have all integers of a range. Normal grids have few levels, dense around zero: the ones that lose least of a
//! normally distributed weight (Lloyd 1957, Max 1960), as integers. Weights of a group are about normally distributed, so at the
//! same bits the error is smaller by an eighth (3 bits) or a fifth (4 bits); at 2 bits most of the gain is that levels are
//! symmetric. docs/methods.md has what it brings. At 5 and 6 bits a container knows one grid, all odd numbers up to 31 or 63: it is
//! evenly spaced, as tables of so many levels would not fit a register, and symmetric. Even grids lie between: symmetric at 2 and 3 bits,
//! which is most of the gain there, and cheaper to compute with.

use super::Real;
use serde::{Deserialize, Serialize};

/// The most levels of a grid that is not uniform.
pub const MAX_LEVELS: usize = 16;

/// A number of bits that no grid exists for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} bits a weight are not supported: expected 2, 3, 4, 5, 6 or 8")]
pub struct UnsupportedBits {
    /// What was asked for.
    pub found: u8,
}

/// How the levels of a grid are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// All integers of a range, as published: -2..=1, -4..=3, -8..=7, -16..=15, -32..=31, and -127..=127 at 8 bits.
    Uniform,
    /// Evenly spaced, and such that kernels for 64-bit ARM multiply codes without looking levels up (with dot products at 2 and 4 bits): -3,
    /// -1, 1, 3; all odd numbers of -7..=7; -8..=7; from 5 bits on as `Normal`.
    Even,
    /// Those of containers: least error for normally distributed weights at 2, 3 and 4 bits, all odd numbers of a range at 5 and 6
    /// bits, uniform at 8 bits.
    Normal,
}

impl Spacing {
    /// All spacings.
    pub const ALL: [Self; 3] = [Self::Uniform, Self::Even, Self::Normal];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Even => "even",
            Self::Normal => "normal",
        }
    }
}

/// Lloyd-Max levels of the normal distribution, the largest one 31 at 2 and 3 bits and 63 at 4 (the bounds of the container's
/// format): +-0.453, +-1.510 standard deviations; +-0.245, 0.756, 1.344, 2.152; +-0.128, 0.388, 0.657, 0.942, 1.256, 1.618, 2.069, 2.733.
const NORMAL_2: [i8; 4] = [-31, -9, 9, 31];
const NORMAL_3: [i8; 8] = [-28, -17, -10, -3, 3, 10, 17, 28];
const NORMAL_4: [i8; 16] = [-63, -48, -37, -29, -22, -15, -9, -3, 3, 9, 15, 22, 29, 37, 48, 63];

/// The levels of a grid, increasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Levels", try_from = "Levels")]
pub struct Grid {
    lowest: i8,
    highest: i8,
    /// From a level to the next, where they are evenly spaced: 1 (all integers), or 2 (all odd ones).
    step: u8,
    /// Number of levels in the table; 0 where they are evenly spaced.
    count: u8,
    table: [i8; MAX_LEVELS],
}

/// A grid as it is written down: its bounds, and its levels where these are not evenly spaced.
#[derive(Serialize, Deserialize)]
struct Levels {
    lowest: i8,
    highest: i8,
    step: u8,
    table: Vec<i8>,
}

impl From<Grid> for Levels {
    fn from(grid: Grid) -> Levels {
        let table = grid.table[..usize::from(grid.count)].to_vec();
        Levels { lowest: grid.lowest, highest: grid.highest, step: grid.step, table }
    }
}

impl TryFrom<Levels> for Grid {
    type Error = &'static str;

    fn try_from(Levels { lowest, highest, step, table: levels }: Levels) -> Result<Grid, &'static str> {
        let increases = levels.windows(2).all(|pair| pair[0] < pair[1]);
        let spans = levels.is_empty() || (levels[0] == lowest && levels[levels.len() - 1] == highest);
        let steps = match step {
            1 => true,
            2 => levels.is_empty() && lowest % 2 != 0 && highest % 2 != 0,
            _ => false,
        };
        if lowest >= highest || !increases || !spans || !steps || levels.len() > MAX_LEVELS {
            return Err("expected a grid's levels, increasing from the lowest to the highest");
        }
        let mut table = [0; MAX_LEVELS];
        table[..levels.len()].copy_from_slice(&levels);
        Ok(Grid { lowest, highest, step, count: levels.len() as u8, table })
    }
}

impl Grid {
    /// The grid of `bits` bits.
    ///
    /// # Errors
    /// [`UnsupportedBits`] unless `bits` is 2, 3, 4, 5, 6 or 8.
    pub fn new(bits: u8, spacing: Spacing) -> Result<Self, UnsupportedBits> {
        let even = |lowest, highest, step| Self { lowest, highest, step, count: 0, table: [0; MAX_LEVELS] };
        Ok(match (bits, spacing) {
            (2, Spacing::Uniform) => even(-2, 1, 1),
            (3, Spacing::Uniform) => even(-4, 3, 1),
            (4, Spacing::Uniform | Spacing::Even) => even(-8, 7, 1),
            (5, Spacing::Uniform) => even(-16, 15, 1),
            (6, Spacing::Uniform) => even(-32, 31, 1),
            (2, Spacing::Even) => even(-3, 3, 2),
            (3, Spacing::Even) => even(-7, 7, 2),
            (8, _) => even(-127, 127, 1),
            (2, Spacing::Normal) => Self::table(&NORMAL_2),
            (3, Spacing::Normal) => Self::table(&NORMAL_3),
            (4, Spacing::Normal) => Self::table(&NORMAL_4),
            (5, Spacing::Even | Spacing::Normal) => even(-31, 31, 2),
            (6, Spacing::Even | Spacing::Normal) => even(-63, 63, 2),
            (found, _) => return Err(UnsupportedBits { found }),
        })
    }

    /// The uniform grid of `bits` bits.
    ///
    /// # Errors
    /// [`UnsupportedBits`].
    pub fn symmetric(bits: u8) -> Result<Self, UnsupportedBits> {
        Self::new(bits, Spacing::Uniform)
    }

    fn table<const COUNT: usize>(levels: &[i8; COUNT]) -> Self {
        let mut table = [0; MAX_LEVELS];
        table[..COUNT].copy_from_slice(levels);
        Self { lowest: levels[0], highest: levels[COUNT - 1], step: 1, count: COUNT as u8, table }
    }

    /// The smallest level.
    pub fn lowest(self) -> i8 {
        self.lowest
    }

    /// The largest level.
    pub fn highest(self) -> i8 {
        self.highest
    }

    /// Whether a weight may be 0.
    pub fn has_zero(&self) -> bool {
        match self.count {
            0 => self.step == 1,
            count => self.table[..usize::from(count)].contains(&0),
        }
    }

    /// All levels, increasing.
    pub fn levels(&self) -> Vec<i8> {
        match self.count {
            0 => (self.lowest..=self.highest).step_by(self.step.into()).collect(),
            count => self.table[..usize::from(count)].to_vec(),
        }
    }

    /// The level whose value is nearest to `weight`; where two are equally near, the even one of all integers, the one of
    /// -7, -3, 1, 5 .. of odd numbers, and the lower one of a table. `scale` must be positive.
    #[inline]
    pub fn level<T: Real>(&self, weight: T, scale: T) -> i8 {
        self.rounded(weight, scale).to_code()
    }

    /// [`Grid::level`] before its conversion to an integer.
    #[inline(always)]
    pub(crate) fn rounded<T: Real>(&self, weight: T, scale: T) -> T {
        let scaled = weight / scale;
        match self.count {
            0 => self.nearest_evenly_spaced(scaled),
            4 => self.nearest::<4, T>(scaled),
            8 => self.nearest::<8, T>(scaled),
            _ => self.nearest::<16, T>(scaled),
        }
    }

    /// Replaces scaled weights by their levels: [`Grid::rounded`] with scale 1, for many at a time.
    #[inline(always)]
    pub(crate) fn round_all<T: Real>(&self, scaled: &mut [T]) {
        match self.count {
            0 if self.step == 1 => scaled.iter_mut().for_each(|x| *x = self.nearest_integer(*x)),
            0 => scaled.iter_mut().for_each(|x| *x = self.nearest_odd(*x)),
            4 => scaled.iter_mut().for_each(|x| *x = self.nearest::<4, T>(*x)),
            8 => scaled.iter_mut().for_each(|x| *x = self.nearest::<8, T>(*x)),
            _ => scaled.iter_mut().for_each(|x| *x = self.nearest::<16, T>(*x)),
        }
    }

    /// [`Grid::rounded`] with scale 1 for grids without a table.
    #[inline(always)]
    pub(super) fn nearest_evenly_spaced<T: Real>(&self, scaled: T) -> T {
        if self.step == 1 { self.nearest_integer(scaled) } else { self.nearest_odd(scaled) }
    }

    #[inline(always)]
    fn nearest_integer<T: Real>(&self, scaled: T) -> T {
        scaled.round_half_even().limit(T::from_f64(self.lowest.into()), T::from_f64(self.highest.into()))
    }

    /// An odd number is 2 n + 1.
    #[inline(always)]
    fn nearest_odd<T: Real>(&self, scaled: T) -> T {
        let n = (T::from_f64(0.5) * (scaled - T::ONE)).round_half_even();
        (n + n + T::ONE).limit(T::from_f64(self.lowest.into()), T::from_f64(self.highest.into()))
    }

    #[inline(always)]
    fn nearest<const COUNT: usize, T: Real>(&self, scaled: T) -> T {
        // Without branches, so that loops over weights are vectorized.
        let mut level = T::from_f64(self.table[0].into());
        for pair in 0..COUNT - 1 {
            let (low, high) = (f64::from(self.table[pair]), f64::from(self.table[pair + 1]));
            let above =
                if scaled > T::from_f64(0.5 * (low + high)) { T::from_f64(high - low) } else { T::ZERO };
            level += above;
        }
        // A NaN stays one, as in a uniform grid.
        if scaled.partial_cmp(&scaled).is_none() { scaled } else { level }
    }

    /// `weight` limited to the values between the lowest and the highest level, without rounding.
    #[inline]
    pub(crate) fn limit<T: Real>(&self, weight: T, scale: T) -> T {
        weight.limit(T::from_f64(self.lowest.into()) * scale, T::from_f64(self.highest.into()) * scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_formats::encodings::CodeWidth;

    const BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];

    #[test]
    fn grids_hold_their_levels_and_refuse_other_bits() {
        for (bits, lowest, highest) in
            [(2, -2, 1), (3, -4, 3), (4, -8, 7), (5, -16, 15), (6, -32, 31), (8, -127, 127)]
        {
            let grid = Grid::symmetric(bits).unwrap();
            assert_eq!((grid.lowest(), grid.highest()), (lowest, highest));
            assert_eq!(grid.levels().len(), (i32::from(highest) - i32::from(lowest) + 1) as usize);
            assert!(grid.has_zero());
        }
        for bits in [2, 3, 4, 5, 6] {
            let grid = Grid::new(bits, Spacing::Normal).unwrap();
            let levels = grid.levels();
            assert_eq!(levels.len(), 1 << bits);
            assert!(levels.is_sorted_by(|low, high| low < high));
            assert!(levels.iter().zip(levels.iter().rev()).all(|(low, high)| *low == -*high));
            let width = CodeWidth::from_bits(bits).unwrap();
            assert!(*levels.last().unwrap() <= width.level_bound());
            assert!(!grid.has_zero() && !levels.contains(&0));
            // What a matrix can't choose is what is chosen here.
            for (code, level) in (0..).zip(levels) {
                assert!(width.fixed_level(code).is_none_or(|fixed| fixed == level));
            }
        }
        assert_eq!(Grid::new(8, Spacing::Normal), Grid::symmetric(8));
        for bits in [0, 1, 7, 9, 255] {
            for spacing in Spacing::ALL {
                assert_eq!(Grid::new(bits, spacing), Err(UnsupportedBits { found: bits }));
            }
        }
    }

    #[test]
    fn a_grid_is_read_back_and_what_is_none_is_refused() {
        for (bits, spacing) in BITS.into_iter().flat_map(|bits| Spacing::ALL.map(|s| (bits, s))) {
            let grid = Grid::new(bits, spacing).unwrap();
            let bytes = postcard::to_allocvec(&grid).unwrap();
            assert_eq!(postcard::from_bytes::<Grid>(&bytes).unwrap(), grid);
        }
        let grid = |lowest, highest, step, table: &[i8]| {
            Grid::try_from(Levels { lowest, highest, step, table: table.to_vec() }).map(|grid| grid.levels())
        };
        let read = |table: &[i8]| grid(-3, 5, 1, table);
        assert_eq!(read(&[-3, 0, 5]), Ok(vec![-3, 0, 5]));
        assert_eq!(read(&[]), Ok((-3..=5).collect()));
        let too_many: Vec<i8> = (0..17).collect();
        for wrong in [&[-3, 0, 0, 5][..], &[-3, 5, 0], &[-3, 0, 4], &[-2, 5], &[5], &too_many] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(grid(-3, 5, 2, &[]), Ok(vec![-3, -1, 1, 3, 5]));
        for (lowest, highest, step) in [(1, 1, 1), (-3, 5, 0), (-3, 5, 3), (-4, 4, 2), (-3, 4, 2)] {
            assert!(grid(lowest, highest, step, &[]).is_err());
        }
        assert!(grid(-3, 5, 2, &[-3, 1, 5]).is_err());
    }

    #[test]
    fn the_nearest_level_is_found() {
        for (bits, spacing) in BITS.into_iter().flat_map(|bits| Spacing::ALL.map(|s| (bits, s))) {
            let grid = Grid::new(bits, spacing).unwrap();
            let scale = 0.037;
            let mut weights: Vec<f64> = (-9000..9000).map(|i| f64::from(i) * 0.0007).collect();
            weights.extend([1e9, -1e9, 0.0]);
            let mut all: Vec<f64> = weights.iter().map(|w| w / scale).collect();
            grid.round_all(&mut all);
            for (weight, rounded) in weights.iter().zip(all) {
                let level = grid.level(*weight, scale);
                assert_eq!(f64::from(level), rounded);
                let error = |level: i8| (f64::from(level) * scale - weight).abs();
                let least = grid.levels().into_iter().map(error).fold(f64::INFINITY, f64::min);
                assert!(error(level) <= least * (1.0 + 1e-12), "{bits} {spacing:?} {weight}");
            }
            assert!(grid.rounded(f64::NAN, 1.0).is_nan());
        }
    }

    #[test]
    fn halves_round_to_even_in_uniform_grids() {
        let grid = Grid::symmetric(4).unwrap();
        let levels: Vec<i8> =
            [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5].iter().map(|w| grid.level(*w, 1.0_f64)).collect();
        assert_eq!(levels, [-2, -2, 0, 0, 2, 2]);
    }

    #[test]
    fn even_numbers_round_alike_in_odd_grids() {
        let grid = Grid::new(5, Spacing::Normal).unwrap();
        let levels = [-4.0, -2.0, 0.0, 2.0, 4.0, 32.0].map(|w| grid.level(w, 1.0_f64));
        assert_eq!(levels, [-3, -3, 1, 1, 5, 31]);
    }

    #[test]
    fn normal_levels_lose_less_of_normal_weights() {
        // A normal distribution by its quantiles (the logistic approximation is near enough), best scale for each grid.
        let weights: Vec<f64> = (1..2000)
            .map(|i| f64::from(i) / 2000.0)
            .map(|p| {
                let t = (-2.0 * p.min(1.0 - p).ln()).sqrt();
                let z = t
                    - (2.515517 + 0.802853 * t + 0.010328 * t * t)
                        / (1.0 + 1.432788 * t + 0.189269 * t * t + 0.001308 * t * t * t);
                if p < 0.5 { -z } else { z }
            })
            .collect();
        let least = |grid: &Grid| {
            let error = |scale: f64| -> f64 {
                weights.iter().map(|w| (f64::from(grid.level(*w, scale)) * scale - w).powi(2)).sum()
            };
            let scales = (10..400).map(|i| f64::from(i) / 100.0 / f64::from(grid.highest()));
            scales.map(error).fold(f64::INFINITY, f64::min)
        };
        for (bits, most) in [(2, 0.85), (3, 0.92), (4, 0.84)] {
            let ratio =
                least(&Grid::new(bits, Spacing::Normal).unwrap()) / least(&Grid::symmetric(bits).unwrap());
            assert!(ratio < most, "{bits} bits: {ratio}");
        }
    }
}
