//! `rescomp embed`, and what else an encoder's container does: `check`, `info`, `bench`, /v1/embeddings; and what it refuses.

use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::EmbeddingRecord;
use rescomp_formats::spec::{Activation, Architecture, ModelSpec, Output, Pooling, TextEmbedding, Variant};
use rescomp_runtime::Machine;
use rescomp_runtime::encoder::{Encoder, EncoderPlan};
use rescomp_runtime::eval_embeddings::{cosine, measure_embeddings};
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use serde_json::{Value, json};

use crate::fixture::{
    self, Folder, assert_refused, errors, json, program, run, spec, succeed, written_encoder,
};
use crate::serve::Server;

/// What stands before and behind a text, as [CLS] and [SEP] do.
const BEFORE: u32 = fixture::BEGIN;
const BEHIND: u32 = 258;

pub(crate) fn encoder_spec(normalized: bool) -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Bert,
        variant: Variant { rotary_dim: 0, activation: Activation::Gelu, ..Variant::plain(16) },
        tied_head: false,
        begin_token: None,
        output: Output::Vector(TextEmbedding { pooling: Pooling::Mean, normalized }),
        ..spec()
    }
}

/// A container whose record is right but for what `change` does to it.
fn container_with(spec: &ModelSpec, change: impl FnOnce(&mut EmbeddingRecord)) -> Vec<u8> {
    let mut record =
        EmbeddingRecord { mean_distance: 0.0, largest_distance: 0.0, texts: 2, embeddings_sha256: [0; 32] };
    let file = AlignedBytes::new(&written_encoder(spec, Layout::Nr8k4, record));
    with_encoder(&file, |container, encoder| {
        let texts = container.check_embeddings().expect("texts");
        let found = measure_embeddings(encoder, &texts, &mut [0; 64], |_| ()).expect("runs");
        record.mean_distance = found.mean_distance;
        record.largest_distance = found.largest_distance;
        record.embeddings_sha256 = found.embeddings_sha256;
    });
    change(&mut record);
    written_encoder(spec, Layout::Nr8k4, record)
}

fn container() -> Vec<u8> {
    container_with(&encoder_spec(true), |_| ())
}

/// Runs `work` with the reference kernels.
fn with_encoder(file: &[u8], work: impl FnOnce(&CheckedContainer<'_>, &mut Encoder<'_>)) {
    let container = Container::open(file).and_then(|file| file.check(Integrity::Digest)).expect("sound");
    let machine = Machine { kernels: kernels::by_name("scalar").expect("scalar"), executor: &Serial };
    let blocks = EncoderPlan::new(&container, 64).expect("a plan").blocks();
    let mut memory = vec![MemoryBlock([0; 64]); blocks as usize];
    let mut encoder =
        Encoder::new(&container, machine, 64, ActivationFormat::Int8, &mut memory).expect("an encoder");
    work(&container, &mut encoder);
}

/// The vector of a text of single bytes, by the reference kernels.
fn vector(file: &[u8], text: &str) -> Vec<f32> {
    let tokens: Vec<u32> = [BEFORE].into_iter().chain(text.bytes().map(u32::from)).chain([BEHIND]).collect();
    vector_of(file, &tokens)
}

fn vector_of(file: &[u8], tokens: &[u32]) -> Vec<f32> {
    let mut vector = Vec::new();
    with_encoder(&AlignedBytes::new(file), |_, encoder| {
        vector = encoder.embed(tokens).expect("runs").to_vec();
    });
    vector
}

fn numbers(line: &str) -> Vec<f32> {
    line.split(' ').map(|word| word.parse().expect("a number")).collect()
}

