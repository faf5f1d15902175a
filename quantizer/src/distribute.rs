//! Distributing bytes over the matrices of a model: estimates, corrected by trials.
//!
//! ```text
//! estimates: the loss of every matrix in every format, by itself (crate::sensitivity); chosen = the best that fits (crate::allocate)
//! KL = trial quantization of the whole model with what was chosen (crate::trial)
//! for each kind of matrix:
//!     move all of its matrices to the next smaller width; factor = what a trial's KL changes / what the estimates say
//! scale the estimates by the factors, and by their roots; choose again
//! where formats with low-rank corrections were chosen: the same three choices among those without
//! keep the choice with the least KL in a trial
//! ```
//! A matrix by itself, in a full-precision model, is not what it is among others that are quantized, too: errors meet, and later matrices
//! correct for some of them. By how much the estimates are off differs between kinds (docs/methods.md has figures), and layers of a kind
//! have the same part in the model, so there is one factor for each kind: a trial for each matrix would take far longer than packing.

use crate::allocate::{Candidate, TooSmall, allocate};
use crate::plan::{BlockPlan, MatrixFormat, Vocabulary};
use crate::sensitivity::{Sensitivity, SensitivityError};
use crate::trial::Trials;
use rescomp_formats::section::SectionKind;
use std::collections::BTreeMap;

/// A factor is a quotient of small differences: beyond these bounds it is taken for noise.
const FACTORS: (f64, f64) = (0.25, 4.0);

/// A distribution.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// The index of each matrix's format.
    pub chosen: Vec<usize>,
    /// Mean KL divergence in trials: with the formats that the estimates chose, and with these.
    pub trial_kl: (f64, f64),
    /// How many times as much as estimated the matrices of a kind cost in trials.
    pub factors: BTreeMap<&'static str, f64>,
}

