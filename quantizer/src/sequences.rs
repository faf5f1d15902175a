//! What an encoder reads of a text file: each line is a text by itself.
//!
//! ```text
//! lines    = the file's lines, trimmed, without empty ones and without lines `<|endoftext|>`
//! sequence = the tokens that the tokenizer puts before a text ([CLS]), the line's tokens, those behind it ([SEP])
//! window   = likewise of a fixed number of tokens: the tokens of consecutive lines, cut where the window is full
//! ```
//! Calibration takes windows, since all its tokens run together; what a check or a measurement takes are sequences.

use crate::corpus::{CorpusError, SEPARATOR, read_text};
use crate::texts::encode;
use rescomp_runtime::chat::trim;
use rescomp_runtime::tokenizer::{Tokenizer, TokenizerError};
use std::path::Path;

/// A text as an encoder reads it, with what its tokenizer puts around it.
///
/// # Errors
/// [`TokenizerError`].
pub fn sequence(tokenizer: &Tokenizer<'_>, text: &str) -> Result<Vec<u32>, TokenizerError> {
    Ok(wrapped(tokenizer, &encode(tokenizer, text)?))
}

/// The tokens of a text between those before and behind it.
fn wrapped(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> Vec<u32> {
    tokenizer.tokens_before().chain(tokens.iter().copied()).chain(tokenizer.tokens_after()).collect()
}

/// The lines of a file, each of which is a text.
///
/// # Errors
/// [`CorpusError`]: the file cannot be read or is not UTF-8.
pub fn lines(path: &Path) -> Result<Vec<String>, CorpusError> {
    Ok(lines_of(&read_text(path)?))
}

fn lines_of(text: &str) -> Vec<String> {
    let lines = text.split('\n').map(trim).filter(|line| !line.is_empty() && *line != SEPARATOR);
    lines.map(str::to_owned).collect()
}

/// Windows of lines, and how many lines they used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Windows of equal length.
    pub windows: Vec<Vec<u32>>,
    /// Lines that have a part in them, or in those that were passed over.
    pub lines: usize,
}

/// `count` windows of `length` tokens each, after the first `skip`. `path` names the file in errors.
///
/// # Errors
/// [`CorpusError`]: the lines are too few, or no token of them fits into a window.
pub fn windows(
    tokenizer: &Tokenizer<'_>,
    path: &Path,
    lines: &[String],
    length: usize,
    skip: usize,
    count: usize,
) -> Result<Windows, CorpusError> {
    let around = tokenizer.tokens_before().count() + tokenizer.tokens_after().count();
    let Some(inside) = length.checked_sub(around).filter(|inside| *inside > 0) else {
        return Err(CorpusError::NoContext { path: path.to_owned() });
    };
    let needed = skip.saturating_add(count).saturating_mul(inside);
    let (mut tokens, mut used) = (Vec::new(), 0);
    for (document, line) in lines.iter().enumerate() {
        if tokens.len() >= needed {
            break;
        }
        let encoded = encode(tokenizer, line).map_err(|cause| CorpusError::Encode {
            path: path.to_owned(),
            document,
            cause: cause.into(),
        })?;
        tokens.extend(encoded);
        used += 1;
    }
    if tokens.len() < needed {
        let (path, found) = (path.to_owned(), tokens.len());
        return Err(CorpusError::TooShort { path, found, needed, skip, count, window: inside });
    }
    let windows = tokens.chunks_exact(inside).skip(skip).take(count);
    Ok(Windows { windows: windows.map(|tokens| wrapped(tokenizer, tokens)).collect(), lines: used })
}

