//! What a tokenizer section has to hold.

use super::numbers::Array;
use super::problem::error;
use super::view::{Ids, added_entry_bytes};
use super::{
    ADDED_LEFT_STRIP, ADDED_NORMALIZED, ADDED_RIGHT_STRIP, ADDED_SINGLE_WORD, ADDED_SPECIAL, BLOCK_TOKENS,
    FLAG_ADD_PREFIX_SPACE, FLAG_EXPLICIT_RESULTS, FLAG_FUSE_UNKNOWN, FLAG_IGNORE_MERGES, FLAG_WIDE_SCORES,
    Model, NO_TOKEN, TokenizerFormatError, TokenizerProblem, TokenizerView,
};

impl TokenizerView<'_> {
    /// Where an array starts in the section, for errors.
    fn start(&self, array: Array) -> usize {
        self.starts[array as usize]
    }

    pub(super) fn check(&self) -> Result<(), TokenizerFormatError> {
        self.check_model_fields()?;
        self.check_token_lengths()?;
        self.check_byte_tokens()?;
        self.check_merges()?;
        self.check_added_tokens()?;
        self.check_token_order()?;
        self.check_scores()?;
        self.check_unknown_token()?;
        self.check_templates()
    }

    /// Nothing is there that the model wouldn't look at.
    fn check_model_fields(&self) -> Result<(), TokenizerFormatError> {
        let (model, extension) = (self.model(), &self.extension);
        let byte_level = model == Model::ByteLevelBpe;
        let merges = byte_level || model == Model::CharacterBpe;
        let foreign_flags = self.flags
            & if byte_level {
                0
            } else if merges {
                FLAG_ADD_PREFIX_SPACE | FLAG_IGNORE_MERGES
            } else {
                FLAG_ADD_PREFIX_SPACE | FLAG_IGNORE_MERGES | FLAG_EXPLICIT_RESULTS
            };
        let fuses = if model == Model::CharacterBpe { FLAG_FUSE_UNKNOWN } else { 0 };
        let wide = if model == Model::Unigram { FLAG_WIDE_SCORES } else { 0 };
        let word_piece = model == Model::WordPiece;
        let unigram = model == Model::Unigram;
        let fields: [(usize, bool, u64); 7] = [
            (1, foreign_flags == 0, u64::from(foreign_flags)),
            (16, merges || self.merges == 0, u64::from(self.merges)),
            (24, !word_piece || !self.has_byte_tokens(), 1),
            (35, extension.flags & !(fuses | wide) == 0, u64::from(extension.flags)),
            (40, !byte_level || extension.ordered == 0, u64::from(extension.ordered)),
            (44, word_piece || extension.max_word_characters == 0, u64::from(extension.max_word_characters)),
            (48, unigram || extension.unknown_score.to_bits() == 0, extension.unknown_score.to_bits()),
        ];
        match fields.into_iter().find(|(_, right, _)| !right) {
            None => Ok(()),
            Some((offset, _, found)) => Err(error(TokenizerProblem::ModelFields, offset, 0u8, found)),
        }
    }

    /// Each has bytes that are UTF-8 (so that tokens end where characters do), and they are in order.
    fn check_token_order(&self) -> Result<(), TokenizerFormatError> {
        let mut before: &[u8] = &[];
        for position in 0..self.ordered_tokens() {
            let offset = self.start(Array::TokenOrder) + position as usize * self.token_order.element_bytes();
            let id = self.ordered_token(position).unwrap_or(NO_TOKEN);
            let Some(bytes) = self.token_bytes(id) else {
                return Err(error(TokenizerProblem::OrderedId, offset, self.tokens - 1, id));
            };
            let valid = core::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
            if valid < bytes.len() {
                return Err(error(TokenizerProblem::OrderedContent, offset, bytes.len(), valid));
            }
            if before >= bytes {
                let place = u64::from(position);
                return Err(error(TokenizerProblem::TokenOrder, offset, place + 1, place));
            }
            before = bytes;
        }
        Ok(())
    }

    fn check_scores(&self) -> Result<(), TokenizerFormatError> {
        if !self.extension.unknown_score.is_finite() {
            let found = self.extension.unknown_score.to_bits();
            return Err(error(TokenizerProblem::Score, 48, f64::MAX.to_bits(), found));
        }
        let bytes = self.scores.element_bytes();
        for index in 0..self.scores.data.len() / bytes {
            let score = self.scores.get(index).unwrap_or(f64::NAN);
            if !score.is_finite() {
                let offset = self.start(Array::Scores) + index * bytes;
                return Err(error(TokenizerProblem::Score, offset, f64::MAX.to_bits(), score.to_bits()));
            }
        }
        Ok(())
    }

    fn check_unknown_token(&self) -> Result<(), TokenizerFormatError> {
        let unknown = self.extension.unknown;
        let needed = match self.model() {
            Model::ByteLevelBpe => false,
            Model::CharacterBpe => !self.has_byte_tokens(),
            Model::WordPiece | Model::Unigram => true,
        };
        if (unknown != NO_TOKEN || needed) && self.token_bytes(unknown).is_none() {
            return Err(error(TokenizerProblem::UnknownToken, 36, self.tokens - 1, unknown));
        }
        Ok(())
    }

    fn check_templates(&self) -> Result<(), TokenizerFormatError> {
        let bytes = self.templates.element_bytes();
        for index in 0..self.templates.data.len() / bytes {
            let id = self.templates.get(index).unwrap_or(NO_TOKEN);
            if self.token_bytes(id).is_none() {
                let offset = self.start(Array::Templates) + index * bytes;
                return Err(error(TokenizerProblem::TemplateToken, offset, self.tokens - 1, id));
            }
        }
        Ok(())
    }

    /// See [`TokenizerView::words_are_separate`]. The space has to be a token itself, so that it is never part of an unknown
    /// stretch.
    pub(super) fn find_whether_words_are_separate(&self) -> bool {
        let space_inside = |bytes: &[u8]| bytes.windows(2).any(|pair| pair[0] != b' ' && pair[1] == b' ');
        let bytes = |id: Option<u32>| id.and_then(|id| self.token_bytes(id)).unwrap_or_default();
        let inside = match self.model() {
            Model::CharacterBpe => (0..self.merges).any(|rank| space_inside(bytes(self.merge_result(rank)))),
            Model::Unigram => {
                (0..self.ordered_tokens()).any(|place| space_inside(bytes(self.ordered_token(place))))
            }
            Model::ByteLevelBpe | Model::WordPiece => return false,
        };
        !inside && self.ordered_token_of([b' ']).is_some()
    }

    fn check_token_lengths(&self) -> Result<(), TokenizerFormatError> {
        let mut start = 0u64;
        for (block, lengths) in self.token_lengths.chunks(BLOCK_TOKENS).enumerate() {
            let found = self.block_starts.get(block).unwrap_or(u32::MAX);
            if u64::from(found) != start {
                return Err(error(
                    TokenizerProblem::BlockStart,
                    self.start(Array::BlockStarts) + 4 * block,
                    start,
                    found,
                ));
            }
            start += lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
        }
        if start != self.token_bytes.len() as u64 {
            let offset = self.start(Array::TokenLengths);
            return Err(error(TokenizerProblem::TokenLengths, offset, self.token_bytes.len(), start));
        }
        Ok(())
    }

    fn check_byte_tokens(&self) -> Result<(), TokenizerFormatError> {
        if !self.has_byte_tokens() {
            return Ok(());
        }
        for byte in 0..=u8::MAX {
            let token = self.byte_token(byte);
            if token.is_none()
                && self.model() == Model::ByteLevelBpe
                && matches!(self.byte_tokens, Ids::Explicit(_))
            {
                continue;
            }
            let found = match token.and_then(|token| self.token_bytes(token)) {
                Some(&[found]) if found == byte => continue,
                Some(&[found]) => u64::from(found),
                _ => u64::MAX,
            };
            let offset = match self.byte_tokens {
                Ids::None | Ids::Consecutive { .. } => 24,
                Ids::Explicit(numbers) => {
                    self.start(Array::ByteTokens) + usize::from(byte) * numbers.element_bytes()
                }
            };
            return Err(error(TokenizerProblem::ByteToken, offset, byte, found));
        }
        Ok(())
    }

    fn check_merges(&self) -> Result<(), TokenizerFormatError> {
        for rank in 0..self.merges {
            let result = match self.merge_results {
                Ids::None => u64::MAX,
                Ids::Consecutive { first } => u64::from(first) + u64::from(rank),
                Ids::Explicit(numbers) => u64::from(numbers.get(rank as usize).unwrap_or(u32::MAX)),
            };
            if result >= u64::from(self.tokens) {
                let offset = match self.merge_results {
                    Ids::None | Ids::Consecutive { .. } => 20,
                    Ids::Explicit(numbers) => {
                        self.start(Array::MergeResults) + rank as usize * numbers.element_bytes()
                    }
                };
                return Err(error(TokenizerProblem::MergeResult, offset, self.tokens - 1, result));
            }
            let length = self.token_lengths.get(result as usize).copied().unwrap_or(0);
            let split = self.merge_splits.get(rank as usize).copied().unwrap_or(0);
            if split == 0 || split >= length {
                let offset = self.start(Array::MergeSplits) + rank as usize;
                return Err(error(TokenizerProblem::MergeSplit, offset, length.saturating_sub(1), split));
            }
        }
        let mut before: Option<(&[u8], u8)> = None;
        for position in 0..self.merges as usize {
            let offset = self.start(Array::MergeOrder) + position * self.merge_order.element_bytes();
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
            let offset = self.start(Array::AddedTokens) + index as usize * entry_bytes;
            let (id, flags) = self.added_entry(index as usize).unwrap_or((u32::MAX, u8::MAX));
            if id < least || id >= self.tokens {
                return Err(error(TokenizerProblem::AddedId, offset, least, id));
            }
            least = id + 1;
            for (flag, problem) in [
                (ADDED_SINGLE_WORD, TokenizerProblem::UnsupportedSingleWord),
                (
                    !(ADDED_SPECIAL | ADDED_NORMALIZED | ADDED_LEFT_STRIP | ADDED_RIGHT_STRIP),
                    TokenizerProblem::AddedFlags,
                ),
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
}
