//! The runtime's forward against an independent one in f64 on the same container's weights.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::naive;
use conformance::tiny::{self, Widths};
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::Machine;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;

/// Its rows, or those of an embedding in bands.
fn weights(container: &CheckedContainer<'_>, name: SectionName) -> Vec<Vec<f64>> {
    match container.matrix(name) {
        None if name.kind == SectionKind::Embedding => banded_embedding(container),
        _ => naive::rows(container, name),
    }
}

/// The embedding in the order of tokens: each takes the next row of its band.
fn banded_embedding(container: &CheckedContainer<'_>) -> Vec<Vec<f64>> {
    let band = |band| weights(container, SectionName { kind: SectionKind::Embedding, layer: Some(band) });
    let spec = &container.manifest().spec;
    let mut bands: Vec<_> =
        (0..u16::from(spec.embedding_bands)).map(|number| band(number).into_iter()).collect();
    let rows: Vec<Vec<f64>> = container
        .token_bands()
        .unwrap()
        .iter()
        .map(|&band| bands[usize::from(band)].next().unwrap())
        .collect();
    assert!(bands.iter_mut().all(|band| band.next().is_none()));
    rows
}

#[test]
fn logits_are_those_of_the_naive_forward() {
    let untied_bands = ModelSpec { embedding_bands: 3, ..tiny::odd_spec() };
    let plain = [tiny::odd_spec(), tiny::wide_spec(), tiny::banded_spec(), untied_bands, tiny::online_spec()];
    let corrected = [tiny::odd_spec(), tiny::wide_spec()].map(|spec| (spec, Widths::Corrected));
    for (spec, widths) in plain.map(|spec| (spec, Widths::Mixed)).into_iter().chain(corrected) {
        let file = tiny::container(&spec, widths, Layout::Nr8k4);
        let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
        let corrections =
            container.container().entries().filter(|(name, _)| container.low_rank(*name).is_some()).count();
        assert_eq!(corrections > 0, matches!(widths, Widths::Corrected));
        let turn = std::f64::consts::TAU / 2_f64.powi(64);
        let frequencies: Vec<f64> =
            container.rope_frequencies().iter().map(|&turns| turns as f64 * turn).collect();
        let tokens = tiny::tokens(&spec, 21);
        let expected =
            naive::logits(&spec, &frequencies, &|name| weights(&container, name), &tokens, naive::Cache::F16);
        // A key or value in the middle between two binary16 numbers may be kept as either, which is up to the machine that runs the reference:
        // the corrected model has one on ARM.
        let rounding = if corrections > 0 { 1e-4 } else { 1e-5 };
        for kernels in kernels::available() {
            // f32 activations leave the rounding of floats; int8 ones are off by half of 1/127 of a step's largest, and more after
            // each matrix, which a mistake in the forward would exceed by far.
            for (activations, share) in [(ActivationFormat::F32, rounding), (ActivationFormat::Int8, 0.1)] {
                let machine = Machine { kernels, executor: &Serial };
                let mut memory = conformance::memory(&container, tokens.len(), 5);
                let mut session =
                    conformance::session(&container, machine, tokens.len(), 5, activations, &mut memory);
                let mut found = Vec::new();
                session.run_each(&tokens, |_, logits| found.extend_from_slice(logits)).unwrap();
                naive::assert_close(&found, &expected, share);
            }
        }
    }
}

/// Each narrow width is decoded right: other weights would give other logits.
#[test]
fn narrow_widths_agree_as_well() {
    let spec = tiny::odd_spec();
    for width in CodeWidth::ALL {
        let file = tiny::container(&spec, Widths::All(width), Layout::Rows);
        let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
        let turn = std::f64::consts::TAU / 2_f64.powi(64);
        let frequencies: Vec<f64> =
            container.rope_frequencies().iter().map(|&turns| turns as f64 * turn).collect();
        let tokens = tiny::tokens(&spec, 9);
        let expected =
            naive::logits(&spec, &frequencies, &|name| weights(&container, name), &tokens, naive::Cache::F16);
        let machine = conformance::serial_machine();
        let mut memory = conformance::memory(&container, tokens.len(), 9);
        let mut session =
            conformance::session(&container, machine, tokens.len(), 9, ActivationFormat::F32, &mut memory);
        let mut found = Vec::new();
        session.run_each(&tokens, |_, logits| found.extend_from_slice(logits)).unwrap();
        // A key or value in the middle between two binary16 numbers may be kept as either.
        naive::assert_close(&found, &expected, 2e-4);
    }
}
