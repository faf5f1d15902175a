//! A model of which only the blocks' linear layers are quantized: the part of the loss that the methods answer for.
//!
//! Embedding, norms and head are the checkpoint's own, and products are f32, so the figures don't depend on how the rest of a
//! container is stored or run. Each block runs over the measured windows as soon as it is quantized: no more than one block of
//! quantized values is ever in memory.

use crate::calibrate::{CalibrationError, MatrixReport, Progress, QuantizedMatrix, Run, quantize_blocks};
use crate::checkpoint::{Checkpoint, CheckpointError, LayerWeights};
use crate::dense::{DenseError, DenseLayer, DenseLogits, Streams, missing};
use crate::inputs::Inputs;
use crate::plan::BlockPlan;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;

/// A quantized model that has run over windows.
#[derive(Debug)]
pub struct Linears<'m> {
    /// Name of the checkpoint.
    pub name: String,
    /// The quantized matrices, in the order of the forward.
    pub matrices: Vec<MatrixReport>,
    /// Weights of the quantized matrices.
    pub weights: u64,
    /// Bits of their codes and scales.
    pub bits: u64,
    pub(crate) vocabulary: u32,
    pub(crate) windows: Vec<Vec<u32>>,
    pub(crate) logits: DenseLogits<'m>,
}

/// The first `positions` tokens of each of some windows.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// The windows, of `positions` tokens or more.
    pub windows: &'a [Vec<u32>],
    /// How many tokens of a window are used.
    pub positions: usize,
}

