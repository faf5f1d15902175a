//! Reading a tokenizer section in place.

use core::cmp::Ordering;

use super::numbers::{ARRAYS, Numbers, Scores, cut, number_bytes, score_bytes};
use super::problem::error;
use super::{
    ADDED_LEFT_STRIP, ADDED_NORMALIZED, ADDED_RIGHT_STRIP, ADDED_SPECIAL, BLOCK_TOKENS, Decoding,
    EXTENDED_HEAD_BYTES, FLAG_ADD_PREFIX_SPACE, FLAG_EXPLICIT_BYTE_TOKENS, FLAG_EXPLICIT_RESULTS,
    FLAG_FUSE_UNKNOWN, FLAG_IGNORE_MERGES, FLAG_WIDE_SCORES, HEAD_BYTES, KNOWN_EXTENDED_FLAGS, KNOWN_FLAGS,
    MAX_NARROW, Model, NO_TOKEN, Normalizer, PreTokenizer, TOKENIZER_VERSION, TOKENIZER_VERSION_EXTENDED,
    TokenizerFormatError, TokenizerProblem, byte_alphabet_position,
};

/// A token that is cut out of the text before it is pre-tokenized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedToken<'a> {
    /// Its id in the vocabulary.
    pub id: u32,
    /// What the text has to contain: valid UTF-8, not empty.
    pub content: &'a [u8],
    /// It stands for structure (end of text, a role), not for text.
    pub special: bool,
    /// It is looked for after those that aren't normalized.
    pub normalized: bool,
    /// It takes the white space in front of it.
    pub left_strip: bool,
    /// It takes the white space behind it.
    pub right_strip: bool,
}

/// Where the results of the merges, or the tokens of the bytes, come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ids<'a> {
    /// There are none.
    None,
    Consecutive {
        first: u32,
    },
    Explicit(Numbers<'a>),
}

/// A checked tokenizer section.
///
/// Holds slices of the section, about 350 bytes itself; copying it copies no data.
#[derive(Clone, Copy, Debug)]
pub struct TokenizerView<'a> {
    pub(super) tokens: u32,
    pub(super) merges: u32,
    pub(super) added: u32,
    pub(super) flags: u8,
    pub(super) model: Model,
    pub(super) pre_tokenizer: PreTokenizer,
    pub(super) extension: Extension,
    /// No token goes on with a space after another character.
    pub(super) words_are_separate: bool,
    pub(super) block_starts: Numbers<'a>,
    pub(super) token_lengths: &'a [u8],
    pub(super) token_bytes: &'a [u8],
    pub(super) byte_tokens: Ids<'a>,
    pub(super) merge_results: Ids<'a>,
    pub(super) merge_splits: &'a [u8],
    pub(super) merge_order: Numbers<'a>,
    pub(super) added_tokens: &'a [u8],
    pub(super) token_order: Numbers<'a>,
    /// Of the ordered tokens, then of the bytes' tokens.
    pub(super) scores: Scores<'a>,
    /// Before a text, then after it.
    pub(super) templates: Numbers<'a>,
    /// Where the arrays start in the section, for errors.
    pub(super) starts: [usize; ARRAYS],
}

/// What only the larger head says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extension {
    pub(super) normalizer: Normalizer,
    pub(super) decoding: Decoding,
    pub(super) unknown: u32,
    pub(super) ordered: u32,
    pub(super) max_word_characters: u32,
    pub(super) unknown_score: f64,
    pub(super) before: u16,
    pub(super) after: u16,
    pub(super) flags: u8,
}

impl Extension {
    /// What holds where the head is the small one.
    const NONE: Extension = Extension {
        normalizer: Normalizer::None,
        decoding: Decoding { strip_leading_space: false, strip_first_token: false, clean_up: false },
        unknown: NO_TOKEN,
        ordered: 0,
        max_word_characters: 0,
        unknown_score: 0.0,
        before: 0,
        after: 0,
        flags: 0,
    };

