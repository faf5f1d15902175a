//! Quantizing all blocks, one after another, with two activation streams.
//!
//! ```text
//! full, quantized = embeddings of the calibration tokens
//! for each block:
//!     run it on `full` with the original weights, keeping the input of each set of matrices
//!     run it on `quantized`; when a set's input arrives:
//!         H, D = moments of that input and the kept one         (the blocks and sets before it are quantized already)
//!         factor once a set; solve for each of its matrices; go on with the quantized values
//! ```
//! This is the published order (true sequential): query/key/value, output, gate/up, down. Nothing is run twice: the forward asks
//! for a set's products, and the answer is made from weights that were quantized a moment ago, for all tokens together.

use crate::checkpoint::{Checkpoint, CheckpointError, LayerWeights, Matrix};
use crate::dense::{DenseLayer, Streams, missing, multiply};
use crate::methods::{self, Method, MethodError, Solution, SolverOptions, SweepConfiguration};
use crate::moments::Moments;
use faer::{Mat, MatRef};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::{BlockWeights, LinearSet};
use serde::Serialize;
use std::collections::BTreeMap;

/// How the matrices of the blocks are quantized.
#[derive(Clone, Copy, Debug)]
pub struct BlockPlan {
    /// The method.
    pub method: Method,
    /// Its configuration; `None` where the method is round-to-nearest.
    pub configuration: Option<SweepConfiguration>,
    /// Bits, groups, damping and the rest.
    pub options: SolverOptions,
}

/// A quantized matrix of a block and how well it went.
#[derive(Clone, Debug)]
pub struct QuantizedMatrix {
    /// Its kind.
    pub kind: SectionKind,
    /// Codes and scales.
    pub solution: Solution<f64>,
    /// The report's line.
    pub report: MatrixReport,
}

/// How well the quantization of a matrix went.
#[derive(Clone, Debug, Serialize)]
pub struct MatrixReport {
    /// The layer.
    pub layer: usize,
    /// Name of the matrix's kind.
    pub kind: &'static str,
    /// `|| X W0^T - X Q^T ||^2 / || X W0^T ||^2` on the calibration tokens of the quantized stream.
    pub relative_error: f64,
    /// `|| Xf W0^T - X Q^T ||^2 - || (Xf - X) W0^T ||^2` over `|| X W0^T ||^2`: what rescomp-exact minimizes, up to the part that no
    /// Q changes; may be negative.
    pub relative_asymmetric_error: f64,
    /// The damping that the factorization needed, as a share of the Hessian's mean diagonal.
    pub damping: f64,
    /// Inputs that were zero for every calibration token.
    pub dead_columns: usize,
}

/// Why calibration stopped.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The forward stopped.
    #[error("calibration: {0}")]
    Forward(#[from] RuntimeError),
    /// The quantized stream asked for the products of a set that the full-precision stream did not, or twice.
    #[error("layer {layer} {set}: the full-precision stream has no such input")]
    Unmatched {
        /// The layer.
        layer: usize,
        /// The set.
        set: &'static str,
    },
    /// A solver refused a matrix.
    #[error("layer {layer} {kind}: {cause}")]
    Method {
        /// The layer.
        layer: usize,
        /// The matrix, or the set where the moments are at fault.
        kind: &'static str,
        /// Why.
        cause: MethodError,
    },
}

/// Quantizes every block. `windows` are the calibration tokens, of which the first `positions` of each are used. `progress`
/// hears of each matrix; `finished` takes each block's matrices, in the order of the forward.
///
/// # Errors
/// [`CalibrationError`], or whatever `finished` fails with.
pub fn quantize_blocks<E: From<CalibrationError>>(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    windows: &[Vec<u32>],
    positions: usize,
    plan: &BlockPlan,
    progress: &mut dyn FnMut(&MatrixReport),
    mut finished: impl FnMut(usize, &LayerWeights, Vec<QuantizedMatrix>) -> Result<(), E>,
) -> Result<(), E> {
    let embedding = checkpoint.embedding().map_err(CalibrationError::from)?;
    let streams = || {
        Streams::new(machine, checkpoint, &embedding, windows, positions)
            .map_err(|cause| E::from(CalibrationError::Forward(cause)))
    };
    let (mut full, mut quantized) = (streams()?, streams()?);
    for layer in 0..checkpoint.spec.layers as usize {
        let weights = checkpoint.layer(layer).map_err(CalibrationError::from)?;
        let mut recorder =
            Recorder { dense: DenseLayer { weights: &weights, layer }, inputs: BTreeMap::new() };
        full.run_block(&mut recorder).map_err(CalibrationError::from)?;
        let inputs = recorder.inputs;
        let mut calibrator =
            Calibrator { weights: &weights, layer, inputs, plan, done: Vec::new(), progress };
        quantized.run_block(&mut calibrator)?;
        let done = calibrator.done;
        finished(layer, &weights, done)?;
    }
    Ok(())
}

/// A full-precision block that keeps the input of each set.
struct Recorder<'a> {
    dense: DenseLayer<'a>,
    inputs: BTreeMap<LinearSet, Vec<f32>>,
}

impl BlockWeights for Recorder<'_> {
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
        self.inputs.insert(set, input.to_vec());
        self.dense.apply(set, tokens, input, outputs)
    }
}

