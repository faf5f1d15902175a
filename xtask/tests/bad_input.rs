//! `pack` and `eval` on input that cannot be: a clear error that names the file and the tensor, the right exit code, no partial
//! file. No test here builds anything: wrong input is found before, and where a build is reached, scripts stand for the compiler.
#![cfg(unix)]

mod case;

use std::fs;
use std::process::Command;

use case::{Case, embedded_model, ended, text};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const NORM: &str = "model.layers.3.input_layernorm.weight";
const QUERY: &str = "model.layers.2.self_attn.q_proj.weight";

#[test]
fn a_missing_tensor_is_named_with_its_file_and_shape() {
    let case = Case::new().weights(|file| file.0.retain(|tensor| tensor.0 != NORM));
    case.refused(&[], 2, &["model.safetensors: tensor ", NORM, "is missing", "[128]"]);
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes() {
    let case = Case::new().weights(|file| file.tensor(QUERY).1["shape"] = json!([64, 256]));
    case.refused(
        &[],
        2,
        &["model.safetensors: tensor ", QUERY, "expected shape [128, 128], found [64, 256]"],
    );
}

#[test]
fn a_weight_that_is_not_finite_is_named_with_its_place_before_anything_is_built() {
    let case = Case::new().weights(|file| {
        // bfloat16's NaN, in row 1, column 2.
        file.tensor(QUERY).2[2 * 130..][..2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    });
    case.refused(&[], 2, &["model.safetensors: tensor ", QUERY, "row 1, column 2", "found NaN"]);
    let case = Case::new().weights(|file| {
        file.tensor("model.embed_tokens.weight").2[..2].copy_from_slice(&0xff80_u16.to_le_bytes());
    });
    case.refused(&[], 2, &["model.embed_tokens.weight, row 0, column 0", "found -inf"]);
}

#[test]
fn cut_and_broken_weight_files_are_named() {
    let whole = fs::read(embedded_model().join("model.safetensors")).expect("the embedded model");
    for (length, part) in
        [(whole.len() - 1, "expected 2630760 bytes"), (1000, "bytes 0..8 announce"), (5, "bytes")]
    {
        let case = Case::new().file("model.safetensors", &whole[..length]);
        case.refused(&[], 2, &["model.safetensors: ", part]);
    }
    let mut broken = whole;
    broken[8] = b'x';
    Case::new().file("model.safetensors", broken).refused(&[], 2, &["model.safetensors: header"]);
}

#[test]
fn missing_files_are_reading_failures() {
    for name in ["config.json", "tokenizer.json"] {
        let case = Case::new();
        fs::remove_file(case.path("model").join(name)).expect("removable");
        case.refused(&[], 4, &[name, "No such file"]);
    }
    let case = Case::new();
    fs::remove_file(case.path("model/model.safetensors")).expect("removable");
    case.refused(&[], 2, &["found neither model.safetensors nor"]);
    let case = Case::new();
    fs::remove_file(case.path("model/calibration.txt")).expect("removable");
    case.refused(&[], 2, &["the model's folder has no ", "calibration.txt", "--calibration FILE"]);
    Case::new().refused(&["--calibration", "/no/such/text"], 4, &["/no/such/text", "No such file"]);
}

#[test]
fn architectures_and_options_of_a_model_that_do_not_run_are_named() {
    let case = Case::new().json("config.json", |config| {
        config["model_type"] = json!("mamba");
        config["architectures"] = json!(["MambaForCausalLM"]);
    });
    case.refused(&[], 2, &["config.json: model_type is mamba", "supported: llama"]);
    let case = Case::new().json("config.json", |config| config["hidden_size"] = json!(0));
    case.refused(&[], 2, &["config.json: hidden_size: expected", "found 0"]);
    Case::new().file("config.json", "{").refused(&[], 2, &["config.json: ", "line 1"]);
}

#[test]
fn tokenizers_that_are_not_supported_are_named() {
    let case =
        Case::new().json("tokenizer.json", |tokenizer| tokenizer["model"]["type"] = json!("Morphemes"));
    case.refused(&[], 2, &["tokenizer.json: model.type is ", "Morphemes", "supported: "]);
    let case = Case::new().json("tokenizer.json", |tokenizer| {
        tokenizer["added_tokens"][0]["single_word"] = json!(true);
    });
    case.refused(&[], 2, &["tokenizer.json", "single_word"]);
    Case::new().file("tokenizer.json", "[").refused(&[], 2, &["tokenizer.json: not JSON"]);
}

#[test]
fn texts_that_cannot_be_used_are_named() {
    let short = Case::new().file("calibration.txt", "Once upon a time.\n");
    short.refused(&[], 2, &["calibration.txt: expected at least 130 tokens", "found "]);
    // Enough to calibrate on, and nothing left for the check.
    let case = Case::new();
    let most = fs::read_to_string(case.path("model/calibration.txt")).expect("readable");
    let case = case.file("calibration.txt", &most[..2000]);
    case.refused(&[], 2, &["calibration.txt: expected at least", "found "]);
    let latin = Case::new().file("calibration.txt", b"caf\xe9 and more");
    latin.refused(&[], 2, &["calibration.txt: expected UTF-8, found an invalid sequence at byte 3"]);
}

#[test]
fn a_context_beyond_the_models_is_refused() {
    let limit = "--context 513: the model has a context of 512 tokens";
    let case = Case::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    case.surround(&mut command);
    let (model, out) = (case.path("model"), case.path("out"));
    command.args(["pack", "--target", "x86-64-linux", "--context", "513", "--model"]).arg(&model);
    command.arg("--output").arg(out);
    assert!(ended(&command.output().expect("the program starts"), 2).contains(limit));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args(["eval", "--context", "513", "--model"])
        .arg(&model)
        .arg("--text")
        .arg(model.join("calibration.txt"));
    assert!(ended(&command.output().expect("the program starts"), 2).contains(limit));
}

#[test]
fn folders_that_cannot_be_written_are_named_before_the_work() {
    let case = Case::new().compiler();
    let below_a_file = case.path("model/config.json/out");
    let below_a_file = below_a_file.to_str().expect("UTF-8");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    case.surround(&mut command);
    let mut arguments = case.arguments();
    arguments[3] = below_a_file.to_owned();
    let output = command.arg("pack").args(arguments).output().expect("the program starts");
    let stderr = ended(&output, 4);
    assert!(stderr.contains(&format!("cannot write to the folder {below_a_file}")), "{stderr}");
    assert!(stderr.contains("cause: "), "{stderr}");
    assert!(!case.path("target").exists(), "something was built");
}

#[test]
fn a_full_disk_leaves_no_partial_file() {
    let case = Case::new().compiler();
    // No file may grow beyond 64 KiB; the shell's signal for it is off, so that writing fails as on a full disk.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" pack \"$@\"", env!("CARGO_BIN_EXE_xtask")]);
    case.surround(&mut command);
    let output = command.args(case.arguments()).output().expect("the program starts");
    let stderr = ended(&output, 4);
    assert!(stderr.contains("cannot write ") && stderr.contains("/out/"), "{stderr}");
    assert_eq!(case.written(), Vec::<String>::new(), "partial files");
}

#[test]
fn a_target_file_serves_and_the_output_is_complete_and_plain() {
    let case = Case::new().compiler();
    let target =
        fs::read_to_string(embedded_model().join("../../targets/x86-64-linux.toml")).expect("readable");
    let file = case.path("board.toml");
    fs::write(&file, target.replace("\"x86-64-linux\"", "\"my-board\"")).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    case.surround(&mut command);
    let mut arguments = case.arguments();
    let place = arguments.iter().position(|word| word == "x86-64-linux").expect("the target");
    arguments[place] = file.to_str().expect("UTF-8").to_owned();
    let output = command.arg("pack").args(arguments).output().expect("the program starts");
    ended(&output, 0);
    assert!(text(&output.stdout).contains("NOT CHECKED on the target: --no-check was given."));
    let names = case.written();
    let sums = fs::read_to_string(case.path("out/SHA256SUMS")).expect("readable");
    assert_eq!(sums.lines().count() + 2, names.len(), "beside the sums and the report: {names:?}");
    for line in sums.lines() {
        let (expected, name) = line.split_once("  ").expect("a digest and a name");
        let bytes = fs::read(case.path("out").join(name)).expect("readable");
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{name}");
    }
    let report: Value =
        serde_json::from_slice(&fs::read(case.path("out/report.json")).expect("readable")).expect("JSON");
    assert_eq!((&report["target"], &report["check"]), (&json!("my-board"), &Value::Null));
}

#[test]
fn containers_that_are_none_are_named() {
    let case = Case::new();
    let text = case.path("model/calibration.txt");
    for (container, code, part) in
        [(text.clone(), 2, "not a rescomp container"), (case.path("absent"), 4, "cannot read ")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["eval", "--container"]).arg(&container).arg("--text").arg(&text);
        let stderr = ended(&command.output().expect("the program starts"), code);
        assert!(stderr.contains(part) && stderr.contains(container.to_str().expect("UTF-8")), "{stderr}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("--version").output().expect("starts");
    ended(&output, 0);
    assert!(text(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn arm_of_32_bits_is_refused_by_name_in_a_target_file_too() {
    let case = Case::new();
    let target = fs::read_to_string(embedded_model().join("../../targets/aarch64.toml")).expect("readable");
    let file = case.path("old.toml");
    fs::write(&file, target.replace("architecture = \"aarch64\"", "architecture = \"armv7\""))
        .expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["pack", "--target"]).arg(&file);
    let stderr = ended(&command.output().expect("the program starts"), 2);
    assert!(
        stderr.contains("armv7: 32-bit ARM Linux isn't supported; use a 64-bit system (aarch64)"),
        "{stderr}"
    );
}

#[test]
fn windows_are_as_long_as_a_small_models_context_where_nobody_says() {
    let case = Case::new().json("config.json", |config| config["max_position_embeddings"] = json!(48));
    let model = case.path("model");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["eval", "--json", "--windows", "2", "--model"]).arg(&model).arg("--text");
    command.arg(model.join("calibration.txt"));
    let output = command.output().expect("the program starts");
    ended(&output, 0);
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    assert_eq!(report["tokens"], 2 * 48, "{report}");
}
