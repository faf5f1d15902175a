//! Text to tokens.

use rescomp_formats::tokenizer::AddedToken;

use super::merge::{Narrow, SlotLayout, Wide, fits_narrow, merge_bytes};
use super::pre_tokenize::pre_token_length;
use super::{Tokenizer, TokenizerError};

/// A stretch of text up to an added token, or up to the end.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where the stretch ends and the added token starts.
    end: usize,
    /// The added token and where it ends.
    token: Option<(u32, usize)>,
}

/// Encodes a text piece by piece, for texts with more tokens than there is memory for.
///
/// It stops only between pre-tokens, so that the pieces together are the tokens of the whole text.
#[derive(Clone, Debug)]
pub struct Encoder<'t, 'a> {
    tokenizer: Tokenizer<'a>,
    text: &'t str,
    allow_special: bool,
    position: usize,
    /// The stretch up to the next added token that isn't normalized.
    outer: Piece,
    /// Inside it, the stretch up to the next normalized one.
    inner: Piece,
    /// A space goes before the next pre-token.
    prefix_space: bool,
}

impl<'a> Tokenizer<'a> {
    /// Encodes a whole text; returns the number of tokens, which are at the front of `out`.
    ///
    /// Where special tokens aren't allowed, their content is encoded as any other text. No token is added that isn't in the
    /// text.
    ///
    /// `out` is all the memory there is: a pre-token is merged in the unused part of it, and needs one element a byte there
    /// (two where the vocabulary has more than 65,536 tokens or 65,535 merges), even where it is one token in the end.
    /// [`max_tokens`](Self::max_tokens) elements are always enough.
    ///
    /// # Errors
    /// `out` is too small; it says how many tokens fitted. See [`encoder`](Self::encoder) for texts of any length.
    pub fn encode(&self, text: &str, allow_special: bool, out: &mut [u32]) -> Result<usize, TokenizerError> {
        let mut encoder = self.encoder(text, allow_special);
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
        let end = Piece { end: 0, token: None };
        let mut encoder = Encoder {
            tokenizer: *self,
            text,
            allow_special,
            position: 0,
            outer: end,
            inner: end,
            prefix_space: false,
        };
        encoder.start_outer();
        encoder
    }

    /// Elements of `out` with which [`encode`](Self::encode) succeeds for every text of so many bytes.
    pub fn max_tokens(&self, text_bytes: usize) -> usize {
        let prefix_spaces = if self.view.add_prefix_space() { text_bytes } else { 0 };
        text_bytes.saturating_add(prefix_spaces).saturating_mul(self.words_per_byte())
    }

    fn words_per_byte(&self) -> usize {
        if fits_narrow(&self.view) { Narrow::WORDS } else { Wide::WORDS }
    }

