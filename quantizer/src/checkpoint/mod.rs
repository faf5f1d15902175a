//! Reads a checkpoint: a Hugging Face folder of `config.json` and safetensors weights, or a GGUF file.
//!
//! Weights decide numbers, so nothing is guessed and nothing is dropped: the sizes must describe an architecture
//! this crate knows, every tensor that architecture has must be there with the shape that follows from the sizes,
//! and no other tensor may be. What is refused is refused by name, before the first weight is read:
//!
//! ```text
//! config.json   -> hf_config: sizes, constants, position settings      (checked, capped)
//! *.safetensors -> safetensors: header of every file, memory-mapped    (checked against the files' lengths)
//! *.gguf        -> gguf: both of these                                 (as both of these)
//! either        -> opened: names and shapes agree, by `names`           (headers only)
//! later         -> one tensor at a time, widened to f32 by `elements`  (finite, or refused with row and column)
//! ```

mod bare_norms;
mod classifier;
mod elements;
mod folded;
mod gguf;
mod hf_config;
mod hub_cache;
mod layer;
mod mmap;
mod names;
mod opened;
mod rope;
mod safetensors;
mod tensor_store;
#[cfg(test)]
mod tests;

use rescomp_formats::spec::SpecError;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use elements::ElementType;
pub use gguf::{GgufChatTemplate, GgufTokenizer};
pub use hf_config::HfConfig;
pub use layer::{LayerWeights, Matrix, StreamNorm};
pub use opened::{Checkpoint, TokenizerSource};
use rescomp_formats::spec::ModelKind;
use rescomp_formats::tokenizer::TokenizerWriteError;
pub use rope::{Llama3Scaling, Rope, Scaling, YarnScaling};
pub use tensor_store::TensorStore;

use crate::tokenizer_json::TokenizerJsonError;
use crate::transforms::NotFolded;

