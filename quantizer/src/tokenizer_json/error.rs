//! Why a `tokenizer.json` was refused.

use std::io;
use std::path::PathBuf;

use rescomp_formats::tokenizer::TokenizerWriteError;

/// Why a `tokenizer.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerJsonError {
    /// The file can't be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file isn't JSON.
    #[error("{path}: not JSON: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field has a value that isn't supported.
    #[error("{path}: {field} is {found}; supported: {supported}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field, as `model.type`.
        field: String,
        /// Its value, or the beginning of it.
        found: String,
        /// The values that are supported.
        supported: &'static str,
    },
    /// A field that this reader doesn't know, and that may change what the tokenizer does.
    #[error("{path}: {field} is not a known field; supported: {supported}", path = path.display())]
    UnknownField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The fields that are supported there.
        supported: String,
    },
    /// A merge names a token that isn't in the vocabulary, or makes one that isn't.
    #[error("{path}: model.merges[{index}]: token `{token}` is not in model.vocab", path = path.display())]
    MergeToken {
        /// The file.
        path: PathBuf,
        /// Which merge, counted from 0.
        index: usize,
        /// The token.
        token: String,
    },
    /// A token has a character that stands for no byte.
    #[error(
        "{path}: model.vocab: token `{token}` has the character {character:?}, which is not in the byte-level alphabet",
        path = path.display()
    )]
    TokenCharacter {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
        /// The character.
        character: char,
    },
    /// Two tokens have the same id.
    #[error("{path}: tokens `{first}` and `{second}` both have the id {id}", path = path.display())]
    SharedId {
        /// The file.
        path: PathBuf,
        /// The id.
        id: u32,
        /// One of the tokens.
        first: String,
        /// The other.
        second: String,
    },
    /// An added token has another id than the `tokenizers` crate would give it.
    #[error("{path}: {field}.id of `{content}`: expected {expected}, found {found}", path = path.display())]
    AddedId {
        /// The file.
        path: PathBuf,
        /// The entry, as `added_tokens[3]`.
        field: String,
        /// The token.
        content: String,
        /// Its id in `model.vocab`, or the next free one.
        expected: u32,
        /// The id in the file.
        found: u32,
    },
    /// An added token is there twice.
    #[error("{path}: {field}: `{content}` is there already", path = path.display())]
    RepeatedAdded {
        /// The file.
        path: PathBuf,
        /// The entry.
        field: String,
        /// The token.
        content: String,
    },
    /// A byte has no token, and another one stands for it, or no byte has one.
    #[error(
        "{path}: model.vocab has no token `{character}` for the byte {byte}; supported where `unk_token` is null and other bytes have \
         tokens", path = path.display()
    )]
    MissingByte {
        /// The file.
        path: PathBuf,
        /// The byte.
        byte: u8,
        /// How the file would spell it.
        character: char,
    },
    /// Two tokens have the same text once U+2581 is a space.
    #[error("{path}: model.vocab: `{token}` has a space, which U+2581 stands for in other tokens", path = path.display())]
    LiteralSpace {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
    },
    /// A token's spelling is that of a byte, and bytes have no tokens of their own.
    #[error("{path}: model.byte_fallback is false and `{token}` is spelled as a byte; supported: true", path = path.display())]
    SpelledByte {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
    },
    /// A special token of a template or model isn't in the vocabulary.
    #[error("{path}: {field} is `{token}`, which is not in the vocabulary", path = path.display())]
    MissingToken {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The token.
        token: String,
    },
    /// With `ignore_merges`, a token that no merge makes.
    #[error(
        "{path}: model.ignore_merges is true and no merge makes the token `{token}`; supported: one that does",
        path = path.display()
    )]
    UnmergedToken {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
    },
    /// More tokens than the model has.
    #[error(
        "{path}: the largest id is {largest} (`{token}`): expected at most {vocab_size} tokens (vocab_size of the model)",
        path = path.display()
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// The largest id.
        largest: u32,
        /// Its token.
        token: String,
        /// Rows of the model's embedding.
        vocab_size: u32,
    },
    /// The section can't be written.
    #[error("{path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TokenizerWriteError,
    },
}
