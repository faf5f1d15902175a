//! The metadata of a container's tokenizer: byte-level BPE, which llama.cpp calls "gpt2".
//!
//! Tokens are listed by id and spelled in the byte-level alphabet, merges as pairs of these; what cuts the text into pre-tokens is a name, by
//! which llama.cpp also knows whether whole pre-tokens that are tokens stay whole.

use rescomp_formats::spec::ModelSpec;
use rescomp_formats::tokenizer::{Model, Normalizer, PreTokenizer, TokenizerView};

use super::super::{ExportError, differs};
use super::file::{File, Value};
use crate::tokenizer_json::character_of;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Keys of the tokens that end a text, in the order in which they are given away.
const END_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Puts a tokenizer into the metadata of a file. What the file cannot say is told in `warnings`.
///
/// # Errors
/// [`ExportError::Unsupported`].
pub(super) fn put(
    file: &mut File,
    tokenizer: &TokenizerView<'_>,
    spec: &ModelSpec,
    warnings: &mut Vec<String>,
) -> Result<(), ExportError> {
    let pre = pre_tokenizer(tokenizer)?;
    if tokenizer.normalizer() == Normalizer::Nfc {
        warnings.push(
            "readers of GGUF files do not compose text (NFC) before they cut it, as this tokenizer does"
                .into(),
        );
    }
    let takes_space = (0..tokenizer.added_tokens())
        .filter_map(|index| tokenizer.added_token(index))
        .any(|added| added.left_strip || added.right_strip);
    if takes_space {
        warnings.push(
            "readers of GGUF files do not take white space beside added tokens, as this tokenizer does"
                .into(),
        );
    }
    file.put("tokenizer.ggml.model", Value::Text("gpt2".into()));
    file.put("tokenizer.ggml.pre", Value::Text(pre.into()));
    let added: Vec<(u32, bool)> = (0..tokenizer.added_tokens())
        .filter_map(|index| tokenizer.added_token(index))
        .map(|added| (added.id, added.special))
        .collect();
    let mut tokens = Vec::with_capacity(spec.vocabulary as usize);
    let mut types = Vec::with_capacity(spec.vocabulary as usize);
    for id in 0..spec.vocabulary {
        let added = added.binary_search_by_key(&id, |&(id, _)| id).ok().map(|at| added[at].1);
        let (token, kind) = match (tokenizer.token_bytes(id), added) {
            (None, _) => (format!("[UNUSED_{id}]"), UNUSED),
            (Some(bytes), Some(special)) => {
                let kind = if special { CONTROL } else { USER_DEFINED };
                // Added tokens are UTF-8, by the section's check.
                (String::from_utf8_lossy(bytes).into_owned(), kind)
            }
            (Some(bytes), None) => (spelled(bytes), NORMAL),
        };
        tokens.push(token);
        types.push(kind);
    }
    file.put("tokenizer.ggml.tokens", Value::Texts(tokens));
    file.put("tokenizer.ggml.token_type", Value::Integers(types));
    file.put("tokenizer.ggml.merges", Value::Texts(merges(tokenizer)));
    if let Some(begin) = spec.begin_token {
        file.put("tokenizer.ggml.bos_token_id", Value::U32(begin));
    }
    for (key, &token) in END_KEYS.iter().zip(&spec.end_tokens) {
        file.put(key, Value::U32(token));
    }
    for token in spec.end_tokens.iter().skip(END_KEYS.len()) {
        warnings.push(format!("a GGUF file names three end tokens: {token} is left out"));
    }
    file.put("tokenizer.ggml.add_bos_token", Value::Bool(spec.begin_token.is_some()));
    file.put("tokenizer.ggml.add_eos_token", Value::Bool(false));
    Ok(())
}

fn pre_tokenizer(tokenizer: &TokenizerView<'_>) -> Result<&'static str, ExportError> {
    let unsupported = |found: String, supported| ExportError::Unsupported {
        part: "tokenizer",
        found,
        format: "GGUF",
        supported,
    };
    if tokenizer.model() != Model::ByteLevelBpe {
        return Err(unsupported(format!("{:?}", tokenizer.model()), "byte-level BPE"));
    }
    if tokenizer.add_prefix_space() {
        return Err(unsupported("a space before every text".into(), "none"));
    }
    // The name of Llama 3's cuts says that whole tokens stay whole, the others that they are merged from their bytes; that of Qwen 2's belongs to a
    // tokenizer that composes text.
    match (tokenizer.pre_tokenizer(), tokenizer.ignore_merges(), tokenizer.normalizer()) {
        (PreTokenizer::Gpt2, false, Normalizer::None) => Ok("gpt-2"),
        (PreTokenizer::DigitsGpt2, false, Normalizer::None) => Ok("smollm"),
        (PreTokenizer::Llama3, true, Normalizer::None) => Ok("llama-bpe"),
        (PreTokenizer::Qwen2, false, Normalizer::Nfc) => Ok("qwen2"),
        (other, whole, normalizer) => {
            let whole = if whole { "with" } else { "without" };
            let found =
                format!("the pre-tokenizer {other:?} {whole} ignore_merges, normalizer {normalizer:?}");
            let supported = "Gpt2 and DigitsGpt2 without ignore_merges, Llama3 with it, Qwen2 with NFC";
            Err(unsupported(found, supported))
        }
    }
}

/// Bytes in the byte-level alphabet.
fn spelled(bytes: &[u8]) -> String {
    bytes.iter().copied().map(character_of).collect()
}

fn merges(tokenizer: &TokenizerView<'_>) -> Vec<String> {
    let merge = |rank: u32| {
        let result = tokenizer.token_bytes(tokenizer.merge_result(rank)?)?;
        let (left, right) = result.split_at_checked(tokenizer.merge_split(rank)?)?;
        Some(format!("{} {}", spelled(left), spelled(right)))
    };
    (0..tokenizer.merges()).filter_map(merge).collect()
}

/// Compares the tokenizer of a container with what was read back.
///
/// # Errors
/// [`ExportError::Differs`].
pub(super) fn compare(
    container: &TokenizerView<'_>,
    read_back: &TokenizerView<'_>,
    vocabulary: u32,
) -> Result<(), ExportError> {
    let cuts =
        |of: &TokenizerView<'_>| (of.pre_tokenizer(), of.normalizer(), of.ignore_merges(), of.merges());
    if cuts(container) != cuts(read_back) {
        return Err(differs("tokenizer", cuts(container), cuts(read_back)));
    }
    for id in 0..vocabulary {
        let token = |of: &TokenizerView<'_>| {
            (of.token_bytes(id).map(<[u8]>::to_vec), of.is_added(id), of.is_special(id))
        };
        if token(container) != token(read_back) {
            return Err(differs(format_args!("token {id}"), token(container), token(read_back)));
        }
    }
    for rank in 0..container.merges() {
        let merge = |of: &TokenizerView<'_>| (of.merge_result(rank), of.merge_split(rank));
        if merge(container) != merge(read_back) {
            return Err(differs(format_args!("merge {rank}"), merge(container), merge(read_back)));
        }
    }
    Ok(())
}
