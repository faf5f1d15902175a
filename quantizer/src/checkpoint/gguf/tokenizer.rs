//! The container's tokenizer section, from the metadata of a file: byte-level BPE here, SentencePiece's in `sentence_piece`.
//!
//! Tokens are listed by id with a type each, merges as pairs of tokens, the lowest rank first; what cuts the text into
//! pre-tokens is only named (`tokenizer.ggml.pre`). Names whose cuts the device does not make are refused, as is a file that names none: a
//! tokenizer that is almost right makes a model subtly wrong.

use std::collections::{HashMap, HashSet};

use rescomp_formats::tokenizer::{
    AddedFlags, NO_TOKEN, Normalizer, PreTokenizer, TokenizerExtension, TokenizerParts,
    write_extended_tokenizer,
};

use super::super::CheckpointError;
use super::metadata::Fields;
use super::sentence_piece;
use crate::tokenizer_json::{byte_of, character_of};

const MODEL: &str = "tokenizer.ggml.model";
const PRE_TOKENIZER: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const BEGIN: &str = "tokenizer.ggml.bos_token_id";
const ADD_BEGIN: &str = "tokenizer.ggml.add_bos_token";
/// Names of Llama 3's pre-tokenizer.
const LLAMA_3: [&str; 3] = ["llama-bpe", "llama3", "llama-v3"];

/// Tokens that end a text, a turn, a message.
pub(super) const END_TOKENS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// The token that starts a text, where the file says that one does.
pub(super) fn begin_token(fields: &Fields<'_>, vocabulary: u32) -> Result<Option<u32>, CheckpointError> {
    let token = fields.whole(BEGIN, 0, vocabulary - 1)?;
    let adds = match fields.flag(ADD_BEGIN)? {
        Some(adds) => adds,
        None => token.is_some() && adds_begin_by_default(fields)?,
    };
    if !adds {
        return Ok(None);
    }
    token.map(Some).ok_or_else(|| fields.wrong(BEGIN, format!("a token, as {ADD_BEGIN} is true")))
}

/// Whether a token starts texts where the file does not say: so with SentencePiece's tokenizers and with Llama 3's.
fn adds_begin_by_default(fields: &Fields<'_>) -> Result<bool, CheckpointError> {
    Ok(match fields.text(MODEL)? {
        Some("llama") => true,
        _ => fields.text(PRE_TOKENIZER)?.is_some_and(|name| LLAMA_3.contains(&name)),
    })
}

/// What a token is, by its code in the file.
#[derive(Clone, Copy, PartialEq)]
enum TokenType {
    /// Made of bytes by merges.
    Normal,
    /// Not part of a text: special.
    Control,
    /// Cut out of the text before anything else.
    UserDefined,
    /// A hole.
    Unused,
}

/// The tokenizer of a GGUF file.
#[derive(Clone, Copy)]
pub struct GgufTokenizer<'a> {
    fields: Fields<'a>,
    vocabulary: u32,
}

impl<'a> GgufTokenizer<'a> {
    /// `vocabulary` is the model's: no id may reach it.
    pub(in super::super) fn new(fields: Fields<'a>, vocabulary: u32) -> Self {
        Self { fields, vocabulary }
    }