    #[inline(never)]
    fn parse(section: &[u8]) -> Result<Self, TokenizerFormatError> {
        let Some(head) = section.first_chunk::<EXTENDED_HEAD_BYTES>() else {
            return Err(error(TokenizerProblem::HeadCut, 0, EXTENDED_HEAD_BYTES, section.len()));
        };
        let field = |start: usize| {
            u32::from_le_bytes([head[start], head[start + 1], head[start + 2], head[start + 3]])
        };
        let Some(normalizer) = Normalizer::from_code([head[32], head[33]]) else {
            let found = u16::from_le_bytes([head[32], head[33]]);
            return Err(error(TokenizerProblem::UnknownNormalizer, 32, 0u8, found));
        };
        let Some(decoding) = Decoding::from_code(head[34]) else {
            return Err(error(TokenizerProblem::Reserved, 34, 0u8, head[34]));
        };
        let flags = head[35];
        if flags & !KNOWN_EXTENDED_FLAGS != 0 {
            return Err(error(TokenizerProblem::Reserved, 35, 0u8, flags & !KNOWN_EXTENDED_FLAGS));
        }
        if field(60) != 0 {
            return Err(error(TokenizerProblem::Reserved, 60, 0u8, field(60)));
        }
        let unknown_score = f64::from_bits(u64::from(field(52)) << 32 | u64::from(field(48)));
        Ok(Extension {
            normalizer,
            decoding,
            unknown: field(36),
            ordered: field(40),
            max_word_characters: field(44),
            unknown_score,
            before: u16::from_le_bytes([head[56], head[57]]),
            after: u16::from_le_bytes([head[58], head[59]]),
            flags,
        })
    }
}

impl<'a> TokenizerView<'a> {
    /// Where the number of ids lies in the section.
    pub const VOCABULARY_OFFSET_BYTES: usize = 8;

