//! Texts for calibration and measurement: from a file to windows of tokens.
//!
//! ```text
//! documents = text between lines `<|endoftext|>`, trimmed, empty ones dropped
//! stream    = joiner, tokens of document 0, joiner, tokens of document 1, ...
//! windows   = stream[0..n], stream[n..2n], ...       n = context + 1
//! ```
//!
//! A window has one token more than the context, as each token is the target of the one before. Windows do not overlap
//! and pay no heed to documents, so every token of the stream but the first of a window is predicted once.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// The line between documents.
pub const SEPARATOR: &str = "<|endoftext|>";

/// How a text becomes one stream of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joiner {
    /// The text holds documents between [`SEPARATOR`] lines; this token goes before each.
    Token(u32),
    /// The text is encoded whole, as it stands.
    None,
}

/// Why a text gave no windows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// The file could not be read.
    #[error("{path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file is not UTF-8.
    #[error("{path}: expected UTF-8, found an invalid sequence at byte {byte_offset}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where the first invalid sequence starts.
        byte_offset: usize,
    },
    /// The encoder refused a document.
    #[error("{path}: document {document}: {cause}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// Counted from 0, empty ones not counted.
        document: usize,
        /// What the encoder said.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The text is too short.
    #[error(
        "{path}: expected at least {needed} tokens ({skip} windows skipped and {count} taken, of {window} tokens each), \
         found {found}"
    )]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Tokens in the text.
        found: usize,
        /// Tokens that the windows need.
        needed: usize,
        /// Windows passed over.
        skip: usize,
        /// Windows asked for.
        count: usize,
        /// Tokens of one window.
        window: usize,
    },
    /// Windows without a token to predict were asked for.
    #[error("{path}: expected a context of at least 1 token, found 0")]
    NoContext {
        /// The file.
        path: PathBuf,
    },
}

/// Reads `count` windows of `context + 1` tokens from a text file, after passing over the first `skip` windows.
///
/// `encode` turns a document into tokens, adding none of its own. It is called for one document after another and no
/// more once the windows are full. Line ends are read as `\n` whatever the system that wrote them.
///
/// # Errors
/// The file cannot be read or is not UTF-8, `encode` fails, the text has too few tokens, or `context` is 0.
pub fn windows<F, E>(
    text_path: &Path,
    joiner: Joiner,
    context: usize,
    skip: usize,
    count: usize,
    mut encode: F,
) -> Result<Vec<Vec<u32>>, CorpusError>
where
    F: FnMut(&str) -> Result<Vec<u32>, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let path = || text_path.to_owned();
    if context == 0 {
        return Err(CorpusError::NoContext { path: path() });
    }
    // Sizes that saturate are beyond any text, and end as `TooShort`.
    let window = context.saturating_add(1);
    let skipped = skip.saturating_mul(window);
    let needed = skip.saturating_add(count).saturating_mul(window);

    let text = read_text(text_path)?;
    // Of the stream, only what follows the skipped windows is kept; `found` counts all of it.
    let (mut kept, mut found) = (Vec::new(), 0_usize);
    let mut take = |tokens: &[u32]| {
        let drop = skipped.saturating_sub(found).min(tokens.len());
        kept.extend_from_slice(&tokens[drop..]);
        found = found.saturating_add(tokens.len());
        found
    };
    let mut encode = |document: usize, text: &str| {
        encode(text).map_err(|cause| CorpusError::Encode { path: path(), document, cause: cause.into() })
    };
    match joiner {
        Joiner::None => {
            take(&encode(0, &text)?);
        }
        Joiner::Token(token) => {
            let mut have = 0;
            for (index, document) in documents(&text).enumerate() {
                if have >= needed {
                    break;
                }
                take(&[token]);
                have = take(&encode(index, document)?);
            }
        }
    }
    if found < needed {
        return Err(CorpusError::TooShort { path: path(), found, needed, skip, count, window });
    }
    Ok(kept.chunks_exact(window).take(count).map(<[u32]>::to_vec).collect())
}

/// The documents of a text: what stands between lines that are exactly [`SEPARATOR`], trimmed, empty ones dropped.
pub fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    let next = move || {
        let text = rest?;
        let (document, after) = split_at_separator(text);
        rest = after;
        Some(document)
    };
    std::iter::from_fn(next).map(trim).filter(|document| !document.is_empty())
}

/// What stands before the first separator line, and what after it where there is one.
fn split_at_separator(text: &str) -> (&str, Option<&str>) {
    for (at, _) in text.match_indices(SEPARATOR) {
        let (before, after) = (&text[..at], &text[at + SEPARATOR.len()..]);
        let starts_line = before.is_empty() || before.ends_with('\n');
        if starts_line && (after.is_empty() || after.starts_with('\n')) {
            return (before, Some(after));
        }
    }
    (text, None)
}

/// White space as Python's `str.strip` has it: Unicode's and the four separators of ASCII.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

fn read_text(path: &Path) -> Result<String, CorpusError> {
    let bytes = std::fs::read(path).map_err(|cause| CorpusError::Read { path: path.to_owned(), cause })?;
    let text = String::from_utf8(bytes).map_err(|error| CorpusError::NotUtf8 {
        path: path.to_owned(),
        byte_offset: error.utf8_error().valid_up_to(),
    })?;
    Ok(match unix_lines(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(changed) => changed,
    })
}

/// Line ends of Windows and of old Macs as `\n`.
fn unix_lines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') {
        Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(text)
    }
}
