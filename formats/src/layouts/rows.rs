//! `rows`: words in the order (row, unit, word), scales in the order (row, group).

/// Index of a word, in words of four bytes.
pub const fn word_index(row: usize, unit: usize, word: usize, units: usize, words: usize) -> usize {
    (row * units + unit) * words + word
}

/// Index of a scale (an f16 value, or a byte of scale codes).
pub const fn scale_index(row: usize, group: usize, groups: usize) -> usize {
    row * groups + group
}