    /// Checks a section once and for all: afterwards no accessor fails or panics.
    ///
    /// Takes time in proportion to the section's length and no memory.
    ///
    /// # Errors
    /// The first thing that is wrong, with its byte offset and the expected and found numbers.
    pub fn parse(section: &'a [u8]) -> Result<Self, TokenizerFormatError> {
        let Some(head) = section.first_chunk::<HEAD_BYTES>() else {
            return Err(error(TokenizerProblem::HeadCut, 0, HEAD_BYTES, section.len()));
        };
        let field = |index: usize| {
            u32::from_le_bytes([
                head[4 * index],
                head[4 * index + 1],
                head[4 * index + 2],
                head[4 * index + 3],
            ])
        };
        let [version, flags, pre_tokenizer, model, ..] = *head;
        if version != TOKENIZER_VERSION && version != TOKENIZER_VERSION_EXTENDED {
            return Err(error(TokenizerProblem::Version, 0, TOKENIZER_VERSION_EXTENDED, version));
        }
        if flags & !KNOWN_FLAGS != 0 {
            return Err(error(TokenizerProblem::Reserved, 1, 0u8, flags & !KNOWN_FLAGS));
        }
        let (extension, head_bytes) = if version == TOKENIZER_VERSION {
            if model != 0 {
                return Err(error(TokenizerProblem::Reserved, 3, 0u8, model));
            }
            (Extension::NONE, HEAD_BYTES)
        } else {
            (Extension::parse(section)?, EXTENDED_HEAD_BYTES)
        };
        let Some(model) = Model::from_code(model) else {
            return Err(error(TokenizerProblem::UnknownModel, 3, Model::Unigram.code(), model));
        };
        let pre_tokenizer = supported_pre_tokenizer(model, pre_tokenizer, flags)?;
        if !extension.normalizer.goes_with(model) {
            let [found, _] = extension.normalizer.code();
            return Err(error(TokenizerProblem::UnsupportedNormalizer, 32, 0u8, found));
        }
        let section_bytes = field(1);
        if u64::from(section_bytes) != section.len() as u64 {
            return Err(error(TokenizerProblem::Length, 4, section.len(), section_bytes));
        }
        let (tokens, token_bytes, merges) = (field(2), field(3), field(4));
        let (first_result, first_byte_token, added) = (field(5), field(6), field(7));
        if tokens == 0 {
            return Err(error(TokenizerProblem::NoTokens, 8, 1u8, 0u8));
        }
        let explicit_results = flags & FLAG_EXPLICIT_RESULTS != 0;
        if explicit_results && first_result != 0 {
            return Err(error(TokenizerProblem::Reserved, 20, 0u8, first_result));
        }
        let explicit_byte_tokens = flags & FLAG_EXPLICIT_BYTE_TOKENS != 0;
        let byte_level = model == Model::ByteLevelBpe;
        if (explicit_byte_tokens || !byte_level) && first_byte_token != 0 {
            return Err(error(TokenizerProblem::Reserved, 24, 0u8, first_byte_token));
        }

        let (token_count, merge_count) = (tokens as usize, merges as usize);
        let wide_ids = token_count > MAX_NARROW;
        let wide_ranks = merge_count > MAX_NARROW;
        let wide_scores = extension.flags & FLAG_WIDE_SCORES != 0;
        let bytes_with_token = if explicit_byte_tokens { 256 } else { 0 };
        let ordered = extension.ordered as usize;
        let scored = if model == Model::Unigram { ordered.saturating_add(bytes_with_token) } else { 0 };
        let id_bytes = number_bytes(wide_ids);
        let (arrays, starts) = cut(
            section,
            head_bytes,
            [
                (token_count.div_ceil(BLOCK_TOKENS), number_bytes(true)),
                (token_count, 1),
                (token_bytes as usize, 1),
                (bytes_with_token, id_bytes),
                (if explicit_results { merge_count } else { 0 }, id_bytes),
                (merge_count, 1),
                (merge_count, number_bytes(wide_ranks)),
                (added as usize, added_entry_bytes(wide_ids)),
                (ordered, id_bytes),
                (scored, score_bytes(wide_scores)),
                (usize::from(extension.before) + usize::from(extension.after), id_bytes),
            ],
        )?;
        let [
            block_starts,
            token_lengths,
            token_bytes,
            byte_tokens,
            results,
            merge_splits,
            order,
            added_tokens,
            token_order,
            scores,
            templates,
        ] = arrays;
        let ids = |data| Numbers { data, wide: wide_ids };
        let mut view = TokenizerView {
            tokens,
            merges,
            added,
            flags,
            model,
            pre_tokenizer,
            extension,
            words_are_separate: false,
            block_starts: Numbers { data: block_starts, wide: true },
            token_lengths,
            token_bytes,
            byte_tokens: match (explicit_byte_tokens, byte_level) {
                (true, _) => Ids::Explicit(ids(byte_tokens)),
                (false, true) => Ids::Consecutive { first: first_byte_token },
                (false, false) => Ids::None,
            },
            merge_results: match explicit_results {
                true => Ids::Explicit(ids(results)),
                false => Ids::Consecutive { first: first_result },
            },
            merge_splits,
            merge_order: Numbers { data: order, wide: wide_ranks },
            added_tokens,
            token_order: ids(token_order),
            scores: Scores { data: scores, wide: wide_scores },
            templates: ids(templates),
            starts,
        };
        view.check()?;
        view.words_are_separate = view.find_whether_words_are_separate();
        Ok(view)
    }

    /// Number of ids, the unused ones included: ids are below it.
    pub fn vocabulary(&self) -> u32 {
        self.tokens
    }

    /// Number of merges: ranks are below it.
    pub fn merges(&self) -> u32 {
        self.merges
    }

    /// How a pre-token becomes tokens.
    pub fn model(&self) -> Model {
        // Where no other is built, none is read, and the compiler leaves out what others do.
        if cfg!(feature = "ordered-tokens") { self.model } else { Model::ByteLevelBpe }
    }

    /// What happens to the text first.
    pub fn normalizer(&self) -> Normalizer {
        self.extension.normalizer
    }

    /// How tokens become text.
    pub fn decoding(&self) -> Decoding {
        self.extension.decoding
    }

