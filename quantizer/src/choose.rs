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
//! solve once more with the moments of all tokens
//! ```
//!
//! So on the held-out tokens, what is chosen is never worse than gptq (both solved on the training tokens).

use faer::{Mat, MatRef};
use serde::Serialize;

use crate::methods::{
    self, MethodError, Prepared, RefineLimits, Solution, SolverOptions, Start, SweepConfiguration,
};
use crate::moments::Moments;

/// One window of this many is held out.
pub const HELD_OUT_EVERY: usize = 8;
/// Strengths of the exact start that are tried, besides 0.
pub const STRENGTHS: [f64; 2] = [0.5, 1.0];
/// Ridges of the exact start that are tried, as a share of the Hessian's mean diagonal.
pub const RIDGES: [f64; 3] = [0.1, 1.0, 10.0];
/// Numbers of refinement sweeps that are tried.
pub const SWEEPS: [usize; 5] = [0, 1, 2, 4, 8];
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
        Choice { configuration, sweeps: given(self.refine, 0), held_out: None }
    }

    /// Pairs of strength and ridge to try, by ridge; gptq first.
    fn candidates(&self, configuration: SweepConfiguration) -> Vec<SweepConfiguration> {
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
    /// Losses on the held-out tokens; `None` where none were held out.
    pub held_out: Option<HeldOut>,
}

/// Asymmetric losses on the held-out tokens over `|| X W0^T ||^2`, of matrices that were solved on the training tokens; may be
/// negative (see [`methods::asymmetric_loss`]).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeldOut {
    /// Of the first candidate: gptq where the strength was chosen.
    pub first: f64,
    /// Of the chosen sweep before refinement.
    pub swept: f64,
    /// Of what was chosen.
    pub chosen: f64,
}

/// Chooses for one matrix `weights` (m x n).
///
/// # Errors
/// What the solvers fail with.
pub fn choose(
    weights: MatRef<'_, f64>,
    training: &Prepared<f64>,
    held_out: &Moments,
    configuration: SweepConfiguration,
    tuning: &Tuning,
    options: &SolverOptions,
) -> Result<Choice, MethodError> {
    let loss = |solution: &Solution<f64>| {
        solution.loss(weights, held_out.hessian.as_ref(), Some(held_out.drift.as_ref()))
    };
    let scales = match options.static_groups {
        true => Some(methods::static_scales(weights, training, options)?),
        false => None,
    };
    let candidates = tuning.candidates(configuration);
    let mut best: Option<(f64, SweepConfiguration, Solution<f64>)> = None;
    let mut first = None;
    for candidate in candidates {
        let solution = methods::solve_with_scales(weights, training, &candidate, options, scales.as_deref())?;
        let loss = loss(&solution)?;
        first = first.or(Some(loss));
        if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
            best = Some((loss, candidate, solution));
        }
    }
    let Some((swept, configuration, mut solution)) = best else {
        return Ok(tuning.without_held_out(configuration));
    };
    let (mut chosen, mut sweeps) = (swept, 0);
    if tuning.refine == Setting::Auto || given(tuning.refine, 0) > 0 {
        let target = training.target(weights, configuration.start)?;
        let tried: Vec<usize> = match tuning.refine {
            Setting::Auto => SWEEPS.to_vec(),
            Setting::Fixed(sweeps) => vec![0, sweeps],
        };
        for pair in tried.windows(2) {
            let limits = RefineLimits::sweeps(pair[1] - pair[0]);
            let refined =
                methods::refine(&mut solution, target.as_ref(), training, options.scale_format, limits)?;
            let loss = loss(&solution)?;
            if loss < chosen || tuning.refine != Setting::Auto {
                (chosen, sweeps) = (loss, pair[1]);
            }
            if refined.loss_after >= refined.loss_before {
                break;
            }
        }
    }
    let zero = Mat::zeros(weights.nrows(), weights.ncols());
    let power = methods::asymmetric_loss(weights, zero.as_ref(), held_out.hessian.as_ref(), None)?;
    let relative = |loss: f64| if power > 0.0 { loss / power } else { 0.0 };
    let held_out =
        HeldOut { first: relative(first.unwrap_or(swept)), swept: relative(swept), chosen: relative(chosen) };
    Ok(Choice { configuration, sweeps, held_out: Some(held_out) })
}

/// Solves and refines a matrix as chosen.
///
/// # Errors
/// What the solvers fail with.
pub fn solve(
    weights: MatRef<'_, f64>,
    prepared: &Prepared<f64>,
    choice: &Choice,
    options: &SolverOptions,
) -> Result<(Solution<f64>, usize), MethodError> {
    let mut solution = methods::solve(weights, prepared, Some(&choice.configuration), options)?;
    if choice.sweeps == 0 {
        return Ok((solution, 0));
    }
    let target = prepared.target(weights, choice.configuration.start)?;
    let limits = RefineLimits::sweeps(choice.sweeps);
    let refined = methods::refine(&mut solution, target.as_ref(), prepared, options.scale_format, limits)?;
    Ok((solution, refined.sweeps))
}

/// Whether a window is held out: every 8th, or the last one of fewer.
pub fn is_held_out(window: usize, windows: usize) -> bool {
    let every = HELD_OUT_EVERY.min(windows);
    window % every == every - 1
}