    /// Makes the tokenizer section of a container.
    ///
    /// # Errors
    /// The file has no tokenizer, or one that is not supported; tokens, types and merges contradict each other.
    pub fn section(&self) -> Result<Vec<u8>, CheckpointError> {
        let fields = &self.fields;
        if fields.text(MODEL)? == Some("llama") {
            return sentence_piece::section(fields, self.vocabulary);
        }
        let (pre_tokenizer, normalizer) = pre_tokenizer(fields)?;
        // Of the names that are known, this one alone says that whole pre-tokens that are tokens stay whole.
        let ignore_merges = pre_tokenizer == PreTokenizer::Llama3;
        let tokens = fields.texts(TOKENS)?.ok_or_else(|| fields.wrong(TOKENS, "an array of texts"))?;
        if tokens.is_empty() || tokens.len() > self.vocabulary as usize {
            return Err(fields.wrong(TOKENS, format!("1 to {} tokens, the model's", self.vocabulary)));
        }
        let types = self.types(tokens.len())?;
        let ids = self.ids(&tokens, &types)?;
        let parts = TokenizerParts {
            tokens: self.token_bytes(&tokens, &types)?,
            byte_tokens: byte_tokens(&ids),
            merges: self.merges(&ids)?,
            added_tokens: added_tokens(&types),
            pre_tokenizer,
            add_prefix_space: false,
            ignore_merges,
        };
        if ignore_merges {
            self.every_token_is_merged(&ids, &parts.merges)?;
        }
        let extension = TokenizerExtension { normalizer, ..TokenizerExtension::default() };
        let failed = |cause| CheckpointError::Tokenizer { path: fields.path.to_owned(), cause };
        write_extended_tokenizer(&parts, &extension).map_err(failed)
    }

    fn types(&self, tokens: usize) -> Result<Vec<TokenType>, CheckpointError> {
        let Some(codes) = self.fields.integers(TYPES)? else { return Ok(vec![TokenType::Normal; tokens]) };
        if codes.len() != tokens {
            return Err(self.fields.wrong(TYPES, format!("{tokens} types, one for each token")));
        }
        let kind = |(id, &code): (usize, &i32)| match code {
            1 => Ok(TokenType::Normal),
            3 => Ok(TokenType::Control),
            4 => Ok(TokenType::UserDefined),
            5 => Ok(TokenType::Unused),
            // 2 unknown and 6 byte are of SentencePiece.
            other => Err(self.element(TYPES, id, "1 normal, 3 control, 4 user-defined or 5 unused", other)),
        };
        codes.iter().enumerate().map(kind).collect()
    }

