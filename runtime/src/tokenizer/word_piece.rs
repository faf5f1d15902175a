//! WordPiece: the longest token that fits, from the left.
//!
//! Wu et al., "Google's Neural Machine Translation System" (2016), section 4.1, with the greedy search of BERT. A word of n
//! characters takes at most n searches, each of at most 255 bytes.

use rescomp_formats::tokenizer::{CONTINUATION, TokenizerView};

/// Encodes one word: its ids are at the front of `out` afterwards; returns their number.
///
/// A word with a part that no token fits is the unknown token. `None` where `out` has fewer elements than the word
/// characters.
pub(super) fn encode(
    view: &TokenizerView<'_>,
    word: impl Iterator<Item = char> + Clone,
    characters: usize,
    out: &mut [u32],
) -> Option<usize> {
    if out.len() < characters {
        return None;
    }
    let unknown = view.unknown_token()?;
    if characters <= view.max_word_characters() as usize {
        let mut rest = word;
        let (mut place, mut count) = (0, 0);
        while place < characters {
            let Some((id, length)) = longest(view, rest.clone(), place > 0) else { break };
            *out.get_mut(count)? = id;
            count += 1;
            place += length;
            rest.nth(length - 1);
        }
        if place == characters {
            return Some(count);
        }
    }
    *out.first_mut()? = unknown;
    Some(1)
}

/// The longest token at the beginning of a text, and how many characters it has.
fn longest(
    view: &TokenizerView<'_>,
    text: impl Iterator<Item = char>,
    continues: bool,
) -> Option<(u32, usize)> {
    let mut narrowing = view.narrowing();
    if continues && !CONTINUATION.iter().all(|&byte| view.narrow(&mut narrowing, byte)) {
        return None;
    }
    let mut longest = None;
    for (characters, character) in (1..).zip(text) {
        if !character.encode_utf8(&mut [0; 4]).bytes().all(|byte| view.narrow(&mut narrowing, byte)) {
            break;
        }
        if let Some((id, _)) = view.narrowed_token(&narrowing) {
            longest = Some((id, characters));
        }
    }
    longest
}
