//! Quantizing all blocks, one after another, with two activation streams.
//!
//! ```text
//! full, quantized = embeddings of the calibration tokens
//! for each block:
//!     run it on `full` with the original weights, keeping the input of each set of matrices
//!     run it on `quantized`; when a set's input arrives:
//!         H, D = moments of that input and the kept one         (the blocks and sets before it are quantized already)
//!         factor once a set; choose what is to be chosen on held-out windows (crate::choose); solve for each of its matrices;
//!         go on with the quantized values
//! ```
//! This is the published order (true sequential): query/key/value, output, gate/up, down. Nothing is run twice: the forward asks
//! for a set's products, and the answer is made from weights that were quantized a moment ago, for all tokens together.
//!
//! A set or a matrix that its method cannot solve is rounded to nearest, with a warning. Blocks that an earlier run finished come
//! from its journal (crate::journal): both streams run through them, and nothing is solved.

use crate::checkpoint::{Checkpoint, LayerWeights, Matrix};
use crate::choose::{self, Choice, Chosen, HeldOut, Selection, TOKENS_PER_INPUT};
use crate::dense::{DenseLayer, Streams, missing, multiply};
use crate::inputs::Inputs;
use crate::methods::{
    self, Alternation, FirstFactors, Loss, LowRank, Method, MethodError, Objective, Prepared, Solution,
    Start, corrected_values, low_rank,
};
use crate::moments::Moments;
use crate::plan::{BlockPlan, MatrixFormat, Solver, usable_rank};
use crate::vocabulary::VocabularyMatrix;
use faer::MatRef;
use rayon::prelude::*;
use rescomp_formats::section::SectionKind;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::{BlockWeights, LinearSet};
use serde::{Deserialize, Deserializer, Serialize};

mod error;
mod kept;
mod outside;
mod resumed;

pub use error::CalibrationError;
pub(crate) use kept::Kept;
pub use resumed::{Progress, Run};
use resumed::{RestoredLayer, restored};

/// A quantized matrix of a block and how well it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizedMatrix {
    /// Its kind.
    pub kind: SectionKind,
    /// Its bits and groups.
    pub format: MatrixFormat,
    /// Levels and scales.
    pub solution: Solution<f64>,
    /// The factors of its correction, where it has one.
    pub low_rank: Option<LowRank>,
    /// The report's line.
    pub report: MatrixReport,
}

impl QuantizedMatrix {
    /// The values that the model runs with, the correction's included.
    pub fn values(&self) -> Matrix {
        corrected(&self.solution, self.low_rank.as_ref())
    }

    /// Bits of codes and scales in a container, the factors' included.
    pub fn stored_bits(&self) -> u64 {
        let low_rank = self.low_rank.as_ref().map_or(0, LowRank::stored_bits);
        self.solution.stored_bits(self.format.bits) + low_rank
    }
}

/// A low-rank correction of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorrectionReport {
    /// Its rank.
    pub rank: usize,
    /// What the alternation began with.
    pub first: FirstFactors,
    /// Rounds of the alternation.
    pub rounds: usize,
    /// What [`MatrixReport::relative_error`] would be without it, with the same bits and groups.
    pub relative_error_without: f64,
    /// What [`MatrixReport::relative_asymmetric_error`] would be without it.
    pub relative_asymmetric_error_without: f64,
}

/// The name of a matrix's kind. (An alias: serde would take a plain `&'static str` for text that is borrowed from its input.)
type KindName = &'static str;