/// The sequences of lines, in their order: at most `count`, none of more than `longest` tokens (its last ones are left out, but not those that the
/// tokenizer puts behind it). `path` names the file in errors.
///
/// # Errors
/// [`CorpusError`]: a line cannot be encoded.
pub fn sequences(
    tokenizer: &Tokenizer<'_>,
    path: &Path,
    lines: &[String],
    longest: usize,
    count: usize,
) -> Result<Vec<Vec<u32>>, CorpusError> {
    let around = tokenizer.tokens_before().count() + tokenizer.tokens_after().count();
    let inside = longest.saturating_sub(around);
    let of = |(document, line): (usize, &String)| match encode(tokenizer, line) {
        Ok(tokens) => Ok(wrapped(tokenizer, &tokens[..tokens.len().min(inside)])),
        Err(cause) => Err(CorpusError::Encode { path: path.to_owned(), document, cause: cause.into() }),
    };
    lines.iter().enumerate().take(count).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer_json::tokenizer_section;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::path::PathBuf;

    /// The embedded model's tokenizer, with token 1 before and tokens 2 behind every text.
    fn section() -> Vec<u8> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m/tokenizer.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        json["post_processor"] = json!({ "type": "BertProcessing", "cls": ["!", 1], "sep": ["\"", 2] });
        tokenizer_section(json.to_string().as_bytes(), &path, None).unwrap()
    }

    fn of<'s>(section: &'s [u8]) -> Tokenizer<'s> {
        crate::texts::tokenizer(section).unwrap()
    }

    #[test]
    fn lines_are_texts() {
        let text = "One.\n\n  Two. \n<|endoftext|>\nThree <|endoftext|>";
        assert_eq!(lines_of(text), ["One.", "Two.", "Three <|endoftext|>"]);
        assert_eq!(lines_of(""), Vec::<String>::new());
    }

    #[test]
    fn sequences_have_their_tokens_around_them_also_where_they_are_cut() {
        let section = section();
        let tokenizer = of(&section);
        let text = "Once upon a time there was a little cat.";
        let inside = encode(&tokenizer, text).unwrap();
        assert_eq!(sequence(&tokenizer, text).unwrap(), [&[1][..], &inside, &[2]].concat());
        assert_eq!(sequence(&tokenizer, "").unwrap(), [1, 2]);
        let lines = [text.to_owned(), "A cat".to_owned(), text.to_owned()];
        let found = sequences(&tokenizer, Path::new("text"), &lines, 6, 2).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], [&[1][..], &inside[..4], &[2]].concat());
        assert_eq!(found[1], sequence(&tokenizer, "A cat").unwrap());
    }

    #[test]
    fn errors_name_the_file_and_the_numbers() {
        let section = section();
        let tokenizer = of(&section);
        let of =
            |length, count| windows(&tokenizer, Path::new("text"), &["A cat".to_owned()], length, 0, count);
        let error = of(10, 3).unwrap_err().to_string();
        assert!(error.starts_with("text: expected at least 24 tokens"), "{error}");
        assert!(matches!(of(2, 1), Err(CorpusError::NoContext { .. })));
    }

    proptest! {
        /// Against the definition: all tokens of all lines, then cut.
        #[test]
        fn windows_are_the_lines_one_after_the_other(
            lines in proptest::collection::vec("[a-c ]{1,12}", 0..12),
            length in 3..9_usize,
            skip in 0..3_usize,
            count in 0..5_usize,
        ) {
            let section = section();
            let tokenizer = of(&section);
            let whole: Vec<u32> = lines.iter().flat_map(|line| encode(&tokenizer, line).unwrap()).collect();
            let all: Vec<Vec<u32>> =
                whole.chunks_exact(length - 2).map(|inside| [&[1][..], inside, &[2]].concat()).collect();
            let found = windows(&tokenizer, Path::new("text"), &lines, length, skip, count);
            if skip + count > all.len() {
                prop_assert!(matches!(found, Err(CorpusError::TooShort { .. })), "{:?}", found);
                return Ok(());
            }
            let found = found.unwrap();
            prop_assert_eq!(&found.windows, &all[skip..skip + count]);
            // No line that has a part in a window is left for others.
            let used: usize = lines[..found.lines].iter().map(|line| encode(&tokenizer, line).unwrap().len()).sum();
            prop_assert!(used >= (skip + count) * (length - 2));
        }
    }
}
