//! Norm folding: the gain of a norm moves into the matrices behind it, so that the norm's output is of unit gain and can be rotated.
//!
//! `(x g) W^T = x (W diag(g))^T`. Source: Ashkboos et al., "SliceGPT", arXiv 2401.15024, section 3.2. A LayerNorm's bias moves into their
//! biases: `(x g + b) W^T = x (W diag(g))^T + b W^T`. Where one of them has none, it stays in the norm, as `b / g`.

use super::Rotation;
use super::rotation::{rotate_inputs_behind, rotate_outputs};
use crate::checkpoint::{LayerWeights, Matrix};
use rescomp_formats::section::SectionKind as K;

/// A LayerNorm's bias that the gain can't be taken out of.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{norm}: channel {channel}: expected a gain that the bias of {bias} can be divided by, found 0")]
pub struct NotFolded {
    /// The norm.
    pub norm: &'static str,
    /// Which of its numbers.
    pub channel: usize,
    /// Its bias.
    pub bias: f32,
}

/// A norm of a block, and the matrices behind it with their biases.
struct BlockNorm {
    gain: K,
    bias: K,
    behind: &'static [(K, Option<K>)],
}

const NORMS: [BlockNorm; 2] = [
    BlockNorm {
        gain: K::AttentionNorm,
        bias: K::AttentionNormBias,
        behind: &[(K::Query, Some(K::QueryBias)), (K::Key, Some(K::KeyBias)), (K::Value, Some(K::ValueBias))],
    },
    BlockNorm {
        gain: K::MlpNorm,
        bias: K::MlpNormBias,
        behind: &[(K::Gate, None), (K::Up, Some(K::UpBias))],
    },
];

/// `W <- W diag(scales)`.
pub(super) fn multiply_columns(matrix: &mut Matrix, scales: &[f32]) {
    for row in matrix.data.chunks_exact_mut(matrix.cols) {
        row.iter_mut().zip(scales).for_each(|(weight, scale)| *weight *= scale);
    }
}

/// Folds both norms of a block, which are RMSNorms.
pub(super) fn fold(weights: &mut LayerWeights) {
    for norm in &NORMS {
        fold_gain(weights, norm, multiply_columns);
    }
}

/// Folds both norms of a block, and rotates the inputs of the matrices behind them: one rounding for both.
///
/// # Errors
/// A bias that stays with the norm, where the gain is 0.
pub(super) fn fold_and_rotate(weights: &mut LayerWeights, stream: &Rotation) -> Result<(), NotFolded> {
    for norm in &NORMS {
        fold_bias(weights, norm, stream)?;
        fold_gain(weights, norm, |matrix, gain| rotate_inputs_behind(matrix, gain, stream));
    }
    Ok(())
}

fn fold_gain(weights: &mut LayerWeights, norm: &BlockNorm, take_in: impl Fn(&mut Matrix, &[f32])) {
    let Some(gain) = weights.vector(norm.gain).map(<[f32]>::to_vec) else { return };
    for (kind, _) in norm.behind {
        weights.matrix_mut(*kind).into_iter().for_each(|matrix| take_in(matrix, &gain));
    }
    weights.vector_mut(norm.gain).into_iter().for_each(|gain| gain.fill(1.0));
}

/// The bias of a norm whose gain isn't folded yet.
fn fold_bias(weights: &mut LayerWeights, norm: &BlockNorm, stream: &Rotation) -> Result<(), NotFolded> {
    let Some(bias) = weights.vector(norm.bias).map(<[f32]>::to_vec) else { return Ok(()) };
    let there = || norm.behind.iter().filter(|(kind, _)| weights.matrix(*kind).is_some());
    if there().all(|(_, of)| of.is_some_and(|of| weights.vector(of).is_some())) {
        let sums: Vec<_> =
            there().filter_map(|&(kind, of)| Some((of?, products(weights.matrix(kind)?, &bias)))).collect();
        for (of, sums) in sums {
            let Some(biases) = weights.vector_mut(of) else { continue };
            biases.iter_mut().zip(sums).for_each(|(bias, sum)| *bias = (f64::from(*bias) + sum) as f32);
        }
        weights.vector_mut(norm.bias).into_iter().for_each(|bias| bias.fill(0.0));
        return Ok(());
    }
    let gain = weights.vector(norm.gain).map(<[f32]>::to_vec).unwrap_or_default();
    let Some(bias) = weights.vector_mut(norm.bias) else { return Ok(()) };
    divide_and_rotate(norm.gain.name(), &gain, bias, stream)
}

/// `W b`.
fn products(matrix: &Matrix, vector: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(vector).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
    matrix.data.chunks_exact(matrix.cols).map(dot).collect()
}

/// `b <- (b / g) R`: the bias of a norm that stays with it, while its gain goes into what is behind.
///
/// # Errors
/// A gain of 0 beside a bias that isn't.
pub(super) fn divide_and_rotate(
    norm: &'static str,
    gain: &[f32],
    bias: &mut [f32],
    stream: &Rotation,
) -> Result<(), NotFolded> {
    for (channel, (bias, gain)) in bias.iter_mut().zip(gain).enumerate() {
        match (*bias == 0.0, *gain == 0.0) {
            (true, _) => {}
            (false, true) => return Err(NotFolded { norm, channel, bias: *bias }),
            (false, false) => *bias /= gain,
        }
    }
    if !bias.is_empty() {
        rotate_outputs(bias, 1, stream);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_without_a_gain_is_refused() {
        let stream = Rotation::random_keeping_mean(4, 1);
        let fold = |gain: [f32; 4], bias: [f32; 4]| {
            let mut bias = bias;
            divide_and_rotate("final norm", &gain, &mut bias, &stream).map(|()| bias)
        };
        assert_eq!(fold([1.0, 0.0, 1.0, 1.0], [0.0; 4]), Ok([0.0; 4]));
        // The mean stays.
        let kept = fold([2.0; 4], [2.0; 4]).expect("folded");
        assert!(kept.iter().all(|value| (value - 1.0).abs() < 1e-6), "{kept:?}");
        let refused = fold([1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.0]).expect_err("refused");
        assert_eq!(refused, NotFolded { norm: "final norm", channel: 2, bias: 0.5 });
        assert!(refused.to_string().starts_with("final norm: channel 2: expected a gain"), "{refused}");
    }
}
