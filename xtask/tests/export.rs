//! `export` as a user meets it: containers that are held exactly, and those that are refused with what to do.
#![cfg(unix)]

mod case;

use std::fs;
use std::process::{Command, Output};

use case::{Case, embedded_model, ended, text};
use serde_json::{Value, json};

fn export(case: &Case, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["export", "--container"]).arg(case.path("out/model.rescomp")).args(arguments);
    command.current_dir(case.path("")).output().expect("the program starts")
}

fn packed(options: &[&str]) -> Case {
    let case = Case::new().compiler();
    ended(&case.pack(options).output().expect("the program starts"), 0);
    case
}

fn perplexity(subject: [&str; 2], case: &Case) -> f64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["eval", "--json", "--context=64", "--windows=4"]).args(subject);
    command.arg("--text").arg(embedded_model().join("held_out.txt")).current_dir(case.path(""));
    let output = command.output().expect("the program starts");
    ended(&output, 0);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["perplexity"].as_f64().expect("a number")
}

#[test]
fn a_gguf_file_is_the_container() {
    let case = packed(&["--exportable", "--bits=4", "--group-size=32"]);
    let output = export(&case, &["--format=gguf", "--output=model.gguf", "--json"]);
    ended(&output, 0);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["tensors"]["Q4_0"], 42);
    assert_eq!((&report["tensors"]["Q8_0"], &report["warnings"]), (&1.into(), &Value::Array(Vec::new())));
    // Read as a checkpoint it is the same model, with the same tokens.
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["eval", "--json", "--context=64", "--windows=4", "--activations=f32"]);
    command.args(["--container", "out/model.rescomp", "--text"]).arg(embedded_model().join("held_out.txt"));
    let output = command.current_dir(case.path("")).output().expect("the program starts");
    ended(&output, 0);
    let container: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let container = container["perplexity"].as_f64().expect("a number");
    let file = perplexity(["--model", "model.gguf"], &case);
    assert!((file / container - 1.0).abs() < 1e-3, "{file} {container}");

    let output = export(&case, &["--format=gguf", "--type=q8_0", "--output=wide.gguf"]);
    ended(&output, 0);
    assert!(text(&output.stdout).contains("43 of Q8_0"), "{}", text(&output.stdout));
    assert!(
        fs::metadata(case.path("wide.gguf")).expect("there").len()
            > fs::metadata(case.path("model.gguf")).expect("there").len()
    );
}

#[test]
fn all_bits_and_groups_are_exported() {
    for options in [
        &["--exportable", "--bits=2", "--group-size=64", "--head-bits=4"][..],
        &["--exportable", "--bits=5", "--group-size=128"],
        &["--bits=8", "--group-size=row"],
        &["--exportable", "--bits=4", "--group-size=row", "--layout=rows"],
    ] {
        let case = packed(options);
        ended(&export(&case, &["--format=gguf", "--output=model.gguf"]), 0);
        let model = embedded_model();
        let model = model.to_str().expect("UTF-8");
        let folder = &["--format=compressed-tensors", "--output=folder", "--model", model];
        ended(&export(&case, folder), 0);
        let config: Value =
            serde_json::from_slice(&fs::read(case.path("folder/config.json")).expect("there")).expect("JSON");
        assert_eq!(config["quantization_config"]["format"], "pack-quantized");
        assert_eq!(
            fs::read(case.path("folder/tokenizer.json")).ok(),
            fs::read(embedded_model().join("tokenizer.json")).ok()
        );
        // A folder that has something stays as it is.
        let stderr = ended(&export(&case, folder), 4);
        assert!(stderr.contains("expected a new or an empty folder"), "{stderr}");
    }
}

