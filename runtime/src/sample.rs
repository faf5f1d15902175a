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

impl Candidate {
    /// Most likely first; of equal ones the lower token.
    fn by_weight(a: &Candidate, b: &Candidate) -> core::cmp::Ordering {
        b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
    }
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

    /// Whether it takes the most likely token always, and needs no candidates.
    pub fn is_greedy(&self) -> bool {
        self.options.temperature == 0.0
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
        let candidates = self.most_likely(logits, &mut candidates[..logits.len()]);
        let highest = logits[best as usize];
        for candidate in candidates.iter_mut() {
            // micromath's exp is right to 0.3 %, which no reader of a sampled text can tell; it touches no logit.
            // Its range ends near -87; further down a weight is nothing.
            let exponent = (candidate.weight - highest) / self.options.temperature;
            candidate.weight = if exponent > -80.0 { F32Ext::exp(exponent) } else { 0.0 };
        }
        let candidates = self.nucleus(candidates);
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

    /// The candidates that top-k allows, with their logits as weights; most likely first where it restricts.
    fn most_likely<'c>(&self, logits: &[f32], candidates: &'c mut [Candidate]) -> &'c mut [Candidate] {
        let each =
            logits.iter().enumerate().map(|(token, &weight)| Candidate { token: token as u32, weight });
        let k = self.options.top_k;
        if k == 0 || k >= logits.len() {
            for (candidate, place) in each.zip(candidates.iter_mut()) {
                *place = candidate;
            }
            if k != 0 {
                candidates.sort_unstable_by(Candidate::by_weight);
            }
            return candidates;
        }
        // Whatever isn't above the k-th of those seen so far is out, which is nearly everything: so there is little to select from.
        let room = k.saturating_mul(4).max(256).min(candidates.len());
        let (mut kept, mut bound) = (0, None);
        for candidate in each {
            if bound.is_some_and(|bound| candidate.weight <= bound) {
                continue;
            }
            candidates[kept] = candidate;
            kept += 1;
            if kept == room {
                let (_, last, _) = candidates[..kept].select_nth_unstable_by(k - 1, Candidate::by_weight);
                (kept, bound) = (k, Some(last.weight));
            }
        }
        candidates[..kept].sort_unstable_by(Candidate::by_weight);
        &mut candidates[..kept.min(k)]
    }

    /// The candidates that top-p allows, most likely first where it restricts.
    fn nucleus<'c>(&self, candidates: &'c mut [Candidate]) -> &'c [Candidate] {
        let SampleOptions { top_k, top_p, .. } = self.options;
        if top_p >= 1.0 {
            return candidates;
        }
        let total: f32 = candidates.iter().map(|candidate| candidate.weight).sum();
        let mut kept = candidates.len();
        if top_k == 0 {
            // All that are at most this together make less than what top-p leaves out, so that they needn't be sorted.
            let negligible = (1.0 - top_p) * total / candidates.len() as f32;
            kept = 0;
            for index in 0..candidates.len() {
                if candidates[index].weight > negligible {
                    candidates[kept] = candidates[index];
                    kept += 1;
                }
            }
            candidates[..kept].sort_unstable_by(Candidate::by_weight);
        }
        let mut mass = 0.0;
        let enough = candidates[..kept].iter().position(|candidate| {
            mass += candidate.weight;
            mass >= top_p * total
        });
        &candidates[..enough.map_or(kept, |last| last + 1)]
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

    /// Against sorting everything, with many equal logits and none.
    #[test]
    fn the_most_likely_are_those_of_a_sort() {
        let mut random = Pcg32::seed_from_u64(5);
        for count in [1, 2, 255, 256, 257, 5_000] {
            for levels in [3, 1 << 20] {
                let logits: Vec<f32> =
                    (0..count).map(|_| (random.next_u32() % levels) as f32 * 10.0 / levels as f32).collect();
                let mut sorted: Vec<u32> = (0..count as u32).collect();
                sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
                let empty = Candidate { token: 0, weight: 0.0 };
                for k in [1, 2, 40, 64, 100, 300, 5_000] {
                    let mut candidates = std::vec![empty; count];
                    let found = sampler(1.0, k, 1.0, 1).most_likely(&logits, &mut candidates);
                    let found: Vec<u32> = found.iter().map(|candidate| candidate.token).collect();
                    assert_eq!(found, sorted[..k.min(count)], "{k} of {count}");
                }
                let mut candidates: Vec<Candidate> = logits
                    .iter()
                    .enumerate()
                    .map(|(token, logit)| Candidate { token: token as u32, weight: libm::expf(*logit) })
                    .collect();
                let total: f32 = candidates.iter().map(|candidate| candidate.weight).sum();
                let nucleus = sampler(1.0, 0, 0.9, 1).nucleus(&mut candidates);
                let tokens: Vec<u32> = nucleus.iter().map(|candidate| candidate.token).collect();
                assert_eq!(tokens, sorted[..tokens.len()], "top-p of {count}");
                let mass = |of: &[Candidate]| of.iter().map(|candidate| candidate.weight).sum::<f32>();
                assert!(mass(nucleus) >= 0.9 * total && mass(&nucleus[..nucleus.len() - 1]) < 0.9 * total);
            }
        }
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
