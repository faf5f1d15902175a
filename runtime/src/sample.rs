//! Choosing the next token from logits.

use crate::eval::argmax;
use bytemuck::{Pod, Zeroable};
use micromath::F32Ext;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// Divides the logits; 0 takes the most likely token always.
    pub temperature: f32,
    /// Only this many most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Seed of the random numbers. The same seed gives the same tokens on every machine.
    pub seed: u64,
}

/// Why options aren't any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptionsError {
    /// The option.
    pub option: &'static str,
    /// What it must be.
    pub expected: &'static str,
    /// What it is.
    pub found: f32,
}

impl core::fmt::Display for SampleOptionsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.option, self.expected, self.found)
    }
}

impl core::error::Error for SampleOptionsError {}

/// A token that may be chosen, with a weight that grows with its probability.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Candidate {
    token: u32,
    weight: f32,
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SampleOptions,
    random: Pcg32,
}

impl Sampler {
    /// A sampler at the start of its random numbers.
    ///
    /// # Errors
    /// A temperature that isn't finite and 0 or more, or a `top_p` outside 0 (excluded) to 1.
    pub fn new(options: SampleOptions) -> Result<Sampler, SampleOptionsError> {
        let (temperature, top_p) = (options.temperature, options.top_p);
        if !(temperature.is_finite() && temperature >= 0.0) {
            let expected = "a finite number, 0 or more";
            return Err(SampleOptionsError { option: "temperature", expected, found: temperature });
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SampleOptionsError {
                option: "top_p",
                expected: "more than 0, at most 1",
                found: top_p,
            });
        }
        Ok(Sampler { options, random: Pcg32::seed_from_u64(options.seed) })
    }

    /// Chooses a token. `candidates` is memory for as many entries as there are logits.
    ///
    /// # Panics
    /// Where there are no logits, or fewer candidates than logits.
    pub fn choose(&mut self, logits: &[f32], candidates: &mut [Candidate]) -> u32 {
        let best = argmax(logits);
        if self.options.temperature == 0.0 || self.options.top_k == 1 {
            return best;
        }
        let candidates = &mut candidates[..logits.len()];
        let highest = logits[best as usize];
        for ((token, &logit), candidate) in logits.iter().enumerate().zip(candidates.iter_mut()) {
            // micromath's exp is right to 0.3 %, which no reader of a sampled text can tell; it touches no logit.
            // Its range ends near -87; further down a weight is nothing.
            let exponent = (logit - highest) / self.options.temperature;
            let weight = if exponent > -80.0 { F32Ext::exp(exponent) } else { 0.0 };
            *candidate = Candidate { token: token as u32, weight };
        }
        let candidates = self.restrict(candidates);
        let total: f32 = candidates.iter().map(|candidate| candidate.weight).sum();
        // 24 random bits: every value is exact in f32 and below 1.
        let mut left = (self.random.next_u32() >> 8) as f32 / 16_777_216.0 * total;
        for candidate in candidates.iter() {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.token;
            }
        }
        // Rounding used the total up: the most likely one.
        best
    }

    /// Keeps the candidates that top-k and top-p allow, most likely first where either restricts.
    fn restrict<'c>(&self, candidates: &'c mut [Candidate]) -> &'c [Candidate] {
        let SampleOptions { top_k, top_p, .. } = self.options;
        let by_weight =
            |a: &Candidate, b: &Candidate| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token));
        let mut kept = candidates.len();
        if top_k != 0 && top_k < kept {
            candidates.select_nth_unstable_by(top_k - 1, by_weight);
            kept = top_k;
        }
        let candidates = &mut candidates[..kept];
        if top_k != 0 || top_p < 1.0 {
            candidates.sort_unstable_by(by_weight);
        }
        if top_p < 1.0 {
            let total: f32 = candidates.iter().map(|candidate| candidate.weight).sum();
            let mut mass = 0.0;
            let enough = candidates.iter().position(|candidate| {
                mass += candidate.weight;
                mass >= top_p * total
            });
            kept = enough.map_or(candidates.len(), |last| last + 1);
        }
        &candidates[..kept]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn sampler(temperature: f32, top_k: usize, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(SampleOptions { temperature, top_k, top_p, seed }).unwrap()
    }

    fn draw(mut sampler: Sampler, logits: &[f32], count: usize) -> Vec<u32> {
        let mut candidates = [Candidate { token: 0, weight: 0.0 }; 8];
        (0..count).map(|_| sampler.choose(logits, &mut candidates)).collect()
    }

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -100.0];

    #[test]
    fn greedy_takes_the_first_of_the_most_likely() {
        assert_eq!(draw(sampler(0.0, 0, 1.0, 1), &LOGITS, 3), [1, 1, 1]);
        assert_eq!(draw(sampler(1.0, 1, 1.0, 1), &LOGITS, 3), [1, 1, 1]);
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let one = draw(sampler(1.0, 0, 1.0, 7), &LOGITS, 50);
        assert_eq!(one, draw(sampler(1.0, 0, 1.0, 7), &LOGITS, 50));
        assert_ne!(one, draw(sampler(1.0, 0, 1.0, 8), &LOGITS, 50));
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let drawn = draw(sampler(1.0, 0, 1.0, 3), &LOGITS, 20_000);
        let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
        for (token, &logit) in LOGITS.iter().enumerate() {
            let expected = f64::from(logit).exp() / total;
            let found = drawn.iter().filter(|&&other| other as usize == token).count() as f64 / 20_000.0;
            // Five standard deviations of a binomial share, and micromath's error.
            let bound = 5.0 * (expected * (1.0 - expected) / 20_000.0).sqrt() + 3e-3;
            assert!((found - expected).abs() <= bound, "token {token}: {found} for {expected}");
        }
    }

    #[test]
    fn top_k_and_top_p_restrict() {
        let tokens = |sampler| {
            let mut tokens = draw(sampler, &LOGITS, 2_000);
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        assert_eq!(tokens(sampler(1.0, 2, 1.0, 1)), [1, 3]);
        assert_eq!(tokens(sampler(1.0, 3, 1.0, 1)), [1, 2, 3]);
        assert_eq!(tokens(sampler(1.0, 0, 0.5, 1)), [1, 3]);
        assert_eq!(tokens(sampler(1.0, 0, 0.1, 1)), [1]);
    }

    #[test]
    fn impossible_options_are_named() {
        let error = |temperature, top_p| {
            Sampler::new(SampleOptions { temperature, top_k: 0, top_p, seed: 0 }).unwrap_err().option
        };
        assert_eq!(error(f32::NAN, 1.0), "temperature");
        assert_eq!(error(-1.0, 1.0), "temperature");
        assert_eq!(error(1.0, 0.0), "top_p");
        assert_eq!(error(1.0, 1.5), "top_p");
    }
}
