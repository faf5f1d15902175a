//! Models of every architecture that is read, as a converter writes them: the folder's sizes, frequencies and weights again.

use std::path::Path;

use rescomp_formats::section::SectionKind as K;
use rescomp_formats::spec::Activation;

use super::super::{Checkpoint, LayerWeights, Matrix};
use super::test_file::{TestFile, TestTensor, TestValue};

/// What a converter calls the parts of a layer that most families store by themselves.
const PARTS: [(&str, K); 21] = [
    ("attn_norm.weight", K::AttentionNorm),
    ("attn_norm.bias", K::AttentionNormBias),
    ("attn_q.weight", K::Query),
    ("attn_k.weight", K::Key),
    ("attn_v.weight", K::Value),
    ("attn_q.bias", K::QueryBias),
    ("attn_k.bias", K::KeyBias),
    ("attn_v.bias", K::ValueBias),
    ("attn_q_norm.weight", K::QueryNorm),
    ("attn_k_norm.weight", K::KeyNorm),
    ("attn_output.weight", K::Output),
    ("attn_output.bias", K::OutputBias),
    ("post_attention_norm.weight", K::AttentionPostNorm),
    ("ffn_norm.weight", K::MlpNorm),
    ("ffn_norm.bias", K::MlpNormBias),
    ("ffn_gate.weight", K::Gate),
    ("ffn_up.weight", K::Up),
    ("ffn_up.bias", K::UpBias),
    ("ffn_down.weight", K::Down),
    ("ffn_down.bias", K::DownBias),
    ("post_ffw_norm.weight", K::MlpPostNorm),
];
/// Phi-3's tensors of several parts.
const STACKED: [(&str, &[K]); 2] =
    [("attn_qkv.weight", &[K::Query, K::Key, K::Value]), ("ffn_up.weight", &[K::Gate, K::Up])];
