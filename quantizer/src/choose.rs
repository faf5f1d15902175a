//! Strength, ridge and refinement of a matrix, chosen on calibration tokens that were held out.
//!
//! The exact start corrects for the drift by a regression on the calibration tokens, and refinement fits codes to them ever
//! more closely: how far to go is not known from the tokens that were fitted. So, for every set of matrices with one input:
//!
//! ```text
//! every 8th window (the last one of fewer) is held out;  Ht, Dt = moments of the others;  Hh, Dh = moments of these
//! for each matrix: solve under Ht, Dt with strength 0 (gptq), and with each strength and ridge of a small grid; keep the one with
//!     the least asymmetric loss under Hh, Dh, the first one where they are equal
//! refine it, still under Ht, by 1, 2, 4, 8 sweeps; keep the number with the least loss under Hh, Dh, 0 included
//! where a low-rank correction is asked for: alternate sweep and fit under Ht (crate::methods::low_rank), from either start, for 1 to 3
//!     rounds; keep the one with the least loss under Hh, Dh, or none where that is less
//! solve once more with the moments of all tokens
//! ```
//!
//! So on the held-out tokens, what is chosen is never worse than gptq (both solved on the training tokens).

use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};

use crate::grids::Real;
use crate::methods::low_rank;
use crate::methods::{
    self, Alternation, FirstFactors, LowRank, MethodError, Objective, Prepared, RefineLimits, Solution,
    SolverOptions, Start, StaticScales, SweepConfiguration,
};
use crate::moments::Moments;

/// One window of this many is held out.
pub const HELD_OUT_EVERY: usize = 8;
/// Strengths of the exact start that are tried, besides 0.
pub const STRENGTHS: [f64; 2] = [0.5, 1.0];
/// Ridges of the exact start that are tried, as a share of the Hessian's mean diagonal.
pub const RIDGES: [f64; 3] = [0.01, 0.1, 1.0];
/// Numbers of refinement sweeps that are tried.
pub const SWEEPS: [usize; 5] = [0, 1, 2, 4, 8];
/// Rounds of a low-rank correction that are tried.
const CORRECTION_ROUNDS: usize = 3;
/// Fewer calibration tokens than this times the inputs of a matrix get a warning.
pub const TOKENS_PER_INPUT: usize = 8;

/// A setting that is given, or chosen on held-out tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting<T> {
    /// Chosen for each matrix.
    Auto,
    /// Given.
    Fixed(T),
}

/// What can be chosen for each matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Strength of the exact start; of no influence on methods without one.
    pub strength: Setting<f64>,
    /// Ridge of the exact start, as a share of the Hessian's mean diagonal; of no influence on methods without one.
    pub ridge: Setting<f64>,
    /// The most sweeps of refinement.
    pub refine: Setting<usize>,
}

impl Tuning {
    /// A method as its configuration says, without refinement.
    pub const PLAIN: Tuning =
        Tuning { strength: Setting::Fixed(1.0), ridge: Setting::Fixed(1.0), refine: Setting::Fixed(0) };
    /// Everything chosen.
    pub const AUTO: Tuning = Tuning { strength: Setting::Auto, ridge: Setting::Auto, refine: Setting::Auto };

    /// Whether anything has to be chosen for a method with this configuration.
    pub fn chooses(&self, configuration: &SweepConfiguration) -> bool {
        self.refine == Setting::Auto
            || (has_exact_start(configuration)
                && (self.strength == Setting::Auto || self.ridge == Setting::Auto))
    }

    /// The choice where nothing can be held out: what is given, and strength 1, ridge 1, no refinement for the rest.
    pub fn without_held_out(&self, configuration: SweepConfiguration) -> Choice {
        let configuration = match configuration.start {
            Start::Exact { .. } => configuration.with_start(Start::Exact {
                strength: given(self.strength, 1.0),
                ridge: given(self.ridge, 1.0),
            }),
            _ => configuration,
        };
        Choice { configuration, sweeps: given(self.refine, 0), low_rank: None, held_out: None }
    }

