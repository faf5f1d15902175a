//! The command line: every command and option, declared once.
//!
//! Values that have a closed set are enums, so a misspelt one is refused with the list of those there are.

mod bench;
mod deploy;
mod export;
mod kv_cache;
mod spin;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rescomp_formats::matrix::{MOST_RANK, RANK_UNIT};
use rescomp_quantizer::grids::Spacing;
use rescomp_quantizer::methods;
use rescomp_quantizer::transforms::TransformKind;
use rescomp_runtime::linear::ActivationFormat;

use rescomp_quantizer::choose::Setting;

use crate::bench_kernels::flags::KernelsFlags;
use crate::build_no_std::BuildNoStdFlags;
use crate::c_library::CLibraryFlags;
use crate::error::Error;
use crate::fuzz::FuzzFlags;
use crate::sanitize::SanitizeFlags;
use crate::target::Layout;
use crate::test::TestFlags;

pub(crate) use bench::{BenchCommand, CalibrationFlags, DecodeFlags, MethodsFlags, QualityFlags};
pub(crate) use deploy::{DeployFlags, KeygenFlags, RemoteFlags, SignFlags};
pub(crate) use export::{ExportFlags, ExportFormat, ExportType};
pub(crate) use kv_cache::KvCache;
pub(crate) use spin::SpinFlags;

/// `cargo xtask`.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    about = "Quantize a model, prove it on its device, and test the project",
    after_help = "Exit codes: 0 all went well, 1 a check, a bound or a test failed, 2 wrong command line or input, 3 a \
                  tool or target is missing, 4 a file could not be read or written, 130 interrupted. See \
                  docs/exit-codes.md."
)]
pub(crate) struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quantize a model for a target, check it there, and write the container and the program that runs it.
    Pack(PackFlags),
    /// Check that a container computes on its target what the host measured.
    Check(CheckFlags),
    /// Measure a model on text: negative log-likelihood, perplexity, divergence from a reference.
    Eval(EvalFlags),
    /// Write a container's weights as a file of another program, exactly: GGUF for llama.cpp, compressed-tensors for vLLM.
    Export(ExportFlags),
    /// Say how many tokens a second a board can decode at most, from its memory's bandwidth and its processor's cycles.
    Estimate(EstimateFlags),
    /// Write one HTML page about what `pack` wrote: sizes, memory, checks, plots.
    Report(ReportFlags),
    /// Measure the project itself.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Run all tests: on the host, and on emulated 64-bit ARM processors.
    Test(TestFlags),
    /// Copy to a device what `pack` wrote, check it there, and make it live: all of it, or nothing.
    Deploy(DeployFlags),
    /// Make a key that signs containers, and the public key that devices trust.
    Keygen(KeygenFlags),
    /// Sign a container, or sign it anew.
    Sign(SignFlags),
    /// Build the no_std crates for bare-metal targets.
    BuildNoStd(BuildNoStdFlags),
    /// Hold reports of checks against each other: do all of them have the same digest?
    Compare(CompareFlags),
    /// Build the library for C of a target, with its header
    CLibrary(CLibraryFlags),
    /// Give mutated inputs to everything that reads files, and report what breaks.
    Fuzz(FuzzFlags),
    /// Run tests below AddressSanitizer, valgrind and Miri, where they are.
    Sanitize(SanitizeFlags),
    /// Check the repository's rules.
    Tidy,
    /// List the targets.
    Targets(TargetsFlags),
}

