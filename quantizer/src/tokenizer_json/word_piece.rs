//! WordPiece, as BERT has it.

use rescomp_formats::tokenizer::{
    BertNormalizer, CONTINUATION, Decoding, Model, NO_TOKEN, Normalizer, PreTokenizer, TokenizerExtension,
    TokenizerParts,
};
use serde_json::{Map, Value};

use super::{Result, Source, added_entries, is_null, type_of};

impl Source<'_> {
    pub(super) fn word_piece(
        self,
        root: &Map<String, Value>,
        model: &Map<String, Value>,
        vocab_size: Option<u32>,
    ) -> Result<(TokenizerParts, TokenizerExtension)> {
        let known = ["type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"];
        self.known_fields(model, "model", &known)?;
        let is_continuation = |value: Option<&Value>| {
            value.and_then(Value::as_str).is_some_and(|text| text.as_bytes() == CONTINUATION)
        };
        let prefix = model.get("continuing_subword_prefix");
        if !is_continuation(prefix) {
            return Err(self.unsupported("model.continuing_subword_prefix", prefix, "`##`"));
        }
        let most = model.get("max_input_chars_per_word");
        let Some(max_word_characters) =
            most.and_then(Value::as_u64).and_then(|most| u32::try_from(most).ok())
        else {
            return Err(self.unsupported("model.max_input_chars_per_word", most, "an integer"));
        };
        let normalizer = self.bert_normalizer(root.get("normalizer"))?;
        if type_of(root.get("pre_tokenizer")) != Some("BertPreTokenizer") {
            return Err(self.unsupported("pre_tokenizer", root.get("pre_tokenizer"), "`BertPreTokenizer`"));
        }
        let decoder = root.get("decoder");
        if type_of(decoder) != Some("WordPiece") {
            return Err(self.unsupported("decoder", decoder, "`WordPiece`"));
        }
        let decoder = self.object(decoder.unwrap_or(&Value::Null), "decoder")?;
        self.known_fields(decoder, "decoder", &["type", "prefix", "cleanup"])?;
        if !is_continuation(decoder.get("prefix")) {
            return Err(self.unsupported("decoder.prefix", decoder.get("prefix"), "`##`"));
        }
        let clean_up = self.flag(decoder, "decoder", "cleanup", None)?;

        let vocabulary = self.vocabulary(model)?;
        let added = self.added_tokens(root.get("added_tokens"), &vocabulary, normalizer)?;
        let (tokens_before, tokens_after) =
            self.post_processor(root.get("post_processor"), &vocabulary, &added)?;
        let unknown = model.get("unk_token");
        let Some(unknown) = unknown.and_then(Value::as_str) else {
            return Err(self.unsupported("model.unk_token", unknown, "a token"));
        };
        let unknown = self.known_token(unknown, "model.unk_token", &vocabulary, &[])?;
        let tokens =
            self.token_bytes(&vocabulary, &added, vocab_size, &|token| Ok(token.as_bytes().to_vec()))?;
        let ordered =
            vocabulary.ids.iter().filter(|(token, _)| !token.is_empty()).map(|(_, &id)| id).collect();
        let parts = TokenizerParts {
            tokens,
            byte_tokens: [NO_TOKEN; 256],
            merges: Vec::new(),
            added_tokens: added_entries(&added),
            pre_tokenizer: PreTokenizer::Bert,
            add_prefix_space: false,
            ignore_merges: false,
        };
        let extension = TokenizerExtension {
            model: Model::WordPiece,
            normalizer,
            decoding: Decoding { clean_up, ..Decoding::default() },
            unknown: Some(unknown),
            ordered,
            max_word_characters,
            tokens_before,
            tokens_after,
            ..TokenizerExtension::default()
        };
        Ok((parts, extension))
    }

    fn bert_normalizer(self, value: Option<&Value>) -> Result<Normalizer> {
        if is_null(value) {
            return Ok(Normalizer::None);
        }
        if type_of(value) != Some("BertNormalizer") {
            return Err(self.unsupported("normalizer", value, "null, `BertNormalizer`"));
        }
        let field = "normalizer";
        let object = self.object(value.unwrap_or(&Value::Null), field)?;
        let known = ["type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"];
        self.known_fields(object, field, &known)?;
        let lowercase = self.flag(object, field, "lowercase", None)?;
        Ok(Normalizer::Bert(BertNormalizer {
            clean_text: self.flag(object, field, "clean_text", None)?,
            space_chinese: self.flag(object, field, "handle_chinese_chars", None)?,
            strip_accents: self.flag(object, field, "strip_accents", Some(lowercase))?,
            lowercase,
        }))
    }
}