    /// What to try for a method with this configuration, ordered by ridge; strength 0 (gptq) first.
    pub fn candidates(&self, configuration: SweepConfiguration) -> Vec<SweepConfiguration> {
        if !has_exact_start(&configuration) {
            return vec![configuration];
        }
        let list = |setting, tried: &[f64]| match setting {
            Setting::Auto => tried.to_vec(),
            Setting::Fixed(value) => vec![value],
        };
        let mut candidates = Vec::new();
        if self.strength == Setting::Auto {
            candidates.push(configuration.with_start(Start::Unchanged));
        }
        for ridge in list(self.ridge, &RIDGES) {
            for strength in list(self.strength, &STRENGTHS) {
                candidates.push(configuration.with_start(Start::Exact { strength, ridge }));
            }
        }
        candidates
    }
}

fn has_exact_start(configuration: &SweepConfiguration) -> bool {
    matches!(configuration.start, Start::Exact { .. })
}

fn given<T>(setting: Setting<T>, otherwise: T) -> T {
    match setting {
        Setting::Auto => otherwise,
        Setting::Fixed(value) => value,
    }
}

/// What was chosen for a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The sweep.
    pub configuration: SweepConfiguration,
    /// The most sweeps of refinement.
    pub sweeps: usize,
    /// How the low-rank correction is found; `None` where there is none.
    pub low_rank: Option<Alternation>,
    /// Losses on the held-out tokens; `None` where none were held out.
    pub held_out: Option<HeldOut>,
}

/// Asymmetric losses on the held-out tokens over `|| X W0^T ||^2`, of matrices that were solved on the training tokens; may be
/// negative (see [`methods::asymmetric_loss`]).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Of the first candidate that could be solved: gptq where the strength was chosen.
    pub first: f64,
    /// Of the chosen sweep before refinement.
    pub swept: f64,
    /// Of what was chosen, without a low-rank correction.
    pub chosen: f64,
    /// Of the best correction that was tried; `None` where none was asked for. Where it is no less than `chosen`, the matrix has none.
    pub corrected: Option<f64>,
}

/// The search for one matrix: give it every one of [`Tuning::candidates`], then [`Selection::finish`]. Candidates come by ridge, and
/// the factors of a ridge are kept in [`Prepared`]: consider a candidate for all matrices of a set before the next one.
#[derive(Debug)]
pub struct Selection<'a, T: Real> {
    weights: MatRef<'a, T>,
    training: &'a Prepared<T>,
    /// On the held-out tokens.
    objective: Objective<T>,
    options: &'a SolverOptions,
    /// Of static groups: the same for all candidates.
    scales: Option<StaticScales<T>>,
    first: Option<f64>,
    best: Option<Candidate<T>>,
}

#[derive(Debug)]
struct Candidate<T> {
    configuration: SweepConfiguration,
    solution: Solution<T>,
    /// On the held-out tokens.
    loss: f64,
}

impl<'a, T: Real> Selection<'a, T> {
    /// For `weights` (m x n), to be solved with the factors of the training tokens.
    ///
    /// # Errors
    /// What the search for scales fails with.
    pub fn new(
        weights: MatRef<'a, T>,
        training: &'a Prepared<T>,
        held_out: &Moments,
        options: &'a SolverOptions,
    ) -> Result<Self, MethodError> {
        let scales = match options.static_groups {
            true => Some(methods::static_scales(weights, training, options)?),
            false => None,
        };
        let [hessian, drift] = held_out.matrices();
        let objective = Objective::new(weights, hessian.as_ref(), Some(drift.as_ref()))?;
        Ok(Selection { weights, training, objective, options, scales, first: None, best: None })
    }

    fn loss(&self, solution: &Solution<T>) -> Result<f64, MethodError> {
        Ok(self.objective.of(solution)?.total())
    }

    /// Solves on the training tokens and measures on the held-out ones. A candidate that has no solution on these tokens, such as a
    /// sweep that diverges, is passed over.
    ///
    /// # Errors
    /// What the solver fails with, where the tokens are not to blame.
    pub fn consider(&mut self, configuration: SweepConfiguration) -> Result<(), MethodError> {
        let solution = methods::solve_with_scales(
            self.weights,
            self.training,
            &configuration,
            self.options,
            self.scales.as_ref(),
        );
        let measured = solution.and_then(|solution| Ok((self.loss(&solution)?, solution)));
        let (loss, solution) = match measured {
            Err(cause) if cause.is_about_the_data() => return Ok(()),
            other => other?,
        };
        self.first = self.first.or(Some(loss));
        if self.best.as_ref().is_none_or(|best| loss < best.loss) {
            self.best = Some(Candidate { configuration, solution, loss });
        }
        Ok(())
    }

