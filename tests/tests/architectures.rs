//! A checkpoint of every architecture, packed as a user packs it: the container gives the recorded bits with every kernel table, and the logits
//! that another implementation computed, as far as its bits allow.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::host::embedded_folder;
use conformance::tiny::Random;
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::methods::{GroupSize, Method, SolverOptions};
use rescomp_quantizer::pack::{PackOptions, pack};
use rescomp_quantizer::plan::BlockPlan;
use rescomp_quantizer::tokenizer_json::tokenizer_section;
use rescomp_runtime::Machine;
use rescomp_runtime::eval::measure;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const POSITIONS: usize = 40;

fn folders() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../quantizer/tests/architectures");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(all)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert_eq!(folders.len(), 19);
    folders
}

/// The embedded model's tokenizer, cut to the vocabulary.
fn tokenizer(vocabulary: u32) -> Vec<u8> {
    let path = embedded_folder().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let model = &mut json["model"];
    model["vocab"].as_object_mut().unwrap().retain(|_, token| token.as_u64().unwrap() < vocabulary.into());
    model["merges"] = json!([]);
    tokenizer_section(json.to_string().as_bytes(), &path, Some(vocabulary)).unwrap()
}

fn options(checkpoint: &Checkpoint, bits: u8) -> PackOptions {
    let vocabulary = checkpoint.spec.vocabulary;
    let mut random = Random::new(3);
    let mut tokens =
        |count: usize| -> Vec<u32> { (0..count).map(|_| random.below(vocabulary.into()) as u32).collect() };
    let options = SolverOptions::for_container(bits, GroupSize::elements(32).unwrap());
    PackOptions {
        plan: BlockPlan::new(Method::RescompExact, options).with_head_bits(8),
        layout: Layout::Nr8k4,
        calibration: (0..12).map(|_| tokens(POSITIONS + 1)).collect(),
        calibration_positions: POSITIONS,
        check_tokens: tokens(200),
        tokenizer: tokenizer(vocabulary),
        chat_template: Default::default(),
        target: "test".to_owned(),
    }
}

/// The logits of the last positions, and how far they are from the expected ones: the root of the mean square, as a share of theirs.
fn distance(container: &CheckedContainer<'_>, folder: &Path) -> f64 {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| tensors.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
    let tokens: Vec<u32> = words("tokens").into_iter().map(u32::from_le_bytes).collect();
    let expected: Vec<f32> = words("logits").into_iter().map(f32::from_le_bytes).collect();
    let machine = conformance::serial_machine();
    let mut memory = conformance::memory(container, tokens.len(), 7);
    let mut session =
        conformance::session(container, machine, tokens.len(), 7, ActivationFormat::F32, &mut memory);
    let mut found = Vec::new();
    session.run_each(&tokens, |_, logits| found.extend_from_slice(logits)).unwrap();
    let found = &found[found.len() - expected.len()..];
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let apart = squares(&mut found.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
    (apart / squares(&mut expected.iter().map(|&b| f64::from(b)))).sqrt()
}

#[test]
fn every_architecture_packs_checks_and_computes() {
    for folder in folders() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let mut before = f64::INFINITY;
        for (bits, most) in [(3, 1.0), (4, 0.6), (8, 0.1)] {
            let options = options(&checkpoint, bits);
            let packed = pack(conformance::serial_machine(), &checkpoint, &options, &mut |_| ()).unwrap();
            let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
            let windows = container.check_windows();
            let positions = windows.sizes().positions;
            for kernels in kernels::available() {
                let machine = Machine { kernels, executor: &Serial };
                let mut memory = conformance::memory(&container, positions, 5);
                let format = ActivationFormat::Int8;
                let mut session =
                    conformance::session(&container, machine, positions, 5, format, &mut memory);
                let measured = measure(&mut session, &windows, |_| ()).unwrap();
                let recorded = container.manifest().check.logits_sha256;
                assert_eq!(measured.logits_sha256, recorded, "{} {bits} {}", folder.display(), kernels.name);
            }
            let distance = distance(&container, &folder);
            let report = &packed.report;
            println!(
                "{} {bits} bits: off by {distance:.4}, KL {:.5}",
                report.checkpoint, report.check.mean_kl
            );
            assert!(distance < most && distance < before, "{} {bits} bits: {distance}", folder.display());
            before = distance;
            let matrices = if checkpoint.spec.architecture.has_gate() { 7 } else { 6 };
            assert_eq!(report.matrices.len(), 3 * matrices);
        }
    }
}
