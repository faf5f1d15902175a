//! The command line: every command and option, declared once.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rescomp_runtime::date::Date;
use rescomp_runtime::sample::{SampleOptions, Sampler};

use crate::bench_kernels::flags::BenchKernelsFlags;
use crate::error::Error;
use crate::exit;
use crate::mapped::Load;

/// `rescomp`.
#[derive(Debug, Parser)]
#[command(name = "rescomp", version, about = "Run a rescomp container on this machine", after_help = exit::HELP)]
pub(crate) struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what a container is: model, provenance, sections, memory, and the kernels that run it here.
    #[command(after_help = exit::HELP)]
    Info(InfoFlags),
    /// Prove that this machine computes what the host measured when it packed the container.
    #[command(after_help = exit::HELP)]
    Check(CheckFlags),
    /// Continue a prompt. The text goes to standard output, a summary to standard error.
    #[command(after_help = exit::HELP)]
    Generate(GenerateFlags),
    /// Talk with the model: a line a message, from a terminal or standard input. Answers go to standard output.
    #[command(after_help = exit::HELP)]
    Chat(ChatFlags),
    /// Make vectors of texts, with an encoder: of those on the command line, or of the lines of a file or of standard input.
    #[command(after_help = exit::HELP)]
    Embed(EmbedFlags),
    /// Say what is in images, with a classifier: the most likely classes of each, with their probabilities.
    #[command(after_help = exit::HELP)]
    Classify(ClassifyFlags),
    /// Serve completions, chats and embeddings over HTTP, as OpenAI's API has them.
    #[command(after_help = exit::HELP)]
    Serve(ServeFlags),
    /// Measure tokens a second of prefill (a prompt's tokens, several at once) and of decode (token by token), of an encoder's texts, or of a classifier's images.
    #[command(after_help = exit::HELP)]
    Bench(BenchFlags),
    /// Measure the integer matrix products alone: weights a second by kernel, bits and tokens. Needs no container.
    #[command(after_help = exit::HELP)]
    BenchKernels(BenchKernelsFlags),
}

/// Options that every command has.
#[derive(Debug, Args)]
pub(crate) struct MachineFlags {
    /// The container.
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: PathBuf,
    /// Threads; the result does not depend on them [default: the fastest of 1, 2, 4 and all
    /// processors, at most 8, in a few steps measured at the start].
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub(crate) threads: Option<usize>,
    /// Keep each thread but the calling one on a processor of its own, of those that this program may run on. Of use where nothing else
    /// runs on them.
    #[arg(long)]
    pub(crate) pin: bool,
    /// Kernels: scalar, avx2, avx512, neon, neon_dotprod or neon_i8mm, where the processor has them; the result does not depend on them
    /// [default: the fastest].
    #[arg(long, value_name = "NAME")]
    pub(crate) kernels: Option<String>,
    /// Run the container from where the system has its file (map), or copy it to memory with large pages, which is faster (copy) [default:
    /// copy where large pages are to be had and four times its bytes are free, else map].
    #[arg(long, value_name = "HOW")]
    pub(crate) load: Option<Load>,
    #[command(flatten)]
    pub(crate) trust: TrustFlags,
}

/// Whose containers are run.
#[derive(Debug, Args)]
pub(crate) struct TrustFlags {
    /// Load nothing but containers that this key signed: a file with an Ed25519 public key (PEM), or its 64 hexadecimal digits
    /// [default: the key that this program was built with, if any].
    #[arg(long, value_name = "FILE|HEX")]
    pub(crate) trusted_key: Option<String>,
    /// With a trusted key, where the highest release of each model that generated text here is kept; older ones are refused
    /// [default: rescomp/releases.json in $XDG_STATE_HOME or ~/.local/state].
    #[arg(long, value_name = "FILE")]
    pub(crate) release_state: Option<PathBuf>,
}

/// Options of `info`.
#[derive(Debug, Args)]
pub(crate) struct InfoFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// Positions of the session whose memory is planned [default: the model's context].
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// Largest difference from the host of the mean negative log-likelihood, nats a token.
    #[arg(long, value_name = "NATS", default_value_t = 1e-6, value_parser = bound)]
    pub(crate) max_nll_difference: f64,
    /// Largest difference from the host of the mean KL divergence from the full-precision model, nats a token.
    #[arg(long, value_name = "NATS", default_value_t = 1e-6, value_parser = bound)]
    pub(crate) max_kl_difference: f64,
    /// Largest difference from the host of the share of positions with the full-precision model's most likely token, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = bound)]
    pub(crate) max_top1_difference: f64,
    /// Of an encoder, largest difference from the host of the distances (1 - cosine) from the full-precision model's vectors.
    #[arg(long, value_name = "DISTANCE", default_value_t = 1e-6, value_parser = bound)]
    pub(crate) max_distance_difference: f64,
    /// Allow logits, or vectors, whose bits differ from the host's.
    #[arg(long)]
    pub(crate) any_digest: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the report as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// Options of `generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// The prompt [default: standard input where it is no terminal, without its last newline; else none].
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// A file with the prompt, UTF-8, taken as it is.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Before anything else, compare every kernel with its known answer: some milliseconds.
    #[arg(long)]
    pub(crate) self_check: bool,
    /// Read special tokens in the prompt as such, not as text.
    #[arg(long)]
    pub(crate) special_tokens: bool,
    /// Answer the prompt as a message, with the model's chat template.
    #[arg(long, conflicts_with = "special_tokens")]
    pub(crate) chat: bool,
    /// With --chat, the system message [default: the one of the model's chat template, if any].
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// Today's date for chat templates that name it, as 2026-03-31 [default: the clock's, in UTC].
    #[arg(long, value_name = "DATE", requires = "chat")]
    pub(crate) date: Option<Date>,
    /// Do not print the prompt before its continuation.
    #[arg(long)]
    pub(crate) no_echo: bool,
    /// Positions for prompt and continuation together [default: as many as both may need, at most the model's context].
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
    #[command(flatten)]
    pub(crate) sampling: SamplingFlags,
}

