//! Everything that a `tokenizer.json` may have and that isn't supported is refused by file, field and value.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use std::fs;
use std::path::Path;

use rescomp_formats::tokenizer::{PreTokenizer, TokenizerView};
use rescomp_quantizer::tokenizer_json::{read_tokenizer_json, tokenizer_section};
use serde_json::{Value, json};

fn embedded() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m/tokenizer.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn section(edit: impl FnOnce(&mut Value), vocab_size: Option<u32>) -> Result<Vec<u8>, String> {
    let mut json = embedded();
    edit(&mut json);
    tokenizer_section(json.to_string().as_bytes(), Path::new("model/tokenizer.json"), vocab_size)
        .map_err(|error| error.to_string())
}

#[track_caller]
fn refused(edit: impl FnOnce(&mut Value), message: &str) {
    let error = section(edit, None).expect_err(message);
    assert_eq!(error, format!("model/tokenizer.json: {message}"));
}

#[test]
fn the_embedded_tokenizer_is_small() {
    let bytes = section(|_| {}, Some(1024)).unwrap();
    // head, block starts, lengths, bytes, splits, order, added: no explicit array
    assert_eq!(bytes.len(), 32 + 32 * 4 + 1024 + 3348 + 767 + 2 * 767 + 3);
    let view = TokenizerView::parse(&bytes).unwrap();
    assert_eq!((view.vocabulary(), view.merges()), (1024, 767));
    assert_eq!(view.pre_tokenizer(), PreTokenizer::Gpt2);
    assert!(view.is_special(0) && !view.is_special(1));
    assert_eq!(view.token_bytes(0), Some(&b"<|endoftext|>"[..]));
}

#[test]
fn harmless_differences_make_the_same_section() {
    let expected = section(|_| {}, None).unwrap();
    let edits: [fn(&mut Value); 5] = [
        |json| json["truncation"] = json!({"max_length": 5}),
        |json| json["post_processor"] = json!({"type": "ByteLevel", "trim_offsets": false}),
        |json| {
            let model = json["model"].as_object_mut().unwrap();
            model.remove("type");
            model.remove("ignore_merges");
            model.insert("continuing_subword_prefix".into(), json!(""));
            model.insert("unk_token".into(), json!("<|endoftext|>"));
        },
        |json| {
            // The other spelling, with the head line of a merges.txt.
            let merges = json["model"]["merges"].as_array_mut().unwrap();
            for merge in merges.iter_mut() {
                *merge = json!(format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()));
            }
            merges.insert(0, json!("#version: 0.2"));
        },
        |json| {
            json["pre_tokenizer"].as_object_mut().unwrap().remove("use_regex");
        },
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        assert_eq!(section(edit, None).unwrap(), expected, "edit {index}");
    }
}

