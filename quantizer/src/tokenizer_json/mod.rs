//! Makes the container's tokenizer section from a Hugging Face `tokenizer.json`.
//!
//! The file describes a pipeline: normalizer, pre-tokenizer, model, post-processor, decoder. Supported is what models with
//! byte-level BPE, SentencePiece's BPE and Unigram, and BERT's WordPiece use (docs/importing.md); every other value of every field is refused by name, for a tokenizer that is almost right makes a model
//! subtly wrong. Two fields are read over: `truncation` and `padding` say how a batch is cut and filled up, not how text
//! becomes tokens.
//!
//! Holes: an id below the largest that no token has becomes an unused token of no bytes. A vocabulary smaller than the
//! model's `vocab_size` is left so (models pad their embeddings); one that is larger is refused.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rescomp_formats::tokenizer::{
    AddedFlags, Model, NO_TOKEN, Normalizer, TokenizerExtension, TokenizerParts, byte_alphabet_position,
    write_extended_tokenizer,
};
use serde_json::{Map, Value};

mod error;
mod pipeline;
mod sentence_piece;
mod word_piece;

pub use error::TokenizerJsonError;

/// Ids are below this: larger ones are taken for damage, since every hole costs memory.
pub const MAX_VOCABULARY: u32 = 1 << 20;

type Result<T> = std::result::Result<T, TokenizerJsonError>;

/// Reads a `tokenizer.json` and makes the tokenizer section of a container from it.
///
/// `vocab_size` is the model's, where it is known: no id may reach it.
///
/// # Errors
/// A file that can't be read, and whatever [`tokenizer_section`] refuses.
pub fn read_tokenizer_json(path: &Path, vocab_size: Option<u32>) -> Result<Vec<u8>> {
    let json =
        fs::read(path).map_err(|source| TokenizerJsonError::Read { path: path.to_path_buf(), source })?;
    tokenizer_section(&json, path, vocab_size)
}

/// Makes the tokenizer section of a container from the text of a `tokenizer.json`; `path` is for errors only.
///
/// # Errors
/// Text that isn't JSON, fields or values that aren't supported, and a vocabulary, merges or added tokens that contradict
/// each other; the error names the field.
pub fn tokenizer_section(json: &[u8], path: &Path, vocab_size: Option<u32>) -> Result<Vec<u8>> {
    let root: Value = serde_json::from_slice(json)
        .map_err(|source| TokenizerJsonError::Json { path: path.to_path_buf(), source })?;
    tokenizer_section_of(&root, path, vocab_size)
}

/// As [`tokenizer_section`], from the parsed text.
pub(crate) fn tokenizer_section_of(root: &Value, path: &Path, vocab_size: Option<u32>) -> Result<Vec<u8>> {
    let (parts, extension) = Source { path }.parts(root, vocab_size)?;
    write_extended_tokenizer(&parts, &extension)
        .map_err(|source| TokenizerJsonError::Write { path: path.to_path_buf(), source })
}

/// The file that errors name.
#[derive(Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
}

/// An entry of `added_tokens`.
struct Added<'a> {
    id: u32,
    content: &'a str,
    special: bool,
    normalized: bool,
    left_strip: bool,
    right_strip: bool,
}

