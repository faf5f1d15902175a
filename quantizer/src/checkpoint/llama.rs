//! The weights of a Llama checkpoint, loaded a layer at a time.
//!
//! With hidden width `h`, intermediate width `f`, `q` query and `kv` key outputs and `v` tokens, the model has these
//! tensors, all `[outputs, inputs]`, and no biases. Transformers' `LlamaForCausalLM` names them:
//!
//! ```text
//! model.embed_tokens.weight [v, h]    model.norm.weight [h]    lm_head.weight [v, h] (absent when tied)
//! model.layers.{i}.input_layernorm.weight [h]    .post_attention_layernorm.weight [h]
//!     .self_attn.{q,k,v}_proj.weight [q|kv|kv, h]    .self_attn.o_proj.weight [h, q]
//!     .mlp.{gate,up}_proj.weight [f, h]              .mlp.down_proj.weight [h, f]
//! ```
//!
//! A GGUF file has them under names of its own ([`Naming::LlamaCpp`]), with the rows of queries and keys in another order: it
//! makes rotary pairs of neighbours, elements `2 i` and `2 i + 1` of a head, where transformers makes them of the halves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rescomp_formats::spec::ModelSpec;

use super::gguf::{self, Gguf, GgufChatTemplate, GgufTokenizer};
use super::{CheckpointError, HfConfig, TensorStore};

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
    path: PathBuf,
    contents: Contents,
}

/// What a checkpoint was opened from.
#[derive(Debug)]
enum Contents {
    Folder(TensorStore),
    Gguf(Gguf),
}

/// Where a checkpoint's tokenizer is. Whether it is one that is supported shows when it is read.
#[derive(Clone)]
pub enum TokenizerSource<'a> {
    /// A `tokenizer.json`, which may not be there.
    Json(PathBuf),
    /// The metadata of a GGUF file.
    Gguf(GgufTokenizer<'a>),
}

