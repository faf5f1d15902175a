//! Reading a tokenizer section in place.

use core::cmp::Ordering;

use super::{
    ADDED_LEFT_STRIP, ADDED_NORMALIZED, ADDED_RIGHT_STRIP, ADDED_SINGLE_WORD, ADDED_SPECIAL, BLOCK_TOKENS,
    FLAG_ADD_PREFIX_SPACE, FLAG_EXPLICIT_BYTE_TOKENS, FLAG_EXPLICIT_RESULTS, FLAG_IGNORE_MERGES, HEAD_BYTES,
    KNOWN_FLAGS, MAX_NARROW, NO_TOKEN, PreTokenizer, TOKENIZER_VERSION, TokenizerFormatError,
    TokenizerProblem, byte_alphabet_position,
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
}

/// An array of u16 or u32 whose elements may lie at any address.
#[derive(Clone, Copy, Debug)]
struct Numbers<'a> {
    data: &'a [u8],
    wide: bool,
}

impl Numbers<'_> {
    fn get(&self, index: usize) -> Option<u32> {
        if self.wide {
            let start = index.checked_mul(4)?;
            let bytes = self.data.get(start..start.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        } else {
            let start = index.checked_mul(2)?;
            let bytes = self.data.get(start..start.checked_add(2)?)?;
            Some(u32::from(u16::from_le_bytes(bytes.try_into().ok()?)))
        }
    }
}

/// Where the results of the merges, or the tokens of the bytes, come from.
#[derive(Clone, Copy, Debug)]
enum Ids<'a> {
    Consecutive { first: u32 },
    Explicit(Numbers<'a>),
}

/// A checked tokenizer section.
///
/// Holds slices of the section, about 150 bytes itself; copying it copies no data.
#[derive(Clone, Copy, Debug)]
pub struct TokenizerView<'a> {
    tokens: u32,
    merges: u32,
    added: u32,
    flags: u8,
    pre_tokenizer: PreTokenizer,
    block_starts: Numbers<'a>,
    token_lengths: &'a [u8],
    token_bytes: &'a [u8],
    byte_tokens: Ids<'a>,
    merge_results: Ids<'a>,
    merge_splits: &'a [u8],
    merge_order: Numbers<'a>,
    added_tokens: &'a [u8],
    /// Where the arrays start, for errors: results, splits, order, added.
    offsets: [usize; 4],
}

fn error(
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

/// Cuts arrays off the front of the section.
struct Arrays<'a> {
    section: &'a [u8],
    offset: usize,
}

impl<'a> Arrays<'a> {
    fn take(&mut self, count: usize, element_bytes: usize) -> Result<&'a [u8], TokenizerFormatError> {
        let rest = self.section.get(self.offset..).unwrap_or_default();
        let bytes = count.saturating_mul(element_bytes);
        match rest.split_at_checked(bytes) {
            Some((array, _)) => {
                self.offset += bytes;
                Ok(array)
            }
            None => Err(error(TokenizerProblem::Arrays, self.offset, bytes, rest.len())),
        }
    }

    fn take_numbers(&mut self, count: usize, wide: bool) -> Result<Numbers<'a>, TokenizerFormatError> {
        Ok(Numbers { data: self.take(count, if wide { 4 } else { 2 })?, wide })
    }
}

impl<'a> TokenizerView<'a> {
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
        let [version, flags, pre_tokenizer, reserved, ..] = *head;
        if version != TOKENIZER_VERSION {
            return Err(error(TokenizerProblem::Version, 0, TOKENIZER_VERSION, version));
        }
        if flags & !KNOWN_FLAGS != 0 {
            return Err(error(TokenizerProblem::Reserved, 1, 0u8, flags & !KNOWN_FLAGS));
        }
        if reserved != 0 {
            return Err(error(TokenizerProblem::Reserved, 3, 0u8, reserved));
        }
        let pre_tokenizer = supported_pre_tokenizer(pre_tokenizer, flags)?;
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
        if explicit_byte_tokens && first_byte_token != 0 {
            return Err(error(TokenizerProblem::Reserved, 24, 0u8, first_byte_token));
        }

