//! The nearest level of one weight after another, as the sweep and the refinement ask for it.

use super::levels::MAX_LEVELS;
use super::{Grid, Real};

/// A grid made ready for rounding single weights: [`Grid::rounded`] with scale 1.
#[derive(Debug, Clone)]
pub(crate) struct Nearest<T> {
    grid: Grid,
    /// Halfway between neighbouring levels of a table; infinite beyond the last.
    bounds: [T; MAX_LEVELS],
    levels: [T; MAX_LEVELS],
}

impl<T: Real> Nearest<T> {
    pub(crate) fn new(grid: Grid) -> Self {
        let (mut bounds, mut levels) = ([T::INFINITY; MAX_LEVELS], [T::ZERO; MAX_LEVELS]);
        let table = grid.table_of_levels();
        levels.iter_mut().zip(table).for_each(|(to, level)| *to = T::from_f64(f64::from(*level)));
        for (bound, pair) in bounds.iter_mut().zip(table.windows(2)) {
            *bound = T::from_f64(0.5 * (f64::from(pair[0]) + f64::from(pair[1])));
        }
        Self { grid, bounds, levels }
    }

    /// The level nearest to `scaled`. A NaN stays one.
    #[inline(always)]
    pub(crate) fn rounded(&self, scaled: T) -> T {
        if self.grid.table_of_levels().is_empty() {
            return self.grid.nearest_evenly_spaced(scaled);
        }
        // Counting compares all bounds at once; stepping from level to level would wait for each sum.
        let mut above = 0_u8;
        for bound in &self.bounds {
            above = above.wrapping_add(u8::from(scaled > *bound));
        }
        // An infinity is above no infinite bound, so there are as many as levels but one.
        let level = self.levels[usize::from(above) % MAX_LEVELS];
        if scaled.partial_cmp(&scaled).is_none() { scaled } else { level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grids::Spacing;

    #[test]
    fn it_rounds_as_the_grid_does() {
        for (bits, spacing) in [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| Spacing::ALL.map(|s| (bits, s)))
        {
            let grid = Grid::new(bits, spacing).unwrap();
            let nearest = Nearest::<f64>::new(grid);
            let halves = (-300..300).map(|i| f64::from(i) / 2.0);
            let others = (-4000..4000).map(|i| f64::from(i) * 0.0371);
            for scaled in halves.chain(others).chain([1e300, -1e300, f64::INFINITY, f64::NEG_INFINITY]) {
                assert_eq!(nearest.rounded(scaled), grid.rounded(scaled, 1.0), "{bits} {spacing:?} {scaled}");
            }
            assert!(nearest.rounded(f64::NAN).is_nan());
        }
    }
}
