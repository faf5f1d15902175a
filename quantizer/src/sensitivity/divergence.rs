//! The mean divergence of a model with other weights from the full-precision model.

use super::SensitivityError;
use crate::checkpoint::{Checkpoint, LayerWeights, Matrix};
use crate::dense::{DenseError, DenseLayer, Streams, head_logits};
use crate::evaluate::kl_divergence;
use rayon::prelude::*;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::eval::log_sum_exp;

/// Runs the blocks from `first` on, that one with other weights where there are any.
pub(crate) fn run(
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
pub(crate) struct Hidden<'a> {
    pub(crate) states: &'a [Vec<f32>],
    pub(crate) head: &'a Matrix,
    pub(crate) spec: &'a ModelSpec,
}

impl Hidden<'_> {
    fn logits(&self, window: usize) -> Vec<f32> {
        head_logits(self.spec, self.head, &self.states[window])
    }
}

/// Mean KL divergence of the second from the first, nats a token.
pub(crate) fn mean_kl(reference: &Hidden<'_>, subject: &Hidden<'_>) -> f64 {
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
