//! How much the model loses by each matrix in each format, estimated for distributing bits ([`crate::distribute`]).
//!
//! ```text
//! run the full-precision model over a few calibration windows, keeping the stream before every block and each set's H
//! for each matrix t:
//!     in every format f: solve some rows by themselves, refined; e(t, f) = their relative error on the matrix's own inputs
//!     quantize it alone, in one format r, and run the rest of the model: d(t) = mean KL from the full-precision model
//!     loss(t, f) = d(t) e(t, f) / e(t, r)
//! ```
//! Small errors change the logits in proportion, so the divergence grows with their square, as e does: one run of the model a
//! matrix says what its errors cost, and solving says how large they are. What is left out is that later matrices correct for
//! the errors of earlier ones, and that errors meet: trials of the whole model say how much that is ([`crate::trial`]).

use crate::allocate::Candidate;
use crate::calibrate::{CalibrationError, check_finite, dequantized};
use crate::checkpoint::{Checkpoint, CheckpointError, Matrix};
use crate::choose::Setting;
use crate::dense::{DenseError, DenseLayer, Streams};
use crate::encode::{self, EncodeError};
use crate::methods::{self, Method, MethodError, Prepared, RefineLimits, Solution, Start};
use crate::moments::Moments;
use crate::plan::{BlockPlan, MatrixFormat};
use crate::vocabulary;
use faer::{Mat, MatRef};
use rayon::prelude::*;
use rescomp_formats::layouts::Layout;
use rescomp_formats::section::{SECTION_ALIGNMENT_BYTES, SectionKind, SectionName};
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::{BlockWeights, LinearSet};
use std::collections::BTreeMap;

mod corrections;
pub(crate) mod divergence;
use corrections::Kept;
use divergence::{Hidden, mean_kl, run};

/// The format in which a matrix is tried in the model.
const TRIED_BITS: u8 = 3;
/// Rows of a matrix that are solved in every format. Rows are solved independently of each other, so these say how large the errors
/// of all are, up to the spread among rows.
const SAMPLED_ROWS: usize = 64;
/// Sweeps of refinement where the number is chosen for each matrix: most of what more would gain.
const SWEEPS: usize = 4;

/// What a matrix costs in each format.
#[derive(Clone, Debug)]
pub struct Sensitivity {
    /// The matrix.
    pub name: SectionName,
    /// Its weights.
    pub weights: u64,
    /// Mean KL divergence, nats a token, with this matrix alone at [`TRIED_BITS`] bits.
    pub mean_kl: f64,
    /// The formats, with the bytes of a section (padding included) and the estimated divergence.
    pub formats: Vec<(MatrixFormat, Candidate)>,
}

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum SensitivityError {
    /// The model could not be read or run.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// The model could not be quantized on trial.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A matrix could not be solved.
    #[error("{name}: {cause}")]
    Method {
        /// The matrix.
        name: SectionName,
        /// Why.
        cause: MethodError,
    },
    /// A matrix has no such format.
    #[error("{name}: {cause}")]
    Shape {
        /// The matrix.
        name: SectionName,
        /// Why.
        cause: EncodeError,
    },
}

impl From<CheckpointError> for SensitivityError {
    fn from(cause: CheckpointError) -> Self {
        SensitivityError::Dense(cause.into())
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measurement<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// Calibration windows.
    pub windows: &'a [Vec<u32>],
    /// Tokens of each that are used.
    pub positions: usize,
    /// Damping, spacing and the like; its formats and method are of no influence.
    pub plan: &'a BlockPlan,
    /// Layout of the container.
    pub layout: Layout,
    /// Formats of the blocks' matrices, with corrections of 2, 3 and 4 bits where ranks are to be tried.
    pub formats: &'a [MatrixFormat],
    /// Formats of the embedding and the head.
    pub vocabulary_formats: &'a [MatrixFormat],
}

/// Measures every matrix, in the order of the container. `progress` hears of each; there are [`steps`] of them.
///
/// # Errors
/// [`SensitivityError`].
pub fn measure(
    machine: Machine<'_>,
    measurement: &Measurement<'_>,
    progress: &mut dyn FnMut(SectionName),
) -> Result<Vec<Sensitivity>, SensitivityError> {
    let Measurement { checkpoint, windows, positions, .. } = *measurement;
    let forward = |cause| SensitivityError::from(DenseError::Forward { model: checkpoint.name(), cause });
    let embedding = checkpoint.embedding()?;
    let mut streams = Streams::new(machine, checkpoint, &embedding, windows, positions)?;
    let spec = &checkpoint.spec;
    let layers = checkpoint.spec.layers as usize;
    let (mut before, mut moments) = (Vec::new(), Vec::new());
    for layer in 0..layers {
        let weights = checkpoint.layer(layer)?;
        before.push(streams.stream().to_vec());
        let dense = DenseLayer { weights: &weights, layer };
        let mut taker = MomentsTaker { dense, moments: BTreeMap::new() };
        streams.run_block(&mut taker).map_err(forward)?;
        moments.push(taker.moments);
    }
    let head = checkpoint.head()?;
    let gain = checkpoint.final_norm()?;
    let last = |streams: &Streams<'_>| -> Vec<Vec<f32>> {
        (0..windows.len()).map(|window| streams.hidden_states(window, &gain)).collect()
    };
    let states = last(&streams);
    let reference = Hidden { states: &states, head: head.as_ref().unwrap_or(&embedding), spec };
    let hidden_moments = {
        let all = reference.states.concat();
        Moments::new(&all, &all, embedding.cols)
    };

