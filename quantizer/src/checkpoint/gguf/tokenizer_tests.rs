//! Tokenizers of files against those of the `tokenizers` crate, and SentencePiece's against its definition.

use std::path::Path;

use rescomp_formats::tokenizer::TokenizerView;
use serde_json::{Value, json};
use tokenizers::Tokenizer as Reference;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::test_file::{TestFile, TestValue};
use super::tests::{converted, model, open, section, tokenizer_refused};
use crate::texts;
use crate::tokenizer_json::tokenizer_section;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/stories-1m"))
}

/// The embedded tokenizer with another pre-tokenizer.
fn embedded(pattern: &str, edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let text = std::fs::read(folder().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    json["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
    ] });
    edit(&mut json);
    tokenizer_section(json.to_string().as_bytes(), Path::new("tokenizer.json"), None).unwrap()
}

#[test]
fn pre_tokenizers_are_known_by_their_names() {
    let mut file = converted(folder());
    let whole = embedded(LLAMA3, |json| json["model"]["ignore_merges"] = json!(true));
    for name in ["llama-bpe", "llama3", "llama-v3"] {
        file.set("tokenizer.ggml.pre", name);
        assert!(section(&file).unwrap() == whole, "{name}");
    }
    file.set("tokenizer.ggml.pre", "qwen2");
    assert!(section(&file).unwrap() == embedded(QWEN2, |json| json["normalizer"] = json!({ "type": "NFC" })));
}

#[test]
fn texts_of_llama_3_begin_with_a_token_unless_the_file_says_otherwise() {
    let mut file = model();
    assert_eq!(open(&file).spec.begin_token, None);
    file.set("tokenizer.ggml.pre", "llama-bpe");
    assert_eq!(open(&file).spec.begin_token, Some(1));
    file.set("tokenizer.ggml.add_bos_token", false);
    assert_eq!(open(&file).spec.begin_token, None);
    file.remove("tokenizer.ggml.add_bos_token").remove("tokenizer.ggml.bos_token_id");
    assert_eq!(open(&file).spec.begin_token, None);
    // A token that no merge makes would be found as a whole.
    tokenizer_refused(
        |file| {
            file.set("tokenizer.ggml.pre", "llama-bpe");
            file.set("tokenizer.ggml.merges", TestValue::Texts(vec!["h e".into()]));
        },
        &["tokenizer.ggml.tokens[260]", "\"hel\""],
    );
}

/// Tokens, their types and scores, and where a space goes in front.
struct Scored {
    tokens: Vec<String>,
    types: Vec<i32>,
    scores: Vec<f32>,
}

