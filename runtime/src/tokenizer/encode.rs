//! Text to tokens.

use core::ops::Range;

use rescomp_formats::tokenizer::{AddedToken, Model, Normalizer, PreTokenizer};

use super::merge::{Narrow, Wide, is_narrow, merge, words_needed};
use super::normalize::Normalized;
use super::pre_tokenize::first_pre_token;
use super::symbols::Symbols;
use super::{Tokenizer, TokenizerError, unigram, word_piece};
use crate::parts::missing_for_text;

/// Where in a text special tokens are read as such. Elsewhere their content is encoded as any other text.
#[derive(Clone, Copy, Debug)]
pub enum Special<'t> {
    /// Nowhere.
    Nowhere,
    /// Everywhere.
    Everywhere,
    /// Where they lie within one of these stretches of bytes.
    Within(&'t [Range<usize>]),
}

impl Special<'_> {
    fn allows(self, start: usize, end: usize) -> bool {
        match self {
            Special::Nowhere => false,
            Special::Everywhere => true,
            Special::Within(stretches) => {
                stretches.iter().any(|stretch| stretch.start <= start && end <= stretch.end)
            }
        }
    }
}

impl From<bool> for Special<'_> {
    fn from(allowed: bool) -> Self {
        if allowed { Special::Everywhere } else { Special::Nowhere }
    }
}

/// A stretch of text up to an added token, or up to the end.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where the stretch ends and the added token starts.
    end: usize,
    token: Option<Found>,
}

/// An added token in a text.
#[derive(Clone, Copy, Debug)]
struct Found {
    id: u32,
    /// Where it ends, with the white space that it takes.
    end: usize,
    /// Where its content ends: from there on the next one is looked for, as the reference does.
    content_end: usize,
}

/// Encodes a text piece by piece, for texts with more tokens than there is memory for.
///
/// It stops only between pre-tokens, so that the pieces together are the tokens of the whole text.
#[derive(Clone, Debug)]
pub struct Encoder<'t, 'a> {
    tokenizer: Tokenizer<'a>,
    text: &'t str,
    special: Special<'t>,
    position: usize,
    /// The stretch up to the next added token that isn't normalized.
    outer: Piece,
    /// Inside it, the stretch up to the next normalized one.
    inner: Piece,
    /// What is left of that stretch, normalized.
    piece: Normalized<'t>,
    /// Unigram: the sum of the scores so far, where the stretch is one pre-token that is encoded word by word.
    score: f64,
}

impl<'a> Tokenizer<'a> {
    /// Encodes a whole text; returns the number of tokens, which are at the front of `out`.
    ///
    /// Where special tokens aren't allowed, their content is encoded as any other text. No token is added that isn't in the
    /// text.
    ///
    /// `out` is all the memory there is: a pre-token is worked on in the unused part of it. BPE needs one element a byte there (two
    /// where the vocabulary has more than 65,536 tokens or 65,534 merges), and a fifteenth of that many more for a long
    /// pre-token; Unigram needs four elements a character, WordPiece one; even where it is one token in the end.
    /// [`max_tokens`](Self::max_tokens) elements are always enough.
    ///
    /// # Errors
    /// `out` is too small; it says how many tokens fitted. See [`encoder`](Self::encoder) for texts of any length.
    pub fn encode(&self, text: &str, allow_special: bool, out: &mut [u32]) -> Result<usize, TokenizerError> {
        self.encode_where(text, allow_special.into(), out)
    }