    /// Refines the best candidate as far as `refine` says, or as it helps on the held-out tokens, and tries corrections of this `rank`, 0 for
    /// none. `None` if there was no candidate.
    ///
    /// # Errors
    /// What refinement fails with.
    pub fn finish(mut self, refine: Setting<usize>, rank: usize) -> Result<Option<Choice>, MethodError> {
        let (Some(first), Some(best)) = (self.first, self.best.take()) else { return Ok(None) };
        let Candidate { configuration, mut solution, loss: swept } = best;
        let (mut chosen, mut sweeps) = (swept, 0);
        let tried = match refine {
            Setting::Auto => SWEEPS.to_vec(),
            Setting::Fixed(sweeps) => vec![0, sweeps],
        };
        let target = match refine {
            Setting::Fixed(0) => None,
            _ => Some(self.training.target(self.weights, configuration.start)?),
        };
        for (pair, target) in tried.windows(2).zip(target.iter().cycle()) {
            let limits = RefineLimits::sweeps(pair[1] - pair[0]);
            let format = self.options.row_format(self.training.columns());
            methods::refine(&mut solution, target.as_ref(), self.training, format, limits)?;
            let loss = self.loss(&solution)?;
            if loss < chosen || refine != Setting::Auto {
                (chosen, sweeps) = (loss, pair[1]);
            }
        }
        let tried = match rank {
            0 => None,
            rank => self.best_correction(configuration, sweeps, rank)?,
        };
        let power = self.objective.power();
        let relative = |loss: f64| if power > 0.0 { loss / power } else { 0.0 };
        let held_out = HeldOut {
            first: relative(first),
            swept: relative(swept),
            chosen: relative(chosen),
            corrected: tried.map(|(_, loss)| relative(loss)),
        };
        let low_rank = tried.filter(|(_, loss)| *loss < chosen).map(|(alternation, _)| alternation);
        Ok(Some(Choice { configuration, sweeps, low_rank, held_out: Some(held_out) }))
    }

    /// The correction with the least loss on the held-out tokens, of those that begin with no factors and with the target's own, after each
    /// round. `None` where neither has a solution on the training tokens.
    fn best_correction(
        &self,
        configuration: SweepConfiguration,
        sweeps: usize,
        rank: usize,
    ) -> Result<Option<(Alternation, f64)>, MethodError> {
        let (weights, training) = (methods::widened(self.weights), self.training.widened());
        let target = training.target(weights.as_ref(), configuration.start)?;
        let problem = low_rank::Problem {
            weights: weights.as_ref(),
            target: target.as_ref(),
            prepared: &training,
            options: self.options,
            sweeps,
        };
        let mut best: Option<(Alternation, f64)> = None;
        for first in FirstFactors::ALL {
            let all = Alternation { rank, first, rounds: CORRECTION_ROUNDS };
            let run = problem.alternate(all, |rounds, solution, low_rank| {
                let values = methods::corrected_values(solution, Some(low_rank));
                let values = Mat::from_fn(solution.rows, solution.columns, |row, column| {
                    T::from_f64(values[row * solution.columns + column])
                });
                let loss = self.objective.of_values(values.as_ref())?.total();
                if best.is_none_or(|(_, least)| loss < least) {
                    best = Some((Alternation { rounds, ..all }, loss));
                }
                Ok(())
            });
            match run {
                Err(cause) if cause.is_about_the_data() => {}
                other => _ = other?,
            }
        }
        Ok(best)
    }
}

/// A matrix as it was solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Levels and scales.
    pub solution: Solution<f64>,
    /// Sweeps of refinement.
    pub sweeps: usize,
    /// The correction, and the solution without it; `None` where there is none.
    pub low_rank: Option<(LowRank, Solution<f64>)>,
}