/// Why a checkpoint was refused. Every message names the file, and the field or tensor, with what was expected and
/// found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be opened, mapped or read.
    #[error("{path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A file is larger than anything of its kind should be.
    #[error("{path}: expected at most {limit_bytes} bytes, found more")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read of it.
        limit_bytes: u64,
    },
    /// The folder holds neither a safetensors file nor an index of shards.
    #[error(
        "{dir}: found neither model.safetensors nor model.safetensors.index.json (of other weight formats GGUF is read: \
         name the file itself)"
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A file is not the JSON it should be, or the header of a safetensors file contradicts itself.
    #[error("{path}: {part}: {cause}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Which part of the file.
        part: &'static str,
        /// What is wrong, with line and column inside that part.
        cause: serde_json::Error,
    },
    /// A field is missing or has a value that cannot be.
    #[error("{path}: {field}: expected {expected}, found {found}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// What would have been accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A field asks, validly, for something this crate does not do.
    #[error("{path}: {field} is {found}, which is not supported (supported: {supported})")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// What it asks for.
        found: String,
        /// What would have been accepted.
        supported: &'static str,
    },
    /// A part of a GGUF file is not what the format demands, or cannot be.
    #[error("{path}: {part} (byte {byte_offset} of the file): expected {expected}, found {found}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The key or the tensor, or which part of either.
        part: String,
        /// Where it is in the file.
        byte_offset: u64,
        /// What would have been accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A rotary frequency of a GGUF file is divided by a number that would speed it up, or by none.
    #[error(
        "{path}: tensor {tensor}, element {pair}: expected a number from {least} to {most}, found {found}"
    )]
    RopeDivisor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// The rotary pair.
        pair: usize,
        /// The least divisor.
        least: f32,
        /// The greatest.
        most: f32,
        /// Its divisor.
        found: f32,
    },
    /// The tokenizer of a GGUF file cannot be written into a container.
    #[error("{path}: tokenizer: {cause}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: TokenizerWriteError,
    },
    /// The same, said of the `tokenizer.json` that it stands for.
    #[error(transparent)]
    TokenizerJson(Box<TokenizerJsonError>),
    /// A safetensors file ends before its header does, or the header's length is not credible.
    #[error(
        "{path}: bytes 0..8 announce a header of {header_bytes} bytes, \
         but at most {available_bytes} can follow in this file"
    )]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// The length the file announces.
        header_bytes: u64,
        /// The bytes after the length field, or the format's limit where that is less.
        available_bytes: u64,
    },
    /// A safetensors file is not as long as its header says: truncated, or followed by something else.
    #[error("{path}: expected {expected_bytes} bytes from its header, found {found_bytes}")]
    FileLength {
        /// The file.
        path: PathBuf,
        /// Length field, header and tensors together.
        expected_bytes: u64,
        /// The file's length.
        found_bytes: u64,
    },
    /// The index names a shard that is not a plain file name, so it could lead out of the folder.
    #[error("{path}: weight_map.{tensor}: expected the name of a file in the same folder, found {shard:?}")]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The tensor it places.
        tensor: String,
        /// Where it places it.
        shard: String,
    },
    /// A shard that the index lists could not be opened.
    #[error("{path}: {cause} ({index} lists this shard)")]
    Shard {
        /// The shard.
        path: PathBuf,
        /// The index's file name.
        index: &'static str,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The index places a tensor in a shard that does not hold it.
    #[error("{path}: tensor {tensor} is missing from this shard, where {index} places it")]
    NotInShard {
        /// The shard.
        path: PathBuf,
        /// The index's file name.
        index: &'static str,
        /// The tensor.
        tensor: String,
    },
    /// Two shards hold a tensor of the same name.
    #[error("{path}: tensor {tensor} is in {other} as well")]
    DuplicateTensor {
        /// The later shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The earlier shard.
        other: PathBuf,
    },
    /// A tensor of the architecture is not in the weights.
    #[error("{path}: tensor {tensor} is missing, expected with shape {expected:?}")]
    MissingTensor {
        /// The weight file, or the folder of several.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that follows from the sizes.
        expected: Vec<usize>,
    },
    /// The weights hold tensors that the architecture does not have. Leaving them out would change the numbers.
    #[error(
        "{path}: expected no tensors beyond the architecture's, of these sizes, found {count}: {tensors} \
         (computing without them would change the model)"
    )]
    UnexpectedTensors {
        /// The weight file, or the folder of several.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first few names.
        tensors: String,
    },
    /// A tensor's shape does not follow from the sizes.
    #[error("{path}: tensor {tensor}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that follows from the sizes.
        expected: Vec<usize>,
        /// The shape in the header.
        found: Vec<usize>,
    },
    /// A tensor's element type is not one of the types that are read.
    #[error("{path}: tensor {tensor}: expected elements of type {expected}, found {found}")]
    TensorType {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The types that are read of such a file.
        expected: &'static str,
        /// The type in the header.
        found: String,
    },
    /// A weight is infinite or not a number.
    #[error(
        "{path}: tensor {tensor}, row {row}, column {column} (byte {byte_offset} of the file): \
         expected a finite number, found {found}"
    )]
    NonFinite {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Index over all dimensions but the last.
        row: usize,
        /// Index in the last dimension.
        column: usize,
        /// Where the element, or the block that holds it, starts in the file.
        byte_offset: u64,
        /// Its value.
        found: f32,
    },
    /// The stream of this architecture cannot be rotated.
    #[error(
        "{path}: the residual stream of {architecture} cannot be rotated: that takes norms in front of attention and MLP and nowhere else"
    )]
    StreamNotRotated {
        /// The folder or the file.
        path: PathBuf,
        /// The model's architecture.
        architecture: &'static str,
    },
    /// Rotations of this architecture cannot be learned.
    #[error("{path}: rotations of {architecture} cannot be learned: expected RMSNorms, found LayerNorms")]
    RotationsNotLearned {
        /// The folder or the file.
        path: PathBuf,
        /// The model's architecture.
        architecture: &'static str,
    },
    /// A norm cannot be folded into what is behind it.
    #[error("{path}: {place}{cause}")]
    NotFolded {
        /// The folder or the file.
        path: PathBuf,
        /// The layer, where it is in one.
        place: String,
        /// Which channel.
        cause: NotFolded,
    },
    /// A width of the model has no transform.
    #[error("{path}: {cause}")]
    NoTransform {
        /// The folder or the file.
        path: PathBuf,
        /// Which width.
        cause: SpecError,
    },
    /// Something was asked of a model that another kind of model has.
    #[error("{path}: {architecture} is {}, expected {expected}", kind_in_words(*.kind))]
    Kind {
        /// The folder.
        path: PathBuf,
        /// The model's architecture.
        architecture: &'static str,
        /// What it is.
        kind: ModelKind,
        /// What it would have to be.
        expected: &'static str,
    },
    /// `tie_word_embeddings` is true and the weights hold a head that differs from the embedding.
    #[error(
        "{path}: tie_word_embeddings is true, but lm_head.weight differs from model.embed_tokens.weight at row {row}, \
         column {column}: expected {embedding}, found {head} (if this head is meant, set tie_word_embeddings to \
         false; if not, remove it from the weights)"
    )]
    TiedHeadDiffers {
        /// The weight file that holds the head.
        path: PathBuf,
        /// First row that differs.
        row: usize,
        /// First column that differs in it.
        column: usize,
        /// The embedding's element.
        embedding: f32,
        /// The head's element.
        head: f32,
    },
}

/// What a model is, for people.
fn kind_in_words(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Decoder => "a decoder: it has a next token",
        ModelKind::Encoder => "an encoder: it makes vectors of texts, and has no next token",
        ModelKind::Classifier => {
            "a classifier: it reads images, and has neither a next token nor vectors of texts"
        }
    }
}

/// Reads a whole text file of at most `limit_bytes`.
fn read_capped(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, CheckpointError> {
    let failed = |cause| CheckpointError::Read { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    // One byte more than the limit tells "exactly at the limit" from "more".
    let file = File::open(path).map_err(failed)?;
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(CheckpointError::TooLarge { path: path.to_owned(), limit_bytes });
    }
    Ok(bytes)
}
