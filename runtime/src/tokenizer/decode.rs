//! Tokens to text.

use rescomp_formats::tokenizer::{CONTINUATION, Model};

use super::Tokenizer;

impl<'a> Tokenizer<'a> {
    /// The bytes of a token, which need not be complete characters; `None` for an id that stands for nothing.
    ///
    /// Of a WordPiece token inside a word, the two number signs are part of it. Text is made of tokens by [`Decoder`].
    pub fn token_bytes(&self, id: u32) -> Option<&'a [u8]> {
        self.view.token_bytes(id)
    }

    /// Whether a token stands for structure (end of text, a role), not for text.
    pub fn is_special(&self, id: u32) -> bool {
        self.view.is_special(id)
    }

    /// The tokens that the tokenizer's template puts before a text; encoding doesn't add them.
    pub fn tokens_before(&self) -> impl Iterator<Item = u32> {
        self.view.tokens_before()
    }

    /// The tokens that the tokenizer's template puts after a text; encoding doesn't add them.
    pub fn tokens_after(&self) -> impl Iterator<Item = u32> {
        self.view.tokens_after()
    }

    /// Decodes tokens and hands their text to `sink`, stretch by stretch.
    ///
    /// An id that stands for nothing is skipped, and so is a special token with `skip_special`. Bytes that aren't UTF-8 become
    /// U+FFFD as in [`Utf8Stream`]; where only unknown characters are bytes, each byte of a run of byte tokens that isn't UTF-8
    /// as a whole does.
    pub fn decode(&self, ids: &[u32], skip_special: bool, mut sink: impl FnMut(&str)) {
        let kept = |id: &u32| self.token_bytes(*id).is_some() && !(skip_special && self.is_special(*id));
        let mut decoder = Decoder::new(*self);
        let fallback = self.view.model() != Model::ByteLevelBpe && self.view.has_byte_tokens();
        let mut place = 0;
        while let Some(&id) = ids.get(place) {
            place += 1;
            if !kept(&id) {
                continue;
            }
            if fallback && self.is_byte(id) {
                let rest = ids.get(place - 1..).unwrap_or_default();
                let run = rest.iter().position(|id| kept(id) && !self.is_byte(*id)).unwrap_or(rest.len());
                let run = rest.get(..run).unwrap_or_default();
                place += run.len().saturating_sub(1);
                decoder.push_byte_run(run.iter().copied().filter(|id| kept(id)), &mut sink);
            } else {
                decoder.push(id, &mut sink);
            }
        }
        decoder.finish(sink);
    }

    fn is_byte(&self, id: u32) -> bool {
        self.byte_of(id).is_some()
    }

    /// The byte that a byte's token stands for.
    fn byte_of(&self, id: u32) -> Option<u8> {
        let &[byte] = self.token_bytes(id)? else { return None };
        (self.view.byte_token(byte) == Some(id)).then_some(byte)
    }
}

/// Turns tokens into text one at a time.
///
/// The text is that of [`Tokenizer::decode`], but for bytes that aren't UTF-8: there, a run of byte tokens is looked at as a
/// whole.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    tokenizer: Tokenizer<'a>,
    stream: Utf8Stream,
    /// No token has been decoded yet.
    at_start: bool,
    /// The text has begun: a space is a space.
    has_text: bool,
}

impl<'a> Decoder<'a> {
    /// A decoder at the beginning of a text.
    pub fn new(tokenizer: Tokenizer<'a>) -> Self {
        Decoder { tokenizer, stream: Utf8Stream::new(), at_start: true, has_text: false }
    }

    /// A decoder in the middle of a text, such as behind a prompt: nothing is stripped.
    pub fn inside(tokenizer: Tokenizer<'a>) -> Self {
        Decoder { at_start: false, has_text: true, ..Decoder::new(tokenizer) }
    }

    /// Takes a token and hands the text that is complete by now to `sink`, in one stretch or in several.
    pub fn push(&mut self, id: u32, mut sink: impl FnMut(&str)) {
        self.push_to(id, &mut sink);
    }

    /// [`Decoder::push`], compiled once for all sinks.
    fn push_to(&mut self, id: u32, sink: &mut dyn FnMut(&str)) {
        let Some(bytes) = self.tokenizer.token_bytes(id) else { return };
        let first = core::mem::replace(&mut self.at_start, false);
        let view = &self.tokenizer.view;
        let decoding = view.decoding();
        if cfg!(feature = "word-piece") && view.model() == Model::WordPiece {
            let inside = if first { None } else { bytes.strip_prefix(CONTINUATION) };
            let (space, text) = (!first && inside.is_none(), inside.unwrap_or(bytes));
            // The content is UTF-8, as that of every token WordPiece knows.
            let text = core::str::from_utf8(text).unwrap_or_default();
            return if decoding.clean_up {
                clean_up(space, text, sink)
            } else {
                with_space(space, text, sink)
            };
        }
        if decoding.strip_first_token && first && !view.is_added(id) && !self.tokenizer.is_byte(id) {
            for stretch in bytes.split(|&byte| byte == b' ') {
                self.stream.push_to(stretch, sink);
            }
            return;
        }
        let strip = decoding.strip_leading_space && !self.has_text;
        self.has_text = true;
        let bytes = if strip { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes };
        self.stream.push_to(bytes, sink);
    }