#[test]
fn other_pipelines() {
    refused(|json| json["version"] = json!("2.0"), "version is `2.0`; supported: `1.0`");
    refused(
        |json| json["normalizer"] = json!({"type": "NFKC"}),
        "normalizer is `NFKC`; supported: null, `NFC`",
    );
    refused(
        |json| json["post_processor"] = json!({"type": "TemplateProcessing", "single": []}),
        "post_processor.single is `[]`; supported: special tokens around one sequence",
    );
    refused(|json| json["decoder"] = json!(null), "decoder is `null`; supported: `ByteLevel`");
    refused(
        |json| json["pre_tokenizer"] = json!({"type": "Metaspace"}),
        "pre_tokenizer is `Metaspace`; supported: `ByteLevel`, `Sequence` of `Digits` or `Split` and `ByteLevel`",
    );
    let split = |pattern: &str, behavior: &str, regex: bool| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex}]})
    };
    refused(
        |json| json["pre_tokenizer"] = split("x", "Isolated", false),
        "pre_tokenizer.pretokenizers[0].pattern is `{\"Regex\":\"x\"}`; supported: the patterns of Llama 3 and of Qwen 2",
    );
    refused(
        |json| json["pre_tokenizer"] = split("x", "Removed", false),
        "pre_tokenizer.pretokenizers[0].behavior is `Removed`; supported: `Isolated`",
    );
    let qwen = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    refused(
        |json| json["pre_tokenizer"] = split(qwen, "Isolated", true),
        "pre_tokenizer.pretokenizers[1].use_regex is `true`; supported: false",
    );
    refused(
        |json| {
            json["normalizer"] = json!({"type": "NFC"});
            json["added_tokens"][0]["normalized"] = json!(true);
        },
        "added_tokens[0].normalized is `true`; supported: false, with a normalizer (with NFC also true, of white space)",
    );
    let digits = |individual: bool, space: bool, regex: bool| {
        json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": individual},
            {"type": "ByteLevel", "add_prefix_space": space, "use_regex": regex}]})
    };
    refused(
        |json| json["pre_tokenizer"] = digits(false, false, true),
        "pre_tokenizer.pretokenizers[0].individual_digits is `false`; supported: true",
    );
    refused(
        |json| json["pre_tokenizer"] = digits(true, true, true),
        "pre_tokenizer.pretokenizers[1].add_prefix_space is `true`; supported: false",
    );
    refused(
        |json| json["pre_tokenizer"] = digits(true, false, false),
        "pre_tokenizer.pretokenizers[1].use_regex is `false`; supported: true",
    );
    let view = section(|json| json["pre_tokenizer"] = digits(true, false, true), None).unwrap();
    assert_eq!(TokenizerView::parse(&view).unwrap().pre_tokenizer(), PreTokenizer::DigitsGpt2);
    refused(
        |json| json["pre_tokenizer"]["behavior"] = json!(1),
        "pre_tokenizer.behavior is not a known field; supported: type, add_prefix_space, trim_offsets, use_regex",
    );
}

#[test]
fn other_models() {
    refused(
        |json| json["model"]["type"] = json!("WordLevel"),
        "model.type is `WordLevel`; supported: BPE, WordPiece, Unigram",
    );
    refused(|json| json["model"] = json!({}), "model.type is missing; supported: BPE, WordPiece, Unigram");
    refused(|json| json["model"]["dropout"] = json!(0.1), "model.dropout is `0.1`; supported: null, 0");
    refused(
        |json| json["model"]["end_of_word_suffix"] = json!("</w>"),
        "model.end_of_word_suffix is `</w>`; supported: null, an empty string",
    );
    refused(
        |json| json["model"]["byte_fallback"] = json!(true),
        "model.byte_fallback is `true`; supported: false",
    );
    refused(
        |json| json["model"]["ignore_merges"] = json!("yes"),
        "model.ignore_merges is `yes`; supported: true, false",
    );
    refused(
        |json| {
            json["model"]["ignore_merges"] = json!(true);
            json["model"]["vocab"]["zqzq"] = json!(1024);
        },
        "model.ignore_merges is true and no merge makes the token `zqzq`; supported: one that does",
    );
}

