//! Options of the commands that measure the project: `bench ...`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::*;

/// What `bench` measures.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare quantization methods: divergence from the full-precision model on held-out text.
    Quality(Box<QualityFlags>),
    /// Compare quantization methods matrix by matrix: error on calibration text and on text that calibration never saw.
    Methods(MethodsFlags),
    /// Time calibrating and solving, and compare with the machine's speed at f32 matrix products.
    Calibration(CalibrationFlags),
    /// Time prefill and decode of a container on this machine, by number of threads, beside the speed of its memory.
    Decode(DecodeFlags),
    /// Time the matrix products on this machine, and count instructions and modelled cycles of those for 64-bit ARM.
    Kernels(KernelsFlags),
}

/// Options of `bench decode`.
#[derive(Debug, Args)]
pub(crate) struct DecodeFlags {
    /// The container [default: what `pack` wrote for this machine's target].
    #[arg(long, value_name = "FILE")]
    pub(crate) container: Option<PathBuf>,
    /// Numbers of threads, separated by commas [default: 1 to the processors].
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = at_least_one)]
    pub(crate) threads: Vec<usize>,
    /// Kernels by the names that `rescomp info` gives, separated by commas [default: the fastest].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) kernels: Vec<String>,
    /// Tokens of the prompt.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    pub(crate) prompt_tokens: usize,
    /// Tokens to decode.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub(crate) tokens: usize,
    /// Times to measure; the median is reported.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    pub(crate) repeats: usize,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    /// Never install anything.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// What is solved on which text, in commands that pack nothing.
#[derive(Debug, Args)]
pub(crate) struct SolvingFlags {
    /// The model: a folder as Hugging Face lays it out, or a GGUF file [default: models/stories-1m in the project].
    #[arg(long, value_name = "DIR|FILE.gguf|hub:OWNER/NAME")]
    pub(crate) model: Option<PathBuf>,
    /// Bits a weight in the blocks' linear layers: 2, 3, 4, 5, 6 or 8.
    #[arg(long, value_name = "BITS", default_value_t = 4, value_parser = bits)]
    pub(crate) bits: u8,
    /// Weights of a row that share one scale: 32, 64, 128, or `row` for the whole row.
    #[arg(long, value_name = "32|64|128|row", default_value_t = GroupSize::Elements(64))]
    pub(crate) group_size: GroupSize,
    /// Windows of text to calibrate on, as in `pack`.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub(crate) calibration_windows: usize,
    /// Tokens in a window [default: 512, or the model's context where that is less].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) context: Option<usize>,
    /// What joins the documents of the text, as in `pack`.
    #[arg(long, value_enum, default_value_t = Joiner::Auto)]
    pub(crate) joiner: Joiner,
    /// Threads; the result does not depend on them [default: the host's processors].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
}