    /// The next added token of one kind in `text[start..end]`.
    ///
    /// Of those that start at the same place, the longest. A special one that isn't allowed is skipped as a whole: what
    /// overlaps with it isn't found either.
    fn next_piece(&self, text: &str, start: usize, end: usize, normalized: bool, special: bool) -> Piece {
        let first_bytes = &self.first_bytes[usize::from(normalized)];
        let bytes = text.as_bytes().get(..end).unwrap_or_default();
        let mut position = if first_bytes.is_empty() { end } else { start };
        while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
            let skipped = rest.iter().position(|&byte| first_bytes.contains(byte));
            let Some(skipped) = skipped else { break };
            position += skipped;
            let Some(token) = self.longest_added_token(&rest[skipped..], normalized) else {
                position += 1;
                continue;
            };
            let token_end = position + token.content.len();
            if special || !token.special {
                return Piece { end: position, token: Some((token.id, token_end)) };
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
enum Step<'t> {
    /// An added token, and where it ends.
    Added(u32, usize),
    /// The bytes of a pre-token, but for the space before it.
    PreToken(&'t [u8]),
    End,
}

impl Encoder<'_, '_> {
    /// Bytes of the text that are encoded so far.
    pub fn text_bytes(&self) -> usize {
        self.position
    }

    /// Elements of `out` without which the next call can't encode anything; 0 at the end of the text.
    pub fn room_needed(&self) -> usize {
        match self.step() {
            Step::Added(..) => 1,
            Step::PreToken(bytes) => self.room_of(bytes),
            Step::End => 0,
        }
    }

    /// Encodes as many pre-tokens as fit `out`; returns the number of tokens, 0 only at the end of the text.
    ///
    /// # Errors
    /// Not even one pre-token fits `out`; see [`Tokenizer::encode`] for what it needs. The encoder stays where it is: it
    /// goes on with more room.
    pub fn next_tokens(&mut self, out: &mut [u32]) -> Result<usize, TokenizerError> {
        let available = out.len();
        let mut tokens = 0;
        loop {
            let room = out.get_mut(tokens..).unwrap_or_default();
            let needed = match self.step() {
                Step::End => return Ok(tokens),
                Step::Added(id, end) => match room.first_mut() {
                    Some(token) => {
                        *token = id;
                        tokens += 1;
                        self.position = end;
                        self.start_next();
                        continue;
                    }
                    None => 1,
                },
                Step::PreToken(bytes) => match self.encode_pre_token(bytes, room) {
                    Some(count) => {
                        tokens += count;
                        self.position += bytes.len();
                        self.prefix_space = false;
                        continue;
                    }
                    None => self.room_of(bytes),
                },
            };
            if tokens > 0 {
                return Ok(tokens);
            }
            let text_bytes = self.position;
            return Err(TokenizerError::OutputTooSmall { tokens, text_bytes, needed, available });
        }
    }

    fn room_of(&self, pre_token: &[u8]) -> usize {
        let bytes = pre_token.len() + usize::from(self.prefix_space);
        bytes.saturating_mul(self.tokenizer.words_per_byte())
    }

    fn step(&self) -> Step<'_> {
        match self.text.get(self.position..self.inner.end) {
            Some(rest) if !rest.is_empty() => {
                let kind = self.tokenizer.view.pre_tokenizer();
                let length = pre_token_length(kind, rest, self.prefix_space);
                Step::PreToken(rest.as_bytes().get(..length).unwrap_or_default())
            }
            _ => match self.inner.token.or(self.outer.token) {
                Some((id, end)) => Step::Added(id, end),
                None => Step::End,
            },
        }
    }

    /// After an added token: finds the next one of its kind.
    fn start_next(&mut self) {
        if self.inner.token.is_some() { self.start_inner() } else { self.start_outer() }
    }

    fn start_outer(&mut self) {
        self.outer =
            self.tokenizer.next_piece(self.text, self.position, self.text.len(), false, self.allow_special);
        self.start_inner();
    }

    fn start_inner(&mut self) {
        self.inner =
            self.tokenizer.next_piece(self.text, self.position, self.outer.end, true, self.allow_special);
        let piece = self.text.get(self.position..self.inner.end).unwrap_or_default();
        self.prefix_space =
            self.tokenizer.view.add_prefix_space() && !piece.is_empty() && !piece.starts_with(' ');
    }

    fn encode_pre_token(&self, bytes: &[u8], room: &mut [u32]) -> Option<usize> {
        let view = &self.tokenizer.view;
        if room.len() < self.room_of(bytes) {
            return None;
        }
        let all = self.prefix_space.then_some(b' ').into_iter().chain(bytes.iter().copied());
        if view.ignore_merges()
            && !self.prefix_space
            && let Some(id) = view.token_of_bytes(bytes)
        {
            *room.first_mut()? = id;
            return Some(1);
        }
        if fits_narrow(view) {
            merge_bytes::<Narrow>(view, all, room)
        } else {
            merge_bytes::<Wide>(view, all, room)
        }
    }
}
