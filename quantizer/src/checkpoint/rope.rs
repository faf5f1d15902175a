//! Rotary positions as fixed-point turns.
//!
//! RoPE (Su et al. 2021, arXiv:2104.09864, section 3.2.2) rotates pair `i` of a head of `d` elements at position `p`
//! by the angle `p * theta^(-2i/d)`. Computed in floats, that product loses bits as `p` grows, and differently on every
//! machine. Here the frequency is stored as a fraction of a full turn in 64-bit fixed point,
//!
//! ```text
//! F_i = round(frequency_i / (2 pi) * 2^64)        i in 0..d/2, frequency_i <= 1 radian a position
//! ```
//!
//! so that the angle of position `p` is the wrapping product `p * F_i`, in units of 2^-64 turns: whole turns fall off
//! the top, and what is left is the same integer everywhere. Rounding moves the angle by at most `p * 2^-65` turns.

use std::f64::consts::TAU;

/// How the angles of rotary positions follow from the position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies; at least 1.
    pub theta: f64,
    /// Stretching of the wavelengths, where the model was trained with it.
    pub scaling: Option<Scaling>,
    /// What rotated elements of queries and of keys are multiplied with: YaRN's and LongRoPE's attention factor; else 1.
    pub amplitude: f64,
}

/// How wavelengths are stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// All by one factor of at least 1 (`rope_type` "linear", arXiv:2306.15595).
    Linear(f64),
    /// The long ones.
    Llama3(Llama3Scaling),
    /// The long ones, by the number of the pair.
    Yarn(YarnScaling),
    /// Each pair by a factor of its own (`rope_type` "longrope", arXiv:2402.13753).
    Pairs(Vec<f64>),
}

/// Llama 3.1's stretching of long wavelengths (`rope_type` "llama3").
///
/// A pair that turns fewer than `low_frequency_factor` times within the original context turns `factor` times slower;
/// one that turns more than `high_frequency_factor` times is left alone; between them the two are interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// How much slower the slow pairs turn; at least 1.
    pub factor: f64,
    /// Turns within the original context up to which a pair is slowed by the whole factor; positive.
    pub low_frequency_factor: f64,
    /// Turns within the original context from which on a pair is left alone; more than the low one.
    pub high_frequency_factor: f64,
    /// Positions of the context before it was stretched.
    pub original_context: u32,
}

/// YaRN's stretching of long wavelengths (`rope_type` "yarn", arXiv:2309.00071, section 3.2).
///
/// Pairs up to number `low` are left alone, those from `high` on turn `factor` times slower; between them the two are interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnScaling {
    /// How much slower the slow pairs turn; at least 1.
    pub factor: f64,
    /// The last pair that is left alone, a part of a pair where it isn't cut to a whole number.
    pub low: f64,
    /// The first pair that is slowed by the whole factor; more than `low`.
    pub high: f64,
}

impl Rope {
    /// Without scaling.
    pub const fn plain(theta: f64) -> Rope {
        Rope { theta, scaling: None, amplitude: 1.0 }
    }

    /// With scaling.
    pub const fn scaled(theta: f64, scaling: Scaling) -> Rope {
        Rope { theta, scaling: Some(scaling), amplitude: 1.0 }
    }

    /// The turns a position moves each pair by, in units of 2^-64 turns: `rotary_dim / 2` values, fastest pair first.
    ///
    /// Pair `i` is made of elements `i` and `i + rotary_dim / 2` of a head, as Hugging Face's Llama lays them out.
    pub fn turns_per_position(&self, rotary_dim: u32) -> Vec<u64> {
        (0..rotary_dim / 2).map(|pair| fixed_point_turns(self.frequency(pair, rotary_dim))).collect()
    }

    /// Radians a position of one pair.
    fn frequency(&self, pair: u32, head_dim: u32) -> f64 {
        // libm's `pow`, not the host's: the container must not depend on where it was made.
        let plain = libm::pow(self.theta, -f64::from(2 * pair) / f64::from(head_dim));
        match &self.scaling {
            None => plain,
            Some(Scaling::Linear(factor)) => plain / factor,
            Some(Scaling::Llama3(scaling)) => scaling.apply(plain),
            Some(Scaling::Yarn(scaling)) => scaling.apply(plain, pair),
            // There is a factor for each pair: who reads them checks it.
            Some(Scaling::Pairs(factors)) => plain / factors.get(pair as usize).copied().unwrap_or(1.0),
        }
    }
}

impl YarnScaling {
    /// Between the pairs that turn `fast` and `slow` times within `original` positions, cut to whole pairs where `whole` says so.
    ///
    /// None where no pair turns so seldom, so that `low` would lie beyond `high`.
    pub(super) fn between(
        theta: f64,
        rotary_dim: u32,
        factor: f64,
        original: u32,
        [fast, slow]: [f64; 2],
        whole: bool,
    ) -> Option<YarnScaling> {
        let rotated = f64::from(rotary_dim);
        let pair = |turns: f64| {
            // A base of 1 gives all pairs one frequency: none is the one that turns so many times.
            rotated * libm::log(f64::from(original) / (turns * TAU))
                / (2.0 * libm::log(theta.max(1.0 + 1e-9)))
        };
        let (low, high) = match whole {
            true => (pair(fast).floor(), pair(slow).ceil()),
            false => (pair(fast), pair(slow)),
        };
        let (low, high) = (low.max(0.0), high.min(rotated - 1.0));
        let high = if low == high { high + 0.001 } else { high };
        (low < high).then_some(YarnScaling { factor, low, high })
    }

