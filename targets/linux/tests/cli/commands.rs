//! `rescomp info`, `check` and `bench`, and what every command refuses.

use crate::fixture::{
    Folder, WINDOW, assert_refused, container, container_with, errors, json, run, spec, succeed,
    without_container,
};
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::CheckRecord;
use rescomp_formats::spec::{ModelSpec, OnlineTransforms};
use rescomp_runtime::kernels;
use serde_json::Value;

const COMMANDS: [&str; 4] = ["info", "check", "generate", "bench"];

/// A record of no model.
const RECORD: CheckRecord = CheckRecord {
    reference_nll: 1.0,
    nll: 1.0,
    mean_kl: 0.0,
    same_top1: 0,
    positions: 20,
    logits_sha256: [0; 32],
};

#[test]
fn info_reports_the_container() {
    let folder = Folder::new();
    for tied_head in [true, false] {
        let spec = ModelSpec { tied_head, ..spec() };
        let bytes = container(&spec, Layout::Nr8k4);
        let path = folder.file("model", &bytes);
        let info = json("info", &path, &["--context", "40", "--kernels", "scalar", "--threads", "3"]);
        assert_eq!(info["file_bytes"], bytes.len());
        assert_eq!(info["threads"], 3);
        assert_eq!(info["kernels"], "scalar");
        assert_eq!(info["provenance"]["checkpoint_sha256"], "ab".repeat(32));
        assert_eq!(info["model"]["vocabulary"], 260);
        let head = if tied_head { 0 } else { 1 };
        let sections = info["sections"].as_array().expect("a list");
        assert_eq!(sections.len(), 5 + head + 2 * 9);
        let last = &sections[sections.len() - 1];
        assert_eq!(last["name"], "layer 1 down");
        assert_eq!((&last["encoding"], &last["layout"]), (&Value::from("int4"), &Value::from("nr8k4")));
        assert_eq!((&last["rows"], &last["cols"]), (&Value::from(64), &Value::from(96)));
        let end = last["offset_bytes"].as_u64().zip(last["bytes"].as_u64()).map(|(at, bytes)| at + bytes);
        assert_eq!(end, Some(bytes.len() as u64));
        // Keys and values: 2 layers x 40 positions x 2 heads of 16, f32.
        assert_eq!(info["memory"]["kv_cache_bytes"], 2 * 2 * 40 * 2 * 16 * 2);
        let tensors = info["tensor_kernels"].as_array().expect("a list");
        assert_eq!(tensors.len(), 8 + head);
        assert_eq!(tensors[0]["tensor"], "embedding");
        assert_eq!(tensors[0]["gemv"].is_null(), !tied_head);
        assert!(tensors[0]["gemm"].is_null());
        assert!(tensors[1 + head]["gemm"].as_str().expect("a name").contains("int4"));
        // As many threads as are fastest, unless told otherwise.
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let threads = json("info", &path, &[])["threads"].as_u64().expect("a number");
        assert!((1..=processors).contains(&threads), "{threads}");
        let words = succeed("info", &path, &[]);
        assert!(words.contains("layer 1 down") && words.contains(&"ab".repeat(32)), "{words}");
        assert!(words.is_ascii() && !words.contains('\x1b'), "{words}");
    }
}

