//! Whole files: a well-formed model, one of every thing that is refused, and damaged ones.

use std::path::Path;

use half::bf16;
use proptest::prelude::*;
use rescomp_formats::tokenizer::{NO_TOKEN, TokenizerView};
use serde_json::Value;
use tempfile::TempDir;

use rescomp_formats::section::SectionKind as K;

use super::super::{Checkpoint, CheckpointError, Matrix, TokenizerSource};
use super::test_file::{TestFile, TestTensor, TestValue};
use crate::texts;
use crate::tokenizer_json::character_of;

const LAYERS: usize = 2;
const HIDDEN: usize = 8;
const HEAD_DIM: usize = 4;
const CONTEXT: u32 = 32;

/// Different in every element of every tensor, exact in every float type.
fn values(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 37 + seed * 11) % 255) as f32 / 8.0 - 16.0).collect()
}

/// Two end-like tokens, the bytes `skip` does not name, and two merges.
fn tokenizer(file: &mut TestFile, skip: &[u8]) {
    let mut tokens = vec!["<|end|>".to_owned(), "<user>".to_owned(), "[PAD]".to_owned()];
    let mut types = vec![3, 4, 5];
    let bytes = (0..=255_u8).filter(|byte| !skip.contains(byte)).map(|byte| character_of(byte).to_string());
    let normal: Vec<String> = bytes.chain(["he".to_owned(), "hel".to_owned()]).collect();
    types.resize(types.len() + normal.len(), 1);
    tokens.extend(normal);
    file.set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "gpt-2")
        .set("tokenizer.ggml.tokens", TestValue::Texts(tokens))
        .set("tokenizer.ggml.token_type", TestValue::Integers(types))
        .set("tokenizer.ggml.merges", TestValue::Texts(vec!["h e".into(), "he l".into()]))
        .set("tokenizer.ggml.bos_token_id", 1)
        .set("tokenizer.ggml.eos_token_id", 0);
}

/// Grouped queries, a head size that is not the quotient, a vocabulary larger than the tokenizer's.
pub(super) fn model() -> TestFile {
    let mut file = TestFile::default();
    file.set("general.architecture", "llama")
        .set("general.name", "of a test")
        .set("llama.block_count", LAYERS as u32)
        .set("llama.context_length", CONTEXT)
        .set("llama.embedding_length", HIDDEN as u32)
        .set("llama.feed_forward_length", 12)
        .set("llama.attention.head_count", 4)
        .set("llama.attention.head_count_kv", 2)
        .set("llama.attention.key_length", HEAD_DIM as u32)
        .set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .set("llama.rope.freq_base", 500_000_f32)
        .set("llama.rope.dimension_count", HEAD_DIM as u32);
    tokenizer(&mut file, &[]);
    let vocabulary = 264;
    file.push_f32("token_embd.weight", &[vocabulary, HIDDEN], &values(1, vocabulary * HIDDEN));
    file.push_f32("output_norm.weight", &[HIDDEN], &values(2, HIDDEN));
    for layer in 0..LAYERS {
        for (seed, (name, shape)) in [
            ("attn_norm", vec![HIDDEN]),
            ("attn_q", vec![16, HIDDEN]),
            ("attn_k", vec![8, HIDDEN]),
            ("attn_v", vec![8, HIDDEN]),
            ("attn_output", vec![HIDDEN, 16]),
            ("ffn_norm", vec![HIDDEN]),
            ("ffn_gate", vec![12, HIDDEN]),
            ("ffn_up", vec![12, HIDDEN]),
            ("ffn_down", vec![HIDDEN, 12]),
        ]
        .into_iter()
        .enumerate()
        {
            let count = shape.iter().product();
            file.push_f32(&format!("blk.{layer}.{name}.weight"), &shape, &values(layer * 9 + seed, count));
        }
    }
    file
}

fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.q8.gguf");
    std::fs::write(&path, bytes).unwrap();
    // The map outlives the file's name.
    Checkpoint::open(&path)
}

pub(super) fn open(file: &TestFile) -> Checkpoint {
    open_bytes(&file.bytes()).unwrap()
}