impl Source<'_> {
    fn parts(self, root: &Value, vocab_size: Option<u32>) -> Result<(TokenizerParts, TokenizerExtension)> {
        let root = self.object(root, "the file")?;
        self.known_fields(
            root,
            "",
            &[
                "version",
                "truncation",
                "padding",
                "added_tokens",
                "normalizer",
                "pre_tokenizer",
                "post_processor",
                "decoder",
                "model",
            ],
        )?;
        if root.get("version").and_then(Value::as_str) != Some("1.0") {
            return Err(self.unsupported("version", root.get("version"), "`1.0`"));
        }
        let model = self.object(root.get("model").unwrap_or(&Value::Null), "model")?;
        // Old files leave the type out; no other model has merges.
        match model.get("type").map(|name| name.as_str().unwrap_or_default()) {
            Some("WordPiece") => self.word_piece(root, model, vocab_size),
            Some("Unigram") => self.sentence_piece(root, model, Model::Unigram, vocab_size),
            Some("BPE") | None if model.get("type").is_some() || model.contains_key("merges") => {
                if type_of(root.get("decoder")) == Some("ByteLevel")
                    || mentions_byte_level(root.get("pre_tokenizer"))
                {
                    self.byte_level_bpe(root, model, vocab_size)
                } else {
                    self.sentence_piece(root, model, Model::CharacterBpe, vocab_size)
                }
            }
            _ => Err(self.unsupported("model.type", model.get("type"), "BPE, WordPiece, Unigram")),
        }
    }

    fn byte_level_bpe(
        self,
        root: &Map<String, Value>,
        model: &Map<String, Value>,
        vocab_size: Option<u32>,
    ) -> Result<(TokenizerParts, TokenizerExtension)> {
        let normalizer = match type_of(root.get("normalizer")) {
            _ if is_null(root.get("normalizer")) => Normalizer::None,
            Some("NFC") => Normalizer::Nfc,
            _ => return Err(self.unsupported("normalizer", root.get("normalizer"), "null, `NFC`")),
        };
        if type_of(root.get("decoder")) != Some("ByteLevel") {
            return Err(self.unsupported("decoder", root.get("decoder"), "`ByteLevel`"));
        }
        let (pre_tokenizer, add_prefix_space) = self.byte_level_pre_tokenizer(root.get("pre_tokenizer"))?;
        self.check_bpe(model)?;
        // `fuse_unk` is for characters without a token: `byte_tokens` refuses those that `unk_token` would stand for.
        if self.flag(model, "model", "byte_fallback", Some(false))? {
            return Err(self.unsupported("model.byte_fallback", model.get("byte_fallback"), "false"));
        }
        let vocabulary = self.vocabulary(model)?;
        let added = self.added_tokens(root.get("added_tokens"), &vocabulary, normalizer)?;
        let (tokens_before, tokens_after) =
            self.post_processor(root.get("post_processor"), &vocabulary, &added)?;

        let tokens =
            self.token_bytes(&vocabulary, &added, vocab_size, &|token| self.byte_level_bytes(token))?;
        let byte_tokens = self.byte_tokens(&vocabulary, model)?;
        let merges = self.merges(model, &vocabulary)?;
        let ignore_merges = self.flag(model, "model", "ignore_merges", Some(false))?;
        if ignore_merges {
            self.every_token_is_merged(&vocabulary, &added, &merges)?;
        }
        let parts = TokenizerParts {
            tokens,
            byte_tokens,
            merges,
            added_tokens: added_entries(&added),
            pre_tokenizer,
            add_prefix_space,
            ignore_merges,
        };
        let extension =
            TokenizerExtension { normalizer, tokens_before, tokens_after, ..TokenizerExtension::default() };
        Ok((parts, extension))
    }

    /// Fields that mean the same in every BPE model.
    fn check_bpe(self, model: &Map<String, Value>) -> Result<()> {
        self.known_fields(
            model,
            "model",
            &[
                "type",
                "dropout",
                "unk_token",
                "continuing_subword_prefix",
                "end_of_word_suffix",
                "fuse_unk",
                "byte_fallback",
                "ignore_merges",
                "vocab",
                "merges",
            ],
        )?;
        let dropout = model.get("dropout");
        if !is_null(dropout) && dropout.and_then(Value::as_f64) != Some(0.0) {
            return Err(self.unsupported("model.dropout", dropout, "null, 0"));
        }
        for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
            let value = model.get(name);
            if !is_null(value) && value.and_then(Value::as_str) != Some("") {
                return Err(self.unsupported(&format!("model.{name}"), value, "null, an empty string"));
            }
        }
        Ok(())
    }

    /// The vocabulary, and that its ids are ids.
    fn vocabulary(self, model: &Map<String, Value>) -> Result<Vocabulary<'_>> {
        let vocab = self.object(model.get("vocab").unwrap_or(&Value::Null), "model.vocab")?;
        let mut ids = std::collections::HashMap::with_capacity(vocab.len());
        for (token, value) in vocab {
            ids.insert(token.as_str(), self.id(value, &format!("model.vocab[`{token}`]"))?);
        }
        Ok(Vocabulary { ids })
    }

    fn added_tokens<'v>(
        self,
        value: Option<&'v Value>,
        vocabulary: &Vocabulary<'_>,
        normalizer: Normalizer,
    ) -> Result<Vec<Added<'v>>> {
        let entries = match value {
            None | Some(Value::Null) => &[],
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(_) => return Err(self.unsupported("added_tokens", value, "an array")),
        };
        let mut added: Vec<Added<'v>> = Vec::with_capacity(entries.len());
        let mut next_id = vocabulary.ids.len() as u32;
        let mut seen = HashSet::new();
        for (index, entry) in entries.iter().enumerate() {
            let field = format!("added_tokens[{index}]");
            let entry = self.object(entry, &field)?;
            let (path, content) = (self.path.to_path_buf(), entry.get("content"));
            let Some(content) = content.and_then(Value::as_str).filter(|content| !content.is_empty()) else {
                return Err(self.unsupported(&format!("{field}.content"), content, "a string"));
            };
            let id = entry.get("id").unwrap_or(&Value::Null);
            let found = self.id(id, &format!("{field}.id"))?;
            let single_word = "single_word";
            if self.flag(entry, &field, single_word, Some(false))? {
                let (field, value) = (format!("{field}.{single_word}"), entry.get(single_word));
                return Err(self.unsupported(&field, value, "false"));
            }
            let left_strip = self.flag(entry, &field, "lstrip", Some(false))?;
            let right_strip = self.flag(entry, &field, "rstrip", Some(false))?;
            let special = self.flag(entry, &field, "special", None)?;
            // The reference normalizes these and looks for them in the normalized text.
            let normalized = self.flag(entry, &field, "normalized", None)?;
            if normalized && may_change(normalizer, content) {
                return Err(self.unsupported(
                    &format!("{field}.normalized"),
                    entry.get("normalized"),
                    "false, with a normalizer (with NFC also true, of white space)",
                ));
            }
            if !seen.insert(content) {
                return Err(TokenizerJsonError::RepeatedAdded { path, field, content: content.to_string() });
            }
            // As the `tokenizers` crate numbers them, whatever the file says.
            let expected = vocabulary.ids.get(content).copied().unwrap_or_else(|| {
                next_id += 1;
                next_id - 1
            });
            if found != expected {
                let content = content.to_string();
                return Err(TokenizerJsonError::AddedId { path, field, content, expected, found });
            }
            added.push(Added { id: found, content, special, normalized, left_strip, right_strip });
        }
        added.sort_by_key(|token| token.id);
        Ok(added)
    }

    /// The bytes of every token by id, with nothing in the holes.
    fn token_bytes(
        self,
        vocabulary: &Vocabulary<'_>,
        added: &[Added<'_>],
        vocab_size: Option<u32>,
        bytes_of: &dyn Fn(&str) -> Result<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>> {
        let contents: HashSet<&str> = added.iter().map(|token| token.content).collect();
        let spelled = vocabulary.ids.iter().filter(|(token, _)| !contents.contains(*token));
        let mut all: Vec<(u32, &str, Vec<u8>)> = Vec::with_capacity(vocabulary.ids.len() + added.len());
        for (token, &id) in spelled {
            all.push((id, token, bytes_of(token)?));
        }
        // The content of an added token is text, not byte-level characters.
        all.extend(added.iter().map(|token| (token.id, token.content, token.content.as_bytes().to_vec())));
        all.sort();
        if let Some(pair) = all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(TokenizerJsonError::SharedId {
                path: self.path.to_path_buf(),
                id: pair[0].0,
                first: pair[0].1.to_string(),
                second: pair[1].1.to_string(),
            });
        }
        let Some(&(largest, token, _)) = all.last() else { return Ok(Vec::new()) };
        if let Some(vocab_size) = vocab_size.filter(|&vocab_size| largest >= vocab_size) {
            let (path, token) = (self.path.to_path_buf(), token.to_string());
            return Err(TokenizerJsonError::Vocabulary { path, largest, token, vocab_size });
        }
        let mut tokens = vec![Vec::new(); largest as usize + 1];
        for (id, _, bytes) in all {
            tokens[id as usize] = bytes;
        }
        Ok(tokens)
    }

    /// The bytes that a token of byte-level characters stands for.
    fn byte_level_bytes(self, token: &str) -> Result<Vec<u8>> {
        let bytes = token.chars().map(|character| {
            byte_of(character).ok_or_else(|| TokenizerJsonError::TokenCharacter {
                path: self.path.to_path_buf(),
                token: token.to_string(),
                character,
            })
        });
        bytes.collect()
    }

    /// The tokens of the bytes. Vocabularies that were trained on text lack bytes that it never had; without `unk_token` such bytes are
    /// left out of a text.
    fn byte_tokens(self, vocabulary: &Vocabulary<'_>, model: &Map<String, Value>) -> Result<[u32; 256]> {
        let mut tokens = [NO_TOKEN; 256];
        let mut missing = None;
        for byte in 0..=u8::MAX {
            let character = character_of(byte);
            match vocabulary.ids.get(character.encode_utf8(&mut [0; 4]) as &str) {
                Some(id) => tokens[usize::from(byte)] = *id,
                None => missing = missing.or(Some((byte, character))),
            }
        }
        let left_out = is_null(model.get("unk_token")) && tokens != [NO_TOKEN; 256];
        if let Some((byte, character)) = missing.filter(|_| !left_out) {
            return Err(TokenizerJsonError::MissingByte { path: self.path.to_path_buf(), byte, character });
        }
        Ok(tokens)
    }

    /// Left, right and result of the merges, in either spelling.
    fn merges(self, model: &Map<String, Value>, vocabulary: &Vocabulary<'_>) -> Result<Vec<[u32; 3]>> {
        const SUPPORTED: &str = "\"left right\", [\"left\", \"right\"]";
        let value = model.get("merges");
        let Some(entries) = value.and_then(Value::as_array) else {
            return Err(self.unsupported("model.merges", value, "an array"));
        };
        let mut merges = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            // The head line of the `merges.txt` that files of the first spelling were made from.
            if entry.as_str().is_some_and(|line| line.starts_with("#version")) {
                continue;
            }
            let (left, right) = match entry {
                Value::String(line) => line.split_once(' ').filter(|(_, right)| !right.contains(' ')),
                Value::Array(pair) => match pair.as_slice() {
                    [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                    _ => None,
                },
                _ => None,
            }
            .ok_or_else(|| self.unsupported(&format!("model.merges[{index}]"), Some(entry), SUPPORTED))?;
            let id = |token: &str| {
                vocabulary.ids.get(token).copied().ok_or_else(|| TokenizerJsonError::MergeToken {
                    path: self.path.to_path_buf(),
                    index,
                    token: token.to_string(),
                })
            };
            merges.push([id(left)?, id(right)?, id(&format!("{left}{right}"))?]);
        }
        Ok(merges)
    }

    /// With `ignore_merges`, a pre-token is looked up among the bytes and the results of merges only.
    fn every_token_is_merged(
        self,
        vocabulary: &Vocabulary<'_>,
        added: &[Added<'_>],
        merges: &[[u32; 3]],
    ) -> Result<()> {
        let mut made: HashSet<u32> = merges.iter().map(|ids| ids[2]).collect();
        made.extend(added.iter().map(|token| token.id));
        let missing = vocabulary
            .ids
            .iter()
            .filter(|(token, id)| token.chars().nth(1).is_some() && !made.contains(id))
            .min_by_key(|(_, id)| **id);
        match missing {
            None => Ok(()),
            Some((token, _)) => Err(TokenizerJsonError::UnmergedToken {
                path: self.path.to_path_buf(),
                token: token.to_string(),
            }),
        }
    }

    fn unsupported(self, field: &str, found: Option<&Value>, supported: &'static str) -> TokenizerJsonError {
        let found = match (type_of(found), found) {
            (Some(name), _) => format!("`{name}`"),
            (_, None) => "missing".to_string(),
            (_, Some(value)) => {
                let text = value.to_string();
                let shown: String = text.chars().take(60).collect();
                format!("`{shown}{}`", if shown.len() < text.len() { "..." } else { "" })
            }
        };
        TokenizerJsonError::Unsupported {
            path: self.path.to_path_buf(),
            field: field.to_string(),
            found,
            supported,
        }
    }

    fn object<'v>(self, value: &'v Value, field: &str) -> Result<&'v Map<String, Value>> {
        value.as_object().ok_or_else(|| self.unsupported(field, Some(value), "an object"))
    }

    fn known_fields(self, object: &Map<String, Value>, of: &str, known: &[&str]) -> Result<()> {
        match object.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(TokenizerJsonError::UnknownField {
                path: self.path.to_path_buf(),
                field: if of.is_empty() { name.clone() } else { format!("{of}.{name}") },
                supported: known.join(", "),
            }),
        }
    }

    /// A boolean; absent or null it has the default, if there is one.
    fn flag(self, object: &Map<String, Value>, of: &str, name: &str, default: Option<bool>) -> Result<bool> {
        let value = object.get(name);
        value
            .and_then(Value::as_bool)
            .or(if is_null(value) { default } else { None })
            .ok_or_else(|| self.unsupported(&format!("{of}.{name}"), value, "true, false"))
    }

    fn id(self, value: &Value, field: &str) -> Result<u32> {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id < MAX_VOCABULARY);
        id.ok_or_else(|| self.unsupported(field, Some(value), "an integer from 0 to 1048575"))
    }
}