impl Checkpoint {
    /// Opens a Hugging Face folder or a GGUF file and checks it whole, but for the values of the weights.
    ///
    /// # Errors
    /// As [`open_folder`](Self::open_folder) and [`open_gguf`](Self::open_gguf).
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        // A file that is not there is told from a folder by its name.
        let named_gguf = path.extension().is_some_and(|extension| extension == "gguf");
        if path.is_file() || (named_gguf && !path.is_dir()) {
            Self::open_gguf(path)
        } else {
            Self::open_folder(path)
        }
    }

    /// Opens a GGUF file.
    ///
    /// # Errors
    /// The file is not GGUF, or contradicts itself; it is of another architecture, or asks for something that this crate does not
    /// do; a tensor is missing or has another shape; there are tensors beyond the architecture's.
    pub fn open_gguf(path: &Path) -> Result<Self, CheckpointError> {
        let gguf = Gguf::open(path)?;
        let gguf::Sizes { spec, turns: rope } = gguf::sizes(&gguf.fields(), &gguf.store)?;
        let checkpoint = Self { spec, rope, path: path.to_owned(), contents: Contents::Gguf(gguf) };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// Opens a Hugging Face folder.
    ///
    /// Where `tie_word_embeddings` is true and the weights hold a head all the same, it must equal the embedding: some
    /// versions of transformers ignore such a head and some compute with it, so a different one has no one meaning.
    ///
    /// # Errors
    /// Anything [`HfConfig::read`] or [`TensorStore::open`] refuses; a tensor of the architecture is missing or has
    /// another shape or type; there are tensors beyond the architecture's (rotary buffers are passed over); the tied
    /// head differs.
    pub fn open_folder(dir: &Path) -> Result<Self, CheckpointError> {
        let HfConfig { spec, rope } = HfConfig::read(&dir.join("config.json"))?;
        let rope = rope.turns_per_position(spec.head_dim);
        let contents = Contents::Folder(TensorStore::open(dir)?);
        let checkpoint = Self { spec, rope, path: dir.to_owned(), contents };
        checkpoint.check_tensors()?;
        if checkpoint.spec.tied_head && checkpoint.tensors().shape(checkpoint.naming().head()).is_some() {
            checkpoint.check_tied_head()?;
        }
        Ok(checkpoint)
    }

    /// Token embeddings, `[vocabulary, hidden]`.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn embedding(&self) -> Result<Matrix, CheckpointError> {
        self.matrix(self.naming().embedding(), self.vocabulary_shape())
    }

    /// The output head, `[vocabulary, hidden]`; `None` where it is the embedding.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn head(&self) -> Result<Option<Matrix>, CheckpointError> {
        if self.spec.tied_head {
            return Ok(None);
        }
        self.matrix(self.naming().head(), self.vocabulary_shape()).map(Some)
    }

    /// Gain of the norm before the head, `hidden` elements.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn final_norm(&self) -> Result<Vec<f32>, CheckpointError> {
        self.tensors().tensor_f32(self.naming().final_norm(), &[self.spec.hidden as usize])
    }

    /// The weights of block `layer`, counted from 0.
    ///
    /// # Errors
    /// An element is not finite; or `layer` is not below the model's layers, which is reported as a missing tensor.
    pub fn layer(&self, layer: usize) -> Result<LayerWeights, CheckpointError> {
        let matrix = |part: LayerPart| {
            let (name, shape) = (self.naming().layer(layer, part), part.shape(&self.spec));
            match shape.as_slice() {
                &[rows, cols] => self.matrix(&name, [rows, cols]),
                // A gain: one row.
                _ => self.tensors().tensor_f32(&name, &shape).map(|data| Matrix {
                    rows: 1,
                    cols: data.len(),
                    data,
                }),
            }
        };
        let rotated = |part: LayerPart| {
            let stored = matrix(part)?;
            Ok(match self.naming() {
                Naming::Transformers => stored,
                Naming::LlamaCpp => neighbours_to_halves(&stored, self.spec.head_dim as usize),
            })
        };
        Ok(LayerWeights {
            attention_norm: matrix(LayerPart::AttentionNorm)?.data,
            query: rotated(LayerPart::Query)?,
            key: rotated(LayerPart::Key)?,
            value: matrix(LayerPart::Value)?,
            output: matrix(LayerPart::Output)?,
            mlp_norm: matrix(LayerPart::MlpNorm)?.data,
            gate: matrix(LayerPart::Gate)?,
            up: matrix(LayerPart::Up)?,
            down: matrix(LayerPart::Down)?,
        })
    }

    /// The name of the folder, or of the file without its extension, which is the model's wherever it is shown.
    pub fn name(&self) -> String {
        // "." and ".." have no name of their own.
        let resolved =
            || self.path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let named = match self.contents {
            Contents::Folder(_) => self.path.file_name(),
            Contents::Gguf(_) => self.path.file_stem(),
        };
        match named {
            Some(name) => name.to_string_lossy().into_owned(),
            None => resolved().unwrap_or_else(|| self.path.to_string_lossy().into_owned()),
        }
    }

    /// Number of weights; a tied head is counted once, as the embedding.
    pub fn parameters(&self) -> u64 {
        architecture_tensors(&self.spec, self.naming())
            .map(|(_, shape)| shape.iter().map(|&size| size as u64).product::<u64>())
            .sum()
    }

    /// Bytes of the weight files.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors().bytes()
    }

    /// SHA-256 of the weight files (see [`TensorStore::digest`]).
    pub fn digest(&self) -> [u8; 32] {
        self.tensors().digest()
    }

    /// Where the tokenizer is.
    pub fn tokenizer(&self) -> TokenizerSource<'_> {
        match &self.contents {
            Contents::Folder(_) => TokenizerSource::Json(self.path.join("tokenizer.json")),
            Contents::Gguf(gguf) => {
                TokenizerSource::Gguf(GgufTokenizer::new(gguf.fields(), self.spec.vocabulary))
            }
        }
    }

    /// The chat template of a GGUF file, with the texts of its special tokens; `None` where it has none, and of a folder.
    ///
    /// # Errors
    /// The metadata contradict themselves.
    pub fn gguf_chat_template(&self) -> Result<Option<GgufChatTemplate<'_>>, CheckpointError> {
        match &self.contents {
            Contents::Folder(_) => Ok(None),
            Contents::Gguf(gguf) => gguf::chat_template(&gguf.fields()),
        }
    }

    /// The folder or the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors as stored.
    pub fn tensors(&self) -> &TensorStore {
        match &self.contents {
            Contents::Folder(store) => store,
            Contents::Gguf(gguf) => &gguf.store,
        }
    }

    fn naming(&self) -> Naming {
        match self.contents {
            Contents::Folder(_) => Naming::Transformers,
            Contents::Gguf(_) => Naming::LlamaCpp,
        }
    }

    fn vocabulary_shape(&self) -> [usize; 2] {
        [self.spec.vocabulary as usize, self.spec.hidden as usize]
    }

    fn matrix(&self, tensor: &str, [rows, cols]: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let data = self.tensors().tensor_f32(tensor, &[rows, cols])?;
        Ok(Matrix { rows, cols, data })
    }

    /// Headers only: what must be there is, and nothing else.
    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let mut known = BTreeSet::new();
        let naming = self.naming();
        for (tensor, shape) in architecture_tensors(&self.spec, naming) {
            self.tensors().check(&tensor, &shape)?;
            known.insert(tensor);
        }
        let accepted = |name: &str| {
            known.contains(name)
                || (name == naming.head() && self.spec.tied_head)
                || match naming {
                    Naming::Transformers => name.ends_with(ROTARY_BUFFER),
                    Naming::LlamaCpp => name == gguf::ROPE_DIVISORS,
                }
        };
        let unexpected: Vec<&str> = self.tensors().names().filter(|name| !accepted(name)).collect();
        if unexpected.is_empty() {
            return Ok(());
        }
        const SHOWN: usize = 5;
        let more = if unexpected.len() > SHOWN { ", ..." } else { "" };
        Err(CheckpointError::UnexpectedTensors {
            path: self.tensors().path().to_owned(),
            count: unexpected.len(),
            tensors: unexpected[..unexpected.len().min(SHOWN)].join(", ") + more,
        })
    }

    fn check_tied_head(&self) -> Result<(), CheckpointError> {
        let (store, naming) = (self.tensors(), self.naming());
        store.check(naming.head(), &self.vocabulary_shape())?;
        // The usual case costs no memory; only where the stored bytes differ are the values compared.
        if store.stored_alike(naming.embedding(), naming.head()) {
            return Ok(());
        }
        let embedding = self.embedding()?;
        let head = store.tensor_f32(naming.head(), &self.vocabulary_shape())?;
        let differs = |(ours, theirs): (&f32, &f32)| ours != theirs;
        match embedding.data.iter().zip(&head).position(differs) {
            None => Ok(()),
            Some(at) => Err(CheckpointError::TiedHeadDiffers {
                path: store.path_of(naming.head()).to_owned(),
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

    /// Outputs and inputs, or the only size.
    fn shape(self, spec: &ModelSpec) -> Vec<usize> {
        let (hidden, intermediate) = (spec.hidden as usize, spec.intermediate as usize);
        let (query, kv) = (spec.query_width(), spec.kv_width());
        match self {
            Self::AttentionNorm | Self::MlpNorm => vec![hidden],
            Self::Query => vec![query, hidden],
            Self::Key | Self::Value => vec![kv, hidden],
            Self::Output => vec![hidden, query],
            Self::Gate | Self::Up => vec![intermediate, hidden],
            Self::Down => vec![hidden, intermediate],
        }
    }
}

/// Whose names the tensors have.
#[derive(Clone, Copy, PartialEq)]
enum Naming {
    /// Those of transformers, in safetensors files.
    Transformers,
    /// Those of llama.cpp, in GGUF files.
    LlamaCpp,
}

impl Naming {
    fn embedding(self) -> &'static str {
        match self {
            Self::Transformers => "model.embed_tokens.weight",
            Self::LlamaCpp => gguf::EMBEDDING,
        }
    }

    fn final_norm(self) -> &'static str {
        match self {
            Self::Transformers => "model.norm.weight",
            Self::LlamaCpp => "output_norm.weight",
        }
    }

    fn head(self) -> &'static str {
        match self {
            Self::Transformers => "lm_head.weight",
            Self::LlamaCpp => gguf::HEAD,
        }
    }

    fn layer(self, layer: usize, part: LayerPart) -> String {
        let (transformers, llama_cpp) = match part {
            LayerPart::AttentionNorm => ("input_layernorm", "attn_norm"),
            LayerPart::Query => ("self_attn.q_proj", "attn_q"),
            LayerPart::Key => ("self_attn.k_proj", "attn_k"),
            LayerPart::Value => ("self_attn.v_proj", "attn_v"),
            LayerPart::Output => ("self_attn.o_proj", "attn_output"),
            LayerPart::MlpNorm => ("post_attention_layernorm", "ffn_norm"),
            LayerPart::Gate => ("mlp.gate_proj", "ffn_gate"),
            LayerPart::Up => ("mlp.up_proj", "ffn_up"),
            LayerPart::Down => ("mlp.down_proj", "ffn_down"),
        };
        match self {
            Self::Transformers => format!("model.layers.{layer}.{transformers}.weight"),
            Self::LlamaCpp => format!("blk.{layer}.{llama_cpp}.weight"),
        }
    }
}