pub(super) fn section(file: &TestFile) -> Result<Vec<u8>, String> {
    texts::tokenizer_section(&open(file)).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in ["tiny.q8.gguf"].iter().chain(parts) {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

/// The edited model is refused, with these words.
#[track_caller]
fn refused(edit: impl FnOnce(&mut TestFile), parts: &[&str]) {
    let mut file = model();
    edit(&mut file);
    assert_says(&open_bytes(&file.bytes()).expect_err("opened").to_string(), parts);
}

#[track_caller]
pub(super) fn tokenizer_refused(edit: impl FnOnce(&mut TestFile), parts: &[&str]) {
    let mut file = model();
    edit(&mut file);
    assert_says(&section(&file).expect_err("made a section"), parts);
}

#[test]
fn reads_sizes_and_weights() {
    let checkpoint = open(&model());
    let spec = &checkpoint.spec;
    assert_eq!((spec.vocabulary, spec.hidden, spec.intermediate, spec.layers), (264, 8, 12, 2));
    assert_eq!((spec.heads, spec.kv_heads, spec.head_dim, spec.context), (4, 2, 4, CONTEXT));
    assert_eq!((spec.norm_epsilon, spec.tied_head), (1e-5, true));
    assert_eq!((spec.begin_token, spec.end_tokens.as_slice()), (None, [0].as_slice()));
    assert_eq!(checkpoint.name(), "tiny.q8");
    assert_eq!(checkpoint.embedding().unwrap().data, values(1, 264 * HIDDEN));
    assert_eq!(checkpoint.head().unwrap(), None);
    assert_eq!(checkpoint.final_norm().unwrap().gain, values(2, HIDDEN));
    let elements: usize = model().tensors.iter().map(|tensor| tensor.bytes.len() / 4).sum();
    assert_eq!(checkpoint.parameters(), elements as u64);
    for layer in 0..LAYERS {
        let weights = checkpoint.layer(layer).unwrap();
        let stored = |seed: usize, count: usize| values(layer * 9 + seed, count);
        assert_eq!(weights.vector(K::AttentionNorm).unwrap(), stored(0, HIDDEN));
        assert_eq!(weights.matrix(K::Value).unwrap().data, stored(3, 8 * HIDDEN));
        assert_eq!(
            (weights.matrix(K::Output).unwrap().rows, weights.matrix(K::Output).unwrap().cols),
            (HIDDEN, 16)
        );
        assert_eq!(weights.matrix(K::Output).unwrap().data, stored(4, HIDDEN * 16));
        assert_eq!(weights.vector(K::MlpNorm).unwrap(), stored(5, HIDDEN));
        assert_eq!(weights.matrix(K::Gate).unwrap().data, stored(6, 12 * HIDDEN));
        assert_eq!(weights.matrix(K::Up).unwrap().data, stored(7, 12 * HIDDEN));
        assert_eq!(weights.matrix(K::Down).unwrap().data, stored(8, HIDDEN * 12));
        // Rows 0, 1, 2, 3 of a head are pair 0's two elements, then pair 1's.
        for (matrix, seed) in [(weights.matrix(K::Query).unwrap(), 1), (weights.matrix(K::Key).unwrap(), 2)] {
            let stored = Matrix { rows: matrix.rows, cols: HIDDEN, data: stored(seed, matrix.data.len()) };
            for head in 0..matrix.rows / HEAD_DIM {
                for (row, from) in [(0, 0), (1, 2), (2, 1), (3, 3)] {
                    assert_eq!(matrix.row(head * HEAD_DIM + row), stored.row(head * HEAD_DIM + from));
                }
            }
        }
    }
    // theta^0 and theta^(-1/2) radians a position, in turns of 2^64.
    let turns = |radians: f64| radians / std::f64::consts::TAU * 2_f64.powi(64);
    for (found, expected) in checkpoint.rope.iter().zip([turns(1.0), turns(500_000_f64.powf(-0.5))]) {
        assert!((*found as f64 / expected - 1.0).abs() < 1e-12, "{found} {expected}");
    }
}

#[test]
fn a_head_of_its_own_is_read_and_a_repeated_embedding_is_tied() {
    let mut file = model();
    file.push_f32("output.weight", &[264, HIDDEN], &values(77, 264 * HIDDEN));
    let checkpoint = open(&file);
    assert!(!checkpoint.spec.tied_head);
    assert_eq!(checkpoint.head().unwrap().unwrap().data, values(77, 264 * HIDDEN));
    file.tensor("output.weight").bytes = file.tensor("token_embd.weight").bytes.clone();
    let checkpoint = open(&file);
    assert!(checkpoint.spec.tied_head);
    assert_eq!(checkpoint.head().unwrap(), None);
    refused(
        |file| {
            file.push_f32("output.weight", &[263, HIDDEN], &values(77, 263 * HIDDEN));
        },
        &["output.weight", "expected shape [264, 8], found [263, 8]"],
    );
}

#[test]
fn rotary_frequencies_are_divided() {
    let plain = open(&model()).rope;
    let mut file = model();
    file.push_f32("rope_freqs.weight", &[2], &[1.0, 8.0]);
    let divided = open(&file).rope;
    assert_eq!(divided[0], plain[0]);
    assert!(divided[1].abs_diff(plain[1] / 8) <= 1);
    file.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 4.0);
    let both = open(&file).rope;
    assert!(both[0].abs_diff(plain[0] / 4) <= 1 && both[1].abs_diff(plain[1] / 32) <= 1);
    file.set("llama.rope.scaling.type", "none");
    assert_eq!(open(&file).rope, divided);
    let divisors = |values: &'static [f32]| {
        move |file: &mut TestFile| {
            file.push_f32("rope_freqs.weight", &[values.len()], values);
        }
    };
    refused(divisors(&[1.0, 0.5]), &["rope_freqs.weight, element 1", "from 1 to 1000000, found 0.5"]);
    refused(divisors(&[f32::NAN, 1.0]), &["rope_freqs.weight", "expected a finite number, found NaN"]);
    refused(divisors(&[1.0]), &["rope_freqs.weight", "expected shape [2], found [1]"]);
}

