//! Ids and text equal those of the `tokenizers` crate, over real text, every block of Unicode, odd cases and random strings.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use both::{Both, ODD, beginning, decode, embedded, every_block, path, shared};

mod both;
mod kinds;

#[test]
fn odd_cases() {
    let both = Both::of_file(&embedded());
    for text in ODD {
        both.check(text);
        both.check_pieces(text);
    }
    for length in [100, 1000, 20_000] {
        for unit in ["a", "the", " ", "\n", "1", "!", "\u{e9}", "abcdefghij", "ab ", "<|endoftext|>"] {
            both.check(&unit.repeat(length / unit.len()));
        }
    }
}

#[test]
fn stories() {
    let both = Both::of_file(&embedded());
    for name in ["calibration.txt", "held_out.txt"] {
        let text = beginning(&path("../models/stories-1m").join(name), 300_000);
        let tokens = both.check(&text);
        assert!(tokens * 2 < text.len(), "{tokens} tokens");
    }
    both.check_pieces(&beginning(&path("../models/stories-1m/held_out.txt"), 20_000));
}

#[test]
fn larger_vocabulary_and_wikitext() {
    let stories_7m = shared("models/stories-7m/tokenizer.json");
    let wikitext =
        ["wiki.test.raw", "wiki.valid.tokens"].map(|name| shared(&format!("data/wikitext-2/{name}")));
    let mut tokenizers = vec![Both::of_file(&embedded())];
    tokenizers.extend(stories_7m.map(|path| Both::of_file(&path)));
    for both in &tokenizers {
        for text in wikitext.iter().flatten() {
            both.check(&beginning(text, 300_000));
        }
        both.check(&beginning(&path("../models/stories-1m/held_out.txt"), 200_000));
        ODD.iter().for_each(|text| {
            both.check(text);
        });
    }
}

/// Every character of Unicode, 256 at a time, without exception.
#[test]
fn every_block_of_unicode() {
    every_block(&Both::of_file(&embedded()));
}

/// A small vocabulary: the bytes, some merges in either spelling, added tokens.
fn small(pre_tokenizer: &Value, added: &Value, edit: impl Fn(&mut Value)) -> Value {
    let embedded: Value = serde_json::from_slice(&fs::read(embedded()).unwrap()).unwrap();
    let mut json = embedded.clone();
    json["pre_tokenizer"] = pre_tokenizer.clone();
    json["added_tokens"] = added.clone();
    edit(&mut json);
    json
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex})
}

fn added(id: u32, content: &str, special: bool, normalized: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": normalized, "special": special})
}

/// The same, taking white space in front or behind.
fn stripping(id: u32, content: &str, special: bool, [left, right]: [bool; 2]) -> Value {
    let mut token = added(id, content, special, false);
    token["lstrip"] = json!(left);
    token["rstrip"] = json!(right);
    token
}

/// Added tokens that take white space, also each other's: runs of spaces are added tokens, too.
fn strips() -> Value {
    let mut tokens = vec![
        stripping(0, "<|endoftext|>", true, [true, true]),
        stripping(1024, "<|user|>", true, [false, true]),
        stripping(1025, "<mask>", true, [true, false]),
        stripping(1026, "  ", false, [false, false]),
        stripping(1027, "\n\n", false, [false, false]),
        stripping(1028, "zq", false, [false, true]),
    ];
    for (id, content, strips) in [(1029, "\t", [false, true]), (1030, "end", [true, true])] {
        let mut token = stripping(id, content, id == 1030, strips);
        token["normalized"] = json!(true);
        tokens.push(token);
    }
    json!(tokens)
}