    /// As [`encode`](Self::encode), with special tokens where `special` says.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_where(
        &self,
        text: &str,
        special: Special<'_>,
        out: &mut [u32],
    ) -> Result<usize, TokenizerError> {
        let mut encoder = self.encoder_where(text, special);
        let tokens = encoder.next_tokens(out)?;
        match encoder.room_needed() {
            0 => Ok(tokens),
            room => Err(TokenizerError::OutputTooSmall {
                tokens,
                text_bytes: encoder.text_bytes(),
                needed: tokens.saturating_add(room),
                available: out.len(),
            }),
        }
    }

    /// Encodes a text piece by piece.
    pub fn encoder<'t>(&self, text: &'t str, allow_special: bool) -> Encoder<'t, 'a> {
        self.encoder_where(text, allow_special.into())
    }

    /// As [`encoder`](Self::encoder), with special tokens where `special` says.
    pub fn encoder_where<'t>(&self, text: &'t str, special: Special<'t>) -> Encoder<'t, 'a> {
        let end = Piece { end: 0, token: None };
        let mut encoder = Encoder {
            tokenizer: *self,
            text,
            special,
            position: 0,
            outer: end,
            inner: end,
            piece: Normalized::new(Normalizer::None, "", false, false),
            score: 0.0,
        };
        encoder.start_outer(0);
        encoder
    }

    /// Elements of `out` with which [`encode`](Self::encode) succeeds for every text of so many bytes.
    pub fn max_tokens(&self, text_bytes: usize) -> usize {
        // Normalized text is longer than the text at most by a space a piece, or three times as long: U+1D160 is 4 bytes and
        // decomposes to 12.
        let spaces = match self.view.normalizer() {
            Normalizer::Spaces(_) => text_bytes,
            _ if self.view.add_prefix_space() => text_bytes,
            _ => 0,
        };
        let growth = match self.view.normalizer() {
            Normalizer::Nfc | Normalizer::Bert(_) => 3,
            Normalizer::None | Normalizer::Spaces(_) => 1,
        };
        let bytes = text_bytes.saturating_add(spaces).saturating_mul(growth);
        self.room_of(bytes, bytes)
    }

    /// Elements of memory that a pre-token of so many characters and bytes takes.
    fn room_of(&self, characters: usize, bytes: usize) -> usize {
        match self.view.model() {
            Model::WordPiece => characters,
            Model::Unigram => characters.saturating_mul(unigram::WORDS),
            Model::ByteLevelBpe | Model::CharacterBpe if is_narrow(&self.view) => {
                words_needed::<Narrow>(bytes)
            }
            Model::ByteLevelBpe | Model::CharacterBpe => words_needed::<Wide>(bytes),
        }
    }

    /// The next added token of one kind in `text[start..end]`.
    ///
    /// Of those that start at the same place, the longest. A special one that isn't allowed is skipped as a whole: what
    /// overlaps with it isn't found either. It is looked for from `from` on, and takes no white space in front of `start`.
    fn next_piece(
        &self,
        text: &str,
        [start, from, end]: [usize; 3],
        normalized: bool,
        special: Special<'_>,
    ) -> Piece {
        let first_bytes = &self.first_bytes[usize::from(normalized)];
        let bytes = text.as_bytes().get(..end).unwrap_or_default();
        let mut position = if first_bytes.is_empty() { end } else { from };
        while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
            let skipped = rest.iter().position(|&byte| first_bytes.contains(byte));
            let Some(skipped) = skipped else { break };
            position += skipped;
            let Some(token) = self.longest_added_token(&rest[skipped..], normalized) else {
                position += 1;
                continue;
            };
            let token_end = position + token.content.len();
            if !token.special || special.allows(position, token_end) {
                let behind = text.get(token_end..end).filter(|_| token.right_strip).unwrap_or_default();
                let taken_to = token_end + behind.len() - behind.trim_start().len();
                // White space that the token before took is not taken again.
                let taken_from = match text.get(start..position) {
                    Some(before) if token.left_strip => start + before.trim_end().len(),
                    None if token.left_strip => start,
                    _ => position,
                };
                // One of white space, of which nothing is left, is none, as in the reference.
                if taken_from < taken_to {
                    let found = Found { id: token.id, end: taken_to, content_end: token_end };
                    return Piece { end: taken_from, token: Some(found) };
                }
            }
            position = token_end;
        }
        Piece { end, token: None }
    }

    fn longest_added_token(&self, text: &[u8], normalized: bool) -> Option<AddedToken<'a>> {
        (0..self.view.added_tokens())
            .filter_map(|index| self.view.added_token(index))
            .filter(|token| token.normalized == normalized && text.starts_with(token.content))
            .max_by_key(|token| token.content.len())
    }
}

/// What comes next in the text.
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack: there is no heap to put it on")]
enum Step<'t> {
    Added(Found),
    PreToken(PreToken<'t>),
    End,
}

/// The next pre-token.
struct PreToken<'t> {
    /// Where it begins in the normalized text.
    start: Normalized<'t>,
    characters: usize,
    bytes: usize,
    /// Where it ends.
    end: Normalized<'t>,
}

impl PreToken<'_> {
    fn text(&self) -> impl Iterator<Item = char> + Clone {
        self.start.clone().take(self.characters)
    }
}

