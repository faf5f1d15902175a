//! Tokens of texts, with the tokenizer that the device will run.

use crate::checkpoint::{Checkpoint, CheckpointError, TokenizerSource};
use crate::corpus::{self, CorpusError, Joiner};
use crate::tokenizer_json::{TokenizerJsonError, read_tokenizer_json};
use rescomp_formats::spec::ModelSpec;
use rescomp_formats::tokenizer::{TokenizerFormatError, TokenizerView};
use rescomp_runtime::tokenizer::{Tokenizer, TokenizerError};
use std::path::Path;

/// Why a checkpoint's tokenizer was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointTokenizerError {
    /// A folder's.
    #[error(transparent)]
    Json(#[from] TokenizerJsonError),
    /// A GGUF file's.
    #[error(transparent)]
    Gguf(#[from] CheckpointError),
}

/// The tokenizer section of a checkpoint.
///
/// # Errors
/// [`CheckpointTokenizerError`].
pub fn tokenizer_section(checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointTokenizerError> {
    Ok(match checkpoint.tokenizer() {
        TokenizerSource::Json(path) => read_tokenizer_json(&path, Some(checkpoint.spec.vocabulary))?,
        TokenizerSource::Gguf(tokenizer) => tokenizer.section()?,
    })
}

/// The tokenizer of a section.
///
/// # Errors
/// [`TokenizerFormatError`].
pub fn tokenizer(section: &[u8]) -> Result<Tokenizer<'_>, TokenizerFormatError> {
    TokenizerView::parse(section).map(Tokenizer::new)
}

/// All tokens of a text; special tokens are not looked for in it.
///
/// # Errors
/// [`TokenizerError`].
pub fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
    let count = tokenizer.encode(text, false, &mut tokens)?;
    tokens.truncate(count);
    Ok(tokens)
}

/// How a model joins documents: by its end token, else by its begin token, else not at all.
pub fn model_joiner(spec: &ModelSpec) -> Joiner {
    spec.end_tokens.first().copied().or(spec.begin_token).map_or(Joiner::None, Joiner::Token)
}

/// Windows of `context + 1` tokens of a text file: `count` of them after the first `skip`.
///
/// # Errors
/// [`CorpusError`].
pub fn windows(
    tokenizer: &Tokenizer<'_>,
    text: &Path,
    joiner: Joiner,
    context: usize,
    skip: usize,
    count: usize,
) -> Result<Vec<Vec<u32>>, CorpusError> {
    corpus::windows(text, joiner, context, skip, count, |document| encode(tokenizer, document))
}
