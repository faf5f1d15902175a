//! The same container and tokens give the same logits, bit for bit, with every kernel table, thread count, prefill split and
//! layout, on every kind of machine: the digests below were computed on x86-64, and the emulated ARM processors must find them.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use bytemuck::Zeroable;
use conformance::tiny::{self, Widths};
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::{Architecture, ModelSpec};
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels::{self, Kernels};
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{BLOCK_BYTES, MemoryBlock};
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use rescomp_runtime::threads::ThreadPool;
use sha2::{Digest, Sha256};

/// Positions of every sequence here: no multiple of any tile but 1 and itself.
const POSITIONS: usize = 23;
const TILES: [usize; 6] = [1, 2, 3, 7, 16, POSITIONS];

const ODD_INT8: &str = "e32495ec8986668c7294996d0cbe5ff0d1537db1b21ab7e96a0bdcf4d74285d0";
const ODD_F32: &str = "f48c91e38bfefa46443f097b196361393d39e576643a39660f4b4bb4a9251366";
const CORRECTED_ODD_INT8: &str = "b6b42560242d3eb720cab420a3c801b2a03260fd6290ea316d08f011d861b121";
const CORRECTED_ODD_F32: &str = "1434e03eb3da0b1ebe1a75819f6409924a07b2bc7aff9757599d298ed60e9d6c";
const CORRECTED_WIDE_INT8: &str = "7e36e252ce8c67f9b7777c4535e427fd870f9fb2d39c5b902f783e890ef6a192";
const CORRECTED_WIDE_F32: &str = "e3990164a325c5fade4c10e471e08aa8c499bea5fec10e95b4a52d9f6276ea99";
const WIDE_INT8: &str = "3d9ad8cc15c93a8554135d56b6e71f6fbf6f84032561367321511ba799deecf5";
const WIDE_F32: &str = "f6bb62400827e3d6c9ed0ac86a059a35eaf9ce95c15a0401f02dac68f881edf5";
const INT2_INT8: &str = "b9bf7d84cf3bf2c6a5aa029dedcd5af99066e5c124ba6867173d2cc295138854";
const INT3_INT8: &str = "eebf2904817b66abfbf1aab55eb5a38458a8aae7745d38e24ef7ee73849497ed";
const INT4_INT8: &str = "f1fdc2bd0b53dc510d11e3d84eeb590720d73acd0de3db54aa18ea517b4c0b1a";

const INT5_INT8: &str = "bcbc304a72e4e2886a1ae2c7034141c1f96976d16462c5024c3c32a7febf92c1";
const INT6_INT8: &str = "78d6e4ba2000d1f164e89e0399afcba1de862d0a6075e5b847ddabc38dd7a98f";
const BANDED_INT8: &str = "b19d74e6ebf4df7cb9e88d1e340719b0b5085cb06a158930ebfd6aada20b04f0";
const BANDED_F32: &str = "dd1f7fc2a9092f162ac8467241d137988e2bb40fefc91f29ee537bf7116a263a";
const ONLINE_INT8: &str = "0b2735d4617c062d7f215f5b7dfa0ca306f1261f4b598c68ce1060bc0f6b8e24";
const ONLINE_F32: &str = "b839c828b7a91101bb97d633b10760cd3cabd3885f97f6a52d7f6749ca7e02b2";
const UNTIED_BANDS_INT8: &str = "a387653b23c8bb98bc3715d3411a19ce207e4a77a1bae070de7e2a5c9aaa0277";

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of the logits of all positions, run in tiles, in memory that holds `garbage`.
fn digest(
    container: &CheckedContainer<'_>,
    machine: Machine<'_>,
    activations: ActivationFormat,
    tile: usize,
    garbage: u8,
) -> String {
    let mut memory = conformance::memory(container, POSITIONS, tile);
    memory.fill(MemoryBlock([garbage; BLOCK_BYTES as usize]));
    let mut session = conformance::session(container, machine, POSITIONS, tile, activations, &mut memory);
    let tokens = tiny::tokens(&container.manifest().spec, POSITIONS);
    let mut digest = Sha256::new();
    let mut positions = 0;
    session
        .run_each(&tokens, |_, logits| {
            assert!(logits.iter().all(|logit| logit.is_finite()));
            digest.update(bytemuck::cast_slice::<f32, u8>(logits));
            positions += 1;
        })
        .unwrap();
    assert_eq!(positions, POSITIONS);
    hexadecimal(&digest.finalize())
}

