//! Keys and values kept as int8: the same logits, bit for bit, with every kernel table, thread count and prefill split, and on every kind of machine;
//! near those of binary16; in the memory that the plan says.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use bytemuck::Zeroable;
use conformance::forge::Parts;
use conformance::tiny::{self, Widths};
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::{Architecture, ModelSpec, Variant};
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, BLOCK_BYTES, MemoryBlock};
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use rescomp_runtime::threads::ThreadPool;
use sha2::{Digest, Sha256};

/// Positions of every sequence: more than two blocks of 64, and no multiple of a tile.
const POSITIONS: usize = 139;

/// A model with a longer context than that.
fn long(spec: ModelSpec) -> ModelSpec {
    ModelSpec { context: 144, ..spec }
}

/// Heads of one of the lengths that have code of their own, five queries on two kv heads of 64.
fn heads_of_64() -> ModelSpec {
    let variant = Variant { rotary_dim: 16, ..Variant::plain(64) };
    let spec = ModelSpec { heads: 6, kv_heads: 2, head_dim: 64, variant, ..tiny::odd_spec() };
    long(spec)
}

/// A window that begins in the middle of blocks.
fn windows() -> ModelSpec {
    let spec = tiny::architecture_spec(Architecture::Gemma2);
    let variant = Variant { sliding_window: 70, ..spec.variant.clone() };
    long(ModelSpec { variant, ..spec })
}

fn file(spec: &ModelSpec, cache: CacheFormat) -> AlignedBytes {
    let mut parts = Parts::of(&tiny::container(spec, Widths::Mixed, Layout::Nr8k4));
    parts.change_manifest(|manifest| manifest.cache = cache).unwrap();
    AlignedBytes::new(&parts.assemble())
}

/// The logits of all positions, run in tiles, in memory that holds `garbage`.
fn logits(
    container: &CheckedContainer<'_>,
    machine: Machine<'_>,
    activations: ActivationFormat,
    tile: usize,
    garbage: u8,
) -> Vec<f32> {
    let mut memory = conformance::memory(container, POSITIONS, tile);
    memory.fill(MemoryBlock([garbage; BLOCK_BYTES as usize]));
    let mut session = conformance::session(container, machine, POSITIONS, tile, activations, &mut memory);
    let tokens = tiny::tokens(&container.manifest().spec, POSITIONS);
    let mut all = Vec::new();
    session.run_each(&tokens, |_, logits| all.extend_from_slice(logits)).unwrap();
    assert!(all.iter().all(|logit| logit.is_finite()));
    all
}