/// How well the quantization of a matrix went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixReport {
    /// The layer.
    pub layer: usize,
    /// Name of the matrix's kind.
    #[serde(deserialize_with = "known_kind")]
    pub kind: KindName,
    /// Its bits and groups.
    pub format: MatrixFormat,
    /// `|| X W0^T - X Q^T ||^2 / || X W0^T ||^2` on the calibration tokens of the quantized stream. Not a number (`null` in JSON)
    /// where the moments are beyond the range of numbers.
    pub relative_error: f64,
    /// `|| Xf W0^T - X Q^T ||^2 - || (Xf - X) W0^T ||^2` over `|| X W0^T ||^2`: what rescomp-exact minimizes, up to the part that no
    /// Q changes; may be negative.
    pub relative_asymmetric_error: f64,
    /// The damping that the factorization needed, as a share of the Hessian's mean diagonal.
    pub damping: f64,
    /// Inputs that were zero for every calibration token.
    pub dead_columns: usize,
    /// Strength of the exact start; `None` for methods without one.
    pub strength: Option<f64>,
    /// Ridge of the exact start, as a share of the Hessian's mean diagonal; `None` where the strength is 0.
    pub ridge: Option<f64>,
    /// Sweeps of refinement.
    pub refine_sweeps: usize,
    /// Its low-rank correction; `None` where none was asked for, or none helped.
    pub low_rank: Option<CorrectionReport>,
    /// Losses on the held-out tokens; `None` where nothing was chosen.
    pub held_out: Option<HeldOut>,
    /// Why the matrix was rounded to nearest instead of solved; `None` where it was solved as asked.
    pub rounded_because: Option<String>,
    /// What is doubtful about the calibration of this matrix.
    pub warnings: Vec<String>,
}

/// The kind of this name.
fn known_kind<'de, D: Deserializer<'de>>(input: D) -> Result<KindName, D::Error> {
    let name = String::deserialize(input)?;
    let known = SectionKind::ALL.into_iter().map(SectionKind::name).find(|known| *known == name);
    known.ok_or_else(|| serde::de::Error::custom(format!("no section is called `{name}`")))
}

/// Quantizes every block, calibrated on `inputs`. `finished` takes each block's matrices, in the order of the forward.
///
/// # Errors
/// [`CalibrationError`], or whatever `finished` fails with.
pub fn quantize_blocks<E: From<CalibrationError>>(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    inputs: Inputs<'_>,
    plan: &BlockPlan,
    run: &mut Run<'_>,
    mut finished: impl FnMut(usize, &LayerWeights, Vec<QuantizedMatrix>) -> Result<(), E>,
) -> Result<Vec<VocabularyMatrix>, E> {
    let original = match inputs {
        Inputs::Windows { .. } => checkpoint.embedding(),
        Inputs::Images(_) => checkpoint.patches(),
    }
    .map_err(CalibrationError::from)?;
    let mut full = Streams::of(machine, checkpoint, &original, inputs).map_err(CalibrationError::from)?;
    let beside = |entry: &Matrix| full.beside_of(entry, inputs).map_err(CalibrationError::from);
    let (mut vocabulary, mut quantized) = match &plan.vocabulary {
        None => (Vec::new(), beside(&original)?),
        Some(formats) => {
            let (made, values) = outside::entry(machine, checkpoint, &original, plan, formats, inputs, run)?;
            let quantized = beside(&values)?;
            (made, quantized)
        }
    };
    let layers = checkpoint.spec.layers as usize;
    if let Some(journal) = &mut run.journal {
        journal.begin().map_err(CalibrationError::from)?;
    }
    let mut kept_inputs = Kept::default();
    for layer in 0..layers {
        let weights = checkpoint.layer(layer).map_err(CalibrationError::from)?;
        let kept = restored(run, layer, &weights)?;
        let restored = kept.is_some();
        let dense = DenseLayer { weights: &weights, layer };
        let done = match kept {
            Some(matrices) => {
                let mut dense = dense;
                full.run_block(&mut dense).map_err(CalibrationError::from)?;
                quantized
                    .run_block(&mut RestoredLayer { weights: &weights, layer, matrices: &matrices })
                    .map_err(CalibrationError::from)?;
                for QuantizedMatrix { report, .. } in &matrices {
                    (run.progress)(Progress::Matrix { report, restored: true });
                }
                matrices
            }
            None => {
                let mut recorder = Recorder { dense, inputs: kept_inputs };
                full.run_block(&mut recorder).map_err(CalibrationError::from)?;
                let mut calibrator = Calibrator {
                    weights: &weights,
                    layer,
                    inputs: recorder.inputs,
                    windows: inputs.count(),
                    plan,
                    done: Vec::new(),
                    progress: run.progress,
                };
                quantized.run_block(&mut calibrator)?;
                let done = calibrator.done;
                kept_inputs = calibrator.inputs;
                if let Some(journal) = &mut run.journal {
                    journal.keep(layer, &done).map_err(CalibrationError::from)?;
                }
                done
            }
        };
        finished(layer, &weights, done)?;
        (run.progress)(Progress::Block { layer, restored });
    }
    let head = checkpoint.head().map_err(CalibrationError::from)?;
    if let (Some(head), Some(formats)) = (head, &plan.vocabulary) {
        (run.progress)(Progress::Phase("head"));
        let gain = checkpoint.final_norm().map_err(CalibrationError::from)?;
        let states = [&quantized, &full].map(|streams| streams.head_inputs(&gain));
        vocabulary.push(outside::linear(
            SectionKind::Head,
            &head,
            plan,
            formats.head,
            &states,
            inputs.count(),
        )?);
    }
    Ok(vocabulary)
}