impl<'t> Encoder<'t, '_> {
    /// Bytes of the text that are encoded so far. Where the text is normalized, those that are read so far: a few more.
    pub fn text_bytes(&self) -> usize {
        match self.step() {
            Step::End => self.text.len(),
            _ => self.position.max(self.inner.end.saturating_sub(self.piece.unread_bytes())),
        }
    }

    /// Elements of `out` without which the next call can't encode anything; 0 at the end of the text.
    pub fn room_needed(&self) -> usize {
        match self.step() {
            Step::Added(_) => 1,
            Step::PreToken(next) => self.tokenizer.room_of(next.characters, next.bytes),
            Step::End => 0,
        }
    }

    /// Encodes as many pre-tokens as fit `out`; returns the number of tokens, 0 only at the end of the text.
    ///
    /// # Errors
    /// Not even one pre-token fits `out`; see [`Tokenizer::encode`] for what it needs. The encoder stays there, behind text that has no
    /// tokens, if any (bytes that the vocabulary lacks): it goes on with as much room as [`room_needed`](Self::room_needed) says then.
    #[inline(never)]
    pub fn next_tokens(&mut self, out: &mut [u32]) -> Result<usize, TokenizerError> {
        if let Some(part) = missing_for_text(&self.tokenizer.view) {
            return Err(TokenizerError::NotBuilt { part: part.feature() });
        }
        let available = out.len();
        let mut tokens = 0;
        loop {
            let room = out.get_mut(tokens..).unwrap_or_default();
            let needed = match self.step() {
                Step::End => return Ok(tokens),
                Step::Added(found) => match room.first_mut() {
                    Some(token) => {
                        *token = found.id;
                        tokens += 1;
                        self.position = found.end;
                        self.start_next(found.content_end);
                        continue;
                    }
                    None => 1,
                },
                Step::PreToken(next) => match self.encode_pre_token(&next, room) {
                    Some((count, score)) => {
                        tokens += count;
                        self.piece = next.end;
                        self.score = score;
                        continue;
                    }
                    None => self.tokenizer.room_of(next.characters, next.bytes),
                },
            };
            if tokens > 0 {
                return Ok(tokens);
            }
            let text_bytes = self.text_bytes();
            return Err(TokenizerError::OutputTooSmall { tokens, text_bytes, needed, available });
        }
    }

    fn step(&self) -> Step<'t> {
        if let Some(next) = self.next_pre_token() {
            return Step::PreToken(next);
        }
        match self.inner.token.or(self.outer.token) {
            Some(found) => Step::Added(found),
            None => Step::End,
        }
    }

    fn next_pre_token(&self) -> Option<PreToken<'t>> {
        let view = &self.tokenizer.view;
        let extent = first_pre_token(view.pre_tokenizer(), view.words_are_separate(), self.piece.clone());
        if extent.characters == 0 {
            return None;
        }
        let mut start = self.piece.clone();
        if let Some(last_dropped) = extent.dropped.checked_sub(1) {
            start.nth(last_dropped);
        }
        let (mut end, mut bytes) = (start.clone(), 0);
        for character in end.by_ref().take(extent.characters) {
            bytes += character.len_utf8();
        }
        Some(PreToken { start, characters: extent.characters, bytes, end })
    }

    /// After an added token whose content ends there: finds the next one of its kind.
    fn start_next(&mut self, from: usize) {
        if self.inner.token.is_some() { self.start_inner(from) } else { self.start_outer(from) }
    }

    fn start_outer(&mut self, from: usize) {
        let stretch = [self.position, from, self.text.len()];
        self.outer = self.tokenizer.next_piece(self.text, stretch, false, self.special);
        self.start_inner(self.position);
    }

    fn start_inner(&mut self, from: usize) {
        let stretch = [self.position, from, self.outer.end];
        self.inner = self.tokenizer.next_piece(self.text, stretch, true, self.special);
        let piece = self.text.get(self.position..self.inner.end).unwrap_or_default();
        let view = &self.tokenizer.view;
        self.piece = Normalized::new(view.normalizer(), piece, view.add_prefix_space(), self.position == 0);
        self.score = 0.0;
    }

    /// The number of tokens, which are at the front of `room`, and the score to go on with; `None` where `room` is too small.
    #[inline(never)]
    fn encode_pre_token(&self, next: &PreToken<'_>, room: &mut [u32]) -> Option<(usize, f64)> {
        let view = &self.tokenizer.view;
        if room.len() < self.tokenizer.room_of(next.characters, next.bytes) {
            return None;
        }
        let count = match view.model() {
            Model::WordPiece if cfg!(feature = "word-piece") => {
                word_piece::encode(view, next.text(), next.characters, room)?
            }
            Model::Unigram if cfg!(feature = "unigram") => {
                let (count, score) = unigram::encode(view, next.text(), next.characters, self.score, room)?;
                // Only a piece that is one pre-token goes on with the sum.
                let goes_on = view.pre_tokenizer() == PreTokenizer::ByteLevel;
                return Some((count, if goes_on { score } else { 0.0 }));
            }
            Model::ByteLevelBpe | Model::CharacterBpe if cfg!(feature = "byte-pair") => {
                if view.ignore_merges()
                    && let Some(id) = self.whole_token(next)
                {
                    *room.first_mut()? = id;
                    return Some((1, 0.0));
                }
                let symbols = Symbols::new(view, next.text());
                if is_narrow(view) {
                    merge::<Narrow>(view, symbols, room)?
                } else {
                    merge::<Wide>(view, symbols, room)?
                }
            }
            // `next_tokens` has said so.
            _ => return None,
        };
        Some((count, 0.0))
    }

    /// The token that a pre-token is as a whole.
    fn whole_token(&self, next: &PreToken<'_>) -> Option<u32> {
        let view = &self.tokenizer.view;
        if let Some(bytes) = next.start.plain().and_then(|text| text.as_bytes().get(..next.bytes)) {
            return view.token_of_bytes(bytes);
        }
        // Of the normalizers of byte-level encoding, the only one that changes characters.
        if !cfg!(feature = "nfc") {
            return None;
        }
        view.token_of(next.text().flat_map(|character| {
            let mut bytes = [0; 4];
            let length = character.encode_utf8(&mut bytes).len();
            bytes.into_iter().take(length)
        }))
    }
}
