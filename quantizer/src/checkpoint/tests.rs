//! Whole folders: well-formed ones of every kind, and hostile ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use rescomp_formats::section::SectionKind as K;

use super::{Checkpoint, CheckpointError, TensorStore, TokenizerSource};

#[derive(Clone)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Tensor {
    fn bytes(&self) -> Vec<u8> {
        let element = |&value: &f32| match self.dtype {
            Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        self.values.iter().flat_map(element).collect()
    }
}

type Tensors = BTreeMap<String, Tensor>;

/// Grouped queries, a head dimension that is not hidden / heads, an MLP that is not a power of two.
fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 10,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": true,
    })
}

/// The tensors of [`config`], spelled out; values are eighths, exact in every float type, different everywhere.
fn tensors(dtype: Dtype) -> Tensors {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![10, 8]),
        ("model.norm.weight".to_owned(), vec![8]),
    ];
    for layer in 0..2 {
        for (name, shape) in [
            ("input_layernorm", vec![8]),
            ("self_attn.q_proj", vec![16, 8]),
            ("self_attn.k_proj", vec![8, 8]),
            ("self_attn.v_proj", vec![8, 8]),
            ("self_attn.o_proj", vec![8, 16]),
            ("post_attention_layernorm", vec![8]),
            ("mlp.gate_proj", vec![12, 8]),
            ("mlp.up_proj", vec![12, 8]),
            ("mlp.down_proj", vec![8, 12]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    shapes.into_iter().enumerate().map(|(seed, (name, shape))| (name, tensor(dtype, shape, seed))).collect()
}

fn tensor(dtype: Dtype, shape: Vec<usize>, seed: usize) -> Tensor {
    let count = shape.iter().product();
    let value = |at: usize| ((at * 37 + seed * 11) % 255) as f32 / 8.0 - 16.0;
    Tensor { dtype, shape, values: (0..count).map(value).collect() }
}

fn serialize(tensors: &Tensors) -> Vec<u8> {
    let bytes: Vec<_> = tensors.iter().map(|(name, tensor)| (name, tensor, tensor.bytes())).collect();
    let views = bytes.iter().map(|(name, tensor, bytes)| {
        (name.as_str(), TensorView::new(tensor.dtype, tensor.shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn write(dir: &Path, config: &Value, tensors: &Tensors) {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("model.safetensors"), serialize(tensors)).unwrap();
}

/// Writes every third tensor into the same shard.
fn write_shards(dir: &Path, config: &Value, tensors: &Tensors) {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let (mut weight_map, mut shards) = (BTreeMap::new(), vec![Tensors::new(); 3]);
    for (at, (name, tensor)) in tensors.iter().enumerate() {
        weight_map.insert(name, shard_name(at % 3));
        shards[at % 3].insert(name.clone(), tensor.clone());
    }
    for (at, shard) in shards.iter().enumerate() {
        fs::write(dir.join(shard_name(at)), serialize(shard)).unwrap();
    }
    let index = json!({ "metadata": { "total_size": 0 }, "weight_map": weight_map });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn shard_name(at: usize) -> String {
    format!("model-{:05}-of-00003.safetensors", at + 1)
}

fn edit_index(dir: &Path, tensor: &str, shard: &str) {
    let path = dir.join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["weight_map"][tensor] = json!(shard);
    fs::write(path, index.to_string()).unwrap();
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(config: &Value, tensors: &Tensors) -> Result<Checkpoint, CheckpointError> {
    let dir = folder();
    write(dir.path(), config, tensors);
    // The maps outlive the folder's names.
    Checkpoint::open(dir.path())
}

fn refusal(config: &Value, tensors: &Tensors) -> String {
    open(config, tensors).expect_err("opened").to_string()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

/// Every weight the accessors hand out is the one that was written under its name.
fn assert_holds(checkpoint: &Checkpoint, tensors: &Tensors) {
    let written = |name: &str| tensors[name].values.as_slice();
    let embedding = checkpoint.embedding().unwrap();
    assert_eq!((embedding.rows, embedding.cols), (10, 8));
    assert_eq!(embedding.data, written("model.embed_tokens.weight"));
    assert_eq!(embedding.row(9), &written("model.embed_tokens.weight")[72..]);
    assert_eq!(checkpoint.final_norm().unwrap().gain, written("model.norm.weight"));
    for layer in 0..2 {
        let weights = checkpoint.layer(layer).unwrap();
        for (name, matrix, shape) in [
            ("self_attn.q_proj", weights.matrix(K::Query).unwrap(), (16, 8)),
            ("self_attn.k_proj", weights.matrix(K::Key).unwrap(), (8, 8)),
            ("self_attn.v_proj", weights.matrix(K::Value).unwrap(), (8, 8)),
            ("self_attn.o_proj", weights.matrix(K::Output).unwrap(), (8, 16)),
            ("mlp.gate_proj", weights.matrix(K::Gate).unwrap(), (12, 8)),
            ("mlp.up_proj", weights.matrix(K::Up).unwrap(), (12, 8)),
            ("mlp.down_proj", weights.matrix(K::Down).unwrap(), (8, 12)),
        ] {
            assert_eq!((matrix.rows, matrix.cols), shape, "{name}");
            assert_eq!(matrix.data, written(&format!("model.layers.{layer}.{name}.weight")), "{name}");
        }
        let norm = |name: &str| written(&format!("model.layers.{layer}.{name}.weight"));
        assert_eq!(weights.vector(K::AttentionNorm).unwrap(), norm("input_layernorm"));
        assert_eq!(weights.vector(K::MlpNorm).unwrap(), norm("post_attention_layernorm"));
    }
}

#[test]
fn reads_every_float_type() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let tensors = tensors(dtype);
        let checkpoint = open(&config(), &tensors).unwrap();
        assert_holds(&checkpoint, &tensors);
        assert_eq!(checkpoint.head().unwrap(), None);
        assert_eq!(checkpoint.rope.len(), 2);
        assert_eq!(
            checkpoint.parameters(),
            tensors.values().map(|tensor| tensor.values.len() as u64).sum::<u64>()
        );
    }
}

#[test]
fn reads_types_mixed_in_one_file() {
    let mut tensors = tensors(Dtype::BF16);
    for (at, tensor) in tensors.values_mut().enumerate() {
        tensor.dtype = [Dtype::F32, Dtype::F16, Dtype::BF16][at % 3];
    }
    assert_holds(&open(&config(), &tensors).unwrap(), &tensors);
}

#[test]
fn reads_shards_and_digests_them_in_order() {
    let (dir, tensors) = (folder(), tensors(Dtype::F16));
    write_shards(dir.path(), &config(), &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_holds(&checkpoint, &tensors);
    assert_eq!(checkpoint.tensors().path(), dir.path());
    let paths: Vec<PathBuf> = (0..3).map(|at| dir.path().join(shard_name(at))).collect();
    assert!(checkpoint.tensors().files().eq(&paths));
    let all: Vec<u8> = paths.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(checkpoint.digest(), <[u8; 32]>::from(Sha256::digest(all)));
}

#[test]
fn an_untied_head_is_its_own_matrix() {
    let (mut config, mut tensors) = (config(), tensors(Dtype::F32));
    config["tie_word_embeddings"] = json!(false);
    assert_says(&refusal(&config, &tensors), &["model.safetensors", "lm_head.weight is missing", "[10, 8]"]);
    tensors.insert("lm_head.weight".into(), tensor(Dtype::F32, vec![10, 8], 99));
    let checkpoint = open(&config, &tensors).unwrap();
    assert_holds(&checkpoint, &tensors);
    let head = checkpoint.head().unwrap().unwrap();
    assert_eq!((head.rows, head.cols), (10, 8));
    assert_eq!(head.data, tensors["lm_head.weight"].values);
    assert_eq!(
        checkpoint.parameters(),
        tensors.values().map(|tensor| tensor.values.len() as u64).sum::<u64>()
    );
}

#[test]
fn a_tied_head_that_is_stored_must_equal_the_embedding() {
    let mut tensors = tensors(Dtype::BF16);
    let mut head = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), head.clone());
    assert_holds(&open(&config(), &tensors).unwrap(), &tensors);
    head.dtype = Dtype::F32; // the same values in another type are the same head
    tensors.insert("lm_head.weight".into(), head);
    let checkpoint = open(&config(), &tensors).unwrap();
    assert_eq!(checkpoint.head().unwrap(), None);
    assert_eq!(checkpoint.parameters(), open(&config(), &self::tensors(Dtype::BF16)).unwrap().parameters());

    tensors.get_mut("lm_head.weight").unwrap().values[8 * 3 + 5] = 0.0625;
    let embedding = tensors["model.embed_tokens.weight"].values[8 * 3 + 5];
    let expected = format!("row 3, column 5: expected {embedding}, found 0.0625");
    assert_says(&refusal(&config(), &tensors), &["model.safetensors", "tie_word_embeddings", &expected]);

    tensors.insert("lm_head.weight".into(), tensor(Dtype::F32, vec![9, 8], 1));
    assert_says(&refusal(&config(), &tensors), &["lm_head.weight", "[10, 8]", "[9, 8]"]);
}

#[test]
fn passes_over_rotary_buffers_only() {
    let mut tensors = tensors(Dtype::F32);
    let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
    tensors.insert(buffer.into(), tensor(Dtype::F32, vec![2], 0));
    assert_holds(&open(&config(), &tensors).unwrap(), &tensors);

    tensors.insert("model.layers.1.self_attn.q_proj.bias".into(), tensor(Dtype::F32, vec![16], 0));
    assert_says(&refusal(&config(), &tensors), &["found 1: model.layers.1.self_attn.q_proj.bias"]);
    // A layer beyond config.json's: its tensors would be dropped.
    let mut config = config();
    config["num_hidden_layers"] = json!(1);
    assert_says(&refusal(&config, &tensors), &["found 10: model.layers.1.input_layernorm.weight", ", ..."]);
}

#[test]
fn names_the_tensor_that_is_missing_or_misshapen() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let mut short = tensors(Dtype::F32);
    let removed = short.remove(name).unwrap();
    assert_says(&refusal(&config(), &short), &["model.safetensors", name, "missing", "[8, 12]"]);
    // The same number of elements, transposed.
    short.insert(name.into(), Tensor { shape: vec![12, 8], ..removed });
    assert_says(&refusal(&config(), &short), &[name, "expected shape [8, 12], found [12, 8]"]);
    let mut config = config();
    config["num_hidden_layers"] = json!(3);
    let message = refusal(&config, &tensors(Dtype::F32));
    assert_says(&message, &["model.layers.2.input_layernorm.weight is missing"]);
    let checkpoint = open(&self::config(), &tensors(Dtype::F32)).unwrap();
    assert_says(&checkpoint.layer(2).unwrap_err().to_string(), &["model.layers.2.input_layernorm.weight"]);
}

#[test]
fn names_the_tensor_of_a_type_that_is_not_read() {
    let name = "model.layers.0.mlp.up_proj.weight";
    for (dtype, spelled) in [(Dtype::F64, "F64"), (Dtype::I32, "I32"), (Dtype::U32, "U32")] {
        let mut tensors = tensors(Dtype::F32);
        tensors.get_mut(name).unwrap().dtype = dtype;
        assert_says(&refusal(&config(), &tensors), &[name, "F32, F16 or BF16", spelled]);
    }
}

#[test]
fn names_the_weight_that_is_not_finite() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for (value, spelled) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let (dir, mut tensors) = (folder(), tensors(dtype));
            let name = "model.layers.1.mlp.down_proj.weight";
            tensors.get_mut(name).unwrap().values[12 * 6 + 7] = value;
            tensors.get_mut("model.norm.weight").unwrap().values[5] = value;
            write(dir.path(), &config(), &tensors);
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let message = checkpoint.layer(1).unwrap_err().to_string();
            assert_says(
                &message,
                &["model.safetensors", name, "row 6, column 7", &format!("found {spelled}")],
            );
            let Err(CheckpointError::NonFinite { row, column, byte_offset, .. }) = checkpoint.final_norm()
            else {
                panic!("the norm's gain is {value}");
            };
            assert_eq!((row, column), (0, 5));
            let element = Tensor { dtype, shape: vec![1], values: vec![value] }.bytes();
            let file = fs::read(dir.path().join("model.safetensors")).unwrap();
            assert!(file[byte_offset as usize..].starts_with(&element));
            assert!(checkpoint.layer(0).is_ok());
        }
    }
}

#[test]
fn says_what_a_folder_lacks() {
    let dir = folder();
    let message = |dir: &Path| Checkpoint::open(dir).unwrap_err().to_string();
    assert_says(&message(dir.path()), &["config.json"]);
    fs::write(dir.path().join("config.json"), config().to_string()).unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    let name = dir.path().to_string_lossy().into_owned();
    assert_says(&message(dir.path()), &[&name, "neither model.safetensors nor model.safetensors.index.json"]);
    assert_says(&message(&dir.path().join("absent")), &["absent", "config.json"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_broken_ones_named() {
    let (blobs, dir, tensors) = (folder(), folder(), tensors(Dtype::F32));
    write(blobs.path(), &config(), &tensors);
    for file in ["config.json", "model.safetensors"] {
        std::os::unix::fs::symlink(blobs.path().join(file), dir.path().join(file)).unwrap();
    }
    assert_holds(&Checkpoint::open(dir.path()).unwrap(), &tensors);
    fs::remove_file(blobs.path().join("model.safetensors")).unwrap();
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert_says(&message, &["model.safetensors: ", "No such file"]);
}

#[test]
fn refuses_indices_that_lie_or_lead_away() {
    let (dir, tensors) = (folder(), tensors(Dtype::F32));
    let message = || Checkpoint::open(dir.path()).unwrap_err().to_string();
    let norm = "model.norm.weight";
    let reset = || write_shards(dir.path(), &config(), &tensors);
    for outside in
        ["../x.safetensors", "/etc/passwd", "..", ".", "", "a/b", "./a", "a/", "a\\b", "..\\b", "a\0b"]
    {
        reset();
        edit_index(dir.path(), norm, outside);
        assert_says(&message(), &["index.json: weight_map.model.norm.weight", &format!("found {outside:?}")]);
    }
    reset();
    edit_index(dir.path(), norm, "model-00009.safetensors");
    assert_says(&message(), &["model-00009.safetensors: ", "index.json lists this shard"]);
    reset();
    fs::remove_file(dir.path().join(shard_name(1))).unwrap();
    assert_says(&message(), &[&shard_name(1)]);
    reset();
    edit_index(dir.path(), "model.extra.weight", &shard_name(2));
    assert_says(&message(), &[&shard_name(2), "model.extra.weight is missing from this shard"]);
    reset();
    // The norm is in another shard than the index says.
    let at = tensors.keys().position(|name| name == norm).unwrap() % 3;
    edit_index(dir.path(), norm, &shard_name((at + 1) % 3));
    assert_says(&message(), &[&shard_name((at + 1) % 3), norm]);
    reset();
    fs::copy(dir.path().join(shard_name(0)), dir.path().join(shard_name(1))).unwrap();
    assert_says(&message(), &[&shard_name(0), &shard_name(1), "as well"]);
    for index in ["", "[]", "{}", "{\"weight_map\": 3}", "{\"weight_map\": {\"a\": 1}}"] {
        fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert_says(&message(), &["model.safetensors.index.json: whole file"]);
    }
    fs::write(dir.path().join("model.safetensors.index.json"), "{\"weight_map\": {}}").unwrap();
    assert_says(&message(), &["model.embed_tokens.weight is missing"]);
}

/// A file of this header, with this many bytes of zeros after it.
fn weight_file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

fn store_refusal(file: &[u8]) -> String {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    TensorStore::open(dir.path()).expect_err("opened").to_string()
}

#[test]
fn refuses_headers_that_contradict_themselves() {
    assert_says(&store_refusal(&[]), &["model.safetensors", "expected 8 bytes", "found 0"]);
    assert_says(&store_refusal(&[7; 7]), &["expected 8 bytes", "found 7"]);
    let long = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
    assert_says(&store_refusal(&long), &["18446744073709551615", "at most 2 can follow"]);
    for header in ["", "{", "[]", "{\"a\": 1}", "{\"a\": {\"dtype\": \"F32\"}}", "\u{0}"] {
        assert_says(&store_refusal(&weight_file(header, 0)), &["model.safetensors: header: "]);
    }
    assert_says(&store_refusal(&[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]), &["header: "]);
    let entry = |dtype: &str, shape: &str, begin: u64, end: u64| {
        format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}")
    };
    let one =
        |entry: String, data_bytes| store_refusal(&weight_file(&format!("{{\"a\":{entry}}}"), data_bytes));
    assert_says(&one(entry("F32", "[2,2]", 0, 12), 12), &["header: "]); // shape against bytes
    assert_says(&one(entry("F32", "[2,2]", 4, 20), 20), &["header: ", "`a`"]); // a hole at the front
    assert_says(&one(entry("F32", "[2,2]", 16, 0), 16), &["header: ", "`a`"]); // backwards
    assert_says(&one(entry("F99", "[2,2]", 0, 16), 16), &["header: ", "F99"]);
    assert_says(&one(entry("F32", "[4294967296,4294967296,16]", 0, 0), 0), &["header: ", "overflow"]);
    assert_says(&one(entry("F32", "[-1]", 0, 4), 4), &["header: "]);
    assert_says(&one(entry("F32", "[2,2]", 0, 16), 15), &["bytes from its header", "found"]);
    assert_says(&one(entry("F32", "[2,2]", 0, 16), 17), &["bytes from its header", "found"]);
    // Each size is credible by itself; with the header they add up to more than 2^64 bytes.
    let size_bytes = (1_u64 << 60) - 1;
    let huge: Vec<String> = (0..16)
        .map(|at| (at * size_bytes, format!("[{}]", size_bytes * 2)))
        .map(|(begin, shape)| format!("\"t{begin}\":{}", entry("F4", &shape, begin, begin + size_bytes)))
        .collect();
    let header = format!("{{{}}}", huge.join(","));
    assert_says(&store_refusal(&weight_file(&header, 3)), &["expected 18446744073709551615 bytes"]);
    let overlap = format!("{{\"a\":{0},\"b\":{0}}}", entry("F32", "[4]", 0, 16));
    assert_says(&store_refusal(&weight_file(&overlap, 16)), &["header: "]);
}

#[test]
fn tensors_of_any_dimension_are_handled() {
    let dir = folder();
    let header = "{\"none\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\
                  \"empty\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[4,4]}}";
    let mut file = weight_file(header, 4);
    let end = file.len();
    file[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    let store = TensorStore::open(dir.path()).unwrap();
    assert!(store.tensor_f32("empty", &[3, 0]).unwrap().is_empty());
    assert_says(&store.tensor_f32("none", &[]).unwrap_err().to_string(), &["row 0, column 0", "NaN"]);
    assert!(store.names().eq(["empty", "none"]));
}

#[test]
fn every_truncation_is_refused() {
    let dir = folder();
    let mut config = config();
    config["num_hidden_layers"] = json!(1);
    let mut tensors = tensors(Dtype::BF16);
    tensors.retain(|name, _| !name.starts_with("model.layers.1"));
    write(dir.path(), &config, &tensors);
    assert!(Checkpoint::open(dir.path()).is_ok());
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Checkpoint::open(dir.path()).expect_err("opened truncated");
        assert_says(&error.to_string(), &["model.safetensors"]);
    }
    fs::write(&path, &whole).unwrap();
    let text = config.to_string();
    for length in 0..text.len() {
        fs::write(dir.path().join("config.json"), &text[..length]).unwrap();
        let error = Checkpoint::open(dir.path()).expect_err("opened truncated");
        assert_says(&error.to_string(), &["config.json"]);
    }
}

/// Whatever opened must hand out what its own spec says, or name the element that is not finite.
fn assert_consistent(dir: &Path) {
    let Ok(checkpoint) = Checkpoint::open(dir) else { return };
    let spec = &checkpoint.spec;
    assert_eq!(checkpoint.rope.len(), spec.head_dim as usize / 2);
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    if let Ok(embedding) = checkpoint.embedding() {
        assert_eq!((embedding.rows, embedding.cols), (spec.vocabulary as usize, spec.hidden as usize));
        assert!(embedding.data.len() == embedding.rows * embedding.cols && finite(&embedding.data));
    }
    assert_eq!(checkpoint.head().is_ok_and(|head| head.is_none()), spec.tied_head);
    for layer in 0..spec.layers as usize {
        if let Ok(weights) = checkpoint.layer(layer) {
            assert_eq!(weights.matrix(K::Query).unwrap().rows, spec.query_width());
            assert_eq!(weights.matrix(K::Key).unwrap().rows, spec.kv_width());
            assert_eq!(
                weights.matrix(K::Down).unwrap().data.len(),
                (spec.intermediate * spec.hidden) as usize
            );
            assert!(
                finite(&weights.matrix(K::Down).unwrap().data) && finite(weights.vector(K::MlpNorm).unwrap())
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn flipped_bytes_never_panic(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 1..4),
        in_header in any::<bool>(),
        in_config in any::<bool>(),
    ) {
        let dir = folder();
        write(dir.path(), &config(), &tensors(Dtype::F16));
        let path = dir.path().join(if in_config { "config.json" } else { "model.safetensors" });
        let mut bytes = fs::read(&path).unwrap();
        let header = 8 + bytes[..8].iter().rev().fold(0, |length, &byte| (length << 8) | u64::from(byte)) as usize;
        let range = if in_header && !in_config { header } else { bytes.len() };
        for (at, flip) in flips {
            bytes[at.index(range)] ^= flip;
        }
        fs::write(&path, bytes).unwrap();
        assert_consistent(dir.path());
    }

    #[test]
    fn hostile_index_never_panics(
        text in "[{]\"weight_map\":[{]\"(model.norm.weight|.{0,4})\":(\"[./a-z]{0,8}\"|[0-9]|null)[}][}]?",
    ) {
        let dir = folder();
        write_shards(dir.path(), &config(), &tensors(Dtype::F16));
        fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
        prop_assert!(Checkpoint::open(dir.path()).is_err());
    }
}

#[test]
fn opens_the_embedded_model() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let spec = &checkpoint.spec;
    assert_eq!((spec.vocabulary, spec.hidden, spec.intermediate, spec.layers), (1024, 128, 384, 6));
    assert_eq!((spec.heads, spec.kv_heads, spec.head_dim, spec.context), (4, 2, 32, 512));
    assert_eq!((spec.norm_epsilon, spec.tied_head), (1e-5, true));
    assert_eq!((spec.begin_token, spec.end_tokens.as_slice()), (Some(0), [0].as_slice()));
    assert_eq!(checkpoint.name(), "stories-1m");
    // All weights are bfloat16: the file is its header and two bytes each.
    let file = fs::read(dir.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(*file.first_chunk().unwrap());
    assert_eq!(checkpoint.parameters() * 2 + 8 + header, file.len() as u64);
    assert_eq!(checkpoint.digest(), <[u8; 32]>::from(Sha256::digest(&file)));
    let TokenizerSource::Json(tokenizer) = checkpoint.tokenizer() else { panic!("not a folder's") };
    assert!(tokenizer.is_file());
    assert!(checkpoint.head().unwrap().is_none());
    for layer in 0..6 {
        let weights = checkpoint.layer(layer).unwrap();
        assert_eq!(
            (weights.matrix(K::Down).unwrap().rows, weights.matrix(K::Down).unwrap().cols),
            (128, 384)
        );
        assert!(weights.matrix(K::Value).unwrap().data.iter().any(|&weight| weight != 0.0));
    }
}