#[test]
fn what_changes_the_numbers_is_understood_or_refused() {
    let set = |key: &'static str, value: TestValue| {
        move |file: &mut TestFile| {
            file.set(key, value);
        }
    };
    let remove = |key: &'static str| {
        move |file: &mut TestFile| {
            file.remove(key);
        }
    };
    refused(
        set("general.architecture", "mamba".into()),
        &["general.architecture is \"mamba\"", "\"llama\", \"smollm3\""],
    );
    refused(remove("general.architecture"), &["general.architecture", "found nothing"]);
    refused(set("general.type", "adapter".into()), &["general.type is \"adapter\""]);
    refused(set("general.quantization_version", 1.into()), &["general.quantization_version is 1"]);
    refused(set("split.count", 3.into()), &["split.count is 3", "llama-gguf-split --merge"]);
    refused(set("llama.expert_count", 8.into()), &["llama.expert_count is 8"]);
    refused(
        set("llama.attention.sliding_window_pattern", 4.into()),
        &["llama.attention.sliding_window_pattern is 4"],
    );
    refused(set("llama.final_logit_softcapping", 30.0.into()), &["llama.final_logit_softcapping is 30"]);
    refused(set("llama.attention.causal", false.into()), &["llama.attention.causal is false"]);
    refused(set("llama.rope.scaling.type", "dynamic".into()), &["llama.rope.scaling.type is \"dynamic\""]);
    refused(set("llama.rope.scaling.type", "longrope".into()), &["\"longrope\" with its divisors"]);
    let as_yarn = "a number from 1 to 1e6, as the type is \"yarn\"";
    refused(set("llama.rope.scaling.type", "yarn".into()), &["llama.rope.scaling.factor", as_yarn]);
    refused(set("llama.rope.scaling.attn_factor", 0.0.into()), &["attn_factor", "a number above 0"]);
    refused(set("llama.residual_scale", 0.5.into()), &["llama.residual_scale is 0.5", "no such key"]);
    refused(set("llama.use_parallel_residual", true.into()), &["llama.use_parallel_residual is true"]);
    refused(set("llama.rope.dimension_count", 2.into()), &["llama.rope.dimension_count is 2"]);
    refused(set("llama.attention.value_length", 8.into()), &["llama.attention.value_length is 8"]);
    refused(remove("llama.block_count"), &["llama.block_count: expected a whole number from 1 to 512"]);
    refused(set("llama.block_count", 0.into()), &["llama.block_count (byte ", "from 1 to 512, found 0"]);
    refused(set("llama.block_count", 3.into()), &["tensor blk.2.attn_norm.weight is missing"]);
    refused(set("llama.block_count", 1.into()), &["found 9: blk.1.attn_k.weight"]);
    refused(set("llama.embedding_length", 1.5.into()), &["llama.embedding_length", "found 1.5"]);
    refused(set("llama.attention.head_count_kv", 3.into()), &["a divisor of llama.attention.head_count = 4"]);
    refused(set("llama.attention.key_length", 3.into()), &["llama.attention.key_length", "an even size"]);
    refused(set("llama.rope.freq_base", f32::NAN.into()), &["llama.rope.freq_base", "found NaN"]);
    refused(set("llama.rope.freq_base", 0.5.into()), &["from 1 to 1e12, found 0.5"]);
    refused(set("llama.attention.layer_norm_rms_epsilon", 0.0.into()), &["a number above 0"]);
    refused(set("llama.vocab_size", 265.into()), &["llama.vocab_size", "264, the rows of", "found 265"]);
    refused(set("tokenizer.ggml.eos_token_id", 264.into()), &["from 0 to 263, found 264"]);
    let wide = TestValue::Integers(vec![12, 12]);
    refused(set("llama.feed_forward_length", wide), &["an array of 2 values of type I32"]);
    let long = TestValue::Text("x".repeat(1000));
    refused(set("general.architecture", long), &[&format!("{:?}...", "x".repeat(60))]);
    refused(
        |file| {
            file.push_f32("blk.0.attn_q.bias", &[16], &[0.0; 16]);
        },
        &["found 1: blk.0.attn_q.bias"],
    );
    refused(
        |file| file.tensors.retain(|tensor| tensor.name != "token_embd.weight"),
        &["tensor token_embd.weight is missing"],
    );
}

