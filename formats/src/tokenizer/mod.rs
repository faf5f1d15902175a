//! The tokenizer section: a byte-level BPE vocabulary and its merges, read in place.
//!
//! A merge is a token and a place to cut it, so that the merge table needs no pairs of ids:
//!
//! ```text
//! merge(left, right):
//!     search the ranks, sorted by (bytes of their result, split),
//!         for (bytes(left) ++ bytes(right), length(left))
//! ```
//!
//! `docs/tokenizer-section.md` gives the layout byte for byte.

use core::fmt;

mod view;
#[cfg(feature = "write")]
mod write;

pub use view::{AddedToken, TokenizerView};
#[cfg(feature = "write")]
pub use write::{TokenizerParts, TokenizerWriteError, write_tokenizer};

/// Version of the layout that is read and written.
pub const TOKENIZER_VERSION: u8 = 1;
/// Most bytes a token may have.
pub const MAX_TOKEN_BYTES: usize = u8::MAX as usize;
/// In place of the token of a byte that has none.
pub const NO_TOKEN: u32 = u32::MAX;

const HEAD_BYTES: usize = 32;
/// Tokens that share one entry of the array of block starts.
const BLOCK_TOKENS: usize = 32;
/// Ids and ranks are u16 up to this many of them, u32 above.
const MAX_NARROW: usize = 1 << 16;

const FLAG_EXPLICIT_RESULTS: u8 = 1 << 0;
const FLAG_EXPLICIT_BYTE_TOKENS: u8 = 1 << 1;
const FLAG_ADD_PREFIX_SPACE: u8 = 1 << 2;
const FLAG_IGNORE_MERGES: u8 = 1 << 3;
const KNOWN_FLAGS: u8 =
    FLAG_EXPLICIT_RESULTS | FLAG_EXPLICIT_BYTE_TOKENS | FLAG_ADD_PREFIX_SPACE | FLAG_IGNORE_MERGES;

const ADDED_SPECIAL: u8 = 1 << 0;
const ADDED_NORMALIZED: u8 = 1 << 1;
const ADDED_SINGLE_WORD: u8 = 1 << 2;
const ADDED_LEFT_STRIP: u8 = 1 << 3;
const ADDED_RIGHT_STRIP: u8 = 1 << 4;

/// How a text is cut into pre-tokens, across which no merge reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PreTokenizer {
    /// Not at all: `ByteLevel` with `use_regex: false`.
    ByteLevel,
    /// By GPT-2's pattern: `ByteLevel` with `use_regex: true`.
    Gpt2,
    /// Every numeric character alone, the rest by GPT-2's pattern: `Sequence[Digits, ByteLevel]`, as SmolLM has it.
    DigitsGpt2,
    /// Llama 3's pattern. Reserved: refused by [`TokenizerView::parse`].
    Llama3,
    /// Qwen 2's pattern. Reserved: refused by [`TokenizerView::parse`].
    Qwen2,
}

impl PreTokenizer {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => PreTokenizer::ByteLevel,
            1 => PreTokenizer::Gpt2,
            2 => PreTokenizer::DigitsGpt2,
            3 => PreTokenizer::Llama3,
            4 => PreTokenizer::Qwen2,
            _ => return None,
        })
    }

    /// The code in the section's head.
    pub fn code(self) -> u8 {
        match self {
            PreTokenizer::ByteLevel => 0,
            PreTokenizer::Gpt2 => 1,
            PreTokenizer::DigitsGpt2 => 2,
            PreTokenizer::Llama3 => 3,
            PreTokenizer::Qwen2 => 4,
        }
    }
}

/// Position of a byte in GPT-2's byte alphabet: the printable bytes first, then the others, each in order.
///
/// Trainers number the tokens of single bytes in this order, since the character that stands for a byte that isn't printable
/// is U+0100 and up.
pub fn byte_alphabet_position(byte: u8) -> u8 {
    match byte {
        33..=126 => byte - 33,
        161..=172 => byte - 161 + 94,
        174..=255 => byte - 174 + 106,
        0..=32 => byte + 188,
        127..=160 => byte - 127 + 221,
        173 => 255,
    }
}