#[test]
fn white_space_beside_added_tokens() {
    let both: Vec<Both> = [byte_level(false, true), byte_level(true, true)]
        .iter()
        .map(|pre_tokenizer| Both::of_json(&small(pre_tokenizer, &strips(), |_| {})))
        .collect();
    let parts = [
        "<|user|>",
        "<|endoftext|>",
        "<mask>",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "zq",
        "end",
        "x",
        "\u{a0}",
        "\u{2003}\u{85}",
        "<|",
        ">",
        "\u{1c}",
        "\u{200b}",
    ];
    // Every two, three and, one of many, four of them.
    let mut texts: Vec<String> = Vec::new();
    for a in parts {
        for b in parts {
            texts.push([a, b].concat());
            for c in parts {
                texts.push([a, b, c].concat());
                let last = parts[texts.len() % parts.len()];
                texts.push([a, b, c, last, b].concat());
            }
        }
    }
    // White space that takes white space: the reference fails where it would have to begin behind its end.
    let mut hungry = strips();
    hungry[4]["lstrip"] = json!(true);
    let hungry = Both::of_json(&small(&byte_level(false, true), &hungry, |_| {}));
    for text in ["<|user|>\n\n", "x \n\n<|user|>\n\nx", "\n\n<mask>", "a  \n\n  b"] {
        hungry.check(text);
    }
    for both in &both {
        for text in &texts {
            both.check(text);
        }
        texts.iter().step_by(7).for_each(|text| both.check_pieces(text));
    }
}

/// Tokenizers that use everything that is supported.
fn variants() -> Vec<(&'static str, Value)> {
    let end = json!([added(0, "<|endoftext|>", true, false)]);
    let overlapping = json!([
        added(0, "<|endoftext|>", true, false),
        added(1024, "end", false, false),
        added(1025, "<|end", false, true),
        added(1026, "|>", true, true),
        added(1027, "  ", false, false),
        added(1028, "dof", false, true),
        added(1029, "\u{65e5}t\u{672c}", false, false),
        added(1030, "text|>!", false, false),
    ]);
    let digits = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true}, byte_level(false, true)]});
    let shuffle = |json: &mut Value| {
        // Other ids in another order, and a hole: neither results nor byte tokens are consecutive.
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        for id in vocab.values_mut() {
            let old = id.as_u64().unwrap();
            *id = json!(if old == 0 { 0 } else { (old * 611) % 1024 + 1 + old / 1024 });
        }
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        // Legacy spelling.
        for merge in merges.iter_mut() {
            *merge = json!(format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()));
        }
    };
    let reverse = |json: &mut Value| json["model"]["merges"].as_array_mut().unwrap().reverse();
    let lacking = |json: &mut Value| {
        // A vocabulary that was trained on text that never had some bytes: no merge needs them.
        let merged = json["model"]["merges"].to_string();
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let is_missing =
            |token: &str| token.chars().count() == 1 && !token.is_ascii() && !merged.contains(token);
        let missing: Vec<String> = vocab.keys().filter(|token| is_missing(token)).cloned().collect();
        assert!(missing.len() > 20, "{missing:?}");
        missing.iter().for_each(|token| drop(vocab.remove(token)));
    };
    vec![
        ("bytes without tokens", small(&byte_level(false, true), &end, lacking)),
        ("plain", small(&byte_level(false, false), &end, |_| {})),
        ("prefix space", small(&byte_level(true, true), &end, |_| {})),
        ("prefix space, plain", small(&byte_level(true, false), &end, |_| {})),
        ("digits", small(&digits, &end, |_| {})),
        ("overlapping added tokens", small(&byte_level(false, true), &overlapping, |_| {})),
        ("overlapping added tokens, prefix space", small(&byte_level(true, true), &overlapping, |_| {})),
        ("no added tokens", small(&byte_level(false, true), &json!([]), |_| {})),
        ("other ids", small(&byte_level(false, true), &end, shuffle)),
        ("reversed merges", small(&byte_level(false, true), &end, reverse)),
        (
            "ignored merges",
            small(&byte_level(false, true), &end, |json| {
                reverse(json);
                json["model"]["ignore_merges"] = json!(true);
            }),
        ),
        ("wide ids", wide()),
    ]
}