    /// The token of what no other token stands for.
    pub fn unknown_token(&self) -> Option<u32> {
        Some(self.extension.unknown).filter(|&id| id != NO_TOKEN)
    }

    /// Whether neighbouring unknown characters are one unknown token (always so in Unigram).
    pub fn fuses_unknown(&self) -> bool {
        self.extension.flags & FLAG_FUSE_UNKNOWN != 0
    }

    /// Whether bytes have tokens, so that every text can be encoded.
    pub fn has_byte_tokens(&self) -> bool {
        !matches!(self.byte_tokens, Ids::None)
    }

    /// WordPiece: a word of more characters is unknown.
    pub fn max_word_characters(&self) -> u32 {
        self.extension.max_word_characters
    }

    /// Unigram: score of a character that no token stands for.
    pub fn unknown_score(&self) -> f64 {
        self.extension.unknown_score
    }

    /// Number of ordered tokens.
    pub fn ordered_tokens(&self) -> u32 {
        if cfg!(feature = "ordered-tokens") { self.extension.ordered } else { 0 }
    }

    /// The id at a place in the order of the bytes.
    #[inline]
    pub fn ordered_token(&self, position: u32) -> Option<u32> {
        self.token_order.get(position as usize)
    }

    /// Unigram: the score of the ordered token at a place.
    #[inline]
    pub fn ordered_score(&self, position: u32) -> Option<f64> {
        (position < self.extension.ordered).then(|| self.scores.get(position as usize))?
    }

    /// Unigram: the score of a byte's token.
    pub fn byte_score(&self, byte: u8) -> Option<f64> {
        self.scores.get((self.extension.ordered as usize).checked_add(usize::from(byte))?)
    }

    /// Whether no token goes on with a space after another character: then a text may be cut before such a space without
    /// changing its tokens.
    pub fn words_are_separate(&self) -> bool {
        // Of bytes' merges it isn't known, and no others are read.
        cfg!(feature = "ordered-tokens") && self.words_are_separate
    }

    /// The tokens that the tokenizer's template puts before a text; encoding doesn't add them.
    pub fn tokens_before(&self) -> impl Iterator<Item = u32> {
        (0..usize::from(self.extension.before)).filter_map(|index| self.templates.get(index))
    }

    /// The tokens that the tokenizer's template puts after a text; encoding doesn't add them.
    pub fn tokens_after(&self) -> impl Iterator<Item = u32> {
        let before = usize::from(self.extension.before);
        (before..before + usize::from(self.extension.after)).filter_map(|index| self.templates.get(index))
    }

    /// How the text is cut into pre-tokens.
    pub fn pre_tokenizer(&self) -> PreTokenizer {
        self.pre_tokenizer
    }

    /// Whether a text that doesn't start with a space gets one.
    pub fn add_prefix_space(&self) -> bool {
        self.flags & FLAG_ADD_PREFIX_SPACE != 0
    }

    /// Whether a pre-token that is a token as a whole is not merged from its bytes.
    pub fn ignore_merges(&self) -> bool {
        self.flags & FLAG_IGNORE_MERGES != 0
    }

    /// Whether ids take 4 bytes in the section (more than 65,536 tokens), not 2.
    pub fn has_wide_ids(&self) -> bool {
        self.tokens as usize > MAX_NARROW
    }

