//! Transforms that leave a model's function as it is and make its weights easier to quantize: changes of basis and channel scales that are
//! folded into the weights as a checkpoint is read.
//!
//! ```text
//! scales (smooth)   x / s enters a linear whose columns are multiplied with s: into the norm or the linear before
//! norms             an RMSNorm's gain into the columns of the matrices behind it
//! stream (R1)       the residual stream in another basis: E R, W R of what reads it, R^T W of what writes it
//! heads (R2)        each head's values in another basis: R^T W of values, W R of the output projection
//! ```
//! Everything downstream (calibration, the full-precision reference, packing) sees a checkpoint like any other.

mod norms;
mod rotation;
pub mod spinquant;

pub use rotation::Rotation;

use crate::checkpoint::{LayerWeights, Matrix};
use rescomp_formats::section::SectionKind as K;
use rescomp_formats::spec::{Architecture, ModelSpec};
use rotation::{rotate_inputs, rotate_outputs};

/// The transforms by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformKind {
    /// The weights as they are.
    None,
    /// Random rotations of the stream and of the heads' values.
    Quarot,
    /// Rotations of the same that are learned.
    Spinquant,
}

impl TransformKind {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            TransformKind::None => "none",
            TransformKind::Quarot => "quarot",
            TransformKind::Spinquant => "spinquant",
        }
    }
}

/// What is folded into a checkpoint's weights.
#[derive(Clone, Debug, Default)]
pub struct Transform {
    /// R1, of the residual stream: norms are folded.
    pub stream: Option<Rotation>,
    /// R2, of each layer's values; none, or one for each layer.
    pub heads: Vec<Rotation>,
}

/// Seeds of R1 and, from it on, of each layer's R2.
const SEED: u64 = 0x0051_0a20;

impl Transform {
    /// QuaRot's rotations that need nothing at run time: R1 and R2, random (Ashkboos et al., arXiv 2404.00456, section 3.1, without the online
    /// transforms).
    pub fn quarot(spec: &ModelSpec) -> Transform {
        let head = |layer| Rotation::random(spec.head_dim as usize, SEED + 1 + u64::from(layer));
        Transform {
            stream: Some(Rotation::random(spec.hidden as usize, SEED)),
            heads: (0..spec.layers).map(head).collect(),
        }
    }

    /// Whether the stream of this model can be rotated: its norms are RMSNorms in front of attention and MLP, and of nothing else.
    pub fn rotates_stream_of(architecture: Architecture) -> bool {
        matches!(architecture, Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3)
    }

    /// Transforms the weights of a block.
    pub(crate) fn transform_layer(&self, layer: usize, weights: &mut LayerWeights) {
        if let Some(stream) = &self.stream {
            norms::fold(weights);
            for (_, behind) in norms::NORMS {
                for kind in behind {
                    weights.matrix_mut(*kind).into_iter().for_each(|matrix| rotate_inputs(matrix, stream));
                }
            }
            for kind in [K::Output, K::Down] {
                weights
                    .matrix_mut(kind)
                    .into_iter()
                    .for_each(|matrix| rotate_outputs(&mut matrix.data, matrix.cols, stream));
            }
        }
        if let Some(heads) = self.heads.get(layer) {
            let values = weights.matrix_mut(K::Value).into_iter();
            values.for_each(|matrix| rotate_outputs(&mut matrix.data, matrix.cols, heads));
            let bias = weights.vector_mut(K::ValueBias).into_iter();
            bias.for_each(|bias| rotate_outputs(bias, 1, heads));
            weights.matrix_mut(K::Output).into_iter().for_each(|matrix| rotate_inputs(matrix, heads));
        }
    }

    /// Transforms the embedding.
    pub(crate) fn transform_embedding(&self, embedding: &mut Matrix) {
        self.stream.iter().for_each(|stream| rotate_inputs(embedding, stream));
    }

    /// Transforms the head, in which the gain of the norm before it is folded.
    pub(crate) fn transform_head(&self, head: &mut Matrix, gain: &mut [f32]) {
        if let Some(stream) = &self.stream {
            norms::multiply_columns(head, gain);
            gain.fill(1.0);
            rotate_inputs(head, stream);
        }
    }
}
