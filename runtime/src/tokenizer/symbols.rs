//! The tokens that byte-pair encoding starts from.

use rescomp_formats::tokenizer::{Model, TokenizerView};

/// The tokens of the bytes, or of the characters, of a pre-token.
#[derive(Clone, Debug)]
pub(super) struct Symbols<'v, 'a, I> {
    view: &'v TokenizerView<'a>,
    characters: I,
    /// Bytes of the last character that are still to come.
    bytes: [u8; 4],
    place: usize,
    length: usize,
    /// The last token was that of what is unknown, and takes in what is unknown behind it.
    after_unknown: bool,
}

impl<'v, 'a, I: Iterator<Item = char>> Symbols<'v, 'a, I> {
    pub(super) fn new(view: &'v TokenizerView<'a>, characters: I) -> Self {
        Symbols { view, characters, bytes: [0; 4], place: 0, length: 0, after_unknown: false }
    }
}

impl<I: Iterator<Item = char>> Iterator for Symbols<'_, '_, I> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            if self.place < self.length {
                let byte = *self.bytes.get(self.place)?;
                self.place += 1;
                match self.view.byte_token(byte) {
                    // A byte without a token leaves no trace: the bytes around it may merge.
                    None => continue,
                    token => return token,
                }
            }
            let character = self.characters.next()?;
            let bytes = character.encode_utf8(&mut self.bytes).bytes();
            if self.view.model() == Model::CharacterBpe {
                if let Some((id, _)) = self.view.ordered_token_of(bytes) {
                    self.after_unknown = false;
                    return Some(id);
                }
                if !self.view.has_byte_tokens() {
                    let fused = self.after_unknown && self.view.fuses_unknown();
                    self.after_unknown = true;
                    if fused {
                        continue;
                    }
                    return self.view.unknown_token();
                }
            }
            (self.place, self.length) = (0, character.len_utf8());
        }
    }
}
