//! Writes a container's weights as files of other programs: GGUF for llama.cpp, a compressed-tensors folder for vLLM and transformers.
//!
//! ```text
//! container -> exact: integers and a binary16 scale for every 32 of a row   (refused where a scale is no binary16)
//!           -> gguf, compressed_tensors: the file's types and names
//!           -> temporary file -> read back, every value compared bit for bit -> its name
//! ```
//!
//! Nothing is rounded on the way: what a type cannot hold exactly is refused by name, with what to pack with. So what the other program
//! multiplies with is what the container holds; it rounds activations its own way.

pub mod compressed_tensors;
mod exact;
pub mod gguf;

use std::io;
use std::path::PathBuf;

use rescomp_formats::section::SectionName;

use rescomp_formats::spec::{Architecture, ModelSpec, OnlineTransforms, Variant};

use crate::checkpoint::CheckpointError;
use crate::texts::CheckpointTokenizerError;

pub use exact::ScaledIntegers;

/// Why a container was not exported. Nothing is left under the name of the file then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The container is a classifier's.
    #[error("the container has no tokenizer: it is a classifier's, and these files hold models of texts")]
    NoTokenizer,
    /// The scale of a group is not a binary16 number.
    #[error(
        "{tensor}: row {row}, group {group}: expected a scale that is an f16 number, found {found} (pack with --exportable: its scales \
         all are)"
    )]
    Scale {
        /// The matrix.
        tensor: SectionName,
        /// Its row.
        row: usize,
        /// The group of the row.
        group: usize,
        /// The scale.
        found: f32,
    },
    /// A matrix has a low-rank correction, which the format has no place for.
    #[error("{tensor}: its low-rank correction has no place in the file (pack without --low-rank)")]
    Corrected {
        /// The matrix.
        tensor: SectionName,
    },
    /// A matrix has levels that the type does not have.
    #[error(
        "{tensor}: expected levels from {lowest} to {highest}, for {kind}, found {found} (pack with --exportable {remedy})"
    )]
    Level {
        /// The matrix.
        tensor: SectionName,
        /// The type.
        kind: &'static str,
        /// Its lowest level.
        lowest: i8,
        /// Its highest level.
        highest: i8,
        /// The level.
        found: i8,
        /// Options that make levels which the type has.
        remedy: &'static str,
    },
    /// Rows are not whole blocks of the type.
    #[error("{tensor}: expected rows of a multiple of {multiple} weights, for {kind}, found {columns}")]
    RowLength {
        /// The matrix.
        tensor: SectionName,
        /// The type.
        kind: &'static str,
        /// Weights a block or a group.
        multiple: usize,
        /// Weights a row.
        columns: usize,
    },
    /// Matrices of one file are to have the same bits and groups, and do not.
    #[error(
        "{tensor}: expected {expected}, as {other} has it, found {found} (pack with the same bits and groups for all matrices)"
    )]
    Mixed {
        /// The matrix.
        tensor: SectionName,
        /// What it should have.
        expected: String,
        /// Which matrix has it.
        other: SectionName,
        /// What it has.
        found: String,
    },
    /// The model has a part that the format has no name for here.
    #[error("{part}: {found} cannot be exported to {format} (supported: {supported})")]
    Unsupported {
        /// The part.
        part: &'static str,
        /// What it is.
        found: String,
        /// The format.
        format: &'static str,
        /// What would have been accepted.
        supported: &'static str,
    },
    /// The container was packed from another checkpoint than the one that was named.
    #[error(
        "{path}: expected the checkpoint {expected}, from which the container was packed, found weights with another digest"
    )]
    OtherCheckpoint {
        /// The checkpoint that was named.
        path: PathBuf,
        /// Name of the container's.
        expected: String,
    },
    /// A file of the checkpoint's folder could not be read or is not what it should be.
    #[error("{path}: {cause}")]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// What was written and read back is not what the container has: a fault of this program.
    #[error("what was written differs from the container: {part}: expected {expected}, found {found}")]
    Differs {
        /// Which part of the file.
        part: String,
        /// What the container has.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// What was written cannot be read back.
    #[error("what was written cannot be read back: {0}")]
    Unreadable(#[from] CheckpointError),
    /// The same of its tokenizer.
    #[error("what was written cannot be read back: {0}")]
    UnreadableTokenizer(#[from] CheckpointTokenizerError),
    /// The operating system refused to write.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Refuses other architectures than Llama, and what differs from a plain one: windows, bounds, other activations, scales.
fn require_plain_llama(spec: &ModelSpec, format: &'static str) -> Result<(), ExportError> {
    let refused = |part, found, supported| ExportError::Unsupported { part, found, format, supported };
    if spec.architecture != Architecture::Llama {
        return Err(refused("architecture", spec.architecture.name().to_owned(), "llama"));
    }
    if spec.variant != Variant::plain(spec.head_dim) {
        let found = format!("{:?}", spec.variant);
        return Err(refused("variant of the architecture", found, "that of a plain Llama"));
    }
    if spec.online != OnlineTransforms::default() {
        let found = format!("{:?}", spec.online);
        return Err(refused("transform of the forward", found, "none: pack without --transform"));
    }
    Ok(())
}

/// A fault that reading back found.
fn differs(
    part: impl std::fmt::Display,
    expected: impl std::fmt::Debug,
    found: impl std::fmt::Debug,
) -> ExportError {
    ExportError::Differs {
        part: part.to_string(),
        expected: format!("{expected:?}"),
        found: format!("{found:?}"),
    }
}