/// Whether some text is changed. (U+2581 in an added token is refused, and a space in front is put there after the search.)
/// Whether a normalizer may find this content where it is not, or hide it where it is. NFC leaves white space alone: nothing composes with it.
fn may_change(normalizer: Normalizer, content: &str) -> bool {
    match normalizer {
        Normalizer::None => false,
        Normalizer::Nfc => !content.bytes().all(|byte| byte.is_ascii_whitespace()),
        _ => true,
    }
}

fn added_entries(added: &[Added<'_>]) -> Vec<AddedFlags> {
    let flags = |token: &Added<'_>| {
        let &Added { id, special, normalized, left_strip, right_strip, .. } = token;
        AddedFlags { id, special, normalized, left_strip, right_strip }
    };
    added.iter().map(flags).collect()
}

fn mentions_byte_level(pre_tokenizer: Option<&Value>) -> bool {
    let steps = pre_tokenizer.and_then(|value| value.get("pretokenizers")).and_then(Value::as_array);
    type_of(pre_tokenizer) == Some("ByteLevel")
        || steps.is_some_and(|steps| steps.iter().any(|step| type_of(Some(step)) == Some("ByteLevel")))
}

/// `model.vocab`: ids by the spelling of the file.
struct Vocabulary<'a> {
    ids: std::collections::HashMap<&'a str, u32>,
}

fn is_null(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

/// What a step of the pipeline is: its field `type`; for a string, itself.
fn type_of(value: Option<&Value>) -> Option<&str> {
    let value = value?;
    value.as_str().or_else(|| value.get("type")?.as_str())
}

/// The character that stands for a byte: itself where it is printable, else U+0100 and up.
pub(crate) fn character_of(byte: u8) -> char {
    match byte_alphabet_position(byte) {
        0..188 => char::from(byte),
        position => char::from_u32(0x100 + u32::from(position) - 188).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

/// The byte that a character stands for.
pub(crate) fn byte_of(character: char) -> Option<u8> {
    (0..=u8::MAX).find(|&byte| character_of(byte) == character)
}
