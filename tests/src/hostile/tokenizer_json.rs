//! Hostile `tokenizer.json`.

use super::{HostileFile, replaced};
use rescomp_formats::tokenizer::byte_alphabet_position;
use serde_json::{Map, Value, json};

/// How the file spells a byte: printable ones as themselves, the others by the characters from U+0100 on.
fn spelling(byte: u8) -> char {
    match byte_alphabet_position(byte) {
        0..=187 => char::from(byte),
        position => char::from_u32(0x100 + u32::from(position) - 188).expect("a letter"),
    }
}

/// The 256 bytes, a merge, and an added token.
fn sound_value() -> Value {
    let mut vocab: Map<String, Value> =
        (0..=255).map(|byte| (spelling(byte).to_string(), json!(byte_alphabet_position(byte)))).collect();
    vocab.insert("he".to_owned(), json!(256));
    json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 257, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel" },
        "model": { "type": "BPE", "vocab": vocab, "merges": [["h", "e"]] },
    })
}

fn bytes_of(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

pub(super) fn sound() -> Vec<(&'static str, Vec<u8>)> {
    let mut digits = sound_value();
    digits["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Digits", "individual_digits": true },
        { "type": "ByteLevel", "add_prefix_space": false },
    ] });
    vec![
        ("tokenizer-json/sound.json", bytes_of(&sound_value())),
        ("tokenizer-json/sound-digits.json", bytes_of(&digits)),
    ]
}

pub(super) fn files() -> Vec<HostileFile> {
    let sound = bytes_of(&sound_value());
    let make = |name, attack, bytes| HostileFile { name, attack, offset: None, bytes };
    let file = |name, attack, from: &str, to: &str| make(name, attack, replaced(&sound, from, to));
    let changed = |name, attack, change: &dyn Fn(&mut Value)| {
        let mut value = sound_value();
        change(&mut value);
        make(name, attack, bytes_of(&value))
    };
    let nested = format!("\"normalizer\":{}{}", "[".repeat(20_000), "]".repeat(20_000));
    vec![
        make("tokenizer-json/cut.json", "the file ends early", sound[..sound.len() / 3].to_vec()),
        file(
            "tokenizer-json/nested-deeply.json",
            "nesting that would exhaust the stack",
            "\"normalizer\":null",
            &nested,
        ),
        file(
            "tokenizer-json/id-huge.json",
            "an id that would cost four gigabytes of holes",
            "\"he\":256",
            "\"he\":4294967295",
        ),
        file(
            "tokenizer-json/id-beyond-64-bits.json",
            "an id that no integer holds",
            "\"he\":256",
            "\"he\":99999999999999999999",
        ),
        file("tokenizer-json/id-negative.json", "an id below zero", "\"he\":256", "\"he\":-1"),
        file("tokenizer-json/id-shared.json", "two tokens of one id", "\"he\":256", "\"he\":9"),
        file(
            "tokenizer-json/id-beyond-the-model.json",
            "a token that the embedding does not have",
            "\"he\":256",
            "\"he\":258",
        ),
        changed("tokenizer-json/byte-missing.json", "a byte that no text can be made of", &|value| {
            let vocab = value["model"]["vocab"].as_object_mut().expect("an object");
            let id = vocab.remove("A").expect("there");
            vocab.insert("AA".to_owned(), id);
            value["model"]["unk_token"] = json!("he");
        }),
        changed("tokenizer-json/character-of-no-byte.json", "a token that is no bytes", &|value| {
            value["added_tokens"] = json!([]);
            value["model"]["vocab"]["\u{4e00}"] = json!(257);
        }),
        changed("tokenizer-json/merge-of-nothing.json", "a merge of a token that is not there", &|value| {
            value["model"]["merges"] = json!([["h", "ex"]])
        }),
        changed("tokenizer-json/merge-into-nothing.json", "a merge whose result is not there", &|value| {
            value["model"]["merges"] = json!([["h", "e"], ["he", "e"]])
        }),
        changed("tokenizer-json/merge-of-three.json", "a merge that is no pair", &|value| {
            value["model"]["merges"] = json!([["h", "e", "x"]])
        }),
        changed("tokenizer-json/merge-twice.json", "a merge named twice", &|value| {
            value["model"]["merges"] = json!([["h", "e"], ["h", "e"]])
        }),
        changed("tokenizer-json/token-too-long.json", "a token of 256 bytes", &|value| {
            value["added_tokens"] = json!([]);
            value["model"]["vocab"]["a".repeat(256)] = json!(257);
        }),
        changed("tokenizer-json/added-elsewhere.json", "an added token under another id", &|value| {
            value["added_tokens"][0]["id"] = json!(256)
        }),
        changed("tokenizer-json/added-empty.json", "an added token that is everywhere", &|value| {
            value["added_tokens"][0]["content"] = json!("")
        }),
        changed(
            "tokenizer-json/added-words.json",
            "an added token that is found in whole words only",
            &|value| value["added_tokens"][0]["single_word"] = json!(true),
        ),
        changed("tokenizer-json/normalizer.json", "a step that would be left out", &|value| {
            value["normalizer"] = json!({ "type": "NFKC" })
        }),
        changed("tokenizer-json/field-unknown.json", "a field that would be passed over", &|value| {
            value["model"]["byte_fallbak"] = json!(true)
        }),
        changed("tokenizer-json/another-model.json", "a vocabulary of another algorithm", &|value| {
            value["model"]["type"] = json!("WordLevel")
        }),
    ]
}