/// A full-precision block that keeps the input of each set.
pub(crate) struct Recorder<'a> {
    pub(crate) dense: DenseLayer<'a>,
    pub(crate) inputs: Kept,
}

impl BlockWeights for Recorder<'_> {
    type Error = RuntimeError;

    fn vector(&self, kind: SectionKind) -> Result<&[f32], RuntimeError> {
        self.dense.vector(kind)
    }

    fn apply(
        &mut self,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), RuntimeError> {
        let finite = self.inputs.keep(set, input);
        expect_finite(finite, self.dense.layer, set)?;
        self.dense.apply(set, tokens, input, outputs)
    }
}

/// Refuses infinities and NaNs in the input of a set: no quantization of broken activations is worth anything.
pub(crate) fn check_finite(layer: usize, set: LinearSet, input: &[f32]) -> Result<(), RuntimeError> {
    expect_finite(input.par_chunks(kept::PART).all(kept::all_finite), layer, set)
}

fn expect_finite(finite: bool, layer: usize, set: LinearSet) -> Result<(), RuntimeError> {
    match finite {
        true => Ok(()),
        false => Err(RuntimeError::NotFinite { layer: Some(layer as u32), set: Some(set) }),
    }
}

/// The values that the quantized stream goes on with, of a matrix without a correction.
pub(crate) fn dequantized(solution: &Solution<f64>) -> Matrix {
    corrected(solution, None)
}

/// The values that the quantized stream goes on with.
fn corrected(solution: &Solution<f64>, low_rank: Option<&LowRank>) -> Matrix {
    let data = corrected_values(solution, low_rank).into_iter().map(|value| value as f32).collect();
    Matrix { rows: solution.rows, cols: solution.columns, data }
}