/// Frequencies that are scaled, a head of its own, tokens of Llama 3, and matrices that differ.
#[test]
fn scaled_positions_a_head_and_bands_are_exported() {
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let scaling = json!({ "rope_theta": 500_000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 128 });
    let case = Case::new()
        .json("config.json", |config| {
            config["rope_parameters"] = scaling;
            config["tie_word_embeddings"] = json!(false);
        })
        .json("tokenizer.json", |tokenizer| {
            tokenizer["model"]["ignore_merges"] = json!(true);
            tokenizer["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
            ] });
        })
        .weights(|file| {
            let mut head = file.tensor("model.embed_tokens.weight").clone();
            head.0 = "lm_head.weight".into();
            head.2.reverse();
            head.2.chunks_mut(2).for_each(|element| element.reverse());
            file.0.push(head);
        })
        .compiler();
    let recipe = "[default]\nbits = 4\ngroup = \"32\"\n[matrices]\n\"head\" = { bits = 8, group = \"64\" }\n\
                  \"layer 0 query\" = { bits = 2, group = \"64\" }\n\"layer 3 down\" = { bits = 6, group = \"128\" }\n";
    fs::write(case.path("recipe.toml"), recipe).expect("writable");
    let path = case.path("recipe.toml");
    let pack = ["--exportable", "--recipe", path.to_str().expect("UTF-8")];
    ended(&case.pack(&pack).output().expect("the program starts"), 0);
    let output = export(&case, &["--format=gguf", "--output=model.gguf", "--json"]);
    ended(&output, 0);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // Norms and the divisors of the frequencies; the head and the matrix of 6 bits; all others.
    assert_eq!(report["tensors"], json!({ "F32": 14, "Q8_0": 2, "Q4_0": 42 }));
    let model = case.path("model");
    let model = model.to_str().expect("UTF-8");
    let stderr =
        ended(&export(&case, &["--format=compressed-tensors", "--output=folder", "--model", model]), 2);
    assert!(
        stderr.contains("layer 0 key: expected 2 bits in groups of 64, as layer 0 query has it"),
        "{stderr}"
    );
}

/// The rows of an embedding in bands come back in the order of tokens.
#[test]
fn an_embedding_in_bands_is_exported() {
    let case = Case::new().compiler();
    let path = case.path("recipe.toml");
    let recipe = "[default]\nbits = 4\ngroup = \"64\"\n[matrices]\n\"embedding band 0\" = { bits = 8, group = \"32\" }\n\
                  \"embedding band 2\" = { bits = 6, group = \"128\" }\n";
    fs::write(&path, recipe).expect("writable");
    let pack = ["--exportable", "--recipe", path.to_str().expect("UTF-8")];
    ended(&case.pack(&pack).output().expect("the program starts"), 0);
    ended(&export(&case, &["--format=gguf", "--output=model.gguf"]), 0);
    let model = embedded_model();
    let model = model.to_str().expect("UTF-8");
    ended(&export(&case, &["--format=compressed-tensors", "--output=folder", "--model", model]), 0);
}

#[test]
fn what_no_type_holds_is_refused_with_a_remedy() {
    let case = packed(&["--bits=4", "--group-size=32"]);
    let stderr = ended(&export(&case, &["--format=gguf", "--output=model.gguf"]), 2);
    assert!(
        stderr.contains("layer 0 query: row 0, group 0: expected a scale that is an f16 number"),
        "{stderr}"
    );
    assert!(stderr.contains("pack with --exportable"), "{stderr}");
    let case = packed(&["--exportable", "--bits=5", "--group-size=32"]);
    let stderr = ended(&export(&case, &["--format=gguf", "--type=q4_0", "--output=model.gguf"]), 2);
    assert!(stderr.contains("layer 0 query: expected levels from -8 to 7, for Q4_0"), "{stderr}");
    let stderr = ended(&export(&case, &["--format=compressed-tensors", "--output=folder"]), 2);
    assert!(stderr.contains("needs --model DIR"), "{stderr}");
    assert!(!case.path("model.gguf").exists() && !case.path("folder").exists());

    let other = Case::new().weights(|file| file.tensor("model.norm.weight").2[0] ^= 1);
    let model = other.path("model");
    let model = model.to_str().expect("UTF-8");
    let stderr =
        ended(&export(&case, &["--format=compressed-tensors", "--output=folder", "--model", model]), 2);
    assert!(
        stderr.contains("expected the checkpoint stories-1m")
            || stderr.contains("expected the checkpoint model"),
        "{stderr}"
    );
    // Nothing temporary stays.
    let hidden = fs::read_dir(case.path("")).expect("there").flatten();
    assert!(hidden.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
}