/// Options of `pack`.
#[derive(Debug, Args)]
pub(crate) struct PackFlags {
    /// The target: a name from `cargo xtask targets`, or the path of a target file.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) target: String,
    /// The model: a folder as Hugging Face lays it out (config.json, *.safetensors, tokenizer.json), a GGUF file, or the name of one of
    /// the Hugging Face hub, hub:OWNER/NAME, with @REVISION or :FILE.gguf behind it where one is meant
    /// [default: models/stories-1m in the project].
    #[arg(long, value_name = "DIR|FILE.gguf|hub:OWNER/NAME")]
    pub(crate) model: Option<PathBuf>,
    /// Quantization method.
    #[arg(long, value_enum, default_value_t = Method::RescompExact)]
    pub(crate) method: Method,
    /// What is folded into the weights before they are quantized: `none`, `smooth`, `quarot`, `spinquant` or `quarot-online`, or `auto`,
    /// whichever of the first four has the least divergence on held-out calibration windows (`spinquant` of models up to 20 million parameters).
    #[arg(long, value_name = "TRANSFORM", default_value = "none", value_parser = transform)]
    pub(crate) transform: Choice<Transform>,
    /// Bits a weight in the blocks' linear layers: 2, 3, 4, 5, 6 or 8.
    #[arg(long, value_name = "BITS", default_value_t = 4, value_parser = bits)]
    pub(crate) bits: u8,
    /// Weights of a row that share one scale: 32, 64, 128, or `row` for the whole row.
    #[arg(long, value_name = "32|64|128|row", default_value_t = GroupSize::Elements(64))]
    pub(crate) group_size: GroupSize,
    /// Bits a weight in the embedding and the output head: 2, 3, 4, 5, 6 or 8.
    #[arg(long, value_name = "BITS", default_value_t = 8, value_parser = bits)]
    pub(crate) head_bits: u8,
    /// Distribute 2, 3, 4, 5, 6 and 8 bits and the group sizes over the matrices, so that weights take this many bits on average
    /// (everything of them counted: scales, tables, embedding, head, norms) and the divergence is least, by the measured sensitivity of
    /// each matrix and trial quantizations of the whole model.
    #[arg(long, value_name = "BITS", value_parser = bits_per_weight, conflicts_with_all = ["max_bytes", "recipe"])]
    pub(crate) target_bpw: Option<f64>,
    /// The same, so that the container has at most this many bytes.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "recipe")]
    pub(crate) max_bytes: Option<u64>,
    /// Rank of a low-rank correction of the blocks' matrices, a multiple of 32; a matrix goes without where it does not help on held-out
    /// calibration windows. With --target-bpw or --max-bytes, the ranks that a matrix may get instead of more bits, separated by commas.
    #[arg(long, value_name = "RANK,...", value_delimiter = ',', value_parser = rank, conflicts_with = "recipe")]
    pub(crate) low_rank: Vec<u32>,
    /// Calibration windows that sensitivities are measured on.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) sensitivity_windows: usize,
    /// Bits and group of each matrix as a file says: the recipe.toml of an earlier run, or one like it.
    #[arg(long, value_name = "FILE.toml", conflicts_with_all = ["bits", "group_size", "head_bits"])]
    pub(crate) recipe: Option<PathBuf>,
    /// What the update beyond a block of columns is computed from, for `gptaq` and `rescomp`
    /// [default: as their authors' code has it for these bits].
    #[arg(long, value_enum)]
    pub(crate) variant: Option<Variant>,
    /// How scales are found [default: hessian-diagonal for `rescomp-exact` at 2 and 3 bits, else plain].
    #[arg(long, value_enum)]
    pub(crate) clip: Option<Clip>,
    /// How the levels of 2, 3 and 4 bits are spaced.
    #[arg(long, value_enum, value_name = "SPACING", default_value_t = Levels::Normal)]
    pub(crate) levels: Levels,
    /// Keep to what GGUF and compressed-tensors files hold exactly, so that `export` can write them: uniform levels, and row scales that
    /// make the scale of every group an f16 number.
    #[arg(long, conflicts_with = "levels")]
    pub(crate) exportable: bool,
    /// Strength of the correction that `rescomp-exact` starts from: 0 to 1, or `auto`, chosen for each matrix on held-out
    /// calibration windows [default: auto].
    #[arg(long, value_name = "auto|0..1", value_parser = strength)]
    pub(crate) strength: Option<Choice<f64>>,
    /// Ridge of that correction, as a share of the Hessian's mean diagonal, or `auto` [default: auto].
    #[arg(long, value_name = "auto|RIDGE", value_parser = ridge)]
    pub(crate) ridge: Option<Choice<f64>>,
    /// The most sweeps of refinement after the method: a number, or `auto` [default: auto for `rescomp-exact`, 0 for the
    /// others].
    #[arg(long, value_name = "auto|N", value_parser = refine)]
    pub(crate) refine: Option<Choice<usize>>,
    /// Text to calibrate on, UTF-8 [default: calibration.txt in the model's folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Of a classifier of images, which needs it: images to calibrate on, the PNG and JPEG files of this folder and of those in it, sorted by
    /// their paths. Every fourth is held out for the check and the report.
    #[arg(long, value_name = "DIR")]
    pub(crate) calibration_images: Option<PathBuf>,
    /// Windows of calibration text, or of a classifier images, at most.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub(crate) calibration_windows: usize,
    /// Windows of calibration text, or images, to skip first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) calibration_offset: usize,
    /// Tokens in a calibration window [default: 512, of an encoder 128, or the model's context where that is less].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) context: Option<usize>,
    /// What joins the documents of a text, which are separated by lines `<|endoftext|>`. `auto`: the model's end token before
    /// each; `none`: the text is one document, taken as it stands.
    #[arg(long, value_enum, default_value_t = Joiner::Auto)]
    pub(crate) joiner: Joiner,
    /// Layout of the weights in the container [default: the target's].
    #[arg(long, value_enum)]
    pub(crate) layout: Option<Layout>,
    /// What keys and values are kept as on the device; of decoders alone.
    #[arg(long, value_enum, default_value_t = KvCache::F16)]
    pub(crate) kv_cache: KvCache,
    /// Threads of the quantizer; the result does not depend on them [default: the host's processors].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Folder to write to, created where missing [default: dist/TARGET in the project].
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Go on after the last finished layer of a run that was stopped, with an identical result. Its other options must be the same.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Sign the container with this secret key (see `keygen`), and build the program so that it loads nothing else.
    #[arg(long, value_name = "KEY")]
    pub(crate) sign: Option<PathBuf>,
    /// The signed container's release: a device refuses one that is lower than what it has used [default: seconds since 1970].
    #[arg(long, value_name = "N", requires = "sign")]
    pub(crate) release: Option<u64>,
    /// Install nothing: a missing tool is an error that names the commands.
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Do not run the container on the target or its emulation.
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareFlags {
    /// Reports: what `cargo xtask check --json` printed, or `rescomp check --json` on a device, or the report.json of `pack`.
    #[arg(value_name = "REPORT.json", num_args = 2.., required = true)]
    pub(crate) reports: Vec<PathBuf>,
    /// Print the comparison as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckFlags {
    /// Check what `deploy` made live on this device, instead of running the container here; the container that it is compared with is the local one.
    #[arg(long, value_name = "USER@BOARD")]
    pub(crate) host: Option<String>,
    /// How the device is reached.
    #[command(flatten)]
    pub(crate) remote: RemoteFlags,
    /// Also write the report as Markdown and JSON: FILE.md and FILE.json.
    #[arg(long, value_name = "FILE.md")]
    pub(crate) report: Option<PathBuf>,
    /// The target: a name from `cargo xtask targets`, or the path of a target file.
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "aarch64")]
    pub(crate) target: String,
    /// The container to check [default: the one that `pack` wrote to dist/TARGET].
    #[arg(long, value_name = "FILE")]
    pub(crate) container: Option<PathBuf>,
    /// Install nothing: a missing tool is an error that names the commands.
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `eval`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["container", "model"]))]
#[command(group = clap::ArgGroup::new("measured_on").required(true).args(["text", "images"]))]
pub(crate) struct EvalFlags {
    /// A container to measure.
    #[arg(long, value_name = "FILE")]
    pub(crate) container: Option<PathBuf>,
    /// Activations of the container's linear layers: int8 as on the device, or f32 to see the weights' error alone.
    #[arg(long, value_enum, default_value_t = Activations::Int8, conflicts_with = "model")]
    pub(crate) activations: Activations,
    /// A full-precision model to measure: a folder as Hugging Face lays it out, or a GGUF file.
    #[arg(long, value_name = "DIR|FILE.gguf|hub:OWNER/NAME")]
    pub(crate) model: Option<PathBuf>,
    /// Text to measure on, UTF-8.
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Of a classifier, images to measure on: the PNG and JPEG files of this folder and of those in it.
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// A full-precision model to compare with: divergence in nats a token, share of the same top token; of an encoder, which needs it, cosines
    /// of the vectors of each line of the text; of a classifier, which needs it, divergence of the classes' probabilities.
    #[arg(long, value_name = "DIR|FILE.gguf|hub:OWNER/NAME")]
    pub(crate) reference: Option<PathBuf>,
    /// Tokens predicted in a window; windows follow one another without overlap [default: 512, or the model's context where that is less].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) context: Option<usize>,
    /// The first position of a window that counts; those before it are context only. Position 0 predicts a window's second
    /// token.
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub(crate) score_from: usize,
    /// Threads; the result does not depend on them [default: the host's processors].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Windows to measure, of an encoder lines, of a classifier images [default: all].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) windows: Option<usize>,
    /// What joins the documents of the text, as in `pack`.
    #[arg(long, value_enum, default_value_t = Joiner::Auto)]
    pub(crate) joiner: Joiner,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

impl EvalFlags {
    /// The text, of what reads texts.
    ///
    /// # Errors
    /// `Exit::Input` where images are given instead.
    pub(crate) fn text_file(&self) -> Result<&Path, Error> {
        self.text
            .as_deref()
            .ok_or_else(|| Error::input("--images: the model reads texts: expected --text FILE"))
    }
}

/// Options of `estimate`.
#[derive(Debug, Args)]
pub(crate) struct EstimateFlags {
    /// The board: a name in `targets/`, or a TOML file of your own, with a table `[board]`.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) target: String,
    /// The container [default: what `pack --target` wrote for this target, or else for its architecture].
    #[arg(long, value_name = "FILE")]
    pub(crate) container: Option<PathBuf>,
    /// Position of the decoded token: keys and values of as many are read [default: half the model's context, at most 256].
    #[arg(long, value_name = "N")]
    pub(crate) position: Option<usize>,
    /// Print the estimate as one JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportFlags {
    /// The target that was packed for.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) target: String,
    /// The report of `pack` [default: report.json in the target's output folder].
    #[arg(long, value_name = "FILE.json")]
    pub(crate) pack: Option<PathBuf>,
    /// A report of `check --report`, of a device; several are shown one after the other.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) check: Vec<PathBuf>,
    /// The report of `bench quality`, for the plot of divergence over bits.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) quality: Option<PathBuf>,
    /// The report of `bench methods`, for the plot of errors by layer.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) methods: Option<PathBuf>,
    /// The page [default: report.html in the target's output folder].
    #[arg(long, value_name = "FILE.html")]
    pub(crate) output: Option<PathBuf>,
}

/// Options of `targets`.
#[derive(Debug, Args)]
pub(crate) struct TargetsFlags {
    /// Print the descriptions as one JSON array on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Quantization methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Round to nearest, without calibration.
    Rtn,
    /// GPTQ: second-order error compensation.
    Gptq,
    /// GPTAQ: GPTQ with the drift of the quantized stream's inputs.
    Gptaq,
    /// ResComp: GPTAQ with the compensation-aware error.
    Rescomp,
    /// The exact solution of ResComp's problem for each column.
    RescompExact,
}

impl From<Method> for methods::Method {
    fn from(method: Method) -> methods::Method {
        match method {
            Method::Rtn => methods::Method::Rtn,
            Method::Gptq => methods::Method::Gptq,
            Method::Gptaq => methods::Method::Gptaq,
            Method::Rescomp => methods::Method::Rescomp,
            Method::RescompExact => methods::Method::RescompExact,
        }
    }
}

/// What is folded into the weights before they are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transform {
    /// Nothing.
    None,
    /// Channel scales in front of each set of matrices, chosen on held-out windows.
    Smooth,
    /// Random rotations of the residual stream and of each head's values.
    Quarot,
    /// Random rotations of the residual stream, and Hadamard transforms in the forward, in front of the output and down projections.
    QuarotOnline,
    /// Rotations of the same that are learned on the calibration text.
    Spinquant,
}

