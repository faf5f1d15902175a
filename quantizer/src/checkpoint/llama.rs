//! The weights of a Llama checkpoint, loaded a layer at a time.
//!
//! With hidden width `h`, intermediate width `f`, `q` query and `kv` key outputs and `v` tokens, transformers'
//! `LlamaForCausalLM` has these tensors, all `[outputs, inputs]`, and no biases:
//!
//! ```text
//! model.embed_tokens.weight [v, h]    model.norm.weight [h]    lm_head.weight [v, h] (absent when tied)
//! model.layers.{i}.input_layernorm.weight [h]    .post_attention_layernorm.weight [h]
//!     .self_attn.{q,k,v}_proj.weight [q|kv|kv, h]    .self_attn.o_proj.weight [h, q]
//!     .mlp.{gate,up}_proj.weight [f, h]              .mlp.down_proj.weight [h, f]
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rescomp_formats::spec::ModelSpec;

use super::{CheckpointError, HfConfig, TensorStore};

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";
/// Buffers that old transformers saved beside the weights; they follow from `config.json`.
const ROTARY_BUFFER: &str = ".rotary_emb.inv_freq";

/// A dense matrix in row-major order: row `r` holds the weights of output `r`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `rows * cols` elements.
    pub data: Vec<f32>,
}

impl Matrix {
    /// The weights of one output.
    ///
    /// # Panics
    /// `row` is not below `rows`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }
}

/// The weights of one transformer block, with hidden width `h`, intermediate width `f`, `q` query and `kv` key outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights {
    /// Gain of the norm before attention, `h`.
    pub attention_norm: Vec<f32>,
    /// Query projection, `[q, h]`.
    pub query: Matrix,
    /// Key projection, `[kv, h]`.
    pub key: Matrix,
    /// Value projection, `[kv, h]`.
    pub value: Matrix,
    /// Output projection of attention, `[h, q]`.
    pub output: Matrix,
    /// Gain of the norm before the MLP, `h`.
    pub mlp_norm: Vec<f32>,
    /// Gate projection, `[f, h]`.
    pub gate: Matrix,
    /// Up projection, `[f, h]`.
    pub up: Matrix,
    /// Down projection, `[h, f]`.
    pub down: Matrix,
}

/// An opened checkpoint: everything about it is known and checked but the weights' values, which are read on demand.
///
/// The files must not be changed while this lives.
#[derive(Debug)]
pub struct Checkpoint {
    /// Sizes and constants.
    pub spec: ModelSpec,
    /// Turns a position of each rotary pair, in units of 2^-64 turns: `head_dim / 2` values
    /// (see [`Rope::turns_per_position`](super::Rope::turns_per_position)).
    pub rope: Vec<u64>,
    dir: PathBuf,
    store: TensorStore,
}

