//! In which order the words of a matrix lie in its section.
//!
//! A layout only permutes words of four bytes (see [`crate::encodings`]) and scales; the words themselves are the same in
//! every layout. A file a layout: offsets with units, and nothing else.

pub mod nr8k4;
pub mod rows;

use serde::{Deserialize, Serialize};

/// The order of words and scales in a matrix section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Layout {
    /// Row after row: the portable reference, which every backend runs.
    Rows,
    /// Tiles of eight rows, their words side by side: one stream for NEON and AVX2 kernels alike.
    Nr8k4,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Layout::Rows, Layout::Nr8k4];

    /// The name in target files, manifests and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Rows => "rows",
            Layout::Nr8k4 => "nr8k4",
        }
    }

    /// The layout of this name, where there is one.
    pub fn from_name(name: &str) -> Option<Layout> {
        Layout::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// Rows are stored in tiles of this many; missing ones have zero codes and zero scales.
    pub const fn tile_rows(self) -> usize {
        match self {
            Layout::Rows => 1,
            Layout::Nr8k4 => nr8k4::TILE_ROWS,
        }
    }

    /// Index of a word (in words of four bytes) within the codes. `units` and `words` are units a row and words a unit.
    pub const fn word_index(self, row: usize, unit: usize, word: usize, units: usize, words: usize) -> usize {
        match self {
            Layout::Rows => rows::word_index(row, unit, word, units, words),
            Layout::Nr8k4 => nr8k4::word_index(row, unit, word, units, words),
        }
    }

    /// Index of a scale (an f16 value, or a byte of scale codes) within the scales. `groups` is those of a row.
    pub const fn scale_index(self, row: usize, group: usize, groups: usize) -> usize {
        match self {
            Layout::Rows => rows::scale_index(row, group, groups),
            Layout::Nr8k4 => nr8k4::scale_index(row, group, groups),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_used_once() {
        for layout in Layout::ALL {
            for (tiles, units, words, groups) in [(1, 1, 4, 1), (3, 5, 2, 2), (2, 3, 3, 3), (4, 2, 8, 1)] {
                let rows = tiles * layout.tile_rows();
                let mut seen = [false; 8 * 4 * 5 * 8];
                for row in 0..rows {
                    for unit in 0..units {
                        for word in 0..words {
                            let index = layout.word_index(row, unit, word, units, words);
                            assert!(index < rows * units * words, "{layout:?}");
                            assert!(
                                !core::mem::replace(&mut seen[index], true),
                                "{layout:?} word {index} twice"
                            );
                        }
                    }
                }
                let mut seen = [false; 8 * 4 * 3];
                for row in 0..rows {
                    for group in 0..groups {
                        let index = layout.scale_index(row, group, groups);
                        assert!(index < rows * groups, "{layout:?}");
                        assert!(
                            !core::mem::replace(&mut seen[index], true),
                            "{layout:?} scale {index} twice"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_found_again() {
        for layout in Layout::ALL {
            assert_eq!(Layout::from_name(layout.name()), Some(layout));
        }
        assert_eq!(Layout::from_name("columns"), None);
    }
}
