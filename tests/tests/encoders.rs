//! Encoders: the same vectors, bit for bit, with every kernel table, thread count, layout and room; what an independent forward in f64 computes;
//! memory that is planned exactly; refusals.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use bytemuck::Zeroable;
use conformance::tiny::{self, Widths};
use conformance::{naive, naive_bert};
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::{
    Activation, Architecture, ModelKind, ModelSpec, Output, Pooling, TextEmbedding, Variant,
};
use rescomp_runtime::Machine;
use rescomp_runtime::encoder::{Encoder, EncoderPlan};
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval_embeddings::measure_embeddings;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, BLOCK_BYTES, MemoryBlock};
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use rescomp_runtime::threads::ThreadPool;
use sha2::{Digest, Sha256};

/// Lengths of the texts: no multiple of any tile, one token, and the context.
const LENGTHS: [usize; 5] = [1, 2, 7, 23, 40];

const INT8: &str = "22bd55148e657372cdb3e37e3b3dd87a4c841c792a98ef873ea2116f5fd29ea2";
const F32: &str = "ca603a11a110053cdaf91fb9396d351b17f80b8bc381688ce12feadb40ad1a5e";

fn spec() -> ModelSpec {
    tiny::architecture_spec(Architecture::Bert)
}

/// Heads of 32, which have kernels of their own, no groups, rows longer than a step, the first token's state.
fn wide_spec() -> ModelSpec {
    let variant = Variant { activation: Activation::GeluTanh, embedding_scale: 1.5, ..spec().variant };
    let output = Output::Vector(TextEmbedding { pooling: Pooling::Cls, normalized: false });
    ModelSpec {
        hidden: 160,
        intermediate: 272,
        heads: 5,
        kv_heads: 5,
        head_dim: 32,
        variant,
        output,
        ..spec()
    }
}

fn opened(file: &AlignedBytes) -> CheckedContainer<'_> {
    Container::open(file).unwrap().check(Integrity::Digest).unwrap()
}

fn memory(container: &CheckedContainer<'_>, tokens: usize, garbage: u8) -> Vec<MemoryBlock> {
    let plan = EncoderPlan::new(container, tokens).unwrap();
    vec![MemoryBlock([garbage; BLOCK_BYTES as usize]); plan.blocks() as usize]
}

/// SHA-256 of the vectors of texts of all lengths, with room for the longest and `room` more, in memory that holds garbage.
fn digest(
    container: &CheckedContainer<'_>,
    machine: Machine<'_>,
    activations: ActivationFormat,
    lengths: impl Iterator<Item = usize>,
    garbage: u8,
) -> String {
    let spec = &container.manifest().spec;
    let longest = spec.context as usize;
    let mut memory = memory(container, longest, garbage);
    let mut encoder = Encoder::new(container, machine, longest, activations, &mut memory).unwrap();
    let mut digest = Sha256::new();
    for length in lengths {
        let vector = encoder.embed(&tiny::tokens(spec, length)).unwrap();
        assert!(vector.iter().all(|number| number.is_finite()));
        digest.update(bytemuck::cast_slice::<f32, u8>(vector));
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn vectors_have_the_same_bits_everywhere() {
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
                        let found = digest(&container, machine, activations, LENGTHS.into_iter(), garbage);
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
                let machine = Machine { kernels, executor };
                digest(&container, machine, ActivationFormat::Int8, LENGTHS.into_iter(), 0xff)
            };
            let expected = of(kernels::by_name("scalar").unwrap(), &Serial);
            for kernels in kernels::available() {
                assert_eq!(of(kernels, &pool), expected, "{width:?}, {}", kernels.name);
            }
        }
    }
}

/// The room that an encoder has, and what it ran before, have no part in a vector.
#[test]
fn room_and_earlier_texts_change_nothing() {
    let file = tiny::container(&spec(), Widths::Mixed, Layout::Nr8k4);
    let container = opened(&file);
    let machine = conformance::serial_machine();
    let text = tiny::tokens(&spec(), 9);
    let alone = |room| {
        let mut memory = memory(&container, room, 0xff);
        let mut encoder =
            Encoder::new(&container, machine, room, ActivationFormat::Int8, &mut memory).unwrap();
        encoder.embed(&text).unwrap().to_vec()
    };
    assert_eq!(alone(9), alone(40));
    let mut memory = memory(&container, 40, 0);
    let mut encoder = Encoder::new(&container, machine, 40, ActivationFormat::Int8, &mut memory).unwrap();
    encoder.embed(&tiny::tokens(&spec(), 40)).unwrap();
    assert_eq!(encoder.embed(&text).unwrap(), alone(9));
    // Every token sees those behind it.
    let mut other = text.clone();
    other[8] = (other[8] + 1) % spec().vocabulary;
    let first = |encoder: &mut Encoder<'_>, text: &[u32]| encoder.states(text).unwrap()[..48].to_vec();
    assert_ne!(first(&mut encoder, &text), first(&mut encoder, &other));
}

#[test]
fn states_and_vectors_are_those_of_the_naive_forward() {
    let relu = ModelSpec { variant: Variant { activation: Activation::Relu, ..spec().variant }, ..spec() };
    for spec in [spec(), wide_spec(), relu] {
        let file = tiny::container(&spec, Widths::Mixed, Layout::Nr8k4);
        let container = opened(&file);
        for length in LENGTHS {
            let tokens = tiny::tokens(&spec, length);
            let states = naive_bert::states(&spec, &|name| naive::rows(&container, name), &tokens);
            let vector = naive_bert::embedding(&spec, &states);
            for (activations, share) in [(ActivationFormat::F32, 1e-5), (ActivationFormat::Int8, 0.1)] {
                let mut memory = memory(&container, length, 0xff);
                let machine = conformance::serial_machine();
                let mut encoder =
                    Encoder::new(&container, machine, length, activations, &mut memory).unwrap();
                conformance::naive::assert_close(encoder.states(&tokens).unwrap(), &states, share);
                let found = encoder.embed(&tokens).unwrap();
                let largest = vector.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
                for (found, expected) in found.iter().zip(&vector) {
                    assert!((f64::from(*found) - expected).abs() <= share * largest, "{found} {expected}");
                }
            }
        }
    }
}

