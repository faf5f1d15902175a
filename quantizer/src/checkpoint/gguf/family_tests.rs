//! Models of every architecture that is read, as a converter writes them: the folder's sizes, frequencies and weights again.

use std::path::Path;

use rescomp_formats::section::SectionKind as K;

use super::super::{Checkpoint, LayerWeights, Matrix};
use super::test_file::{TestFile, TestTensor, TestValue};

/// What a converter calls the parts of a layer that most families store by themselves.
const PARTS: [(&str, K); 16] = [
    ("attn_norm.weight", K::AttentionNorm),
    ("attn_q.weight", K::Query),
    ("attn_k.weight", K::Key),
    ("attn_v.weight", K::Value),
    ("attn_q.bias", K::QueryBias),
    ("attn_k.bias", K::KeyBias),
    ("attn_v.bias", K::ValueBias),
    ("attn_q_norm.weight", K::QueryNorm),
    ("attn_k_norm.weight", K::KeyNorm),
    ("attn_output.weight", K::Output),
    ("post_attention_norm.weight", K::AttentionPostNorm),
    ("ffn_norm.weight", K::MlpNorm),
    ("ffn_gate.weight", K::Gate),
    ("ffn_up.weight", K::Up),
    ("ffn_down.weight", K::Down),
    ("post_ffw_norm.weight", K::MlpPostNorm),
];
/// Phi-3's tensors of several parts.
const STACKED: [(&str, &[K]); 2] =
    [("attn_qkv.weight", &[K::Query, K::Key, K::Value]), ("ffn_up.weight", &[K::Gate, K::Up])];

/// A part's numbers and shape.
fn part(weights: &LayerWeights, kind: K) -> Option<(Vec<f32>, Vec<usize>)> {
    let vector = || weights.vector(kind).map(|vector| (vector.to_vec(), vec![vector.len()]));
    weights.matrix(kind).map(|Matrix { rows, cols, data }| (data.clone(), vec![*rows, *cols])).or_else(vector)
}

fn convert(original: &Checkpoint, family: &str, keys: &[(&str, TestValue)]) -> TestFile {
    let spec = &original.spec;
    let mut file = TestFile::default();
    file.set("general.architecture", family);
    let key = |name: &str| format!("{family}.{name}");
    for (name, size) in [
        ("block_count", spec.layers),
        ("context_length", spec.context),
        ("embedding_length", spec.hidden),
        ("feed_forward_length", spec.intermediate),
        ("attention.head_count", spec.heads),
        ("attention.head_count_kv", spec.kv_heads),
        ("attention.key_length", spec.head_dim),
        ("attention.value_length", spec.head_dim),
    ] {
        file.set(&key(name), size);
    }
    file.set(&key("attention.layer_norm_rms_epsilon"), spec.norm_epsilon);
    for (name, value) in keys {
        file.set(&key(name), value.clone());
    }
    let mut push = |name: String, shape: Vec<usize>, values: &[f32]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.tensors.push(TestTensor { name, shape, code: 0, bytes });
    };
    let embedding = original.embedding().unwrap();
    push("token_embd.weight".into(), vec![embedding.rows, embedding.cols], &embedding.data);
    push("output_norm.weight".into(), vec![embedding.cols], &original.final_norm().unwrap().gain);
    if let Some(head) = original.head().unwrap() {
        push("output.weight".into(), vec![head.rows, head.cols], &head.data);
    }
    for layer in 0..spec.layers as usize {
        let weights = original.layer(layer).unwrap();
        let stacked: &[(&str, &[K])] = if family == "phi3" { &STACKED } else { &[] };
        for (name, kinds) in stacked {
            let parts: Vec<_> = kinds.iter().map(|kind| weights.matrix(*kind).unwrap()).collect();
            let values: Vec<f32> = parts.iter().flat_map(|part| part.data.clone()).collect();
            let rows = parts.iter().map(|part| part.rows).sum();
            push(format!("blk.{layer}.{name}"), vec![rows, parts[0].cols], &values);
        }
        for (name, kind) in PARTS {
            if stacked.iter().any(|(_, kinds)| kinds.contains(&kind)) {
                continue;
            }
            let Some((mut values, shape)) = part(&weights, kind) else { continue };
            if family == "llama" && [K::Query, K::Key].contains(&kind) {
                values = neighbours(&values, spec.head_dim as usize, shape[1]);
            }
            push(format!("blk.{layer}.{name}"), shape, &values);
        }
    }
    file
}

/// Rows from pairs of halves to pairs of neighbours.
fn neighbours(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let source = |row: usize| row / head_dim * head_dim + row % 2 * (head_dim / 2) + row % head_dim / 2;
    (0..values.len() / cols).flat_map(|row| values[source(row) * cols..][..cols].to_vec()).collect()
}

#[track_caller]
fn is_the_folder(name: &str, family: &str, keys: &[(&str, TestValue)], global_every: u32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/architectures").join(name);
    let original = Checkpoint::open(&folder).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, convert(&original, family, keys).bytes()).unwrap();
    let converted = Checkpoint::open(&path).unwrap();

    let mut expected = original.spec.clone();
    // The metadata here says nothing of tokens, and a file can't say this of scores.
    expected.begin_token = None;
    expected.end_tokens.clear();
    expected.variant.score_scale = 0.0;
    expected.variant.global_every = global_every;
    assert_eq!(converted.spec, expected);
    assert_eq!((&converted.rope, &converted.local_rope), (&original.rope, &original.local_rope));
    assert_eq!(converted.embedding().unwrap(), original.embedding().unwrap());
    assert_eq!(converted.head().unwrap(), original.head().unwrap());
    assert_eq!(converted.final_norm().unwrap(), original.final_norm().unwrap());
    for layer in 0..original.spec.layers as usize {
        let (converted, original) = (converted.layer(layer).unwrap(), original.layer(layer).unwrap());
        for kind in K::ALL {
            assert_eq!(part(&converted, kind), part(&original, kind), "layer {layer} {}", kind.name());
        }
    }
}

#[test]
fn every_family_is_the_folder_it_came_from() {
    let window = || ("attention.sliding_window", TestValue::from(7_u32));
    is_the_folder("mistral", "llama", &[window()], 0);
    is_the_folder("qwen2", "qwen2", &[], 0);
    is_the_folder("qwen3", "qwen3", &[], 0);
    is_the_folder("phi3", "phi3", &[window(), ("rope.dimension_count", TestValue::from(4_u32))], 0);
    is_the_folder("gemma", "gemma", &[], 0);
    let caps = [3.0_f32, 4.0].map(TestValue::from);
    let [score, logit] = caps;
    let caps = [window(), ("attn_logit_softcapping", score), ("final_logit_softcapping", logit)];
    is_the_folder("gemma2", "gemma2", &caps, 2);
    let scaled = [
        window(),
        ("rope.freq_base", TestValue::from(1e6_f32)),
        ("rope.scaling.type", TestValue::from("linear")),
        ("rope.scaling.factor", TestValue::from(8.0_f32)),
    ];
    is_the_folder("gemma3", "gemma3", &scaled, 6);
}