/// Solves and refines a matrix as chosen. A correction that does not lower the loss that is minimized is left out.
///
/// # Errors
/// What the solvers fail with.
pub fn solve<T: Real>(
    weights: MatRef<'_, T>,
    prepared: &Prepared<T>,
    choice: &Choice,
    options: &SolverOptions,
) -> Result<Chosen, MethodError> {
    let mut solution = methods::solve(weights, prepared, Some(&choice.configuration), options)?;
    if choice.sweeps == 0 && choice.low_rank.is_none() {
        return Ok(Chosen { solution: solution.widened(), sweeps: 0, low_rank: None });
    }
    let start = choice.configuration.start;
    let mut sweeps = 0;
    if choice.sweeps > 0 {
        let target = prepared.target(weights, start)?;
        let limits = RefineLimits::sweeps(choice.sweeps);
        let format = options.row_format(prepared.columns());
        sweeps = methods::refine(&mut solution, target.as_ref(), prepared, format, limits)?.sweeps;
    }
    let solution = solution.widened();
    let Some(alternation) = choice.low_rank else { return Ok(Chosen { solution, sweeps, low_rank: None }) };
    // Factors are found by squares of singular values, which take twice the digits.
    let (weights, prepared) = (methods::widened(weights), prepared.widened());
    let target = prepared.target(weights.as_ref(), start)?;
    let problem = low_rank::Problem {
        weights: weights.as_ref(),
        target: target.as_ref(),
        prepared: &prepared,
        options,
        sweeps: choice.sweeps,
    };
    let (rest, low_rank) = match problem.alternate(alternation, |_, _, _| Ok(())) {
        // The matrix is solved without it.
        Err(cause) if cause.is_about_the_data() => return Ok(Chosen { solution, sweeps, low_rank: None }),
        other => other?,
    };
    Ok(match problem.loss(&rest, Some(&low_rank))? < problem.loss(&solution, None)? {
        true => Chosen { solution: rest, sweeps, low_rank: Some((low_rank, solution)) },
        false => Chosen { solution, sweeps, low_rank: None },
    })
}