    /// The bytes of a token: at least one; `None` for an id that is unused or outside the vocabulary.
    #[inline]
    pub fn token_bytes(&self, id: u32) -> Option<&'a [u8]> {
        let id = id as usize;
        let length = usize::from(*self.token_lengths.get(id)?);
        let block = id / BLOCK_TOKENS;
        let before = self.token_lengths.get(block * BLOCK_TOKENS..id)?;
        let start = self.block_starts.get(block)? as usize + sum(before);
        self.token_bytes.get(start..start + length).filter(|bytes| !bytes.is_empty())
    }

    /// The token of a single byte; `None` where the vocabulary has none: byte-level BPE leaves such bytes out of a text.
    pub fn byte_token(&self, byte: u8) -> Option<u32> {
        match self.byte_tokens {
            Ids::None => None,
            Ids::Consecutive { first } => first.checked_add(u32::from(byte_alphabet_position(byte))),
            Ids::Explicit(numbers) => {
                let id = numbers.get(usize::from(byte))?;
                let no_token = if numbers.wide { NO_TOKEN } else { u32::from(u16::MAX) };
                // The largest narrow number may be an id as well: then its token is this byte.
                (id != no_token || self.token_bytes(id) == Some(&[byte])).then_some(id)
            }
        }
    }

    /// The rank of the merge of two tokens, if there is one; the lowest rank is merged first.
    ///
    /// Takes a binary search over all merges, each step of which compares two short byte strings.
    #[inline]
    pub fn merge(&self, left: u32, right: u32) -> Option<u32> {
        let (left, right) = (self.token_bytes(left)?, self.token_bytes(right)?);
        self.search(|bytes, split| {
            let (head, tail) = bytes.split_at(bytes.len().min(left.len()));
            // Where the result is shorter than `left`, `head` is all of it and decides, being a prefix at best.
            head.cmp(left).then_with(|| tail.cmp(right)).then_with(|| usize::from(split).cmp(&left.len()))
        })
        .ok()
    }

    /// The token that the merge of this rank makes; `None` from [`merges`](Self::merges) on.
    #[inline]
    pub fn merge_result(&self, rank: u32) -> Option<u32> {
        match self.merge_results {
            Ids::None => None,
            Ids::Consecutive { first } if rank < self.merges => first.checked_add(rank),
            Ids::Consecutive { .. } => None,
            Ids::Explicit(numbers) => numbers.get(rank as usize),
        }
    }

    /// How many bytes of the merge's result are those of its left part; `None` from [`merges`](Self::merges) on.
    pub fn merge_split(&self, rank: u32) -> Option<usize> {
        self.merge_splits.get(rank as usize).copied().map(usize::from)
    }

    /// The token with exactly these bytes, among those that byte-level encoding can make: single bytes and results of merges.
    pub fn token_of_bytes(&self, bytes: &[u8]) -> Option<u32> {
        self.token_of(bytes.iter().copied())
    }

    /// As [`token_of_bytes`](Self::token_of_bytes), for bytes that don't lie together.
    pub fn token_of(&self, bytes: impl Iterator<Item = u8> + Clone) -> Option<u32> {
        let mut start = bytes.clone();
        if let (Some(byte), None) = (start.next(), start.next()) {
            return self.byte_token(byte);
        }
        let compare = |found: &[u8]| found.iter().copied().cmp(bytes.clone());
        // Split 0 is below that of every merge: the search ends at the first merge with these bytes, if there is one.
        let position = self.search(|found, _| compare(found).then(Ordering::Greater)).err()?;
        let rank = self.merge_order.get(position)?;
        compare(self.merge_key(rank).0).is_eq().then(|| self.merge_result(rank))?
    }

    /// Number of added tokens.
    pub fn added_tokens(&self) -> usize {
        self.added as usize
    }

    /// An added token by its index; they are in the order of their ids.
    pub fn added_token(&self, index: usize) -> Option<AddedToken<'a>> {
        let (id, flags) = self.added_entry(index)?;
        Some(AddedToken {
            id,
            content: self.token_bytes(id)?,
            special: flags & ADDED_SPECIAL != 0,
            normalized: flags & ADDED_NORMALIZED != 0,
            left_strip: flags & ADDED_LEFT_STRIP != 0,
            right_strip: flags & ADDED_RIGHT_STRIP != 0,
        })
    }

    /// Whether a token is an added token marked special.
    pub fn is_special(&self, id: u32) -> bool {
        self.added_flags(id).is_some_and(|flags| flags & ADDED_SPECIAL != 0)
    }

    /// Whether a token is an added token.
    pub fn is_added(&self, id: u32) -> bool {
        self.added_flags(id).is_some()
    }

    fn added_flags(&self, id: u32) -> Option<u8> {
        let (mut low, mut high) = (0, self.added as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            let (found, flags) = self.added_entry(middle)?;
            match found.cmp(&id) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(flags),
            }
        }
        None
    }

    /// Bytes of the result and split of a rank below `merges`.
    pub(super) fn merge_key(&self, rank: u32) -> (&'a [u8], u8) {
        let bytes = self.merge_result(rank).and_then(|id| self.token_bytes(id)).unwrap_or_default();
        (bytes, self.merge_splits.get(rank as usize).copied().unwrap_or(0))
    }

    /// Binary search of the merge order: the rank found, or the position where it would be.
    fn search(&self, compare: impl Fn(&[u8], u8) -> Ordering) -> Result<u32, usize> {
        let (mut low, mut high) = (0, self.merges as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            let rank = self.merge_order.get(middle).unwrap_or(u32::MAX);
            let (bytes, split) = self.merge_key(rank);
            match compare(bytes, split) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(rank),
            }
        }
        Err(low)
    }

    pub(super) fn added_entry(&self, index: usize) -> Option<(u32, u8)> {
        let bytes = added_entry_bytes(self.has_wide_ids());
        let start = index.checked_mul(bytes)?;
        match *self.added_tokens.get(start..start.checked_add(bytes)?)? {
            [a, b, flags] => Some((u32::from(u16::from_le_bytes([a, b])), flags)),
            [a, b, c, d, flags] => Some((u32::from_le_bytes([a, b, c, d]), flags)),
            _ => None,
        }
    }
}

