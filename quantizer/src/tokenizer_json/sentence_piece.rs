//! BPE over characters and Unigram, as SentencePiece has them.

use std::collections::HashMap;

use rescomp_formats::tokenizer::{
    Model, NO_TOKEN, Normalizer, PreTokenizer, SpacePrefix, TokenizerExtension, TokenizerParts,
};
use serde_json::{Map, Value};

use super::pipeline::SPACE_SIGN;
use super::{Result, Source, TokenizerJsonError, Vocabulary, added_entries, is_null, type_of};

/// What the `tokenizers` crate takes off the lowest score for an unknown character.
const UNKNOWN_PENALTY: f64 = 10.0;

impl Source<'_> {
    pub(super) fn sentence_piece(
        self,
        root: &Map<String, Value>,
        model: &Map<String, Value>,
        kind: Model,
        vocab_size: Option<u32>,
    ) -> Result<(TokenizerParts, TokenizerExtension)> {
        let (normalizer, pre_tokenizer) = self.spaces(root)?;
        let spaces = normalizer != Normalizer::None;
        let (decoding, decodes_bytes) = self.sentence_piece_decoder(root.get("decoder"), spaces)?;
        let byte_fallback = self.flag(model, "model", "byte_fallback", Some(false))?;
        if byte_fallback && !decodes_bytes {
            return Err(self.unsupported("decoder", root.get("decoder"), "one with `ByteFallback`"));
        }

        let (vocabulary, scores) = match kind {
            Model::Unigram => self.scored_vocabulary(model)?,
            _ => (self.vocabulary(model)?, Vec::new()),
        };
        // The search for normalized added tokens comes after `Prepend` and `Replace`, but before `Metaspace`.
        let normalizes = if is_null(root.get("normalizer")) { Normalizer::None } else { normalizer };
        let added = self.added_tokens(root.get("added_tokens"), &vocabulary, normalizes)?;
        if let Some(token) = added.iter().find(|token| spaces && token.content.contains(SPACE_SIGN)) {
            let field = format!("added token {}", token.id);
            return Err(self.unsupported(&field, Some(&Value::from(token.content)), "one without U+2581"));
        }
        let (tokens_before, tokens_after) =
            self.post_processor(root.get("post_processor"), &vocabulary, &added)?;
        let mut byte_tokens = [NO_TOKEN; 256];
        for byte in 0..=u8::MAX {
            let spelling = format!("<0x{byte:02X}>");
            match vocabulary.ids.get(spelling.as_str()) {
                Some(&id) if byte_fallback => byte_tokens[usize::from(byte)] = id,
                None if byte_fallback => {
                    return Err(self.missing_token("model.byte_fallback", spelling));
                }
                _ => {}
            }
        }
        let is_byte = |id: u32| byte_tokens.contains(&id);
        // Spelled otherwise, or without fallback, it would be encoded as text and decoded as a byte.
        let spelled = vocabulary.ids.iter().find(|(token, id)| spelled_byte(token) && !is_byte(**id));
        if let Some((token, _)) = spelled.filter(|_| decodes_bytes) {
            let (path, token) = (self.path.to_path_buf(), token.to_string());
            return Err(TokenizerJsonError::SpelledByte { path, token });
        }
        let bytes_of = |token: &str| {
            if byte_fallback && spelled_byte(token) {
                return Ok(u8::from_str_radix(&token[3..5], 16).into_iter().collect());
            }
            if spaces && token.contains(' ') {
                let (path, token) = (self.path.to_path_buf(), token.to_string());
                return Err(TokenizerJsonError::LiteralSpace { path, token });
            }
            let text = if spaces { token.replace(SPACE_SIGN, " ") } else { token.to_string() };
            Ok(text.into_bytes())
        };
        let mut tokens = self.token_bytes(&vocabulary, &added, vocab_size, &bytes_of)?;
        // A byte's token may be listed as an added one, too.
        for (byte, &id) in (0..=u8::MAX).zip(&byte_tokens) {
            if let Some(token) = tokens.get_mut(id as usize) {
                *token = vec![byte];
            }
        }

        let unknown = match kind {
            Model::Unigram => self.unigram_unknown(model, scores.len())?,
            _ => self.bpe_unknown(model, &vocabulary, byte_fallback)?,
        };
        let of_one_character = |token: &str| token.chars().count() == 1;
        let ordered = vocabulary
            .ids
            .iter()
            .filter(|(token, id)| !is_byte(**id) && (kind == Model::Unigram || of_one_character(token)))
            .map(|(_, &id)| id)
            .collect();
        let merges = match kind {
            Model::Unigram => Vec::new(),
            _ => self.merges(model, &vocabulary)?,
        };
        if let Some(rank) = merges.iter().position(|ids| ids.iter().any(|&id| is_byte(id))) {
            let field = format!("model.merges[{rank}]");
            return Err(self.unsupported(&field, None, "tokens that are not bytes'"));
        }
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let parts = TokenizerParts {
            tokens,
            byte_tokens,
            merges,
            added_tokens: added_entries(&added),
            pre_tokenizer,
            add_prefix_space: false,
            ignore_merges: false,
        };
        let extension = TokenizerExtension {
            model: kind,
            normalizer,
            decoding,
            unknown,
            fuse_unknown: kind == Model::CharacterBpe
                && self.flag(model, "model", "fuse_unk", Some(false))?,
            ordered,
            unknown_score: if kind == Model::Unigram { lowest - UNKNOWN_PENALTY } else { 0.0 },
            scores,
            tokens_before,
            tokens_after,
            ..TokenizerExtension::default()
        };
        Ok((parts, extension))
    }

    /// What normalizer and pre-tokenizer do to spaces.
    fn spaces(self, root: &Map<String, Value>) -> Result<(Normalizer, PreTokenizer)> {
        const NORMALIZERS: &str =
            "null, `Replace` of a space by U+2581, a `Sequence` of `Prepend` of U+2581 and that `Replace`";
        const PRE_TOKENIZERS: &str = "null, `Metaspace`, `Split` at spaces that a normalizer has replaced";
        let normalizer = root.get("normalizer");
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_string);
        let replaces = |value: &Value| {
            let pattern =
                value.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
            type_of(Some(value)) == Some("Replace")
                && pattern == Some(" ")
                && text(value, "content").as_deref() == Some(SPACE_SIGN)
        };
        let prepends = |value: &Value| {
            type_of(Some(value)) == Some("Prepend") && text(value, "prepend").as_deref() == Some(SPACE_SIGN)
        };
        let steps = match normalizer {
            None | Some(Value::Null) => &[],
            Some(value) => match value.get("normalizers").and_then(Value::as_array) {
                Some(steps) if type_of(Some(value)) == Some("Sequence") => steps.as_slice(),
                _ => std::slice::from_ref(value),
            },
        };
        let prefix = match steps {
            [] => None,
            [replace] if replaces(replace) => Some(SpacePrefix::Never),
            [prepend, replace] if prepends(prepend) && replaces(replace) => Some(SpacePrefix::Always),
            _ => {
                let first = steps.iter().find(|step| !replaces(step) && !prepends(step)).or(normalizer);
                return Err(self.unsupported("normalizer", first, NORMALIZERS));
            }
        };
        let value = root.get("pre_tokenizer");
        match (type_of(value), value, prefix) {
            (_, None | Some(Value::Null), None) => Ok((Normalizer::None, PreTokenizer::ByteLevel)),
            (_, None | Some(Value::Null), Some(prefix)) => {
                Ok((Normalizer::Spaces(prefix), PreTokenizer::ByteLevel))
            }
            (Some("Metaspace"), Some(value), prefix) => {
                let (scheme, split) = self.metaspace(value, "pre_tokenizer")?;
                let prefix = match (prefix, scheme) {
                    (None | Some(SpacePrefix::Never), "always") => SpacePrefix::UnlessThere,
                    (None | Some(SpacePrefix::Never), "first") => SpacePrefix::FirstUnlessThere,
                    // After `Prepend` there always is one.
                    (prefix, _) => prefix.unwrap_or_default(),
                };
                let kind = if split { PreTokenizer::Spaces } else { PreTokenizer::ByteLevel };
                Ok((Normalizer::Spaces(prefix), kind))
            }
            // As Gemma has it: the normalizer leaves no space to split at.
            (Some("Split"), Some(value), Some(prefix))
                if value.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str)
                    == Some(" ")
                    && value.get("invert").and_then(Value::as_bool) != Some(true) =>
            {
                Ok((Normalizer::Spaces(prefix), PreTokenizer::ByteLevel))
            }
            _ => Err(self.unsupported("pre_tokenizer", value, PRE_TOKENIZERS)),
        }
    }

    /// The vocabulary and scores of a Unigram model, whose ids are places in a list.
    fn scored_vocabulary(self, model: &Map<String, Value>) -> Result<(Vocabulary<'_>, Vec<f64>)> {
        self.known_fields(model, "model", &["type", "unk_id", "byte_fallback", "vocab"])?;
        let vocab = model.get("vocab");
        let Some(entries) = vocab.and_then(Value::as_array) else {
            return Err(self.unsupported("model.vocab", vocab, "an array"));
        };
        let (mut ids, mut scores) =
            (HashMap::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        for (index, entry) in entries.iter().enumerate() {
            let field = format!("model.vocab[{index}]");
            let token = entry.get(0).and_then(Value::as_str).filter(|token| !token.is_empty());
            let Some((token, score)) = token.zip(entry.get(1).and_then(Value::as_f64)) else {
                return Err(self.unsupported(&field, Some(entry), "a token and its score"));
            };
            let id = self.id(&Value::from(index), &field)?;
            if ids.insert(token, id).is_some() {
                let content = token.to_string();
                return Err(TokenizerJsonError::RepeatedAdded {
                    path: self.path.to_path_buf(),
                    field,
                    content,
                });
            }
            scores.push(score);
        }
        Ok((Vocabulary { ids }, scores))
    }

    fn unigram_unknown(self, model: &Map<String, Value>, tokens: usize) -> Result<Option<u32>> {
        let value = model.get("unk_id");
        let id = value.and_then(Value::as_u64).filter(|&id| id < tokens as u64);
        id.map(|id| Some(id as u32)).ok_or_else(|| self.unsupported("model.unk_id", value, "an id"))
    }

    /// With tokens for all bytes nothing is unknown.
    fn bpe_unknown(
        self,
        model: &Map<String, Value>,
        vocabulary: &Vocabulary<'_>,
        byte_fallback: bool,
    ) -> Result<Option<u32>> {
        self.check_bpe(model)?;
        if self.flag(model, "model", "ignore_merges", Some(false))? {
            return Err(self.unsupported("model.ignore_merges", model.get("ignore_merges"), "false"));
        }
        let value = model.get("unk_token");
        match value.and_then(Value::as_str) {
            _ if byte_fallback => Ok(None),
            Some(token) => self.known_token(token, "model.unk_token", vocabulary, &[]).map(Some),
            None => Err(self.unsupported("model.unk_token", value, "a token, without `byte_fallback`")),
        }
    }

    fn missing_token(self, field: &str, token: String) -> TokenizerJsonError {
        TokenizerJsonError::MissingToken { path: self.path.to_path_buf(), field: field.to_string(), token }
    }
}

/// Whether a decoder with `ByteFallback` takes a token for a byte.
fn spelled_byte(token: &str) -> bool {
    token.len() == 6
        && token.starts_with("<0x")
        && token.ends_with('>')
        && token.get(3..5).is_some_and(|digits| u8::from_str_radix(digits, 16).is_ok())
}
