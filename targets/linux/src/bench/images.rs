//! `rescomp bench` of a classifier: images a second.

use std::time::Instant;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::image_input::ImageInput;
use rescomp_runtime::models::vit::Pixels;
use serde::Serialize;

use super::{Speed, speed};
use crate::classifier;
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::BenchFlags;
use crate::machine::{self, Engine, Place};
use crate::output;
use crate::table::Table;
use crate::tensors;

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    place: Place,
    repeats: usize,
    /// The median.
    milliseconds_per_image: f64,
    image: Speed,
}

/// Runs the command.
///
/// # Errors
/// Where the command line is wrong, or the model does not run.
pub(super) fn run(
    flags: &BenchFlags,
    container: &CheckedContainer<'_>,
    engine: &Engine,
    input: &ImageInput,
) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    if flags.tokens.is_some() || flags.prompt_tokens.is_some() {
        let architecture = container.manifest().spec.architecture.name();
        return Err(Error::usage(format!(
            "--tokens, --prompt-tokens: {architecture} is a classifier, whose images have as many tokens as they have"
        )));
    }
    let tokens = input.tokens() as usize;
    let mut memory = classifier::memory(path, container)?;
    let mut classifier = classifier::classifier(path, container, engine, &mut memory)?;
    let rgb: Vec<u8> = (0..input.elems()).map(|at| (at * 7919 % 251) as u8).collect();
    let mut rates = Vec::new();
    for _ in 0..flags.repeats {
        let start = Instant::now();
        classifier
            .classify(Pixels::Bytes { rgb: &rgb, repeat: 1 })
            .map_err(|error| Error::input(path, error))?;
        rates.push(tokens as f64 / machine::seconds(start.elapsed()));
    }
    let weights = tensors::weights_processed(container, engine.kernels(), tokens, tokens);
    let image = speed(tokens, rates, weights);
    let report = Report {
        place: Place::new(path, engine),
        repeats: flags.repeats,
        milliseconds_per_image: 1e3 * tokens as f64 / image.tokens_per_second,
        image,
    };
    output::text(&if flags.json { output::json(&report)? } else { in_words(&report) });
    Ok(Exit::Success)
}

fn in_words(report: &Report) -> String {
    let mut table = Table::default();
    table.pair("milliseconds an image", format_args!("{:.2}", report.milliseconds_per_image));
    let tokens = report.image.tokens;
    table.pair(
        "tokens a second",
        format_args!("{:.1}, images of {tokens} tokens", report.image.tokens_per_second),
    );
    table.pair("slowest", format_args!("{:.1}", report.image.slowest));
    table.pair("fastest", format_args!("{:.1}", report.image.fastest));
    for (kernel, weights) in &report.image.weights_by_kernel {
        table.pair("weights by kernel", format_args!("{weights}, {kernel}"));
    }
    report.place.show(&mut table);
    table.pair("repeats", report.repeats);
    table.to_string()
}
