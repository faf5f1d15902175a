//! Ids and text equal those of the `tokenizers` crate, over real text, every block of Unicode, odd cases and random strings.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rescomp_formats::tokenizer::TokenizerView;
use rescomp_quantizer::tokenizer_json::{read_tokenizer_json, tokenizer_section};
use rescomp_runtime::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as Reference};

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn embedded() -> PathBuf {
    path("../models/stories-1m/tokenizer.json")
}

/// A file that isn't part of the project; says so where it is absent.
fn shared(relative: &str) -> Option<PathBuf> {
    let path = path("../../shared").join(relative);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent", path.display());
    None
}

/// Ours and the reference, made from the same file.
struct Both {
    section: Vec<u8>,
    /// Special tokens in the text are tokens.
    reference: Reference,
    /// They are text.
    reference_plain: Reference,
}

impl Both {
    fn of_file(path: &Path) -> Self {
        Self::new(read_tokenizer_json(path, None).unwrap(), &fs::read(path).unwrap())
    }

    fn of_json(json: &Value) -> Self {
        let json = json.to_string();
        let section = tokenizer_section(json.as_bytes(), Path::new("tokenizer.json"), None).unwrap();
        Self::new(section, json.as_bytes())
    }

    fn new(section: Vec<u8>, json: &[u8]) -> Self {
        let reference = Reference::from_bytes(json).unwrap();
        let mut reference_plain = reference.clone();
        reference_plain.set_encode_special_tokens(true);
        Both { section, reference, reference_plain }
    }

    fn tokenizer(&self) -> Tokenizer<'_> {
        Tokenizer::new(TokenizerView::parse(&self.section).unwrap())
    }

    /// Panics unless both agree on the text; returns the number of tokens.
    fn check(&self, text: &str) -> usize {
        let tokenizer = self.tokenizer();
        let mut out = vec![u32::MAX; tokenizer.max_tokens(text.len())];
        let mut tokens = 0;
        for (allow_special, reference) in [(false, &self.reference_plain), (true, &self.reference)] {
            tokens = tokenizer.encode(text, allow_special, &mut out).unwrap();
            let expected = reference.encode_fast(text, false).unwrap();
            if expected.get_ids() != &out[..tokens] {
                let differs = expected.get_ids().iter().zip(&out).position(|(a, b)| a != b).unwrap_or(0);
                let (_, end) = expected.get_offsets()[differs];
                panic!(
                    "differs at token {differs} in {text:.100?}, near {:?}",
                    text.get(end.saturating_sub(20)..end)
                );
            }
            let decoded = decode(&tokenizer, &out[..tokens], false);
            if tokenizer.view().add_prefix_space() {
                assert_eq!(decoded, reference.decode(&out[..tokens], false).unwrap());
            } else {
                assert_eq!(decoded, text);
            }
            let skipped = decode(&tokenizer, &out[..tokens], true);
            assert_eq!(skipped, reference.decode(&out[..tokens], true).unwrap());
        }
        tokens
    }

    /// The same tokens in pieces, into the least memory that the text allows.
    fn check_pieces(&self, text: &str) {
        let tokenizer = self.tokenizer();
        let mut whole = vec![0; tokenizer.max_tokens(text.len())];
        let tokens = tokenizer.encode(text, true, &mut whole).unwrap();
        let mut encoder = tokenizer.encoder(text, true);
        let mut pieces = Vec::new();
        while encoder.room_needed() > 0 {
            let mut out = vec![0; encoder.room_needed()];
            assert!(encoder.clone().next_tokens(&mut out[1..]).is_err());
            let count = encoder.next_tokens(&mut out).unwrap();
            pieces.extend_from_slice(&out[..count]);
        }
        assert_eq!(encoder.next_tokens(&mut []), Ok(0));
        assert_eq!(encoder.text_bytes(), text.len());
        assert_eq!(pieces, whole[..tokens]);
    }
}

fn decode(tokenizer: &Tokenizer<'_>, ids: &[u32], skip_special: bool) -> String {
    let mut text = String::new();
    tokenizer.decode(ids, skip_special, |part| text.push_str(part));
    text
}

/// The beginning of a text file, up to a character boundary.
fn beginning(path: &Path, bytes: usize) -> String {
    let text = fs::read_to_string(path).unwrap();
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap();
    text[..end].to_string()
}

