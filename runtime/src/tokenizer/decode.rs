//! Tokens to text.

use super::Tokenizer;

impl<'a> Tokenizer<'a> {
    /// The bytes of a token, which need not be complete characters; `None` for an id that stands for nothing.
    pub fn token_bytes(&self, id: u32) -> Option<&'a [u8]> {
        self.view.token_bytes(id)
    }

    /// Whether a token stands for structure (end of text, a role), not for text.
    pub fn is_special(&self, id: u32) -> bool {
        self.view.is_special(id)
    }

    /// Decodes tokens and hands their text to `sink`, stretch by stretch.
    ///
    /// An id that stands for nothing is skipped, and so is a special token with `skip_special`. Bytes that aren't UTF-8 become
    /// U+FFFD as in [`Utf8Stream`].
    pub fn decode(&self, ids: &[u32], skip_special: bool, mut sink: impl FnMut(&str)) {
        let mut stream = Utf8Stream::new();
        for &id in ids {
            if !(skip_special && self.is_special(id)) {
                stream.push(self.token_bytes(id).unwrap_or_default(), &mut sink);
            }
        }
        stream.finish(sink);
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
    pub fn push(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&str)) {
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
                Err(_) => self.finish(&mut sink),
            }
        }
        let mut after = bytes.len();
        for chunk in bytes.utf8_chunks() {
            let (valid, invalid) = (chunk.valid(), chunk.invalid());
            after -= valid.len() + invalid.len();
            if !valid.is_empty() {
                sink(valid);
            }
            match core::str::from_utf8(invalid) {
                // The start of a character, with nothing after it that breaks it off.
                Err(error) if error.error_len().is_none() && after == 0 => {
                    self.pending[..invalid.len()].copy_from_slice(invalid);
                    self.pending_bytes = invalid.len();
                }
                Err(_) => sink("\u{fffd}"),
                Ok(_) => {}
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
