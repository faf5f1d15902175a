//! Cutting text into pre-tokens, as state machines.
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
//! after a space) decides. Llama 3's:
//!
//! ```text
//! (?i:'s|'t|'re|'ve|'m|'ll|'d)
//! [^\r\n\p{L}\p{N}]?\p{L}+     letters, with one other character before them that doesn't end a line
//! \p{N}{1,3}                   up to three numbers
//!  ?[^\s\p{L}\p{N}]+[\r\n]*    anything but white space, with the line ends after it
//! \s*[\r\n]+                   white space up to its last line end
//! \s+(?!\S)|\s+
//! ```
//!
//! Qwen 2's has `\p{N}` in the place of `\p{N}{1,3}`.

use rescomp_formats::tokenizer::PreTokenizer;

use super::unicode::{BertCategory, Category, bert_category, category};

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
        _ => match category(character) {
            Category::Letter => Class::Letter,
            Category::Number => Class::Number,
            Category::Other => Class::Other,
        },
    }
}

/// Where the first pre-token lies, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Characters in front of it that are dropped.
    pub(super) dropped: usize,
    /// Its own; 0 only at the end of the text.
    pub(super) characters: usize,
}

/// The first pre-token of a text.
///
/// With `words_are_separate` a text that the pre-tokenizer leaves whole is cut where no token reaches across.
pub(super) fn first_pre_token(
    kind: PreTokenizer,
    words_are_separate: bool,
    text: impl Iterator<Item = char> + Clone,
) -> Extent {
    let characters = match kind {
        PreTokenizer::Gpt2 | PreTokenizer::DigitsGpt2 if cfg!(feature = "gpt2-pattern") => {
            gpt2(text, kind == PreTokenizer::DigitsGpt2)
        }
        PreTokenizer::Llama3 | PreTokenizer::Qwen2 if cfg!(feature = "llama3-pattern") => {
            llama3(text, if kind == PreTokenizer::Qwen2 { 1 } else { 3 })
        }
        PreTokenizer::ByteLevel if words_are_separate => spaces_and_word(text),
        PreTokenizer::ByteLevel => text.count(),
        PreTokenizer::Spaces if cfg!(any(feature = "character-bpe", feature = "unigram")) => {
            first_and_run(text, |character| character != ' ')
        }
        PreTokenizer::Bert if cfg!(feature = "bert-text") => return bert(text),
        // No text is encoded where its part isn't built: the encoder has said so.
        _ => 0,
    };
    Extent { dropped: 0, characters }
}

fn run(text: impl Iterator<Item = char>, belongs: impl Fn(char) -> bool) -> usize {
    text.take_while(|&character| belongs(character)).count()
}

fn first_and_run(mut text: impl Iterator<Item = char>, belongs: impl Fn(char) -> bool) -> usize {
    if text.next().is_none() { 0 } else { 1 + run(text, belongs) }
}

/// Spaces and what follows them, up to the next space.
fn spaces_and_word(text: impl Iterator<Item = char> + Clone) -> usize {
    let spaces = run(text.clone(), |character| character == ' ');
    spaces + run(text.skip(spaces), |character| character != ' ')
}

fn gpt2(text: impl Iterator<Item = char> + Clone, individual_digits: bool) -> usize {
    let class = |character| class(character, individual_digits);
    if let Some(length) = contraction(text.clone(), false) {
        return length;
    }
    let mut rest = text.clone();
    let Some(first) = rest.next() else { return 0 };
    let (spaces, of) = match (first, rest.clone().next()) {
        (' ', None) => return 1,
        (' ', Some(second)) => (1, class(second)),
        _ => (0, class(first)),
    };
    match of {
        Class::Digit => 1,
        Class::WhiteSpace => white_space(text, class),
        of => spaces + run(text.skip(spaces), |character| class(character) == of),
    }
}

fn llama3(text: impl Iterator<Item = char> + Clone, most_numbers: usize) -> usize {
    let class = |character| class(character, false);
    let ends_line = |character| matches!(character, '\r' | '\n');
    if let Some(length) = contraction(text.clone(), true) {
        return length;
    }
    let mut rest = text.clone();
    let Some(first) = rest.next() else { return 0 };
    let second = rest.clone().next().map(class);
    match class(first) {
        Class::Letter => 1 + run(rest, |character| class(character) == Class::Letter),
        Class::Number | Class::Digit => {
            1 + run(rest.take(most_numbers - 1), |character| class(character) == Class::Number)
        }
        _ if second == Some(Class::Letter) && !ends_line(first) => {
            1 + run(rest, |character| class(character) == Class::Letter)
        }
        of if of == Class::Other || (first == ' ' && second == Some(Class::Other)) => {
            let others = 1 + run(rest.clone(), |character| class(character) == Class::Other);
            others + run(rest.skip(others - 1), ends_line)
        }
        _ => {
            let white = text.clone().take_while(|character| character.is_whitespace());
            match white.enumerate().filter(|&(_, character)| ends_line(character)).last() {
                Some((last, _)) => last + 1,
                None => white_space(text, class),
            }
        }
    }
}

/// A run of white space: all but its last character where something follows, unless it is the only one.
fn white_space(mut text: impl Iterator<Item = char>, class: impl Fn(char) -> Class) -> usize {
    let mut length = 0;
    loop {
        match text.next().map(&class) {
            Some(Class::WhiteSpace) => length += 1,
            // The end of the text, or of the piece between digits.
            None | Some(Class::Digit) => return length,
            Some(_) => return if length > 1 { length - 1 } else { length },
        }
    }
}

fn contraction(mut text: impl Iterator<Item = char>, any_case: bool) -> Option<usize> {
    let fold = |character: char| match character {
        // The long s is the only other character with one of these letters as its other case.
        '\u{17f}' if any_case => 's',
        _ if any_case => character.to_ascii_lowercase(),
        _ => character,
    };
    if text.next() != Some('\'') {
        return None;
    }
    match (fold(text.next()?), text.next().map(fold)) {
        ('s' | 't' | 'm' | 'd', _) => Some(2),
        ('r' | 'v', Some('e')) | ('l', Some('l')) => Some(3),
        _ => None,
    }
}

fn bert(text: impl Iterator<Item = char> + Clone) -> Extent {
    let is_punctuation = |character: char| {
        character.is_ascii_punctuation() || bert_category(character) == BertCategory::Punctuation
    };
    let dropped = run(text.clone(), char::is_whitespace);
    let mut rest = text.skip(dropped);
    let characters = match rest.next() {
        None => 0,
        Some(first) if is_punctuation(first) => 1,
        Some(_) => 1 + run(rest, |character| !character.is_whitespace() && !is_punctuation(character)),
    };
    Extent { dropped, characters }
}
