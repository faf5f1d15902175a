//! The chat template in the metadata of a file.

use super::super::CheckpointError;
use super::metadata::Fields;

const TEMPLATE: &str = "tokenizer.chat_template";
const TOKENS: &str = "tokenizer.ggml.tokens";
/// Special tokens, by the names that templates give them.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// A template as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufChatTemplate<'a> {
    /// The template, in Jinja.
    pub text: &'a str,
    /// Names and texts of special tokens.
    pub special_tokens: Vec<(&'static str, &'a str)>,
}

pub(in super::super) fn chat_template<'a>(
    fields: &Fields<'a>,
) -> Result<Option<GgufChatTemplate<'a>>, CheckpointError> {
    let Some(text) = fields.text(TEMPLATE)? else { return Ok(None) };
    let tokens = fields.texts(TOKENS)?.unwrap_or_default();
    let mut special_tokens = Vec::new();
    for (name, key) in SPECIAL {
        let Some(id) = fields.whole(key, 0, u32::MAX)? else { continue };
        if let Some(&token) = tokens.get(id as usize) {
            special_tokens.push((name, token));
        }
    }
    Ok(Some(GgufChatTemplate { text, special_tokens }))
}
