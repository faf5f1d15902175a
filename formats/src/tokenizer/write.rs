//! Building a tokenizer section.

use alloc::vec::Vec;
use core::fmt;

use super::{
    ADDED_LEFT_STRIP, ADDED_NORMALIZED, ADDED_RIGHT_STRIP, ADDED_SPECIAL, BLOCK_TOKENS, Decoding,
    EXTENDED_HEAD_BYTES, FLAG_ADD_PREFIX_SPACE, FLAG_EXPLICIT_BYTE_TOKENS, FLAG_EXPLICIT_RESULTS,
    FLAG_FUSE_UNKNOWN, FLAG_IGNORE_MERGES, FLAG_WIDE_SCORES, HEAD_BYTES, MAX_NARROW, MAX_TOKEN_BYTES, Model,
    NO_TOKEN, Normalizer, PreTokenizer, TOKENIZER_VERSION, TOKENIZER_VERSION_EXTENDED, TokenizerFormatError,
    TokenizerView, byte_alphabet_position,
};

/// An added token of a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedFlags {
    /// Its id.
    pub id: u32,
    /// It stands for structure, not for text.
    pub special: bool,
    /// It is looked for after those that aren't normalized.
    pub normalized: bool,
    /// It takes the white space in front of it.
    pub left_strip: bool,
    /// It takes the white space behind it.
    pub right_strip: bool,
}

impl AddedFlags {
    /// One that takes no white space.
    pub const fn plain(id: u32, special: bool, normalized: bool) -> AddedFlags {
        AddedFlags { id, special, normalized, left_strip: false, right_strip: false }
    }
}

/// What a tokenizer is made of.
#[derive(Clone, Debug)]
pub struct TokenizerParts {
    /// The bytes of every token by id; empty for an unused id.
    pub tokens: Vec<Vec<u8>>,
    /// The token of every single byte; [`NO_TOKEN`] for one without, and for all of them where bytes have none.
    pub byte_tokens: [u32; 256],
    /// Left, right and result of every merge, the first to be merged first.
    pub merges: Vec<[u32; 3]>,
    /// Every added token, by increasing id.
    pub added_tokens: Vec<AddedFlags>,
    /// How the text is cut into pre-tokens.
    pub pre_tokenizer: PreTokenizer,
    /// A text that doesn't start with a space gets one.
    pub add_prefix_space: bool,
    /// A pre-token that is a token as a whole is not merged from its bytes.
    pub ignore_merges: bool,
}

/// What a tokenizer has beyond byte-level BPE without a normalizer, which is the default.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerExtension {
    /// How a pre-token becomes tokens.
    pub model: Model,
    /// What happens to the text first.
    pub normalizer: Normalizer,
    /// How tokens become text.
    pub decoding: Decoding,
    /// The token of what no other token stands for.
    pub unknown: Option<u32>,
    /// Neighbouring unknown characters are one unknown token.
    pub fuse_unknown: bool,
    /// The tokens that are looked for in the text by their bytes, in any order.
    pub ordered: Vec<u32>,
    /// Unigram: the scores of the tokens by id, of which those of the ordered ones and of the bytes are kept; else empty.
    pub scores: Vec<f64>,
    /// Unigram: score of a character that no token stands for; else 0.
    pub unknown_score: f64,
    /// WordPiece: a word of more characters is unknown; else 0.
    pub max_word_characters: u32,
    /// Tokens that a template puts before a text.
    pub tokens_before: Vec<u32>,
    /// Tokens that a template puts after a text.
    pub tokens_after: Vec<u32>,
}

impl Default for TokenizerExtension {
    fn default() -> Self {
        TokenizerExtension {
            model: Model::ByteLevelBpe,
            normalizer: Normalizer::None,
            decoding: Decoding::default(),
            unknown: None,
            fuse_unknown: false,
            ordered: Vec::new(),
            scores: Vec::new(),
            unknown_score: 0.0,
            max_word_characters: 0,
            tokens_before: Vec::new(),
            tokens_after: Vec::new(),
        }
    }
}

/// Why a tokenizer section can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerWriteError {
    /// A token is longer than [`MAX_TOKEN_BYTES`].
    TokenLength {
        /// The token.
        id: u32,
        /// Its length.
        length_bytes: usize,
    },
    /// The result of a merge isn't its left part followed by its right part.
    Merge {
        /// The merge.
        rank: usize,
        /// Left, right, result.
        ids: [u32; 3],
    },
    /// Two merges have the same left and right.
    RepeatedMerge {
        /// The later merge.
        rank: u32,
        /// The earlier merge.
        earlier: u32,
    },
    /// More than a u32 counts.
    Count {
        /// The count, or number of bytes.
        count: usize,
    },
    /// The parts contradict each other otherwise: what the reader says of the section they make.
    Format(TokenizerFormatError),
}