/// How an answer's tokens are chosen, and where it ends.
#[derive(Debug, Args)]
pub(crate) struct SamplingFlags {
    /// Most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_tokens: usize,
    /// Divides the logits before a token is drawn; 0 takes the most likely token always.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Draw from this many most likely tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: usize,
    /// Draw from the most likely tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Seed of the random numbers: the same seed gives the same text on every machine.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// End before this text; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new(), allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
}

impl SamplingFlags {
    /// Chooses tokens so.
    ///
    /// # Errors
    /// `Exit::Input` naming the option that has a value that cannot be.
    pub(crate) fn sampler(&self) -> Result<Sampler, Error> {
        let &SamplingFlags { temperature, top_k, top_p, seed, .. } = self;
        Sampler::new(SampleOptions { temperature, top_k, top_p, seed })
            .map_err(|error| Error::usage(format!("--{error}").replace("top_p", "top-p")))
    }
}

/// Options of `chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// The system message [default: the one of the model's chat template, if any].
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// Today's date for chat templates that name it, as 2026-03-31 [default: the clock's, in UTC].
    #[arg(long, value_name = "DATE")]
    pub(crate) date: Option<Date>,
    /// Positions for the whole conversation; one that needs more starts over [default: the model's context, at most 4096].
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
    #[command(flatten)]
    pub(crate) sampling: SamplingFlags,
}

/// Options of `embed`.
#[derive(Debug, Args)]
pub(crate) struct EmbedFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// The texts [default: the lines of --file or of standard input].
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// A file with a text a line, UTF-8.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Divide each vector by its length, also where the model does not.
    #[arg(long)]
    pub(crate) normalize: bool,
    /// Leave out the last tokens of texts that are longer than the model's context.
    #[arg(long)]
    pub(crate) truncate: bool,
    /// Print the cosines of all pairs instead of the vectors, a row a text.
    #[arg(long)]
    pub(crate) similarity: bool,
    /// Print a JSON object a text (with --similarity a list), instead of numbers with spaces between.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `classify`.
#[derive(Debug, Args)]
pub(crate) struct ClassifyFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// The images: PNG or JPEG files.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// Classes to print of each image, the most likely first.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = at_least_one())]
    pub(crate) top: usize,
    /// Print a JSON object an image, instead of a line a class.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// The address to listen on; others than loopback ones are reached by other machines.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) host: IpAddr,
    /// The port to listen on; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,
    /// The key that clients must show. Other users of this machine see what is on a command line, not what is in a variable.
    #[arg(long, value_name = "KEY", env = "RESCOMP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// The name of the model in requests [default: the checkpoint's].
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) model_name: Option<String>,
    /// Today's date for chat templates that name it, as 2026-03-31 [default: the clock's, in UTC].
    #[arg(long, value_name = "DATE")]
    pub(crate) date: Option<Date>,
    /// Positions for a prompt and its answer, or of an encoder for a text [default: the model's context, at most 4096].
    #[arg(long, value_name = "N")]
    pub(crate) context: Option<usize>,
    /// Requests that may wait while one is answered; more are refused.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one())]
    pub(crate) queue: usize,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchFlags {
    #[command(flatten)]
    pub(crate) machine: MachineFlags,
    /// Tokens of the prompt, or of an encoder's text [default: 128, at most half the model's context].
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) prompt_tokens: Option<usize>,
    /// Tokens to decode, which an encoder does not [default: 64, at most the rest of the context].
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) tokens: Option<usize>,
    /// Times to measure; the median is reported.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    pub(crate) repeats: usize,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads a count.
pub(crate) fn at_least_one() -> impl clap::builder::TypedValueParser<Value = usize> {
    clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1 << 20)
}

fn bound(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(bound) if bound.is_finite() && bound >= 0.0 => Ok(bound),
        _ => Err("expected a finite number, 0 or more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
        assert_eq!(bound("1e-3"), Ok(1e-3));
        assert!(["-1", "nan", "inf", "x"].iter().all(|text| bound(text).is_err()));
    }
}
