//! `pack --target-bpw`, `--max-bytes` and `--recipe`: bits and groups that differ from matrix to matrix.

use std::collections::BTreeMap;
use std::path::Path;

use rescomp_formats::container::SIGNATURE_BYTES;
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_quantizer::allocate::Candidate;
use rescomp_quantizer::bands::{BANDS, Bands};
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::distribute::{self, DistributeError, Distribution};
use rescomp_quantizer::methods::GroupSize;
use rescomp_quantizer::pack::{PackOptions, bytes_without_matrices};
use rescomp_quantizer::plan::{MatrixFormat, Vocabulary};
use rescomp_quantizer::recipe::Recipe;
use rescomp_quantizer::sensitivity::{self, Measurement, Sensitivity};
use rescomp_quantizer::trial::Trials;
use rescomp_runtime::Machine;
use serde::Serialize;

use crate::error::Error;
use crate::flags::PackFlags;
use crate::{host, output};

/// Formats that are tried: bits, and groups. The more bits, the less is to be gained by another group size.
const FORMATS: [(u8, &[&str]); 6] = [
    (2, &["32", "64", "128", "row"]),
    (3, &["32", "64", "128", "row"]),
    (4, &["32", "64", "128", "row"]),
    (5, &["32", "64", "128"]),
    (6, &["32", "64", "128"]),
    (8, &["128"]),
];

/// The most bits with which corrections are tried: beyond, little is left to correct.
const CORRECTED_BITS: u8 = 4;

/// A matrix in the plan.
#[derive(Debug, Serialize)]
struct Planned {
    matrix: String,
    weights: u64,
    #[serde(flatten)]
    format: MatrixFormat,
    bytes: u64,
    /// Mean KL divergence that it was estimated to cause by itself, nats a token.
    estimated_kl: f64,
}

/// How the bytes were distributed.
#[derive(Debug, Serialize)]
pub(crate) struct Allocation {
    /// Bytes for all matrices.
    budget_bytes: u64,
    /// What they take.
    bytes: u64,
    /// What trials said, where there were any.
    trials: Option<TrialFigures>,
    matrices: Vec<Planned>,
}

/// What trial quantizations of the whole model said.
#[derive(Debug, Serialize)]
struct TrialFigures {
    /// Mean KL divergence of what the estimates chose.
    estimated_kl: f64,
    /// Mean KL divergence of what is used.
    chosen_kl: f64,
    /// How many times as much as estimated the matrices of a kind cost.
    factors: BTreeMap<&'static str, f64>,
}

/// The formats of all matrices, where the flags ask for other than the same ones; `options` get them. `None` where a recipe or
/// nothing was given.
///
/// # Errors
/// `Exit::Input` for a recipe that is none for this model and for too few bytes, `Exit::Disk` for a recipe that cannot be read,
/// `Exit::Failed` for a model that cannot be run.
pub(crate) fn plan(
    machine: Machine<'_>,
    flags: &PackFlags,
    checkpoint: &Checkpoint,
    options: &mut PackOptions,
) -> Result<Option<Allocation>, Error> {
    if let Some(path) = &flags.recipe {
        apply(&read(path, checkpoint)?, checkpoint, options);
        return Ok(None);
    }
    let budget_bytes = match (flags.target_bpw, flags.max_bytes) {
        (None, None) => return Ok(None),
        (Some(bits), _) => (bits * checkpoint.parameters() as f64 / 8.0) as u64,
        (None, Some(bytes)) => bytes.saturating_sub(flags.sign.iter().len() as u64 * SIGNATURE_BYTES as u64),
    };
    let format = MatrixFormat::plain(flags.bits, flags.group_size.into());
    if let Some(bands) = bands(checkpoint, options) {
        let embedding = vec![format; BANDS];
        options.plan.vocabulary = Some(Vocabulary { bands: Some(bands), embedding, head: format });
    }
    let parts = bytes_without_matrices(checkpoint, options, budget_bytes as usize)
        .map_err(|error| Error::input(error.to_string()))?;
    // A file is everything; bits a weight count what counts as weights.
    let others = if flags.target_bpw.is_some() { parts.weights } else { parts.all };
    let budget_bytes = budget_bytes.saturating_sub(others);
    let windows = flags.sensitivity_windows.min(options.calibration.len());
    let measured = measure(machine, checkpoint, options, windows, &flags.low_rank)?;
    let (chosen, trials) = choose(machine, checkpoint, options, &measured, budget_bytes)
        .map_err(|error| error.remedy(format!("{others} bytes are needed for everything else")))?;
    let mut recipe = Recipe { default: format, matrices: BTreeMap::new() };
    let mut planned = Vec::new();
    for (matrix, at) in measured.iter().zip(chosen) {
        let (format, Candidate { bytes, loss }) = matrix.formats[at];
        recipe.matrices.insert(matrix.name.to_string(), format);
        let (name, weights) = (matrix.name.to_string(), matrix.weights);
        planned.push(Planned { matrix: name, weights, format, bytes, estimated_kl: loss });
    }
    apply(&recipe, checkpoint, options);
    let bytes = planned.iter().map(|matrix| matrix.bytes).sum();
    let allocation = Allocation { budget_bytes, bytes, trials, matrices: planned };
    if !flags.json {
        print(&allocation);
    }
    Ok(Some(allocation))
}

