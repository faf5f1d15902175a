//! Hostile `model.safetensors`.

use super::{HostileFile, small_model};
use crate::tiny::Random;
use serde_json::{Map, Value, json};

/// A change to the header and the data.
type Change = dyn Fn(&mut Map<String, Value>, &mut Vec<u8>);

/// Name and shape of the small model's tensors, in the order of their bytes.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let spec = small_model();
    let (hidden, intermediate) = (spec.hidden as usize, spec.intermediate as usize);
    let (queries, keys) = (spec.query_width(), spec.kv_width());
    let layer = |name: &str, shape| (format!("model.layers.0.{name}.weight"), shape);
    vec![
        ("model.embed_tokens.weight".to_owned(), vec![spec.vocabulary as usize, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        layer("input_layernorm", vec![hidden]),
        layer("self_attn.q_proj", vec![queries, hidden]),
        layer("self_attn.k_proj", vec![keys, hidden]),
        layer("self_attn.v_proj", vec![keys, hidden]),
        layer("self_attn.o_proj", vec![hidden, queries]),
        layer("post_attention_layernorm", vec![hidden]),
        layer("mlp.gate_proj", vec![intermediate, hidden]),
        layer("mlp.up_proj", vec![intermediate, hidden]),
        layer("mlp.down_proj", vec![hidden, intermediate]),
    ]
}

/// Header and data in float16.
fn parts() -> (Map<String, Value>, Vec<u8>) {
    let mut random = Random::new(3);
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape) in tensors() {
        let begin = data.len();
        for _ in 0..shape.iter().product() {
            data.extend(half::f16::from_f32(random.unit()).to_le_bytes());
        }
        let offsets = [begin, data.len()];
        header.insert(name, json!({ "dtype": "F16", "shape": shape, "data_offsets": offsets }));
    }
    (header, data)
}

fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

pub(super) fn sound() -> Vec<u8> {
    let (header, data) = parts();
    file(Value::Object(header).to_string().as_bytes(), &data)
}

