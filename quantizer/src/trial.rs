//! Trial quantizations: what the divergence of a whole model would be with these formats, at a fraction of the time of packing.
//!
//! Every block is quantized in order with two streams, as packing does, so that later matrices correct for the errors of earlier ones.
//! What packing chooses is given here, and there are fewer windows: the divergence comes out larger, and differences between
//! formats show which one is better. It is measured on calibration windows that had no part in the codes.

use crate::calibrate::{CalibrationError, Run, quantize_blocks};
use crate::checkpoint::{Checkpoint, Matrix};
use crate::choose::{Setting, Tuning, is_held_out};
use crate::dense::{DenseError, DenseLayer, Streams};
use crate::inputs::Inputs;
use crate::plan::BlockPlan;
use crate::sensitivity::SensitivityError;
use crate::sensitivity::divergence::{Hidden, mean_kl, run};
use crate::vocabulary::{self, VocabularyMatrix};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::Machine;

/// The most windows that codes are made from.
const TRAINING_WINDOWS: usize = 8;
/// The most windows that the divergence is measured on.
const HELD_OUT_WINDOWS: usize = 8;
/// Strength, ridge and sweeps of refinement where they would be chosen: what most matrices choose (docs/methods.md), and one sweep,
/// which has most of the gain.
const USUAL: (f64, f64, usize) = (1.0, 0.1, 1);

/// A model, and windows for trials.
#[derive(Debug)]
pub struct Trials<'a> {
    machine: Machine<'a>,
    checkpoint: &'a Checkpoint,
    training: Vec<Vec<u32>>,
    held_out: Vec<Vec<u32>>,
    positions: usize,
    embedding: Matrix,
    head: Option<Matrix>,
    /// The full-precision model's last hidden states on the held-out windows.
    reference: Vec<Vec<f32>>,
}

impl<'a> Trials<'a> {
    /// Runs the full-precision model. `None` with fewer than two windows, of which one would have to be held out.
    ///
    /// # Errors
    /// [`SensitivityError`].
    pub fn new(
        machine: Machine<'a>,
        checkpoint: &'a Checkpoint,
        windows: &[Vec<u32>],
        positions: usize,
    ) -> Result<Option<Self>, SensitivityError> {
        if windows.len() < 2 {
            return Ok(None);
        }
        let take = |held_out: bool, most: usize| -> Vec<Vec<u32>> {
            let chosen = (0..windows.len()).filter(|window| is_held_out(*window, windows.len()) == held_out);
            chosen.take(most).map(|window| windows[window].clone()).collect()
        };
        let mut trials = Trials {
            machine,
            checkpoint,
            training: take(false, TRAINING_WINDOWS),
            held_out: take(true, HELD_OUT_WINDOWS),
            positions,
            embedding: checkpoint.embedding()?,
            head: checkpoint.head()?,
            reference: Vec::new(),
        };
        let mut streams = trials.streams(&trials.embedding)?;
        run(&mut streams, checkpoint, 0, None)?;
        trials.reference = trials.hidden_states(&streams)?;
        Ok(Some(trials))
    }

    fn streams(&self, embedding: &Matrix) -> Result<Streams<'a>, SensitivityError> {
        Ok(Streams::new(self.machine, self.checkpoint, embedding, &self.held_out, self.positions)?)
    }

    fn forward(&self, cause: rescomp_runtime::error::RuntimeError) -> SensitivityError {
        DenseError::Forward { model: self.checkpoint.name(), cause }.into()
    }

    fn hidden_states(&self, streams: &Streams<'_>) -> Result<Vec<Vec<f32>>, SensitivityError> {
        let gain = self.checkpoint.final_norm()?;
        Ok((0..self.held_out.len()).map(|window| streams.hidden_states(window, &gain)).collect())
    }

    /// Mean KL divergence, nats a token, of the model quantized as `plan` says, with what would be chosen given.
    ///
    /// # Errors
    /// [`SensitivityError`].
    pub fn mean_kl(&self, plan: &BlockPlan) -> Result<f64, SensitivityError> {
        let (strength, ridge, refine) = USUAL;
        let plan = BlockPlan {
            tuning: Tuning {
                strength: given(plan.tuning.strength, strength),
                ridge: given(plan.tuning.ridge, ridge),
                refine: given(plan.tuning.refine, refine),
            },
            ..plan.clone()
        };
        let mut blocks = Vec::new();
        let mut unheard = |_: crate::calibrate::Progress<'_>| ();
        let vocabulary = quantize_blocks(
            self.machine,
            self.checkpoint,
            Inputs::Windows { windows: &self.training, positions: self.positions },
            &plan,
            &mut Run { journal: None, progress: &mut unheard },
            |_, _, matrices| {
                blocks.push(matrices);
                Ok::<(), CalibrationError>(())
            },
        )?;
        let bands = plan.vocabulary.as_ref().and_then(|formats| formats.bands.as_ref());
        let embedding = vocabulary::embedding_values(&vocabulary, bands);
        let head = vocabulary.iter().find(|matrix| matrix.kind == SectionKind::Head);
        let head = head.map(VocabularyMatrix::values);
        let embedding = embedding.as_ref().unwrap_or(&self.embedding);
        let head = head.as_ref().or(self.head.as_ref()).unwrap_or(embedding);
        let mut streams = self.streams(embedding)?;
        for (layer, matrices) in blocks.into_iter().enumerate() {
            let mut weights = self.checkpoint.layer(layer)?;
            for matrix in matrices {
                if let Some(place) = weights.matrix_mut(matrix.kind) {
                    *place = matrix.values();
                }
            }
            streams
                .run_block(&mut DenseLayer { weights: &weights, layer })
                .map_err(|cause| self.forward(cause))?;
        }
        let spec = &self.checkpoint.spec;
        let full = self.head.as_ref().unwrap_or(&self.embedding);
        let reference = Hidden { states: &self.reference, head: full, spec };
        Ok(mean_kl(&reference, &Hidden { states: &self.hidden_states(&streams)?, head, spec }))
    }
}

fn given<T>(setting: Setting<T>, otherwise: T) -> Setting<T> {
    match setting {
        Setting::Auto => Setting::Fixed(otherwise),
        fixed => fixed,
    }
}