    /// The ids of normal tokens.
    fn ids(&self, tokens: &[&'a str], types: &[TokenType]) -> Result<HashMap<&'a str, u32>, CheckpointError> {
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, (&token, &kind)) in (0..).zip(tokens.iter().zip(types)) {
            if kind == TokenType::Normal
                && let Some(first) = ids.insert(token, id)
            {
                let found = format!("{token:?}, as token {first} is");
                return Err(self.element(TOKENS, id as usize, "a token once", found));
            }
        }
        Ok(ids)
    }

    /// The bytes of every token: normal ones are spelled in the byte-level alphabet, the others are texts.
    fn token_bytes(&self, tokens: &[&str], types: &[TokenType]) -> Result<Vec<Vec<u8>>, CheckpointError> {
        let bytes = |(id, (&token, &kind)): (usize, (&&str, &TokenType))| match kind {
            TokenType::Unused => Ok(Vec::new()),
            _ if token.is_empty() => Err(self.element(TOKENS, id, "at least one character", "none")),
            TokenType::Control | TokenType::UserDefined => Ok(token.as_bytes().to_vec()),
            TokenType::Normal => token
                .chars()
                .map(|character| {
                    byte_of(character).ok_or_else(|| {
                        let found = format!("{character:?} in {token:?}");
                        self.element(TOKENS, id, "characters of the byte-level alphabet", found)
                    })
                })
                .collect(),
        };
        tokens.iter().zip(types).enumerate().map(bytes).collect()
    }

    /// Left, right and result of the merges.
    fn merges(&self, ids: &HashMap<&str, u32>) -> Result<Vec<[u32; 3]>, CheckpointError> {
        let merges =
            self.fields.texts(MERGES)?.ok_or_else(|| self.fields.wrong(MERGES, "an array of texts"))?;
        let merge = |(rank, &line): (usize, &&str)| {
            // Byte-level tokens have no space in them.
            let (left, right) = line
                .split_once(' ')
                .filter(|(_, right)| !right.contains(' '))
                .ok_or_else(|| self.element(MERGES, rank, "two tokens, with a space between them", line))?;
            let id = |token: &str| {
                let found = || format!("{token:?}, which is none");
                ids.get(token).copied().ok_or_else(|| self.element(MERGES, rank, "normal tokens", found()))
            };
            Ok([id(left)?, id(right)?, id(&format!("{left}{right}"))?])
        };
        merges.iter().enumerate().map(merge).collect()
    }

    /// The section finds whole tokens among what merges make.
    fn every_token_is_merged(
        &self,
        ids: &HashMap<&str, u32>,
        merges: &[[u32; 3]],
    ) -> Result<(), CheckpointError> {
        let made: HashSet<u32> = merges.iter().map(|ids| ids[2]).collect();
        let alone = ids.iter().filter(|(token, id)| token.chars().nth(1).is_some() && !made.contains(id));
        match alone.min_by_key(|(_, id)| **id) {
            None => Ok(()),
            Some((token, id)) => {
                let expected = "a byte, or what a merge makes, as whole tokens stay whole";
                Err(self.element(TOKENS, *id as usize, expected, format!("{token:?}")))
            }
        }
    }

    fn element(&self, key: &str, index: usize, expected: &str, found: impl ToString) -> CheckpointError {
        element(&self.fields, key, index, expected, found)
    }
}

/// An element of an array is not what it must be.
pub(super) fn element(
    fields: &Fields<'_>,
    key: &str,
    index: usize,
    expected: &str,
    found: impl ToString,
) -> CheckpointError {
    CheckpointError::Field {
        path: fields.path.to_owned(),
        field: format!("{key}[{index}]"),
        expected: expected.to_owned(),
        found: found.to_string(),
    }
}

fn pre_tokenizer(fields: &Fields<'_>) -> Result<(PreTokenizer, Normalizer), CheckpointError> {
    match fields.text(MODEL)? {
        Some("gpt2") => {}
        Some(_) => {
            return Err(fields.unsupported(MODEL, "\"gpt2\": byte-level BPE, \"llama\": SentencePiece's BPE"));
        }
        None => return Err(fields.wrong(MODEL, "\"gpt2\" or \"llama\"")),
    }
    // Byte-level tokenizers that add one exist, but readers of these files pass over the key.
    if fields.flag(ADD_SPACE)?.unwrap_or(false) {
        return Err(fields.unsupported(ADD_SPACE, "false"));
    }
    match fields.text(PRE_TOKENIZER)? {
        Some("gpt-2") => Ok((PreTokenizer::Gpt2, Normalizer::None)),
        Some("smollm") => Ok((PreTokenizer::DigitsGpt2, Normalizer::None)),
        Some(name) if LLAMA_3.contains(&name) => Ok((PreTokenizer::Llama3, Normalizer::None)),
        // The model was trained on composed text. llama.cpp takes text as it stands.
        Some("qwen2") => Ok((PreTokenizer::Qwen2, Normalizer::Nfc)),
        _ => Err(fields.unsupported(PRE_TOKENIZER, "\"gpt-2\", \"smollm\", \"llama-bpe\", \"qwen2\"")),
    }
}

/// The token of every single byte. Vocabularies trained on text lack bytes that it never had.
fn byte_tokens(ids: &HashMap<&str, u32>) -> [u32; 256] {
    let token = |byte: usize| {
        let character = character_of(byte as u8);
        ids.get(character.encode_utf8(&mut [0; 4]) as &str).copied().unwrap_or(NO_TOKEN)
    };
    std::array::from_fn(token)
}

/// Id, special and normalized of every token that is cut out of the text.
fn added_tokens(types: &[TokenType]) -> Vec<AddedFlags> {
    let added = |(id, kind): (u32, &TokenType)| match kind {
        TokenType::Control => Some(AddedFlags::plain(id, true, false)),
        TokenType::UserDefined => Some(AddedFlags::plain(id, false, false)),
        TokenType::Normal | TokenType::Unused => None,
    };
    (0..).zip(types).filter_map(added).collect()
}