impl From<Transform> for TransformKind {
    fn from(transform: Transform) -> TransformKind {
        match transform {
            Transform::None => TransformKind::None,
            Transform::Smooth => TransformKind::Smooth,
            Transform::Quarot => TransformKind::Quarot,
            Transform::QuarotOnline => TransformKind::QuarotOnline,
            Transform::Spinquant => TransformKind::Spinquant,
        }
    }
}

/// What the update beyond a lazy block is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// The weights before they are rounded: the papers' mathematics.
    Paper,
    /// The rounded weights: the published code of GPTAQ, and of ResComp at 2 bits.
    Original,
    /// The weights before rounding, within the grid's range: the published code of ResComp at 3 bits and more.
    AllWeights,
}

/// How a group's scale is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clip {
    /// It covers the largest weight.
    Off,
    /// The least error of the weights themselves.
    Plain,
    /// The least error of the weights, each weighted by the power of its input.
    HessianDiagonal,
}

/// How the levels of a grid are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Levels {
    /// Least error for normally distributed weights: dense around zero.
    Normal,
    /// Evenly, as published: -2..=1, -4..=3, -8..=7. At 5 and 6 bits a container's levels are even in any case.
    Uniform,
    /// Evenly, so that kernels for 64-bit ARM compute with less: -3, -1, 1, 3; -7, -5 .. 7; -8..=7.
    Even,
}