#[test]
fn the_memory_plan_is_exact() {
    for spec in [spec(), wide_spec(), ModelSpec { embedding_bands: 3, ..spec() }] {
        let file = tiny::container(&spec, Widths::Mixed, Layout::Nr8k4);
        let container = opened(&file);
        let machine = conformance::serial_machine();
        for activations in [ActivationFormat::Int8, ActivationFormat::F32] {
            for tokens in LENGTHS {
                let plan = EncoderPlan::new(&container, tokens).unwrap();
                assert_eq!((plan.blocks() * BLOCK_BYTES, plan.tokens()), (plan.bytes(), tokens));
                let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
                let mut encoder =
                    Encoder::new(&container, machine, tokens, activations, &mut memory).unwrap();
                encoder.embed(&tiny::tokens(&spec, tokens)).unwrap();
                let (given_bytes, needed_bytes) = (plan.bytes() - BLOCK_BYTES, plan.bytes());
                let refused =
                    Encoder::new(&container, machine, tokens, activations, &mut memory[1..]).unwrap_err();
                assert_eq!(refused, RuntimeError::Memory { needed_bytes, given_bytes });
            }
        }
    }
}

#[test]
fn what_an_encoder_cannot_do_is_refused() {
    let file = tiny::container(&spec(), Widths::Mixed, Layout::Nr8k4);
    let container = opened(&file);
    let machine = conformance::serial_machine();
    let mut memory = memory(&container, 8, 0);
    let mut encoder = Encoder::new(&container, machine, 8, ActivationFormat::Int8, &mut memory).unwrap();
    assert_eq!(encoder.embed(&[]).unwrap_err(), RuntimeError::NoTokens);
    let vocabulary = spec().vocabulary;
    assert_eq!(encoder.embed(&[1, 263]).unwrap_err(), RuntimeError::Token { found: 263, vocabulary });
    let full = RuntimeError::ContextFull { position: 0, tokens: 9, context: 8 };
    assert_eq!(encoder.embed(&[1; 9]).unwrap_err(), full);
    for tokens in [0, 41] {
        let limit =
            RuntimeError::Limit { name: "tokens of a text", lowest: 1, highest: 40, found: tokens as u64 };
        assert_eq!(EncoderPlan::new(&container, tokens).unwrap_err(), limit);
    }
    // An encoder has no next token, and a decoder no vectors.
    let limits = Limits { context: 4, tile: 2 };
    let kind = |architecture, kind| RuntimeError::Kind { architecture, kind };
    assert_eq!(SessionPlan::new(&container, limits).unwrap_err(), kind("bert", ModelKind::Encoder));
    let session = Session::new(&container, machine, limits, ActivationFormat::Int8, &mut memory);
    assert_eq!(session.unwrap_err(), kind("bert", ModelKind::Encoder));
    let decoder = tiny::container(&tiny::odd_spec(), Widths::Mixed, Layout::Nr8k4);
    let decoder = opened(&decoder);
    assert_eq!(EncoderPlan::new(&decoder, 4).unwrap_err(), kind("llama", ModelKind::Decoder));
    assert!(kind("bert", ModelKind::Encoder).to_string().contains("bert is an encoder"));
}

#[test]
fn the_check_measures_what_it_says() {
    let file = tiny::container(&spec(), Widths::Mixed, Layout::Nr8k4);
    let container = opened(&file);
    let texts = container.check_embeddings().unwrap();
    assert!(container.check_windows().is_none() && texts.texts() > 1);
    let mut memory = memory(&container, texts.longest(), 0xff);
    let machine = conformance::serial_machine();
    let mut encoder =
        Encoder::new(&container, machine, texts.longest(), ActivationFormat::Int8, &mut memory).unwrap();
    let mut tokens = vec![0; texts.longest()];
    let found = measure_embeddings(&mut encoder, &texts, &mut tokens, |_| ()).unwrap();
    let (mut digest, mut distances) = (Sha256::new(), Vec::new());
    for text in 0..texts.texts() {
        let vector = encoder.embed(&texts.tokens(text).collect::<Vec<u32>>()).unwrap();
        digest.update(bytemuck::cast_slice::<f32, u8>(vector));
        let [dot, a, b] = vector.iter().zip(texts.vector(text)).fold([0.0; 3], |[dot, a, b], (x, y)| {
            let (x, y) = (f64::from(*x), f64::from(y));
            [dot + x * y, a + x * x, b + y * y]
        });
        distances.push(1.0 - dot / (a * b).sqrt());
    }
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    let largest = distances.iter().copied().fold(0.0, f64::max);
    assert!((found.mean_distance - mean).abs() < 1e-12 && (found.largest_distance - largest).abs() < 1e-12);
    assert_eq!(found.embeddings_sha256, <[u8; 32]>::from(digest.finalize()));
    let small = measure_embeddings(&mut encoder, &texts, &mut tokens[1..], |_| ()).unwrap_err();
    assert!(matches!(small, RuntimeError::ContextFull { .. }), "{small}");
}
