//! Transforms that leave a model's function as it is and make its weights easier to quantize: changes of basis and channel scales that are
//! folded into the weights as a checkpoint is read.
//!
//! ```text
//! scales (smooth)   x / s enters a linear whose columns are multiplied with s: into the norm or the linear before
//! norms             a norm's gain into the columns of the matrices behind it, a LayerNorm's bias into their biases
//! stream (R1)       the residual stream in another basis: E R, W R of what reads it, R^T W of what writes it; under LayerNorms 1 R = 1
//! heads (R2)        each head's values in another basis: R^T W of values, W R of the output projection
//! online            the inputs of the output and down projections in another basis: W H, and the forward computes x H
//! ```
//! Everything downstream (calibration, the full-precision reference, packing) sees a checkpoint like any other.

mod build;
mod digest;
mod norms;
mod rotation;
mod scales;
mod select;
mod smooth;
pub mod spinquant;

pub use build::{TransformError, build};
pub use norms::NotFolded;
pub use rotation::Rotation;
pub use scales::LayerScales;
pub use select::{Candidate, SelectError, Selected, select};
pub use smooth::smooth;

use crate::checkpoint::{LayerWeights, Matrix, StreamNorm};
use rescomp_formats::hadamard::Hadamard;
use rescomp_formats::section::SectionKind as K;
use rescomp_formats::spec::{Architecture, ModelSpec};
use rotation::{rotate_inputs, rotate_inputs_behind, rotate_outputs};
use std::fmt;

/// The transforms by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransformKind {
    /// The weights as they are.
    #[default]
    None,
    /// Channel scales, chosen by the loss of each set of matrices on held-out tokens.
    Smooth,
    /// Random rotations of the stream and of the heads' values.
    Quarot,
    /// Random rotations of the stream, and Hadamard transforms of the inputs of the output and down projections at run time.
    QuarotOnline,
    /// Rotations of the same that are learned.
    Spinquant,
}

impl TransformKind {
    /// Every transform, in the order in which ties are broken.
    pub const ALL: [TransformKind; 5] = [
        TransformKind::None,
        TransformKind::Smooth,
        TransformKind::Quarot,
        TransformKind::QuarotOnline,
        TransformKind::Spinquant,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            TransformKind::None => "none",
            TransformKind::Smooth => "smooth",
            TransformKind::Quarot => "quarot",
            TransformKind::QuarotOnline => "quarot-online",
            TransformKind::Spinquant => "spinquant",
        }
    }
}

impl fmt::Display for TransformKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is folded into a checkpoint's weights: first the scales, then the rotations.
#[derive(Clone, Debug, Default)]
pub struct Transform {
    /// What it is called.
    pub kind: TransformKind,
    /// Channel scales of each layer; none, or one for each.
    pub scales: Vec<LayerScales>,
    /// R1, of the residual stream: norms are folded.
    pub stream: Option<Rotation>,
    /// R2, of each layer's values; none, or one for each layer.
    pub heads: Vec<Rotation>,
    /// The forward passes the inputs of the output and down projections through Hadamard transforms.
    pub online: bool,
}

/// Seeds of R1 and, from it on, of each layer's R2.
const SEED: u64 = 0x0051_0a20;

impl Transform {
    /// QuaRot's rotations that need nothing at run time: R1 and R2, random (Ashkboos et al., arXiv 2404.00456, section 3.1, without the online
    /// transforms). Under LayerNorms R1 keeps the mean, so that they needn't become RMSNorms, which the paper makes of them.
    pub fn quarot(spec: &ModelSpec) -> Transform {
        let stream = match spec.architecture.has_layer_norm() {
            true => Rotation::random_keeping_mean,
            false => Rotation::random,
        };
        let head = |layer| Rotation::random(spec.head_dim as usize, SEED + 1 + u64::from(layer));
        Transform {
            kind: TransformKind::Quarot,
            stream: Some(stream(spec.hidden as usize, SEED)),
            heads: (0..spec.layers).map(head).collect(),
            ..Transform::default()
        }
    }