#[test]
fn bands_of_the_embedding_are_listed_and_run() {
    let folder = Folder::new();
    for tied_head in [true, false] {
        let spec = ModelSpec { tied_head, embedding_bands: 3, ..spec() };
        let path = folder.file("model", &container(&spec, Layout::Nr8k4));
        let info = json("info", &path, &[]);
        assert_eq!(info["model"]["embedding_bands"], 3);
        let names: Vec<&str> = info["sections"].as_array().expect("a list")[3..7]
            .iter()
            .filter_map(|section| section["name"].as_str())
            .collect();
        assert_eq!(names, ["token_bands", "embedding band 0", "embedding band 1", "embedding band 2"]);
        assert_eq!(
            (&info["sections"][3]["bytes"], &info["sections"][3]["encoding"]),
            (&260.into(), &"bytes".into())
        );
        assert_eq!(info["sections"][4]["rows"], 87);
        let tensors = info["tensor_kernels"].as_array().expect("a list");
        for (tensor, encoding) in tensors.iter().zip(["int8", "int4"]) {
            assert_eq!((&tensor["tensor"], &tensor["encoding"]), (&"embedding".into(), &encoding.into()));
            assert_eq!(tensor["gemv"].is_null(), !tied_head);
        }
        assert_eq!(tensors[2]["tensor"], if tied_head { "query" } else { "head" });
        let words = succeed("info", &path, &[]);
        assert!(words.contains("embedding bands") && words.contains("embedding band 2"), "{words}");
        assert_eq!(json("check", &path, &[])["passed"], true);
        json("bench", &path, &["--tokens", "4"]);
    }
}

#[test]
fn check_passes_on_every_kernel_thread_count_and_layout() {
    let folder = Folder::new();
    for layout in Layout::ALL {
        let path = folder.file("model", &container(&spec(), layout));
        for kernels in kernels::available() {
            for threads in ["1", "2", "3"] {
                let report = json("check", &path, &["--kernels", kernels.name, "--threads", threads]);
                assert_eq!(report["passed"], true);
                assert_eq!(report["kernels"], kernels.name);
                assert_eq!(report["host"], report["device"]);
                assert_eq!(report["prefill_logits_sha256"], report["host"]["logits_sha256"]);
                assert_eq!(report["device"]["positions"], WINDOW);
                assert_eq!(report["reference_nll"], 5.5);
                let query = &report["tensor_kernels"][1];
                assert_eq!(query["tensor"], "query");
                for product in ["gemv", "gemm"] {
                    assert!(query[product].as_str().expect("a name").starts_with(product), "{query}");
                }
            }
        }
    }
}

#[test]
fn check_fails_where_a_bound_is_missed_and_says_which() {
    let folder = Folder::new();
    let missed = |name: &str, change: fn(&mut CheckRecord), options: &[&str]| {
        let path = folder.file("model", &container_with(&spec(), Layout::Nr8k4, change));
        let report = folder.path().join("report.json");
        let all: Vec<&str> =
            ["--report", report.to_str().expect("UTF-8")].iter().chain(options).copied().collect();
        let output = run("check", &path, &all);
        let written: Value =
            serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON");
        assert_eq!(written["passed"], name.is_empty(), "{name} {options:?}");
        if name.is_empty() {
            assert!(output.status.success(), "{}", errors(&output));
        } else {
            assert_refused(&output, 1, &["missed its bound", name]);
            assert_eq!(String::from_utf8_lossy(&output.stdout).matches("  NO\n").count(), 1, "{name}");
        }
    };
    missed("", |_| (), &[]);
    missed("NLL", |record| record.nll += 1e-3, &[]);
    missed("", |record| record.nll += 1e-3, &["--max-nll-difference", "0.002"]);
    missed("mean KL", |record| record.mean_kl -= 1e-3, &[]);
    missed("", |record| record.mean_kl -= 1e-3, &["--max-kl-difference", "0.002"]);
    missed("same top-1", |record| record.same_top1 += 1, &[]);
    missed("", |record| record.same_top1 += 1, &["--max-top1-difference", "0.051"]);
    missed("SHA-256", |record| record.logits_sha256[31] ^= 1, &[]);
    missed("", |record| record.logits_sha256[31] ^= 1, &["--any-digest"]);
    // A record of other positions than the windows have is no container's.
    let other = folder.file("model", &container_with(&spec(), Layout::Nr8k4, |record| record.positions += 1));
    assert_refused(
        &run("check", &other, &[]),
        2,
        &["as many positions in all windows as the manifest's record has"],
    );
    // Nothing but the container and the last report: temporary files are gone.
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
}