        let (token_count, merge_count) = (tokens as usize, merges as usize);
        let wide_ids = token_count > MAX_NARROW;
        let mut arrays = Arrays { section, offset: HEAD_BYTES };
        let block_starts = arrays.take_numbers(token_count.div_ceil(BLOCK_TOKENS), true)?;
        let token_lengths = arrays.take(token_count, 1)?;
        let token_bytes = arrays.take(token_bytes as usize, 1)?;
        let byte_tokens_offset = arrays.offset;
        let byte_tokens = if explicit_byte_tokens {
            Ids::Explicit(arrays.take_numbers(256, wide_ids)?)
        } else {
            Ids::Consecutive { first: first_byte_token }
        };
        let results_offset = arrays.offset;
        let merge_results = if explicit_results {
            Ids::Explicit(arrays.take_numbers(merge_count, wide_ids)?)
        } else {
            Ids::Consecutive { first: first_result }
        };
        let splits_offset = arrays.offset;
        let merge_splits = arrays.take(merge_count, 1)?;
        let order_offset = arrays.offset;
        let merge_order = arrays.take_numbers(merge_count, merge_count > MAX_NARROW)?;
        let added_offset = arrays.offset;
        let added_tokens = arrays.take(added as usize, added_entry_bytes(wide_ids))?;
        if arrays.offset != section.len() {
            return Err(error(TokenizerProblem::Arrays, arrays.offset, 0u8, section.len() - arrays.offset));
        }