impl Levels {
    /// As command lines have it.
    pub(crate) fn name(self) -> &'static str {
        Spacing::from(self).name()
    }
}

impl From<Levels> for Spacing {
    fn from(levels: Levels) -> Spacing {
        match levels {
            Levels::Normal => Spacing::Normal,
            Levels::Uniform => Spacing::Uniform,
            Levels::Even => Spacing::Even,
        }
    }
}

/// A number, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice<T> {
    /// Chosen for each matrix on held-out calibration windows.
    Auto,
    /// Given.
    Given(T),
}

impl<T> Choice<T> {
    /// As the quantizer has it.
    pub(crate) fn setting(self) -> Setting<T> {
        match self {
            Choice::Auto => Setting::Auto,
            Choice::Given(value) => Setting::Fixed(value),
        }
    }
}

/// How a container's linear layers take their inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Activations {
    /// Quantized to 8 bits, as on the device.
    Int8,
    /// Full precision.
    F32,
}

impl From<Activations> for ActivationFormat {
    fn from(activations: Activations) -> ActivationFormat {
        match activations {
            Activations::Int8 => ActivationFormat::Int8,
            Activations::F32 => ActivationFormat::F32,
        }
    }
}

/// Weights of a row that share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupSize {
    /// So many.
    Elements(u32),
    /// The whole row.
    Row,
}