/// A block that quantizes each set when its input arrives, and answers with the quantized values.
struct Calibrator<'a> {
    weights: &'a LayerWeights,
    layer: usize,
    inputs: Kept,
    windows: usize,
    plan: &'a BlockPlan,
    done: Vec<QuantizedMatrix>,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl BlockWeights for Calibrator<'_> {
    type Error = CalibrationError;

    fn vector(&self, kind: SectionKind) -> Result<&[f32], CalibrationError> {
        Ok(self.weights.vector(kind).ok_or_else(|| missing(kind, self.layer))?)
    }

    fn apply(
        &mut self,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), CalibrationError> {
        let layer = self.layer;
        check_finite(layer, set, input)?;
        (self.progress)(Progress::Set { layer, set });
        let failed = |kind| move |cause| CalibrationError::Method { layer, kind, cause };
        let full = self.inputs.take(set).ok_or(CalibrationError::Unmatched { layer, set: set.name() })?;
        let calibration = Calibration::new(self.plan, input, &full, input.len() / tokens, self.windows)
            .map_err(failed(set.name()))?;
        self.inputs.give_back(full);
        let mut matrices = Vec::new();
        for &kind in set.kinds() {
            let original = self.weights.matrix(kind).ok_or_else(|| missing(kind, layer))?;
            matrices.push((kind, original.view(), self.plan.solver(layer, kind)));
        }
        let problem = |at: usize| (matrices[at].1, &matrices[at].2);
        let choices = calibration
            .choose((0..matrices.len()).map(problem), self.plan)
            .map_err(|(at, cause)| failed(matrices[at].0.name())(cause))?;
        if let Some(prepared) = &calibration.prepared {
            prepared.prepare_starts(choices.iter().flatten().map(|choice| choice.configuration.start));
        }
        for (((kind, weights, solver), choice), output) in matrices.iter().zip(choices).zip(outputs) {
            let (kind, weights) = (*kind, *weights);
            let solved = calibration.solve(weights, &choice, solver).map_err(failed(kind.name()))?;
            let report =
                calibration.report(layer, kind, weights, &solved, self.plan).map_err(failed(kind.name()))?;
            (self.progress)(Progress::Matrix { report: &report, restored: false });
            let (format, Solved { solution, low_rank, .. }) = (report.format, solved);
            let low_rank = low_rank.map(|(low_rank, _)| low_rank);
            let matrix = QuantizedMatrix { kind, format, solution, low_rank, report };
            multiply(&matrix.values(), input, output);
            self.done.push(matrix);
        }
        Ok(())
    }
}

/// `loss / power`; 0 for a matrix whose products are all 0, on which there is nothing to lose.
pub(crate) fn share(loss: f64, power: f64) -> f64 {
    if power == 0.0 { 0.0 } else { loss / power }
}

/// What the tokens say about a set's input.
pub(crate) struct Calibration {
    /// Of all tokens.
    pub(crate) moments: Moments,
    /// The factors of `moments`, made in f64 and used in f32, as weights are; `None` for round-to-nearest, and where they could not be factored.
    prepared: Option<Prepared<f32>>,
    /// The factors of the training tokens and the moments of the held-out ones, where there is something to choose.
    split: Option<(Prepared<f32>, Moments)>,
    /// Why `moments` could not be factored.
    unsolvable: Option<MethodError>,
    /// Why the training tokens could not be.
    unchoosable: Option<MethodError>,
    pub(crate) warnings: Vec<String>,
}

/// A matrix as it was quantized in the end.
pub(crate) struct Solved {
    pub(crate) solution: Solution<f64>,
    /// The correction, and the solution without it; `None` where there is none.
    pub(crate) low_rank: Option<(LowRank, Solution<f64>)>,
    /// What was solved; `None` where the matrix was rounded.
    pub(crate) choice: Option<Choice>,
    pub(crate) refine_sweeps: usize,
    /// Why it was rounded though it was to be solved.
    pub(crate) rounded_because: Option<MethodError>,
}