/// Why there is no distribution.
#[derive(Debug, thiserror::Error)]
pub enum DistributeError {
    /// A trial failed.
    #[error(transparent)]
    Trial(#[from] SensitivityError),
    /// The bytes are too few.
    #[error(transparent)]
    TooSmall(#[from] TooSmall),
}

/// What [`allocate`] chooses by the estimates alone.
///
/// # Errors
/// [`TooSmall`].
pub fn by_estimates(measured: &[Sensitivity], budget_bytes: u64) -> Result<Vec<usize>, TooSmall> {
    let candidates: Vec<Vec<Candidate>> =
        measured.iter().map(|matrix| candidates(matrix).collect()).collect();
    allocate(&candidates, budget_bytes)
}

fn candidates(matrix: &Sensitivity) -> impl Iterator<Item = Candidate> + '_ {
    matrix.formats.iter().map(|(_, candidate)| *candidate)
}

/// The plan with the chosen formats.
pub fn planned(plan: &BlockPlan, measured: &[Sensitivity], chosen: &[usize]) -> BlockPlan {
    let mut plan = plan.clone();
    let default = MatrixFormat::plain(plan.options.bits, plan.options.group);
    let mut vocabulary = plan.vocabulary.take().unwrap_or_else(|| Vocabulary::same(default));
    for (matrix, &at) in measured.iter().zip(chosen) {
        let format = matrix.formats[at].0;
        match (matrix.name.kind, matrix.name.layer) {
            (SectionKind::Embedding, band) => {
                if let Some(place) = vocabulary.embedding.get_mut(usize::from(band.unwrap_or(0))) {
                    *place = format;
                }
            }
            (SectionKind::Head, _) => vocabulary.head = format,
            (kind, layer) => {
                plan.formats.insert((usize::from(layer.unwrap_or(0)), kind.name()), format);
            }
        }
    }
    plan.vocabulary = Some(vocabulary);
    plan
}

/// How often [`distribute`] calls `progress`, at most.
pub fn steps(measured: &[Sensitivity]) -> usize {
    let corrects = measured.iter().flat_map(|matrix| &matrix.formats).any(|(format, _)| format.rank > 0);
    3 + kinds(measured).len() + if corrects { 3 } else { 0 }
}

/// Distributes at most `budget_bytes`. `progress` hears of each trial. Results depend on nothing but the arguments.
///
/// # Errors
/// [`DistributeError`].
pub fn distribute(
    trials: &Trials<'_>,
    plan: &BlockPlan,
    measured: &[Sensitivity],
    budget_bytes: u64,
    progress: &mut dyn FnMut(&str),
) -> Result<Distribution, DistributeError> {
    let mut trial = |chosen: &[usize], name: &str| {
        progress(name);
        trials.mean_kl(&planned(plan, measured, chosen))
    };
    let first = by_estimates(measured, budget_bytes)?;
    let first_kl = trial(&first, "as estimated")?;
    let mut factors = BTreeMap::new();
    for kind in kinds(measured) {
        let fewer = moved(measured, &first, kind, false);
        // Where all have the fewest bits already: more.
        let moved = if fewer == first { moved(measured, &first, kind, true) } else { fewer };
        let estimate = estimated(measured, &moved) - estimated(measured, &first);
        let factor = match estimate == 0.0 {
            true => 1.0,
            false => (trial(&moved, kind.name())? - first_kl) / estimate,
        };
        // A trial whose logits leave the range of numbers says nothing about the estimates.
        let factor = if factor.is_nan() { 1.0 } else { factor.clamp(FACTORS.0, FACTORS.1) };
        factors.insert(kind.name(), factor);
    }
    let (mut best, mut best_kl) = (first.clone(), first_kl);
    let powers = [("corrected", 1.0), ("half corrected", 0.5)];
    let mut choices = Vec::new();
    for (name, power) in powers {
        choices.push((name, by_factors(measured, &factors, power, false, budget_bytes)?));
    }
    let corrects =
        |chosen: &[usize]| measured.iter().zip(chosen).any(|(matrix, &at)| matrix.formats[at].0.rank > 0);
    if corrects(&first) || choices.iter().any(|(_, chosen)| corrects(chosen)) {
        // A correction has to beat plain bits in a trial: estimates flatter it (crate::sensitivity).
        for (name, power) in
            [("plain, as estimated", 0.0), ("plain, corrected", 1.0), ("plain, half corrected", 0.5)]
        {
            choices.push((name, by_factors(measured, &factors, power, true, budget_bytes)?));
        }
    }
    for (name, chosen) in choices {
        let kl = trial(&chosen, name)?;
        // Where it is the same, the one without corrections.
        if kl < best_kl || (kl == best_kl && corrects(&best) && !corrects(&chosen)) {
            (best, best_kl) = (chosen, kl);
        }
    }
    Ok(Distribution { chosen: best, trial_kl: (first_kl, best_kl), factors })
}

/// The best choice by the estimates times powers of the factors of kinds; of `plain` formats alone, or of all.
fn by_factors(
    measured: &[Sensitivity],
    factors: &BTreeMap<&'static str, f64>,
    power: f64,
    plain: bool,
    budget_bytes: u64,
) -> Result<Vec<usize>, TooSmall> {
    let usable = |matrix: &Sensitivity| -> Vec<usize> {
        let all = 0..matrix.formats.len();
        all.filter(|&at| !plain || matrix.formats[at].0.rank == 0).collect()
    };
    let scaled = |matrix: &Sensitivity| -> Vec<Candidate> {
        let factor = factors[matrix.name.kind.name()].powf(power);
        let scaled = |at: usize| {
            let candidate = matrix.formats[at].1;
            Candidate { loss: factor * candidate.loss, ..candidate }
        };
        usable(matrix).into_iter().map(scaled).collect()
    };
    let chosen = allocate(&measured.iter().map(scaled).collect::<Vec<_>>(), budget_bytes)?;
    Ok(measured.iter().zip(chosen).map(|(matrix, at)| usable(matrix)[at]).collect())
}

fn estimated(measured: &[Sensitivity], chosen: &[usize]) -> f64 {
    measured.iter().zip(chosen).map(|(matrix, &at)| matrix.formats[at].1.loss).sum()
}

/// The kinds of matrices that there are, in the order of the container.
fn kinds(measured: &[Sensitivity]) -> Vec<SectionKind> {
    let mut kinds: Vec<SectionKind> = Vec::new();
    for matrix in measured {
        if !kinds.contains(&matrix.name.kind) {
            kinds.push(matrix.name.kind);
        }
    }
    kinds
}

/// All matrices of a kind at the next width, in groups of the same size where there are such.
fn moved(measured: &[Sensitivity], chosen: &[usize], kind: SectionKind, more_bits: bool) -> Vec<usize> {
    let next = |(matrix, &at): (&Sensitivity, &usize)| {
        let now = matrix.formats[at].0;
        let away = |format: MatrixFormat| match more_bits {
            true => format.bits.checked_sub(now.bits).filter(|bits| *bits > 0),
            false => now.bits.checked_sub(format.bits).filter(|bits| *bits > 0),
        };
        let others = matrix.formats.iter().enumerate();
        let nearest = others
            .filter_map(|(index, (format, _))| {
                Some((away(*format)?, (format.group, format.rank) != (now.group, now.rank), index))
            })
            .min();
        match nearest {
            Some((_, _, index)) if matrix.name.kind == kind => index,
            _ => at,
        }
    };
    measured.iter().zip(chosen).map(next).collect()
}

#[cfg(test)]
mod tests;