/// The index of each matrix's format, and what trials said.
fn choose(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    measured: &[Sensitivity],
    budget_bytes: u64,
) -> Result<(Vec<usize>, Option<TrialFigures>), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::failed(format!("distributing bits: {error}"));
    let too_small = |error: &dyn std::fmt::Display| Error::input(format!("distributing bits: {error}"));
    // Found out before the trials, which take a while.
    let estimated = distribute::by_estimates(measured, budget_bytes).map_err(|error| too_small(&error))?;
    let trials = Trials::new(machine, checkpoint, &options.calibration, options.calibration_positions)
        .map_err(|error| failed(&error))?;
    let Some(trials) = trials else { return Ok((estimated, None)) };
    let bar = host::progress("trials", distribute::steps(measured));
    let mut progress = |name: &str| {
        bar.set_message(name.to_owned());
        bar.inc(1);
    };
    let found = distribute::distribute(&trials, &options.plan, measured, budget_bytes, &mut progress);
    bar.finish_and_clear();
    let Distribution { chosen, trial_kl: (estimated_kl, chosen_kl), factors } =
        found.map_err(|error| match error {
            DistributeError::TooSmall(error) => too_small(&error),
            DistributeError::Trial(error) => failed(&error),
        })?;
    Ok((chosen, Some(TrialFigures { estimated_kl, chosen_kl, factors })))
}

/// The formats that a container was packed with, as a recipe that makes them again.
///
/// # Errors
/// `Exit::Failed`.
pub(crate) fn recipe_of(checkpoint: &Checkpoint, options: &PackOptions) -> Result<String, Error> {
    let plan = &options.plan;
    let mut matrices: BTreeMap<String, MatrixFormat> = plan
        .formats
        .iter()
        .map(|((layer, kind), format)| (format!("layer {layer} {kind}"), *format))
        .collect();
    if let Some(vocabulary) = &plan.vocabulary {
        let kind = entry(checkpoint);
        for (band, format) in vocabulary.embedding_matrices() {
            let name = SectionName { kind, layer: band.map(u16::from) };
            matrices.insert(name.to_string(), format);
        }
        if !checkpoint.spec.tied_head {
            matrices.insert("head".to_owned(), vocabulary.head);
        }
    }
    let default = MatrixFormat { bits: plan.options.bits, group: plan.options.group, rank: plan.rank };
    Recipe { default, matrices }.to_toml().map_err(|error| Error::failed(error.to_string()))
}

fn read(path: &Path, checkpoint: &Checkpoint) -> Result<Recipe, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::disk("read", path, &error))?;
    Recipe::parse(&text, &checkpoint.spec)
        .map_err(|error| Error::input(format!("{}: {error}", path.display())))
}

