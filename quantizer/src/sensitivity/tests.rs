//! Estimates and sizes against the embedded model and a container of it.

use super::*;
use crate::bands::{BANDS, Bands};
use crate::methods::SolverOptions;
use crate::pack::{PackOptions, bytes_without_matrices, pack};
use crate::plan::Vocabulary;
use crate::recipe::Recipe;
use crate::texts;
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::Container;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use std::path::Path;

const POSITIONS: usize = 24;

fn format(bits: u8, group: &str) -> MatrixFormat {
    MatrixFormat::plain(bits, group.parse().unwrap())
}

/// The embedded model in a few formats, on two windows of arbitrary tokens; its embedding whole, or in bands.
fn measured(banded: bool) -> (Checkpoint, PackOptions, Vec<Sensitivity>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let windows: Vec<Vec<u32>> =
        (0..2).map(|w| (0..=POSITIONS as u32).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect()).collect();
    let plan = BlockPlan::new(Method::Rtn, SolverOptions::for_container(3, "64".parse().unwrap()));
    let mut plan = plan.with_head_bits(3);
    if banded {
        plan.vocabulary = Some(Vocabulary {
            bands: Bands::by_frequency(&windows, POSITIONS, checkpoint.spec.vocabulary as usize),
            embedding: vec![format(3, "64"); BANDS],
            head: format(3, "64"),
        });
    }
    let options = PackOptions {
        plan,
        layout: Layout::Nr8k4,
        calibration: windows,
        calibration_positions: POSITIONS,
        check_tokens: (0..512).collect(),
        check_texts: Vec::new(),
        images: None,
        tokenizer: texts::tokenizer_section(&checkpoint).unwrap(),
        chat_template: Default::default(),
        cache: CacheFormat::default(),
        target: "test".to_owned(),
    };
    let formats = [format(2, "row"), format(3, "64"), format(4, "64"), format(4, "32"), format(8, "128")];
    let measurement = Measurement {
        checkpoint: &checkpoint,
        windows: &options.calibration,
        positions: POSITIONS,
        plan: &options.plan,
        layout: options.layout,
        formats: &formats,
        vocabulary_formats: &formats[1..],
    };
    let machine = Machine { kernels: kernels::best(), executor: &Serial };
    let mut heard = Vec::new();
    let found = measure(machine, &measurement, &mut |name| heard.push(name)).unwrap();
    assert_eq!(heard.len(), steps(&measurement));
    assert_eq!(heard, found.iter().map(|matrix| matrix.name).collect::<Vec<_>>());
    (checkpoint, options, found)
}

#[test]
fn more_bits_lose_less_and_sizes_are_those_of_the_file() {
    check(false);
}

#[test]
fn bands_are_measured_and_stored_one_by_one() {
    check(true);
}

fn check(banded: bool) {
    let (checkpoint, mut options, found) = measured(banded);
    let embeddings = if banded { BANDS } else { 1 };
    assert_eq!(found.len(), embeddings + 7 * 6);
    let weights: u64 = found[..embeddings].iter().map(|matrix| matrix.weights).sum();
    assert_eq!(weights, 1024 * 128);
    for matrix in &found {
        assert!(matrix.mean_kl > 0.0 && matrix.mean_kl < 10.0, "{}: {}", matrix.name, matrix.mean_kl);
        let losses: Vec<(u8, f64)> =
            matrix.formats.iter().map(|(format, candidate)| (format.bits, candidate.loss)).collect();
        for (&(bits, loss), &(more_bits, less)) in losses.iter().zip(&losses[1..]) {
            assert!(bits == more_bits || less < 0.7 * loss, "{}: {losses:?}", matrix.name);
        }
        // By the definition: the format that was tried costs what was measured.
        let tried = matrix.formats.iter().find(|(tried, _)| *tried == format(3, "64")).unwrap();
        assert!((tried.1.loss / matrix.mean_kl - 1.0).abs() < 1e-9);
    }

    // A container with other formats for every matrix.
    let chosen = |index: usize| found[index].formats[index % found[index].formats.len()];
    let matrices = (0..found.len()).map(|index| (found[index].name.to_string(), chosen(index).0)).collect();
    let recipe = Recipe { default: format(3, "64"), matrices };
    options.plan.formats = recipe.block_formats(&checkpoint.spec);
    options.plan.vocabulary = Some(Vocabulary {
        bands: options.plan.vocabulary.take().and_then(|formats| formats.bands),
        embedding: found[..embeddings].iter().map(|matrix| recipe.format(matrix.name)).collect(),
        head: format(3, "64"),
    });
    let machine = Machine { kernels: kernels::best(), executor: &Serial };
    let packed = pack(machine, &checkpoint, &options, &mut |_| ()).unwrap();
    let container = Container::open(&packed.file).unwrap();
    let mut matrices = 0;
    for (index, matrix) in found.iter().enumerate() {
        let (_, entry) = container.entries().find(|(name, _)| *name == matrix.name).unwrap();
        let bytes = chosen(index).1.bytes;
        assert_eq!(entry.length_bytes.next_multiple_of(64), bytes, "{}", matrix.name);
        matrices += bytes;
    }
    // What else the file has is known before; the last section has no padding, the manifest may be shorter by some digits.
    let others = bytes_without_matrices(&checkpoint, &options, packed.file.len()).unwrap();
    let file = packed.file.len() as u64;
    assert!(
        file <= matrices + others.all && matrices + others.all <= file + 192,
        "{matrices} {others:?} {file}"
    );
    assert_eq!(others.weights, 4 * 128 * (2 * 6 + 1) + if banded { 1024 } else { 0 });
}
