//! `nr8k4`: tiles of eight rows, interleaved in runs of four columns.
//!
//! Words in the order (tile, unit, word, row of the tile), scales in the order (tile, group, row of the tile). A 16-byte load
//! holds the same word of four rows, a 32-byte load of eight; each meets one run of four activations, broadcast. So four or
//! eight row sums grow side by side with no sum across lanes, decode reads memory forward once, and prefill uses the same
//! bytes for several tokens.

/// Rows in a tile.
pub const TILE_ROWS: usize = 8;

/// Index of a word, in words of four bytes.
pub const fn word_index(row: usize, unit: usize, word: usize, units: usize, words: usize) -> usize {
    ((row / TILE_ROWS * units + unit) * words + word) * TILE_ROWS + row % TILE_ROWS
}

/// Index of a scale (an f16 value, or a byte of scale codes).
pub const fn scale_index(row: usize, group: usize, groups: usize) -> usize {
    (row / TILE_ROWS * groups + group) * TILE_ROWS + row % TILE_ROWS
}
