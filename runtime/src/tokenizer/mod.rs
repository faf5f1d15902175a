//! Text to tokens and back, in the caller's memory.
//!
//! ```text
//! text -> cut out added tokens -> normalize -> cut into pre-tokens -> tokens by the model:
//!     byte-pair encoding over bytes or over characters, WordPiece, or Unigram
//! ```
//!
//! The ids equal those of the Hugging Face `tokenizers` crate for every supported `tokenizer.json`. Normalized text is never
//! stored: it is an iterator over the characters, of which a copy is a place in the text.
//!
//! Byte-pair encoding is that of Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (ACL
//! 2016, algorithm 1), over bytes as GPT-2 has it or over characters as SentencePiece has it.

use core::fmt;

use rescomp_formats::tokenizer::TokenizerView;

mod decode;
mod encode;
mod merge;
mod normalize;
mod pre_tokenize;
mod symbols;
mod tree;
mod unicode;
mod unigram;
mod word_piece;

pub use decode::{Decoder, Utf8Stream};
pub use encode::{Encoder, Special};
pub(crate) use merge::fits_narrow;

/// A tokenizer over a section of the container.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'a> {
    view: TokenizerView<'a>,
    /// Bytes with which an added token starts: `[not normalized, normalized]`.
    first_bytes: [ByteSet; 2],
}

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default)]
struct ByteSet([u32; 8]);

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte / 32)] |= 1 << (byte % 32);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte / 32)] >> (byte % 32) & 1 != 0
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }
}

impl<'a> Tokenizer<'a> {
    /// A tokenizer over a checked section; takes a walk over the added tokens.
    pub fn new(view: TokenizerView<'a>) -> Self {
        let mut first_bytes = [ByteSet::default(); 2];
        for token in (0..view.added_tokens()).filter_map(|index| view.added_token(index)) {
            if let Some(&byte) = token.content.first() {
                first_bytes[usize::from(token.normalized)].insert(byte);
            }
        }
        Tokenizer { view, first_bytes }
    }

    /// The section.
    pub fn view(&self) -> &TokenizerView<'a> {
        &self.view
    }
}

/// Why a text was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TokenizerError {
    /// The memory for the tokens is too small.
    OutputTooSmall {
        /// Tokens that fitted: the first so many of the memory are right.
        tokens: usize,
        /// Bytes of the text that these tokens stand for.
        text_bytes: usize,
        /// Tokens that the memory would have to hold for the next pre-token to fit (while it is being merged).
        needed: usize,
        /// Tokens that it holds.
        available: usize,
    },
    /// The program was built without a part of the runtime that the tokenizer needs ([`crate::parts`]).
    NotBuilt {
        /// The part: a feature of this crate.
        part: &'static str,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerError::OutputTooSmall { tokens, text_bytes, needed, available } => write!(
                formatter,
                "text byte {text_bytes}: the memory for tokens is too small: expected at least {needed}, found {available} \
                 ({tokens} tokens fitted)"
            ),
            TokenizerError::NotBuilt { part } => write!(
                formatter,
                "the tokenizer needs `{part}`, and this program was built without it (a feature of rescomp-runtime)"
            ),
        }
    }
}

impl core::error::Error for TokenizerError {}
