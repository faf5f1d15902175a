//! Every kind of tokenizer beyond GPT-2's: pre-tokenizers on the embedded vocabulary, the rest trained here by the reference.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, Tokenizer as Reference};

use crate::both::{Both, ODD, beginning, decode, every_block, path, shared};
use crate::{added, byte_level, small};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Texts that a kind may trip over, in addition to the odd ones.
const TORTURE: &[&str] = &[
    "DON'T don't I'LL i'Ll we'VE 'S'T'RE '\u{17f} it'\u{17f}x 'k\u{212a}",
    "1234567 12 1 1234 a123456b \u{663}\u{664}\u{665}\u{666} \u{bd}\u{be}\u{bc}\u{bd} 0x1F",
    "\r\n\r\n  \n \t\n x\r\ny \r z\n\n\n",
    "a \n\n b\t \n\t c !\n\n?\r\n\r\n!! \n",
    "\tfoo \u{a0}bar .baz\n.qux (a)(b) \u{3000}\u{4e2d}",
    "<0x41><0x0A> <0xe4> <0xE4> <0x4 <unk> <s>x</s> <unk>\u{4e00}<unk>",
    "\u{2581}a\u{2581}\u{2581} b \u{2581} \u{2581}c",
    "\u{2581}",
    " \u{2581} ",
    "## ##a a##b #a [CLS] [UNK] [SEP]x [cls]",
    "cafe\u{301} \u{212b}\u{2126} \u{1e9b}\u{323} \u{ac00}\u{11a8} \u{1100}\u{1161}\u{11a8} \u{344} q\u{307}\u{323} \u{fb2c}",
    "A\u{301}\u{301}\u{327}\u{323}e\u{323}\u{302} \u{1d15e}\u{1d165} \u{f71}\u{f72} \u{9c7}\u{9be} \u{3099} \u{304b}\u{3099}",
    "\u{130}\u{131}\u{1e9e}\u{3a3}\u{3c2} \u{1c4}\u{fb03} \u{10a0} \u{13a0}",
    "\u{4e2d}\u{6587}abc\u{4e2d} \u{20000}\u{2b820}\u{2a6df} \u{ff0c}\u{ff21}\u{300c}",
    "x\u{200d}y\u{ad}z\u{feff}\u{e000} \u{fffd}\u{0}\u{7}\u{85}a",
    "do not can't 're n't . , ! ? ' a ' b 's",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}",
];

/// Texts long enough to train on and with some of everything.
fn training_texts() -> Vec<String> {
    let stories = beginning(&path("../models/stories-1m/calibration.txt"), 120_000);
    let mut texts: Vec<String> = stories.lines().map(str::to_string).collect();
    for _ in 0..20 {
        // Without special tokens, which a trainer would make once more.
        let odd = ODD.iter().chain(TORTURE).filter(|text| !text.contains(['<', '[']));
        texts.extend(odd.map(|text| text.to_string()));
    }
    texts
}

fn special(content: &str) -> AddedToken {
    AddedToken::from(content, true)
}

/// Trains in memory; the JSON that comes out has only the added tokens of `added`.
fn train(mut reference: Reference, mut trainer: TrainerWrapper, added: &[&str]) -> Value {
    reference.train(&mut trainer, training_texts().iter()).unwrap();
    let mut json: Value = serde_json::from_str(&reference.to_string(false).unwrap()).unwrap();
    json["added_tokens"]
        .as_array_mut()
        .unwrap()
        .retain(|token| added.contains(&token["content"].as_str().unwrap()));
    json
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split})
}

fn sequence(name: &str, steps: Value) -> Value {
    json!({"type": "Sequence", name: steps})
}

fn replace() -> Value {
    json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"})
}

fn unreplace() -> Value {
    json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "})
}

fn strip() -> Value {
    json!({"type": "Strip", "content": " ", "start": 1, "stop": 0})
}