/// The sum of some lengths, eight at a time: this is where encoding spends its time.
fn sum(lengths: &[u8]) -> usize {
    const EVEN_BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    let (eights, rest) = lengths.as_chunks::<8>();
    // Four sums of two lengths each in lanes of 16 bits; a block of 32 lengths can't overflow one.
    let mut lanes = 0_u64;
    for eight in eights {
        let eight = u64::from_le_bytes(*eight);
        lanes += (eight & EVEN_BYTES) + (eight >> 8 & EVEN_BYTES);
    }
    // The product's highest lane is the sum of all four: at most 31 * 255.
    let whole = lanes.wrapping_mul(0x0001_0001_0001_0001) >> 48;
    whole as usize + rest.iter().map(|&length| usize::from(length)).sum::<usize>()
}

pub(super) fn added_entry_bytes(wide_ids: bool) -> usize {
    if wide_ids { 5 } else { 3 }
}

fn supported_pre_tokenizer(model: Model, code: u8, flags: u8) -> Result<PreTokenizer, TokenizerFormatError> {
    let Some(pre_tokenizer) = PreTokenizer::from_code(code) else {
        return Err(error(TokenizerProblem::UnknownPreTokenizer, 2, PreTokenizer::Bert.code(), code));
    };
    if !pre_tokenizer.goes_with(model) {
        return Err(error(TokenizerProblem::UnsupportedPreTokenizer, 2, 0u8, code));
    }
    let alone = matches!(pre_tokenizer, PreTokenizer::ByteLevel | PreTokenizer::Gpt2);
    if flags & FLAG_ADD_PREFIX_SPACE != 0 && (!alone || flags & FLAG_IGNORE_MERGES != 0) {
        return Err(error(TokenizerProblem::UnsupportedPrefixSpace, 1, 0u8, FLAG_ADD_PREFIX_SPACE));
    }
    Ok(pre_tokenizer)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn the_sum_of_lengths_is_their_sum() {
        let mut lengths = [0_u8; 31];
        for seed in 0..200_usize {
            for (index, length) in lengths.iter_mut().enumerate() {
                *length = if seed == 0 { 255 } else { (seed * 89 + index * index * 31) as u8 };
            }
            for count in 0..=lengths.len() {
                let expected: usize = lengths[..count].iter().map(|&length| usize::from(length)).sum();
                assert_eq!(sum(&lengths[..count]), expected);
            }
        }
    }
}
