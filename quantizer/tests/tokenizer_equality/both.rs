//! Ours and the reference beside each other, and the texts that both are given.

use std::fs;
use std::path::{Path, PathBuf};

use rescomp_formats::tokenizer::{Model, Normalizer, TokenizerView};
use rescomp_quantizer::tokenizer_json::{read_tokenizer_json, tokenizer_section};
use rescomp_runtime::tokenizer::Tokenizer;
use serde_json::Value;
use tokenizers::Tokenizer as Reference;

pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

pub(crate) fn embedded() -> PathBuf {
    path("../models/stories-1m/tokenizer.json")
}

/// A file that isn't part of the project; says so where it is absent.
pub(crate) fn shared(relative: &str) -> Option<PathBuf> {
    let path = path("../../shared").join(relative);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is absent", path.display());
    None
}

/// Ours and the reference, made from the same file.
pub(crate) struct Both {
    section: Vec<u8>,
    /// Special tokens in the text are tokens.
    pub(crate) reference: Reference,
    /// They are text.
    reference_plain: Reference,
}

impl Both {
    pub(crate) fn of_file(path: &Path) -> Self {
        Self::new(read_tokenizer_json(path, None).unwrap(), &fs::read(path).unwrap())
    }

    pub(crate) fn of_json(json: &Value) -> Self {
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

    pub(crate) fn tokenizer(&self) -> Tokenizer<'_> {
        Tokenizer::new(TokenizerView::parse(&self.section).unwrap())
    }

    /// Panics unless both agree on the text; returns the number of tokens.
    pub(crate) fn check(&self, text: &str) -> usize {
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
                    "differs at token {differs} in {text:.100?}, near {:?}: expected {:?}, found {:?}",
                    text.get(end.saturating_sub(20)..end),
                    expected.get_ids().get(differs..).map(|ids| &ids[..ids.len().min(8)]),
                    out[..tokens].get(differs..).map(|ids| &ids[..ids.len().min(8)]),
                );
            }
            let decoded = decode(&tokenizer, &out[..tokens], false);
            let view = tokenizer.view();
            let strips = (0..view.added_tokens())
                .filter_map(|index| view.added_token(index))
                .any(|token| token.left_strip || token.right_strip);
            if view.model() == Model::ByteLevelBpe
                && !strips
                && view.normalizer() == Normalizer::None
                && !view.add_prefix_space()
                && (0..=u8::MAX).all(|byte| view.byte_token(byte).is_some())
            {
                assert_eq!(decoded, text);
            } else {
                assert_eq!(decoded, reference.decode(&out[..tokens], false).unwrap());
            }
            let skipped = decode(&tokenizer, &out[..tokens], true);
            assert_eq!(skipped, reference.decode(&out[..tokens], true).unwrap());
        }
        tokens
    }

    /// The same tokens in pieces, into the least memory that the text allows.
    pub(crate) fn check_pieces(&self, text: &str) {
        let tokenizer = self.tokenizer();
        let mut whole = vec![0; tokenizer.max_tokens(text.len())];
        let tokens = tokenizer.encode(text, true, &mut whole).unwrap();
        let mut encoder = tokenizer.encoder(text, true);
        let mut pieces = Vec::new();
        while encoder.room_needed() > 0 {
            let mut out = vec![0; encoder.room_needed()];
            // Bytes without a token take no room, which is known when they are met.
            let exact = (0..=u8::MAX).all(|byte| tokenizer.view().byte_token(byte).is_some());
            let less = encoder.clone().next_tokens(&mut out[1..]);
            assert!(less.is_err() || !exact && tokenizer.view().model() == Model::ByteLevelBpe);
            let before = encoder.text_bytes();
            match encoder.next_tokens(&mut out) {
                Ok(count) => pieces.extend_from_slice(&out[..count]),
                // Behind text that has no tokens, the next pre-token needs more.
                Err(_) => assert!(!exact && encoder.text_bytes() > before),
            }
        }
        assert_eq!(encoder.next_tokens(&mut []), Ok(0));
        assert_eq!(encoder.text_bytes(), text.len());
        assert_eq!(pieces, whole[..tokens]);
    }
}

pub(crate) fn decode(tokenizer: &Tokenizer<'_>, ids: &[u32], skip_special: bool) -> String {
    let mut text = String::new();
    tokenizer.decode(ids, skip_special, |part| text.push_str(part));
    text
}

/// The beginning of a text file, up to a character boundary.
pub(crate) fn beginning(path: &Path, bytes: usize) -> String {
    let text = fs::read_to_string(path).unwrap();
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap();
    text[..end].to_string()
}

pub(crate) const ODD: &[&str] = &[
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

/// Each character in front of, between and behind letters, numbers, spaces and signs, all characters of the range at once.
pub(crate) fn in_context(characters: &[char]) -> String {
    characters.iter().map(|c| format!("a{c}b1{c}2 {c} {c}{c}  {c}.{c}!\n{c}'s{c}x\t{c}\u{a0}{c}\n")).collect()
}

/// Every character of Unicode, 256 at a time.
pub(crate) fn every_block(both: &Both) {
    let all: Vec<char> = (0..=0x2_ffff_u32)
        .chain(0x3_0000..=0x3_3fff)
        .chain(0xe_0000..=0xe_01ff)
        .chain(0x10_fff0..=0x10_ffff)
        .filter_map(char::from_u32)
        .collect();
    // Of Han ideographs, Hangul syllables and what follows plane 1 (but for the compatibility ideographs), one chunk in eight;
    // of all else, every chunk.
    let sampled = all.chunks(256).enumerate().filter(|(index, chunk)| {
        let alike =
            matches!(u32::from(chunk[0]), 0x3500..0x9f00 | 0xad00..0xd700 | 0x2_0100..0x2_f700 | 0x2_fb00..);
        !alike || *index % 8 == 0
    });
    for (_, block) in sampled {
        let text = in_context(block);
        both.check(&text);
    }
}