#[test]
fn vocabularies_that_contradict_themselves() {
    refused(
        |json| json["model"]["merges"][3] = json!(["h", "zqzq"]),
        "model.merges[3]: token `zqzq` is not in model.vocab",
    );
    refused(
        |json| json["model"]["merges"][3] = json!("q q"),
        "model.merges[3]: token `qq` is not in model.vocab",
    );
    refused(
        |json| json["model"]["merges"][3] = json!("a b c"),
        "model.merges[3] is `a b c`; supported: \"left right\", [\"left\", \"right\"]",
    );
    refused(
        |json| json["model"]["merges"][3] = json!([1, 2]),
        "model.merges[3] is `[1,2]`; supported: \"left right\", [\"left\", \"right\"]",
    );
    refused(
        |json| json["model"]["merges"][3] = json["model"]["merges"][1].clone(),
        "merge 3 repeats merge 1",
    );
    refused(
        |json| {
            json["model"]["vocab"].as_object_mut().unwrap().retain(|token, _| token.chars().count() > 1);
        },
        "model.vocab has no token `\u{100}` for the byte 0; supported where `unk_token` is null and other bytes have tokens",
    );
    refused(
        |json| {
            json["model"]["vocab"].as_object_mut().unwrap().remove("\u{f5}");
            json["model"]["unk_token"] = json!("<|endoftext|>");
        },
        "model.vocab has no token `\u{f5}` for the byte 245; supported where `unk_token` is null and other bytes have tokens",
    );
    refused(
        |json| json["model"]["vocab"]["\u{65e5}"] = json!(1024),
        "model.vocab: token `\u{65e5}` has the character '\u{65e5}', which is not in the byte-level alphabet",
    );
    refused(
        |json| json["model"]["vocab"]["zqzq"] = json!(-1),
        "model.vocab[`zqzq`] is `-1`; supported: an integer from 0 to 1048575",
    );
    refused(
        |json| json["model"]["vocab"]["zqzq"] = json!(1_u32 << 20),
        "model.vocab[`zqzq`] is `1048576`; supported: an integer from 0 to 1048575",
    );
    refused(|json| json["model"]["vocab"]["zqzq"] = json!(1), "tokens `!` and `zqzq` both have the id 1");
    let long = "z".repeat(256);
    refused(
        |json| json["model"]["vocab"][&long] = json!(1024),
        "token 1024 has 256 bytes, expected at most 255",
    );
    assert_eq!(
        section(|_| {}, Some(1023)).unwrap_err(),
        "model/tokenizer.json: the largest id is 1023 (`ong`): expected at most 1023 tokens (vocab_size of the model)"
    );
    assert!(section(|_| {}, Some(2000)).is_ok());

    let holes = section(|json| json["model"]["vocab"]["zqzq"] = json!(1100), Some(1101)).unwrap();
    let view = TokenizerView::parse(&holes).unwrap();
    assert_eq!(view.vocabulary(), 1101);
    assert_eq!((view.token_bytes(1099), view.token_bytes(1100)), (None, Some(&b"zqzq"[..])));
}

#[test]
fn added_tokens() {
    let token = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    refused(
        |json| json["added_tokens"][0]["single_word"] = json!(true),
        "added_tokens[0].single_word is `true`; supported: false",
    );
    let push =
        |token: Value| move |json: &mut Value| json["added_tokens"].as_array_mut().unwrap().push(token);
    assert!(section(push(token(1024, "<user>")), Some(1025)).is_ok());
    refused(push(token(1030, "<user>")), "added_tokens[1].id of `<user>`: expected 1024, found 1030");
    refused(push(token(7, "<user>")), "added_tokens[1].id of `<user>`: expected 1024, found 7");
    refused(push(token(2, "!")), "added_tokens[1].id of `!`: expected 1, found 2");
    refused(push(token(0, "<|endoftext|>")), "added_tokens[1]: `<|endoftext|>` is there already");
    refused(push(token(1024, "")), "added_tokens[1].content is ``; supported: a string");
    refused(push(json!("x")), "added_tokens[1] is `x`; supported: an object");
    refused(
        push(json!({"id": 1024, "content": "x y"})),
        "added_tokens[1].special is missing; supported: true, false",
    );
    assert_eq!(
        section(push(token(1024, "<user>")), Some(1024)).unwrap_err(),
        "model/tokenizer.json: the largest id is 1024 (`<user>`): expected at most 1024 tokens (vocab_size of the model)"
    );
}

#[test]
fn files_that_are_none() {
    let path = Path::new("model/tokenizer.json");
    let error = tokenizer_section(b"{\"version\": ", path, None).unwrap_err().to_string();
    assert_eq!(error, "model/tokenizer.json: not JSON: EOF while parsing a value at line 1 column 12");
    let error = tokenizer_section(b"[1]", path, None).unwrap_err().to_string();
    assert_eq!(error, "model/tokenizer.json: the file is `[1]`; supported: an object");
    let error = read_tokenizer_json(Path::new("no/such/tokenizer.json"), None).unwrap_err().to_string();
    assert!(error.starts_with("no/such/tokenizer.json: "), "{error}");
}

