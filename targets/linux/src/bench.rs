//! `rescomp bench`: tokens a second of prefill and decode, and what they take from memory; of an encoder: `embeddings`, of a classifier: `images`.

mod embeddings;
mod images;
mod transforms;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use rescomp_formats::container::{CheckedContainer, Integrity};
use rescomp_runtime::session::Session;
use serde::Serialize;

use crate::bandwidth::read_bandwidth;
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::BenchFlags;
use crate::machine::{self, Engine, Place};
use crate::mapped;
use crate::output;
use crate::table::Table;
use crate::tensors;
use crate::trust::Trust;
use transforms::Transforms;

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    place: Place,
    repeats: usize,
    prefill: Speed,
    decode: Speed,
    /// Bytes of the matrices that a decoded token runs through.
    weight_bytes_per_token: u64,
    /// Bytes of weights a second in decode, over 10^9.
    decode_gigabytes_per_second: f64,
    /// Bytes a second over 10^9 at which these threads read the container's file: what memory, or the caches that it fits, can give.
    read_gigabytes_per_second: f64,
    /// Hadamard transforms, of a model that was rotated for them.
    transforms: Option<Transforms>,
}

#[derive(Debug, Serialize)]
struct Speed {
    tokens: usize,
    /// The median.
    tokens_per_second: f64,
    slowest: f64,
    fastest: f64,
    /// Weights (rows x columns, once a call) that each kernel processes in one repeat.
    weights_by_kernel: BTreeMap<&'static str, u64>,
}

/// Runs the command.
///
/// # Errors
/// Where the container or the command line is wrong.
pub(crate) fn run(flags: &BenchFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let file = mapped::open(path, flags.machine.load)?;
    let container = Trust::new(&flags.machine.trust)?.open(path, &file, Integrity::Crc)?;
    let engine = Engine::new(&flags.machine, &container)?;
    if let Some(input) = container.manifest().spec.image() {
        return images::run(flags, &container, &engine, input);
    }
    if container.manifest().spec.architecture.is_encoder() {
        return embeddings::run(flags, &container, &engine);
    }
    let most = container.manifest().spec.context as usize;
    let prompt_tokens = flags.prompt_tokens.unwrap_or(128.min(most / 2).max(1));
    let decode_tokens = flags.tokens.unwrap_or(64.min(most.saturating_sub(prompt_tokens)).max(1));
    let limits = machine::limits(prompt_tokens.saturating_add(decode_tokens));
    let mut memory = machine::session_memory(path, &container, limits)?;
    let mut session = machine::session(path, &container, &engine, limits, memory.blocks())?;
    let prompt = tokens(&container, prompt_tokens);
    let following = tokens(&container, decode_tokens);
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..flags.repeats {
        let (prefill_rate, decode_rate) = measure(path, &mut session, &prompt, &following)?;
        prefill.push(prefill_rate);
        decode.push(decode_rate);
    }
    let prefill_weights =
        tensors::weights_processed(&container, engine.kernels(), prompt_tokens, limits.tile);
    let mut decode_weights = tensors::weights_processed(&container, engine.kernels(), 1, 1);
    decode_weights.values_mut().for_each(|weights| *weights *= decode_tokens as u64);
    let decode = speed(decode_tokens, decode, decode_weights);
    let weight_bytes_per_token = container.products().map(|(_, shape, _)| shape.section_bytes() as u64).sum();
    let bandwidth = read_bandwidth(engine.machine().executor, &file);
    let report = Report {
        place: Place::new(path, &engine),
        repeats: flags.repeats,
        prefill: speed(prompt_tokens, prefill, prefill_weights),
        weight_bytes_per_token,
        decode_gigabytes_per_second: weight_bytes_per_token as f64 * decode.tokens_per_second / 1e9,
        read_gigabytes_per_second: bandwidth / 1e9,
        transforms: transforms::time(
            &container.manifest().spec,
            engine.kernels(),
            flags.repeats,
            decode.tokens_per_second,
        ),
        decode,
    };
    output::text(&if flags.json { output::json(&report)? } else { in_words(&report) });
    Ok(Exit::Success)
}

/// Tokens from all over the vocabulary; which ones makes no difference to the speed.
fn tokens(container: &CheckedContainer<'_>, count: usize) -> Vec<u32> {
    let vocabulary = u64::from(container.manifest().spec.vocabulary);
    (0..count as u64).map(|index| (index * 7919 % vocabulary) as u32).collect()
}

/// Tokens a second of one prefill and of the decode after it.
fn measure(
    path: &Path,
    session: &mut Session<'_>,
    prompt: &[u32],
    following: &[u32],
) -> Result<(f64, f64), Error> {
    let failed = |error| Error::input(path, error);
    session.reset();
    let start = Instant::now();
    session.run(prompt).map_err(failed)?;
    let prefill = prompt.len() as f64 / machine::seconds(start.elapsed());
    let start = Instant::now();
    for &token in following {
        session.run(&[token]).map_err(failed)?;
    }
    Ok((prefill, following.len() as f64 / machine::seconds(start.elapsed())))
}

fn speed(tokens: usize, mut rates: Vec<f64>, weights_by_kernel: BTreeMap<&'static str, u64>) -> Speed {
    rates.sort_by(f64::total_cmp);
    let at = |index: usize| rates.get(index).copied().unwrap_or_default();
    let last = rates.len().saturating_sub(1);
    let tokens_per_second = (at(last / 2) + at(last.div_ceil(2))) / 2.0;
    Speed { tokens, tokens_per_second, slowest: at(0), fastest: at(last), weights_by_kernel }
}

fn in_words(report: &Report) -> String {
    let mut speeds = Table::with_header(["phase", "tokens", "tokens a second", "slowest", "fastest"]);
    let mut kernels = Table::with_header(["phase", "kernel", "weights"]);
    for (phase, speed) in [("prefill", &report.prefill), ("decode", &report.decode)] {
        speeds.row([
            phase.to_owned(),
            speed.tokens.to_string(),
            format!("{:.1}", speed.tokens_per_second),
            format!("{:.1}", speed.slowest),
            format!("{:.1}", speed.fastest),
        ]);
        for (kernel, weights) in &speed.weights_by_kernel {
            kernels.row([phase.to_owned(), (*kernel).to_owned(), weights.to_string()]);
        }
    }
    let mut machine = Table::default();
    machine.pair("bytes of weights a token", report.weight_bytes_per_token);
    machine.pair("decode, GB of weights a second", format_args!("{:.3}", report.decode_gigabytes_per_second));
    machine
        .pair("reading the file alone, GB a second", format_args!("{:.3}", report.read_gigabytes_per_second));
    if let Some(Transforms { count, seconds_per_token, share_of_decode }) = report.transforms {
        machine.pair(
            "Hadamard transforms",
            format_args!(
                "{count} a token, {:.1} us, {:.1} % of a decoded token",
                1e6 * seconds_per_token,
                100.0 * share_of_decode
            ),
        );
    }
    report.place.show(&mut machine);
    machine.pair("repeats", report.repeats);
    format!("{speeds}\n{kernels}\n{machine}")
}