impl Calibration {
    /// From a set's input in both streams, `k x n` each: `windows` windows of the same length, one after the other.
    pub(crate) fn new(
        plan: &BlockPlan,
        input: &[f32],
        full: &[f32],
        n: usize,
        windows: usize,
    ) -> Result<Calibration, MethodError> {
        let tokens = input.len() / n;
        let mut warnings = Vec::new();
        let Some(configuration) = plan.configuration(plan.options.bits) else {
            let moments = Moments::new(input, full, n);
            return Ok(Calibration {
                moments,
                prepared: None,
                split: None,
                unsolvable: None,
                unchoosable: None,
                warnings,
            });
        };
        let needed = TOKENS_PER_INPUT * n;
        if tokens < needed {
            warnings
                .push(format!("{tokens} calibration tokens for {n} inputs: at least {needed} are needed"));
        }
        let prepare = |moments: &Moments| {
            let [hessian, drift] = moments.matrices();
            match methods::prepare(hessian.as_ref(), Some(drift.as_ref()), &plan.options) {
                Err(cause) if cause.is_about_the_data() => Ok(Err(cause)),
                other => other.map(Ok),
            }
        };
        let whole = |moments: Moments, prepared: Result<_, MethodError>, split, unchoosable, warnings| {
            let (prepared, unsolvable) = match prepared? {
                Ok(prepared) => (Some(prepared), None),
                Err(cause) => (None, Some(cause)),
            };
            Ok(Calibration { moments, prepared, split, unsolvable, unchoosable, warnings })
        };
        let chooses = plan.tuning.chooses(&configuration);
        if chooses && windows < 2 {
            warnings.push(format!(
                "{windows} calibration window: at least 2 are needed to choose on held-out tokens; strength 1, ridge 1 and no \
                 refinement are used where none are given"
            ));
        }
        if !chooses || windows < 2 {
            let moments = Moments::new(input, full, n);
            let prepared = prepare(&moments);
            return whole(moments, prepared, None, None, warnings);
        }
        let elems = input.len() / windows;
        let part = |held_out: bool| {
            let taken: Vec<usize> =
                (0..windows).filter(|window| choose::is_held_out(*window, windows) == held_out).collect();
            let runs = taken.chunk_by(|window, next| window + 1 == *next);
            let parts = runs.map(|run| {
                let range = run[0] * elems..(run[0] + run.len()) * elems;
                (&input[range.clone()], &full[range])
            });
            (Moments::of_parts(parts, n), taken.len() * elems / n)
        };
        let ((training, training_tokens), (held_out, held_out_tokens)) = (part(false), part(true));
        let moments = training.merged(training_tokens, &held_out, held_out_tokens);
        let (of_training, prepared) = rayon::join(|| prepare(&training), || prepare(&moments));
        match of_training? {
            Ok(training) => whole(moments, prepared, Some((training, held_out)), None, warnings),
            Err(cause) => whole(moments, prepared, None, Some(cause), warnings),
        }
    }

