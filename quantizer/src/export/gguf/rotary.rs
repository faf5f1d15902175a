//! The base of the rotary frequencies, and what each is divided by, from the frequencies of a container.

use crate::checkpoint::Rope;

/// Frequencies that agree to this are the same: the base is a binary32.
const TOLERANCE: f64 = 1e-7;

/// How a GGUF file says rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rotary {
    /// Pair `i` of `n` turns by `base^(-i/n) / divisor` radians a position.
    pub(super) base: f32,
    /// One a pair; empty where nothing is divided.
    pub(super) divisors: Vec<f32>,
}

impl Rotary {
    /// The frequencies `turns`, one a pair, in units of 2^-64 turns a position.
    pub(super) fn of(turns: &[u64]) -> Self {
        let pairs = turns.len();
        let ratio = |pair: usize| turns[pair] as f64 / turns[0].max(1) as f64;
        // The fastest pairs are divided alike in every scaling that there is: by 1, or all pairs by the same.
        let exact = if pairs > 1 { ratio(1).powf(-(pairs as f64)) } else { 10_000.0 };
        let whole = exact.round();
        let base = if (whole / exact - 1.0).abs() < TOLERANCE { whole as f32 } else { exact as f32 };
        let plain = Rope::plain(base.into()).turns_per_position(2 * pairs as u32);
        let divisors: Vec<f64> =
            plain.iter().zip(turns).map(|(plain, turns)| *plain as f64 / (*turns).max(1) as f64).collect();
        if divisors.iter().all(|divisor| (divisor - 1.0).abs() <= TOLERANCE) {
            return Self { base, divisors: Vec::new() };
        }
        Self { base, divisors: divisors.into_iter().map(|divisor| divisor as f32).collect() }
    }

    /// Whether frequencies that were read back are those of the container, as far as binary32 tells.
    pub(super) fn agrees(&self, container: &[u64], read_back: &[u64]) -> bool {
        // Rounding to 24 bits, of the base as well: an exponent of at most 1 carries its error on.
        let near = |(ours, theirs): (&u64, &u64)| ours.abs_diff(*theirs) <= (ours >> 22).max(1);
        container.len() == read_back.len() && container.iter().zip(read_back).all(near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Llama3Scaling, Scaling};

    #[test]
    fn the_base_is_found_again() {
        for theta in [10_000.0, 100_000.0, 500_000.0, 1e6, 12_345.5] {
            for head_dim in [4, 32, 64, 128] {
                let turns = Rope::plain(theta).turns_per_position(head_dim);
                assert_eq!(Rotary::of(&turns), Rotary { base: theta as f32, divisors: Vec::new() });
            }
        }
        let one_pair = Rotary::of(&Rope::plain(7.0).turns_per_position(2));
        assert!(one_pair.divisors.is_empty());
    }

    #[test]
    fn scaled_frequencies_are_divided() {
        let scaling = Llama3Scaling {
            factor: 32.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192,
        };
        let rotary = Rotary::of(&Rope::scaled(500_000.0, Scaling::Llama3(scaling)).turns_per_position(64));
        assert_eq!((rotary.base, rotary.divisors[0], rotary.divisors[31]), (500_000.0, 1.0, 32.0));
        assert!(rotary.divisors[16] > 1.0 && rotary.divisors[16] < 32.0);
    }
}
