//! `rescomp classify`, and what else a classifier's container does: `check`, `info`, `bench`; and what it refuses.

use std::path::{Path, PathBuf};

use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::image_input::{Filter, ImageInput, Resize};
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::ImageRecord;
use rescomp_formats::spec::{Activation, Architecture, ModelSpec, Output, Variant};
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::eval::log_sum_exp;
use rescomp_runtime::eval_images::measure_images;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use rescomp_runtime::models::vit::Pixels;
use serde_json::{Value, json};

use crate::fixture::{self, Folder, assert_refused, errors, json, run, spec, succeed, written_classifier};

/// Reads 24 x 32 pixels, as the rule "vit" of pixels/tests/generate.py makes them.
fn classifier_spec() -> ModelSpec {
    let image = ImageInput {
        height: 32,
        width: 24,
        patch: 8,
        tokens_before: 1,
        head_tokens: 1,
        rescale: 1.0 / 255.0,
        mean: [0.5; 3],
        deviation: [0.5; 3],
        resize: Some(Resize { height: 32, width: 24, filter: Filter::Bilinear }),
    };
    ModelSpec {
        architecture: Architecture::Vit,
        vocabulary: 7,
        variant: Variant { rotary_dim: 0, activation: Activation::Gelu, ..Variant::plain(16) },
        tied_head: false,
        begin_token: None,
        context: image.tokens(),
        output: Output::Classes(image),
        ..spec()
    }
}

/// Runs `work` with the reference kernels.
fn with_classifier(file: &[u8], work: impl FnOnce(&CheckedContainer<'_>, &mut Classifier<'_>)) {
    let container = Container::open(file).and_then(|file| file.check(Integrity::Digest)).expect("sound");
    let machine = Machine { kernels: kernels::by_name("scalar").expect("scalar"), executor: &Serial };
    let blocks = ClassifierPlan::new(&container).expect("a plan").blocks();
    let mut memory = vec![MemoryBlock([0; 64]); blocks as usize];
    let mut classifier =
        Classifier::new(&container, machine, ActivationFormat::Int8, &mut memory).expect("a classifier");
    work(&container, &mut classifier);
}

/// A container whose record is right but for what `change` does to it.
fn container_with(change: impl FnOnce(&mut ImageRecord)) -> Vec<u8> {
    let mut record = ImageRecord { mean_kl: 0.0, same_top1: 0, images: 2, logits_sha256: [0; 32] };
    let file = AlignedBytes::new(&written_classifier(&classifier_spec(), Layout::Nr8k4, record));
    with_classifier(&file, |container, classifier| {
        let images = container.check_images().expect("images");
        let found = measure_images(classifier, &images, |_| ()).expect("runs");
        (record.mean_kl, record.same_top1) = (found.mean_kl, found.same_top1);
        record.logits_sha256 = found.logits_sha256;
    });
    change(&mut record);
    written_classifier(&classifier_spec(), Layout::Nr8k4, record)
}

fn container() -> Vec<u8> {
    container_with(|_| ())
}

/// A file of the tests of rescomp-pixels.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pixels/tests/data").join(name)
}

/// The probabilities of an image's classes by the reference kernels, of the pixels that transformers' processor makes of the file.
fn probabilities(file: &[u8], name: &str) -> Vec<f64> {
    let rgb = std::fs::read(data(&format!("{name}.vit.rgb"))).expect("a file");
    let mut found = Vec::new();
    with_classifier(&AlignedBytes::new(file), |_, classifier| {
        let logits = classifier.classify(Pixels::Bytes { rgb: &rgb, repeat: 1 }).expect("runs");
        let normalizer = log_sum_exp(logits);
        found = logits.iter().map(|logit| (f64::from(*logit) - normalizer).exp()).collect();
    });
    found
}

#[test]
fn classes_are_those_of_the_reference_kernels_and_of_the_processors_pixels() {
    let (folder, bytes) = (Folder::new(), container());
    let path = folder.file("model", &bytes);
    let names = ["wide.png", "gray.png"];
    let files = names.map(|name| data(name).to_str().expect("UTF-8").to_owned());
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    for options in [&["--threads", "2"][..], &["--kernels", "scalar"]] {
        let all = [&files[..], options, &["--top", "3", "--json"]].concat();
        let output = succeed("classify", &path, &all);
        assert_eq!(output.lines().count(), 2);
        for ((line, name), file) in output.lines().zip(names).zip(&files) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let expected = probabilities(&bytes, name);
            let mut order: Vec<usize> = (0..expected.len()).collect();
            order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]));
            assert_eq!(line["image"], **file);
            let classes = line["classes"].as_array().expect("a list");
            assert_eq!(classes.len(), 3);
            for (class, &index) in classes.iter().zip(&order) {
                assert_eq!(
                    (&class["index"], &class["label"]),
                    (&json!(index), &json!(format!("class {index}")))
                );
                let probability = class["probability"].as_f64().expect("a probability");
                assert!((probability - expected[index]).abs() < 1e-12, "{probability} {}", expected[index]);
            }
        }
    }
    let words = succeed("classify", &path, &[files[0]]);
    assert_eq!(words.lines().next(), Some(files[0]));
    // Five classes where nobody says how many.
    assert!(words.lines().count() == 6 && words.contains("  class "), "{words}");
}

