//! `rescomp bench` of an encoder: tokens a second of texts that run at once.

use std::time::Instant;

use rescomp_formats::container::CheckedContainer;
use serde::Serialize;

use super::{Speed, speed, tokens};
use crate::embedder;
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
    text: Speed,
}

/// Runs the command.
///
/// # Errors
/// Where the command line is wrong, or the model does not run.
pub(super) fn run(
    flags: &BenchFlags,
    container: &CheckedContainer<'_>,
    engine: &Engine,
) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    if flags.tokens.is_some() {
        let architecture = container.manifest().spec.architecture.name();
        return Err(Error::usage(format!(
            "--tokens: {architecture} is an encoder and has no next token: nothing is decoded"
        )));
    }
    let most = embedder::most_tokens(container);
    let length = flags.prompt_tokens.unwrap_or(128.min(most / 2).max(1));
    let mut memory = embedder::memory(path, container, length)?;
    let mut encoder = embedder::encoder(path, container, engine, length, &mut memory)?;
    let text = tokens(container, length);
    let mut rates = Vec::new();
    for _ in 0..flags.repeats {
        let start = Instant::now();
        encoder.embed(&text).map_err(|error| Error::input(path, error))?;
        rates.push(length as f64 / machine::seconds(start.elapsed()));
    }
    let weights = tensors::weights_processed(container, engine.kernels(), length, length);
    let report = Report {
        place: Place::new(path, engine),
        repeats: flags.repeats,
        text: speed(length, rates, weights),
    };
    output::text(&if flags.json { output::json(&report)? } else { in_words(&report) });
    Ok(Exit::Success)
}

fn in_words(report: &Report) -> String {
    let mut table = Table::default();
    let tokens = report.text.tokens;
    table.pair(
        "tokens a second",
        format_args!("{:.1}, texts of {tokens} tokens", report.text.tokens_per_second),
    );
    table.pair("slowest", format_args!("{:.1}", report.text.slowest));
    table.pair("fastest", format_args!("{:.1}", report.text.fastest));
    for (kernel, weights) in &report.text.weights_by_kernel {
        table.pair("weights by kernel", format_args!("{weights}, {kernel}"));
    }
    report.place.show(&mut table);
    table.pair("repeats", report.repeats);
    table.to_string()
}
