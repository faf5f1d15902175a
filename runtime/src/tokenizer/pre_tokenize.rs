//! Cutting text into pre-tokens, as a state machine.
//!
//! GPT-2's pattern, whose alternatives are tried in this order wherever the last pre-token ended:
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d      an English contraction
//!  ?\p{L}+                     letters,                  with one space before them if there is one
//!  ?\p{N}+                     numbers,                  "
//!  ?[^\s\p{L}\p{N}]+           anything but white space, "
//! \s+(?!\S)                    white space, but for the last character where something else follows
//! \s+                          white space
//! ```
//!
//! Every alternative but the first is a run of characters of one class, so one look at the first character (or at the second,
//! after a space) decides. `\p{L}` and `\p{N}` are general categories from the `unicode-properties` crate. Its version of
//! Unicode may be newer than another tokenizer's: a letter that is not assigned in the older version is in `[^\s\p{L}\p{N}]` there.

use rescomp_formats::tokenizer::PreTokenizer;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    WhiteSpace,
    Other,
    /// A numeric character where these are cut out one by one: never part of a longer pre-token.
    Digit,
}

fn class(character: char, individual_digits: bool) -> Class {
    match character {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        _ if individual_digits && character.is_numeric() => Class::Digit,
        '0'..='9' => Class::Number,
        _ if character.is_whitespace() => Class::WhiteSpace,
        '\0'..='\x7f' => Class::Other,
        _ => match character.general_category_group() {
            GeneralCategoryGroup::Letter => Class::Letter,
            GeneralCategoryGroup::Number => Class::Number,
            _ => Class::Other,
        },
    }
}

/// Length in bytes of the first pre-token of `text`, which is not empty.
///
/// With `after_space`, the text is taken as if a space preceded it that is the first character of the pre-token and is not
/// counted; then the length may be 0.
pub(super) fn pre_token_length(kind: PreTokenizer, text: &str, after_space: bool) -> usize {
    match kind {
        PreTokenizer::Gpt2 => gpt2_length(text, after_space, false),
        PreTokenizer::DigitsGpt2 => gpt2_length(text, after_space, true),
        // The other two don't pass the section's check.
        PreTokenizer::ByteLevel | PreTokenizer::Llama3 | PreTokenizer::Qwen2 => text.len(),
    }
}

fn gpt2_length(text: &str, after_space: bool, individual_digits: bool) -> usize {
    let class = |character| class(character, individual_digits);
    let run = |start: usize, of: Class| {
        let rest = text.get(start..).unwrap_or_default();
        start + rest.find(|character| class(character) != of).unwrap_or(rest.len())
    };

    if !after_space && let Some(length) = contraction_length(text.as_bytes()) {
        return length;
    }
    let spaces = usize::from(!after_space && text.starts_with(' '));
    let Some(first) = text.get(spaces..).and_then(|rest| rest.chars().next()) else { return spaces };
    let digit_without_space = spaces == 0 && !after_space;
    match class(first) {
        Class::Digit if digit_without_space => first.len_utf8(),
        // The space before it is a run of white space that ends where the digit was cut out.
        Class::Digit => spaces,
        Class::WhiteSpace => {
            let end = run(spaces, Class::WhiteSpace);
            let (inside, rest) = text.split_at_checked(end).unwrap_or((text, ""));
            match rest.chars().next() {
                // The end of the text, or of the piece between digits.
                None => end,
                Some(next) if class(next) == Class::Digit => end,
                // All but the last character, unless it is the only one.
                Some(_) => {
                    let last = inside.chars().next_back().map_or(0, char::len_utf8);
                    if end > last || after_space { end - last } else { end }
                }
            }
        }
        of => run(spaces, of),
    }
}

fn contraction_length(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(3),
        _ => None,
    }
}