/// A block that quantizes each set when its input arrives, and answers with the quantized values.
struct Calibrator<'a> {
    weights: &'a LayerWeights,
    layer: usize,
    inputs: BTreeMap<LinearSet, Vec<f32>>,
    plan: &'a BlockPlan,
    done: Vec<QuantizedMatrix>,
    progress: &'a mut dyn FnMut(&MatrixReport),
}

impl BlockWeights for Calibrator<'_> {
    type Error = CalibrationError;

    fn norm(&self, kind: SectionKind) -> Result<&[f32], CalibrationError> {
        Ok(self.weights.gain(kind).ok_or_else(|| missing(kind, self.layer))?)
    }

    fn apply(
        &mut self,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), CalibrationError> {
        let layer = self.layer;
        if !input.iter().all(|value| value.is_finite()) {
            return Err(RuntimeError::NotFinite { layer: Some(layer as u32), set: Some(set) }.into());
        }
        let failed = |kind| move |cause| CalibrationError::Method { layer, kind, cause };
        // The kept input is used once: taking it frees its memory.
        let full = self.inputs.remove(&set).ok_or(CalibrationError::Unmatched { layer, set: set.name() })?;
        let moments = Moments::new(input, &full, input.len() / tokens);
        drop(full);
        let options = &self.plan.options;
        let (hessian, drift) = (moments.hessian.as_ref(), moments.drift.as_ref());
        let prepared = match self.plan.configuration {
            None => None,
            Some(_) => Some(methods::prepare(hessian, Some(drift), options).map_err(failed(set.name()))?),
        };
        for (&kind, output) in set.kinds().iter().zip(outputs) {
            let original = self.weights.matrix(kind).ok_or_else(|| missing(kind, layer))?;
            let weights = to_f64(original);
            let solution = match &prepared {
                Some(prepared) => {
                    methods::solve(weights.as_ref(), prepared, self.plan.configuration.as_ref(), options)
                }
                None => methods::rtn::round_to_nearest(weights.as_ref(), options),
            }
            .map_err(failed(kind.name()))?;
            let loss = |drift: Option<MatRef<'_, f64>>| solution.loss(weights.as_ref(), hessian, drift);
            let zero = vec![0.0; original.rows * original.cols];
            let zero = MatRef::from_row_major_slice(&zero, original.rows, original.cols);
            let power = methods::asymmetric_loss(weights.as_ref(), zero, hessian, None)
                .map_err(failed(kind.name()))?;
            let report = MatrixReport {
                layer,
                kind: kind.name(),
                relative_error: share(loss(None).map_err(failed(kind.name()))?, power),
                relative_asymmetric_error: share(loss(Some(drift)).map_err(failed(kind.name()))?, power),
                damping: prepared.as_ref().map_or(0.0, methods::Prepared::damping),
                dead_columns: prepared.as_ref().map_or(0, |prepared| prepared.dead_columns().len()),
            };
            (self.progress)(&report);
            let data = solution.values().into_iter().map(|value| value as f32).collect();
            multiply(&Matrix { rows: original.rows, cols: original.cols, data }, input, output);
            self.done.push(QuantizedMatrix { kind, solution, report });
        }
        Ok(())
    }
}

/// `loss / power`; 0 for a matrix whose products are all 0, on which there is nothing to lose.
fn share(loss: f64, power: f64) -> f64 {
    if power > 0.0 { loss / power } else { 0.0 }
}

fn to_f64(matrix: &Matrix) -> Mat<f64> {
    Mat::from_fn(matrix.rows, matrix.cols, |row, col| f64::from(matrix.data[row * matrix.cols + col]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::GroupSize;
    use rescomp_runtime::kernels;
    use rescomp_runtime::threads::ThreadPool;
    use std::path::Path;

    /// Quantizes the embedded model on two short windows of arbitrary tokens.
    fn quantize(method: Method, bits: u8, threads: usize) -> Vec<QuantizedMatrix> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let windows: Vec<Vec<u32>> =
            (0..2).map(|w| (0..100).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect()).collect();
        let plan = BlockPlan {
            method,
            configuration: method.configuration(bits),
            options: SolverOptions::new(bits, GroupSize::elements(64).unwrap()),
        };
        let executor = ThreadPool::new(threads).unwrap();
        let machine = Machine { kernels: kernels::best(), executor: &executor };
        let (mut all, mut reported) = (Vec::new(), 0);
        let mut each = |_: &MatrixReport| reported += 1;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            quantize_blocks(machine, &checkpoint, &windows, 100, &plan, &mut each, |layer, _, done| {
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
        let plan = BlockPlan { method: Method::Rtn, configuration: None, options };
        let mut progress = |_: &MatrixReport| ();
        let mut calibrator = Calibrator {
            weights: &weights,
            layer: 3,
            inputs: BTreeMap::new(),
            plan: &plan,
            done: Vec::new(),
            progress: &mut progress,
        };
        let mut output = [0.0; 128];
        let error = calibrator.apply(LinearSet::Output, 1, &[0.5; 128], &mut [&mut output]).unwrap_err();
        assert!(matches!(error, CalibrationError::Unmatched { layer: 3, .. }), "{error}");
    }
}