/// Runs a spec with both layouts, every table, one to three threads, and in all tiles.
#[track_caller]
fn check(spec: &ModelSpec, widths: Widths, activations: ActivationFormat, expected: &str) {
    let pools: Vec<ThreadPool> = (1..=3).map(|threads| ThreadPool::new(threads).unwrap()).collect();
    for layout in Layout::ALL {
        let file = tiny::container(spec, widths, layout);
        let container = Container::open(&file).unwrap().check(Integrity::Digest).unwrap();
        for kernels in kernels::available() {
            for (pool, threads) in pools.iter().zip(1..) {
                let machine = Machine { kernels, executor: pool };
                // Threads split rows and heads, whatever the tile: two tiles stand for all.
                for &tile in TILES.iter().filter(|&&tile| threads == 1 || [1, 16].contains(&tile)) {
                    let found = digest(&container, machine, activations, tile, 0);
                    assert_eq!(
                        found,
                        expected,
                        "{activations:?}, layout {}, kernels {}, {threads} threads, tiles of {tile}",
                        layout.name(),
                        kernels.name
                    );
                }
            }
        }
    }
}

/// Of a tiny model of each decoder, in the order of `Architecture::ALL`. (Encoders: encoders.rs.)
const ARCHITECTURES: [&str; 10] = [
    "45273c30a83f159536918733ce4c8ad68ebf6a5788f67c5189aa5441117874cc",
    "f143f280d5589ddd3b07bac25710fe7bc297ae1aedce733f32137009ec187e90",
    "87a5d158f251fe891827ace1fec0598abd328eec8e8127fc1cc66a445ee6150c",
    "8fe501a38b6fc84b4b31cc9c8755ecd4afcf8a1de233932141ba26c7f8be1954",
    "0c408b406a8a1ce786ec92a5f61b50bd5a5a0facebb55773a3aaf8103313776f",
    "79bf72ed805f3109ba9a915cef8c6b2e6e6fd750ae43c8376f92b39af791a215",
    "aa0d9bedbdb89acbd2011da4441edccc9fed6ee43f61e1dc7bb859aad5b6b633",
    "514cd7dd41155eff1532359d8a258970dd42de004538bc3567f7fcac35701e62",
    "8b0b1f1b9a72a45d7fc441b67ca7dabebecdebd69553a80144153897b4d0c0e4",
    "e3e2d2a49b9dbcd4f7258b59620145dc1f184f8310a3ef49a3104c6152478458",
];

