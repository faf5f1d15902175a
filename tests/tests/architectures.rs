//! A checkpoint of every architecture, packed as a user packs it: the container gives the recorded bits with every kernel table, and the logits
//! that another implementation computed, as far as its bits allow.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use bytemuck::Zeroable;
use conformance::host::embedded_folder;
use conformance::tiny::{self, Random};
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::checkpoint::{Checkpoint, CheckpointError};
use rescomp_quantizer::methods::{GroupSize, Method, SolverOptions};
use rescomp_quantizer::pack::{PackImages, PackOptions, pack};
use rescomp_quantizer::plan::BlockPlan;
use rescomp_quantizer::tokenizer_json::tokenizer_section;
use rescomp_quantizer::transforms::Transform;
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::encoder::{Encoder, EncoderPlan};
use rescomp_runtime::eval::measure;
use rescomp_runtime::eval_embeddings::{cosine, measure_embeddings};
use rescomp_runtime::eval_images::measure_images;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::models::vit::Pixels;
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
    assert_eq!(folders.len(), 30);
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
        check_texts: (3..12).map(&mut tokens).collect(),
        images: images(checkpoint),
        tokenizer: if checkpoint.spec.image().is_some() { Vec::new() } else { tokenizer(vocabulary) },
        chat_template: Default::default(),
        cache: CacheFormat::default(),
        target: "test".to_owned(),
    }
}

/// Of a classifier, images of large spots.
fn images(checkpoint: &Checkpoint) -> Option<PackImages> {
    let input = checkpoint.spec.image()?;
    let some = |seeds: std::ops::Range<u64>| seeds.map(|seed| tiny::image(input, seed)).collect();
    Some(PackImages { calibration: some(0..24), held_out: some(24..32) })
}