const ODD: &[&str] = &[
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "  a",
    "\n",
    "\n\n",
    "\na",
    "\n\na",
    " \n a",
    "\t\t\tx",
    "a \t\n\r\n b",
    "line\r\nline\r\n\r\n  line",
    "   \u{a0}\u{a0}x\u{2003}\u{2003} y\u{3000}z \u{85}\u{2028}\u{2029}q",
    "\u{200b}\u{feff}\u{1680}x",
    "It's I'm you're we've they'll he'd don't 's 't 're 've 'm 'll 'd",
    "'S 'T 'RE it'S 'stop 'really ''s '''ll '\n's' 's's's 'l 'r 'v '",
    " 's  's\n's 'x",
    "1 12 123 1234 3.14 1,000,000 10% a1b2 1a 2\u{b2}\u{bd}\u{2167}\u{663}\u{96d}",
    "  12  34\n56 \t7",
    "hello!!! ... ?! -- __init__ #hash @at a+b=c {x: [1, 2]} <tag/> $5 \\n",
    "<|endoftext|>",
    "a<|endoftext|>b",
    " <|endoftext|> <|endoftext|>\n<|endoftext|><|endoftext|>",
    "<|endoftext|",
    "<<|endoftext|>>",
    "<|endoftext<|endoftext|>|>",
    "\u{1f600}\u{1f469}\u{200d}\u{1f4bb}\u{1f1e9}\u{1f1ea}\u{1f44d}\u{1f3fd} \u{2764}\u{fe0f}",
    "na\u{ef}ve caf\u{e9} cafe\u{301} \u{130}stanbul Stra\u{df}e \u{fb01}n \u{1c5}",
    "\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}\u{3002} \u{3053}\u{3093} \u{c548}\u{b155}",
    "\u{41f}\u{440}\u{438} \u{5e9}\u{5dc}\u{5d5} \u{645}\u{631}\u{62d}\u{628}\u{627} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}",
    "\u{0}\u{1}\u{7f}\u{80}\u{9f}\u{ad}\u{fffd}\u{fffe}\u{10ffff}\u{e000}",
    "a\u{300}\u{301}\u{302}b \u{20dd}\u{61c}",
];

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

/// Splits before and after everything that a regular expression of the `tokenizers` crate matches.
fn matches(pattern: &str, text: &str) -> bool {
    let split =
        Split::new(SplitPattern::Regex(pattern.to_string()), SplitDelimiterBehavior::Removed, false).unwrap();
    let mut text = PreTokenizedString::from(text);
    split.pre_tokenize(&mut text).unwrap();
    text.get_splits(OffsetReferential::Original, OffsetType::Byte).is_empty()
}

/// Each character in front of, between and behind letters, numbers, spaces and signs, all characters of the range at once.
fn in_context(characters: &[char]) -> String {
    characters.iter().map(|c| format!("a{c}b1{c}2 {c} {c}{c}  {c}.{c}!\n{c}'s{c}x\t{c}\u{a0}{c}\n")).collect()
}

/// Every character of Unicode, 256 at a time; where a text differs, the characters that differ must be unassigned in the version of
/// Unicode that the reference has.
#[test]
fn every_block_of_unicode() {
    let both = Both::of_file(&embedded());
    let tokenizer = both.tokenizer();
    let all: Vec<char> = (0..=0x2_ffff_u32)
        .chain(0x3_0000..=0x3_3fff)
        .chain(0xe_0000..=0xe_01ff)
        .chain(0x10_fff0..=0x10_ffff)
        .filter_map(char::from_u32)
        .collect();
    let same = |text: &str| {
        let mut out = vec![0; text.len()];
        let tokens = tokenizer.encode(text, false, &mut out).unwrap();
        assert_eq!(decode(&tokenizer, &out[..tokens], false), text);
        both.reference.encode_fast(text, false).unwrap().get_ids() == &out[..tokens]
    };
    // Of Han ideographs, Hangul syllables and what follows plane 1, one chunk in eight; of all else, every chunk.
    let sampled = all.chunks(256).enumerate().filter(|(index, chunk)| {
        let alike = matches!(u32::from(chunk[0]), 0x3500..0x9f00 | 0xad00..0xd700 | 0x2_0100..);
        !alike || *index % 8 == 0
    });
    let mut newer = 0;
    for (_, block) in sampled {
        // Assigned characters in a block have to agree, and so nearly always the block as a whole.
        if same(&in_context(block)) {
            continue;
        }
        for &character in block.iter().filter(|&&character| !same(&in_context(&[character]))) {
            assert!(matches(r"\p{Cn}", &character.to_string()), "{character:?} {:x}", character as u32);
            newer += 1;
        }
    }
    eprintln!("{newer} characters are newer than the reference's version of Unicode");
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
    vec![
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
        BOTH.with(|both| assigned_only(both, &text));
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

/// Compares on the characters that are assigned in the reference's version of Unicode.
fn assigned_only(both: &Both, text: &str) {
    let assigned: String =
        text.chars().filter(|c| c.is_ascii() || !matches(r"\p{Cn}", &c.to_string())).collect();
    both.check(&assigned);
}
