//! Classifiers: the same logits, bit for bit, with every kernel table, thread count and layout; what an independent forward in f64 computes; memory
//! that is planned exactly; refusals.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use bytemuck::Zeroable;
use conformance::tiny::{self, Widths};
use conformance::{naive, naive_vit};
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::{Activation, Architecture, ModelKind, ModelSpec, Output, Variant};
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::encoder::EncoderPlan;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::{argmax, log_sum_exp};
use rescomp_runtime::eval_images::measure_images;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, BLOCK_BYTES, MemoryBlock};
use rescomp_runtime::models::vit::{self, Pixels};
use rescomp_runtime::session::{Limits, SessionPlan};
use rescomp_runtime::threads::ThreadPool;
use sha2::{Digest, Sha256};

const INT8: &str = "7b7b18500c8701baaf5ec176add8fea77c53d9d302a7e45dece23f21fcccd0e3";
const F32: &str = "caea158ec65ef903cf04b5c29bd8a40117b2394131bcf81ce4e95f16e6470084";

/// Two tokens in front, a head of both.
fn spec() -> ModelSpec {
    tiny::architecture_spec(Architecture::Vit)
}

fn with_image(image: ImageInput, spec: ModelSpec) -> ModelSpec {
    ModelSpec { context: image.tokens(), output: Output::Classes(image), ..spec }
}

/// Heads of 32, which have kernels of their own, no groups, rows longer than a step, one token in front, patches longer than a tile of them.
fn wide_spec() -> ModelSpec {
    let sizes = ImageInput { height: 32, width: 24, patch: 8, resize: None, ..tiny::image_input() };
    let image = ImageInput { tokens_before: 1, head_tokens: 1, ..sizes };
    let variant = Variant { activation: Activation::GeluTanh, ..spec().variant };
    let sizes =
        ModelSpec { hidden: 160, intermediate: 272, heads: 5, kv_heads: 5, head_dim: 32, variant, ..spec() };
    with_image(image, sizes)
}

fn opened(file: &AlignedBytes) -> CheckedContainer<'_> {
    Container::open(file).unwrap().check(Integrity::Digest).unwrap()
}

fn memory(container: &CheckedContainer<'_>, garbage: u8) -> Vec<MemoryBlock> {
    let blocks = ClassifierPlan::new(container).unwrap().blocks();
    vec![MemoryBlock([garbage; BLOCK_BYTES as usize]); blocks as usize]
}

fn images(spec: &ModelSpec) -> Vec<Vec<u8>> {
    (1..4).map(|seed| tiny::image(spec.image().unwrap(), seed)).collect()
}

