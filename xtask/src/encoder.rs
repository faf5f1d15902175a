//! What `pack` and `eval` do otherwise with an encoder: texts are lines, and there is no next token to predict.

use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::spec::{ModelKind, ModelSpec};
use rescomp_quantizer::corpus::CorpusError;
use rescomp_quantizer::evaluate_embeddings::{EmbeddingEvaluation, evaluate_embeddings, steps};
use rescomp_quantizer::{sequences, texts};
use rescomp_runtime::Machine;
use rescomp_runtime::tokenizer::Tokenizer;

use crate::error::{Error, Exit};
use crate::flags::{EvalFlags, Joiner, PackFlags};
use crate::{host, model, output};

/// Tokens of a calibration window where nobody says: about what sentences and short paragraphs have.
const WINDOW_TOKENS: usize = 128;
/// Tokens of a check's text at most.
const CHECK_TOKENS: usize = 128;
/// Lines that are offered for the check; those that fit are taken.
const CHECK_TEXTS: usize = 64;

/// Refuses an encoder or a classifier for something that needs a next token.
///
/// # Errors
/// `Exit::Input` naming the architecture and what to use.
pub(crate) fn expect_decoder(spec: &ModelSpec, what: &str) -> Result<(), Error> {
    let architecture = spec.architecture.name();
    match spec.architecture.kind() {
        ModelKind::Decoder => Ok(()),
        ModelKind::Classifier => Err(Error::input(format!(
            "{architecture} is a classifier: it reads images and has no next token, so there is no {what}"
        ))
        .remedy("cargo xtask eval --container FILE --reference DIR --images DIR compares the probabilities of its classes")),
        ModelKind::Encoder => Err(Error::input(format!(
            "{architecture} is an encoder: it makes vectors of texts and has no next token, so there is no {what}"
        ))
        .remedy("cargo xtask eval --container FILE --reference DIR --text FILE compares its vectors")),
    }
}

/// The texts of `pack`: windows for the calibration, and the lines behind them for the check.
pub(crate) struct PackTexts {
    /// Windows of `positions` tokens.
    pub(crate) calibration: Vec<Vec<u32>>,
    /// Tokens of a window.
    pub(crate) positions: usize,
    /// The tokens of texts that the calibration has not seen.
    pub(crate) check: Vec<Vec<u32>>,
}

/// Reads the texts of `pack`.
///
/// # Errors
/// `Exit::Disk` when the file cannot be read, otherwise `Exit::Input`.
pub(crate) fn pack_texts(
    flags: &PackFlags,
    section: &[u8],
    spec: &ModelSpec,
    path: &Path,
) -> Result<PackTexts, Error> {
    if flags.joiner != Joiner::Auto {
        return Err(Error::input(
            "--joiner: an encoder's texts are lines, each by itself: nothing joins them",
        ));
    }
    let usual = WINDOW_TOKENS.min(spec.context as usize);
    let positions = model::context(flags.context.or(Some(usual)), spec)?;
    let tokenizer = tokenizer(section)?;
    let lines = sequences::lines(path).map_err(|error| corpus_error(&error))?;
    let (skip, count) = (flags.calibration_offset, flags.calibration_windows);
    let windows = sequences::windows(&tokenizer, path, &lines, positions, skip, count)
        .map_err(|error| corpus_error(&error))?;
    let longest = CHECK_TOKENS.min(spec.context as usize);
    let check = sequences::sequences(&tokenizer, path, &lines[windows.lines..], longest, CHECK_TEXTS)
        .map_err(|error| corpus_error(&error))?;
    if check.is_empty() {
        return Err(Error::input(format!(
            "{}: expected lines for the check behind the {} that the calibration takes, found none",
            path.display(),
            windows.lines
        ))
        .remedy("give a longer text, or fewer --calibration-windows"));
    }
    Ok(PackTexts { calibration: windows.windows, positions, check })
}

/// `eval` of an encoder's container.
///
/// # Errors
/// `Exit::Input` or `Exit::Disk` for what cannot be read, `Exit::Failed` for what cannot be run.
pub(crate) fn eval(
    flags: &EvalFlags,
    container: &CheckedContainer<'_>,
    section: &[u8],
    machine: Machine<'_>,
) -> Result<(), Error> {
    let spec = &container.manifest().spec;
    let Some(reference) = flags.reference.as_deref() else {
        return Err(Error::input(format!(
            "{} is an encoder: it has no next token, so there is no perplexity",
            spec.architecture.name()
        ))
        .remedy(
            "give --reference with the full-precision model, to compare the vectors of the text's lines with",
        ));
    };
    let reference = model::named_checkpoint(reference)?;
    let tokenizer = tokenizer(section)?;
    let text = flags.text_file()?;
    let lines = sequences::lines(text).map_err(|error| corpus_error(&error))?;
    let longest = (spec.context.min(reference.spec.context)) as usize;
    let count = flags.windows.unwrap_or(usize::MAX);
    let texts = sequences::sequences(&tokenizer, text, &lines, longest, count)
        .map_err(|error| corpus_error(&error))?;
    let bar = host::progress("evaluating", steps(&reference, texts.len()));
    let found =
        evaluate_embeddings(machine, container, flags.activations.into(), &reference, &texts, &|| bar.inc(1));
    bar.finish_and_clear();
    let found = found.map_err(|error| Error::failed(error.to_string()))?;
    match flags.json {
        true => output::line(&output::json(&found)?),
        false => print(&found),
    }
    Ok(())
}

fn print(found: &EmbeddingEvaluation) {
    let row = |name: &str, value: String| output::line(&format!("{name:<26}{value:>14}"));
    row("mean of 1 - cosine", format!("{:.6}", found.mean_distance));
    row("median", format!("{:.6}", found.median_distance));
    row("99th percentile", format!("{:.6}", found.p99_distance));
    row("largest", format!("{:.6}", found.largest_distance));
    let correlation = found.rank_correlation.map_or("-".to_owned(), |value| format!("{value:.6}"));
    row("rank correlation of pairs", correlation);
    row("bits a weight", format!("{:.3}", found.bits_per_weight));
    row("file bytes", found.file_bytes.to_string());
    row("texts", found.texts.to_string());
    row("tokens", found.tokens.to_string());
    row("activations", found.activations.to_owned());
    row("kernels", found.kernels.to_owned());
}

fn tokenizer(section: &[u8]) -> Result<Tokenizer<'_>, Error> {
    texts::tokenizer(section).map_err(|error| Error::input(error.to_string()))
}

fn corpus_error(error: &CorpusError) -> Error {
    let exit = if matches!(error, CorpusError::Read { .. }) { Exit::Disk } else { Exit::Input };
    Error::new(exit, error.to_string())
}