    /// How each matrix of the set is to be quantized; `None` for round-to-nearest. An error comes with the matrix's index.
    pub(crate) fn choose<'w>(
        &self,
        problems: impl Iterator<Item = (MatRef<'w, f32>, &'w Solver)>,
        plan: &BlockPlan,
    ) -> Result<Vec<Option<Choice>>, (usize, MethodError)> {
        let problems: Vec<_> = problems.collect();
        let at = |index| move |cause| (index, cause);
        for (index, (_, solver)) in problems.iter().enumerate().filter(|(_, (_, solver))| solver.rank > 0) {
            low_rank::check_configuration(solver.configuration.as_ref()).map_err(at(index))?;
        }
        let rank = |index: usize| {
            let (weights, solver) = problems[index];
            usable_rank(solver.rank, weights.nrows(), weights.ncols())
        };
        let fixed = |index: usize| {
            let choice = plan.tuning.without_held_out(problems[index].1.configuration?);
            let (rank, first, rounds) = (rank(index), FirstFactors::Zero, low_rank::ROUNDS);
            Some(Choice { low_rank: (rank > 0).then_some(Alternation { rank, first, rounds }), ..choice })
        };
        let Some((training, held_out)) = &self.split else {
            return Ok((0..problems.len()).map(fixed).collect());
        };
        let mut selections = Vec::new();
        for (index, (weights, solver)) in problems.iter().enumerate() {
            let selection =
                Selection::new(*weights, training, held_out, &solver.options).map_err(at(index))?;
            let candidates = solver.configuration.map(|configuration| plan.tuning.candidates(configuration));
            selections.push((selection, candidates.unwrap_or_default()));
        }
        let candidates = selections.iter().flat_map(|(_, candidates)| candidates);
        training.prepare_starts(candidates.map(|candidate| candidate.start));
        // By candidate, not by matrix: where few factors are kept, those of a ridge are shared.
        let most = selections.iter().map(|(_, candidates)| candidates.len()).max().unwrap_or(0);
        for candidate in 0..most {
            for (index, (selection, candidates)) in selections.iter_mut().enumerate() {
                if let Some(candidate) = candidates.get(candidate) {
                    selection.consider(*candidate).map_err(at(index))?;
                }
            }
        }
        let finish = |(index, (selection, _)): (usize, (Selection<'_, f32>, _))| {
            let choice = selection.finish(plan.tuning.refine, rank(index)).map_err(at(index))?;
            Ok(choice.or(fixed(index)))
        };
        selections.into_iter().enumerate().map(finish).collect()
    }

    /// The solution on all tokens; rounded to nearest where the method has none.
    pub(crate) fn solve(
        &self,
        weights: MatRef<'_, f32>,
        choice: &Option<Choice>,
        solver: &Solver,
    ) -> Result<Solved, MethodError> {
        let mut rounded_because = self.unsolvable.clone();
        if let (Some(prepared), Some(choice)) = (&self.prepared, choice) {
            match choose::solve(weights, prepared, choice, &solver.options) {
                Err(cause) if cause.is_about_the_data() => rounded_because = Some(cause),
                other => {
                    let Chosen { solution, sweeps: refine_sweeps, low_rank } = other?;
                    let choice = Some(*choice);
                    return Ok(Solved { solution, low_rank, choice, refine_sweeps, rounded_because: None });
                }
            }
        }
        let solution = methods::rtn::round_to_nearest(weights, &solver.options)?.widened();
        Ok(Solved { solution, low_rank: None, choice: None, refine_sweeps: 0, rounded_because })
    }

    /// How well it went.
    fn report(
        &self,
        layer: usize,
        kind: SectionKind,
        weights: MatRef<'_, f32>,
        solved: &Solved,
        plan: &BlockPlan,
    ) -> Result<MatrixReport, MethodError> {
        let (hessian, drift) = (self.moments.hessian.as_ref(), self.moments.drift.as_ref());
        let factors = solved.low_rank.as_ref().map(|(low_rank, _)| low_rank);
        let nothing = Loss { symmetric: f64::NAN, drift: f64::NAN };
        let weights = methods::widened(weights);
        let (power, loss, without) = match Objective::new(weights.as_ref(), hessian, Some(drift)) {
            // Moments beyond the range of numbers measure nothing; the weights are finite.
            Err(MethodError::NotFinite { .. }) => (f64::NAN, nothing, None),
            other => {
                let objective = other?;
                let values = corrected_values(&solved.solution, factors);
                let values = MatRef::from_row_major_slice(&values, weights.nrows(), weights.ncols());
                let without =
                    solved.low_rank.as_ref().map(|(_, without)| objective.of(without)).transpose()?;
                (objective.power(), objective.of_values(values)?, without)
            }
        };
        let alternation = solved.choice.and_then(|choice| choice.low_rank);
        let low_rank = factors.zip(alternation).map(|(factors, Alternation { first, rounds, .. })| {
            let (rank, without) = (factors.rank(), without.unwrap_or(nothing));
            CorrectionReport {
                rank,
                first,
                rounds,
                relative_error_without: share(without.symmetric, power),
                relative_asymmetric_error_without: share(without.total(), power),
            }
        });
        let start = solved.choice.map(|choice| choice.configuration.start);
        let prepared = solved.choice.and(self.prepared.as_ref());
        let mut warnings = self.warnings.clone();
        let unchosen = match (&self.unchoosable, &self.split) {
            (Some(cause), _) => Some(cause.to_string()),
            (None, Some(_)) => Some("no candidate has a solution".to_owned()),
            (None, None) => None,
        };
        if let Some(cause) =
            unchosen.filter(|_| solved.choice.is_some_and(|choice| choice.held_out.is_none()))
        {
            warnings.push(format!(
                "layer {layer} {}: strength 1, ridge 1 and no refinement where none are given, because without the held-out tokens \
                 {cause}",
                kind.name()
            ));
        }
        if let Some(cause) = &solved.rounded_because {
            warnings.push(format!("layer {layer} {}: rounded to nearest, because {cause}", kind.name()));
        }
        Ok(MatrixReport {
            layer,
            kind: kind.name(),
            format: plan.format(layer, kind),
            relative_error: share(loss.symmetric, power),
            relative_asymmetric_error: share(loss.total(), power),
            damping: prepared.map_or(0.0, Prepared::damping),
            dead_columns: prepared.map_or(0, |prepared| prepared.dead_columns().len()),
            strength: match (start, plan.method) {
                (Some(Start::Exact { strength, .. }), _) => Some(strength),
                (Some(Start::Unchanged), Method::RescompExact) => Some(0.0),
                _ => None,
            },
            ridge: match start {
                Some(Start::Exact { ridge, .. }) => Some(solved.solution.ridge.unwrap_or(ridge)),
                _ => None,
            },
            refine_sweeps: solved.refine_sweeps,
            low_rank,
            held_out: solved.choice.and_then(|choice| choice.held_out),
            rounded_because: solved.rounded_because.as_ref().map(ToString::to_string),
            warnings,
        })
    }
}