/// Those of GPTs.
const GPT_STACKED: [(&str, &[K]); 2] = [
    ("attn_qkv.weight", &[K::Query, K::Key, K::Value]),
    ("attn_qkv.bias", &[K::QueryBias, K::KeyBias, K::ValueBias]),
];

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
    let epsilon =
        if spec.architecture.has_layer_norm() { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
    file.set(&key(&format!("attention.{epsilon}")), spec.norm_epsilon);
    for (name, value) in keys {
        file.set(&key(name), value.clone());
    }
    let mut push = |name: String, shape: Vec<usize>, values: &[f32]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.tensors.push(TestTensor { name, shape, code: 0, bytes });
    };
    let embedding = original.embedding().unwrap();
    push("token_embd.weight".into(), vec![embedding.rows, embedding.cols], &embedding.data);
    let norm = original.final_norm().unwrap();
    push("output_norm.weight".into(), vec![embedding.cols], &norm.gain);
    if !norm.bias.is_empty() {
        push("output_norm.bias".into(), vec![embedding.cols], &norm.bias);
    }
    if let Some(positions) = original.positions().unwrap() {
        push("position_embd.weight".into(), vec![positions.rows, positions.cols], &positions.data);
    }
    if let Some(head) = original.head().unwrap() {
        push("output.weight".into(), vec![head.rows, head.cols], &head.data);
    }
    for layer in 0..spec.layers as usize {
        let weights = original.layer(layer).unwrap();
        let stacked: &[(&str, &[K])] = match family {
            "phi3" => &STACKED,
            "gptneox" | "gpt2" => &GPT_STACKED,
            _ => &[],
        };
        for (name, kinds) in stacked {
            let parts: Vec<_> = kinds.iter().map(|kind| part(&weights, *kind).unwrap()).collect();
            let values: Vec<f32> = parts.iter().flat_map(|(values, _)| values.clone()).collect();
            let mut shape = parts[0].1.clone();
            shape[0] = parts.iter().map(|(_, shape)| shape[0]).sum();
            push(format!("blk.{layer}.{name}"), shape, &values);
        }
        for (name, kind) in PARTS {
            if stacked.iter().any(|(_, kinds)| kinds.contains(&kind)) {
                continue;
            }
            let Some((mut values, shape)) = part(&weights, kind) else { continue };
            if ["llama", "smollm3", "granite"].contains(&family) && [K::Query, K::Key].contains(&kind) {
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

/// A folder, and what is read of the file that a converter would make of it.
fn both(
    name: &str,
    family: &str,
    keys: &[(&str, TestValue)],
    more: &[TestTensor],
) -> (Checkpoint, Checkpoint) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/architectures").join(name);
    let original = Checkpoint::open(&folder).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut file = convert(&original, family, keys);
    file.tensors.extend_from_slice(more);
    std::fs::write(&path, file.bytes()).unwrap();
    (original, Checkpoint::open(&path).unwrap())
}

#[track_caller]
fn is_the_folder(name: &str, family: &str, keys: &[(&str, TestValue)], global_every: u32) {
    let (original, converted) = both(name, family, keys, &[]);

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
    assert_eq!(converted.positions().unwrap(), original.positions().unwrap());
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
    is_the_folder("gpt2", "gpt2", &[], 0);
    let neox = |parallel: bool, rotated: u32| {
        [
            ("use_parallel_residual", TestValue::from(parallel)),
            ("rope.dimension_count", TestValue::from(rotated)),
        ]
    };
    is_the_folder("gpt-neox", "gptneox", &neox(true, 4), 0);
}

/// llama.cpp takes tanh's GELU for what the model computes with the error function's.
#[test]
fn gpt_neox_has_the_activation_of_its_model() {
    let keys = [("use_parallel_residual", TestValue::from(false))];
    let (_, converted) = both("gpt-neox-sequential", "gptneox", &keys, &[]);
    assert_eq!(converted.spec.variant.activation, Activation::Gelu);
    assert!(!converted.spec.variant.parallel_residual);
}

#[test]
fn smollm3_rotates_nothing_in_every_fourth_layer() {
    let (original, converted) = both("smollm3", "smollm3", &[], &[]);
    let variant = &converted.spec.variant;
    assert_eq!((variant.unrotated_every, original.spec.variant.unrotated_every), (4, 2));
    assert_eq!(converted.layer(1).unwrap(), original.layer(1).unwrap());
}

#[test]
fn the_weights_take_in_the_scales_of_granite() {
    let [embedding, score, residual, logit] = [12.0_f32, 0.1, 0.5, 8.0].map(TestValue::from);
    let keys = [
        ("embedding_scale", embedding),
        ("attention.scale", score),
        ("residual_scale", residual),
        ("logit_scale", logit),
    ];
    let (original, converted) = both("llama", "granite", &keys, &[]);
    let variant = &converted.spec.variant;
    assert_eq!((variant.embedding_scale, variant.score_scale), (12.0, 0.1));
    let scaled = |values: &[f32], by: f32| values.iter().map(|value| value * by).collect::<Vec<_>>();
    let gain = |checkpoint: &Checkpoint| checkpoint.final_norm().unwrap().gain;
    assert_eq!(gain(&converted), scaled(&gain(&original), 0.125));
    let (converted, original) = (converted.layer(1).unwrap(), original.layer(1).unwrap());
    for (kind, by) in [(K::Output, 0.5), (K::Down, 0.5), (K::Query, 1.0), (K::Up, 1.0)] {
        let [converted, original] = [&converted, &original].map(|weights| part(weights, kind).unwrap().0);
        assert_eq!(converted, scaled(&original, by), "{}", kind.name());
    }
}

#[test]
fn yarn_and_longrope_are_those_of_folders() {
    let original_context = |context: u32| ("rope.scaling.original_context_length", TestValue::from(context));
    let keys = [
        ("rope.scaling.type", TestValue::from("yarn")),
        ("rope.scaling.factor", TestValue::from(4.0_f32)),
        original_context(16),
    ];
    let (original, converted) = both("qwen2-yarn", "qwen2", &keys, &[]);
    assert_eq!(converted.rope, original.rope);
    assert_eq!(converted.folded(), original.folded());

    let divisors = |name: &str, values: &[f32]| TestTensor {
        name: name.to_owned(),
        shape: vec![values.len()],
        code: 0,
        bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    let tensors = [
        divisors("rope_factors_short.weight", &[1.0, 1.5]),
        divisors("rope_factors_long.weight", &[2.0, 3.0]),
    ];
    let factor = (1.0_f64 + (64.0_f64 / 48.0).ln() / 48.0_f64.ln()).sqrt() as f32;
    let keys = [
        ("rope.dimension_count", TestValue::from(4_u32)),
        ("rope.scaling.attn_factor", TestValue::from(factor)),
        original_context(48),
    ];
    let (original, converted) = both("phi3-longrope", "phi3", &keys, &tensors);
    assert_eq!((converted.spec.context, &converted.rope), (48, &original.rope));
    // The folder's weights have taken it in once already.
    let query = |checkpoint: &Checkpoint| part(&checkpoint.layer(0).unwrap(), K::Query).unwrap().0;
    let (cols, head) = (original.spec.hidden as usize, original.spec.head_dim as usize);
    let once = query(&original);
    let twice = once.chunks(cols).enumerate().flat_map(|(row, values)| {
        let by = if row % head < 4 { factor } else { 1.0 };
        values.iter().map(move |value| value * by).collect::<Vec<_>>()
    });
    assert_eq!(query(&converted), twice.collect::<Vec<_>>());
}
