//! The forward of Llama's kind of model in the autodiff crate, with weights that are rotated inside the graph: gradients reach R1 and R2.
//!
//! ```text
//! query, key, gate, up   Q(W diag(g) R1)
//! value                  Q(R2^T W diag(g) R1), R2 of each head
//! output                 Q(R1^T W R2)
//! down                   Q(R1^T W)
//! logits                 (rms_norm(x) R1^T) (Whead diag(g))^T
//! ```
//! Weights are a row an output, as everywhere. The stream is rotated where it begins and turned back where it ends, so embedding and head are
//! the checkpoint's. Shapes: `n` tokens (windows x positions), `d` hidden, `h` heads, `g` kv heads, `e` head_dim.

use super::operations::{Angles, CausalSoftmax, Rotary};
use crate::checkpoint::{Checkpoint, CheckpointError, LayerWeights, Matrix};
use crate::transforms::{Transform, norms};
use candle_core::{Device, Result, Tensor};
use rescomp_formats::section::SectionKind as K;
use rescomp_formats::spec::{Activation, ModelSpec};
use rescomp_runtime::kernels::sin_cos_turn;
use std::sync::Arc;

/// What a block's matrices become in the forward: quantized, or as they are.
pub(super) type Rounding<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// A full-precision model, norms folded, not rotated.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) spec: ModelSpec,
    /// The embedding, as it enters the first block.
    embedding: Matrix,
    /// The head with the last norm's gain, `vocabulary x d`.
    pub(super) head: Matrix,
    layers: Vec<Layer>,
    angles: Arc<Angles>,
    pub(super) positions: usize,
}

/// A block: matrices of `outputs x inputs`, vectors of one dimension.
#[derive(Debug)]
struct Layer {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    biases: Option<[Tensor; 3]>,
    /// Gains of heads' queries and keys.
    head_norms: Option<[Tensor; 2]>,
}

/// R1 and each layer's R2, `d x d` and `e x e`.
#[derive(Clone, Debug)]
pub(super) struct Rotations {
    pub(super) stream: Tensor,
    pub(super) heads: Vec<Tensor>,
}

/// A block as it is multiplied with: rotated and rounded.
#[derive(Debug)]
struct Rotated {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    value_bias: Option<Tensor>,
}

/// All blocks so.
#[derive(Debug)]
pub(super) struct RotatedModel {
    layers: Vec<Rotated>,
    stream: Tensor,
}

fn tensor(matrix: &Matrix) -> Result<Tensor> {
    Tensor::from_slice(&matrix.data, (matrix.rows, matrix.cols), &Device::Cpu)
}

