//! How much the model loses by each matrix in each format, for distributing bits ([`crate::allocate`]).
//!
//! ```text
//! run the full-precision model over a few calibration windows, keeping the stream before every block and each set's H
//! for each matrix t:
//!     in every format f: solve it by itself, e(t, f) = its relative error on its own inputs
//!     quantize it alone, in one format r, and run the rest of the model: d(t) = mean KL from the full-precision model
//!     loss(t, f) = d(t) e(t, f) / e(t, r)
//! ```
//! Small errors change the logits in proportion, so the divergence grows with their square, as e does: one run of the model a
//! matrix says what its errors cost, and solving says how large they are. What is left out is that later matrices correct for
//! the errors of earlier ones, and that errors meet: both change all formats of a matrix alike, nearly.

use crate::allocate::Candidate;
use crate::calibrate::check_finite;
use crate::checkpoint::{Checkpoint, CheckpointError, LayerWeights, Matrix};
use crate::dense::{DenseError, DenseLayer, Streams, multiply};
use crate::encode::{self, EncodeError};
use crate::evaluate::kl_divergence;
use crate::methods::{self, Method, MethodError, Prepared, Solution};
use crate::moments::Moments;
use crate::plan::{BlockPlan, MatrixFormat};
use crate::vocabulary;
use faer::Mat;
use rayon::prelude::*;
use rescomp_formats::layouts::Layout;
use rescomp_formats::section::{SECTION_ALIGNMENT_BYTES, SectionKind, SectionName};
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::log_sum_exp;
use rescomp_runtime::linear::{BlockWeights, LinearSet};
use std::collections::BTreeMap;

/// The format in which a matrix is tried in the model.
const TRIED_BITS: u8 = 3;

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
    /// Formats of the blocks' matrices.
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
    let mut streams = Streams::new(machine, checkpoint, &embedding, windows, positions).map_err(forward)?;
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
    let reference = Hidden { states: last(&streams), head: head.as_ref().unwrap_or(&embedding) };
    let hidden_moments = {
        let all = reference.states.concat();
        Moments::new(&all, &all, embedding.cols)
    };

    let mut found = Vec::new();
    // The embedding, and the head with it where it is tied.
    let name = SectionName { kind: SectionKind::Embedding, layer: None };
    progress(name);
    let importance = head.is_none().then_some(&hidden_moments);
    let tried = Tried::vocabulary(measurement, name, &embedding, importance)?;
    let mut other = Streams::new(machine, checkpoint, &tried.values, windows, positions).map_err(forward)?;
    run(&mut other, checkpoint, 0, None)?;
    let subject = Hidden { states: last(&other), head: head.as_ref().unwrap_or(&tried.values) };
    let kl = mean_kl(&reference, &subject);
    found.push(tried.sensitivity(kl));
    if let Some(head) = &head {
        let name = SectionName { kind: SectionKind::Head, layer: None };
        progress(name);
        let tried = Tried::vocabulary(measurement, name, head, Some(&hidden_moments))?;
        let kl = mean_kl(&reference, &Hidden { states: reference.states.clone(), head: &tried.values });
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
                streams.restart(before);
                run(&mut streams, checkpoint, layer, Some(&weights))?;
                let subject = Hidden { states: last(&streams), head: reference.head };
                found.push(tried.sensitivity(mean_kl(&reference, &subject)));
            }
        }
    }
    Ok(found)
}

/// How often [`measure`] calls `progress`.
pub fn steps(checkpoint: &Checkpoint) -> usize {
    let kinds: usize = LinearSet::ALL.into_iter().map(|set| set.kinds().len()).sum();
    1 + usize::from(!checkpoint.spec.tied_head) + kinds * checkpoint.spec.layers as usize
}

/// Runs the blocks from `first` on, that one with other weights where there are any.
fn run(
    streams: &mut Streams<'_>,
    checkpoint: &Checkpoint,
    first: usize,
    other: Option<&LayerWeights>,
) -> Result<(), SensitivityError> {
    let forward = |cause| DenseError::Forward { model: checkpoint.name(), cause };
    for layer in first..checkpoint.spec.layers as usize {
        let read;
        let weights = match other {
            Some(weights) if layer == first => weights,
            _ => {
                read = checkpoint.layer(layer)?;
                &read
            }
        };
        streams.run_block(&mut DenseLayer { weights, layer }).map_err(forward)?;
    }
    Ok(())
}

/// The head's input on every window, and the head.
struct Hidden<'a> {
    states: Vec<Vec<f32>>,
    head: &'a Matrix,
}

impl Hidden<'_> {
    fn logits(&self, window: usize) -> Vec<f32> {
        let states = &self.states[window];
        let mut logits = vec![0.0; states.len() / self.head.cols * self.head.rows];
        multiply(self.head, states, &mut logits);
        logits
    }
}

