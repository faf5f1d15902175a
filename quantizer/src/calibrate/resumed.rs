//! What accompanies calibration: who hears of its progress, and blocks that an earlier run finished.

use super::{CalibrationError, MatrixReport, QuantizedMatrix};
use crate::checkpoint::LayerWeights;
use crate::dense::{missing, multiply};
use crate::journal::{Journal, Restored};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::{BlockWeights, LinearSet};

/// What calibration tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// The input of a set has arrived: its matrices come next.
    Set {
        /// The layer.
        layer: usize,
        /// The set.
        set: LinearSet,
    },
    /// A matrix is quantized.
    Matrix {
        /// How well it went.
        report: &'a MatrixReport,
        /// Whether an earlier run quantized it.
        restored: bool,
    },
    /// A block is finished.
    Block {
        /// The layer.
        layer: usize,
        /// Whether an earlier run quantized it.
        restored: bool,
    },
    /// Something that a person should know, such as a damaged file of the journal.
    Note(&'a str),
    /// The blocks are finished; this is going on.
    Phase(&'static str),
}

/// What accompanies a run: where its finished blocks are kept, and who hears of its progress.
pub struct Run<'a> {
    /// Keeps finished blocks, and has those of an earlier run.
    pub journal: Option<&'a mut Journal>,
    /// Hears of every step.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

/// The block's matrices, where the journal has them whole.
pub(super) fn restored(
    run: &mut Run<'_>,
    layer: usize,
    weights: &LayerWeights,
) -> Result<Option<Vec<QuantizedMatrix>>, CalibrationError> {
    let Some(journal) = &mut run.journal else { return Ok(None) };
    match journal.restore(layer, weights)? {
        Restored::Matrices(matrices) => Ok(Some(matrices)),
        Restored::Nothing => Ok(None),
        Restored::Damaged(note) => {
            (run.progress)(Progress::Note(&note));
            Ok(None)
        }
    }
}

/// A block that an earlier run quantized.
pub(super) struct RestoredLayer<'a> {
    pub(super) weights: &'a LayerWeights,
    pub(super) layer: usize,
    pub(super) matrices: &'a [QuantizedMatrix],
}

impl BlockWeights for RestoredLayer<'_> {
    type Error = RuntimeError;

    fn vector(&self, kind: SectionKind) -> Result<&[f32], RuntimeError> {
        self.weights.vector(kind).ok_or_else(|| missing(kind, self.layer))
    }

    fn apply(
        &mut self,
        set: LinearSet,
        _tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), RuntimeError> {
        for (&kind, output) in set.kinds().iter().zip(outputs) {
            let matrix = self.matrices.iter().find(|matrix| matrix.kind == kind);
            let matrix = matrix.ok_or_else(|| missing(kind, self.layer))?;
            multiply(&matrix.values(), input, output);
        }
        Ok(())
    }
}