#[test]
fn a_report_that_cannot_be_written_is_a_disk_error() {
    let folder = Folder::new();
    let path = folder.file("model", &container(&spec(), Layout::Nr8k4));
    let report = folder.path().join("absent/report.json");
    let output = run("check", &path, &["--report", report.to_str().expect("UTF-8")]);
    assert_refused(&output, 4, &["absent/report.json", "cannot write"]);
}

#[test]
fn bench_times_the_transforms_of_a_rotated_model() {
    let folder = Folder::new();
    let online = OnlineTransforms { output: true, down: true, head_input: false };
    let path = folder.file("model", &container(&ModelSpec { online, ..spec() }, Layout::Nr8k4));
    let report = json("bench", &path, &["--repeats", "1", "--tokens", "4"]);
    assert_eq!(report["transforms"]["count"], 4, "two in each of two layers");
    assert!(report["transforms"]["seconds_per_token"].as_f64() > Some(0.0));
    assert!(succeed("bench", &path, &["--repeats", "1"]).contains("4 a token, "));
}

#[test]
fn bench_counts_the_weights_of_each_kernel() {
    let folder = Folder::new();
    let path = folder.file("model", &container(&spec(), Layout::Nr8k4));
    for kernels in kernels::available() {
        let options = ["--prompt-tokens", "33", "--tokens", "5", "--repeats", "2", "--kernels", kernels.name];
        let report = json("bench", &path, &options);
        let block = 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 96 * 64);
        let head = 260 * 64;
        let total = |phase: &Value| -> u64 {
            let kernels = phase["weights_by_kernel"].as_object().expect("an object");
            kernels.values().filter_map(Value::as_u64).sum()
        };
        // Tiles of 16, 16 and 1.
        assert_eq!(total(&report["prefill"]), 3 * block + head);
        assert_eq!(total(&report["decode"]), 5 * (block + head));
        assert!(report["decode"]["tokens_per_second"].as_f64() > Some(0.0));
        // int4 in seven matrices of 448 rows together a layer: tables, two scale codes a byte and row (two bytes where a row has
        // three groups of 32), row scales. int8 with an f16 scale each 32 weights, rows padded to 264.
        let layer = 7 * 64 + (448 + 64) + 448 * 2;
        let bytes = block / 2 + 2 * layer + 264 * 64 + 264 * 2 * 2;
        assert_eq!(report["weight_bytes_per_token"], bytes);
        assert_eq!(report["repeats"], 2);
        assert!(report["read_gigabytes_per_second"].as_f64() > Some(0.0));
    }
    assert_eq!(json("bench", &path, &["--repeats", "1"])["transforms"], Value::Null);
    assert!(succeed("bench", &path, &["--repeats", "1"]).contains("tokens a second"));
    assert_refused(
        &run("bench", &path, &["--prompt-tokens", "60", "--tokens", "5"]),
        2,
        &["context", "64", "65"],
    );
}

#[test]
fn no_file_makes_a_command_panic() {
    let folder = Folder::new();
    let good = container(&spec(), Layout::Nr8k4);
    let mut files = vec![
        (folder.file("empty", b""), 2, "empty file"),
        (folder.path().join("absent"), 4, "cannot read"),
        (folder.path().to_path_buf(), 2, "folder"),
        ("/dev/null".into(), 2, "device"),
        (folder.file("text", b"GGUF"), 2, "expected 64 bytes"),
        (folder.file("noise", &[0x5a; 5000]), 2, "not a rescomp container"),
    ];
    for (index, length) in [8, 63, 64, 300, good.len() / 2, good.len() - 1].into_iter().enumerate() {
        files.push((folder.file(&format!("cut-{index}"), &good[..length]), 2, "expected"));
    }
    for (index, at) in [9, 70, 400, good.len() - 9].into_iter().enumerate() {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        files.push((folder.file(&format!("flipped-{index}"), &flipped), 2, ""));
    }
    for (path, code, part) in &files {
        for command in COMMANDS {
            let parts = [path.to_str().expect("UTF-8"), *part];
            assert_refused(&run(command, path, &[]), *code, &parts);
        }
    }
}

