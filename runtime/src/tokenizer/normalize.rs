//! The characters of a text as the normalizer leaves them, one at a time and without memory.
//!
//! What isn't built is no variant either: a place in a text is copied often, and is small where the text is read as it is.
#![cfg_attr(
    not(all(feature = "nfc", feature = "bert-text")),
    allow(dead_code, unused_imports, reason = "parts that are not built")
)]

use core::char::ToLowercase;
use core::str::Chars;

use rescomp_formats::tokenizer::{BertNormalizer, Normalizer, SpacePrefix};

use super::unicode::{BertCategory, Composed, Decomposed, bert_category};

/// What SentencePiece writes for a space.
const SPACE_SIGN: char = '\u{2581}';

/// The normalized characters of a text; a copy of it is a place in the text.
#[derive(Clone, Debug)]
pub(super) enum Normalized<'t> {
    /// As they are, after a space or without.
    Plain { space: bool, rest: Chars<'t> },
    /// U+2581 as spaces.
    Spaces { space: bool, rest: Chars<'t> },
    #[cfg(feature = "nfc")]
    Composed(Composed<Chars<'t>>),
    #[cfg(feature = "bert-text")]
    Bert(Bert<'t>),
}

impl<'t> Normalized<'t> {
    /// Of a piece of a text between added tokens.
    pub(super) fn new(normalizer: Normalizer, piece: &'t str, add_space: bool, starts_text: bool) -> Self {
        let rest = piece.chars();
        match normalizer {
            Normalizer::None => {
                Normalized::Plain { space: add_space && !piece.is_empty() && !piece.starts_with(' '), rest }
            }
            // No character below U+0300 composes or is decomposed with another below it; their bytes are below 0xcc.
            #[cfg(feature = "nfc")]
            Normalizer::Nfc if !piece.bytes().all(|byte| byte < 0xcc) => {
                Normalized::Composed(Composed::new(rest))
            }
            #[cfg(feature = "bert-text")]
            Normalizer::Bert(steps) => Normalized::Bert(Bert::new(steps, rest)),
            // Where the part isn't built, no text is encoded.
            #[cfg(not(feature = "bert-text"))]
            Normalizer::Bert(_) => Normalized::Plain { space: false, rest },
            Normalizer::Nfc => Normalized::Plain { space: false, rest },
            Normalizer::Spaces(prefix) => {
                let there = piece.starts_with([' ', SPACE_SIGN]);
                let space = match prefix {
                    SpacePrefix::Never => false,
                    SpacePrefix::Always => true,
                    SpacePrefix::UnlessThere => !there,
                    SpacePrefix::FirstUnlessThere => !there && starts_text,
                };
                Normalized::Spaces { space: space && !piece.is_empty(), rest }
            }
        }
    }

    /// Bytes of the piece that are not read yet.
    pub(super) fn unread_bytes(&self) -> usize {
        match self {
            Normalized::Plain { rest, .. } | Normalized::Spaces { rest, .. } => rest.as_str().len(),
            #[cfg(feature = "nfc")]
            Normalized::Composed(composed) => composed.source().as_str().len(),
            #[cfg(feature = "bert-text")]
            Normalized::Bert(bert) => bert.source().as_str().len(),
        }
    }

    /// The text that is left, where it is left as it is.
    pub(super) fn plain(&self) -> Option<&'t str> {
        match self {
            Normalized::Plain { space: false, rest } => Some(rest.as_str()),
            _ => None,
        }
    }
}

impl Iterator for Normalized<'_> {
    type Item = char;

    #[inline]
    fn next(&mut self) -> Option<char> {
        match self {
            Normalized::Plain { space, .. } | Normalized::Spaces { space, .. } if *space => {
                *space = false;
                Some(' ')
            }
            Normalized::Plain { rest, .. } => rest.next(),
            Normalized::Spaces { rest, .. } => {
                rest.next().map(|character| if character == SPACE_SIGN { ' ' } else { character })
            }
            #[cfg(feature = "nfc")]
            Normalized::Composed(composed) => composed.next(),
            #[cfg(feature = "bert-text")]
            Normalized::Bert(bert) => bert.next(),
        }
    }
}

/// Text without control characters, with spaces around Chinese characters.
#[derive(Clone, Debug)]
struct Cleaned<'t> {
    steps: BertNormalizer,
    rest: Chars<'t>,
    /// The last character, where it is still to come, and the space after it.
    chinese: Option<char>,
    space: bool,
}

impl Iterator for Cleaned<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        if let Some(character) = self.chinese.take() {
            self.space = true;
            return Some(character);
        }
        if self.space {
            self.space = false;
            return Some(' ');
        }
        loop {
            let mut character = self.rest.next()?;
            if self.steps.clean_text {
                if is_dropped(character) {
                    continue;
                }
                if character.is_whitespace() {
                    character = ' ';
                }
            }
            if self.steps.space_chinese && is_chinese(character) {
                self.chinese = Some(character);
                return Some(' ');
            }
            return Some(character);
        }
    }
}

fn is_dropped(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        '\0' | '\u{fffd}' => true,
        _ => bert_category(character) == BertCategory::Other,
    }
}

/// The blocks that BERT takes for Chinese; the extension that begins at U+2B820 is left out there, too.
fn is_chinese(character: char) -> bool {
    matches!(u32::from(character),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x2_0000..=0x2_a6df | 0x2_a700..=0x2_b73f | 0x2_b740..=0x2_b81f
        | 0x2_b920..=0x2_ceaf | 0xf900..=0xfaff | 0x2_f800..=0x2_fa1f)
}

/// Cleaned text, decomposed where accents are stripped.
#[derive(Clone, Debug)]
enum Accents<'t> {
    Kept(Cleaned<'t>),
    Stripped(Decomposed<Cleaned<'t>>),
}

/// Text as BERT normalizes it.
#[derive(Clone, Debug)]
pub(super) struct Bert<'t> {
    lowercase: bool,
    accents: Accents<'t>,
    /// The last character in lower case, as far as it is still to come.
    lower: Option<ToLowercase>,
}

impl<'t> Bert<'t> {
    fn new(steps: BertNormalizer, rest: Chars<'t>) -> Self {
        let cleaned = Cleaned { steps, rest, chinese: None, space: false };
        let accents = if steps.strip_accents {
            Accents::Stripped(Decomposed::new(cleaned))
        } else {
            Accents::Kept(cleaned)
        };
        Bert { lowercase: steps.lowercase, accents, lower: None }
    }

    fn source(&self) -> &Chars<'t> {
        match &self.accents {
            Accents::Kept(cleaned) => &cleaned.rest,
            Accents::Stripped(decomposed) => &decomposed.source().rest,
        }
    }
}

impl Iterator for Bert<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        if let Some(character) = self.lower.as_mut().and_then(Iterator::next) {
            return Some(character);
        }
        let character = match &mut self.accents {
            Accents::Kept(cleaned) => cleaned.next()?,
            Accents::Stripped(decomposed) => {
                decomposed.find(|&character| bert_category(character) != BertCategory::NonspacingMark)?
            }
        };
        if !self.lowercase {
            return Some(character);
        }
        let mut lower = character.to_lowercase();
        let first = lower.next();
        self.lower = Some(lower);
        first
    }
}
