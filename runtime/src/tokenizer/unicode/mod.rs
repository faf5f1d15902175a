//! Properties of characters, and Unicode's canonical decomposition and composition as iterators without memory.
#![cfg_attr(
    not(all(feature = "nfc", feature = "bert-text")),
    allow(dead_code, unused_imports, reason = "parts that are not built")
)]

mod compose;
mod decompose;
mod tables;

pub(super) use compose::Composed;
pub(super) use decompose::Decomposed;

/// What GPT-2's pattern and its relatives tell apart, besides white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    Letter,
    Number,
    Other,
}

/// What BERT tells apart, besides white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BertCategory {
    /// Control and format characters, private use, unassigned.
    Other,
    Punctuation,
    NonspacingMark,
    Rest,
}

/// The value of the stretch that a character lies in.
fn value_at(changes: &[u32], value_bits: u32, character: char) -> u32 {
    let mask = (1 << value_bits) - 1;
    let after = changes.partition_point(|change| change >> value_bits <= u32::from(character));
    after.checked_sub(1).and_then(|index| changes.get(index)).map_or(0, |change| change & mask)
}

/// General categories `L` and `N`.
pub(super) fn category(character: char) -> Category {
    match character {
        'a'..='z' | 'A'..='Z' => return Category::Letter,
        '0'..='9' => return Category::Number,
        '\0'..='\x7f' => return Category::Other,
        _ => {}
    }
    match value_at(&tables::CATEGORY_CHANGES, 2, character) {
        1 => Category::Letter,
        2 => Category::Number,
        _ => Category::Other,
    }
}

/// General categories `C`, `P` and `Mn`.
pub(super) fn bert_category(character: char) -> BertCategory {
    match value_at(&tables::BERT_CHANGES, 2, character) {
        1 => BertCategory::Other,
        2 => BertCategory::Punctuation,
        3 => BertCategory::NonspacingMark,
        _ => BertCategory::Rest,
    }
}

/// Canonical combining class: 0 for a starter.
pub(super) fn combining_class(character: char) -> u8 {
    if character < '\u{300}' {
        return 0;
    }
    value_at(&tables::COMBINING_CLASS_CHANGES, 8, character) as u8
}

const HANGUL_FIRST: u32 = 0xac00;
const HANGUL_LEADING: u32 = 0x1100;
const HANGUL_VOWEL: u32 = 0x1161;
/// One below the first trailing consonant: a syllable may have none.
const HANGUL_TRAILING: u32 = 0x11a7;
const HANGUL_LEADING_COUNT: u32 = 19;
const HANGUL_VOWEL_COUNT: u32 = 21;
const HANGUL_TRAILING_COUNT: u32 = 28;
const HANGUL_COUNT: u32 = HANGUL_LEADING_COUNT * HANGUL_VOWEL_COUNT * HANGUL_TRAILING_COUNT;

/// The two parts of a character's canonical decomposition, the first of which may have one itself; the second may be absent.
fn decomposition(character: char) -> Option<(char, Option<char>)> {
    if character < '\u{c0}' {
        return None;
    }
    let code = u32::from(character);
    if let Some(syllable) = code.checked_sub(HANGUL_FIRST).filter(|&syllable| syllable < HANGUL_COUNT) {
        let trailing = syllable % HANGUL_TRAILING_COUNT;
        let (first, second) = if trailing > 0 {
            (code - trailing, HANGUL_TRAILING + trailing)
        } else {
            let pair = syllable / HANGUL_TRAILING_COUNT;
            (HANGUL_LEADING + pair / HANGUL_VOWEL_COUNT, HANGUL_VOWEL + pair % HANGUL_VOWEL_COUNT)
        };
        return Some((char::from_u32(first)?, char::from_u32(second)));
    }
    let index = tables::DECOMPOSITIONS.binary_search_by_key(&code, |&[from, _, _]| from).ok()?;
    let [_, first, second] = *tables::DECOMPOSITIONS.get(index)?;
    Some((char::from_u32(first)?, char::from_u32(second).filter(|&second| second != '\0')))
}

/// The character that two compose to.
fn composition(first: char, second: char) -> Option<char> {
    let (left, right) = (u32::from(first), u32::from(second));
    if let Some(vowel) = right.checked_sub(HANGUL_VOWEL).filter(|&vowel| vowel < HANGUL_VOWEL_COUNT)
        && let Some(leading) = left.checked_sub(HANGUL_LEADING).filter(|&one| one < HANGUL_LEADING_COUNT)
    {
        return char::from_u32(HANGUL_FIRST + (leading * HANGUL_VOWEL_COUNT + vowel) * HANGUL_TRAILING_COUNT);
    }
    if let Some(trailing) = right.checked_sub(HANGUL_TRAILING)
        && (1..HANGUL_TRAILING_COUNT).contains(&trailing)
        && let Some(syllable) = left.checked_sub(HANGUL_FIRST).filter(|&syllable| syllable < HANGUL_COUNT)
        && syllable.is_multiple_of(HANGUL_TRAILING_COUNT)
    {
        return char::from_u32(left + trailing);
    }
    let decomposition =
        |index: u16| tables::DECOMPOSITIONS.get(usize::from(index)).copied().unwrap_or_default();
    let found = tables::COMPOSITIONS.binary_search_by_key(&(left, right), |&index| {
        let [_, first, second] = decomposition(index);
        (first, second)
    });
    char::from_u32(decomposition(*tables::COMPOSITIONS.get(found.ok()?)?)[0])
}