    /// Ends the text: a character whose end is missing becomes U+FFFD.
    pub fn finish(&mut self, sink: impl FnMut(&str)) {
        self.stream.finish(sink);
    }

    /// A run of byte tokens behind which there is none.
    fn push_byte_run(&mut self, ids: impl Iterator<Item = u32> + Clone, mut sink: impl FnMut(&str)) {
        let (mut pending, mut count, mut valid) = ([0; 4], 0, true);
        for id in ids.clone() {
            let Some(place) = pending.get_mut(count) else { break };
            *place = self.tokenizer.byte_of(id).unwrap_or_default();
            count += 1;
            match core::str::from_utf8(pending.get(..count).unwrap_or_default()) {
                Ok(_) => count = 0,
                Err(error) => valid &= error.error_len().is_none(),
            }
            if !valid {
                break;
            }
        }
        valid &= count == 0;
        for id in ids {
            if valid {
                self.push(id, &mut sink);
            } else {
                (self.at_start, self.has_text) = (false, true);
                sink("\u{fffd}");
            }
        }
    }
}

fn with_space(space: bool, text: &str, mut sink: impl FnMut(&str)) {
    if space {
        sink(" ");
    }
    sink(text);
}

/// What the reference replaces in a token with the space before it, one after another. None of the replacements makes
/// room for another.
const CLEAN_UP: [(&str, &str); 11] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

fn clean_up(space: bool, text: &str, mut sink: impl FnMut(&str)) {
    // The space in front is the only one that a token of BERT's words can have; an added token may have more.
    let mut rest = text;
    let mut space = space;
    while space || !rest.is_empty() {
        let found = CLEAN_UP.iter().find_map(|(from, to)| {
            let from = if space { from.strip_prefix(' ')? } else { from };
            Some((rest.strip_prefix(from)?, *to))
        });
        match found {
            Some((after, to)) => {
                sink(to);
                (rest, space) = (after, false);
            }
            None if space => {
                sink(" ");
                space = false;
            }
            None => {
                let length = rest.chars().next().map_or(0, char::len_utf8);
                let (character, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
                sink(character);
                rest = after;
            }
        }
    }
}

/// Puts text together from bytes that come in any portions, such as the tokens of a model.
///
/// A character is handed on as soon as its last byte is there. What isn't UTF-8 becomes U+FFFD, one for each maximal part of a
/// character (Unicode 16, section 3.9, "U+FFFD substitution of maximal subparts"), so that the text is that of
/// `String::from_utf8_lossy` over all the bytes.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The start of a character whose end is missing.
    pending: [u8; 4],
    pending_bytes: usize,
}

impl Utf8Stream {
    /// A stream with nothing in it.
    pub const fn new() -> Self {
        Utf8Stream { pending: [0; 4], pending_bytes: 0 }
    }

    /// Takes some bytes and hands the text that is complete by now to `sink`, in one stretch or in several.
    pub fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(&str)) {
        self.push_to(bytes, &mut sink);
    }

    /// [`Utf8Stream::push`], compiled once for all sinks.
    fn push_to(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(&str)) {
        while self.pending_bytes > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return };
            self.pending[self.pending_bytes] = byte;
            match core::str::from_utf8(&self.pending[..=self.pending_bytes]) {
                Ok(character) => {
                    sink(character);
                    self.pending_bytes = 0;
                    bytes = rest;
                }
                // Still the start of a character: of at most 3 bytes, as none has more than 4.
                Err(error) if error.error_len().is_none() => {
                    self.pending_bytes += 1;
                    bytes = rest;
                }
                // The byte doesn't go on with the character; it may begin another.
                Err(_) => self.finish(&mut *sink),
            }
        }
        loop {
            let (valid, rest, invalid_bytes) = match core::str::from_utf8(bytes) {
                Ok(valid) => (valid, &[][..], Some(0)),
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    (core::str::from_utf8(valid).unwrap_or_default(), rest, error.error_len())
                }
            };
            if !valid.is_empty() {
                sink(valid);
            }
            match invalid_bytes {
                // The start of a character, with nothing after it that breaks it off.
                None => {
                    self.pending[..rest.len()].copy_from_slice(rest);
                    self.pending_bytes = rest.len();
                    return;
                }
                Some(0) => return,
                Some(invalid_bytes) => {
                    sink("\u{fffd}");
                    bytes = &rest[invalid_bytes..];
                }
            }
        }
    }

    /// Ends the text: a character whose end is missing becomes U+FFFD. The stream is empty again.
    pub fn finish(&mut self, mut sink: impl FnMut(&str)) {
        if self.pending_bytes > 0 {
            self.pending_bytes = 0;
            sink("\u{fffd}");
        }
    }
}