fn floats(list: &Value) -> Vec<f32> {
    list.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

#[test]
fn vectors_are_those_of_the_reference_kernels_however_texts_come() {
    let (folder, bytes) = (Folder::new(), container());
    let path = folder.file("model", &bytes);
    let texts = ["a cat", "", "dogs, too"];
    let expected: Vec<Vec<f32>> = texts.iter().map(|text| vector(&bytes, text)).collect();
    let of = |output: String| output.lines().map(numbers).collect::<Vec<_>>();
    let all = [&texts[..], &["--threads", "2"]].concat();
    assert_eq!(of(succeed("embed", &path, &all)), expected);
    let file = folder.file("texts", texts.join("\n").as_bytes());
    let file = file.to_str().expect("UTF-8");
    assert_eq!(of(succeed("embed", &path, &["--file", file, "--kernels", "scalar"])), expected);
    let input = std::fs::File::open(file).expect("readable");
    let output = program("embed", &path, &["--json"]).stdin(input).output().expect("it starts");
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for ((index, line), (text, vector)) in lines.iter().enumerate().zip(texts.iter().zip(&expected)) {
        assert_eq!(floats(&line["embedding"]), *vector);
        assert_eq!(
            (&line["index"], &line["text"], &line["tokens"]),
            (&json!(index), &json!(text), &json!(text.len() + 2))
        );
    }
    let similarity = succeed("embed", &path, &[&texts[..], &["--similarity", "--json"]].concat());
    for (row, a) in similarity.lines().zip(&expected) {
        let row: Vec<f64> = serde_json::from_str(row).expect("JSON");
        let of = |b: &Vec<f32>| cosine(a.iter().copied(), b.iter().copied());
        assert_eq!(row, expected.iter().map(of).collect::<Vec<_>>());
    }
    let words = succeed("embed", &path, &["a cat", "a cat", "--similarity"]);
    assert_eq!(words, "  1.0000   1.0000\n  1.0000   1.0000\n");
}

#[test]
fn vectors_have_length_1_where_the_model_or_the_user_says_so() {
    let folder = Folder::new();
    let bytes = container_with(&encoder_spec(false), |_| ());
    let path = folder.file("model", &bytes);
    let length = |options: &[&str]| {
        let vector = numbers(succeed("embed", &path, &[&["a cat"], options].concat()).trim_end());
        vector.iter().map(|number| number * number).sum::<f32>().sqrt()
    };
    assert!((length(&[]) - 1.0).abs() > 0.1 && (length(&["--normalize"]) - 1.0).abs() < 1e-6);
    let info = json("info", &path, &[]);
    assert_eq!(info["model"]["output"], json!({"Vector": {"pooling": "Mean", "normalized": false}}));
    assert_eq!(info["memory"]["kv_cache_bytes"], 0);
    assert!(succeed("info", &path, &[]).contains("mean of the tokens"));
}

#[test]
fn texts_that_are_too_long_are_refused_or_cut() {
    let (folder, bytes) = (Folder::new(), container());
    let path = folder.file("model", &bytes);
    let long = "x".repeat(70);
    let output = run("embed", &path, &["a", &long]);
    let parts = ["text 2: expected at most 64 tokens, the model's context, found 72", "--truncate"];
    assert_refused(&output, 2, &parts);
    let cut = numbers(succeed("embed", &path, &[&long, "--truncate"]).trim_end());
    assert_eq!(cut, vector(&bytes, &"x".repeat(62)));
    let empty = folder.file("empty", b"");
    let empty = empty.to_str().expect("UTF-8");
    assert_refused(&run("embed", &path, &["--file", empty]), 2, &["expected a text a line, found nothing"]);
    let wrong = folder.file("wrong", b"a\n\xff");
    let wrong = wrong.to_str().expect("UTF-8");
    assert_refused(&run("embed", &path, &["--file", wrong]), 2, &["byte 2: expected UTF-8"]);
}

#[test]
fn what_needs_a_next_token_is_refused_by_name() {
    let folder = Folder::new();
    let path = folder.file("model", &container());
    for command in ["generate", "chat"] {
        let parts = ["bert is an encoder", "no next token", "rescomp embed"];
        assert_refused(&run(command, &path, &[]), 2, &parts);
    }
    let decoder = folder.file("decoder", &fixture::container(&spec(), Layout::Nr8k4));
    assert_refused(&run("embed", &decoder, &["a"]), 2, &["llama is a decoder", "/v1/embeddings"]);
}

#[test]
fn a_check_passes_with_every_kernel_and_misses_its_bounds() {
    let folder = Folder::new();
    let path = folder.file("model", &container());
    for options in [&["--threads", "1"][..], &["--kernels", "scalar"], &["--threads", "3"]] {
        let report = json("check", &path, options);
        assert_eq!((&report["passed"], &report["device"]), (&json!(true), &report["host"]), "{report}");
        assert_eq!((&report["device"]["texts"], &report["bounds"]["digest"]), (&json!(2), &json!("equal")));
    }
    assert!(succeed("check", &path, &[]).contains("mean of 1 - cosine"));
    let missed = |name: &str, change: fn(&mut EmbeddingRecord), options: &[&str]| {
        let path = folder.file("changed", &container_with(&encoder_spec(true), change));
        let output = run("check", &path, options);
        assert_eq!(output.status.code(), Some(i32::from(!name.is_empty())), "{}", errors(&output));
        assert!(errors(&output).contains(name));
    };
    missed("mean of 1 - cosine", |record| record.mean_distance += 1e-3, &[]);
    missed("largest 1 - cosine", |record| record.largest_distance += 1e-3, &[]);
    missed("", |record| record.mean_distance += 1e-3, &["--max-distance-difference", "0.002"]);
    missed("SHA-256", |record| record.embeddings_sha256[31] ^= 1, &[]);
    missed("", |record| record.embeddings_sha256[31] ^= 1, &["--any-digest"]);
}

#[test]
fn bench_times_texts() {
    let folder = Folder::new();
    let path = folder.file("model", &container());
    let report = json("bench", &path, &["--repeats", "1", "--prompt-tokens", "9"]);
    assert_eq!(report["text"]["tokens"], 9);
    assert!(report["text"]["tokens_per_second"].as_f64().expect("a rate") > 0.0);
    assert!(succeed("bench", &path, &["--repeats", "1"]).contains("texts of 32 tokens"));
    assert_refused(&run("bench", &path, &["--tokens", "3"]), 2, &["--tokens", "bert", "no next token"]);
    assert_refused(&run("bench", &path, &["--prompt-tokens", "65"]), 2, &["expected 1 to 64, found 65"]);
}

#[test]
fn the_server_speaks_as_openai_s_does() {
    let (folder, bytes) = (Folder::new(), container());
    let server = Server::start(&folder.file("model", &bytes), &[]);
    let (status, reply) = server
        .post("/v1/embeddings", &json!({"model": "random", "input": ["a cat", "", [BEFORE, 65, BEHIND]]}));
    assert_eq!((status, &reply["object"]), (200, &json!("list")), "{reply}");
    let expected = [vector(&bytes, "a cat"), vector(&bytes, ""), vector(&bytes, "A")];
    for (index, vector) in expected.iter().enumerate() {
        let found = &reply["data"][index];
        assert_eq!((&found["index"], floats(&found["embedding"])), (&json!(index), vector.clone()));
    }
    assert_eq!(reply["usage"], json!({"prompt_tokens": 12, "total_tokens": 12}));
    let one =
        |input: Value| server.post("/v1/embeddings", &json!({"input": input, "encoding_format": "base64"}));
    let (status, text) = one(json!("A"));
    let (_, tokens) = one(json!([BEFORE, 65, BEHIND]));
    assert!(status == 200 && text["data"][0]["embedding"].is_string());
    assert_eq!(text["data"], tokens["data"]);
    // Tokens are taken as they are.
    let (_, bare) = server.post("/v1/embeddings", &json!({"input": [65, 66]}));
    assert_eq!(floats(&bare["data"][0]["embedding"]), vector_of(&bytes, &[65, 66]));
    let refused = |path: &str, body: Value, code: Value, part: &str| {
        let (status, reply) = server.post(path, &body);
        assert_eq!((status, &reply["error"]["code"]), (400, &code), "{reply}");
        assert!(reply["error"]["message"].as_str().expect("a message").contains(part), "{reply}");
    };
    let message = json!([{"role": "user", "content": "Hello"}]);
    refused("/v1/completions", json!({"prompt": "a"}), json!("no_next_token"), "bert is an encoder");
    refused("/v1/chat/completions", json!({"messages": message}), json!("no_next_token"), "/v1/embeddings");
    let long = json!({"input": "x".repeat(70)});
    refused("/v1/embeddings", long, json!("context_length_exceeded"), "expected at most 64 tokens");
    refused("/v1/embeddings", json!({"input": [[]]}), Value::Null, "expected one token or more");
    refused("/v1/embeddings", json!({"input": [300]}), Value::Null, "expected tokens below 260, found 300");
    refused("/v1/embeddings", json!({"input": "a", "dimensions": 8}), Value::Null, "dimensions");
}