    /// QuaRot with its online transforms (likewise): R1, and Hadamard transforms in front of the output projection, over all heads, and of the
    /// down projection.
    pub fn quarot_online(spec: &ModelSpec) -> Transform {
        Transform {
            kind: TransformKind::QuarotOnline,
            heads: Vec::new(),
            online: true,
            ..Transform::quarot(spec)
        }
    }

    /// Whether the stream of this model can be rotated: its norms are in front of attention and MLP, and of nothing else.
    pub fn rotates_stream_of(architecture: Architecture) -> bool {
        use Architecture as A;
        architecture.is_decoder() && !matches!(architecture, A::Gemma2 | A::Gemma3 | A::Olmo2)
    }

    /// Transforms the weights of a block.
    ///
    /// # Errors
    /// A norm that can't be folded.
    pub(crate) fn transform_layer(
        &self,
        spec: &ModelSpec,
        layer: usize,
        weights: &mut LayerWeights,
    ) -> Result<(), NotFolded> {
        if let Some(scales) = self.scales.get(layer) {
            scales.multiply(spec, weights);
        }
        if let Some(stream) = &self.stream {
            norms::fold_and_rotate(weights, stream)?;
            for (kind, bias) in [(K::Output, K::OutputBias), (K::Down, K::DownBias)] {
                let written = weights.matrix_mut(kind).into_iter();
                written.for_each(|matrix| rotate_outputs(&mut matrix.data, matrix.cols, stream));
                weights.vector_mut(bias).into_iter().for_each(|bias| rotate_outputs(bias, 1, stream));
            }
        }
        if let Some(heads) = self.heads.get(layer) {
            let values = weights.matrix_mut(K::Value).into_iter();
            values.for_each(|matrix| rotate_outputs(&mut matrix.data, matrix.cols, heads));
            let bias = weights.vector_mut(K::ValueBias).into_iter();
            bias.for_each(|bias| rotate_outputs(bias, 1, heads));
            weights.matrix_mut(K::Output).into_iter().for_each(|matrix| rotate_inputs(matrix, heads));
        }
        if self.online {
            for kind in [K::Output, K::Down] {
                let Some(matrix) = weights.matrix_mut(kind) else { continue };
                // Where there is none the model was refused.
                let Some(hadamard) = Hadamard::new(matrix.cols) else { continue };
                rotate_inputs(matrix, &Rotation::plain(hadamard));
            }
        }
        Ok(())
    }

    /// Transforms the embedding, or the vectors of positions.
    pub(crate) fn transform_embedding(&self, embedding: &mut Matrix) {
        self.stream.iter().for_each(|stream| rotate_inputs(embedding, stream));
    }

    /// Transforms a head of its own, which takes in the gain of the norm before it.
    pub(crate) fn transform_head(&self, head: &mut Matrix, gain: &[f32]) {
        if let Some(stream) = &self.stream {
            rotate_inputs_behind(head, gain, stream);
        }
    }

    /// Transforms the last norm: its gain goes into the head, or, where that is the embedding E, into what stands between.
    ///
    /// With `u` the norm's output without gain, `u R` comes out of the rotated stream's. The logits are
    /// `(u diag(g)) E^T = (u R) (R^T diag(g) R) (E R)^T`. A LayerNorm's bias stays with it.
    ///
    /// # Errors
    /// A bias where the gain is 0.
    pub(crate) fn transform_norm(&self, norm: &mut StreamNorm, tied_head: bool) -> Result<(), NotFolded> {
        let Some(stream) = &self.stream else { return Ok(()) };
        norms::divide_and_rotate(K::FinalNorm.name(), &norm.gain, &mut norm.bias, stream)?;
        if tied_head {
            let elems = norm.gain.len();
            let mut data = vec![0.0; elems * elems];
            data.iter_mut().step_by(elems + 1).zip(&norm.gain).for_each(|(diagonal, gain)| *diagonal = *gain);
            rotate_outputs(&mut data, elems, stream);
            let mut matrix = Matrix { rows: elems, cols: elems, data };
            rotate_inputs(&mut matrix, stream);
            norm.head_input = Some(matrix);
        }
        norm.gain.fill(1.0);
        Ok(())
    }
}
