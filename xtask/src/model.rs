//! What `pack` and `eval` read: checkpoints, containers, and the windows of a text.

use std::path::{Path, PathBuf};

use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::spec::ModelSpec;
use rescomp_quantizer::checkpoint::{Checkpoint, CheckpointError};
use rescomp_quantizer::corpus::{self, CorpusError};
use rescomp_quantizer::evaluate::Positions;
use rescomp_quantizer::texts::{self, CheckpointTokenizerError};
use rescomp_quantizer::tokenizer_json::TokenizerJsonError;
use rescomp_runtime::memory::AlignedBytes;

use crate::error::{Error, Exit};
use crate::flags::Joiner;
use crate::{encoder, hub, root};

/// Where the model is that a command line names, a folder, a GGUF file or one of the hub, which is fetched; or the embedded one.
///
/// # Errors
/// Those of [`root::root`] and of [`hub::resolve`].
pub(crate) fn path(named: Option<&Path>) -> Result<PathBuf, Error> {
    match named {
        None => Ok(root::root()?.join("models/stories-1m")),
        Some(named) => Ok(hub::resolve(named)?.unwrap_or_else(|| named.to_path_buf())),
    }
}

/// Opens the checkpoint that a command line names.
///
/// # Errors
/// As [`path`] and [`checkpoint`].
pub(crate) fn named_checkpoint(named: &Path) -> Result<Checkpoint, Error> {
    checkpoint(&path(Some(named))?)
}

/// Opens a checkpoint.
///
/// # Errors
/// `Exit::Disk` when a file cannot be read, otherwise `Exit::Input` naming the file and the tensor.
pub(crate) fn checkpoint(path: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(path).map_err(|error| checkpoint_error(&error))
}

fn checkpoint_error(error: &CheckpointError) -> Error {
    let unreadable = matches!(error, CheckpointError::Read { .. } | CheckpointError::Shard { .. });
    Error::new(if unreadable { Exit::Disk } else { Exit::Input }, error.to_string())
}

/// Reads every weight once: one that isn't finite is found before the work that it would spoil.
///
/// # Errors
/// `Exit::Input` naming the file, the tensor and the element.
pub(crate) fn check_weights(checkpoint: &Checkpoint) -> Result<(), Error> {
    let check = || {
        match checkpoint.spec.architecture.is_classifier() {
            true => checkpoint.patches()?,
            false => checkpoint.embedding()?,
        };
        checkpoint.head()?;
        checkpoint.head_bias()?;
        checkpoint.positions()?;
        if checkpoint.embedding_norm()?.is_none() {
            checkpoint.final_norm()?;
        }
        (0..checkpoint.spec.layers as usize).try_for_each(|layer| checkpoint.layer(layer).map(|_| ()))
    };
    check().map_err(|error| checkpoint_error(&error))
}

/// The tokenizer section of a checkpoint.
///
/// # Errors
/// `Exit::Disk` when the file cannot be read, otherwise `Exit::Input` naming the file and the field.
pub(crate) fn tokenizer_section(checkpoint: &Checkpoint) -> Result<Vec<u8>, Error> {
    if checkpoint.spec.architecture.is_classifier() {
        encoder::expect_decoder(&checkpoint.spec, "tokenizer")?;
    }
    texts::tokenizer_section(checkpoint).map_err(|error| {
        let unreadable = matches!(error, CheckpointTokenizerError::Json(TokenizerJsonError::Read { .. }));
        let exit = if unreadable { Exit::Disk } else { Exit::Input };
        Error::new(exit, error.to_string())
    })
}

/// Reads a file to where a container may lie.
///
/// # Errors
/// `Exit::Disk`.
pub(crate) fn container_bytes(path: &Path) -> Result<AlignedBytes, Error> {
    std::fs::read(path)
        .map(|bytes| AlignedBytes::new(&bytes))
        .map_err(|error| Error::disk("read", path, &error))
}

/// Opens and checks a container.
///
/// # Errors
/// `Exit::Input` naming the file, the section and the byte.
pub(crate) fn container<'a>(path: &Path, bytes: &'a [u8]) -> Result<CheckedContainer<'a>, Error> {
    Container::open(bytes)
        .and_then(|container| container.check(Integrity::Digest))
        .map_err(|error| Error::input(format!("{}: {error}", path.display())))
}

/// Positions of a window where none are asked for and the model has as many.
const USUAL_CONTEXT: usize = 512;

/// The positions of a window: as asked for, else 512 or as many as the model has.
///
/// # Errors
/// `Exit::Input` for more than the model's context.
pub(crate) fn context(asked: Option<usize>, spec: &ModelSpec) -> Result<usize, Error> {
    let most = spec.context as usize;
    match asked {
        Some(context) if context > most => {
            Err(Error::input(format!("--context {context}: the model has a context of {most} tokens")))
        }
        Some(context) => Ok(context),
        None => Ok(USUAL_CONTEXT.min(most)),
    }
}

/// The file that an option names, else one of the model's folder: of the folder that it is, or that its file is in.
///
/// # Errors
/// `Exit::Input` where none is named and the folder has none.
pub(crate) fn text_file(
    named: Option<&Path>,
    model: &Path,
    name: &str,
    option: &'static str,
) -> Result<PathBuf, Error> {
    let beside = || if model.is_file() { model.with_file_name(name) } else { model.join(name) };
    let path = named.map_or_else(beside, Path::to_path_buf);
    if named.is_none() && !path.is_file() {
        return Err(Error::input(format!("the model's folder has no {}", path.display()))
            .remedy(format!("give a UTF-8 text like what the model reads and writes with {option} FILE")));
    }
    Ok(path)
}

/// The positions of a window, of which those from `score_from` on count.
///
/// # Errors
/// `Exit::Input` where none would.
pub(crate) fn positions(context: usize, score_from: usize) -> Result<Positions, Error> {
    if score_from >= context {
        let message = format!("--score-from {score_from}: expected less than the {context} of --context");
        return Err(Error::input(message));
    }
    Ok(Positions { run: context, score_from })
}

/// Which windows of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowChoice {
    /// Tokens predicted in a window; a window has one more.
    pub(crate) context: usize,
    /// Windows passed over.
    pub(crate) skip: usize,
    /// Windows taken; `None` for all that there are.
    pub(crate) count: Option<usize>,
}

/// Windows of a text file, joined as the flag or the model says.
///
/// # Errors
/// `Exit::Disk` when the file cannot be read, otherwise `Exit::Input`.
pub(crate) fn windows(
    section: &[u8],
    spec: &ModelSpec,
    text: &Path,
    joiner: Joiner,
    choice: WindowChoice,
) -> Result<Vec<Vec<u32>>, Error> {
    encoder::expect_decoder(spec, "window of predictions")?;
    let tokenizer = texts::tokenizer(section).map_err(|error| Error::input(error.to_string()))?;
    let joiner = match joiner {
        Joiner::Auto => texts::model_joiner(spec),
        Joiner::None => corpus::Joiner::None,
    };
    let read = |count| texts::windows(&tokenizer, text, joiner, choice.context, choice.skip, count);
    let windows = match choice.count {
        Some(count) => read(count),
        // Asking for more than any text has tells how many tokens this one has.
        None => match read(usize::MAX) {
            Err(CorpusError::TooShort { found, skip, window, .. }) if found / window > skip => {
                read(found / window - skip)
            }
            other => other,
        },
    };
    windows.map_err(|error| {
        let exit = if matches!(error, CorpusError::Read { .. }) { Exit::Disk } else { Exit::Input };
        Error::new(exit, error.to_string())
    })
}