/// The same of a classifier: its logits are the recorded ones, and near to what another implementation computed.
fn classifier_packs_checks_and_computes(checkpoint: &Checkpoint, folder: &Path) {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let rgb = tensors.tensor("image").unwrap().data();
    let words = tensors.tensor("logits").unwrap().data().as_chunks::<4>().0.to_vec();
    let expected: Vec<f32> = words.into_iter().map(f32::from_le_bytes).collect();
    let mut before = f64::INFINITY;
    for (bits, most) in [(3, 1.0), (4, 0.6), (8, 0.1)] {
        let options = options(checkpoint, bits);
        let packed = pack(conformance::serial_machine(), checkpoint, &options, &mut |_| ()).unwrap();
        let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
        let images = container.check_images().unwrap();
        assert_eq!((images.images(), images.repeat()), (8, 1));
        let record = container.manifest().image_record().unwrap();
        let blocks = ClassifierPlan::new(&container).unwrap().blocks() as usize;
        for kernels in kernels::available() {
            let machine = Machine { kernels, executor: &Serial };
            let mut memory = vec![MemoryBlock::zeroed(); blocks];
            let mut classifier =
                Classifier::new(&container, machine, ActivationFormat::Int8, &mut memory).unwrap();
            let found = measure_images(&mut classifier, &images, |_| ()).unwrap();
            let what = format!("{} {bits} {}", folder.display(), kernels.name);
            assert_eq!(found.logits_sha256, record.logits_sha256, "{what}");
            assert_eq!((found.mean_kl, found.same_top1), (record.mean_kl, record.same_top1), "{what}");
        }
        let mut memory = vec![MemoryBlock::zeroed(); blocks];
        let machine = conformance::serial_machine();
        let mut classifier =
            Classifier::new(&container, machine, ActivationFormat::F32, &mut memory).unwrap();
        let found = classifier.classify(Pixels::Bytes { rgb, repeat: 1 }).unwrap();
        let distance = relative(found, &expected);
        let held_out = packed.report.held_out_images.as_ref().unwrap();
        println!(
            "{} {bits} bits: logits off by {distance:.4}, KL of the check {:.6}, of the held-out {:.6}",
            packed.report.checkpoint, record.mean_kl, held_out.mean_kl
        );
        assert!(distance < most && distance < before, "{} {bits} bits: {distance}", folder.display());
        // The check's images are the held-out ones: the two divergences differ by what is kept of probabilities.
        assert!((held_out.mean_kl - record.mean_kl).abs() < 1e-4, "{held_out:?} {record:?}");
        assert_eq!((held_out.images, held_out.same_top1), (8, f64::from(record.same_top1) / 8.0));
        before = distance;
        assert_eq!((packed.report.matrices.len(), packed.report.vocabulary.len()), (3 * 6, 2));
        let kinds: Vec<&str> = packed.report.vocabulary.iter().map(|matrix| matrix.kind).collect();
        assert_eq!(kinds, ["patches", "head"]);
        let labels = container.labels().unwrap();
        assert!((0..).zip(checkpoint.labels()).all(|(class, label)| labels.get(class) == label));
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
    relative(&found[found.len() - expected.len()..], &expected)
}

/// How far numbers are from the expected ones: the root of the mean square, as a share of theirs.
fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let apart = squares(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    (apart / squares(&mut expected.iter().map(|&b| f64::from(b)))).sqrt()
}

/// The same of an encoder: its vectors are the recorded ones, and near to what another implementation computed.
fn encoder_packs_checks_and_computes(checkpoint: &Checkpoint, folder: &Path) {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| tensors.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
    let tokens: Vec<u32> = words("tokens").into_iter().map(u32::from_le_bytes).collect();
    let floats = |name| -> Vec<f32> { words(name).into_iter().map(f32::from_le_bytes).collect() };
    let (states, expected) = (floats("states"), floats("embedding"));
    let mut before = f64::INFINITY;
    // How far states may be, as logits of decoders, and one less the cosine of vectors.
    for (bits, most, most_of_vector) in [(3, 1.0, 0.1), (4, 0.6, 0.03), (8, 0.1, 1e-3)] {
        let options = options(checkpoint, bits);
        let packed = pack(conformance::serial_machine(), checkpoint, &options, &mut |_| ()).unwrap();
        let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
        let texts = container.check_embeddings().unwrap();
        assert_eq!(texts.texts(), options.check_texts.len());
        let record = container.manifest().embedding_record().unwrap();
        let blocks = EncoderPlan::new(&container, POSITIONS).unwrap().blocks() as usize;
        for kernels in kernels::available() {
            let machine = Machine { kernels, executor: &Serial };
            let mut memory = vec![MemoryBlock::zeroed(); blocks];
            let format = ActivationFormat::Int8;
            let mut encoder = Encoder::new(&container, machine, POSITIONS, format, &mut memory).unwrap();
            let found = measure_embeddings(&mut encoder, &texts, &mut [0; POSITIONS], |_| ()).unwrap();
            let what = format!("{} {bits} {}", folder.display(), kernels.name);
            assert_eq!(found.embeddings_sha256, record.embeddings_sha256, "{what}");
            assert_eq!(found.mean_distance, record.mean_distance, "{what}");
        }
        let mut memory = vec![MemoryBlock::zeroed(); blocks];
        let (machine, format) = (conformance::serial_machine(), ActivationFormat::F32);
        let mut encoder = Encoder::new(&container, machine, POSITIONS, format, &mut memory).unwrap();
        let distance = relative(encoder.states(&tokens).unwrap(), &states);
        let found = encoder.embed(&tokens).unwrap();
        let of_vector = 1.0 - cosine(found.iter().copied(), expected.iter().copied());
        println!(
            "{} {bits} bits: states off by {distance:.4}, 1 - cosine {of_vector:.6}, mean of the check {:.6}",
            packed.report.checkpoint, record.mean_distance
        );
        assert!(distance < most && distance < before, "{} {bits} bits: {distance}", folder.display());
        assert!(of_vector < most_of_vector, "{} {bits} bits: {of_vector}", folder.display());
        before = distance;
        assert_eq!(packed.report.matrices.len(), 3 * 6);
    }
}

/// The same of a decoder, at widths and how far logits may be off at each.
fn decoder_packs_checks_and_computes(checkpoint: &Checkpoint, folder: &Path, widths: &[(u8, f64)]) {
    let transform = checkpoint.transform().map_or("none", |transform| transform.kind.name());
    let mut before = f64::INFINITY;
    for &(bits, most) in widths {
        let options = options(checkpoint, bits);
        let packed = pack(conformance::serial_machine(), checkpoint, &options, &mut |_| ()).unwrap();
        let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
        let windows = container.check_windows().unwrap();
        let positions = windows.sizes().positions;
        for kernels in kernels::available() {
            let machine = Machine { kernels, executor: &Serial };
            let mut memory = conformance::memory(&container, positions, 5);
            let format = ActivationFormat::Int8;
            let mut session = conformance::session(&container, machine, positions, 5, format, &mut memory);
            let measured = measure(&mut session, &windows, |_| ()).unwrap();
            let recorded = conformance::record(container.manifest()).logits_sha256;
            assert_eq!(
                measured.logits_sha256,
                recorded,
                "{} {transform} {bits} {}",
                folder.display(),
                kernels.name
            );
        }
        let distance = distance(&container, folder);
        let report = &packed.report;
        let kl = report.check.windows().unwrap().mean_kl;
        println!("{} {transform} {bits} bits: off by {distance:.4}, KL {kl:.5}", report.checkpoint);
        assert!(
            distance < most && distance < before,
            "{} {transform} {bits} bits: {distance}",
            folder.display()
        );
        before = distance;
        let matrices = if checkpoint.spec.architecture.has_gate() { 7 } else { 6 };
        assert_eq!(report.matrices.len(), 3 * matrices);
    }
}

/// Every method solves an encoder's matrices, at every width.
#[test]
fn every_method_and_width_packs_an_encoder() {
    let folder = folders().into_iter().find(|folder| folder.ends_with("bert")).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    for method in [Method::Rtn, Method::Gptq, Method::Gptaq, Method::Rescomp, Method::RescompExact] {
        for (bits, most) in [(2, 0.5), (3, 0.25), (4, 0.06), (5, 0.02), (6, 0.005), (8, 0.001)] {
            let mut options = options(&checkpoint, bits);
            let solver = SolverOptions::for_container(bits, GroupSize::elements(32).unwrap());
            options.plan = BlockPlan::new(method, solver).with_head_bits(8);
            let packed = pack(conformance::serial_machine(), &checkpoint, &options, &mut |_| ()).unwrap();
            let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
            let distance = container.manifest().embedding_record().unwrap().mean_distance;
            println!("{method} {bits} bits: {distance:.6}");
            assert!(distance > 0.0 && distance < most, "{method} {bits} bits: {distance}");
        }
    }
}

#[test]
fn every_architecture_packs_checks_and_computes() {
    for folder in folders() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        if checkpoint.spec.architecture.is_classifier() {
            classifier_packs_checks_and_computes(&checkpoint, &folder);
            continue;
        }
        if checkpoint.spec.architecture.is_encoder() {
            encoder_packs_checks_and_computes(&checkpoint, &folder);
            continue;
        }
        decoder_packs_checks_and_computes(&checkpoint, &folder, &[(3, 1.0), (4, 0.6), (8, 0.1)]);
    }
}

/// With their streams in another basis, and their Hadamard transforms: the same logits.
#[test]
fn every_rotated_architecture_packs_checks_and_computes() {
    let mut rotated = 0;
    for folder in folders() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        if !Transform::rotates_stream_of(checkpoint.spec.architecture) {
            continue;
        }
        rotated += 1;
        for transform in [Transform::quarot(&checkpoint.spec), Transform::quarot_online(&checkpoint.spec)] {
            match checkpoint.transformed(transform) {
                Ok(transformed) => {
                    decoder_packs_checks_and_computes(&transformed, &folder, &[(3, 1.0), (8, 0.1)]);
                }
                Err(error) => assert!(matches!(error, CheckpointError::NoTransform { .. }), "{error}"),
            }
        }
    }
    assert_eq!(rotated, 20);
}
