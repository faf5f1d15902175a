//! Every architecture against logits that another implementation computed (architectures/generate.py).
//!
//! The full-precision forward is the runtime's own, so what agrees here is what devices run, but for the weights' rounding.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::classes::dense_classes;
use rescomp_quantizer::dense::{DenseLayer, DenseLogits, Streams};
use rescomp_quantizer::embeddings::dense_embeddings;
use rescomp_runtime::Machine;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/architectures").join(name)
}

/// The window, and the logits of its last positions, or others of the expected numbers.
fn expected(folder: &Path, name: &str) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words =
        |name: &str| -> Vec<[u8; 4]> { tensors.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec() };
    let tokens = words("tokens").into_iter().map(u32::from_le_bytes).collect();
    (tokens, words(name).into_iter().map(f32::from_le_bytes).collect())
}

/// How far numbers are from the expected ones at most, as a share of the largest.
fn furthest(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let apart = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    apart.fold(0.0_f32, f32::max) / largest
}

fn agrees(name: &str) {
    let folder = folder(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let (tokens, expected) = expected(&folder, "logits");
    let positions = tokens.len();
    let machine = Machine { kernels: kernels::best(), executor: &Serial };
    let logits = DenseLogits::new(machine, &checkpoint, &[tokens], positions, |_| ()).unwrap().window(0);
    let found = &logits[logits.len() - expected.len()..];
    let furthest = furthest(found, &expected);
    println!("{name}: furthest {furthest:e} of the largest");
    // The acceptance bar is 1e-4; f32 forwards in two orders agree to a few parts in a million.
    assert!(furthest <= 2e-5, "{name}: furthest {furthest}");
}

/// Of an encoder, the states of all tokens, and the vector that the folder's files make of them.
fn encoder_agrees(name: &str) {
    let folder = folder(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let machine = Machine { kernels: kernels::best(), executor: &Serial };
    let (tokens, states) = expected(&folder, "states");
    let embedding = checkpoint.embedding().unwrap();
    let windows = [tokens.clone()];
    let mut streams = Streams::new(machine, &checkpoint, &embedding, &windows, tokens.len()).unwrap();
    for layer in 0..checkpoint.spec.layers as usize {
        let weights = checkpoint.layer(layer).unwrap();
        streams.run_block(&mut DenseLayer { weights: &weights, layer }).unwrap();
    }
    let vector = &dense_embeddings(machine, &checkpoint, &windows, |_| ()).unwrap()[0];
    let of_states = furthest(streams.stream(), &states);
    let of_vector = furthest(vector, &expected(&folder, "embedding").1);
    println!("{name}: states furthest {of_states:e} of the largest, vector {of_vector:e}");
    assert!(of_states <= 2e-5 && of_vector <= 2e-5, "{name}: states {of_states}, vector {of_vector}");
    // There is no next token.
    let error = DenseLogits::new(machine, &checkpoint, &windows, 4, |_| ()).unwrap_err().to_string();
    assert!(error.contains("bert is an encoder"), "{error}");
}

/// Of a classifier, the logits of an image.
fn classifier_agrees(name: &str) {
    let folder = folder(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let machine = Machine { kernels: kernels::best(), executor: &Serial };
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let image = tensors.tensor("image").unwrap().data().to_vec();
    let words = tensors.tensor("logits").unwrap().data().as_chunks::<4>().0.to_vec();
    let expected: Vec<f32> = words.into_iter().map(f32::from_le_bytes).collect();
    let found = &dense_classes(machine, &checkpoint, std::slice::from_ref(&image), |_| ()).unwrap()[0];
    let furthest = furthest(found, &expected);
    println!("{name}: furthest {furthest:e} of the largest");
    assert!(furthest <= 2e-5, "{name}: furthest {furthest}");
    // There is no next token, and no vector of a text.
    let windows = [vec![1; 4]];
    let error = DenseLogits::new(machine, &checkpoint, &windows, 4, |_| ()).unwrap_err().to_string();
    assert!(error.contains("vit is a classifier"), "{error}");
    let error = dense_embeddings(machine, &checkpoint, &windows, |_| ()).unwrap_err().to_string();
    assert!(error.contains("vit is a classifier"), "{error}");
    let error = dense_classes(machine, &checkpoint, &[image[1..].to_vec()], |_| ()).unwrap_err().to_string();
    assert!(error.contains("an image of the model's size has"), "{error}");
}

macro_rules! architectures {
    ($agrees:ident: $($test:ident: $folder:literal;)*) => { $(
        #[test]
        fn $test() {
            $agrees($folder);
        }
    )* };
}

architectures! {
    encoder_agrees:
    bert: "bert";
    roberta: "roberta";
    distilbert: "distilbert";
}

architectures! {
    classifier_agrees:
    vit: "vit";
    deit: "deit";
    deit_with_teacher: "deit-with-teacher";
}

architectures! {
    agrees:
    llama_with_llama_3_scaling: "llama";
    llama_with_linear_scaling: "llama-linear";
    mistral: "mistral";
    qwen2: "qwen2";
    qwen3: "qwen3";
    phi3: "phi3";
    gemma: "gemma";
    gemma2: "gemma2";
    gemma3: "gemma3";
    gpt_neox: "gpt-neox";
    gpt_neox_one_after_the_other: "gpt-neox-sequential";
    gpt2: "gpt2";
    gpt_neo: "gpt-neo";
    olmo: "olmo";
    olmo2: "olmo2";
    stablelm: "stablelm";
    stablelm_side_by_side: "stablelm-parallel";
    opt: "opt";
    qwen2_with_yarn: "qwen2-yarn";
    phi3_with_longrope: "phi3-longrope";
    smollm3: "smollm3";
    granite: "granite";
    gpt2_with_scores_by_layer: "gpt2-by-layer";
    gemma3_with_images: "gemma3-images";
}