impl FromStr for GroupSize {
    type Err = String;

    fn from_str(text: &str) -> Result<GroupSize, String> {
        match text {
            "row" => Ok(GroupSize::Row),
            "32" => Ok(GroupSize::Elements(32)),
            "64" => Ok(GroupSize::Elements(64)),
            "128" => Ok(GroupSize::Elements(128)),
            _ => Err("expected 32, 64, 128 or row".to_owned()),
        }
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupSize::Elements(count) => count.fmt(f),
            GroupSize::Row => f.write_str("row"),
        }
    }
}

impl From<GroupSize> for methods::GroupSize {
    fn from(size: GroupSize) -> methods::GroupSize {
        match size {
            GroupSize::Elements(elems) => NonZeroUsize::new(elems as usize)
                .map_or(methods::GroupSize::Row, methods::GroupSize::Elements),
            GroupSize::Row => methods::GroupSize::Row,
        }
    }
}

/// What joins the documents of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Joiner {
    /// The model's end token (its begin token where it has no other).
    Auto,
    /// Nothing: the text is one document.
    None,
}

/// The items of a list, each once, in the order of their first mention.
pub(crate) fn unique<T: Copy + PartialEq>(list: &[T]) -> Vec<T> {
    let mut kept = Vec::new();
    for item in list {
        if !kept.contains(item) {
            kept.push(*item);
        }
    }
    kept
}