fn decoders() -> [Architecture; ARCHITECTURES.len()] {
    let all = Architecture::ALL.into_iter().filter(|architecture| architecture.is_decoder());
    all.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn every_architecture() {
    let pool = ThreadPool::new(2).unwrap();
    let files: [_; ARCHITECTURES.len()] =
        decoders().map(|of| tiny::container(&tiny::architecture_spec(of), Widths::Mixed, Layout::Nr8k4));
    let containers =
        files.each_ref().map(|file| Container::open(file).unwrap().check(Integrity::Digest).unwrap());
    for kernels in kernels::available() {
        for tile in TILES {
            let machine = Machine { kernels, executor: if tile % 2 == 1 { &Serial } else { &pool } };
            let found =
                containers.each_ref().map(|of| digest(of, machine, ActivationFormat::Int8, tile, 0xff));
            assert_eq!(found, ARCHITECTURES, "kernels {}, tiles of {tile}", kernels.name);
        }
    }
}

#[test]
fn low_rank_corrections_with_int8_activations() {
    check(&tiny::odd_spec(), Widths::Corrected, ActivationFormat::Int8, CORRECTED_ODD_INT8);
    check(&tiny::wide_spec(), Widths::Corrected, ActivationFormat::Int8, CORRECTED_WIDE_INT8);
}

#[test]
fn low_rank_corrections_with_f32_activations() {
    check(&tiny::odd_spec(), Widths::Corrected, ActivationFormat::F32, CORRECTED_ODD_F32);
    check(&tiny::wide_spec(), Widths::Corrected, ActivationFormat::F32, CORRECTED_WIDE_F32);
}

#[test]
fn odd_shapes_with_int8_activations() {
    check(&tiny::odd_spec(), Widths::Mixed, ActivationFormat::Int8, ODD_INT8);
}

#[test]
fn odd_shapes_with_f32_activations() {
    check(&tiny::odd_spec(), Widths::Mixed, ActivationFormat::F32, ODD_F32);
}

#[test]
fn rows_longer_than_a_step_with_int8_activations() {
    check(&tiny::wide_spec(), Widths::Mixed, ActivationFormat::Int8, WIDE_INT8);
}

#[test]
fn rows_longer_than_a_step_with_f32_activations() {
    check(&tiny::wide_spec(), Widths::Mixed, ActivationFormat::F32, WIDE_F32);
}

#[test]
fn transforms_of_the_forward() {
    check(&tiny::online_spec(), Widths::Mixed, ActivationFormat::Int8, ONLINE_INT8);
    check(&tiny::online_spec(), Widths::Mixed, ActivationFormat::F32, ONLINE_F32);
}

#[test]
fn each_narrow_width_alone() {
    check(&tiny::odd_spec(), Widths::All(CodeWidth::Int2), ActivationFormat::Int8, INT2_INT8);
    check(&tiny::odd_spec(), Widths::All(CodeWidth::Int3), ActivationFormat::Int8, INT3_INT8);
    check(&tiny::odd_spec(), Widths::All(CodeWidth::Int4), ActivationFormat::Int8, INT4_INT8);
    check(&tiny::odd_spec(), Widths::All(CodeWidth::Int5), ActivationFormat::Int8, INT5_INT8);
    check(&tiny::odd_spec(), Widths::All(CodeWidth::Int6), ActivationFormat::Int8, INT6_INT8);
}

/// A head of its own, and an embedding in bands that is only looked up.
fn untied_bands_spec() -> ModelSpec {
    ModelSpec { embedding_bands: 3, ..tiny::odd_spec() }
}

#[test]
fn an_embedding_in_bands_with_int8_activations() {
    check(&tiny::banded_spec(), Widths::Mixed, ActivationFormat::Int8, BANDED_INT8);
    check(&untied_bands_spec(), Widths::Mixed, ActivationFormat::Int8, UNTIED_BANDS_INT8);
}

#[test]
fn an_embedding_in_bands_with_f32_activations() {
    check(&tiny::banded_spec(), Widths::Mixed, ActivationFormat::F32, BANDED_F32);
}

/// Where bands have one encoding and hold the rows of one matrix, the logits are those of that matrix.
#[test]
fn bands_change_no_logit() {
    for spec in [tiny::banded_spec(), untied_bands_spec()] {
        let one = ModelSpec { embedding_bands: 1, ..spec.clone() };
        for width in CodeWidth::ALL {
            for activations in [ActivationFormat::Int8, ActivationFormat::F32] {
                let of = |spec: &ModelSpec| {
                    let file = tiny::container(spec, Widths::All(width), Layout::Nr8k4);
                    let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
                    digest(&container, conformance::serial_machine(), activations, 7, 0xff)
                };
                assert_eq!(of(&spec), of(&one), "{width:?}, {activations:?}, tied: {}", spec.tied_head);
            }
        }
    }
}

#[test]
fn what_the_memory_held_before_does_not_count() {
    let serial = |kernels: &'static Kernels| Machine { kernels, executor: &Serial };
    for (activations, expected) in [(ActivationFormat::Int8, ODD_INT8), (ActivationFormat::F32, ODD_F32)] {
        for layout in Layout::ALL {
            let file = tiny::container(&tiny::odd_spec(), Widths::Mixed, layout);
            let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
            for kernels in kernels::available() {
                for tile in [1, 7] {
                    // 0xff in every byte is a NaN in every f32.
                    let found = digest(&container, serial(kernels), activations, tile, 0xff);
                    assert_eq!(found, expected, "kernels {}, tiles of {tile}", kernels.name);
                }
            }
        }
    }
}

#[test]
fn a_session_that_was_used_before_gives_the_same_after_a_reset() {
    let file = tiny::container(&tiny::odd_spec(), Widths::Mixed, Layout::Nr8k4);
    let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
    let machine = conformance::serial_machine();
    let mut memory = conformance::memory(&container, POSITIONS, 4);
    let mut session =
        conformance::session(&container, machine, POSITIONS, 4, ActivationFormat::Int8, &mut memory);
    let tokens = tiny::tokens(&tiny::odd_spec(), POSITIONS);
    let first = session.run(&tokens).unwrap().to_vec();
    session.reset();
    // An answer follows a prompt: a part at once, then token by token.
    session.run(&tokens[..9]).unwrap();
    let mut last = Vec::new();
    for token in &tokens[9..] {
        last = session.run(&[*token]).unwrap().to_vec();
    }
    assert_eq!(last, first);
}

#[test]
fn the_memory_plan_is_exact() {
    let specs =
        [tiny::odd_spec(), tiny::wide_spec(), tiny::banded_spec(), untied_bands_spec(), tiny::online_spec()];
    for spec in specs.into_iter().chain(decoders().map(tiny::architecture_spec)) {
        let file = tiny::container(&spec, Widths::Mixed, Layout::Nr8k4);
        let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
        let machine = conformance::serial_machine();
        for activations in [ActivationFormat::Int8, ActivationFormat::F32] {
            for tile in TILES {
                for context in [tile, spec.context as usize] {
                    let limits = Limits { context, tile };
                    let plan = SessionPlan::new(&container, limits).unwrap();
                    let blocks = plan.blocks() as usize;
                    assert_eq!(blocks as u64 * BLOCK_BYTES, plan.bytes());
                    let mut memory = vec![MemoryBlock::zeroed(); blocks];
                    let mut session =
                        Session::new(&container, machine, limits, activations, &mut memory).unwrap();
                    let tokens = tiny::tokens(&spec, context);
                    session.run(&tokens).unwrap();
                    let full = session.run(&tokens[..1]).unwrap_err();
                    assert!(matches!(full, RuntimeError::ContextFull { .. }), "{full}");
                    let (given_bytes, needed_bytes) = (plan.bytes() - BLOCK_BYTES, plan.bytes());
                    let refused =
                        Session::new(&container, machine, limits, activations, &mut memory[1..]).unwrap_err();
                    assert_eq!(refused, RuntimeError::Memory { needed_bytes, given_bytes });
                }
            }
        }
    }
}

#[test]
fn bands_take_memory_where_they_are_the_head() {
    let limits = Limits { context: 4, tile: 2 };
    let scratch = |spec: &ModelSpec| {
        let file = tiny::container(spec, Widths::All(CodeWidth::Int4), Layout::Nr8k4);
        let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
        SessionPlan::new(&container, limits).unwrap().scratch_bytes
    };
    for (spec, more) in [(tiny::banded_spec(), (269 * 4_u64).next_multiple_of(64)), (untied_bands_spec(), 0)]
    {
        let one = ModelSpec { embedding_bands: 1, ..spec.clone() };
        assert_eq!(scratch(&spec), scratch(&one) + more);
    }
}

/// `cargo xtask test` says which processor it emulates. Slower kernels than that processor has would pass everything else.
#[test]
fn the_kernels_are_those_of_the_processor() {
    let names: Vec<&str> = kernels::available().map(|kernels| kernels.name).collect();
    assert_eq!(names[0], "scalar");
    match std::env::var("RESCOMP_EMULATED_CPU").as_deref() {
        Ok("cortex-a53" | "cortex-a72") => assert_eq!(names, ["scalar", "neon"]),
        Ok("cortex-a76") => assert_eq!(names, ["scalar", "neon", "neon_dotprod"]),
        Ok("max") => assert_eq!(names, ["scalar", "neon", "neon_dotprod", "neon_i8mm"]),
        _ if std::env::consts::ARCH == "aarch64" => assert!(names.contains(&"neon")),
        _ => {}
    }
}