/// Why a model could not be quantized or run.
#[derive(Debug, thiserror::Error)]
pub enum LinearsError {
    /// Calibration stopped.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The quantized blocks could not run over the measured windows.
    #[error(transparent)]
    Dense(#[from] DenseError),
}

impl From<CheckpointError> for LinearsError {
    fn from(cause: CheckpointError) -> Self {
        LinearsError::Dense(cause.into())
    }
}

impl<'m> Linears<'m> {
    /// Quantizes the blocks on `calibration` and runs them over `measured`. `progress` hears of each step.
    ///
    /// # Errors
    /// [`LinearsError`].
    pub fn new(
        machine: Machine<'m>,
        checkpoint: &Checkpoint,
        plan: &BlockPlan,
        calibration: Tokens<'_>,
        measured: Tokens<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, LinearsError> {
        let failed = |cause| DenseError::Forward { model: checkpoint.name(), cause };
        let embedding = checkpoint.embedding()?;
        let Tokens { windows, positions } = measured;
        let mut streams = Streams::new(machine, checkpoint, &embedding, windows, positions)?;
        let (mut matrices, mut weights, mut bits) = (Vec::new(), 0, 0);
        quantize_blocks(
            machine,
            checkpoint,
            Inputs::Windows { windows: calibration.windows, positions: calibration.positions },
            plan,
            &mut Run { journal: None, progress },
            |layer, original, quantized| -> Result<(), LinearsError> {
                for matrix in &quantized {
                    weights += matrix.solution.codes.len() as u64;
                    bits += matrix.stored_bits();
                }
                let values = with_quantized(original, layer, &quantized).map_err(failed)?;
                matrices.extend(quantized.into_iter().map(|matrix| matrix.report));
                streams.run_block(&mut DenseLayer { weights: &values, layer }).map_err(failed)?;
                Ok(())
            },
        )?;
        Ok(Linears {
            name: checkpoint.name(),
            matrices,
            weights,
            bits,
            vocabulary: checkpoint.spec.vocabulary,
            windows: windows.to_vec(),
            logits: DenseLogits::after_blocks(streams, checkpoint, embedding)?,
        })
    }

    /// Bits that a weight of the quantized matrices takes on average: codes and scales.
    pub fn bits_per_weight(&self) -> f64 {
        self.bits as f64 / self.weights as f64
    }
}

/// A block with the values of its quantized matrices.
fn with_quantized(
    original: &LayerWeights,
    layer: usize,
    quantized: &[QuantizedMatrix],
) -> Result<LayerWeights, RuntimeError> {
    let mut weights = original.clone();
    for matrix in quantized {
        let place = weights.matrix_mut(matrix.kind).ok_or_else(|| missing(matrix.kind, layer))?;
        *place = matrix.values();
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{GroupSize, Method, SolverOptions};
    use rescomp_runtime::executor::Serial;
    use rescomp_runtime::kernels;
    use std::path::Path;

    const MACHINE: fn() -> Machine<'static> = || Machine { kernels: kernels::best(), executor: &Serial };

    fn checkpoint() -> Checkpoint {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")).unwrap()
    }

    /// Windows of arbitrary tokens.
    fn windows(seed: u32, positions: u32) -> Vec<Vec<u32>> {
        (seed..seed + 2)
            .map(|w| (0..=positions).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect())
            .collect()
    }

    fn linears(plan: &BlockPlan, calibration: &[Vec<u32>], measured: &[Vec<u32>]) -> Linears<'static> {
        let tokens = |windows| Tokens { windows, positions: 20 };
        Linears::new(MACHINE(), &checkpoint(), plan, tokens(calibration), tokens(measured), &mut |_| ())
            .unwrap()
    }

    #[test]
    fn the_logits_are_those_of_the_blocks_that_calibration_gave() {
        let (checkpoint, calibration, measured) = (checkpoint(), windows(0, 20), windows(9, 20));
        let plan = BlockPlan::new(Method::Gptq, SolverOptions::new(3, GroupSize::elements(32).unwrap()));
        let found = linears(&plan, &calibration, &measured);
        // All blocks first, then the forward, over one window at a time.
        let mut blocks = Vec::new();
        let mut run = Run { journal: None, progress: &mut |_| () };
        let inputs = Inputs::Windows { windows: &calibration, positions: 20 };
        quantize_blocks(MACHINE(), &checkpoint, inputs, &plan, &mut run, |_, original, done| {
            let mut block = original.clone();
            for matrix in done {
                let target = block.matrix_mut(matrix.kind).unwrap();
                assert_eq!(target.data.len(), matrix.solution.codes.len());
                for (at, weight) in target.data.iter_mut().enumerate() {
                    let group = at / matrix.solution.columns * matrix.solution.groups_per_row()
                        + at % matrix.solution.columns / 32;
                    *weight = (matrix.solution.scales[group] * f64::from(matrix.solution.codes[at])) as f32;
                }
            }
            blocks.push(block);
            Ok::<(), CalibrationError>(())
        })
        .unwrap();
        for (index, window) in measured.iter().enumerate() {
            let embedding = checkpoint.embedding().unwrap();
            let window = std::slice::from_ref(window);
            let mut streams = Streams::new(MACHINE(), &checkpoint, &embedding, window, 20).unwrap();
            for (layer, weights) in blocks.iter().enumerate() {
                streams.run_block(&mut DenseLayer { weights, layer }).unwrap();
            }
            let expected = DenseLogits::after_blocks(streams, &checkpoint, embedding).unwrap().window(0);
            let found = found.logits.window(index);
            let furthest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            // Strips of tokens fall otherwise over one window than over two.
            assert!(furthest.fold(0.0, f32::max) < 1e-4);
        }
    }

    #[test]
    fn bits_are_those_of_codes_and_scales() {
        let (calibration, measured) = (windows(0, 20), windows(9, 20));
        for (bits, group, expected) in [
            (4, GroupSize::elements(64).unwrap(), 4.25),
            (2, GroupSize::elements(32).unwrap(), 2.5),
            // A scale a row: of 128 inputs, and in `down` of 384. In units of 128 x 128 weights, query and output have 1, key and
            // value 1/2, gate, up and down 3; `down` has 128 rows, the others 128 a unit.
            (3, GroupSize::Row, 3.0 + 16.0 / 128.0 * (9.0 + 1.0) / 12.0),
        ] {
            let plan = BlockPlan::new(Method::Rtn, SolverOptions::new(bits, group));
            let found = linears(&plan, &calibration, &measured);
            assert!((found.bits_per_weight() - expected).abs() < 1e-12, "{}", found.bits_per_weight());
            assert_eq!(found.weights, 6 * 12 * 128 * 128);
            assert_eq!(found.matrices.len(), 6 * 7);
        }
    }
}