#[test]
fn tokens_of_turns_and_messages_end_texts_and_the_begin_token_is_the_file_s_choice() {
    let mut file = model();
    file.set("tokenizer.ggml.eot_token_id", 1).set("tokenizer.ggml.eom_token_id", 0);
    file.set("tokenizer.ggml.add_bos_token", true);
    let spec = open(&file).spec;
    assert_eq!((spec.begin_token, spec.end_tokens.as_slice()), (Some(1), [0, 1].as_slice()));
    refused(
        |file| {
            file.set("tokenizer.ggml.add_bos_token", true).remove("tokenizer.ggml.bos_token_id");
        },
        &["tokenizer.ggml.bos_token_id", "as tokenizer.ggml.add_bos_token is true"],
    );
}

#[test]
fn the_tokenizer_is_made_from_the_metadata() {
    let section = section(&model()).unwrap();
    let view = TokenizerView::parse(&section).unwrap();
    assert_eq!(view.vocabulary(), 3 + 256 + 2);
    assert_eq!((view.token_bytes(0), view.token_bytes(1)), (Some(&b"<|end|>"[..]), Some(&b"<user>"[..])));
    assert_eq!(view.token_bytes(2), None); // unused
    assert!(view.is_special(0) && !view.is_special(1));
    let tokenizer = texts::tokenizer(&section).unwrap();
    let byte = |byte: u8| 3 + u32::from(byte);
    assert_eq!(texts::encode(&tokenizer, "hello").unwrap(), [260, byte(b'l'), byte(b'o')]);
    assert_eq!(texts::encode(&tokenizer, "<user>\n").unwrap(), [1, byte(b'\n')]);
}

/// As SmolLM's vocabulary, which lacks bytes that text rarely or never has.
#[test]
fn bytes_without_a_token_are_left_out() {
    let mut file = model();
    tokenizer(&mut file, &[b'l', 0x06, 0xff]);
    let tokens = vec!["h e".to_owned()];
    file.set("tokenizer.ggml.merges", TestValue::Texts(tokens));
    let section = section(&file).unwrap();
    let view = TokenizerView::parse(&section).unwrap();
    assert_eq!((view.byte_token(b'l'), view.byte_token(0x06), view.byte_token(0xff)), (None, None, None));
    assert!(view.byte_token(b'h').is_some_and(|token| token != NO_TOKEN));
    let tokenizer = texts::tokenizer(&section).unwrap();
    let encode = |text: &str| texts::encode(&tokenizer, text).unwrap();
    assert_eq!(encode("heo").len(), 2);
    // Inside a pre-token what is around it merges; a control character is one by itself.
    assert_eq!(encode("hleo"), encode("heo"));
    assert_eq!(encode("h\u{6}e"), [encode("h"), encode("e")].concat());
    assert!(encode("l").is_empty());
}