/// A Unigram tokenizer, edited; for the fields that SentencePiece's models have.
#[track_caller]
fn refused_unigram(edit: impl FnOnce(&mut Value), message: &str) {
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"});
    let mut json = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": metaspace,
        "post_processor": null, "decoder": metaspace, "model": {"type": "Unigram", "unk_id": 0,
            "vocab": [["<unk>", 0.0], ["\u{2581}", -1.0], ["a", -2.0]]}});
    let convert = |json: &Value| {
        tokenizer_section(json.to_string().as_bytes(), Path::new("t"), None)
            .map_err(|error| error.to_string())
    };
    convert(&json).unwrap();
    edit(&mut json);
    assert_eq!(convert(&json).expect_err(message), format!("t: {message}"));
}

#[test]
fn other_pipelines_of_sentence_piece() {
    refused_unigram(
        |json| json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": ""}),
        "normalizer is `Precompiled`; supported: null, `Replace` of a space by U+2581, a `Sequence` of `Prepend` of U+2581 \
         and that `Replace`",
    );
    refused_unigram(
        |json| json["pre_tokenizer"] = json!({"type": "Whitespace"}),
        "pre_tokenizer is `Whitespace`; supported: null, `Metaspace`, `Split` at spaces that a normalizer has replaced",
    );
    refused_unigram(
        |json| json["pre_tokenizer"]["replacement"] = json!("_"),
        "pre_tokenizer.replacement is `_`; supported: U+2581",
    );
    let decoders = "`Metaspace`, or a `Sequence` of `Replace` (U+2581 by a space), `ByteFallback`, `Fuse` and `Strip` \
         (one space in front), or of `ByteFallback` and `Metaspace`";
    refused_unigram(
        |json| json["decoder"] = json!(null),
        &format!("decoder is `null`; supported: {decoders}"),
    );
    refused_unigram(
        |json| {
            json["decoder"] =
                json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Metaspace"}]})
        },
        "decoder.decoders[1].replacement is missing; supported: U+2581",
    );
    refused_unigram(
        |json| json["decoder"] = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}),
        &format!("decoder is `Sequence`; supported: {decoders}"),
    );
    refused_unigram(
        |json| json["model"]["byte_fallback"] = json!(true),
        "decoder is `Metaspace`; supported: one with `ByteFallback`",
    );
    refused_unigram(|json| json["model"]["unk_id"] = json!(3), "model.unk_id is `3`; supported: an id");
    refused_unigram(
        |json| json["model"]["vocab"][2][0] = json!(" "),
        "model.vocab: ` ` has a space, which U+2581 stands for in other tokens",
    );
    refused_unigram(
        |json| json["model"]["vocab"][2] = json!(["<unk>", -3.0]),
        "model.vocab[2]: `<unk>` is there already",
    );
    refused_unigram(
        |json| json["model"]["vocab"][2] = json!("a"),
        "model.vocab[2] is `a`; supported: a token and its score",
    );
    refused_unigram(
        |json| json["post_processor"] = json!({"type": "BertProcessing", "cls": ["x", 1], "sep": ["a", 2]}),
        "post_processor.cls is `x`, which is not in the vocabulary",
    );
}

#[test]
fn other_pipelines_of_word_piece() {
    let sound = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"?": 0, "a": 1, "##b": 2}}});
    let convert = |json: &Value| {
        tokenizer_section(json.to_string().as_bytes(), Path::new("t"), None)
            .map_err(|error| error.to_string())
    };
    convert(&sound).unwrap();
    let edits: [(&str, Value, &str); 5] = [
        (
            "/model/continuing_subword_prefix",
            json!("@@"),
            "model.continuing_subword_prefix is `@@`; supported: `##`",
        ),
        ("/model/unk_token", json!("x"), "model.unk_token is `x`, which is not in the vocabulary"),
        (
            "/pre_tokenizer/type",
            json!("Whitespace"),
            "pre_tokenizer is `Whitespace`; supported: `BertPreTokenizer`",
        ),
        ("/decoder", json!(null), "decoder is `null`; supported: `WordPiece`"),
        ("/normalizer", json!({"type": "NFD"}), "normalizer is `NFD`; supported: null, `BertNormalizer`"),
    ];
    for (place, value, message) in edits {
        let mut json = sound.clone();
        *json.pointer_mut(place).unwrap() = value;
        assert_eq!(convert(&json).unwrap_err(), format!("t: {message}"));
    }
}