fn apply(recipe: &Recipe, checkpoint: &Checkpoint, options: &mut PackOptions) {
    options.plan.options.bits = recipe.default.bits;
    options.plan.options.group = recipe.default.group;
    options.plan.rank = recipe.default.rank;
    options.plan.formats = recipe.block_formats(&checkpoint.spec);
    let bands = if recipe.is_banded() { bands(checkpoint, options) } else { None };
    let format = |kind, layer| recipe.format(SectionName { kind, layer });
    let embedding = match bands {
        None => vec![format(entry(checkpoint), None)],
        Some(_) => (0..BANDS as u16).map(|band| format(SectionKind::Embedding, Some(band))).collect(),
    };
    options.plan.vocabulary = Some(Vocabulary { bands, embedding, head: format(SectionKind::Head, None) });
}

/// The matrix in front of the blocks.
fn entry(checkpoint: &Checkpoint) -> SectionKind {
    match checkpoint.spec.architecture.is_classifier() {
        true => SectionKind::Patches,
        false => SectionKind::Embedding,
    }
}

/// The bands of the embedding by the calibration text.
fn bands(checkpoint: &Checkpoint, options: &PackOptions) -> Option<Bands> {
    let vocabulary = checkpoint.spec.vocabulary as usize;
    Bands::by_frequency(&options.calibration, options.calibration_positions, vocabulary)
}

fn measure(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    windows: usize,
    ranks: &[u32],
) -> Result<Vec<Sensitivity>, Error> {
    let group = |name: &str| name.parse::<GroupSize>().map_err(|error| Error::failed(error.to_string()));
    let mut formats = Vec::new();
    for (bits, groups) in FORMATS {
        for name in groups {
            formats.push(MatrixFormat::plain(bits, group(name)?));
        }
    }
    let vocabulary_formats = formats.clone();
    for &rank in ranks.iter().filter(|rank| **rank > 0) {
        let corrected = vocabulary_formats.iter().filter(|format| format.bits <= CORRECTED_BITS);
        formats.extend(corrected.map(|format| MatrixFormat { rank, ..*format }));
    }
    let measurement = Measurement {
        checkpoint,
        windows: &options.calibration[..windows],
        positions: options.calibration_positions,
        plan: &options.plan,
        layout: options.layout,
        formats: &formats,
        vocabulary_formats: &vocabulary_formats,
    };
    let bar = host::progress("measuring sensitivities", sensitivity::steps(&measurement));
    let measured = sensitivity::measure(machine, &measurement, &mut |name| {
        bar.set_message(name.to_string());
        bar.inc(1);
    });
    bar.finish_and_clear();
    measured.map_err(|error| Error::failed(format!("measuring sensitivities: {error}")))
}

fn print(allocation: &Allocation) {
    let Allocation { budget_bytes, bytes, trials, matrices } = allocation;
    output::line(&format!("bits distributed: {bytes} of {budget_bytes} bytes for the matrices"));
    output::line(&format!(
        "{:<20} {:>10} {:>5} {:>6} {:>5} {:>10} {:>13}",
        "matrix", "weights", "bits", "group", "rank", "bytes", "estimated KL"
    ));
    for Planned { matrix, weights, format, bytes, estimated_kl } in matrices {
        let (bits, group, rank) = (format.bits, format.group.to_string(), format.rank);
        output::line(&format!(
            "{matrix:<20} {weights:>10} {bits:>5} {group:>6} {rank:>5} {bytes:>10} {estimated_kl:>13.6}"
        ));
    }
    if let Some(TrialFigures { estimated_kl, chosen_kl, factors }) = trials {
        let factors: Vec<String> =
            factors.iter().map(|(kind, factor)| format!("{kind} {factor:.2}")).collect();
        output::line(&format!("trials: KL {estimated_kl:.6} as estimated, {chosen_kl:.6} as chosen"));
        output::line(&format!("cost of a kind over its estimate: {}", factors.join(", ")));
    }
    output::line("");
}