    /// What YaRN multiplies rotated elements with where nobody says it (arXiv:2309.00071, section 3.4).
    pub(super) fn amplitude(factor: f64) -> f64 {
        0.1 * libm::log(factor.max(1.0)) + 1.0
    }

    fn apply(&self, frequency: f64, pair: u32) -> f64 {
        let slowed = ((f64::from(pair) - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        slowed * (frequency / self.factor) + (1.0 - slowed) * frequency
    }
}

impl Llama3Scaling {
    /// The published formula is a case distinction over wavelengths; the share of the unscaled frequency, clamped to
    /// 0..=1, is the same without the cases.
    fn apply(&self, frequency: f64) -> f64 {
        let turns = f64::from(self.original_context) * frequency / TAU;
        let range = self.high_frequency_factor - self.low_frequency_factor;
        let unscaled = ((turns - self.low_frequency_factor) / range).clamp(0.0, 1.0);
        (1.0 - unscaled) * (frequency / self.factor) + unscaled * frequency
    }
}

fn fixed_point_turns(radians: f64) -> u64 {
    const TURN: f64 = 18_446_744_073_709_551_616.0; // 2^64
    (radians / TAU * TURN).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_3_2: Rope = Rope::scaled(
        500_000.0,
        Scaling::Llama3(Llama3Scaling {
            factor: 32.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192,
        }),
    );

    /// At most a few roundings of f64 away, or one unit of the fixed point.
    fn assert_close(found: u64, expected: u64) {
        let bound = (expected >> 50).max(1);
        assert!(found.abs_diff(expected) <= bound, "expected {expected} within {bound}, found {found}");
    }

    #[test]
    fn agrees_with_arithmetic_of_sixty_digits() {
        let plain = Rope::plain(10_000.0).turns_per_position(32);
        assert_eq!(plain.len(), 16);
        assert_close(plain[0], 2_935_890_503_282_001_226);
        assert_close(plain[1], 1_650_972_556_229_361_476);
        assert_close(plain[7], 52_208_336_321_151_933);
        assert_close(plain[15], 522_083_363_211_519);
        // Llama 3.2 1B: pairs 0..=14 are left alone, 15..=17 interpolated, 18..=31 slowed by 32.
        let scaled = LLAMA_3_2.turns_per_position(64);
        assert_close(scaled[0], 2_935_890_503_282_001_226);
        assert_close(scaled[14], 9_428_453_797_797_152);
        assert_close(scaled[15], 3_788_907_406_459_840);
        assert_close(scaled[16], 1_261_131_719_638_888);
        assert_close(scaled[17], 285_024_699_628_631);
        assert_close(scaled[18], 57_137_238_725_156);
        assert_close(scaled[31], 276_511_172_722);
    }

    #[test]
    fn the_wrapping_product_is_the_angle() {
        for head_dim in [2, 32, 128] {
            let rope = Rope::plain(10_000.0);
            for (pair, &turns) in rope.turns_per_position(head_dim).iter().enumerate() {
                for position in [0_u32, 1, 2, 511, 4095] {
                    let product = u64::from(position).wrapping_mul(turns);
                    let angle = product as f64 / 2_f64.powi(64) * TAU;
                    let direct =
                        f64::from(position) * 10_000_f64.powf(-2.0 * pair as f64 / f64::from(head_dim));
                    // The direct angle is rounded to its own size, up to 4095 radians: 2^-41.
                    assert!((angle.sin() - direct.sin()).abs() < 2e-12, "{head_dim} {pair} {position}");
                    assert!((angle.cos() - direct.cos()).abs() < 2e-12, "{head_dim} {pair} {position}");
                }
            }
        }
    }

    #[test]
    fn llama3_agrees_with_the_published_cases() {
        let Some(Scaling::Llama3(scaling)) = &LLAMA_3_2.scaling else { panic!("scaled") };
        let (low, high) = (scaling.low_frequency_factor, scaling.high_frequency_factor);
        let original = f64::from(scaling.original_context);
        let mut seen = [0; 3];
        for pair in 0..32 {
            let frequency = 500_000_f64.powf(-2.0 * f64::from(pair) / 64.0);
            let wavelength = TAU / frequency;
            let (case, expected) = if wavelength < original / high {
                (0, frequency)
            } else if wavelength > original / low {
                (1, frequency / scaling.factor)
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (2, (1.0 - smooth) * frequency / scaling.factor + smooth * frequency)
            };
            seen[case] += 1;
            let found = LLAMA_3_2.frequency(pair, 64);
            assert!(
                (found / expected - 1.0).abs() < 1e-13,
                "pair {pair}: expected {expected}, found {found}"
            );
        }
        assert_eq!(seen, [15, 14, 3]);
    }
}