/// SHA-256 of the logits of some images, in memory that holds garbage.
fn digest(
    container: &CheckedContainer<'_>,
    machine: Machine<'_>,
    activations: ActivationFormat,
    garbage: u8,
) -> String {
    let mut memory = memory(container, garbage);
    let mut classifier = Classifier::new(container, machine, activations, &mut memory).unwrap();
    let mut digest = Sha256::new();
    for rgb in images(&container.manifest().spec) {
        let logits = classifier.classify(Pixels::Bytes { rgb: &rgb, repeat: 1 }).unwrap();
        assert!(logits.iter().all(|number| number.is_finite()));
        digest.update(bytemuck::cast_slice::<f32, u8>(logits));
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn logits_have_the_same_bits_everywhere() {
    let pools: Vec<ThreadPool> = (1..=3).map(|threads| ThreadPool::new(threads).unwrap()).collect();
    for layout in Layout::ALL {
        let file = tiny::container(&spec(), Widths::Mixed, layout);
        let container = opened(&file);
        for kernels in kernels::available() {
            for (pool, threads) in pools.iter().zip(1..) {
                let machine = Machine { kernels, executor: pool };
                for (activations, expected) in [(ActivationFormat::Int8, INT8), (ActivationFormat::F32, F32)]
                {
                    for garbage in [0, 0xff] {
                        let found = digest(&container, machine, activations, garbage);
                        let what = format!("{activations:?}, {}, {} {threads}", layout.name(), kernels.name);
                        assert_eq!(found, expected, "{what}");
                    }
                }
            }
        }
    }
}

/// The widths that a mixed container lacks, wide rows, and heads with kernels of their own: all tables give what scalar gives.
#[test]
fn every_width_and_the_wide_kernels_agree() {
    let pool = ThreadPool::new(2).unwrap();
    for spec in [spec(), wide_spec()] {
        for width in CodeWidth::ALL {
            let file = tiny::container(&spec, Widths::All(width), Layout::Nr8k4);
            let container = opened(&file);
            let of = |kernels, executor| {
                digest(&container, Machine { kernels, executor }, ActivationFormat::Int8, 0xff)
            };
            let expected = of(kernels::by_name("scalar").unwrap(), &Serial);
            for kernels in kernels::available() {
                assert_eq!(of(kernels, &pool), expected, "{width:?}, {}", kernels.name);
            }
        }
    }
}

#[test]
fn logits_are_those_of_the_naive_forward() {
    let one_head = with_image(ImageInput { head_tokens: 1, ..tiny::image_input() }, spec());
    for spec in [spec(), wide_spec(), one_head] {
        let file = tiny::container(&spec, Widths::Mixed, Layout::Nr8k4);
        let container = opened(&file);
        for rgb in images(&spec) {
            let expected = naive_vit::logits(&spec, &|name| naive::rows(&container, name), &rgb);
            for (activations, share) in [(ActivationFormat::F32, 1e-5), (ActivationFormat::Int8, 0.1)] {
                let mut memory = memory(&container, 0xff);
                let machine = conformance::serial_machine();
                let mut classifier = Classifier::new(&container, machine, activations, &mut memory).unwrap();
                let found = classifier.classify(Pixels::Bytes { rgb: &rgb, repeat: 1 }).unwrap();
                naive::assert_close(found, &vec![expected.clone()], share);
            }
        }
    }
}

/// Numbers instead of bytes, and images before, change nothing; the images do.
#[test]
fn pixels_come_as_bytes_or_as_numbers() {
    let file = tiny::container(&spec(), Widths::Mixed, Layout::Nr8k4);
    let container = opened(&file);
    let (spec, machine) = (spec(), conformance::serial_machine());
    let input = spec.image().unwrap();
    let mut memory = memory(&container, 0xff);
    let mut classifier = Classifier::new(&container, machine, ActivationFormat::Int8, &mut memory).unwrap();
    let images = images(&spec);
    let first = classifier.classify(Pixels::Bytes { rgb: &images[0], repeat: 1 }).unwrap().to_vec();
    let other = classifier.classify(Pixels::Bytes { rgb: &images[1], repeat: 1 }).unwrap().to_vec();
    assert_ne!(first, other);
    // Numbers in the order of pixels, put together from the patches.
    let mut numbers = vec![f32::NAN; input.elems()];
    let (edge, width) = (input.patch as usize, input.width as usize);
    let mut patch = vec![0.0; input.patch_elems() as usize];
    for index in 0..(input.tokens() - input.tokens_before) as usize {
        vit::gather(input, Pixels::Bytes { rgb: &images[0], repeat: 1 }, index, &mut patch);
        let (top, left) = (index / (width / edge) * edge, index % (width / edge) * edge);
        for (row, pixels) in patch.chunks(3 * edge).enumerate() {
            numbers[((top + row) * width + left) * 3..][..3 * edge].copy_from_slice(pixels);
        }
    }
    assert_eq!(classifier.classify(Pixels::Numbers(&numbers)).unwrap(), first);
    numbers[5] = f32::NAN;
    let error = classifier.classify(Pixels::Numbers(&numbers)).unwrap_err();
    assert_eq!(error, RuntimeError::NotFinite { layer: None, set: None });
}

#[test]
fn the_memory_plan_is_exact() {
    for spec in [spec(), wide_spec()] {
        let file = tiny::container(&spec, Widths::Mixed, Layout::Nr8k4);
        let container = opened(&file);
        let machine = conformance::serial_machine();
        let plan = ClassifierPlan::new(&container).unwrap();
        assert_eq!(plan.blocks() * BLOCK_BYTES, plan.bytes());
        for activations in [ActivationFormat::Int8, ActivationFormat::F32] {
            let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
            let mut classifier = Classifier::new(&container, machine, activations, &mut memory).unwrap();
            classifier.classify(Pixels::Bytes { rgb: &images(&spec)[0], repeat: 1 }).unwrap();
            let (given_bytes, needed_bytes) = (plan.bytes() - BLOCK_BYTES, plan.bytes());
            let refused = Classifier::new(&container, machine, activations, &mut memory[1..]).unwrap_err();
            assert_eq!(refused, RuntimeError::Memory { needed_bytes, given_bytes });
        }
    }
}

#[test]
fn what_a_classifier_cannot_do_is_refused() {
    let file = tiny::container(&spec(), Widths::Mixed, Layout::Nr8k4);
    let container = opened(&file);
    let machine = conformance::serial_machine();
    let mut memory = memory(&container, 0);
    let mut classifier = Classifier::new(&container, machine, ActivationFormat::Int8, &mut memory).unwrap();
    let expected = spec().image().unwrap().elems() as u64;
    let rgb = vec![0; expected as usize];
    for (length, repeat, expected) in
        [(expected - 1, 1, expected), (expected, 2, expected / 4), (expected, 3, 0), (expected, 0, 0)]
    {
        let pixels = Pixels::Bytes { rgb: &rgb[..length as usize], repeat };
        let error = classifier.classify(pixels).unwrap_err();
        assert_eq!(error, RuntimeError::Pixels { expected, found: length });
    }
    let kind = |architecture, kind| RuntimeError::Kind { architecture, kind };
    let limits = Limits { context: 4, tile: 2 };
    let vit = kind("vit", ModelKind::Classifier);
    assert_eq!(SessionPlan::new(&container, limits).unwrap_err(), vit);
    assert_eq!(EncoderPlan::new(&container, 4).unwrap_err(), vit);
    assert!(vit.to_string().contains("vit is a classifier"));
    for (other, found) in
        [(Architecture::Bert, ModelKind::Encoder), (Architecture::Llama, ModelKind::Decoder)]
    {
        let file = tiny::container(&tiny::architecture_spec(other), Widths::Mixed, Layout::Nr8k4);
        let container = opened(&file);
        assert_eq!(ClassifierPlan::new(&container).unwrap_err(), kind(other.name(), found));
        assert!(container.labels().is_none() && container.tokenizer().is_some());
    }
    assert!(container.tokenizer().is_none());
    assert_eq!(container.labels().unwrap().get(18), "class 18");
}

#[test]
fn the_check_measures_what_it_says() {
    let file = tiny::container(&spec(), Widths::Mixed, Layout::Nr8k4);
    let container = opened(&file);
    let images = container.check_images().unwrap();
    assert!(container.check_windows().is_none() && images.images() > 1 && images.repeat() == 2);
    let mut memory = memory(&container, 0xff);
    let machine = conformance::serial_machine();
    let mut classifier = Classifier::new(&container, machine, ActivationFormat::Int8, &mut memory).unwrap();
    let found = measure_images(&mut classifier, &images, |_| ()).unwrap();
    let (mut digest, mut kl, mut same) = (Sha256::new(), 0.0, 0);
    for image in 0..images.images() {
        let pixels = Pixels::Bytes { rgb: images.pixels(image), repeat: images.repeat() };
        let logits = classifier.classify(pixels).unwrap();
        digest.update(bytemuck::cast_slice::<f32, u8>(logits));
        // All 19 classes are kept, and the recorded probabilities are scaled to sum to 1 with the rest.
        let kept: Vec<(u32, f64)> = images.classes().kept(image).collect();
        let rest = f64::from(images.classes().rest(image));
        let sum = rest + kept.iter().map(|(_, log_p)| log_p.exp()).sum::<f64>();
        let q = |class: u32| f64::from(logits[class as usize]) - log_sum_exp(logits);
        let of_kept: f64 =
            kept.iter().map(|&(class, log_p)| log_p.exp() / sum * (log_p - sum.ln() - q(class))).sum();
        kl += of_kept + rest / sum * ((rest / sum).ln() - 1e-12_f64.ln());
        same += u32::from(kept[0].0 == argmax(logits));
    }
    assert!((found.mean_kl - kl / images.images() as f64).abs() < 1e-9, "{found:?} {kl}");
    assert_eq!((found.same_top1, found.images), (same, images.images() as u32));
    assert_eq!(found.logits_sha256, <[u8; 32]>::from(digest.finalize()));
}