#[test]
fn a_model_that_cannot_run_its_windows_is_refused() {
    let folder = Folder::new();
    let short = ModelSpec { context: 4, ..spec() };
    let path = folder.file("short", &crate::fixture::written(&short, Layout::Rows, RECORD));
    assert_refused(
        &run("check", &path, &[]),
        2,
        &["short", "check_windows", "no more positions than the model's context, found 20"],
    );
}

#[test]
fn a_model_that_overflows_is_refused_where_it_does() {
    let folder = Folder::new();
    let bytes = crate::fixture::written_with_gain(&spec(), Layout::Nr8k4, RECORD, 2e38);
    let path = folder.file("overflows", &bytes);
    succeed("info", &path, &[]);
    for command in ["check", "generate", "bench"] {
        let parts = ["overflows: ", "infinite or not a number: layer 0, input of query, key, value"];
        assert_refused(&run(command, &path, &["--threads", "2"]), 2, &parts);
    }
}

#[test]
fn the_command_line_is_checked() {
    let folder = Folder::new();
    let path = folder.file("model", &container(&spec(), Layout::Nr8k4));
    for command in COMMANDS {
        assert_refused(&run(command, &path, &["--kernels", "abacus"]), 2, &["abacus", "available: scalar"]);
        assert_eq!(run(command, &path, &["--threads", "0"]).status.code(), Some(2));
        assert_eq!(run(command, &path, &["--absent"]).status.code(), Some(2));
    }
    assert_refused(&run("info", &path, &["--context", "65"]), 2, &["context: expected 1 to 64, found 65"]);
    assert_refused(&run("info", &path, &["--context", "0"]), 2, &["context: expected 1 to 64, found 0"]);
    assert!(succeed("check", std::path::Path::new("--help"), &[]).contains("130 interrupted"));
    let version = succeed("--version", &path, &[]);
    assert_eq!(version, format!("rescomp {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn bench_kernels_needs_no_container() {
    let options = ["--shapes", "16x64", "--bits", "2,8", "--tokens", "1,2", "--kernels", "all"];
    let run = |more: &[&str]| {
        let output =
            without_container("bench-kernels", &[&options[..], more].concat()).output().expect("starts");
        assert!(output.status.success(), "{}", errors(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let report: Value = serde_json::from_str(&run(&["--json", "--repeats", "1"])).expect("JSON");
    let runs = report["runs"].as_array().expect("a list");
    assert_eq!(runs.len(), 4 * kernels::available().count());
    for run in runs {
        assert!(run["product"]["median"].as_f64().expect("seconds") > 0.0, "{run}");
        assert!(run["quantization"]["median"].as_f64().expect("seconds") > 0.0, "{run}");
        let kind = if run["tokens"] == 1 { "gemv" } else { "gemm" };
        let name = format!("{kind}_int{}_nr8k4", run["bits"]);
        let kernel = run["kernel"].as_str().expect("a name");
        assert!(kernel.starts_with(&name) || run["kernels"] == "scalar", "{run}");
    }
    assert!(run(&["--repeats", "1"]).contains("weights/s"));
    let once: Value = serde_json::from_str(&run(&["--once", "--json"])).expect("JSON");
    assert_eq!(once["runs"].as_array().map(Vec::len), Some(runs.len()));
    assert!(once["runs"][0]["product"].is_null());
    for (wrong, part) in [
        (["--shapes", "9x64"], "multiple of 8"),
        (["--bits", "7"], "--bits 7"),
        (["--kernels", "abacus"], "abacus"),
    ] {
        let output = without_container("bench-kernels", &wrong).output().expect("starts");
        assert_eq!(output.status.code(), Some(2));
        assert!(errors(&output).contains(part), "{part}");
    }
}
