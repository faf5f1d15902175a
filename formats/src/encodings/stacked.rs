//! What codes of the stacked widths, 5 and 6 bits, stand for: a sum that no matrix chooses.
//!
//! ```text
//! level(code) = 2 code - (2^bits - 1)                           the odd numbers within the bound: evenly spaced, none of them 0
//!             = high_level(code >> low_bits) + low_level(code)
//! ```
//! A table of sixteen within a register can't hold 32 or 64 levels. So a kernel looks up the high four bits as it does at 4
//! bits, the low ones as it would a narrow width, and adds.

/// Bits of a code that index the table of high parts.
pub const HIGH_BITS: usize = 4;

/// The part of the high four bits: 4 h - 30 at 5 bits (one low bit), 8 h - 60 at 6 bits (two), h in 0..16.
pub const fn high_level(low_bits: usize, high: u8) -> i8 {
    (2 * (high & 15) as i8 - 15) << low_bits
}

/// The part of the low bits: 2 l - 1 at 5 bits, 2 l - 3 at 6 bits. Higher bits of `code` don't count; without low bits it is 0.
pub const fn low_level(low_bits: usize, code: u8) -> i8 {
    let highest = (1 << low_bits) - 1;
    2 * (code & highest) as i8 - highest as i8
}