/// Why a model could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Model {
    /// Reads a checkpoint whose stream can be rotated, for windows of `positions`.
    ///
    /// # Errors
    /// Weights that cannot be read, or a block that lacks one.
    pub(super) fn read(checkpoint: &Checkpoint, positions: usize) -> std::result::Result<Model, ReadError> {
        let plain = checkpoint.transformed(Transform::default())?;
        let spec = plain.spec.clone();
        let mut embedding = plain.embedding()?;
        let mut head = match plain.head()? {
            Some(head) => head,
            None => embedding.clone(),
        };
        norms::multiply_columns(&mut head, &plain.final_norm()?.gain);
        let scale = spec.variant.embedding_scale;
        embedding.data.iter_mut().for_each(|value| *value *= scale);
        let mut layers = Vec::new();
        for layer in 0..spec.layers as usize {
            let mut weights = plain.layer(layer)?;
            norms::fold(&mut weights);
            layers.push(Layer::new(&weights)?);
        }
        let angles = |position: usize| {
            plain.rope.iter().map(move |&turns| sin_cos_turn((position as u64).wrapping_mul(turns)))
        };
        let (sines, cosines) = (0..positions).flat_map(angles).unzip();
        let angles = Arc::new(Angles { pairs: plain.rope.len(), cosines, sines });
        Ok(Model { spec, embedding, head, layers, angles, positions })
    }

    /// The blocks' weights, rotated and rounded.
    ///
    /// # Errors
    /// What `rounding` fails with.
    pub(super) fn rotated(&self, rotations: &Rotations, rounding: Rounding<'_>) -> Result<RotatedModel> {
        let stream = &rotations.stream;
        let back = stream.t()?;
        let read = |weights: &Tensor| rounding(&weights.matmul(stream)?);
        let write = |weights: &Tensor| rounding(&back.matmul(weights)?);
        let layer = |(layer, heads): (&Layer, &Tensor)| {
            Ok(Rotated {
                query: read(&layer.query)?,
                key: read(&layer.key)?,
                value: rounding(&rotate_outputs(&layer.value.matmul(stream)?, heads)?)?,
                output: write(&rotate_inputs(&layer.output, heads)?)?,
                gate: read(&layer.gate)?,
                up: read(&layer.up)?,
                down: write(&layer.down)?,
                value_bias: match &layer.biases {
                    Some([_, _, value]) => Some(rotate_inputs(&value.unsqueeze(0)?, heads)?.squeeze(0)?),
                    None => None,
                },
            })
        };
        let layers: Result<_> = self.layers.iter().zip(&rotations.heads).map(layer).collect();
        Ok(RotatedModel { layers: layers?, stream: stream.clone() })
    }

    /// The head's inputs (n x d), in the checkpoint's basis, of the first positions of `windows`.
    ///
    /// # Errors
    /// Those of the autodiff crate.
    pub(super) fn hidden(&self, weights: &RotatedModel, windows: &[&[u32]]) -> Result<Tensor> {
        let hidden = self.spec.hidden as usize;
        let tokens = windows.iter().flat_map(|window| &window[..self.positions]);
        let embedded: Vec<f32> =
            tokens.flat_map(|&token| self.embedding.row(token as usize)).copied().collect();
        let mut stream = Tensor::from_vec(embedded, (windows.len() * self.positions, hidden), &Device::Cpu)?
            .matmul(&weights.stream)?;
        for (index, (layer, rotated)) in self.layers.iter().zip(&weights.layers).enumerate() {
            let input = self.rms_norm(&stream)?;
            let attended = self.attention(index, layer, rotated, &input)?;
            stream = (stream + product(&attended, &rotated.output)?)?;
            let input = self.rms_norm(&stream)?;
            let gate = product(&input, &rotated.gate)?;
            let gate = match self.spec.variant.activation {
                Activation::GeluTanh => gate.gelu()?,
                _ => gate.silu()?,
            };
            let gated = gate.mul(&product(&input, &rotated.up)?)?;
            stream = (stream + product(&gated, &rotated.down)?)?;
        }
        self.rms_norm(&stream)?.matmul(&weights.stream.t()?)
    }

    /// `x / sqrt(mean(x^2) + epsilon)` of rows.
    fn rms_norm(&self, values: &Tensor) -> Result<Tensor> {
        let dimension = values.rank() - 1;
        let square = (values.sqr()?.mean_keepdim(dimension)? + f64::from(self.spec.norm_epsilon))?;
        values.broadcast_mul(&square.sqrt()?.recip()?)
    }

    /// Queries or keys of heads (n x heads x e): normalized where the model does that, and turned by position.
    fn positioned(&self, layer: usize, heads: Tensor, gain: Option<&Tensor>) -> Result<Tensor> {
        let heads = match gain {
            Some(gain) => self.rms_norm(&heads)?.broadcast_mul(gain)?,
            None => heads,
        };
        if !self.spec.rotates(layer) {
            return Ok(heads);
        }
        heads.apply_op1(Rotary { angles: Arc::clone(&self.angles), back: false })
    }

    /// Outputs of all heads (n x h e).
    fn attention(&self, index: usize, layer: &Layer, rotated: &Rotated, input: &Tensor) -> Result<Tensor> {
        let spec = &self.spec;
        let (h, g, e) = (spec.heads as usize, spec.kv_heads as usize, spec.head_dim as usize);
        let (n, c) = (input.dim(0)?, self.positions);
        let (windows, sharing) = (n / c, h / g);
        let of = |weights: &Tensor, bias: Option<&Tensor>, heads: usize| {
            let product = product(input, weights)?;
            let product = match bias {
                Some(bias) => product.broadcast_add(bias)?,
                None => product,
            };
            product.reshape((n, heads, e))
        };
        let biases = layer.biases.as_ref();
        let norms = layer.head_norms.as_ref();
        let query = of(&rotated.query, biases.map(|[query, ..]| query), h)?;
        let query = self.positioned(index, query, norms.map(|[query, _]| query))?;
        let key = of(&rotated.key, biases.map(|[_, key, _]| key), g)?;
        let key = self.positioned(index, key, norms.map(|[_, key]| key))?;
        let value = of(&rotated.value, rotated.value_bias.as_ref(), g)?;
        // Heads that share keys and values lie below each other: (windows g) x (sharing c) x e.
        let query = query
            .reshape((windows, c, g, sharing, e))?
            .permute((0, 2, 3, 1, 4))?
            .contiguous()?
            .reshape((windows * g, sharing * c, e))?;
        let kept = |heads: Tensor| {
            heads.reshape((windows, c, g, e))?.permute((0, 2, 1, 3))?.contiguous()?.reshape((
                windows * g,
                c,
                e,
            ))
        };
        let (key, value) = (kept(key)?, kept(value)?);
        let mut scores = query.matmul(&key.t()?)?;
        let mut scale = match spec.variant.score_scale {
            0.0 => 1.0 / (e as f32).sqrt(),
            scale => scale,
        };
        let cap = spec.variant.score_cap;
        if cap > 0.0 {
            scores = ((scores * f64::from(scale / cap))?.tanh()? * f64::from(cap))?;
            scale = 1.0;
        }
        let weights = scores.apply_op1(CausalSoftmax { scale, window: spec.window(index) })?;
        weights
            .matmul(&value)?
            .reshape((windows, g, sharing, c, e))?
            .permute((0, 3, 1, 2, 4))?
            .contiguous()?
            .reshape((n, h * e))
    }
}