pub(crate) fn bits(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(bits @ (2 | 3 | 4 | 5 | 6 | 8)) => Ok(bits),
        _ => Err("expected 2, 3, 4, 5, 6 or 8".to_owned()),
    }
}

/// A rank of a low-rank correction.
pub(crate) fn rank(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(rank) if rank <= MOST_RANK && u32::is_multiple_of(rank, RANK_UNIT) => Ok(rank),
        _ => Err(format!("expected a multiple of {RANK_UNIT} up to {MOST_RANK}, or 0 for none")),
    }
}

fn choice<T: FromStr>(text: &str, expected: &str, valid: impl Fn(&T) -> bool) -> Result<Choice<T>, String> {
    if text == "auto" {
        return Ok(Choice::Auto);
    }
    match text.parse() {
        Ok(value) if valid(&value) => Ok(Choice::Given(value)),
        _ => Err(format!("expected auto or {expected}")),
    }
}

fn strength(text: &str) -> Result<Choice<f64>, String> {
    choice(text, "a number from 0 to 1", |strength| (0.0..=1.0).contains(strength))
}

fn ridge(text: &str) -> Result<Choice<f64>, String> {
    choice(text, "a finite number of at least 0", |ridge: &f64| ridge.is_finite() && *ridge >= 0.0)
}

fn transform(text: &str) -> Result<Choice<Transform>, String> {
    if text == "auto" {
        return Ok(Choice::Auto);
    }
    let names = || {
        Transform::value_variants()
            .iter()
            .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
    };
    Transform::from_str(text, false)
        .map(Choice::Given)
        .map_err(|_| format!("expected auto, {}", names().collect::<Vec<_>>().join(", ")))
}

fn refine(text: &str) -> Result<Choice<usize>, String> {
    choice(text, "a whole number of at most 1000", |sweeps| *sweeps <= 1000)
}