#[test]
fn tokenizers_that_differ_are_refused() {
    let set = |key: &'static str, value: TestValue| {
        move |file: &mut TestFile| {
            file.set(key, value);
        }
    };
    tokenizer_refused(
        set("tokenizer.ggml.model", "bert".into()),
        &["tokenizer.ggml.model is \"bert\"", "gpt2"],
    );
    tokenizer_refused(
        set("tokenizer.ggml.pre", "tekken".into()),
        &["tokenizer.ggml.pre is \"tekken\"", "\"gpt-2\", \"smollm\""],
    );
    tokenizer_refused(
        |file| {
            file.remove("tokenizer.ggml.pre");
        },
        &["tokenizer.ggml.pre is absent"],
    );
    tokenizer_refused(set("tokenizer.ggml.add_space_prefix", true.into()), &["add_space_prefix is true"]);
    let edit = |edit: fn(&mut Vec<String>)| {
        move |file: &mut TestFile| {
            let tokens = file.entries.iter_mut().find(|(key, _)| key == "tokenizer.ggml.tokens");
            let Some((_, TestValue::Texts(tokens))) = tokens else { panic!("no tokens") };
            edit(tokens);
        }
    };
    tokenizer_refused(
        edit(|tokens| tokens[258] = "a".into()),
        &["tokenizer.ggml.tokens[258]", "\"a\", as token 100 is"],
    );
    tokenizer_refused(
        edit(|tokens| tokens[5] = "x y".into()),
        &["tokenizer.ggml.tokens[5]", "' ' in \"x y\""],
    );
    tokenizer_refused(edit(|tokens| tokens[0].clear()), &["tokenizer.ggml.tokens[0]", "at least one"]);
    tokenizer_refused(edit(|tokens| tokens.truncate(200)), &["tokenizer.ggml.token_type", "200 types"]);
    tokenizer_refused(edit(|tokens| tokens.resize(265, "x".into())), &["1 to 264 tokens"]);
    tokenizer_refused(
        edit(|tokens| tokens[260] = "other".into()),
        &["tokenizer.ggml.merges[1]", "\"hel\", which is none"],
    );
    let merges = |line: &str| set("tokenizer.ggml.merges", TestValue::Texts(vec![line.to_owned()]));
    tokenizer_refused(merges("h e l"), &["tokenizer.ggml.merges[0]", "with a space between them", "h e l"]);
    tokenizer_refused(set("tokenizer.ggml.merges", 1.into()), &["an array of texts, found 1"]);
    let types = TestValue::Integers(vec![6; 261]);
    tokenizer_refused(set("tokenizer.ggml.token_type", types), &["tokenizer.ggml.token_type[0]", "found 6"]);
}