    let mut found = Vec::new();
    // The embedding, and the head with it where it is tied; band by band where it has several.
    let importance = head.is_none().then_some(&hidden_moments);
    for band in 0..embedding_matrices(measurement) {
        let bands = measurement.plan.vocabulary.as_ref().and_then(|formats| formats.bands.as_ref());
        let name = SectionName { kind: SectionKind::Embedding, layer: bands.map(|_| u16::from(band)) };
        progress(name);
        let part = bands.map(|bands| bands.part(&embedding, band));
        let mut tried =
            Tried::vocabulary(measurement, name, part.as_ref().unwrap_or(&embedding), importance)?;
        if let Some(bands) = bands {
            let mut whole = embedding.clone();
            bands.put(&mut whole, &tried.values, band);
            tried.values = whole;
        }
        let mut other = streams.beside(&tried.values, windows).map_err(forward)?;
        run(&mut other, checkpoint, 0, None)?;
        let subject = Hidden { states: &last(&other), head: head.as_ref().unwrap_or(&tried.values), spec };
        let kl = mean_kl(&reference, &subject);
        found.push(tried.sensitivity(kl));
    }
    if let Some(head) = &head {
        let name = SectionName { kind: SectionKind::Head, layer: None };
        progress(name);
        let tried = Tried::vocabulary(measurement, name, head, Some(&hidden_moments))?;
        let kl = mean_kl(&reference, &Hidden { states: &states, head: &tried.values, spec });
        found.push(tried.sensitivity(kl));
    }
    for (layer, (before, moments)) in before.iter().zip(&moments).enumerate() {
        let original = checkpoint.layer(layer)?;
        for (set, moments) in moments {
            let method = |cause| SensitivityError::Method {
                name: SectionName { kind: set.kinds()[0], layer: Some(layer as u16) },
                cause,
            };
            let options = &measurement.plan.options;
            let prepared = methods::prepare(moments.hessian.as_ref(), None, options).map_err(method)?;
            for &kind in set.kinds() {
                let name = SectionName { kind, layer: Some(layer as u16) };
                progress(name);
                let Some(matrix) = original.matrix(kind) else { continue };
                let tried = Tried::block(measurement, name, matrix, moments, &prepared)?;
                let mut weights = original.clone();
                if let Some(matrix) = weights.matrix_mut(kind) {
                    matrix.data.clone_from(&tried.values.data);
                }
                streams.restart(before, layer);
                run(&mut streams, checkpoint, layer, Some(&weights))?;
                let subject = Hidden { states: &last(&streams), head: reference.head, spec };
                found.push(tried.sensitivity(mean_kl(&reference, &subject)));
            }
        }
    }
    Ok(found)
}

/// The matrices of the embedding: one, or one for each band.
fn embedding_matrices(measurement: &Measurement<'_>) -> u8 {
    let formats = measurement.plan.vocabulary.as_ref();
    formats.map_or(1, |formats| formats.embedding_matrices().count() as u8)
}

/// How often [`measure`] calls `progress`.
pub fn steps(measurement: &Measurement<'_>) -> usize {
    let checkpoint = measurement.checkpoint;
    let kinds: usize =
        LinearSet::of(checkpoint.spec.architecture).into_iter().map(|set| set.kinds().len()).sum();
    usize::from(embedding_matrices(measurement))
        + usize::from(!checkpoint.spec.tied_head)
        + kinds * checkpoint.spec.layers as usize
}

/// A matrix solved in all formats.
struct Tried {
    name: SectionName,
    weights: u64,
    /// Relative errors and bytes by format, on the sampled rows.
    formats: Vec<(MatrixFormat, u64, f64)>,
    /// The error at the tried bits on the sampled rows, and the values of all rows.
    error: f64,
    values: Matrix,
}

