//! Options of `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rescomp_quantizer::export::gguf::BlockType;

/// Options of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportFlags {
    /// The container: one that `pack --exportable` wrote, or of 8 bits.
    #[arg(long, value_name = "FILE")]
    pub(crate) container: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// Type of the blocks' matrices in a GGUF file.
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value_t = ExportType::Auto)]
    pub(crate) kind: ExportType,
    /// The checkpoint that the container was packed from: a folder as Hugging Face lays it out, or one of the hub. Only for
    /// compressed-tensors, which takes config.json and the tokenizer from it.
    #[arg(long, value_name = "DIR|hub:OWNER/NAME")]
    pub(crate) model: Option<PathBuf>,
    /// What to write to: a file, or for compressed-tensors a folder, which must be new or empty.
    #[arg(long, value_name = "FILE.gguf|DIR")]
    pub(crate) output: PathBuf,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Formats of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A file for llama.cpp and its relatives.
    Gguf,
    /// A folder for vLLM and transformers.
    CompressedTensors,
}

/// Types of matrices in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportType {
    /// For each matrix the smallest that holds it.
    Auto,
    /// 4 bits and an f16 scale for each 32 weights.
    #[value(name = "q4_0")]
    Q4_0,
    /// 8 bits and an f16 scale for each 32 weights.
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<ExportType> for BlockType {
    fn from(kind: ExportType) -> BlockType {
        match kind {
            ExportType::Auto => BlockType::Smallest,
            ExportType::Q4_0 => BlockType::Q4_0,
            ExportType::Q8_0 => BlockType::Q8_0,
        }
    }
}