#[cfg(test)]
mod fallback_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{GroupSize, SolverOptions};
    use rescomp_runtime::kernels;
    use rescomp_runtime::threads::ThreadPool;
    use std::path::Path;

    /// Quantizes the embedded model on two short windows of arbitrary tokens.
    fn quantize(method: Method, bits: u8, threads: usize) -> Vec<QuantizedMatrix> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let windows: Vec<Vec<u32>> =
            (0..2).map(|w| (0..100).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect()).collect();
        let plan = BlockPlan::new(method, SolverOptions::new(bits, GroupSize::elements(64).unwrap()));
        let executor = ThreadPool::new(threads).unwrap();
        let machine = Machine { kernels: kernels::best(), executor: &executor };
        let (mut all, mut reported) = (Vec::new(), 0);
        let mut each =
            |progress: Progress<'_>| reported += usize::from(matches!(progress, Progress::Matrix { .. }));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut run = Run { journal: None, progress: &mut each };
            let inputs = Inputs::Windows { windows: &windows, positions: 100 };
            quantize_blocks(machine, &checkpoint, inputs, &plan, &mut run, |layer, _, done| {
                assert!(done.iter().all(|matrix| matrix.report.layer == layer));
                all.extend(done);
                Ok::<(), CalibrationError>(())
            })
        })
        .unwrap();
        assert_eq!((all.len(), reported), (7 * 6, 7 * 6));
        all
    }

    #[test]
    fn the_streams_part_after_the_first_set() {
        let matrices = quantize(Method::RescompExact, 4, 2);
        let reports: Vec<&MatrixReport> = matrices.iter().map(|matrix| &matrix.report).collect();
        for (index, report) in reports.iter().enumerate() {
            // Query, key and value of the first block see the embeddings in both streams: no drift, one and the same loss.
            let same = report.relative_error == report.relative_asymmetric_error;
            assert_eq!(same, index < 3, "{report:?}");
        }
        assert_eq!(
            reports[..3].iter().map(|report| report.kind).collect::<Vec<_>>(),
            ["query", "key", "value"]
        );
    }

    #[test]
    fn eight_bits_lose_next_to_nothing() {
        // A step is at most max|w| / 127, and rounding has 1/12 of its square: where the largest weight of a group is 5 times
        // the root mean square, 25 / 12 / 127^2 = 1.3e-4 of the weights' power. The moments are not white, so which inputs the
        // errors meet may count several times over: four times here.
        for method in [Method::Rtn, Method::Gptq] {
            for matrix in quantize(method, 8, 2) {
                let report = matrix.report;
                assert!(
                    report.relative_error > 0.0 && report.relative_error < 4.0 * 1.3e-4,
                    "{method} {report:?}"
                );
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let (one, two) = (quantize(Method::Rescomp, 4, 1), quantize(Method::Rescomp, 4, 2));
        for (one, two) in one.iter().zip(&two) {
            assert_eq!((one.kind, &one.solution), (two.kind, &two.solution), "{:?}", one.report);
            assert_eq!(one.report.relative_error, two.report.relative_error);
        }
    }

    #[test]
    fn a_set_without_its_other_stream_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
        let weights = Checkpoint::open(&folder).unwrap().layer(3).unwrap();
        let options = SolverOptions::new(4, GroupSize::Row);
        let plan = BlockPlan::new(Method::Rtn, options);
        let mut progress = |_: Progress<'_>| ();
        let mut calibrator = Calibrator {
            weights: &weights,
            layer: 3,
            inputs: Kept::default(),
            windows: 1,
            plan: &plan,
            done: Vec::new(),
            progress: &mut progress,
        };
        let mut output = [0.0; 128];
        let error = calibrator.apply(LinearSet::Output, 1, &[0.5; 128], &mut [&mut output]).unwrap_err();
        assert!(matches!(error, CalibrationError::Unmatched { layer: 3, .. }), "{error}");
    }
}

