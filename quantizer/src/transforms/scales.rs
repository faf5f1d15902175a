//! Channel scales: `x / s` enters a linear layer whose columns are multiplied with `s`.
//!
//! The division is folded into what makes x: the gain (and bias) of a norm, the rows of the value projection, the rows of the up projection.
//! Source: Xiao et al., "SmoothQuant", arXiv 2211.10438, section 4, and Lin et al., "AWQ", arXiv 2306.00978, section 3.2.

use super::norms::multiply_columns;
use crate::checkpoint::LayerWeights;
use rescomp_formats::section::SectionKind as K;
use rescomp_formats::spec::{Architecture, ModelSpec};
use rescomp_runtime::linear::LinearSet;

/// The scales of one block, by what they divide; none where a set is left alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerScales {
    /// `hidden`: the input of query, key and value.
    pub attention: Vec<f32>,
    /// `kv_heads * head_dim`: the values, and with them the input of the output projection of every head that sees them.
    pub values: Vec<f32>,
    /// `hidden`: the input of gate and up, or of up.
    pub mlp: Vec<f32>,
    /// `intermediate`: the input of the down projection, behind a gate.
    pub down: Vec<f32>,
}

impl LayerScales {
    /// Whether a set's input can be scaled: what makes it is linear in some weights, and nothing else sees it.
    pub fn can_scale(architecture: Architecture, set: LinearSet) -> bool {
        match set {
            // Without norms in front the stream itself is the input: BERT's stand behind the sum, OLMo 2's behind attention and MLP.
            LinearSet::QueryKeyValue | LinearSet::GateUp | LinearSet::Up => architecture.norms_before(),
            LinearSet::Output => true,
            LinearSet::Down => architecture.has_gate(),
        }
    }

    /// The scales of a set's input, as many as it has elements.
    pub fn set(&mut self, spec: &ModelSpec, set: LinearSet, scales: Vec<f32>) {
        match set {
            LinearSet::QueryKeyValue => self.attention = scales,
            LinearSet::Output => self.values = first_of_each(heads_of(spec), &scales),
            LinearSet::GateUp | LinearSet::Up => self.mlp = scales,
            LinearSet::Down => self.down = scales,
        }
    }

    /// Multiplies the scales into a block.
    pub(super) fn multiply(&self, spec: &ModelSpec, weights: &mut LayerWeights) {
        let inverse = |scales: &[f32]| -> Vec<f32> { scales.iter().map(|scale| 1.0 / scale).collect() };
        let columns = |weights: &mut LayerWeights, kinds: &[K], scales: &[f32]| {
            for kind in kinds {
                weights.matrix_mut(*kind).into_iter().for_each(|matrix| multiply_columns(matrix, scales));
            }
        };
        // Of a matrix each row, of a vector each element.
        let outputs = |weights: &mut LayerWeights, kinds: &[K], scales: &[f32]| {
            for kind in kinds {
                let Some(values) = weights.values_mut(*kind) else { continue };
                let cols = values.len() / scales.len();
                values.chunks_exact_mut(cols).zip(scales).for_each(|(row, scale)| {
                    row.iter_mut().for_each(|value| *value *= scale);
                });
            }
        };
        if !self.attention.is_empty() {
            outputs(weights, &[K::AttentionNorm, K::AttentionNormBias], &inverse(&self.attention));
            columns(weights, &[K::Query, K::Key, K::Value], &self.attention);
        }
        if !self.values.is_empty() {
            outputs(weights, &[K::Value, K::ValueBias], &inverse(&self.values));
            columns(weights, &[K::Output], &of_each_head(heads_of(spec), &self.values));
        }
        if !self.mlp.is_empty() {
            outputs(weights, &[K::MlpNorm, K::MlpNormBias], &inverse(&self.mlp));
            columns(weights, &[K::Gate, K::Up], &self.mlp);
        }
        if !self.down.is_empty() {
            outputs(weights, &[K::Up], &inverse(&self.down));
            columns(weights, &[K::Down], &self.down);
        }
    }
}

/// Elements of a head, and query heads that see the same values.
pub(super) fn heads_of(spec: &ModelSpec) -> [usize; 2] {
    [spec.head_dim as usize, (spec.heads / spec.kv_heads) as usize]
}

/// What belongs to the kv heads, for every query head that sees them: `heads * head_dim`.
fn of_each_head([head, shared]: [usize; 2], values: &[f32]) -> Vec<f32> {
    values.chunks_exact(head).flat_map(|head| std::iter::repeat_n(head, shared)).flatten().copied().collect()
}

/// The inverse of [`of_each_head`].
fn first_of_each([head, shared]: [usize; 2], all: &[f32]) -> Vec<f32> {
    all.chunks_exact(head).step_by(shared).flatten().copied().collect()
}

/// Makes numbers of all heads the same for those that share values: their mean.
pub(super) fn average_shared_heads([head, shared]: [usize; 2], all: &mut [f64]) {
    for heads in all.chunks_exact_mut(head * shared) {
        for at in 0..head {
            let mean = heads.iter().skip(at).step_by(head).sum::<f64>() / shared as f64;
            heads.iter_mut().skip(at).step_by(head).for_each(|number| *number = mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_share_values_share_scales() {
        let heads = [2, 2];
        let values = [1.0, 2.0, 3.0, 4.0];
        let all = of_each_head(heads, &values);
        assert_eq!(all, [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
        assert_eq!(first_of_each(heads, &all), values);
        let mut different = [1.0, 2.0, 3.0, 6.0, 0.0, 0.0, 2.0, 2.0];
        average_shared_heads(heads, &mut different);
        assert_eq!(different, [2.0, 4.0, 2.0, 4.0, 1.0, 1.0, 1.0, 1.0]);
    }
}