/// More than 65,536 tokens: the embedded one's, their merges, and then every pair of two bytes.
fn wide() -> Value {
    let end = json!([added(0, "<|endoftext|>", true, false)]);
    small(&byte_level(false, true), &end, |json| {
        let vocab = json["model"]["vocab"].as_object().unwrap().clone();
        let bytes: Vec<&String> = vocab.keys().filter(|token| token.chars().count() == 1).collect();
        assert_eq!(bytes.len(), 256);
        let mut next = vocab.len();
        for left in &bytes {
            for right in &bytes {
                let both = format!("{left}{right}");
                if !vocab.contains_key(&both) {
                    json["model"]["vocab"][both] = json!(next);
                    next += 1;
                    json["model"]["merges"].as_array_mut().unwrap().push(json!([left, right]));
                }
            }
        }
        assert!(next > 65_536);
    })
}

#[test]
fn every_supported_variant() {
    let stories = beginning(&path("../models/stories-1m/held_out.txt"), 20_000);
    for (name, json) in variants() {
        eprintln!("{name}");
        let both = Both::of_json(&json);
        for text in ODD {
            both.check(text);
            both.check_pieces(text);
        }
        // Without a pattern to cut it the reference takes long for a long text, too.
        both.check(&stories);
        both.check("<|endoftext|>!<|end<|endoftext|>text|>!  \u{65e5}t\u{672c}\u{65e5}t the end of dof|>");
        for length in [10, 3000] {
            both.check(&"a".repeat(length));
            both.check(&"thethat".repeat(length / 7));
        }
    }
}

/// The one deliberate difference: the reference takes the letters of an added token's content for byte-level characters when all
/// of them could be, and decodes it to something else than what it was encoded from.
#[test]
fn an_added_token_decodes_to_its_content() {
    let content = "\u{e9}t\u{e9}";
    let both =
        Both::of_json(&small(&byte_level(false, true), &json!([added(1024, content, false, false)]), |_| {}));
    let tokenizer = both.tokenizer();
    let mut out = [0; 8];
    assert_eq!(tokenizer.encode(content, false, &mut out), Ok(1));
    assert_eq!(out[0], 1024);
    assert_eq!(decode(&tokenizer, &out[..1], false), content);
    assert_ne!(both.reference.decode(&out[..1], false).unwrap(), content);
}

#[test]
fn undecodable_bytes_become_replacement_characters_as_in_the_reference() {
    let both = Both::of_file(&embedded());
    let tokenizer = both.tokenizer();
    let mut state = 1_u32;
    for _ in 0..2000 {
        let ids: Vec<u32> = (0..12)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Mostly single bytes, which are below 257.
                if state >> 30 == 0 { (state >> 8) % 1024 } else { (state >> 8) % 257 }
            })
            .collect();
        assert_eq!(decode(&tokenizer, &ids, false), both.reference.decode(&ids, false).unwrap());
    }
    assert_eq!(decode(&tokenizer, &[5000, u32::MAX], false), "");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_string(text in "\\PC*") {
        thread_local!(static BOTH: Both = Both::of_file(&embedded()));
        BOTH.with(|both| both.check(&text));
    }

    #[test]
    fn text_of_the_interesting_characters(
        text in "([a-z']|[ \t\r\n]|'(s|t|re|ve|m|ll|d)|[0-9]|[.,!\"<|>]|<\\|endoftext\\|>|[\u{a0}-\u{2ff}]|\\p{Greek}|\\p{Emoji}){0,60}",
        cut in 0_usize..100,
    ) {
        thread_local!(static BOTH: Both = Both::of_file(&embedded()));
        BOTH.with(|both| {
            both.check(&text);
            both.check_pieces(&text);
            let cut = cut.min(text.len());
            if text.is_char_boundary(cut) {
                both.check(&text[cut..]);
            }
        });
    }
}
