//! Pre-tokenizers, post-processors and decoders.

use rescomp_formats::tokenizer::{Decoding, PreTokenizer};
use serde_json::Value;

use super::{Added, Result, Source, TokenizerJsonError, Vocabulary, type_of};

/// Llama 3's pattern. The reference reads it as `fancy-regex` does; so does the state machine.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern of Qwen 2, 2.5 and 3.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What SentencePiece writes for a space.
pub(super) const SPACE_SIGN: &str = "\u{2581}";

impl Source<'_> {
    pub(super) fn byte_level_pre_tokenizer(self, value: Option<&Value>) -> Result<(PreTokenizer, bool)> {
        const SUPPORTED: &str = "`ByteLevel`, `Sequence` of `Digits` or `Split` and `ByteLevel`";
        match type_of(value) {
            Some("ByteLevel") => self.byte_level(value, "pre_tokenizer"),
            Some("Sequence") => {
                let steps = value.and_then(|value| value.get("pretokenizers"));
                let [first, byte_level] =
                    steps.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
                else {
                    return Err(self.unsupported("pre_tokenizer.pretokenizers", steps, SUPPORTED));
                };
                let field = "pre_tokenizer.pretokenizers[1]";
                if type_of(Some(byte_level)) != Some("ByteLevel") {
                    return Err(self.unsupported(field, Some(byte_level), SUPPORTED));
                }
                let (after, add_prefix_space) = self.byte_level(Some(byte_level), field)?;
                let use_regex = after == PreTokenizer::Gpt2;
                let (pre_tokenizer, with_regex) = match type_of(Some(first)) {
                    Some("Digits") => (self.digits(first, "pre_tokenizer.pretokenizers[0]")?, true),
                    Some("Split") => (self.split(first, "pre_tokenizer.pretokenizers[0]")?, false),
                    _ => {
                        return Err(self.unsupported(
                            "pre_tokenizer.pretokenizers[0]",
                            Some(first),
                            SUPPORTED,
                        ));
                    }
                };
                if add_prefix_space {
                    let field = format!("{field}.add_prefix_space");
                    return Err(self.unsupported(&field, Some(&Value::Bool(true)), "false"));
                }
                if use_regex != with_regex {
                    let field = format!("{field}.use_regex");
                    let supported = if with_regex { "true" } else { "false" };
                    return Err(self.unsupported(&field, Some(&Value::Bool(use_regex)), supported));
                }
                Ok((pre_tokenizer, false))
            }
            _ => Err(self.unsupported("pre_tokenizer", value, SUPPORTED)),
        }
    }

    fn digits(self, value: &Value, field: &str) -> Result<PreTokenizer> {
        let digits = self.object(value, field)?;
        self.known_fields(digits, field, &["type", "individual_digits"])?;
        if !self.flag(digits, field, "individual_digits", None)? {
            let field = format!("{field}.individual_digits");
            return Err(self.unsupported(&field, Some(&Value::Bool(false)), "true"));
        }
        Ok(PreTokenizer::DigitsGpt2)
    }

    fn split(self, value: &Value, field: &str) -> Result<PreTokenizer> {
        let split = self.object(value, field)?;
        self.known_fields(split, field, &["type", "pattern", "behavior", "invert"])?;
        if split.get("behavior").and_then(Value::as_str) != Some("Isolated") {
            return Err(self.unsupported(&format!("{field}.behavior"), split.get("behavior"), "`Isolated`"));
        }
        if self.flag(split, field, "invert", Some(false))? {
            return Err(self.unsupported(&format!("{field}.invert"), split.get("invert"), "false"));
        }
        let pattern = split.get("pattern").and_then(|pattern| pattern.get("Regex"));
        match pattern.and_then(Value::as_str) {
            Some(LLAMA3_PATTERN) => Ok(PreTokenizer::Llama3),
            Some(QWEN2_PATTERN) => Ok(PreTokenizer::Qwen2),
            _ => Err(self.unsupported(
                &format!("{field}.pattern"),
                split.get("pattern"),
                "the patterns of Llama 3 and of Qwen 2",
            )),
        }
    }

    fn byte_level(self, value: Option<&Value>, field: &str) -> Result<(PreTokenizer, bool)> {
        let object = self.object(value.unwrap_or(&Value::Null), field)?;
        self.known_fields(object, field, &["type", "add_prefix_space", "trim_offsets", "use_regex"])?;
        let add_prefix_space = self.flag(object, field, "add_prefix_space", None)?;
        let use_regex = self.flag(object, field, "use_regex", Some(true))?;
        Ok((if use_regex { PreTokenizer::Gpt2 } else { PreTokenizer::ByteLevel }, add_prefix_space))
    }

    /// The tokens that a template puts before and after a text.
    ///
    /// `ByteLevel` only trims offsets.
    pub(super) fn post_processor(
        self,
        value: Option<&Value>,
        vocabulary: &Vocabulary<'_>,
        added: &[Added<'_>],
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        const SUPPORTED: &str = "null, `ByteLevel`, `TemplateProcessing`, `BertProcessing`, `RobertaProcessing`, a `Sequence` of these";
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Default::default()) };
        let one = |name: &str| {
            let field = format!("post_processor.{name}");
            let pair = value.get(name);
            let token = pair.and_then(|pair| pair.get(0)).and_then(Value::as_str);
            let Some(token) = token else { return Err(self.unsupported(&field, pair, "a token and its id")) };
            let id = self.known_token(token, &field, vocabulary, added)?;
            if pair.and_then(|pair| pair.get(1)).and_then(Value::as_u64) != Some(u64::from(id)) {
                return Err(self.unsupported(&field, pair, "a token and its id"));
            }
            Ok(vec![id])
        };
        match type_of(Some(value)) {
            Some("ByteLevel") => Ok(Default::default()),
            Some("BertProcessing" | "RobertaProcessing") => Ok((one("cls")?, one("sep")?)),
            Some("TemplateProcessing") => self.template(value, vocabulary, added),
            Some("Sequence") => {
                let steps = value.get("processors");
                let Some(list) = steps.and_then(Value::as_array) else {
                    return Err(self.unsupported("post_processor.processors", steps, SUPPORTED));
                };
                let (mut before, mut after) = (Vec::new(), Vec::new());
                for step in list {
                    if type_of(Some(step)) == Some("Sequence") {
                        return Err(self.unsupported("post_processor.processors", steps, SUPPORTED));
                    }
                    let (outer_before, outer_after) = self.post_processor(Some(step), vocabulary, added)?;
                    before.splice(0..0, outer_before);
                    after.extend(outer_after);
                }
                Ok((before, after))
            }
            _ => Err(self.unsupported("post_processor", Some(value), SUPPORTED)),
        }
    }

    fn template(
        self,
        value: &Value,
        vocabulary: &Vocabulary<'_>,
        added: &[Added<'_>],
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        const SUPPORTED: &str = "special tokens around one sequence";
        let field = "post_processor.single";
        let single = value.get("single");
        let refuse = || self.unsupported(field, single, SUPPORTED);
        let (mut before, mut after, mut sequences) = (Vec::new(), Vec::new(), 0);
        for piece in single.and_then(Value::as_array).ok_or_else(refuse)? {
            if piece.get("Sequence").is_some() {
                sequences += 1;
                continue;
            }
            let name = piece.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str);
            let name = name.ok_or_else(refuse)?;
            let special = value.get("special_tokens").and_then(|tokens| tokens.get(name));
            let tokens = special.and_then(|special| special.get("tokens")).and_then(Value::as_array);
            let ids = special.and_then(|special| special.get("ids")).and_then(Value::as_array);
            let (tokens, ids) = tokens.zip(ids).ok_or_else(refuse)?;
            for (token, id) in tokens.iter().zip(ids) {
                let token = token.as_str().ok_or_else(refuse)?;
                let expected = self.known_token(token, field, vocabulary, added)?;
                if id.as_u64() != Some(u64::from(expected)) {
                    return Err(refuse());
                }
                if sequences == 0 { before.push(expected) } else { after.push(expected) }
            }
        }
        if sequences == 1 { Ok((before, after)) } else { Err(refuse()) }
    }

    pub(super) fn known_token(
        self,
        token: &str,
        field: &str,
        vocabulary: &Vocabulary<'_>,
        added: &[Added<'_>],
    ) -> Result<u32> {
        let added = added.iter().find(|added| added.content == token).map(|added| added.id);
        added.or_else(|| vocabulary.ids.get(token).copied()).ok_or_else(|| TokenizerJsonError::MissingToken {
            path: self.path.to_path_buf(),
            field: field.to_string(),
            token: token.to_string(),
        })
    }

    /// The decoder of a tokenizer of SentencePiece: what it does, and whether it turns the spelling of bytes into bytes.
    ///
    /// `spaces` says whether U+2581 stands for a space.
    pub(super) fn sentence_piece_decoder(
        self,
        value: Option<&Value>,
        spaces: bool,
    ) -> Result<(Decoding, bool)> {
        const SUPPORTED: &str = "`Metaspace`, or a `Sequence` of `Replace` (U+2581 by a space), `ByteFallback`, `Fuse` and `Strip` \
             (one space in front), or of `ByteFallback` and `Metaspace`";
        let one = [value.cloned().unwrap_or(Value::Null)];
        let (steps, field) = match type_of(value) {
            Some("Sequence") => {
                let steps = value.and_then(|value| value.get("decoders"));
                (steps.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default(), "decoder.decoders")
            }
            _ => (one.as_slice(), "decoder"),
        };
        let mut decoding = Decoding::default();
        let (mut replaces, mut fallback, mut fuses) = (false, false, false);
        for (index, step) in steps.iter().enumerate() {
            let field = if field == "decoder" { field.to_string() } else { format!("{field}[{index}]") };
            let text = |name: &str| step.get(name).and_then(Value::as_str);
            let number = |name: &str| step.get(name).and_then(Value::as_u64);
            let fits = match type_of(Some(step)) {
                Some("Replace") => {
                    let pattern = step.get("pattern").and_then(|pattern| pattern.get("String"));
                    let fits = !replaces && !fallback && !fuses && text("content") == Some(" ");
                    replaces = true;
                    fits && pattern.and_then(Value::as_str) == Some(SPACE_SIGN)
                }
                Some("ByteFallback") => !std::mem::replace(&mut fallback, true) && !fuses,
                Some("Fuse") => !std::mem::replace(&mut fuses, true),
                Some("Strip") => {
                    decoding.strip_leading_space = number("start") == Some(1);
                    let fits = fuses && text("content") == Some(" ") && index + 1 == steps.len();
                    fits && matches!(number("start"), Some(0 | 1)) && number("stop") == Some(0)
                }
                Some("Metaspace") => {
                    let fits = !replaces && !fuses && index + 1 == steps.len();
                    replaces = true;
                    decoding.strip_first_token = self.metaspace(step, &field)?.0 != "never";
                    fits
                }
                _ => false,
            };
            if !fits {
                return Err(self.unsupported(&field, Some(step), SUPPORTED));
            }
        }
        // Otherwise tokens are decoded with spaces between them, or U+2581 is.
        if steps.is_empty() || replaces != spaces {
            return Err(self.unsupported("decoder", value, SUPPORTED));
        }
        Ok((decoding, fallback))
    }

    /// `prepend_scheme` and `split` of a `Metaspace`.
    pub(super) fn metaspace<'v>(self, value: &'v Value, field: &str) -> Result<(&'v str, bool)> {
        let object = self.object(value, field)?;
        let known = ["type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"];
        self.known_fields(object, field, &known)?;
        if object.get("replacement").and_then(Value::as_str) != Some(SPACE_SIGN) {
            return Err(self.unsupported(
                &format!("{field}.replacement"),
                object.get("replacement"),
                "U+2581",
            ));
        }
        let add_prefix_space = self.flag(object, field, "add_prefix_space", Some(true))?;
        let scheme = match object.get("prepend_scheme") {
            None if add_prefix_space => "always",
            None => "never",
            Some(value) => match value.as_str() {
                Some(scheme @ ("always" | "first")) if add_prefix_space => scheme,
                Some("never") => "never",
                _ => {
                    let field = format!("{field}.prepend_scheme");
                    return Err(self.unsupported(&field, Some(value), "always, first, never"));
                }
            },
        };
        Ok((scheme, self.flag(object, field, "split", Some(true))?))
    }
}
