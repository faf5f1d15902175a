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
    refused(|json| json["normalizer"] = json!({"type": "NFC"}), "normalizer is `NFC`; supported: null");
    refused(
        |json| json["post_processor"] = json!({"type": "TemplateProcessing", "single": []}),
        "post_processor is `TemplateProcessing`; supported: null, `ByteLevel`",
    );
    refused(|json| json["decoder"] = json!(null), "decoder is `null`; supported: `ByteLevel`");
    refused(
        |json| json["pre_tokenizer"] = json!({"type": "Metaspace"}),
        "pre_tokenizer is `Metaspace`; supported: `ByteLevel`, `Sequence` of `Digits` and `ByteLevel`",
    );
    let llama = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "x"}}, {"type": "ByteLevel"}]});
    refused(
        |json| json["pre_tokenizer"] = llama,
        "pre_tokenizer.pretokenizers[0] is `Split`; supported: `ByteLevel`, `Sequence` of `Digits` and `ByteLevel`",
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
        |json| json["model"]["type"] = json!("Unigram"),
        "model.type is `Unigram`; supported: BPE (byte-level)",
    );
    refused(|json| json["model"] = json!({}), "model.type is missing; supported: BPE (byte-level)");
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
            json["model"]["vocab"].as_object_mut().unwrap().remove("!");
        },
        "model.vocab has no token `!` for the byte 33",
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
    for name in ["single_word", "lstrip", "rstrip"] {
        refused(
            |json| json["added_tokens"][0][name] = json!(true),
            &format!("added_tokens[0].{name} is `true`; supported: false"),
        );
    }
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