#[cfg(test)]
mod choosing_tests {
    use super::*;
    use crate::choose::{Setting, Tuning};
    use crate::methods::{GroupSize, SolverOptions};
    use faer::Mat;

    const N: usize = 16;

    fn plan(method: Method) -> BlockPlan {
        BlockPlan::new(method, SolverOptions::new(3, GroupSize::elements(8).unwrap()))
    }

    fn calibration(plan: &BlockPlan, tokens: usize, windows: usize) -> Calibration {
        let noise = |i: usize| ((i * 2_654_435_761) % 100_003) as f32 / 50_001.5 - 1.0;
        let input: Vec<f32> = (0..tokens * N).map(noise).collect();
        let full: Vec<f32> = (0..tokens * N).map(|i| 1.2 * noise(i) + 0.1 * noise(i + 7)).collect();
        Calibration::new(plan, &input, &full, N, windows).unwrap()
    }

    #[test]
    fn one_window_is_not_split_and_says_so() {
        let plan = plan(Method::RescompExact);
        let single = calibration(&plan, 200, 1);
        assert!(single.split.is_none());
        assert!(matches!(&single.warnings[..], [warning] if warning.starts_with("1 calibration window")));
        let weights = Mat::from_fn(4, N, |i, j| ((i * N + j) as f32).sin());
        let solver = plan.solver(0, SectionKind::Query);
        let choices = single.choose([(weights.as_ref(), &solver)].into_iter(), &plan).unwrap();
        let [Some(choice)] = choices[..] else { panic!("{choices:?}") };
        assert_eq!(choice.configuration.start, Start::Exact { strength: 1.0, ridge: 1.0 });
        assert_eq!((choice.sweeps, choice.held_out), (0, None));

        let several = calibration(&plan, 200, 4);
        assert!(several.warnings.is_empty());
        let (_, held_out) = several.split.as_ref().unwrap();
        // The last 50 tokens.
        let expected = {
            let noise = |i: usize| ((i * 2_654_435_761) % 100_003) as f32 / 50_001.5 - 1.0;
            let input: Vec<f32> = (150 * N..200 * N).map(noise).collect();
            Moments::new(&input, &input, N).hessian
        };
        assert_eq!(held_out.hessian, expected);
        let choices = several.choose([(weights.as_ref(), &solver); 2].into_iter(), &plan).unwrap();
        assert_eq!(choices[0], choices[1]);
        let figures = choices[0].unwrap().held_out.unwrap();
        assert!(figures.chosen <= figures.first);
    }

    #[test]
    fn too_few_tokens_are_reported_with_the_number_needed() {
        let few = calibration(&plan(Method::Gptq), 127, 1);
        assert_eq!(few.warnings, ["127 calibration tokens for 16 inputs: at least 128 are needed"]);
        assert!(calibration(&plan(Method::Gptq), 128, 1).warnings.is_empty());
        assert!(calibration(&plan(Method::Rtn), 1, 1).warnings.is_empty());
    }

    #[test]
    fn nothing_is_held_out_where_nothing_is_chosen() {
        let fixed = BlockPlan { tuning: Tuning::PLAIN, ..plan(Method::RescompExact) };
        assert!(calibration(&fixed, 256, 8).split.is_none());
        assert!(calibration(&plan(Method::Rescomp), 256, 8).split.is_none());
        let mut refined = plan(Method::Gptq);
        refined.tuning.refine = Setting::Auto;
        assert!(calibration(&refined, 256, 8).split.is_some());
    }
}
