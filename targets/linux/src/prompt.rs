//! The prompt: from the command line, a file or standard input, and its tokens.

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::tokenizer::{Special, Tokenizer};

use crate::conversation::encode;
use crate::error::Error;
use crate::flags::GenerateFlags;

/// The text that the command line asks for.
///
/// # Errors
/// `Exit::Disk` where it can't be read, `Exit::Input` where it isn't UTF-8.
pub(crate) fn text(flags: &GenerateFlags) -> Result<String, Error> {
    if let Some(text) = &flags.prompt {
        return Ok(text.clone());
    }
    if let Some(path) = &flags.prompt_file {
        let bytes =
            std::fs::read(path).map_err(|error| Error::disk(path, format_args!("cannot read: {error}")))?;
        return utf8(path, bytes);
    }
    if io::stdin().is_terminal() {
        return Ok(String::new());
    }
    let path = Path::new("standard input");
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Error::disk(path, format_args!("cannot read: {error}")))?;
    let mut text = utf8(path, bytes)?;
    // What `echo` adds isn't meant.
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Bytes that must be a text.
///
/// # Errors
/// `Exit::Input` naming the byte that is none of one.
pub(crate) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::input(
            path,
            format_args!("byte {at}: expected UTF-8, found byte {:#04x}", error.as_bytes()[at]),
        )
    })
}

/// The tokens of a text, after the model's begin token where it has one.
///
/// # Errors
/// Says in words why there are none.
pub(crate) fn tokens(
    container: &CheckedContainer<'_>,
    text: &str,
    special_tokens: bool,
) -> Result<Vec<u32>, String> {
    let tokenizer = Tokenizer::new(container.tokenizer().ok_or("the model has no tokenizer")?);
    let special = if special_tokens { Special::Everywhere } else { Special::Nowhere };
    let mut tokens: Vec<u32> = container.manifest().spec.begin_token.into_iter().collect();
    tokens.extend(encode(&tokenizer, text, special).map_err(|error| format!("prompt: {error}"))?);
    if tokens.is_empty() {
        return Err("the prompt is empty, and the model has no begin token".to_owned());
    }
    Ok(tokens)
}