/// Mean KL divergence of the second from the first, nats a token.
fn mean_kl(reference: &Hidden<'_>, subject: &Hidden<'_>) -> f64 {
    let vocabulary = reference.head.rows;
    let window_sum = |window: usize| -> (f64, usize) {
        let (full, other) = (reference.logits(window), subject.logits(window));
        let tokens = full.chunks_exact(vocabulary).zip(other.chunks_exact(vocabulary));
        let divergence = |(full, other): (&[f32], &[f32])| -> f64 {
            kl_divergence(full, log_sum_exp(full), other, log_sum_exp(other))
        };
        (tokens.map(divergence).sum(), full.len() / vocabulary)
    };
    let sums: Vec<(f64, usize)> = (0..reference.states.len()).into_par_iter().map(window_sum).collect();
    let (total, tokens) = sums.iter().fold((0.0, 0), |all, part| (all.0 + part.0, all.1 + part.1));
    total / tokens as f64
}

/// A matrix solved in all formats.
struct Tried {
    name: SectionName,
    weights: u64,
    /// Relative errors and bytes by format.
    formats: Vec<(MatrixFormat, u64, f64)>,
    /// The relative error at the tried bits, and the values.
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
        let weights = Mat::from_fn(matrix.rows, matrix.cols, |i, j| f64::from(matrix.row(i)[j]));
        let solve = |format| {
            let solver = measurement.plan.solver_for(format);
            // By itself, without drift: gptq.
            let configuration = Method::Gptq.configuration(format.bits);
            let solution =
                methods::solve(weights.as_ref(), prepared, configuration.as_ref(), &solver.options)?;
            let loss = solution.loss(weights.as_ref(), moments.hessian.as_ref(), None)?;
            Ok((solution, loss))
        };
        Self::new(measurement, name, matrix, measurement.formats, solve)
    }

    fn vocabulary(
        measurement: &Measurement<'_>,
        name: SectionName,
        matrix: &Matrix,
        importance: Option<&Moments>,
    ) -> Result<Self, SensitivityError> {
        let weights = Mat::from_fn(matrix.rows, matrix.cols, |i, j| f64::from(matrix.row(i)[j]));
        let solve = |format| {
            let solved = vocabulary::solve(weights.as_ref(), importance, measurement.plan, format)?;
            Ok((solved.solution, solved.loss))
        };
        Self::new(measurement, name, matrix, measurement.vocabulary_formats, solve)
    }

    /// `solve` gives the solution and its loss, on any scale.
    fn new(
        measurement: &Measurement<'_>,
        name: SectionName,
        matrix: &Matrix,
        formats: &[MatrixFormat],
        solve: impl Fn(MatrixFormat) -> Result<(Solution<f64>, f64), MethodError>,
    ) -> Result<Self, SensitivityError> {
        let failed = |cause| SensitivityError::Method { name, cause };
        let tried = MatrixFormat { bits: TRIED_BITS, group: measurement.plan.options.group };
        let (solution, error) = solve(tried).map_err(failed)?;
        let data = solution.values().into_iter().map(|value| value as f32).collect();
        let values = Matrix { rows: matrix.rows, cols: matrix.cols, data };
        let mut all = Vec::new();
        for &format in formats {
            let bytes = section_bytes(matrix, format, measurement.layout)
                .map_err(|cause| SensitivityError::Shape { name, cause })?;
            all.push((format, bytes, solve(format).map_err(failed)?.1));
        }
        let weights = (matrix.rows * matrix.cols) as u64;
        Ok(Tried { name, weights, formats: all, error, values })
    }

    fn sensitivity(self, mean_kl: f64) -> Sensitivity {
        let loss = |error: f64| if self.error > 0.0 { mean_kl.max(0.0) * error / self.error } else { 0.0 };
        let candidate = |(format, bytes, error)| (format, Candidate { bytes, loss: loss(error) });
        let formats = self.formats.into_iter().map(candidate).collect();
        Sensitivity { name: self.name, weights: self.weights, mean_kl, formats }
    }
}

/// Bytes of a matrix's section and the padding after it.
fn section_bytes(matrix: &Matrix, format: MatrixFormat, layout: Layout) -> Result<u64, EncodeError> {
    let shape = encode::shape((matrix.rows, matrix.cols), format, layout)?;
    Ok(shape.section_bytes().next_multiple_of(SECTION_ALIGNMENT_BYTES) as u64)
}

/// A full-precision block that takes the moments of each set's input.
struct MomentsTaker<'a> {
    dense: DenseLayer<'a>,
    moments: BTreeMap<LinearSet, Moments>,
}