/// Bits a weight on average.
fn bits_per_weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(bits) if bits > 0.0 && bits <= 16.0 => Ok(bits),
        _ => Err("expected a number above 0 and at most 16".to_owned()),
    }
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".to_owned()),
        Ok(count) => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn pack(arguments: &[&str]) -> Result<PackFlags, clap::Error> {
        let head = ["cargo xtask", "pack", "--target", "aarch64"];
        match Flags::try_parse_from(head.iter().chain(arguments))?.command {
            Command::Pack(flags) => Ok(flags),
            other => panic!("parsed as {other:?}"),
        }
    }

    #[test]
    fn the_declaration_is_consistent_and_every_option_is_documented() {
        let command = Flags::command();
        command.clone().debug_assert();
        let nested = command.get_subcommands().flat_map(clap::Command::get_subcommands);
        for sub in command.get_subcommands().chain(nested) {
            assert!(sub.get_about().is_some(), "{} has no description", sub.get_name());
            for option in sub.get_arguments() {
                assert!(
                    option.get_help().is_some(),
                    "{} {} is undocumented",
                    sub.get_name(),
                    option.get_id()
                );
            }
        }
    }

    #[test]
    fn pack_has_defaults_and_refuses_what_no_encoding_has() {
        let flags = pack(&[]).expect("defaults");
        assert_eq!((flags.bits, flags.head_bits, flags.group_size), (4, 8, GroupSize::Elements(64)));
        assert_eq!((flags.calibration_windows, flags.context, flags.joiner), (64, None, Joiner::Auto));
        assert_eq!(pack(&["--joiner", "none"]).expect("valid").joiner, Joiner::None);
        assert_eq!(pack(&["--group-size", "row"]).expect("valid").group_size, GroupSize::Row);
        assert_eq!(pack(&["--variant", "all-weights"]).expect("valid").variant, Some(Variant::AllWeights));
        assert_eq!(pack(&["--method", "rescomp-exact"]).expect("valid").method, Method::RescompExact);
        assert_eq!((flags.strength, flags.ridge, flags.refine, flags.clip), (None, None, None, None));
        let flags = pack(&["--strength", "0.5", "--ridge", "auto", "--refine", "4", "--clip", "plain"])
            .expect("valid");
        assert_eq!((flags.strength, flags.ridge), (Some(Choice::Given(0.5)), Some(Choice::Auto)));
        assert_eq!((flags.refine, flags.clip), (Some(Choice::Given(4)), Some(Clip::Plain)));
        for wrong in [
            ["--strength", "1.5"],
            ["--strength", "NaN"],
            ["--ridge", "inf"],
            ["--ridge", "-1"],
            ["--refine", "0.5"],
            ["--clip", "best"],
            ["--bits", "7"],
            ["--head-bits", "0"],
            ["--group-size", "48"],
            ["--context", "0"],
            ["--layout", "nr4"],
            ["--kv-cache", "int4"],
            ["--method", "awq"],
        ] {
            assert_eq!(pack(&wrong).expect_err("refused").exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn eval_measures_one_subject() {
        let eval = |arguments: &[&str]| {
            let head = ["cargo xtask", "eval", "--text", "t.txt"];
            Flags::try_parse_from(head.iter().chain(arguments)).is_ok()
        };
        assert!(eval(&["--container", "c"]) && eval(&["--model", "m"]));
        assert!(eval(&["--container", "c", "--activations", "f32"]));
        assert!(!eval(&[]) && !eval(&["--container", "c", "--model", "m"]));
        assert!(!eval(&["--model", "m", "--activations", "f32"]));
        assert!(!eval(&["--container", "c", "--images", "d"]));
    }

    #[test]
    fn bench_quality_takes_lists_and_refuses_wrong_members() {
        let quality = |arguments: &[&str]| -> Result<QualityFlags, clap::Error> {
            let head = ["cargo xtask", "bench", "quality"];
            match Flags::try_parse_from(head.iter().chain(arguments))?.command {
                Command::Bench(BenchCommand::Quality(flags)) => Ok(*flags),
                other => panic!("parsed as {other:?}"),
            }
        };
        let flags = quality(&[]).expect("defaults");
        assert_eq!((flags.methods.len(), flags.bits, flags.samples), (5, vec![4, 8], 3));
        assert_eq!((flags.head_bits, flags.score_from, flags.linears_only), (vec![8], 0, false));
        assert_eq!(quality(&["--head-bits", "4,8"]).expect("valid").head_bits, [4, 8]);
        assert!(quality(&["--linears-only", "--bits", "2"]).expect("valid").linears_only);
        for wrong in [["--linears-only", "--head-bits=8"], ["--linears-only", "--activations=int8"]] {
            assert_eq!(quality(&wrong).expect_err("refused").exit_code(), 2, "{wrong:?}");
        }
        let flags =
            quality(&["--bits", "2,3", "--methods", "gptq", "--group-size", "32,row"]).expect("valid");
        assert_eq!((flags.bits, flags.methods), (vec![2, 3], vec![Method::Gptq]));
        assert_eq!(flags.group_size, [GroupSize::Elements(32), GroupSize::Row]);
        for wrong in [
            ["--bits", "4,7"],
            ["--bits", ""],
            ["--methods", "gptq,awq"],
            ["--group-size", "64,48"],
            ["--samples", "0"],
        ] {
            assert_eq!(quality(&wrong).expect_err("refused").exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn lists_keep_the_first_of_equals() {
        assert_eq!(unique(&[4, 8, 4, 2, 8]), [4, 8, 2]);
        assert_eq!(unique::<u8>(&[]), Vec::<u8>::new());
    }

    #[test]
    fn test_takes_several_processors() {
        for arguments in [&["--cpu", "cortex-a72", "max"][..], &["--cpu", "cortex-a72", "--cpu", "max"]] {
            let flags =
                Flags::try_parse_from(["cargo xtask", "test"].iter().chain(arguments)).expect("valid");
            let Command::Test(flags) = flags.command else { panic!("parsed as another command") };
            assert_eq!(flags.cpus, ["cortex-a72", "max"]);
        }
    }
}