impl fmt::Display for TokenizerWriteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerWriteError::TokenLength { id, length_bytes } => {
                write!(formatter, "token {id} has {length_bytes} bytes, expected at most {MAX_TOKEN_BYTES}")
            }
            TokenizerWriteError::Merge { rank, ids: [left, right, result] } => write!(
                formatter,
                "merge {rank}: the bytes of token {result} are not those of token {left} and then {right}"
            ),
            TokenizerWriteError::RepeatedMerge { rank, earlier } => {
                write!(formatter, "merge {rank} repeats merge {earlier}")
            }
            TokenizerWriteError::Count { count } => {
                write!(formatter, "{count} does not fit a section, expected at most {}", u32::MAX)
            }
            TokenizerWriteError::Format(error) => error.fmt(formatter),
        }
    }
}

impl core::error::Error for TokenizerWriteError {}

fn push_number(section: &mut Vec<u8>, number: u32, wide: bool) {
    let bytes = number.to_le_bytes();
    section.extend_from_slice(if wide { &bytes } else { &bytes[..2] });
}

fn count(count: usize) -> Result<u32, TokenizerWriteError> {
    u32::try_from(count).map_err(|_| TokenizerWriteError::Count { count })
}

/// First of consecutive numbers; `None` where they aren't.
fn consecutive(numbers: impl IntoIterator<Item = u32>) -> Option<u32> {
    let mut numbers = numbers.into_iter();
    let first = numbers.next().unwrap_or(0);
    numbers.zip(1..).all(|(number, distance)| first.checked_add(distance) == Some(number)).then_some(first)
}

/// Lays a tokenizer out as `docs/tokenizer-section.md` says, in the smallest form that fits it.
///
/// # Errors
/// Parts that contradict each other: the result is read back with [`TokenizerView::parse`] before it is returned.
pub fn write_tokenizer(parts: &TokenizerParts) -> Result<Vec<u8>, TokenizerWriteError> {
    write_extended_tokenizer(parts, &TokenizerExtension::default())
}