pub(super) fn files() -> Vec<HostileFile> {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    const NORM: &str = "model.norm.weight";
    const QUERY: &str = "model.layers.0.self_attn.q_proj.weight";
    let make = |name, attack, bytes| HostileFile { name, attack, offset: None, bytes };
    let changed = |name, attack, change: &Change| {
        let (mut header, mut data) = parts();
        change(&mut header, &mut data);
        make(name, attack, file(Value::Object(header).to_string().as_bytes(), &data))
    };
    let sound = sound();
    let header_bytes = u64::from_le_bytes(*sound.first_chunk().expect("a length"));
    let announced = |bytes: u64| [&bytes.to_le_bytes()[..], &sound[8..]].concat();
    // Where a row of the embedding lies, to name the byte of a weight.
    let weight = |row: u64, column: u64| 8 + header_bytes + 2 * (row * 8 + column);
    let with_weight = |name, attack, value: half::f16| {
        let at = weight(5, 3);
        let mut bytes = sound.clone();
        bytes[at as usize..][..2].copy_from_slice(&value.to_le_bytes());
        HostileFile { name, attack, offset: Some(at), bytes }
    };
    let text = |header: &str| file(header.as_bytes(), &[]);
    let twice = {
        let (header, data) = parts();
        let header = Value::Object(header).to_string();
        let second = format!(",\"{NORM}\":{{\"dtype\":\"F16\",\"shape\":[8],\"data_offsets\":[0,16]}}}}");
        file((header[..header.len() - 1].to_owned() + &second).as_bytes(), &data)
    };
    vec![
        make("safetensors/empty.safetensors", "nothing", Vec::new()),
        make("safetensors/length-cut.safetensors", "the length field is cut", sound[..7].to_vec()),
        make("safetensors/header-endless.safetensors", "a header of 2^64 - 1 bytes", announced(u64::MAX)),
        make(
            "safetensors/header-beyond-the-file.safetensors",
            "a header longer than the file",
            announced(sound.len() as u64),
        ),
        make(
            "safetensors/header-cut.safetensors",
            "a header that ends inside a value",
            announced(header_bytes - 9),
        ),
        make("safetensors/header-no-json.safetensors", "a header that is no JSON", text("tensors")),
        make("safetensors/header-no-object.safetensors", "a header that is a list", text("[1, 2]")),
        make(
            "safetensors/header-nested-deeply.safetensors",
            "nesting that would exhaust the stack",
            text(&format!("{{\"a\":{}", "[".repeat(20_000))),
        ),
        make(
            "safetensors/header-not-utf8.safetensors",
            "bytes that are no text",
            file(&[b'{', b'"', 0xff, b'"', b':'], &[]),
        ),
        make(
            "safetensors/data-cut.safetensors",
            "the last byte is missing",
            sound[..sound.len() - 1].to_vec(),
        ),
        make(
            "safetensors/data-longer.safetensors",
            "a byte follows the last tensor",
            [&sound[..], &[0]].concat(),
        ),
        make("safetensors/tensor-twice.safetensors", "a tensor named twice, at two places", twice),
        changed("safetensors/offsets-overlap.safetensors", "two tensors share bytes", &|header, _| {
            header[NORM]["data_offsets"] = json!([0, 16])
        }),
        changed(
            "safetensors/offsets-backwards.safetensors",
            "a tensor ends before it begins",
            &|header, _| header[NORM]["data_offsets"] = json!([4144, 4128]),
        ),
        changed("safetensors/offsets-negative.safetensors", "an offset below zero", &|header, _| {
            header[NORM]["data_offsets"] = json!([-16, 0])
        }),
        changed(
            "safetensors/offsets-beyond.safetensors",
            "a tensor beyond the end of the file",
            &|header, _| header[NORM]["data_offsets"] = json!([u64::MAX - 15, u64::MAX]),
        ),
        changed(
            "safetensors/shape-overflows.safetensors",
            "a shape whose product wraps to the right number",
            &|header, _| header[NORM]["shape"] = json!([1_u64 << 61, 8, 8]),
        ),
        changed(
            "safetensors/shape-of-more.safetensors",
            "a shape of more elements than bytes",
            &|header, _| header[NORM]["shape"] = json!([9]),
        ),
        changed("safetensors/shape-transposed.safetensors", "a shape that is another's", &|header, _| {
            header[EMBEDDING]["shape"] = json!([8, 258])
        }),
        changed(
            "safetensors/type-unknown.safetensors",
            "an element type that does not exist",
            &|header, _| header[QUERY]["dtype"] = json!("F12"),
        ),
        changed("safetensors/type-integer.safetensors", "codes in the place of weights", &|header, _| {
            header[QUERY]["dtype"] = json!("I16")
        }),
        changed("safetensors/tensor-missing.safetensors", "a tensor is missing", &|header, _| {
            let query = header.remove(QUERY).expect("there");
            header.insert("model.layers.0.self_attn.query.weight".to_owned(), query);
        }),
        changed(
            "safetensors/tensor-added.safetensors",
            "a tensor that a reader might pass over",
            &|header, data| {
                let begin = data.len();
                data.extend([0; 16]);
                let entry = json!({ "dtype": "F16", "shape": [8], "data_offsets": [begin, begin + 16] });
                header.insert("model.layers.0.self_attn.q_proj.bias".to_owned(), entry);
            },
        ),
        changed(
            "safetensors/layer-added.safetensors",
            "a layer that config.json does not have",
            &|header, data| {
                let begin = data.len();
                data.extend([0; 16]);
                let entry = json!({ "dtype": "F16", "shape": [8], "data_offsets": [begin, begin + 16] });
                header.insert("model.layers.1.input_layernorm.weight".to_owned(), entry);
            },
        ),
        changed(
            "safetensors/head-differs.safetensors",
            "a head beside a tied embedding, with one other weight",
            &|header, data| {
                let begin = data.len();
                data.extend_from_within(..4128);
                data[begin + 77 * 16] ^= 1;
                let entry =
                    json!({ "dtype": "F16", "shape": [258, 8], "data_offsets": [begin, begin + 4128] });
                header.insert("lm_head.weight".to_owned(), entry);
            },
        ),
        with_weight("safetensors/weight-not-a-number.safetensors", "a weight that is NaN", half::f16::NAN),
        with_weight(
            "safetensors/weight-infinite.safetensors",
            "a weight that is infinite",
            half::f16::NEG_INFINITY,
        ),
    ]
}