impl Tried {
    fn block(
        measurement: &Measurement<'_>,
        name: SectionName,
        matrix: &Matrix,
        moments: &Moments,
        prepared: &Prepared<f64>,
    ) -> Result<Self, SensitivityError> {
        let solve = |weights: MatRef<'_, f64>, format| {
            let solution = alone(weights, prepared, measurement.plan, format)?;
            let loss = solution.loss(weights, moments.hessian.as_ref(), None)?;
            Ok((solution, loss))
        };
        let kept = Kept::measure(
            methods::widened(matrix.view()).as_ref(),
            prepared,
            moments.hessian.as_ref(),
            measurement.plan,
            measurement.formats,
        )
        .map_err(|cause| SensitivityError::Method { name, cause })?;
        Self::new(measurement, name, matrix, measurement.formats, &kept, solve)
    }

    fn vocabulary(
        measurement: &Measurement<'_>,
        name: SectionName,
        matrix: &Matrix,
        importance: Option<&Moments>,
    ) -> Result<Self, SensitivityError> {
        let solve = |weights: MatRef<'_, f64>, format| {
            let solved = vocabulary::solve(weights, importance, measurement.plan, format)?;
            Ok((solved.solution, solved.loss))
        };
        let kept = Kept::default();
        Self::new(measurement, name, matrix, measurement.vocabulary_formats, &kept, solve)
    }

    /// `solve` gives the solution of some rows and its loss, on any scale; `kept` says what corrections leave of it.
    fn new(
        measurement: &Measurement<'_>,
        name: SectionName,
        matrix: &Matrix,
        formats: &[MatrixFormat],
        kept: &Kept,
        solve: impl Fn(MatRef<'_, f64>, MatrixFormat) -> Result<(Solution<f64>, f64), MethodError> + Sync,
    ) -> Result<Self, SensitivityError> {
        let failed = |cause| SensitivityError::Method { name, cause };
        let tried = MatrixFormat::plain(TRIED_BITS, measurement.plan.options.group);
        let (solution, _) = solve(methods::widened(matrix.view()).as_ref(), tried).map_err(failed)?;
        let values = dequantized(&solution);
        let sample = sample(matrix);
        let error = |format| solve(sample.as_ref(), format).map(|(_, loss)| loss).map_err(failed);
        let in_format = |&format: &MatrixFormat| {
            let bytes = section_bytes(matrix, format, measurement.layout)
                .map_err(|cause| SensitivityError::Shape { name, cause })?;
            Ok((format, bytes, error(format)? * kept.of(format)))
        };
        // So few rows leave threads idle: formats keep them busy.
        let all = formats.par_iter().map(in_format).collect::<Result<Vec<_>, SensitivityError>>()?;
        let weights = (matrix.rows * matrix.cols) as u64;
        Ok(Tried { name, weights, formats: all, error: error(tried)?, values })
    }

    fn sensitivity(self, mean_kl: f64) -> Sensitivity {
        let loss = |error: f64| if self.error > 0.0 { mean_kl.max(0.0) * error / self.error } else { 0.0 };
        let candidate = |(format, bytes, error)| (format, Candidate { bytes, loss: loss(error) });
        let formats = self.formats.into_iter().map(candidate).collect();
        Sensitivity { name: self.name, weights: self.weights, mean_kl, formats }
    }
}

/// At most [`SAMPLED_ROWS`] rows, evenly spaced.
fn sample(matrix: &Matrix) -> Mat<f64> {
    let rows = matrix.rows.min(SAMPLED_ROWS);
    Mat::from_fn(rows, matrix.cols, |i, j| f64::from(matrix.row(i * matrix.rows / rows)[j]))
}

/// Solves a matrix by itself: without drift, which is `gptq` for the methods that correct for it, and refined as the plan says.
fn alone(
    weights: MatRef<'_, f64>,
    prepared: &Prepared<f64>,
    plan: &BlockPlan,
    format: MatrixFormat,
) -> Result<Solution<f64>, MethodError> {
    let options = plan.solver_for(format).options;
    let configuration = plan.configuration(format.bits).and_then(|_| Method::Gptq.configuration(format.bits));
    let mut solution = methods::solve(weights, prepared, configuration.as_ref(), &options)?;
    let sweeps = match plan.tuning.refine {
        Setting::Auto => SWEEPS,
        Setting::Fixed(sweeps) => sweeps,
    };
    if configuration.is_some() && sweeps > 0 {
        let target = prepared.target(weights, Start::Unchanged)?;
        let (scales, limits) = (options.row_format(weights.ncols()), RefineLimits::sweeps(sweeps));
        methods::refine(&mut solution, target.as_ref(), prepared, scales, limits)?;
    }
    Ok(solution)
}

/// Bytes of a matrix's section and the padding after it.
fn section_bytes(matrix: &Matrix, format: MatrixFormat, layout: Layout) -> Result<u64, EncodeError> {
    let bytes = encode::section_bytes((matrix.rows, matrix.cols), format, layout)?;
    Ok(bytes.next_multiple_of(SECTION_ALIGNMENT_BYTES) as u64)
}

/// A full-precision block that takes the moments of each set's input.
struct MomentsTaker<'a> {
    dense: DenseLayer<'a>,
    moments: BTreeMap<LinearSet, Moments>,
}

impl BlockWeights for MomentsTaker<'_> {
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
        check_finite(self.dense.layer, set, input)?;
        self.moments.insert(set, Moments::new(input, input, input.len() / tokens));
        self.dense.apply(set, tokens, input, outputs)
    }
}

#[cfg(test)]
mod tests;