impl Layer {
    fn new(weights: &LayerWeights) -> Result<Layer> {
        let matrix = |kind: K| match weights.matrix(kind) {
            Some(matrix) => tensor(matrix),
            None => candle_core::bail!("the block has no {}", kind.name()),
        };
        let vector = |kind: K| {
            weights
                .vector(kind)
                .map(|values| Tensor::from_slice(values, values.len(), &Device::Cpu))
                .transpose()
        };
        let biases = match (vector(K::QueryBias)?, vector(K::KeyBias)?, vector(K::ValueBias)?) {
            (Some(query), Some(key), Some(value)) => Some([query, key, value]),
            _ => None,
        };
        let head_norms = match (vector(K::QueryNorm)?, vector(K::KeyNorm)?) {
            (Some(query), Some(key)) => Some([query, key]),
            _ => None,
        };
        Ok(Layer {
            query: matrix(K::Query)?,
            key: matrix(K::Key)?,
            value: matrix(K::Value)?,
            output: matrix(K::Output)?,
            gate: matrix(K::Gate)?,
            up: matrix(K::Up)?,
            down: matrix(K::Down)?,
            biases,
            head_norms,
        })
    }
}

/// `x W^T`.
fn product(input: &Tensor, weights: &Tensor) -> Result<Tensor> {
    input.matmul(&weights.t()?)
}

/// `W R` for each part of W's columns.
fn rotate_inputs(weights: &Tensor, rotation: &Tensor) -> Result<Tensor> {
    let (rows, cols) = weights.dims2()?;
    let part = rotation.dim(0)?;
    weights.reshape((rows * cols / part, part))?.matmul(rotation)?.reshape((rows, cols))
}

/// `R^T W` for each part of W's rows.
fn rotate_outputs(weights: &Tensor, rotation: &Tensor) -> Result<Tensor> {
    let (rows, cols) = weights.dims2()?;
    let part = rotation.dim(0)?;
    let parts = rows / part;
    let side_by_side = weights
        .reshape((parts, part, cols))?
        .permute((1, 0, 2))?
        .contiguous()?
        .reshape((part, parts * cols))?;
    let rotated = rotation.t()?.matmul(&side_by_side)?;
    rotated.reshape((part, parts, cols))?.permute((1, 0, 2))?.contiguous()?.reshape((rows, cols))
}
