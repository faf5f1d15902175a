//! Evenly spaced levels, where codes can be multiplied in place of levels:
//!
//! ```text
//! level = lowest + spacing * code
//! sum(level * activation) = spacing * sum(code * activation) + lowest * sum(activation)
//! ```
//! The second sum is the same for all rows.

use rescomp_formats::matrix::TABLE_ENTRIES;

/// How far apart levels of `WORDS` bits are where codes are multiplied in their place, as `--levels even` has them; `None` at the widths for
/// which there is no such kernel.
const fn spacing_of_codes<const WORDS: usize>() -> Option<i8> {
    match WORDS {
        2 | 3 => Some(2),
        4 => Some(1),
        _ => None,
    }
}

/// Evenly spaced levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernels) struct Even {
    /// The level of code 0.
    pub(in crate::kernels) lowest: i8,
    /// From a level to the next.
    pub(in crate::kernels) spacing: i8,
}

impl Even {
    /// The first `count` of `levels`, two or more and rising, where they are evenly spaced.
    #[inline(always)]
    pub(in crate::kernels) fn of(levels: &[i8; TABLE_ENTRIES], count: usize) -> Option<Even> {
        let spacing = levels[1].wrapping_sub(levels[0]);
        let even = levels[..count].windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == spacing);
        even.then_some(Even { lowest: levels[0], spacing })
    }

    /// Those of a codebook of `WORDS` bits, where they are as far apart as codes in their place may be.
    #[inline(always)]
    pub(in crate::kernels) fn of_codes<const WORDS: usize>(levels: &[i8; TABLE_ENTRIES]) -> Option<Even> {
        let spacing = spacing_of_codes::<WORDS>()?;
        Even::of(levels, 1 << WORDS).filter(|even| even.spacing == spacing)
    }

    /// The largest magnitude of `count` levels.
    #[inline(always)]
    pub(in crate::kernels) fn bound(self, count: usize) -> u32 {
        let lowest = i32::from(self.lowest);
        let highest = lowest + (count as i32 - 1) * i32::from(self.spacing);
        lowest.unsigned_abs().max(highest.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenly_spaced_levels_are_found() {
        let table = |of: &[i8]| {
            let mut table = [0; TABLE_ENTRIES];
            table[..of.len()].copy_from_slice(of);
            (table, of.len())
        };
        let even = |of: &[i8]| {
            let (table, count) = table(of);
            Even::of(&table, count).map(|even| (even.lowest, even.spacing, even.bound(count)))
        };
        assert_eq!(even(&[-3, -1, 1, 3]), Some((-3, 2, 3)));
        assert_eq!(even(&[-2, -1, 0, 1]), Some((-2, 1, 2)));
        assert_eq!(even(&[-31, -9, 9, 31]), None);
        assert_eq!(even(&[-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7]), Some((-8, 1, 8)));
        assert_eq!(even(&[-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8]), None);
        assert_eq!(even(&[-63, -21, 21, 63]), Some((-63, 42, 63)));
    }
}