#[test]
fn every_block_type_is_read_and_others_are_named() {
    for (code, block_bytes, elements) in [
        (2, 18, 32),
        (3, 20, 32),
        (6, 22, 32),
        (7, 24, 32),
        (8, 34, 32),
        (12, 144, 256),
        (13, 176, 256),
        (14, 210, 256),
    ] {
        let mut file = model();
        let rows = 16;
        let tensor = TestTensor {
            name: "any".into(),
            shape: vec![rows, 2 * elements],
            code,
            bytes: vec![0; rows * 2 * block_bytes],
        };
        file.tensors.insert(0, tensor.clone());
        // Refused for its name alone: type, sizes and place were accepted.
        assert_says(&open_bytes(&file.bytes()).unwrap_err().to_string(), &["found 1: any"]);
        file.tensors[0].shape[1] -= 1;
        let multiple = format!("a multiple of {elements}");
        let message = open_bytes(&file.bytes()).unwrap_err().to_string();
        assert_says(&message, &["tensor any: size 0 (byte ", &multiple]);
        file.tensors = vec![TestTensor { bytes: vec![0; rows * 2 * block_bytes - 33], ..tensor }];
        assert_says(
            &open_bytes(&file.bytes()).unwrap_err().to_string(),
            &["tensor any (byte ", "bytes from byte"],
        );
    }
    for (code, name) in
        [(10, "Q2_K"), (19, "IQ1_S"), (28, "F64"), (40, "the unknown code 40"), (u32::MAX, "4294967295")]
    {
        refused(
            |file| file.tensor("blk.0.attn_q.weight").code = code,
            &["tensor blk.0.attn_q.weight: type (byte ", "expected F32, F16, BF16, Q4_0", name],
        );
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let mut file = model();
    file.tensor("blk.1.ffn_down.weight").bytes[4 * (12 * 3 + 7)..][..4]
        .copy_from_slice(&f32::NAN.to_le_bytes());
    let message = open(&file).layer(1).unwrap_err().to_string();
    assert_says(&message, &["tensor blk.1.ffn_down.weight, row 3, column 7", "found NaN"]);
    // In a block, the byte is where the block begins.
    let mut bytes = vec![0_u8; 3 * 34];
    bytes[34 + 1] = 0x7c;
    let mut file = model();
    file.set("llama.embedding_length", 32);
    file.tensors.retain(|tensor| tensor.name == "token_embd.weight");
    *file.tensor("token_embd.weight") =
        TestTensor { name: "token_embd.weight".into(), shape: vec![3, 32], code: 8, bytes };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blocks.gguf");
    file.set("tokenizer.ggml.bos_token_id", 0);
    file.write(&path);
    let whole = file.bytes().len();
    let gguf = super::Gguf::open(&path).unwrap();
    let error = gguf.store.tensor_f32("token_embd.weight", &[3, 32]).unwrap_err();
    let CheckpointError::NonFinite { row, column, byte_offset, .. } = error else { panic!("{error}") };
    assert_eq!((row, column), (1, 0));
    // Three blocks of 34 bytes take 128 with their padding.
    assert_eq!(byte_offset as usize, whole - 128 + 34);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let message = Checkpoint::open(&dir.path().join("tiny.q8.gguf")).unwrap_err().to_string();
    assert!(message.contains("tiny.q8.gguf: ") && !message.contains("config.json"), "{message}");
    // A folder is one whatever its name.
    let folder = dir.path().join("folder.gguf");
    std::fs::create_dir(&folder).unwrap();
    assert!(Checkpoint::open(&folder).unwrap_err().to_string().contains("config.json"));
}

/// A file of these bytes is refused.
fn raw(parts: &[&[u8]]) -> String {
    open_bytes(&parts.concat()).expect_err("opened").to_string()
}

fn number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

#[test]
fn lengths_and_counts_lead_nowhere() {
    assert_says(&raw(&[]), &["magic number (byte 0 of the file)", "GGUF"]);
    assert_says(&raw(&[b"PK\x03\x04rest"]), &["found PK\\x03\\x04"]);
    assert_says(&raw(&[b"GGUF"]), &["version (byte 4 of the file): expected 4 bytes, found 0"]);
    assert_says(&raw(&[b"GGUF\x01\0\0\0"]), &["version (byte 4", "expected 2 or 3, little-endian, found 1"]);
    assert_says(&raw(&[b"GGUF\0\0\0\x03"]), &["a big-endian file"]);
    let head =
        |tensors: u64, entries: u64| [&b"GGUF\x03\0\0\0"[..], &number(tensors), &number(entries)].concat();
    let most = u64::MAX;
    assert_says(
        &raw(&[&head(0, most)]),
        &["number of entries (byte 16", "at most 65536, found 18446744073709551615"],
    );
    assert_says(&raw(&[&head(most, 0)]), &["number of tensors (byte 8", "at most 65536"]);
    assert_says(
        &raw(&[&head(65_536, 0)]),
        &["length of name of tensor 0 (byte 24", "expected 8 bytes, found 0"],
    );
    assert_says(&raw(&[&head(0, 1), &number(most)]), &["length of key 0 (byte 24", "1 to 65536"]);
    assert_says(&raw(&[&head(0, 1), &number(0)]), &["length of key 0", "found 0"]);
    assert_says(&raw(&[&head(0, 1), &number(9), b"short"]), &["key 0 (byte 32", "expected 9 bytes, found 5"]);
    assert_says(&raw(&[&head(0, 1), &number(2), b"a\xff"]), &["key 0 (byte 33", "UTF-8, found the byte 255"]);
    let key = [&head(0, 1)[..], &number(1), b"k"].concat();
    assert_says(&raw(&[&key, &[13, 0, 0, 0]]), &["type of k (byte 33", "a code from 0 to 12, found 13"]);
    assert_says(&raw(&[&key, &[7, 0, 0, 0, 2]]), &["k (byte 37", "expected 0 or 1, found 2"]);
    assert_says(&raw(&[&key, &[8, 0, 0, 0], &number(most)]), &["k (byte 45", "18446744073709551615 bytes"]);
    let array = |kind: u8, count: u64| [&key[..], &[9, 0, 0, 0, kind, 0, 0, 0], &number(count)].concat();
    assert_says(&raw(&[&array(9, 1)]), &["k (byte 37", "found an array of arrays"]);
    assert_says(&raw(&[&array(12, most / 8 + 2)]), &["k (byte 49", "expected 18446744073709551615 bytes"]);
    assert_says(&raw(&[&array(8, most)]), &["length of k[0] (byte 49"]);
    let twice =
        [&head(0, 2)[..], &number(1), b"k", &[0, 0, 0, 0, 5], &number(1), b"k", &[0, 0, 0, 0, 5]].concat();
    assert_says(&raw(&[&twice]), &["k (byte 38", "a key once"]);

    let tensor = |rest: &[u8]| raw(&[&head(1, 0), &number(1), b"t", rest]);
    let dimensions = |count: u8| [count, 0, 0, 0];
    assert_says(&tensor(&dimensions(0)), &["tensor t: number of dimensions (byte 33", "1 to 4, found 0"]);
    assert_says(&tensor(&dimensions(5)), &["1 to 4, found 5"]);
    let sizes = |sizes: &[u64], code: u8, offset: u64| {
        let sizes_bytes: Vec<u8> = sizes.iter().flat_map(|&size| number(size)).collect();
        tensor(
            &[&dimensions(sizes.len() as u8)[..], &sizes_bytes, &[code, 0, 0, 0], &number(offset)].concat(),
        )
    };
    assert_says(&sizes(&[3, 0], 0, 0), &["tensor t: size 1 (byte 45", "at least 1"]);
    assert_says(&sizes(&[1 << 32, 1 << 32], 0, 0), &["tensor t: size 1", "below 2^64"]);
    assert_says(&sizes(&[1 << 62], 0, 0), &["tensor t: sizes (byte 37", "fewer than 2^64 bytes"]);
    assert_says(
        &sizes(&[1 << 60], 0, 0),
        &["tensor t (byte 49", "4611686018427387904 bytes from byte 64 on"],
    );
    assert_says(&sizes(&[1], 0, 31), &["tensor t: offset (byte 49", "a multiple of 32, found 31"]);
    assert_says(
        &sizes(&[1], 0, most - 31),
        &["tensor t (byte 49", "4 bytes from byte 18446744073709551648 on"],
    );
}

#[test]
fn tensors_neither_overlap_nor_repeat() {
    let mut file = TestFile::default();
    file.push_f32("a", &[16], &values(0, 16)).push_f32("b", &[16], &values(1, 16));
    let bytes = file.bytes();
    // The last offset is in front of the padding: that of b, 64, becomes 32.
    let at = bytes.windows(8).rposition(|window| window == number(64)).unwrap();
    let mut overlapping = bytes.clone();
    overlapping[at] = 32;
    let message = open_bytes(&overlapping).unwrap_err().to_string();
    assert_says(
        &message,
        &["tensor b: offset (byte ", "at least 64, the end of the tensor before it, found 32"],
    );
    file.tensor("b").name = "a".into();
    assert_says(&open_bytes(&file.bytes()).unwrap_err().to_string(), &["tensor a", "a name once"]);
    file.tensor("a").name = "c".into();
    for alignment in [0, 3, 48, 1 << 17] {
        file.set("general.alignment", alignment);
        assert_says(&open_bytes(&file.bytes()).unwrap_err().to_string(), &["general.alignment (byte "]);
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = model().bytes();
    let tensors_begin =
        whole.len() - model().tensors.iter().map(|t| t.bytes.len().next_multiple_of(32)).sum::<usize>();
    let path = TempDir::new().unwrap();
    let path = path.path().join("tiny.q8.gguf");
    for length in (0..tensors_begin + 1).chain([whole.len() - 33, whole.len() - 32]) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Checkpoint::open(&path).expect_err("opened truncated");
        assert_says(&error.to_string(), &["expected", "found"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn flipped_bytes_never_panic(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 1..4),
        in_front in prop::bool::weighted(0.8),
    ) {
        let mut bytes = model().bytes();
        let range = if in_front { bytes.len().min(8_000) } else { bytes.len() };
        for (at, flip) in flips {
            bytes[at.index(range)] ^= flip;
        }
        let Ok(checkpoint) = open_bytes(&bytes) else { return Ok(()) };
        let spec = checkpoint.spec.clone();
        prop_assert_eq!(checkpoint.rope.len(), spec.head_dim as usize / 2);
        if let Ok(embedding) = checkpoint.embedding() {
            prop_assert_eq!(embedding.data.len(), (spec.vocabulary * spec.hidden) as usize);
        }
        for layer in 0..spec.layers as usize {
            if let Ok(weights) = checkpoint.layer(layer) {
                prop_assert_eq!(weights.matrix(K::Query).unwrap().rows, spec.query_width());
                prop_assert!(weights.matrix(K::Query).unwrap().data.iter().all(|value| value.is_finite()));
            }
        }
        if let Ok(section) = texts::tokenizer_section(&checkpoint) {
            prop_assert!(TokenizerView::parse(&section).is_ok());
        }
    }
}

/// The embedded model as a converter writes it: rows of queries and keys from halves to neighbours.
pub(super) fn converted(folder: &Path) -> TestFile {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let spec = &checkpoint.spec;
    let mut file = TestFile::default();
    file.set("general.architecture", "llama")
        .set("llama.block_count", spec.layers)
        .set("llama.context_length", spec.context)
        .set("llama.embedding_length", spec.hidden)
        .set("llama.feed_forward_length", spec.intermediate)
        .set("llama.attention.head_count", spec.heads)
        .set("llama.attention.head_count_kv", spec.kv_heads)
        .set("llama.attention.layer_norm_rms_epsilon", spec.norm_epsilon)
        .set("llama.rope.freq_base", 10_000_f32)
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "gpt-2")
        .set("tokenizer.ggml.bos_token_id", 0)
        .set("tokenizer.ggml.eos_token_id", 0)
        .set("tokenizer.ggml.add_bos_token", true);
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    let mut tokens = vec![String::new(); spec.vocabulary as usize];
    let mut types = vec![1; tokens.len()];
    for (token, id) in json["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    for added in json["added_tokens"].as_array().unwrap() {
        let id = added["id"].as_u64().unwrap() as usize;
        (tokens[id], types[id]) = (added["content"].as_str().unwrap().to_owned(), 3);
    }
    let merge = |merge: &Value| match merge {
        Value::String(line) => line.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    };
    let merges = json["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    file.set("tokenizer.ggml.tokens", TestValue::Texts(tokens))
        .set("tokenizer.ggml.token_type", TestValue::Integers(types))
        .set("tokenizer.ggml.merges", TestValue::Texts(merges));
    let mut push = |name: String, shape: Vec<usize>, values: &[f32]| {
        let bytes = values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
        file.tensors.push(TestTensor { name, shape, code: 30, bytes });
    };
    let shape = |matrix: &Matrix| vec![matrix.rows, matrix.cols];
    let embedding = checkpoint.embedding().unwrap();
    push("token_embd.weight".into(), shape(&embedding), &embedding.data);
    push("output_norm.weight".into(), vec![embedding.cols], &checkpoint.final_norm().unwrap().gain);
    let head_dim = spec.head_dim as usize;
    let neighbours = |matrix: &Matrix| {
        let source = |row: usize| row / head_dim * head_dim + row % 2 * (head_dim / 2) + row % head_dim / 2;
        (0..matrix.rows).flat_map(|row| matrix.row(source(row)).to_vec()).collect::<Vec<f32>>()
    };
    for layer in 0..spec.layers as usize {
        let weights = checkpoint.layer(layer).unwrap();
        let mut push =
            |name: &str, shape, values: &[f32]| push(format!("blk.{layer}.{name}.weight"), shape, values);
        push("attn_norm", vec![embedding.cols], weights.vector(K::AttentionNorm).unwrap());
        push("ffn_norm", vec![embedding.cols], weights.vector(K::MlpNorm).unwrap());
        push(
            "attn_q",
            shape(weights.matrix(K::Query).unwrap()),
            &neighbours(weights.matrix(K::Query).unwrap()),
        );
        push("attn_k", shape(weights.matrix(K::Key).unwrap()), &neighbours(weights.matrix(K::Key).unwrap()));
        for (name, matrix) in [
            ("attn_v", weights.matrix(K::Value).unwrap()),
            ("attn_output", weights.matrix(K::Output).unwrap()),
            ("ffn_gate", weights.matrix(K::Gate).unwrap()),
            ("ffn_up", weights.matrix(K::Up).unwrap()),
            ("ffn_down", weights.matrix(K::Down).unwrap()),
        ] {
            push(name, shape(matrix), &matrix.data);
        }
    }
    file
}

/// The same sizes, frequencies, weights and tokenizer: so the same numbers everywhere later.
#[test]
fn a_converted_model_is_the_folder_it_came_from() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
    let original = Checkpoint::open(&folder).unwrap();
    let converted = open(&converted(&folder));
    assert_eq!(converted.spec, original.spec);
    assert_eq!(converted.rope, original.rope);
    assert_eq!(converted.parameters(), original.parameters());
    assert_eq!(converted.embedding().unwrap(), original.embedding().unwrap());
    assert_eq!(converted.final_norm().unwrap(), original.final_norm().unwrap());
    for layer in 0..original.spec.layers as usize {
        assert_eq!(converted.layer(layer).unwrap(), original.layer(layer).unwrap(), "{layer}");
    }
    assert!(matches!(converted.tokenizer(), TokenizerSource::Gguf(_)));
    let section = |checkpoint: &Checkpoint| texts::tokenizer_section(checkpoint).unwrap();
    assert_eq!(section(&converted), section(&original));
}

#[test]
fn a_chat_template_is_found_with_its_tokens() {
    let mut file = model();
    assert_eq!(open(&file).gguf_chat_template().unwrap(), None);
    file.set("tokenizer.chat_template", "{{ bos_token }}").set("tokenizer.ggml.padding_token_id", 1000);
    let checkpoint = open(&file);
    let found = checkpoint.gguf_chat_template().unwrap().unwrap();
    assert_eq!(found.text, "{{ bos_token }}");
    // A token that is none is for whoever needs it to refuse.
    assert_eq!(found.special_tokens, [("bos_token", "<user>"), ("eos_token", "<|end|>")]);
    file.set("tokenizer.chat_template", 3);
    assert_says(&open(&file).gguf_chat_template().unwrap_err().to_string(), &["chat_template", "a text"]);
}