impl Scored {
    /// Trained on stories: 3 special tokens, 256 bytes, then characters and what is made of them.
    fn trained() -> Self {
        let mut reference = Reference::new(BPE::default());
        reference.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', PrependScheme::Always, true)));
        let trainer = BpeTrainer::builder().show_progress(false).vocab_size(700).limit_alphabet(80).build();
        let text = std::fs::read_to_string(folder().join("calibration.txt")).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains('<')).take(1500).collect();
        reference.train(&mut TrainerWrapper::BpeTrainer(trainer), lines.iter()).unwrap();
        let json: Value = serde_json::from_str(&reference.to_string(false).unwrap()).unwrap();
        let mut made: Vec<(u64, String)> = json["model"]["vocab"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(token, id)| (id.as_u64().unwrap(), token.clone()))
            .collect();
        made.sort();
        let mut scored = Self { tokens: Vec::new(), types: Vec::new(), scores: Vec::new() };
        for (token, kind) in [("<unk>", 2), ("<s>", 3), ("</s>", 3)] {
            scored.push(token.to_owned(), kind, 0.0);
        }
        for byte in 0..=u8::MAX {
            scored.push(format!("<0x{byte:02X}>"), 6, 0.0);
        }
        // In the order in which they were made, as SentencePiece scores them.
        for (rank, (_, token)) in made.into_iter().enumerate() {
            scored.push(token, 1, -(rank as f32));
        }
        // Runs of spaces and of one letter, which may be cut in several ways.
        for (token, score) in
            [("\u{2581}\u{2581}", 0.5), ("\u{2581}\u{2581}\u{2581}", -650.5), ("aa", -20.5), ("aaa", -660.5)]
        {
            scored.push(token.to_owned(), 1, score);
        }
        scored.push("<think>".to_owned(), 4, 0.0);
        scored
    }

    fn push(&mut self, token: String, kind: i32, score: f32) {
        self.tokens.push(token);
        self.types.push(kind);
        self.scores.push(score);
    }

    fn file(&self) -> TestFile {
        let mut file = model();
        let rows = self.tokens.len();
        file.tensors.retain(|tensor| tensor.name != "token_embd.weight");
        file.push_f32("token_embd.weight", &[rows, 8], &vec![0.5; rows * 8]);
        file.set("tokenizer.ggml.model", "llama")
            .set("tokenizer.ggml.pre", "default")
            .set("tokenizer.ggml.tokens", TestValue::Texts(self.tokens.clone()))
            .set("tokenizer.ggml.token_type", TestValue::Integers(self.types.clone()))
            .set("tokenizer.ggml.scores", TestValue::Floats(self.scores.clone()))
            .set("tokenizer.ggml.bos_token_id", 1)
            .remove("tokenizer.ggml.merges");
        file
    }

    fn id(&self, token: &str) -> Option<usize> {
        self.tokens.iter().position(|known| known == token)
    }

    /// What the crate reads: merges as transformers makes them of scores.
    fn reference(&self) -> Reference {
        let mut merges: Vec<(f32, usize, usize, [String; 2])> = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| self.types[*id] == 1) {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                let normal = |part: &str| self.id(part).is_some_and(|id| self.types[id] == 1);
                if normal(left) && normal(right) {
                    let lengths = (left.chars().count(), right.chars().count());
                    let pair = [left.to_owned(), right.to_owned()];
                    merges.push((self.scores[id], lengths.0, lengths.1, pair));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
        let merges: Vec<[String; 2]> = merges.into_iter().map(|(.., pair)| pair).collect();
        let vocab: serde_json::Map<String, Value> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        let added = |content: &str, special: bool| {
            json!({ "id": self.id(content), "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": special })
        };
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added("<unk>", true), added("<s>", true), added("</s>", true), added("<think>", false)],
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "\u{2581}" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
            ] },
            "pre_tokenizer": null, "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
                { "type": "ByteFallback" }, { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
            ] },
            "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges },
        });
        let mut reference = Reference::from_bytes(json.to_string()).unwrap();
        reference.set_encode_special_tokens(true);
        reference
    }

    /// By the definition: of all neighbours that are a token together, the one with the highest score, the leftmost of several.
    fn by_definition(&self, text: &str) -> Vec<u32> {
        let text = format!("\u{2581}{}", text.replace(' ', "\u{2581}"));
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        let normal = |token: &str| self.id(token).filter(|id| self.types[*id] == 1);
        loop {
            let mut best: Option<(f32, usize)> = None;
            for at in 1..symbols.len() {
                if let Some(id) = normal(&symbols[at - 1..=at].concat())
                    && best.is_none_or(|(score, _)| self.scores[id] > score)
                {
                    best = Some((self.scores[id], at));
                }
            }
            let Some((_, at)) = best else { break };
            let right = symbols.remove(at);
            symbols[at - 1].push_str(&right);
        }
        let ids = symbols.iter().flat_map(|symbol| match normal(symbol) {
            Some(id) => vec![id as u32],
            None => symbol.bytes().map(|byte| 3 + u32::from(byte)).collect(),
        });
        ids.collect()
    }
}