/// Whether a window is held out: every 8th, or the last one of fewer.
pub fn is_held_out(window: usize, windows: usize) -> bool {
    let every = HELD_OUT_EVERY.min(windows);
    window % every == every - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{GroupSize, Method, prepare};
    use faer::Mat;

    /// Inputs of `tokens` tokens in both streams, `k x n`; the drift is `drift` times another linear map of the input.
    fn streams(seed: usize, tokens: usize, n: usize, drift: f32) -> (Vec<f32>, Vec<f32>) {
        let noise = |i: usize| (((i + seed * 7919) * 2_654_435_761) % 100_003) as f32 / 50_001.5 - 1.0;
        let quantized: Vec<f32> =
            (0..tokens * n).map(|i| noise(i) + if i % n > 0 { 0.7 * noise(i - 1) } else { 0.0 }).collect();
        let full = (0..tokens * n)
            .map(|i| quantized[i] + drift * quantized[i / n * n + (i * 5 + 3) % n] + 0.05 * noise(i + 77))
            .collect();
        (quantized, full)
    }

    fn moments(seed: usize, tokens: usize, n: usize, drift: f32) -> Moments {
        let (quantized, full) = streams(seed, tokens, n, drift);
        Moments::new(&quantized, &full, n)
    }

    struct Case {
        weights: Mat<f64>,
        training: Prepared<f64>,
        held_out: Moments,
        options: SolverOptions,
    }

    impl Case {
        fn new(bits: u8, training: &Moments, held_out: Moments) -> Case {
            let n = held_out.hessian.nrows();
            let options = SolverOptions::new(bits, GroupSize::elements(16).unwrap());
            let weights = Mat::from_fn(12, n, |i, j| (((i * n + j) * 7919) % 1009) as f64 / 504.5 - 1.0);
            let training =
                prepare(training.hessian.as_ref(), Some(training.drift.as_ref()), &options).unwrap();
            Case { weights, training, held_out, options }
        }

        fn choose(&self, tuning: Tuning) -> Choice {
            let configuration = Method::RescompExact.configuration(self.options.bits).unwrap();
            let mut selection =
                Selection::new(self.weights.as_ref(), &self.training, &self.held_out, &self.options).unwrap();
            for candidate in tuning.candidates(configuration) {
                selection.consider(candidate).unwrap();
            }
            selection.finish(tuning.refine, 0).unwrap().unwrap()
        }

        /// On the held-out tokens, relative.
        fn loss(&self, solution: &Solution<f64>) -> f64 {
            let Moments { hessian, drift } = &self.held_out;
            let zero = Mat::zeros(self.weights.nrows(), self.weights.ncols());
            solution.loss(self.weights.as_ref(), hessian.as_ref(), Some(drift.as_ref())).unwrap()
                / methods::asymmetric_loss(self.weights.as_ref(), zero.as_ref(), hessian.as_ref(), None)
                    .unwrap()
        }

        fn gptq(&self) -> f64 {
            let configuration = Method::Gptq.configuration(self.options.bits);
            self.loss(
                &methods::solve(self.weights.as_ref(), &self.training, configuration.as_ref(), &self.options)
                    .unwrap(),
            )
        }
    }

    #[test]
    fn on_the_held_out_tokens_the_choice_is_never_worse_than_gptq() {
        let mut strengths = Vec::new();
        for (seed, tokens, drift) in
            [(1, 40, 0.3), (2, 40, 0.0), (3, 400, 0.3), (4, 400, 0.02), (5, 33, 0.1), (6, 2000, 0.2)]
        {
            for bits in [2, 3] {
                let case =
                    Case::new(bits, &moments(seed, tokens, 32, drift), moments(seed + 50, 64, 32, drift));
                let choice = case.choose(Tuning::AUTO);
                let figures = choice.held_out.unwrap();
                assert!(figures.chosen <= figures.swept && figures.swept <= figures.first, "{figures:?}");
                assert!((figures.first - case.gptq()).abs() < 1e-12, "{figures:?} {}", case.gptq());
                // What is reported is what the choice gives on the training tokens; rows may stop between the numbers of sweeps
                // that were tried, so refinement in one go may go a trifle further.
                let solution = solve(case.weights.as_ref(), &case.training, &choice, &case.options).unwrap();
                assert!((case.loss(&solution.solution) - figures.chosen).abs() < 2e-3, "{figures:?}");
                strengths.push(choice.configuration.start);
            }
        }
        assert!(strengths.iter().any(|start| *start != strengths[0]), "{strengths:?}");
    }

    #[test]
    fn a_drift_that_does_not_last_is_not_corrected() {
        let case = Case::new(3, &moments(1, 400, 32, 0.3), moments(2, 400, 32, -0.3));
        assert_eq!(case.choose(Tuning::AUTO).configuration.start, Start::Unchanged);
        let case = Case::new(3, &moments(1, 2000, 32, 0.3), moments(2, 400, 32, 0.3));
        let choice = case.choose(Tuning::AUTO);
        assert_eq!(choice.configuration.start, Start::Exact { strength: 1.0, ridge: RIDGES[0] });
        assert!(choice.held_out.unwrap().chosen < 0.9 * choice.held_out.unwrap().first);
    }

    #[test]
    fn what_is_given_is_kept() {
        let case = Case::new(3, &moments(1, 400, 32, 0.3), moments(2, 400, 32, -0.3));
        let (strength, ridge) = (Setting::Fixed(0.75), Setting::Fixed(0.5));
        let choice = case.choose(Tuning { strength, ridge, refine: Setting::Fixed(3) });
        assert_eq!(choice.configuration.start, Start::Exact { strength: 0.75, ridge: 0.5 });
        assert_eq!(choice.sweeps, 3);
        let gptq = Method::Gptq.configuration(3).unwrap();
        assert!(!Tuning::PLAIN.chooses(&gptq));
        assert!(!Tuning { refine: Setting::Fixed(2), ..Tuning::AUTO }.chooses(&gptq));
        assert!(Tuning { strength: Setting::Fixed(1.0), ..Tuning::AUTO }.chooses(&gptq));
        let exact = Method::RescompExact.configuration(3).unwrap();
        assert!(!Tuning::PLAIN.chooses(&exact));
        let fallback = Tuning::AUTO.without_held_out(exact);
        assert_eq!(fallback, Choice { configuration: exact, sweeps: 0, low_rank: None, held_out: None });
    }

    #[test]
    fn some_windows_are_held_out_and_most_are_not() {
        let held_out = |windows| (0..windows).filter(|w| is_held_out(*w, windows)).collect::<Vec<_>>();
        assert_eq!(held_out(2), [1]);
        assert_eq!(held_out(5), [4]);
        assert_eq!(held_out(8), [7]);
        assert_eq!(held_out(15), [7]);
        assert_eq!(held_out(64), [7, 15, 23, 31, 39, 47, 55, 63]);
    }
}