/// What is wrong with a tokenizer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TokenizerProblem {
    /// The section is shorter than its head.
    HeadCut,
    /// Another version of the layout.
    Version,
    /// A flag this version doesn't know, or a reserved field that isn't 0.
    Reserved,
    /// No such pre-tokenizer.
    UnknownPreTokenizer,
    /// [`PreTokenizer::Llama3`], which isn't supported yet.
    UnsupportedLlama3,
    /// [`PreTokenizer::Qwen2`], which isn't supported yet.
    UnsupportedQwen2,
    /// "Add prefix space" together with [`PreTokenizer::DigitsGpt2`] or with "ignore merges".
    UnsupportedPrefixSpace,
    /// The length in the head isn't the length of the section.
    Length,
    /// The arrays that the head announces don't fill the section exactly.
    Arrays,
    /// A vocabulary without tokens.
    NoTokens,
    /// A block start isn't the sum of the lengths before it.
    BlockStart,
    /// The token lengths don't add up to the token bytes.
    TokenLengths,
    /// A byte's token isn't that single byte.
    ByteToken,
    /// A merge makes a token outside the vocabulary.
    MergeResult,
    /// A merge's split isn't inside its result.
    MergeSplit,
    /// A rank in the merge order is not below the number of merges.
    MergeRank,
    /// The merge order isn't strictly increasing by bytes and split.
    MergeOrder,
    /// An added token's id isn't in the vocabulary, or not above the one before.
    AddedId,
    /// An added token has no content, or its content isn't UTF-8.
    AddedContent,
    /// An added token that only matches whole words, which isn't supported.
    UnsupportedSingleWord,
    /// An added token that takes the white space on its left, which isn't supported.
    UnsupportedLeftStrip,
    /// An added token that takes the white space on its right, which isn't supported.
    UnsupportedRightStrip,
    /// An added token with a flag this version doesn't know.
    AddedFlags,
}

impl TokenizerProblem {
    /// One sentence, without the numbers.
    pub fn text(self) -> &'static str {
        match self {
            TokenizerProblem::HeadCut => "the head is cut short (bytes)",
            TokenizerProblem::Version => "unknown version of the layout",
            TokenizerProblem::Reserved => "an unknown flag or a reserved field is set",
            TokenizerProblem::UnknownPreTokenizer => "unknown pre-tokenizer",
            TokenizerProblem::UnsupportedLlama3 => "pre-tokenizer `Llama3` is not supported",
            TokenizerProblem::UnsupportedQwen2 => "pre-tokenizer `Qwen2` is not supported",
            TokenizerProblem::UnsupportedPrefixSpace => {
                "a prefix space is not supported with pre-tokenizer `DigitsGpt2` or ignored merges"
            }
            TokenizerProblem::Length => "the head gives another length (bytes)",
            TokenizerProblem::Arrays => "the arrays do not fill the section (bytes)",
            TokenizerProblem::NoTokens => "the vocabulary is empty",
            TokenizerProblem::BlockStart => "a block does not start where the tokens before it end",
            TokenizerProblem::TokenLengths => "the token lengths do not add up to the token bytes",
            TokenizerProblem::ByteToken => "the token of a byte is not that byte",
            TokenizerProblem::MergeResult => "a merge makes a token outside the vocabulary (expected: most)",
            TokenizerProblem::MergeSplit => "a merge's split is not inside its result (expected: most)",
            TokenizerProblem::MergeRank => "a rank is not below the number of merges (expected: most)",
            TokenizerProblem::MergeOrder => {
                "the merges are not in strict order of bytes and split (positions)"
            }
            TokenizerProblem::AddedId => "an added token's id is out of order or range (expected: least)",
            TokenizerProblem::AddedContent => "an added token's content is not UTF-8, or empty (valid bytes)",
            TokenizerProblem::UnsupportedSingleWord => "added tokens with `single_word` are not supported",
            TokenizerProblem::UnsupportedLeftStrip => "added tokens with `lstrip` are not supported",
            TokenizerProblem::UnsupportedRightStrip => "added tokens with `rstrip` are not supported",
            TokenizerProblem::AddedFlags => "an added token has unknown flags",
        }
    }
}

/// Why a tokenizer section was refused: what, where, and the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TokenizerFormatError {
    /// What is wrong.
    pub problem: TokenizerProblem,
    /// Where, in bytes from the start of the section.
    pub offset_bytes: usize,
    /// The number that should be there (a bound where [`TokenizerProblem::text`] says so).
    pub expected: u64,
    /// The number that is there.
    pub found: u64,
}

impl fmt::Display for TokenizerFormatError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "tokenizer section, byte {}: {}: expected {}, found {}",
            self.offset_bytes,
            self.problem.text(),
            self.expected,
            self.found
        )
    }
}

impl core::error::Error for TokenizerFormatError {}
