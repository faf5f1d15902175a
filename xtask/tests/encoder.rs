//! An encoder from its folder to a checked container, and what is refused of it.
#![cfg(unix)]

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use program::{assert_refused, report};
use serde_json::{Value, json};

/// The tests' BERT with a tokenizer: the embedded model's, cut to the vocabulary, with a token before and one behind each text.
fn model(folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (source, model) = (root.join("quantizer/tests/architectures/bert"), folder.join("tiny-bert"));
    fs::create_dir_all(model.join("1_Pooling")).expect("writable");
    for file in ["config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"] {
        fs::copy(source.join(file), model.join(file)).expect("a file");
    }
    let text = fs::read(root.join("models/stories-1m/tokenizer.json")).expect("a tokenizer");
    let mut tokenizer: Value = serde_json::from_slice(&text).expect("JSON");
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    vocabulary.retain(|_, token| token.as_u64().is_some_and(|token| token < 288));
    tokenizer["model"]["merges"] = json!([]);
    tokenizer["post_processor"] = json!({ "type": "BertProcessing", "cls": ["!", 1], "sep": ["\"", 2] });
    fs::write(model.join("tokenizer.json"), tokenizer.to_string()).expect("writable");
    model
}

#[test]
fn an_encoder_is_packed_checked_and_measured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = model(folder.path());
    let text = folder.path().join("text");
    let lines: String = (0..40).map(|line| format!("Line {line} says {}.\n", line * 7919)).collect();
    fs::write(&text, lines).expect("writable");
    let out = folder.path().join("out");
    let [model, text, out] = [&model, &text, &out].map(|path| path.to_str().expect("UTF-8"));
    let target = format!("{}-linux", std::env::consts::ARCH.replace('_', "-"));
    let target = if target.starts_with("x86") { target.as_str() } else { "aarch64" };
    let pack = |more: &[&str]| -> Vec<String> {
        let head = ["pack", "--target", target, "--model", model, "--calibration", text, "--output", out];
        let small = ["--method", "rtn", "--bits", "8", "--group-size", "32", "--calibration-windows", "2"];
        let all = [&head[..], &small, &["--context", "20", "--no-install"], more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let packed = pack(&[]);
    let found = report(&packed.iter().map(String::as_str).collect::<Vec<_>>());
    let check = &found["pack"]["check"];
    assert_eq!(check["texts"], 16);
    let distance = check["mean_distance"].as_f64().expect("a distance");
    assert!(distance > 0.0 && distance < 0.01, "{distance}");
    let places = found["check"]["places"].as_array().expect("places");
    assert!(places.len() > 1 && places.iter().all(|place| place["passed"] == true), "{found}");
    assert!(places.iter().all(|place| place["device"]["embeddings_sha256"] == check["embeddings_sha256"]));
    let readme = fs::read_to_string(Path::new(out).join("README.md")).expect("a file");
    assert!(readme.contains("embed model.rescomp") && !readme.contains("generate"), "{readme}");

    let container = Path::new(out).join("model.rescomp");
    let container = container.to_str().expect("UTF-8");
    let eval = ["eval", "--container", container, "--text", text];
    let found = report(&[&eval[..], &["--reference", model, "--windows", "12"]].concat());
    assert_eq!((&found["texts"], &found["activations"]), (&json!(12), &json!("int8")));
    assert!(found["rank_correlation"].as_f64().expect("a correlation") > 0.9, "{found}");
    assert!(found["mean_distance"].as_f64().expect("a distance") < 0.01, "{found}");
    assert_refused(&eval, 2, &["bert is an encoder", "no perplexity", "--reference"]);
    assert_refused(&["eval", "--model", model, "--text", text], 2, &["bert is an encoder", "no perplexity"]);
    let estimate = ["estimate", "--target", "rpi5", "--container", container];
    assert_refused(&estimate, 2, &["bert is an encoder", "eval --container"]);
    for command in ["quality", "methods", "calibration"] {
        let arguments = ["bench", command, "--model", model, "--calibration", text, "--context", "20"];
        let text = ["--text", text];
        let arguments = [&arguments[..], if command == "quality" { &text } else { &[] }].concat();
        assert_refused(&arguments, 2, &["bert is an encoder"]);
    }
    for (more, part) in [
        (&["--target-bpw", "4"][..], "bert is an encoder"),
        (&["--kv-cache", "int8"], "--kv-cache: bert is no decoder"),
        (&["--joiner", "none"], "--joiner: an encoder's texts are lines"),
        (&["--calibration-windows", "4000"], "expected at least 72000 tokens"),
        (&["--context", "65"], "--context 65: the model has a context of 64 tokens"),
    ] {
        let all = pack(&["--no-check"]);
        let distributes = more[0] == "--target-bpw";
        let kept = |word: &&str| !distributes || !["--bits", "8"].contains(word);
        let arguments: Vec<&str> = all.iter().map(String::as_str).filter(kept).collect();
        let at = arguments.iter().position(|word| *word == more[0]);
        let arguments: Vec<&str> = match at {
            Some(at) => [&arguments[..at], more, &arguments[at + 2..]].concat(),
            None => [&arguments[..], more].concat(),
        };
        assert_refused(&arguments, 2, &[part]);
    }
}