        let view = TokenizerView {
            tokens,
            merges,
            added,
            flags,
            pre_tokenizer,
            block_starts,
            token_lengths,
            token_bytes,
            byte_tokens,
            merge_results,
            merge_splits,
            merge_order,
            added_tokens,
            offsets: [results_offset, splits_offset, order_offset, added_offset],
        };
        view.check_token_lengths()?;
        view.check_byte_tokens(byte_tokens_offset)?;
        view.check_merges()?;
        view.check_added_tokens()?;
        Ok(view)
    }

    fn check_token_lengths(&self) -> Result<(), TokenizerFormatError> {
        let mut start = 0u64;
        for (block, lengths) in self.token_lengths.chunks(BLOCK_TOKENS).enumerate() {
            let found = self.block_starts.get(block).unwrap_or(u32::MAX);
            if u64::from(found) != start {
                return Err(error(TokenizerProblem::BlockStart, HEAD_BYTES + 4 * block, start, found));
            }
            start += lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
        }
        if start != self.token_bytes.len() as u64 {
            let offset = HEAD_BYTES + self.block_starts.data.len();
            return Err(error(TokenizerProblem::TokenLengths, offset, self.token_bytes.len(), start));
        }
        Ok(())
    }

    fn check_byte_tokens(&self, array_offset: usize) -> Result<(), TokenizerFormatError> {
        for byte in 0..=u8::MAX {
            let token = self.byte_token(byte);
            if token.is_none() && matches!(self.byte_tokens, Ids::Explicit(_)) {
                continue;
            }
            let found = match token.and_then(|token| self.token_bytes(token)) {
                Some(&[found]) if found == byte => continue,
                Some(&[found]) => u64::from(found),
                _ => u64::MAX,
            };
            let offset = match self.byte_tokens {
                Ids::Consecutive { .. } => 24,
                Ids::Explicit(numbers) => array_offset + usize::from(byte) * if numbers.wide { 4 } else { 2 },
            };
            return Err(error(TokenizerProblem::ByteToken, offset, byte, found));
        }
        Ok(())
    }

    fn check_merges(&self) -> Result<(), TokenizerFormatError> {
        let [results_offset, splits_offset, order_offset, _] = self.offsets;
        for rank in 0..self.merges {
            let result = match self.merge_results {
                Ids::Consecutive { first } => u64::from(first) + u64::from(rank),
                Ids::Explicit(numbers) => u64::from(numbers.get(rank as usize).unwrap_or(u32::MAX)),
            };
            if result >= u64::from(self.tokens) {
                let offset = match self.merge_results {
                    Ids::Consecutive { .. } => 20,
                    Ids::Explicit(numbers) => {
                        results_offset + rank as usize * if numbers.wide { 4 } else { 2 }
                    }
                };
                return Err(error(TokenizerProblem::MergeResult, offset, self.tokens - 1, result));
            }
            let length = self.token_lengths.get(result as usize).copied().unwrap_or(0);
            let split = self.merge_splits.get(rank as usize).copied().unwrap_or(0);
            if split == 0 || split >= length {
                let offset = splits_offset + rank as usize;
                return Err(error(TokenizerProblem::MergeSplit, offset, length.saturating_sub(1), split));
            }
        }
        let mut before: Option<(&[u8], u8)> = None;
        for position in 0..self.merges as usize {
            let offset = order_offset + position * if self.merge_order.wide { 4 } else { 2 };
            let rank = self.merge_order.get(position).unwrap_or(u32::MAX);
            if rank >= self.merges {
                return Err(error(TokenizerProblem::MergeRank, offset, self.merges - 1, rank));
            }
            let key = self.merge_key(rank);
            if before.is_some_and(|before| before >= key) {
                return Err(error(TokenizerProblem::MergeOrder, offset, position + 1, position));
            }
            before = Some(key);
        }
        Ok(())
    }

    fn check_added_tokens(&self) -> Result<(), TokenizerFormatError> {
        let entry_bytes = added_entry_bytes(self.has_wide_ids());
        let mut least = 0u32;
        for index in 0..self.added {
            let offset = self.offsets[3] + index as usize * entry_bytes;
            let (id, flags) = self.added_entry(index as usize).unwrap_or((u32::MAX, u8::MAX));
            if id < least || id >= self.tokens {
                return Err(error(TokenizerProblem::AddedId, offset, least, id));
            }
            least = id + 1;
            for (flag, problem) in [
                (ADDED_SINGLE_WORD, TokenizerProblem::UnsupportedSingleWord),
                (ADDED_LEFT_STRIP, TokenizerProblem::UnsupportedLeftStrip),
                (ADDED_RIGHT_STRIP, TokenizerProblem::UnsupportedRightStrip),
                (!(ADDED_SPECIAL | ADDED_NORMALIZED), TokenizerProblem::AddedFlags),
            ] {
                if flags & flag != 0 {
                    return Err(error(problem, offset + entry_bytes - 1, 0u8, flags & flag));
                }
            }
            let content = self.token_bytes(id).unwrap_or_default();
            let valid = core::str::from_utf8(content).map_or_else(|error| error.valid_up_to(), str::len);
            if content.is_empty() || valid < content.len() {
                return Err(error(TokenizerProblem::AddedContent, offset, content.len().max(1), valid));
            }
        }
        Ok(())
    }

    /// Number of ids, the unused ones included: ids are below it.
    pub fn vocabulary(&self) -> u32 {
        self.tokens
    }

    /// Number of merges: ranks are below it.
    pub fn merges(&self) -> u32 {
        self.merges
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

    /// The token of a single byte; `None` where the vocabulary has none: such bytes are left out of a text.
    #[inline]
    pub fn byte_token(&self, byte: u8) -> Option<u32> {
        match self.byte_tokens {
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
            Ids::Consecutive { first } if rank < self.merges => first.checked_add(rank),
            Ids::Consecutive { .. } => None,
            Ids::Explicit(numbers) => numbers.get(rank as usize),
        }
    }

    /// The token with exactly these bytes, among those that encoding can make: single bytes and results of merges.
    pub fn token_of_bytes(&self, bytes: &[u8]) -> Option<u32> {
        if let &[byte] = bytes {
            return self.byte_token(byte);
        }
        // Split 0 is below that of every merge: the search ends at the first merge with these bytes, if there is one.
        let position = self.search(|found, _| found.cmp(bytes).then(Ordering::Greater)).err()?;
        let rank = self.merge_order.get(position)?;
        (self.merge_key(rank).0 == bytes).then(|| self.merge_result(rank))?
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
        })
    }

    /// Whether a token is an added token marked special.
    pub fn is_special(&self, id: u32) -> bool {
        let (mut low, mut high) = (0, self.added as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some((found, flags)) = self.added_entry(middle) else { return false };
            match found.cmp(&id) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return flags & ADDED_SPECIAL != 0,
            }
        }
        false
    }

    /// Bytes of the result and split of a rank below `merges`.
    fn merge_key(&self, rank: u32) -> (&'a [u8], u8) {
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

    fn added_entry(&self, index: usize) -> Option<(u32, u8)> {
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

fn added_entry_bytes(wide_ids: bool) -> usize {
    if wide_ids { 5 } else { 3 }
}

fn supported_pre_tokenizer(code: u8, flags: u8) -> Result<PreTokenizer, TokenizerFormatError> {
    let greatest = PreTokenizer::DigitsGpt2.code();
    let Some(pre_tokenizer) = PreTokenizer::from_code(code) else {
        return Err(error(TokenizerProblem::UnknownPreTokenizer, 2, greatest, code));
    };
    let prefix_space = flags & FLAG_ADD_PREFIX_SPACE != 0;
    match pre_tokenizer {
        PreTokenizer::DigitsGpt2 if prefix_space => {
            Err(error(TokenizerProblem::UnsupportedPrefixSpace, 1, 0u8, FLAG_ADD_PREFIX_SPACE))
        }
        _ if prefix_space && flags & FLAG_IGNORE_MERGES != 0 => {
            Err(error(TokenizerProblem::UnsupportedPrefixSpace, 1, 0u8, FLAG_ADD_PREFIX_SPACE))
        }
        PreTokenizer::ByteLevel | PreTokenizer::Gpt2 | PreTokenizer::DigitsGpt2 => Ok(pre_tokenizer),
        PreTokenizer::Llama3 => Err(error(TokenizerProblem::UnsupportedLlama3, 2, greatest, code)),
        PreTokenizer::Qwen2 => Err(error(TokenizerProblem::UnsupportedQwen2, 2, greatest, code)),
    }
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