/// Everything that every kind has to pass.
fn check_all(name: &str, both: &Both, blocks: bool) {
    eprintln!("{name}");
    for text in ODD.iter().chain(TORTURE) {
        both.check(text);
        both.check_pieces(text);
    }
    let stories = beginning(&path("../models/stories-1m/held_out.txt"), 20_000);
    both.check(&stories);
    both.check_pieces(&beginning(&path("../models/stories-1m/held_out.txt"), 3_000));
    for unit in
        ["a", " ", "\n", "7", "!", "\u{e9}", "\u{4e2d}", "ab ", "\r\n", "e\u{301}", "\u{301}\u{323}", "<s>"]
    {
        both.check(&unit.repeat(3000 / unit.len()));
        both.check(&format!("x {}", unit.repeat(90)));
    }
    for text in random_texts(400) {
        both.check(&text);
        both.check_pieces(&text);
    }
    check_decoding(both);
    if blocks {
        every_block(both);
    }
    for name in ["wiki.test.raw", "wiki.valid.tokens"] {
        if let Some(path) = shared(&format!("data/wikitext-2/{name}")) {
            both.check(&beginning(&path, if blocks { 100_000 } else { 10_000 }));
        }
    }
}

/// Short strings of characters that interact.
fn random_texts(count: u32) -> impl Iterator<Item = String> {
    let characters: Vec<char> = "aeioAEq 'sSlL12.,!\r\n\t \u{2581}\u{300}\u{301}\u{302}\u{323}\u{327}\u{328}\u{344}\u{345}\u{5b0}\u{5c1}\
        \u{f71}\u{f72}\u{f74}\u{1100}\u{1161}\u{11a8}\u{ac00}\u{212b}\u{1e9b}\u{fb2c}\u{9c7}\u{9be}\u{9d7}\u{3099}\u{304b}\u{1d15e}\
        \u{1d165}\u{1d16d}\u{1d16e}\u{1f82}\u{130}\u{4e2d}\u{f900}\u{200d}\u{e000}\u{a0}\u{1f600}\u{1f3fd}"
        .chars()
        .collect();
    let mut state = 7_u32;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    (0..count).map(move |_| (0..1 + random(14)).map(|_| characters[random(characters.len())]).collect())
}

/// Any ids: bytes that aren't UTF-8, added tokens in the middle, unused ids.
fn check_decoding(both: &Both) {
    let tokenizer = both.tokenizer();
    let vocabulary = tokenizer.view().vocabulary() + 3;
    let mut state = 1_u32;
    for round in 0..1500 {
        let ids: Vec<u32> = (0..9)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // The first ids are the bytes' and the added ones.
                (state >> 8) % if round % 2 == 0 { vocabulary } else { 300 }
            })
            .collect();
        for skip in [false, true] {
            let expected = both.reference.decode(&ids, skip).unwrap();
            assert_eq!(decode(&tokenizer, &ids, skip), expected, "{ids:?}");
        }
    }
}

fn split_pattern(pattern: &str) -> Value {
    sequence(
        "pretokenizers",
        json!([
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            byte_level(false, false),
        ]),
    )
}