#[test]
fn sentence_piece_merges_by_score() {
    let scored = Scored::trained();
    let file = scored.file();
    let section = section(&file).unwrap();
    let tokenizer = texts::tokenizer(&section).unwrap();
    let reference = scored.reference();
    let spec = open(&file).spec;
    assert_eq!(spec.begin_token, Some(1));
    let view = TokenizerView::parse(&section).unwrap();
    assert!(view.is_special(0) && view.is_special(1) && view.is_added(scored.tokens.len() as u32 - 1));

    let text = std::fs::read_to_string(folder().join("held_out.txt")).unwrap();
    let mut cases: Vec<String> = text.lines().take(400).map(str::to_owned).collect();
    let odd = [
        "",
        " ",
        "  ",
        "   a",
        "a",
        "aaaaaaa baaaa aa a",
        "      x   y ",
        "caf\u{e9} \u{4e2d}\u{1f600}",
        "\n\n\ta\u{0}",
        "<s>a</s> <unk>",
        "<0x41>",
        "\u{2581}a \u{2581}",
        "Th the Thethe thhe",
    ];
    cases.extend(odd.map(str::to_owned));
    let mut state = 7_u32;
    for _ in 0..3000 {
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        let letters: Vec<char> = "aaa   theinrs.,\u{e9}".chars().collect();
        cases.push((0..1 + random(24)).map(|_| letters[random(letters.len())]).collect());
    }
    for case in &cases {
        let ids = texts::encode(&tokenizer, case).unwrap();
        assert_eq!(ids, reference.encode_fast(case.as_str(), false).unwrap().get_ids(), "{case:?}");
        // An empty text has no space in front, and special tokens are text.
        if !case.is_empty() {
            assert_eq!(ids, scored.by_definition(case), "{case:?}");
        }
    }
    let think = scored.tokens.len() as u32 - 1;
    assert!(texts::encode(&tokenizer, "a<think>b").unwrap().contains(&think));
}

#[test]
fn scores_that_do_not_decide_are_refused() {
    let refused = |edit: &dyn Fn(&mut Scored), parts: &[&str]| {
        let mut scored = Scored::trained();
        edit(&mut scored);
        let message = section(&scored.file()).expect_err("made a section");
        for part in parts {
            assert!(message.contains(part), "expected {part:?} in: {message}");
        }
    };
    let last = Scored::trained().tokens.len() - 2;
    let at = format!("tokenizer.ggml.scores[{last}]");
    refused(&|scored| scored.scores[last] = scored.scores[last - 1], &[&at, "a score of its own"]);
    refused(&|scored| scored.scores[last] = f32::NAN, &[&at, "a finite number"]);
    refused(&|scored| scored.types[last] = 7, &["tokenizer.ggml.token_type[", "1 to 6"]);
    refused(&|scored| scored.tokens[last] = "a".into(), &["tokenizer.ggml.tokens[", "a token once"]);
    refused(
        &|scored| scored.tokens[last] = "a\u{3b1}".into(),
        &["characters that are normal tokens", "\u{3b1}"],
    );
    refused(&|scored| scored.tokens[3] = "<0xZZ>".into(), &["<0x00>"]);
    refused(&|scored| scored.types.iter_mut().for_each(|kind| *kind = 1), &["tokens of type 6"]);
    refused(&|scored| scored.scores.truncate(10), &["tokenizer.ggml.scores", "one for each token"]);
    let with = |key: &str, value: TestValue| {
        let mut file = Scored::trained().file();
        file.set(key, value);
        section(&file)
    };
    assert!(with("tokenizer.ggml.remove_extra_whitespaces", true.into()).is_err());
    let without_space = with("tokenizer.ggml.add_space_prefix", false.into()).unwrap();
    let tokenizer = texts::tokenizer(&without_space).unwrap();
    let a = Scored::trained().id("a").unwrap() as u32;
    assert_eq!(texts::encode(&tokenizer, "a").unwrap(), [a]);
}