/// Options of `bench calibration`.
#[derive(Debug, Args)]
pub(crate) struct CalibrationFlags {
    #[command(flatten)]
    pub(crate) solving: SolvingFlags,
    /// Text to calibrate on, UTF-8 [default: calibration.txt in the model's folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Quantization method.
    #[arg(long, value_enum, default_value_t = Method::RescompExact)]
    pub(crate) method: Method,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `bench quality`.
#[derive(Debug, Args)]
pub(crate) struct QualityFlags {
    /// The full-precision model: a folder as Hugging Face lays it out, or a GGUF file [default: models/stories-1m in the
    /// project].
    #[arg(long, value_name = "DIR|FILE.gguf|hub:OWNER/NAME")]
    pub(crate) model: Option<PathBuf>,
    /// Text to measure on, UTF-8 [default: held_out.txt in the model's folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Text to calibrate on, UTF-8 [default: calibration.txt in the model's folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Quantization methods, separated by commas.
    #[arg(
        long, value_enum, value_name = "METHOD,...", value_delimiter = ',',
        default_values_t = [Method::Rtn, Method::Gptq, Method::Gptaq, Method::Rescomp, Method::RescompExact]
    )]
    pub(crate) methods: Vec<Method>,
    /// What is folded into the weights before they are quantized, separated by commas.
    #[arg(long, value_enum, value_name = "TRANSFORM,...", value_delimiter = ',', default_values_t = [Transform::None])]
    pub(crate) transforms: Vec<Transform>,
    #[command(flatten)]
    pub(crate) spin: SpinFlags,
    /// Bits a weight in the blocks' linear layers, 2, 3, 4, 5, 6 or 8, separated by commas.
    #[arg(long, value_name = "BITS,...", value_delimiter = ',', default_values_t = [4, 8], value_parser = bits)]
    pub(crate) bits: Vec<u8>,
    /// Weights of a row that share one scale, 32, 64, 128 or `row`, separated by commas.
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', default_values_t = [GroupSize::Elements(64)])]
    pub(crate) group_size: Vec<GroupSize>,
    /// Ranks of a low-rank correction of the blocks' matrices, multiples of 32 and 0 for none, separated by commas; for `gptq` and
    /// `rescomp-exact`.
    #[arg(long, value_name = "RANK,...", value_delimiter = ',', default_values_t = [0], value_parser = rank)]
    pub(crate) low_rank: Vec<u32>,
    /// Bits a weight in the embedding and the output head, 2, 3, 4, 5, 6 or 8, separated by commas.
    #[arg(long, value_name = "BITS,...", value_delimiter = ',', default_values_t = [8], value_parser = bits)]
    pub(crate) head_bits: Vec<u8>,
    /// How the levels of 2, 3 and 4 bits are spaced; with `--linears-only`, `uniform` means as published at
    /// 5 and 6 bits as well, and f16 scales.
    #[arg(long, value_enum, value_name = "SPACING", default_value_t = Levels::Normal)]
    pub(crate) levels: Levels,
    /// Quantize the blocks' linear layers only, and run them in full precision otherwise: embedding, norms and head as in the
    /// checkpoint, f32 activations. Bits a weight are then those of the codes and scales of these layers.
    #[arg(long, conflicts_with_all = ["head_bits", "activations"])]
    pub(crate) linears_only: bool,
    /// Disjoint calibration samples, which tell how much a figure depends on the calibration text.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    pub(crate) samples: usize,
    /// Windows of a calibration sample; sample i is the windows from i times this on.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub(crate) calibration_windows: usize,
    /// Windows of held-out text.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub(crate) windows: usize,
    /// Tokens in a window, of calibration and of held-out text [default: 512, or the model's context where that is less].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) context: Option<usize>,
    /// The first position of a held-out window that counts, as in `eval`.
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub(crate) score_from: usize,
    /// Activations of the linear layers, separated by commas; a table each. int8 is what the device computes, f32 shows the
    /// weights' error alone and takes several times as long.
    #[arg(
        long, value_enum, value_name = "FORMAT,...", value_delimiter = ',',
        default_values_t = [Activations::Int8]
    )]
    pub(crate) activations: Vec<Activations>,
    /// What joins the documents of the texts, as in `pack`.
    #[arg(long, value_enum, default_value_t = Joiner::Auto)]
    pub(crate) joiner: Joiner,
    /// Threads; the result does not depend on them [default: the host's processors].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Markdown file to write the tables to; the report and a plot of KL against bits a weight go beside it, with the endings
    /// .json and .svg.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print the report, every single run included, as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `bench methods`.
#[derive(Debug, Args)]
pub(crate) struct MethodsFlags {
    #[command(flatten)]
    pub(crate) solving: SolvingFlags,
    /// Text to calibrate on and to measure on, UTF-8 [default: calibration.txt in the model's folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Quantization methods, separated by commas.
    #[arg(
        long, value_enum, value_name = "METHOD,...", value_delimiter = ',',
        default_values_t = [Method::Gptq, Method::Gptaq, Method::Rescomp, Method::RescompExact]
    )]
    pub(crate) methods: Vec<Method>,
    /// The method that quantizes the layers which the matrices behind them see
    /// [default: `rescomp-exact` if it is one of the methods, else the last of them].
    #[arg(long, value_enum)]
    pub(crate) continue_with: Option<Method>,
    /// How the levels of 2, 3 and 4 bits are spaced.
    #[arg(long, value_enum, value_name = "SPACING", default_value_t = Levels::Normal)]
    pub(crate) levels: Levels,
    /// Windows of text after them to measure on.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    pub(crate) held_out_windows: usize,
    /// Windows of text to skip first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) calibration_offset: usize,
    /// Markdown file to write the table to; the report goes beside it, with the ending .json.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print the report, with what was chosen for each matrix, as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}
