//! Norm folding: the gain of an RMSNorm moves into the matrices behind it, so that the norm's output is of unit gain and can be rotated.
//!
//! `(x g) W^T = x (W diag(g))^T`. Source: Ashkboos et al., "SliceGPT", arXiv 2401.15024, section 3.2.

use super::Rotation;
use super::rotation::rotate_inputs_behind;
use crate::checkpoint::{LayerWeights, Matrix};
use rescomp_formats::section::SectionKind as K;

/// The norms of a block, each with the matrices behind it.
const NORMS: [(K, &[K]); 2] =
    [(K::AttentionNorm, &[K::Query, K::Key, K::Value]), (K::MlpNorm, &[K::Gate, K::Up])];

/// `W <- W diag(scales)`.
pub(super) fn multiply_columns(matrix: &mut Matrix, scales: &[f32]) {
    for row in matrix.data.chunks_exact_mut(matrix.cols) {
        row.iter_mut().zip(scales).for_each(|(weight, scale)| *weight *= scale);
    }
}

/// Folds both norms of a block.
pub(super) fn fold(weights: &mut LayerWeights) {
    fold_with(weights, multiply_columns);
}

/// Folds both norms of a block, and rotates the inputs of the matrices behind them: one rounding for both.
pub(super) fn fold_and_rotate(weights: &mut LayerWeights, stream: &Rotation) {
    fold_with(weights, |matrix, gain| rotate_inputs_behind(matrix, gain, stream));
}

fn fold_with(weights: &mut LayerWeights, take_in: impl Fn(&mut Matrix, &[f32])) {
    for (norm, behind) in NORMS {
        let Some(gain) = weights.vector(norm).map(<[f32]>::to_vec) else { continue };
        for kind in behind {
            weights.matrix_mut(*kind).into_iter().for_each(|matrix| take_in(matrix, &gain));
        }
        weights.vector_mut(norm).into_iter().for_each(|gain| gain.fill(1.0));
    }
}
