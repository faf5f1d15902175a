//! What a tokenizer section may be refused for.

use core::fmt;

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
    /// "Add prefix space" with a pre-tokenizer other than [`PreTokenizer::ByteLevel`] and [`PreTokenizer::Gpt2`], or with "ignore
    /// merges".
    ///
    /// [`PreTokenizer::ByteLevel`]: super::PreTokenizer::ByteLevel
    /// [`PreTokenizer::Gpt2`]: super::PreTokenizer::Gpt2
    UnsupportedPrefixSpace,
    /// No such model.
    UnknownModel,
    /// No such normalizer.
    UnknownNormalizer,
    /// A normalizer that doesn't go with the model.
    UnsupportedNormalizer,
    /// A pre-tokenizer that doesn't go with the model.
    UnsupportedPreTokenizer,
    /// A flag, merges or ordered tokens that the model doesn't have.
    ModelFields,
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
    /// An ordered token's id isn't in the vocabulary, or it has no bytes.
    OrderedId,
    /// An ordered token isn't UTF-8.
    OrderedContent,
    /// The ordered tokens aren't strictly increasing by bytes.
    TokenOrder,
    /// A score isn't a finite number.
    Score,
    /// The token of what is unknown isn't in the vocabulary, or is needed and not there.
    UnknownToken,
    /// A token put before or after a text isn't in the vocabulary.
    TemplateToken,
    /// An added token's id isn't in the vocabulary, or not above the one before.
    AddedId,
    /// An added token has no content, or its content isn't UTF-8.
    AddedContent,
    /// An added token that only matches whole words, which isn't supported.
    UnsupportedSingleWord,
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
            TokenizerProblem::UnsupportedPrefixSpace => {
                "a prefix space is only supported with pre-tokenizers `ByteLevel` and `Gpt2`, and without ignored merges"
            }
            TokenizerProblem::UnknownModel => "unknown model",
            TokenizerProblem::UnknownNormalizer => "unknown normalizer",
            TokenizerProblem::UnsupportedNormalizer => "the normalizer does not go with the model",
            TokenizerProblem::UnsupportedPreTokenizer => "the pre-tokenizer does not go with the model",
            TokenizerProblem::ModelFields => "a field is set that the model does not have",
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
            TokenizerProblem::OrderedId => "an ordered token is not in the vocabulary (expected: most)",
            TokenizerProblem::OrderedContent => "an ordered token is not UTF-8 (valid bytes)",
            TokenizerProblem::TokenOrder => "the tokens are not in strict order of their bytes (positions)",
            TokenizerProblem::Score => "a score is not finite (bits of its binary64; expected: most)",
            TokenizerProblem::UnknownToken => {
                "the token of what is unknown is not in the vocabulary (expected: most)"
            }
            TokenizerProblem::TemplateToken => {
                "a token put before or after a text is not in the vocabulary (expected: most)"
            }
            TokenizerProblem::AddedId => "an added token's id is out of order or range (expected: least)",
            TokenizerProblem::AddedContent => "an added token's content is not UTF-8, or empty (valid bytes)",
            TokenizerProblem::UnsupportedSingleWord => "added tokens with `single_word` are not supported",
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

/// A problem with its place and numbers.
pub(super) fn error(
    problem: TokenizerProblem,
    offset_bytes: usize,
    expected: impl TryInto<u64>,
    found: impl TryInto<u64>,
) -> TokenizerFormatError {
    TokenizerFormatError {
        problem,
        offset_bytes,
        expected: expected.try_into().unwrap_or(u64::MAX),
        found: found.try_into().unwrap_or(u64::MAX),
    }
}