#[test]
fn llama3() {
    let end = json!([added(0, "<|endoftext|>", true, false)]);
    let both = Both::of_json(&small(&split_pattern(LLAMA3), &end, |json| {
        json["model"]["ignore_merges"] = json!(true);
        json["post_processor"] = sequence(
            "processors",
            json!([{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
                {"type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}}]),
        );
    }));
    assert_eq!(both.tokenizer().tokens_before().collect::<Vec<_>>(), [0]);
    check_all("Llama 3", &both, true);
}

#[test]
fn qwen() {
    let tokens = json!([added(0, "<|endoftext|>", true, false), added(1024, "<think>", false, false)]);
    let both = Both::of_json(&small(&split_pattern(QWEN2), &tokens, |json| {
        json["normalizer"] = json!({"type": "NFC"});
    }));
    check_all("Qwen 2", &both, true);
    both.check("e<think>\u{301}<think>\u{301}e<|endoftext|>\u{301}");
    // Runs of white space that are looked for in normalized text, as GPT-NeoX has them.
    let runs = json!([
        added(0, "<|endoftext|>", true, false),
        added(1024, "  ", false, true),
        added(1025, "    ", false, true),
        added(1026, "\t\n", false, true),
    ]);
    let both = Both::of_json(&small(&byte_level(false, true), &runs, |json| {
        json["normalizer"] = json!({"type": "NFC"});
    }));
    check_all("GPT-NeoX", &both, false);
    both.check("e  \u{301}    \u{301}\u{323}  e\u{301}     a\t\n\u{301}<|endoftext|>  \u{301}   ");
    // The normalizer alone, and with whole pre-tokens looked up.
    let end = json!([added(0, "<|endoftext|>", true, false)]);
    let both = Both::of_json(&small(&byte_level(false, true), &end, |json| {
        json["normalizer"] = json!({"type": "NFC"});
        json["model"]["ignore_merges"] = json!(true);
    }));
    check_all("NFC and GPT-2", &both, false);
}

/// BPE over characters with byte tokens 3 to 258, as Llama 2 has it.
fn character_bpe() -> Value {
    let mut reference = Reference::new(BPE::default());
    reference.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', PrependScheme::Always, true)));
    let specials = ["<unk>", "<s>", "</s>"].map(str::to_string).into_iter();
    let specials = specials.chain((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(1200)
        .limit_alphabet(150)
        .special_tokens(specials.map(|token| special(&token)).collect())
        .build();
    let mut json = train(reference, TrainerWrapper::BpeTrainer(trainer), &["<unk>", "<s>", "</s>"]);
    json["model"]["unk_token"] = json!("<unk>");
    json["model"]["byte_fallback"] = json!(true);
    json["model"]["fuse_unk"] = json!(true);
    json
}

#[test]
fn sentence_piece_bpe() {
    let trained = character_bpe();
    let llama2_decoder =
        sequence("decoders", json!([unreplace(), {"type": "ByteFallback"}, {"type": "Fuse"}, strip()]));
    let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
    let template = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
    let variant = |normalizer: Value, pre_tokenizer: Value, decoder: &Value, edit: &dyn Fn(&mut Value)| {
        let mut json = trained.clone();
        json["normalizer"] = normalizer;
        json["pre_tokenizer"] = pre_tokenizer;
        json["decoder"] = decoder.clone();
        edit(&mut json);
        Both::of_json(&json)
    };
    let llama2 = sequence("normalizers", json!([prepend, replace()]));
    let both = variant(llama2.clone(), json!(null), &llama2_decoder, &|json| {
        json["post_processor"] = template.clone();
    });
    assert!(both.tokenizer().view().words_are_separate());
    assert_eq!(both.tokenizer().tokens_before().collect::<Vec<_>>(), [1]);
    check_all("Llama 2", &both, true);

    let metaspace_decoder =
        sequence("decoders", json!([{"type": "ByteFallback"}, metaspace("first", false)]));
    let both = variant(json!(null), metaspace("first", false), &llama2_decoder, &|_| {});
    check_all("Mistral", &both, false);
    let both = variant(json!(null), metaspace("always", true), &metaspace_decoder, &|json| {
        let id = json["model"]["vocab"]["ly"].as_u64().unwrap() as u32;
        json["added_tokens"].as_array_mut().unwrap().push(added(id, "ly", false, true));
    });
    check_all("Metaspace, split", &both, false);
    let split = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    let gemma_decoder =
        sequence("decoders", json!([unreplace(), {"type": "ByteFallback"}, {"type": "Fuse"}]));
    let both = variant(replace(), split, &gemma_decoder, &|_| {});
    check_all("Gemma", &both, false);

    // Tokens across spaces: a text is merged as a whole.
    let across = |json: &mut Value| {
        for (left, right) in [("d", "\u{2581}"), (".", "\u{2581}"), ("e", "\u{2581}t"), ("e", "\u{2581}the")]
        {
            let (token, id) = (format!("{left}{right}"), json["model"]["vocab"].as_object().unwrap().len());
            json["model"]["vocab"][token] = json!(id);
            json["model"]["merges"].as_array_mut().unwrap().insert(5, json!([left, right]));
        }
    };
    let both = variant(llama2.clone(), json!(null), &llama2_decoder, &across);
    assert!(!both.tokenizer().view().words_are_separate());
    check_all("merges across spaces", &both, false);
    for fuse in [false, true] {
        let both = variant(llama2.clone(), json!(null), &llama2_decoder, &|json| {
            json["model"]["byte_fallback"] = json!(false);
            json["model"]["fuse_unk"] = json!(fuse);
            let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
            *vocabulary =
                vocabulary.clone().into_iter().filter(|(token, _)| !token.starts_with("<0x")).collect();
            // Ids without holes, as the reference wants them.
            let by_id: BTreeMap<u64, String> =
                vocabulary.iter().map(|(token, id)| (id.as_u64().unwrap(), token.clone())).collect();
            for (id, token) in by_id.values().enumerate() {
                vocabulary[token] = json!(id);
            }
            json["decoder"] = sequence("decoders", json!([unreplace(), {"type": "Fuse"}, strip()]));
        });
        check_all("unknown characters", &both, fuse);
    }
}

#[test]
fn word_piece() {
    let mut reference = Reference::new(WordPiece::builder().unk_token("[UNK]".into()).build().unwrap());
    reference.with_normalizer(Some(BertNormalizer::default())).unwrap();
    reference.with_pre_tokenizer(Some(BertPreTokenizer));
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let trainer = WordPieceTrainer::builder()
        .show_progress(false)
        .vocab_size(900)
        .special_tokens(specials.map(special).to_vec())
        .build();
    let mut trained = train(reference, TrainerWrapper::WordPieceTrainer(trainer), &specials);
    trained["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    trained["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
            "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}});
    let bert = |clean: bool, chinese: bool, accents: Value, lowercase: bool| {
        json!({"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese,
            "strip_accents": accents, "lowercase": lowercase})
    };
    let variants = [
        ("uncased", bert(true, true, json!(null), true), true),
        ("cased", bert(true, true, json!(null), false), false),
        ("without accents", bert(true, false, json!(true), false), true),
        ("as it is, in lower case", bert(false, false, json!(false), true), false),
        ("no cleaning", bert(false, true, json!(true), true), true),
        ("no normalizer", json!(null), true),
    ];
    for (index, (name, normalizer, clean_up)) in variants.into_iter().enumerate() {
        let mut json = trained.clone();
        json["normalizer"] = normalizer;
        json["decoder"]["cleanup"] = json!(clean_up);
        json["model"]["max_input_chars_per_word"] = json!(if index == 1 { 9 } else { 100 });
        let both = Both::of_json(&json);
        let tokenizer = both.tokenizer();
        assert_eq!(tokenizer.tokens_before().chain(tokenizer.tokens_after()).collect::<Vec<_>>(), [2, 3]);
        check_all(&format!("WordPiece, {name}"), &both, index < 3);
    }
}

#[test]
fn unigram() {
    let mut reference = Reference::new(Unigram::default());
    reference.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', PrependScheme::Always, true)));
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(800)
        .unk_token(Some("<unk>".into()))
        .special_tokens(["<unk>", "<s>", "</s>"].map(special).to_vec())
        .build()
        .unwrap();
    let mut trained = train(reference, TrainerWrapper::UnigramTrainer(trainer), &["<unk>", "<s>", "</s>"]);
    trained["decoder"] = metaspace("always", true);
    let both = Both::of_json(&trained);
    check_all("Unigram", &both, true);

    // With bytes, as SentencePiece places them, and scores of 32 bits, which make ties.
    let mut bytes = trained.clone();
    let vocabulary = bytes["model"]["vocab"].as_array_mut().unwrap();
    for entry in vocabulary.iter_mut() {
        entry[1] = json!(f64::from((entry[1].as_f64().unwrap() * 4.0).round() as f32 / 4.0));
    }
    let pieces = (0..=255).map(|byte| json!([format!("<0x{byte:02X}>"), 0.0]));
    vocabulary.splice(3..3, pieces);
    bytes["model"]["byte_fallback"] = json!(true);
    bytes["decoder"] = sequence("decoders", json!([{"type": "ByteFallback"}, metaspace("always", true)]));
    check_all("Unigram with bytes", &Both::of_json(&bytes), true);

    // One pre-token, whose sum of scores goes on from word to word; and with tokens across spaces.
    for json in [&trained, &bytes] {
        let mut whole = json.clone();
        whole["pre_tokenizer"] = metaspace("first", false);
        let both = Both::of_json(&whole);
        assert!(both.tokenizer().view().words_are_separate());
        check_all("Unigram, whole texts", &both, false);
        whole["model"]["vocab"].as_array_mut().unwrap().push(json!(["d\u{2581}the", -3.5]));
        let both = Both::of_json(&whole);
        assert!(!both.tokenizer().view().words_are_separate());
        check_all("Unigram across spaces", &both, false);
    }
    let mut plain = trained.clone();
    plain["pre_tokenizer"] = json!(null);
    plain["normalizer"] =
        sequence("normalizers", json!([{"type": "Prepend", "prepend": "\u{2581}"}, replace()]));
    plain["decoder"] = sequence("decoders", json!([unreplace(), {"type": "Fuse"}, strip()]));
    check_all("Unigram after a normalizer", &Both::of_json(&plain), false);
}
