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

use rescomp_runtime::chat::trim;
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
        "{path}: expected at least {needed} tokens \
         ({skip} windows skipped and {count} taken, of {window} tokens each), found {found}"
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

pub(crate) fn read_text(path: &Path) -> Result<String, CorpusError> {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// One token a character.
    fn characters(text: &str) -> Result<Vec<u32>, Infallible> {
        Ok(text.chars().map(u32::from).collect())
    }

    fn stream(text: &str) -> Vec<u32> {
        characters(text).unwrap()
    }

    fn file(bytes: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    const JOINER: Joiner = Joiner::Token('|' as u32);

    #[test]
    fn documents_are_joined_and_cut_without_overlap() {
        let text = file("ab\n<|endoftext|>\n\n  cde \n<|endoftext|>\n \n<|endoftext|>\nfg h");
        // The stream is |ab|cde|fg h.
        let all = windows(text.path(), JOINER, 2, 0, 3, characters).unwrap();
        assert_eq!(all, [stream("|ab"), stream("|cd"), stream("e|f")]);
        let later = windows(text.path(), JOINER, 2, 1, 2, characters).unwrap();
        assert_eq!(later, all[1..]);
        let wide = windows(text.path(), JOINER, 5, 0, 2, characters).unwrap();
        assert_eq!(wide, [stream("|ab|cd"), stream("e|fg h")]);
        assert_eq!(windows(text.path(), JOINER, 5, 1, 0, characters).unwrap(), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn without_joiner_the_text_is_taken_as_it_stands() {
        let text = file(" a\n<|endoftext|>\nb ");
        let all = windows(text.path(), Joiner::None, 18, 0, 1, characters).unwrap();
        assert_eq!(all, [stream(" a\n<|endoftext|>\nb ")]);
        assert_eq!(windows(text.path(), Joiner::None, 1, 1, 1, characters).unwrap(), [stream("\n<")]);
    }

    #[test]
    fn only_whole_lines_separate() {
        let all = |text| documents(text).collect::<Vec<_>>();
        assert_eq!(all("a <|endoftext|>\nb"), ["a <|endoftext|>\nb"]);
        assert_eq!(all("a\n<|endoftext|> b"), ["a\n<|endoftext|> b"]);
        assert_eq!(all("<|endoftext|>\na\n<|endoftext|>\n<|endoftext|>\nb\n<|endoftext|>"), ["a", "b"]);
        assert_eq!(all("a<|endoftext|><|endoftext|>\nb"), ["a<|endoftext|><|endoftext|>\nb"]);
        assert_eq!(all(" \u{1f}a\u{a0}"), ["a"]);
        assert_eq!(all(""), Vec::<&str>::new());
    }

    #[test]
    fn line_ends_of_other_systems_mean_the_same() {
        let (unix, windows_text) = (file("a\nb\n<|endoftext|>\nc"), file("a\r\nb\r\n<|endoftext|>\rc"));
        let read =
            |file: &tempfile::NamedTempFile| windows(file.path(), JOINER, 5, 0, 1, characters).unwrap();
        assert_eq!(read(&unix), [stream("|a\nb|c")]);
        assert_eq!(read(&unix), read(&windows_text));
    }

    #[test]
    fn encoding_stops_when_the_windows_are_full() {
        let text = file("abcd\n<|endoftext|>\n".repeat(100));
        for (skip, count, calls) in [(0, 1, 1), (0, 3, 3), (2, 1, 3), (99, 1, 100)] {
            let called = Cell::new(0);
            let encode = |text: &str| {
                called.set(called.get() + 1);
                characters(text)
            };
            assert_eq!(windows(text.path(), JOINER, 4, skip, count, encode).unwrap().len(), count);
            assert_eq!(called.get(), calls, "{skip} {count}");
        }
    }

    #[test]
    fn errors_name_the_file_and_the_numbers() {
        let text = file("ab\n<|endoftext|>\ncd");
        let name = text.path().to_string_lossy().into_owned();
        let message = |context, skip, count| {
            let error = windows(text.path(), JOINER, context, skip, count, characters).unwrap_err();
            assert!(error.to_string().starts_with(&name));
            error.to_string()
        };
        assert!(message(2, 1, 2).contains(
            "expected at least 9 tokens (1 windows skipped and 2 taken, of 3 tokens each), found 6"
        ));
        assert!(message(0, 0, 1).contains("context of at least 1"));
        assert!(message(usize::MAX, 0, 1).ends_with("found 6"));
        assert!(message(1, usize::MAX, usize::MAX).ends_with("found 6"));

        let broken = file(b"abc\n\xc3\xa9\xff");
        let error = windows(broken.path(), JOINER, 1, 0, 1, characters).unwrap_err();
        assert!(matches!(error, CorpusError::NotUtf8 { byte_offset: 6, .. }), "{error}");
        assert!(matches!(
            windows(Path::new("absent"), JOINER, 1, 0, 1, characters),
            Err(CorpusError::Read { path, .. }) if path == Path::new("absent")
        ));
        let refuse = |text: &str| if text == "cd" { Err("no such letter") } else { Ok(vec![1, 2]) };
        let error = windows(text.path(), JOINER, 2, 0, 2, refuse).unwrap_err().to_string();
        assert_eq!(error, format!("{name}: document 1: no such letter"));
    }

    proptest! {
        /// Against the definition: build the whole stream, then cut it.
        #[test]
        fn agrees_with_the_definition(
            parts in proptest::collection::vec("[ab \n]{0,12}", 0..8),
            context in 1..6_usize,
            skip in 0..4_usize,
            count in 0..6_usize,
        ) {
            let text = parts.join("\n<|endoftext|>\n");
            let mut whole = Vec::new();
            for document in text.split("\n<|endoftext|>\n").map(str::trim).filter(|document| !document.is_empty()) {
                whole.push(u32::from('|'));
                whole.extend(stream(document));
            }
            let cut: Vec<Vec<u32>> = whole.chunks_exact(context + 1).map(<[u32]>::to_vec).collect();
            let file = file(&text);
            let found = windows(file.path(), JOINER, context, skip, count, characters);
            if skip + count <= cut.len() {
                prop_assert_eq!(found.unwrap(), &cut[skip..skip + count]);
            } else {
                let short = matches!(found, Err(CorpusError::TooShort { found, .. }) if found == whole.len());
                prop_assert!(short);
            }
        }
    }

    /// The first windows of the embedded model's texts, with the tokenizer of the Python reference.
    #[test]
    fn agrees_with_the_reference_on_the_embedded_texts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
        let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let encode = |text: &str| tokenizer.encode(text, false).map(|encoding| encoding.get_ids().to_vec());
        let path = folder.join("held_out.txt");
        let found = windows(&path, Joiner::Token(0), 512, 0, 24, encode).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut whole = Vec::new();
        for document in text.split("\n<|endoftext|>\n").map(str::trim).filter(|document| !document.is_empty())
        {
            whole.push(0);
            whole.extend(encode(document).unwrap());
            if whole.len() >= 24 * 513 {
                break;
            }
        }
        assert_eq!(found.concat(), whole[..24 * 513]);
        assert!(found.iter().all(|window| window.len() == 513));
        assert_eq!(windows(&path, Joiner::Token(0), 512, 20, 4, encode).unwrap(), found[20..]);
    }
}