#[test]
fn files_that_are_no_images_are_refused_with_their_names() {
    let folder = Folder::new();
    let path = folder.file("model", &container());
    let good = data("wide.png");
    let good = good.to_str().expect("UTF-8");
    let missing = folder.path().join("missing.png");
    let missing = missing.to_str().expect("UTF-8");
    assert_refused(&run("classify", &path, &[good, missing]), 4, &["missing.png: cannot read"]);
    let text = folder.file("text.jpg", b"not an image");
    let text = text.to_str().expect("UTF-8");
    assert_refused(&run("classify", &path, &[good, text]), 2, &["text.jpg: expected a PNG or JPEG image"]);
    let whole = std::fs::read(data("turned.jpg")).expect("a file");
    let cut = folder.file("cut.jpg", &whole[..whole.len() / 2]);
    let cut = cut.to_str().expect("UTF-8");
    let output = run("classify", &path, &[cut]);
    assert_refused(&output, 2, &["cut.jpg: expected a"]);
    // Nothing was printed of the images before.
    assert!(run("classify", &path, &[good, text]).stdout.is_empty());
    assert_eq!(run("classify", &path, &[]).status.code(), Some(2));
    assert_eq!(run("classify", &path, &[good, "--top", "0"]).status.code(), Some(2));
}

#[test]
fn what_reads_texts_is_refused_by_name() {
    let folder = Folder::new();
    let path = folder.file("model", &container());
    for (command, options) in
        [("generate", &[][..]), ("chat", &[]), ("serve", &["--port", "0"]), ("embed", &["a"])]
    {
        assert_refused(&run(command, &path, options), 2, &["vit is a classifier", "rescomp classify"]);
    }
    let decoder = folder.file("decoder", &fixture::container(&spec(), Layout::Nr8k4));
    let file = data("wide.png");
    let refused = run("classify", &decoder, &[file.to_str().expect("UTF-8")]);
    assert_refused(&refused, 2, &["llama is a decoder and reads texts", "expected a classifier"]);
}

#[test]
fn a_check_passes_with_every_kernel_and_misses_its_bounds() {
    let folder = Folder::new();
    let path = folder.file("model", &container());
    for options in [&["--threads", "1"][..], &["--kernels", "scalar"], &["--threads", "3"]] {
        let report = json("check", &path, options);
        assert_eq!((&report["passed"], &report["device"]), (&json!(true), &report["host"]), "{report}");
        assert_eq!((&report["device"]["images"], &report["bounds"]["digest"]), (&json!(2), &json!("equal")));
    }
    assert!(succeed("check", &path, &[]).contains("mean KL, nats an image"));
    let missed = |name: &str, change: fn(&mut ImageRecord), options: &[&str]| {
        let path = folder.file("changed", &container_with(change));
        let output = run("check", &path, options);
        assert_eq!(output.status.code(), Some(i32::from(!name.is_empty())), "{}", errors(&output));
        assert!(errors(&output).contains(name));
    };
    missed("mean KL", |record| record.mean_kl += 1e-3, &[]);
    missed("", |record| record.mean_kl += 1e-3, &["--max-kl-difference", "0.002"]);
    missed("same top-1", |record| record.same_top1 = (record.same_top1 + 1) % 3, &[]);
    missed("SHA-256", |record| record.logits_sha256[31] ^= 1, &[]);
    missed("", |record| record.logits_sha256[31] ^= 1, &["--any-digest"]);
}

#[test]
fn info_and_bench_speak_of_images() {
    let folder = Folder::new();
    let path = folder.file("model", &container());
    let info = json("info", &path, &[]);
    assert_eq!(info["model"]["output"]["Classes"]["patch"], 8);
    assert_eq!((&info["check"]["images"], &info["memory"]["kv_cache_bytes"]), (&json!(2), &json!(0)));
    let words = succeed("info", &path, &[]);
    for part in ["24 x 32 pixels, patches of 8", "resized to 24 x 32, bilinear", "check images", "patches"] {
        assert!(words.contains(part), "{part} in {words}");
    }
    assert_refused(&run("info", &path, &["--context", "4"]), 2, &["an image of this model has 13 tokens"]);
    let report = json("bench", &path, &["--repeats", "1"]);
    assert_eq!(report["image"]["tokens"], 13);
    assert!(report["milliseconds_per_image"].as_f64().expect("a time") > 0.0);
    assert!(succeed("bench", &path, &["--repeats", "1"]).contains("milliseconds an image"));
    assert_refused(&run("bench", &path, &["--tokens", "3"]), 2, &["--tokens", "vit is a classifier"]);
}