impl Checkpoint {
    /// Opens a Hugging Face folder and checks it whole, but for the values of the weights.
    ///
    /// Where `tie_word_embeddings` is true and the weights hold a head all the same, it must equal the embedding: some
    /// versions of transformers ignore such a head and some compute with it, so a different one has no one meaning.
    ///
    /// # Errors
    /// Anything [`HfConfig::read`] or [`TensorStore::open`] refuses; a tensor of the architecture is missing or has
    /// another shape or type; there are tensors beyond the architecture's (rotary buffers are passed over); the tied
    /// head differs.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let HfConfig { spec, rope } = HfConfig::read(&dir.join("config.json"))?;
        let rope = rope.turns_per_position(spec.head_dim);
        let checkpoint = Self { spec, rope, dir: dir.to_owned(), store: TensorStore::open(dir)? };
        checkpoint.check_tensors()?;
        if checkpoint.spec.tied_head && checkpoint.store.shape(HEAD).is_some() {
            checkpoint.check_tied_head()?;
        }
        Ok(checkpoint)
    }

    /// Token embeddings, `[vocabulary, hidden]`.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn embedding(&self) -> Result<Matrix, CheckpointError> {
        self.matrix(EMBEDDING, self.vocabulary_shape())
    }

    /// The output head, `[vocabulary, hidden]`; `None` where it is the embedding.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn head(&self) -> Result<Option<Matrix>, CheckpointError> {
        if self.spec.tied_head {
            return Ok(None);
        }
        self.matrix(HEAD, self.vocabulary_shape()).map(Some)
    }

    /// Gain of the norm before the head, `hidden` elements.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn final_norm(&self) -> Result<Vec<f32>, CheckpointError> {
        self.store.tensor_f32(FINAL_NORM, &[self.spec.hidden as usize])
    }

    /// The weights of block `layer`, counted from 0.
    ///
    /// # Errors
    /// An element is not finite; or `layer` is not below the model's layers, which is reported as a missing tensor.
    pub fn layer(&self, layer: usize) -> Result<LayerWeights, CheckpointError> {
        let matrix = |part: LayerPart| {
            let (name, shape) = part.tensor(layer, &self.spec);
            match shape.as_slice() {
                &[rows, cols] => self.matrix(&name, [rows, cols]),
                // A gain: one row.
                _ => self.store.tensor_f32(&name, &shape).map(|data| Matrix {
                    rows: 1,
                    cols: data.len(),
                    data,
                }),
            }
        };
        Ok(LayerWeights {
            attention_norm: matrix(LayerPart::AttentionNorm)?.data,
            query: matrix(LayerPart::Query)?,
            key: matrix(LayerPart::Key)?,
            value: matrix(LayerPart::Value)?,
            output: matrix(LayerPart::Output)?,
            mlp_norm: matrix(LayerPart::MlpNorm)?.data,
            gate: matrix(LayerPart::Gate)?,
            up: matrix(LayerPart::Up)?,
            down: matrix(LayerPart::Down)?,
        })
    }

    /// The folder's name, which is the model's wherever it is shown.
    pub fn name(&self) -> String {
        // "." and ".." have no name of their own.
        let resolved =
            || self.dir.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        match self.dir.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => resolved().unwrap_or_else(|| self.dir.to_string_lossy().into_owned()),
        }
    }

    /// Number of weights; a tied head is counted once, as the embedding.
    pub fn parameters(&self) -> u64 {
        architecture_tensors(&self.spec)
            .map(|(_, shape)| shape.iter().map(|&size| size as u64).product::<u64>())
            .sum()
    }

    /// Bytes of the weight files.
    pub fn weight_bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// SHA-256 of the weight files (see [`TensorStore::digest`]).
    pub fn digest(&self) -> [u8; 32] {
        self.store.digest()
    }

    /// Where the tokenizer is in such a folder. Whether it is there shows when it is read.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.dir.join("tokenizer.json")
    }

    /// The tensors as stored.
    pub fn tensors(&self) -> &TensorStore {
        &self.store
    }

    fn vocabulary_shape(&self) -> [usize; 2] {
        [self.spec.vocabulary as usize, self.spec.hidden as usize]
    }

    fn matrix(&self, tensor: &str, [rows, cols]: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let data = self.store.tensor_f32(tensor, &[rows, cols])?;
        Ok(Matrix { rows, cols, data })
    }

    /// Headers only: what must be there is, and nothing else.
    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let mut known = BTreeSet::new();
        for (tensor, shape) in architecture_tensors(&self.spec) {
            self.store.check(&tensor, &shape)?;
            known.insert(tensor);
        }
        let accepted = |name: &str| {
            known.contains(name) || name.ends_with(ROTARY_BUFFER) || (name == HEAD && self.spec.tied_head)
        };
        let unexpected: Vec<&str> = self.store.names().filter(|name| !accepted(name)).collect();
        if unexpected.is_empty() {
            return Ok(());
        }
        const SHOWN: usize = 5;
        let more = if unexpected.len() > SHOWN { ", ..." } else { "" };
        Err(CheckpointError::UnexpectedTensors {
            path: self.store.path().to_owned(),
            count: unexpected.len(),
            tensors: unexpected[..unexpected.len().min(SHOWN)].join(", ") + more,
        })
    }

    fn check_tied_head(&self) -> Result<(), CheckpointError> {
        self.store.check(HEAD, &self.vocabulary_shape())?;
        // The usual case costs no memory; only where the stored bytes differ are the values compared.
        if self.store.stored_alike(EMBEDDING, HEAD) {
            return Ok(());
        }
        let (embedding, head) = (self.embedding()?, self.store.tensor_f32(HEAD, &self.vocabulary_shape())?);
        let differs = |(ours, theirs): (&f32, &f32)| ours != theirs;
        match embedding.data.iter().zip(&head).position(differs) {
            None => Ok(()),
            Some(at) => Err(CheckpointError::TiedHeadDiffers {
                path: self.store.path_of(HEAD).to_owned(),
                row: at / embedding.cols,
                column: at % embedding.cols,
                embedding: embedding.data[at],
                head: head[at],
            }),
        }
    }
}

/// The tensors of one block.
#[derive(Clone, Copy)]
enum LayerPart {
    AttentionNorm,
    Query,
    Key,
    Value,
    Output,
    MlpNorm,
    Gate,
    Up,
    Down,
}

impl LayerPart {
    const ALL: [Self; 9] = [
        Self::AttentionNorm,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::MlpNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// Name and shape, as transformers saves them.
    fn tensor(self, layer: usize, spec: &ModelSpec) -> (String, Vec<usize>) {
        let (hidden, intermediate) = (spec.hidden as usize, spec.intermediate as usize);
        let (query, kv) = (spec.query_width(), spec.kv_width());
        let (name, shape) = match self {
            Self::AttentionNorm => ("input_layernorm", vec![hidden]),
            Self::Query => ("self_attn.q_proj", vec![query, hidden]),
            Self::Key => ("self_attn.k_proj", vec![kv, hidden]),
            Self::Value => ("self_attn.v_proj", vec![kv, hidden]),
            Self::Output => ("self_attn.o_proj", vec![hidden, query]),
            Self::MlpNorm => ("post_attention_layernorm", vec![hidden]),
            Self::Gate => ("mlp.gate_proj", vec![intermediate, hidden]),
            Self::Up => ("mlp.up_proj", vec![intermediate, hidden]),
            Self::Down => ("mlp.down_proj", vec![hidden, intermediate]),
        };
        (format!("model.layers.{layer}.{name}.weight"), shape)
    }
}

/// Name and shape of every tensor that a model of these sizes has.
fn architecture_tensors(spec: &ModelSpec) -> impl Iterator<Item = (String, Vec<usize>)> {
    let (vocabulary, hidden) = (spec.vocabulary as usize, spec.hidden as usize);
    let head = (!spec.tied_head).then(|| (HEAD.to_owned(), vec![vocabulary, hidden]));
    let outside = [(EMBEDDING.to_owned(), vec![vocabulary, hidden]), (FINAL_NORM.to_owned(), vec![hidden])];
    let layers = (0..spec.layers as usize)
        .flat_map(move |layer| LayerPart::ALL.into_iter().map(move |part| part.tensor(layer, spec)));
    outside.into_iter().chain(head).chain(layers)
}