/// As [`write_tokenizer`], for every other kind of tokenizer.
///
/// # Errors
/// As there.
pub fn write_extended_tokenizer(
    parts: &TokenizerParts,
    extension: &TokenizerExtension,
) -> Result<Vec<u8>, TokenizerWriteError> {
    let token = |id: u32| parts.tokens.get(id as usize).map(Vec::as_slice).unwrap_or_default();
    let wide_ids = parts.tokens.len() > MAX_NARROW;

    let mut splits = Vec::with_capacity(parts.merges.len());
    for (rank, &ids) in parts.merges.iter().enumerate() {
        let [left, right, result] = ids.map(token);
        if left.is_empty() || right.is_empty() || [left, right].concat() != result {
            return Err(TokenizerWriteError::Merge { rank, ids });
        }
        // A result that is too long is refused with the tokens below.
        splits.push(left.len().min(MAX_TOKEN_BYTES) as u8);
    }
    let key = |rank: u32| (token(parts.merges[rank as usize][2]), splits[rank as usize]);
    let mut order: Vec<u32> = (0..count(parts.merges.len())?).collect();
    order.sort_by_key(|&rank| (key(rank), rank));
    if let Some(pair) = order.windows(2).find(|pair| key(pair[0]) == key(pair[1])) {
        return Err(TokenizerWriteError::RepeatedMerge { rank: pair[1], earlier: pair[0] });
    }

    let mut byte_order = [0; 256];
    for byte in 0..=u8::MAX {
        byte_order[usize::from(byte_alphabet_position(byte))] = parts.byte_tokens[usize::from(byte)];
    }
    let extended = *extension != TokenizerExtension::default();
    let has_byte_tokens = parts.byte_tokens != [NO_TOKEN; 256];
    let first_byte_token = match extension.model {
        Model::ByteLevelBpe => consecutive(byte_order),
        // Implied ones are for byte-level BPE only: absent, there are none.
        _ if has_byte_tokens => None,
        _ => Some(0),
    };
    let first_result = consecutive(parts.merges.iter().map(|ids| ids[2]));
    let flags = [
        (FLAG_EXPLICIT_RESULTS, first_result.is_none()),
        (FLAG_EXPLICIT_BYTE_TOKENS, first_byte_token.is_none()),
        (FLAG_ADD_PREFIX_SPACE, parts.add_prefix_space),
        (FLAG_IGNORE_MERGES, parts.ignore_merges),
    ];
    let flags = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum();

    let version = if extended { TOKENIZER_VERSION_EXTENDED } else { TOKENIZER_VERSION };
    let mut section = Vec::from([version, flags, parts.pre_tokenizer.code(), extension.model.code()]);
    for field in [
        0, // the section's length, known at the end
        count(parts.tokens.len())?,
        count(parts.tokens.iter().map(Vec::len).sum())?,
        count(parts.merges.len())?,
        first_result.unwrap_or(0),
        first_byte_token.unwrap_or(0),
        count(parts.added_tokens.len())?,
    ] {
        push_number(&mut section, field, true);
    }
    debug_assert_eq!(section.len(), HEAD_BYTES);
    let mut ordered = extension.ordered.clone();
    ordered.sort_by_key(|&id| token(id));
    let scores = scores(parts, extension, &ordered, has_byte_tokens);
    let wide_scores = scores.iter().any(|&score| f64::from(score as f32).to_bits() != score.to_bits());
    if extended {
        push_extended_head(&mut section, extension, wide_scores)?;
        debug_assert_eq!(section.len(), EXTENDED_HEAD_BYTES);
    }
    let mut start = 0;
    for block in parts.tokens.chunks(BLOCK_TOKENS) {
        push_number(&mut section, start, true);
        start += block.iter().map(Vec::len).sum::<usize>() as u32;
    }
    for (id, bytes) in (0u32..).zip(&parts.tokens) {
        let length = u8::try_from(bytes.len())
            .map_err(|_| TokenizerWriteError::TokenLength { id, length_bytes: bytes.len() })?;
        section.push(length);
    }
    parts.tokens.iter().for_each(|bytes| section.extend_from_slice(bytes));
    if first_byte_token.is_none() {
        parts.byte_tokens.iter().for_each(|&id| push_number(&mut section, id, wide_ids));
    }
    if first_result.is_none() {
        parts.merges.iter().for_each(|ids| push_number(&mut section, ids[2], wide_ids));
    }
    section.extend_from_slice(&splits);
    order.iter().for_each(|&rank| push_number(&mut section, rank, order.len() > MAX_NARROW));
    for added in &parts.added_tokens {
        push_number(&mut section, added.id, wide_ids);
        section.push(
            u8::from(added.special) * ADDED_SPECIAL
                + u8::from(added.normalized) * ADDED_NORMALIZED
                + u8::from(added.left_strip) * ADDED_LEFT_STRIP
                + u8::from(added.right_strip) * ADDED_RIGHT_STRIP,
        );
    }
    ordered.iter().for_each(|&id| push_number(&mut section, id, wide_ids));
    for &score in &scores {
        if wide_scores {
            section.extend_from_slice(&score.to_le_bytes());
        } else {
            section.extend_from_slice(&(score as f32).to_le_bytes());
        }
    }
    let templates = extension.tokens_before.iter().chain(&extension.tokens_after);
    templates.for_each(|&id| push_number(&mut section, id, wide_ids));
    let section_bytes = count(section.len())?;
    section[4..8].copy_from_slice(&section_bytes.to_le_bytes());
    TokenizerView::parse(&section).map_err(TokenizerWriteError::Format)?;
    Ok(section)
}

/// The scores that are kept: those of the ordered tokens, then of the bytes'.
fn scores(
    parts: &TokenizerParts,
    extension: &TokenizerExtension,
    ordered: &[u32],
    has_byte_tokens: bool,
) -> Vec<f64> {
    if extension.model != Model::Unigram {
        return Vec::new();
    }
    let bytes = if has_byte_tokens { parts.byte_tokens.as_slice() } else { &[] };
    // One that is absent is refused when the section is read back.
    let score = |&id: &u32| extension.scores.get(id as usize).copied().unwrap_or(f64::NAN);
    ordered.iter().chain(bytes).map(score).collect()
}

fn push_extended_head(
    section: &mut Vec<u8>,
    extension: &TokenizerExtension,
    wide_scores: bool,
) -> Result<(), TokenizerWriteError> {
    let flags = [(FLAG_FUSE_UNKNOWN, extension.fuse_unknown), (FLAG_WIDE_SCORES, wide_scores)];
    let flags = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum();
    section.extend_from_slice(&extension.normalizer.code());
    section.extend_from_slice(&[extension.decoding.code(), flags]);
    push_number(section, extension.unknown.unwrap_or(NO_TOKEN), true);
    push_number(section, count(extension.ordered.len())?, true);
    push_number(section, extension.max_word_characters, true);
    section.extend_from_slice(&extension.unknown_score.to_le_bytes());
    for template in [&extension.tokens_before, &extension.tokens_after] {
        let length = u16::try_from(template.len())
            .map_err(|_| TokenizerWriteError::Count { count: template.len() })?;
        section.extend_from_slice(&length.to_le_bytes());
    }
    push_number(section, 0, true);
    Ok(())
}
