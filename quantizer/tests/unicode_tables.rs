//! The runtime's tables of Unicode are those of the reference, character by character.
//!
//! The `tokenizers` crate takes letters and numbers from its regular expressions (Unicode 16), normalization from
//! `unicode-normalization-alignments` (Unicode 9) and BERT's categories from `unicode_categories` (Unicode 8). Ids are equal only with
//! the same versions, so the tables are made from these crates and never updated by themselves. After an update of
//! `tokenizers`: `RESCOMP_WRITE_UNICODE_TABLES=1 cargo test -p rescomp-quantizer --test unicode_tables`.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, SplitDelimiterBehavior,
};
use unicode_categories::UnicodeCategories as _;
use unicode_normalization_alignments::char::{canonical_combining_class, compose, decompose_canonical};

fn characters() -> impl Iterator<Item = char> {
    (0..=u32::from(char::MAX)).filter_map(char::from_u32)
}

/// The characters that a regular expression of the reference matches.
fn matched(pattern: &str) -> HashSet<char> {
    let split =
        Split::new(SplitPattern::Regex(pattern.to_string()), SplitDelimiterBehavior::Removed, false).unwrap();
    let mut text = PreTokenizedString::from(characters().collect::<String>());
    split.pre_tokenize(&mut text).unwrap();
    let mut matched: HashSet<char> = characters().collect();
    for (unmatched, _, _) in text.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        unmatched.chars().for_each(|character| {
            matched.remove(&character);
        });
    }
    matched
}

/// Where a property changes: the first character of each stretch and its value, in one number.
fn changes(value_bits: u32, value: impl Fn(char) -> u32) -> Vec<u32> {
    let mut changes = vec![0];
    let mut last = 0;
    for character in characters() {
        let value = value(character);
        assert!(value < 1 << value_bits);
        if value != last {
            changes.push(u32::from(character) << value_bits | value);
            last = value;
        }
    }
    if changes.get(1).is_some_and(|first| first >> value_bits == 0) {
        changes.remove(0);
    }
    changes
}

/// Character, first and second of every canonical decomposition in two steps at most; second is 0 where there is one.
fn decompositions() -> Vec<[u32; 3]> {
    let mut whole: Vec<(char, Vec<char>)> = Vec::new();
    for character in characters().filter(|character| !matches!(character, '\u{ac00}'..='\u{d7a3}')) {
        let mut parts = Vec::new();
        decompose_canonical(character, |part| parts.push(part));
        if parts != [character] {
            whole.push((character, parts));
        }
    }
    let pair = |(character, parts): &(char, Vec<char>)| {
        let (&last, head) = parts.split_last().unwrap();
        let (first, second) = match head {
            [] => (last, '\0'),
            &[first] => (first, last),
            // A character that is never composed may be the first part all the same.
            head => {
                (whole.iter().find(|(_, parts)| parts == head).expect("a character for the head").0, last)
            }
        };
        [*character, first, second].map(u32::from)
    };
    whole.iter().map(pair).collect()
}

fn array(text: &mut String, documentation: &str, name: &str, kind: &str, elements: &[String]) {
    writeln!(text, "\n/// {documentation}").unwrap();
    write!(text, "#[rustfmt::skip]\npub(super) static {name}: [{kind}; {}] = [", elements.len()).unwrap();
    let mut column = 120;
    for element in elements {
        if column + element.len() + 2 > 120 {
            text.push_str("\n   ");
            column = 3;
        }
        write!(text, " {element},").unwrap();
        column += element.len() + 2;
    }
    text.push_str("\n];\n");
}

fn tables() -> String {
    let mut text = String::from(
        "//! Properties of characters as the `tokenizers` crate 0.23 has them.\n\
         //!\n\
         //! Written by `quantizer/tests/unicode_tables.rs`, which says from what: not to be edited.\n",
    );
    let numbers = |numbers: &[u32]| numbers.iter().map(|number| format!("{number:#x}")).collect::<Vec<_>>();
    let (letters, digits) = (matched(r"\p{L}+"), matched(r"\p{N}+"));
    let classes = changes(2, |character| {
        u32::from(letters.contains(&character)) + 2 * u32::from(digits.contains(&character))
    });
    array(
        &mut text,
        "Where general categories change: first character << 2 | (1 letter, 2 number, 0 neither). Unicode 16.",
        "CATEGORY_CHANGES",
        "u32",
        &numbers(&classes),
    );
    let bert = changes(2, |character| {
        u32::from(character.is_other())
            + 2 * u32::from(character.is_punctuation())
            + 3 * u32::from(character.is_mark_nonspacing())
    });
    array(
        &mut text,
        "Where BERT's categories change: first character << 2 | (1 other, 2 punctuation, 3 nonspacing mark, 0 none). Unicode 8.",
        "BERT_CHANGES",
        "u32",
        &numbers(&bert),
    );
    let combining = changes(8, |character| u32::from(canonical_combining_class(character)));
    array(
        &mut text,
        "Where canonical combining classes change: first character << 8 | class. Unicode 9.",
        "COMBINING_CLASS_CHANGES",
        "u32",
        &numbers(&combining),
    );
    let decompositions = decompositions();
    let triples: Vec<String> =
        decompositions.iter().map(|[c, a, b]| format!("[{c:#x}, {a:#x}, {b:#x}]")).collect();
    array(
        &mut text,
        "Character, first and second of its canonical decomposition (0: only one), but for Hangul. Unicode 9.",
        "DECOMPOSITIONS",
        "[u32; 3]",
        &triples,
    );
    let mut composed: Vec<usize> = (0..decompositions.len())
        .filter(|&index| {
            let [character, first, second] = decompositions[index].map(|code| char::from_u32(code).unwrap());
            second != '\0' && compose(first, second) == Some(character)
        })
        .collect();
    composed.sort_by_key(|&index| (decompositions[index][1], decompositions[index][2]));
    array(
        &mut text,
        "Indices of the decompositions that are also composed, sorted by first and second.",
        "COMPOSITIONS",
        "u16",
        &composed.iter().map(usize::to_string).collect::<Vec<_>>(),
    );
    text
}

#[test]
fn the_runtimes_tables_are_the_references() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src/tokenizer/unicode/tables.rs");
    let tables = tables();
    if std::env::var_os("RESCOMP_WRITE_UNICODE_TABLES").is_some() {
        fs::write(&path, &tables).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == tables, "{} is not what the reference has", path.display());
}