/// Name and shape of every tensor that a model of these sizes has.
fn architecture_tensors(spec: &ModelSpec, naming: Naming) -> impl Iterator<Item = (String, Vec<usize>)> {
    let (vocabulary, hidden) = (spec.vocabulary as usize, spec.hidden as usize);
    let head = (!spec.tied_head).then(|| (naming.head().to_owned(), vec![vocabulary, hidden]));
    let outside = [
        (naming.embedding().to_owned(), vec![vocabulary, hidden]),
        (naming.final_norm().to_owned(), vec![hidden]),
    ];
    let part = move |layer| move |part: LayerPart| (naming.layer(layer, part), part.shape(spec));
    let layers = (0..spec.layers as usize).flat_map(move |layer| LayerPart::ALL.into_iter().map(part(layer)));
    outside.into_iter().chain(head).chain(layers)
}

/// Rows of queries or keys, from pairs of neighbours in each head to pairs of the head's halves.
fn neighbours_to_halves(stored: &Matrix, head_dim: usize) -> Matrix {
    let pairs = head_dim / 2;
    let source = |row: usize| {
        let (head, within) = (row / head_dim, row % head_dim);
        head * head_dim + 2 * (within % pairs) + within / pairs
    };
    let data = (0..stored.rows).flat_map(|row| stored.row(source(row))).copied().collect();
    Matrix { rows: stored.rows, cols: stored.cols, data }
}

#[cfg(test)]
mod layout_tests {
    use super::*;

    #[test]
    fn neighbours_become_halves_in_every_head() {
        // Two heads of six: the first elements of the pairs are 0, 2, 4, the second ones 1, 3, 5.
        let stored = Matrix { rows: 12, cols: 2, data: (0..24).map(|at| at as f32 / 2.0).collect() };
        let rows: Vec<f32> = (0..12).map(|row| neighbours_to_halves(&stored, 6).row(row)[0]).collect();
        assert_eq!(rows, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
        assert_eq!(neighbours_to_halves(&stored, 6).row(11), stored.row(11));
    }
}