fn digest(logits: &[f32]) -> String {
    Sha256::digest(bytemuck::cast_slice::<f32, u8>(logits)).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In the order of the specs.
const EXPECTED: [&str; 4] = [
    "d03382d3178b8769c95664f7636f47d205cc3c0a08864b74018035a08f2406aa",
    "ed4cf4351f83796600da171d84c873ad3591883ead98a880d54bbc3792728957",
    "cb58a24d8765932cd7d58014f5ffd78680dc0fdacb0b7d4b34bd49342a1be119",
    "7c20f1ff3618643727b0a32c579f767e8e3cc7c36101611e8804433acc6014d8",
];

#[test]
fn one_result_on_every_kernel_thread_count_and_tile() {
    let pools: Vec<ThreadPool> = (1..=3).map(|threads| ThreadPool::new(threads).unwrap()).collect();
    let specs = [long(tiny::odd_spec()), long(tiny::wide_spec()), heads_of_64(), windows()];
    let found = specs.map(|spec| {
        let file = file(&spec, CacheFormat::Int8);
        let container = Container::open(&file).unwrap().check(Integrity::Digest).unwrap();
        let expected =
            digest(&logits(&container, conformance::serial_machine(), ActivationFormat::Int8, 1, 0));
        for kernels in kernels::available() {
            for (pool, threads) in pools.iter().zip(1..) {
                let machine = Machine { kernels, executor: pool };
                for &tile in [7, 1, 16, POSITIONS].iter().take(if threads == 1 { 4 } else { 1 }) {
                    // 0xff in every byte is a NaN in every scale, and a code in every number.
                    assert_eq!(
                        digest(&logits(&container, machine, ActivationFormat::Int8, tile, 0xff)),
                        expected,
                        "kernels {}, {threads} threads, tiles of {tile}",
                        kernels.name
                    );
                }
            }
        }
        expected
    });
    assert_eq!(found, EXPECTED);
}

/// Where all else is f32, codes of 8 bits move logits less than int8 activations do.
#[test]
fn logits_are_near_those_of_binary16() {
    for spec in [long(tiny::odd_spec()), long(tiny::wide_spec()), heads_of_64(), windows()] {
        let of = |cache, activations| {
            let file = file(&spec, cache);
            let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
            logits(&container, conformance::serial_machine(), activations, 16, 0)
        };
        let exact = of(CacheFormat::Binary16, ActivationFormat::F32);
        let error = |logits: &[f32]| -> f64 {
            let power = |value: f32| f64::from(value).powi(2);
            let wrong: f64 = exact.iter().zip(logits).map(|(a, b)| power(a - b)).sum();
            (wrong / exact.iter().map(|&value| power(value)).sum::<f64>()).sqrt()
        };
        let of_cache = error(&of(CacheFormat::Int8, ActivationFormat::F32));
        let of_activations = error(&of(CacheFormat::Binary16, ActivationFormat::Int8));
        assert!(
            of_cache > 0.0 && of_cache < of_activations,
            "{of_cache} of the cache, {of_activations} of activations"
        );
    }
}

#[test]
fn the_memory_plan_is_exact_and_about_half() {
    let machine = conformance::serial_machine();
    for spec in [long(tiny::odd_spec()), heads_of_64()] {
        let plan_of = |cache, context| {
            let file = file(&spec, cache);
            let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
            SessionPlan::new(&container, Limits { context, tile: 3 }).unwrap()
        };
        for context in [1, 3, 4, 5, 64, 143, 144] {
            let file = file(&spec, CacheFormat::Int8);
            let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
            let limits = Limits { context, tile: 3 };
            let plan = SessionPlan::new(&container, limits).unwrap();
            let heads = u64::from(spec.layers * spec.kv_heads) * context.next_multiple_of(4) as u64;
            let codes = (heads * u64::from(spec.head_dim)).next_multiple_of(BLOCK_BYTES);
            let scales = (4 * heads).next_multiple_of(BLOCK_BYTES);
            assert_eq!(plan.kv_cache_bytes, 2 * (codes + scales));
            assert_eq!(plan.scratch_bytes, plan_of(CacheFormat::Binary16, context).scratch_bytes);
            let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
            let tokens = tiny::tokens(&spec, context);
            let activations = ActivationFormat::Int8;
            let mut session = Session::new(&container, machine, limits, activations, &mut memory).unwrap();
            session.run(&tokens).unwrap();
            let full = session.run(&tokens[..1]).unwrap_err();
            assert!(matches!(full, RuntimeError::ContextFull { .. }), "{full}");
            let (given_bytes, needed_bytes) = (plan.bytes() - BLOCK_BYTES, plan.bytes());
            let refused =
                Session::new(&container, machine, limits, activations, &mut memory[1..]).unwrap_err();
            assert_eq!(refused, RuntimeError::Memory { needed_bytes, given_bytes });
        }
    }
    let bytes = |cache| {
        let file = file(&heads_of_64(), cache);
        let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
        SessionPlan::new(&container, Limits { context: 144, tile: 1 }).unwrap().kv_cache_bytes
    };
    assert_eq!(bytes(CacheFormat::Int8) * 128, bytes(CacheFormat::Binary16) * 68);
}

#[test]
fn a_session_goes_on_where_it_was_rewound_to() {
    let file = file(&heads_of_64(), CacheFormat::Int8);
    let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
    let mut memory = conformance::memory(&container, POSITIONS, 4);
    let machine = conformance::serial_machine();
    let mut session =
        conformance::session(&container, machine, POSITIONS, 4, ActivationFormat::Int8, &mut memory);
    let tokens = tiny::tokens(&heads_of_64(), POSITIONS);
    let first = session.run(&tokens).unwrap().to_vec();
    // In the middle of a grain of positions: what was kept behind it doesn't count.
    session.rewind(66);
    session.run(&tokens[..50]).unwrap();
    session.rewind(66);
    assert_eq!(session.run(&tokens[66..]).unwrap(), first);
}
