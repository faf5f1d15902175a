//! Constants of a model that its weights take in: what multiplies a product's outputs can as well multiply the product's weights.
//!
//! So the runtime needs no step for them. In exact arithmetic nothing changes; in floats a product and its factor are rounded in another order.

use rescomp_formats::section::SectionKind as K;
use rescomp_formats::spec::ModelSpec;

use super::layer::{LayerWeights, StreamNorm};

/// What is multiplied into weights as they are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Folded {
    /// What attention and MLP give is multiplied with this where it is added to the stream (Granite).
    pub(super) residual: f32,
    /// The logits are multiplied with this (Granite).
    pub(super) logits: f32,
    /// The rotated elements of queries and of keys are (YaRN, LongRoPE).
    pub(super) amplitude: f32,
    /// The same in layers with a window, where these have frequencies of their own.
    pub(super) local_amplitude: f32,
    /// Scores are divided by the number of their layer, counted from 1 (GPT-2 with `scale_attn_by_inverse_layer_idx`).
    pub(super) scores_by_layer: bool,
}

impl Folded {
    pub(super) const NOTHING: Folded =
        Folded { residual: 1.0, logits: 1.0, amplitude: 1.0, local_amplitude: 1.0, scores_by_layer: false };

    /// Multiplies into the weights of block `layer`.
    pub(super) fn multiply_layer(&self, spec: &ModelSpec, layer: usize, weights: &mut LayerWeights) {
        let all = |values: &mut [f32], factor: f32| values.iter_mut().for_each(|value| *value *= factor);
        if self.residual != 1.0 {
            for kind in [K::Output, K::Down, K::OutputBias, K::DownBias] {
                weights.values_mut(kind).into_iter().for_each(|values| all(values, self.residual));
            }
        }
        if self.scores_by_layer {
            let share = 1.0 / (layer + 1) as f32;
            for kind in [K::Query, K::QueryBias] {
                weights.values_mut(kind).into_iter().for_each(|values| all(values, share));
            }
        }
        let local = spec.architecture.has_local_frequencies() && spec.window(layer).is_some();
        let amplitude = if local { self.local_amplitude } else { self.amplitude };
        if amplitude != 1.0 && spec.rotates(layer) {
            // Behind a norm of heads what is in front of it has no size.
            let kinds: &[K] = match spec.architecture.has_head_norms() {
                true => &[K::QueryNorm, K::KeyNorm],
                false => &[K::Query, K::Key, K::QueryBias, K::KeyBias],
            };
            for kind in kinds {
                let cols = weights.matrix(*kind).map_or(1, |matrix| matrix.cols);
                let (head, rotated) =
                    (spec.head_dim as usize * cols, spec.variant.rotary_dim as usize * cols);
                let values = weights.values_mut(*kind).unwrap_or_default();
                values.chunks_exact_mut(head).for_each(|head| all(&mut head[..rotated], amplitude));
            }
        }
    }

    /// Multiplies into the norm in front of the head; an encoder has nothing to multiply.
    pub(super) fn multiply_stream_norm(&self, norm: &mut StreamNorm) {
        if self.logits != 1.0 {
            norm.gain.iter_mut().chain(&mut norm.bias).for_each(|value| *value *= self.logits);
        }
    }
}