impl BlockWeights for MomentsTaker<'_> {
    type Error = RuntimeError;

    fn norm(&self, kind: SectionKind) -> Result<&[f32], RuntimeError> {
        self.dense.norm(kind)
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
mod tests {
    use super::*;
    use crate::methods::SolverOptions;
    use crate::pack::{PackOptions, bytes_without_matrices, pack};
    use crate::plan::Vocabulary;
    use crate::recipe::Recipe;
    use crate::texts;
    use rescomp_formats::container::Container;
    use rescomp_runtime::executor::Serial;
    use rescomp_runtime::kernels;
    use std::path::Path;

    const POSITIONS: usize = 24;

    fn format(bits: u8, group: &str) -> MatrixFormat {
        MatrixFormat { bits, group: group.parse().unwrap() }
    }

    /// The embedded model in a few formats, on two windows of arbitrary tokens.
    fn measured() -> (Checkpoint, PackOptions, Vec<Sensitivity>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let windows: Vec<Vec<u32>> = (0..2)
            .map(|w| (0..=POSITIONS as u32).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect())
            .collect();
        let plan = BlockPlan::new(Method::Rtn, SolverOptions::for_container(3, "64".parse().unwrap()));
        let options = PackOptions {
            plan: plan.with_head_bits(3),
            layout: Layout::Nr8k4,
            calibration: windows,
            calibration_positions: POSITIONS,
            check_tokens: (0..512).collect(),
            tokenizer: texts::tokenizer_section(&checkpoint).unwrap(),
            target: "test".to_owned(),
        };
        let formats = [format(2, "row"), format(3, "64"), format(4, "64"), format(4, "32"), format(8, "128")];
        let measurement = Measurement {
            checkpoint: &checkpoint,
            windows: &options.calibration,
            positions: POSITIONS,
            plan: &options.plan,
            layout: options.layout,
            formats: &formats,
            vocabulary_formats: &formats[1..],
        };
        let machine = Machine { kernels: kernels::best(), executor: &Serial };
        let mut heard = Vec::new();
        let found = measure(machine, &measurement, &mut |name| heard.push(name)).unwrap();
        assert_eq!(heard.len(), steps(&checkpoint));
        assert_eq!(heard, found.iter().map(|matrix| matrix.name).collect::<Vec<_>>());
        (checkpoint, options, found)
    }

    #[test]
    fn more_bits_lose_less_and_sizes_are_those_of_the_file() {
        let (checkpoint, mut options, found) = measured();
        assert_eq!(found.len(), 1 + 7 * 6);
        for matrix in &found {
            assert!(matrix.mean_kl > 0.0 && matrix.mean_kl < 10.0, "{}: {}", matrix.name, matrix.mean_kl);
            let losses: Vec<(u8, f64)> =
                matrix.formats.iter().map(|(format, candidate)| (format.bits, candidate.loss)).collect();
            for (&(bits, loss), &(more_bits, less)) in losses.iter().zip(&losses[1..]) {
                assert!(bits == more_bits || less < 0.7 * loss, "{}: {losses:?}", matrix.name);
            }
            // By the definition: the format that was tried costs what was measured.
            let tried = matrix.formats.iter().find(|(tried, _)| *tried == format(3, "64")).unwrap();
            assert!((tried.1.loss / matrix.mean_kl - 1.0).abs() < 1e-9);
        }

        // A container with other formats for every matrix.
        let chosen = |index: usize| found[index].formats[index % found[index].formats.len()];
        let matrices =
            (0..found.len()).map(|index| (found[index].name.to_string(), chosen(index).0)).collect();
        let recipe = Recipe { default: format(3, "64"), matrices };
        options.plan.formats = recipe.block_formats(&checkpoint.spec);
        options.plan.vocabulary = Some(Vocabulary::same(recipe.format(found[0].name)));
        let machine = Machine { kernels: kernels::best(), executor: &Serial };
        let packed = pack(machine, &checkpoint, &options, &mut |_| ()).unwrap();
        let container = Container::open(&packed.file).unwrap();
        let mut matrices = 0;
        for (index, matrix) in found.iter().enumerate() {
            let (_, entry) = container.entries().find(|(name, _)| *name == matrix.name).unwrap();
            let bytes = chosen(index).1.bytes;
            assert_eq!(entry.length_bytes.next_multiple_of(64), bytes, "{}", matrix.name);
            matrices += bytes;
        }
        // What else the file has is known before; the last section has no padding, the manifest may be shorter by some digits.
        let others = bytes_without_matrices(&checkpoint, &options, packed.file.len()).unwrap();
        let file = packed.file.len() as u64;
        assert!(
            file <= matrices + others.all && matrices + others.all <= file + 192,
            "{matrices} {others:?} {file}"
        );
        assert_eq!(others.norms, 4 * 128 * (2 * 6 + 1));
    }
}
