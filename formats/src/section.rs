//! The section table.

/// Sections start at multiples of this many bytes.
pub const SECTION_ALIGNMENT_BYTES: usize = 64;
