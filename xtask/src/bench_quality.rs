//! `cargo xtask bench quality`: how far the methods' containers are from the full-precision model, on held-out text.
//!
//! ```text
//! run the full-precision model over the held-out windows once
//! for bits x group x method x calibration sample: pack in memory, run the container over the same windows
//! a row: the mean over the calibration samples, and two standard errors of it
//! ```
//! Every container is a whole one, as `pack` writes it, so the table counts what the device will compute.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::evaluate::{Evaluation, Reference, Subject, evaluate};
use rescomp_quantizer::methods::{self, SolverOptions};
use rescomp_quantizer::pack::{PackOptions, pack};
use rescomp_quantizer::plan::BlockPlan;
use rescomp_runtime::Machine;
use serde::Serialize;

use crate::error::Error;
use crate::flags::{GroupSize, QualityFlags};
use crate::interrupt::write_whole;
use crate::model::{self, WindowChoice};
use crate::{host, output, root};

/// Held-out tokens for the containers' own check, which is no part of the measurement.
const CHECK_TOKENS: usize = 512;

/// One container, measured.
#[derive(Debug, Serialize)]
struct Run {
    method: &'static str,
    bits: u8,
    group: String,
    /// Number of the calibration sample.
    sample: usize,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// A line of a table: the runs that differ in their calibration sample only.
#[derive(Debug, Serialize)]
struct Row {
    method: &'static str,
    bits: u8,
    group: String,
    activations: &'static str,
    /// Calibration samples; 1 where the method uses none.
    samples: usize,
    bits_per_weight: f64,
    /// Mean KL divergence, nats a token, over the samples.
    mean_kl: f64,
    /// Its standard error; absent where there is one sample of a method that uses it.
    mean_kl_standard_error: Option<f64>,
    perplexity: f64,
    same_top1: f64,
}

/// The report of the command.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    head_bits: u8,
    context: usize,
    windows: usize,
    calibration_windows: usize,
    samples: usize,
    reference_perplexity: f64,
    rows: Vec<Row>,
    runs: Vec<Run>,
}

/// What all containers have in common.
struct Setting<'a> {
    flags: &'a QualityFlags,
    machine: Machine<'a>,
    checkpoint: &'a Checkpoint,
    tokenizer: Vec<u8>,
    check_tokens: Vec<u32>,
    held_out: Vec<Vec<u32>>,
    reference: Reference<'a>,
}

/// One container to make.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Case {
    bits: u8,
    group: GroupSize,
    method: methods::Method,
    sample: usize,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Input` for a model, text or option that cannot be, `Exit::Disk` for a file that cannot be read or written,
/// `Exit::Failed` for what cannot be run.
pub(crate) fn run(flags: &QualityFlags) -> Result<(), Error> {
    let json_path = flags.output.as_deref().map(json_path).transpose()?;
    let folder = match &flags.model {
        Some(folder) => folder.clone(),
        None => root::root()?.join("models/stories-1m"),
    };
    let text = text_file(flags.text.as_deref(), &folder, "held_out.txt", "--text")?;
    let calibration_text =
        text_file(flags.calibration.as_deref(), &folder, "calibration.txt", "--calibration")?;
    let checkpoint = model::checkpoint(&folder)?;
    let spec = &checkpoint.spec;
    if flags.context > spec.context as usize {
        let (found, most) = (flags.context, spec.context);
        return Err(Error::input(format!("--context {found}: the model has a context of {most} tokens")));
    }
    let tokenizer = model::tokenizer_section(&checkpoint)?;
    let read = |text: &Path, context, count| {
        let choice = WindowChoice { context, skip: 0, count: Some(count) };
        model::windows(&tokenizer, spec, text, flags.joiner, choice)
    };
    let held_out = read(&text, flags.context, flags.windows)?;
    let check_tokens = read(&text, CHECK_TOKENS - 1, 1)?.concat();
    let needed = flags.samples.saturating_mul(flags.calibration_windows);
    let calibration = read(&calibration_text, flags.context, needed)?;

    let cases = cases(flags);
    let pool = host::thread_pool(flags.threads)?;
    let machine = host::machine(&pool);
    let bar = host::progress("measuring", cases.len() * unique(&flags.activations).len() + 1);
    say(&bar, &format!("{}: full precision", checkpoint.name()));
    let reference = Reference::new(machine, &checkpoint, &held_out, flags.context, &|| ())
        .map_err(|error| Error::failed(error.to_string()))?;
    let setting = Setting {
        flags,
        machine,
        checkpoint: &checkpoint,
        tokenizer: tokenizer.clone(),
        check_tokens,
        held_out,
        reference,
    };
    bar.inc(1);
    let mut runs = Vec::new();
    for case in cases {
        runs.extend(setting.measure(case, &calibration, &bar)?);
    }
    bar.finish_and_clear();
    let reference_perplexity =
        runs.first().and_then(|run| run.evaluation.reference_perplexity).unwrap_or(f64::NAN);
    let report = Report {
        model: checkpoint.name(),
        head_bits: flags.head_bits,
        context: flags.context,
        windows: flags.windows,
        calibration_windows: flags.calibration_windows,
        samples: flags.samples,
        reference_perplexity,
        rows: rows(&runs),
        runs,
    };
    let json = serde_json::to_string(&report)
        .map_err(|error| Error::failed("the report is not JSON").caused_by(&error))?;
    let markdown = markdown(&report);
    if let (Some(path), Some(json_path)) = (&flags.output, json_path) {
        write_whole(path, markdown.as_bytes())?;
        write_whole(&json_path, json.as_bytes())?;
    }
    output::line(if flags.json { &json } else { markdown.trim_end() });
    Ok(())
}

/// Where the JSON goes that belongs to a Markdown file.
fn json_path(markdown: &Path) -> Result<PathBuf, Error> {
    let json = markdown.with_extension("json");
    if json == markdown || markdown.file_name().is_none() {
        let message = format!("--output {}: expected the name of a Markdown file", markdown.display());
        return Err(Error::input(message).remedy("give FILE.md; the JSON goes to FILE.json"));
    }
    Ok(json)
}

/// The file that an option names, else one of the model's folder.
fn text_file(
    named: Option<&Path>,
    folder: &Path,
    name: &str,
    option: &'static str,
) -> Result<PathBuf, Error> {
    let path = named.map_or_else(|| folder.join(name), Path::to_path_buf);
    if named.is_none() && !path.is_file() {
        return Err(Error::input(format!("the model's folder has no {}", path.display()))
            .remedy(format!("give a UTF-8 text with {option} FILE")));
    }
    Ok(path)
}

/// The items of a list, each once, in the order of their first mention.
fn unique<T: Copy + PartialEq>(list: &[T]) -> Vec<T> {
    let mut kept = Vec::new();
    for item in list {
        if !kept.contains(item) {
            kept.push(*item);
        }
    }
    kept
}

/// Every container to make. A method without calibration gives the same container for each sample, and is made once.
fn cases(flags: &QualityFlags) -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in unique(&flags.bits) {
        for group in unique(&flags.group_size) {
            for method in unique(&flags.methods).into_iter().map(methods::Method::from) {
                let samples = if method.configuration(bits).is_some() { flags.samples } else { 1 };
                cases.extend((0..samples).map(|sample| Case { bits, group, method, sample }));
            }
        }
    }
    cases
}

/// Shows what is being done: in the bar, or as a line where there is no terminal.
fn say(bar: &ProgressBar, what: &str) {
    if bar.is_hidden() {
        output::note(what);
    } else {
        bar.set_message(what.to_owned());
    }
}

impl Setting<'_> {
    /// Packs one container and runs it over the held-out windows, once for each format of activations.
    fn measure(&self, case: Case, calibration: &[Vec<u32>], bar: &ProgressBar) -> Result<Vec<Run>, Error> {
        let Case { bits, group, method, sample } = case;
        let flags = self.flags;
        let what = format!("{method}, {bits} bits, group {group}, sample {}", sample + 1);
        say(bar, &what);
        let failed = |error: &dyn std::fmt::Display| Error::failed(format!("{what}: {error}"));
        let plan = BlockPlan::new(method, SolverOptions::for_container(bits, group.into()));
        // Where nothing is calibrated, one window keeps the forward that packing runs anyway short.
        let windows = if plan.calibrates() { flags.calibration_windows } else { 1 };
        let calibration = calibration[sample * flags.calibration_windows..][..windows].to_vec();
        let options = PackOptions {
            plan,
            head_bits: flags.head_bits,
            // Results are the same in every layout; this one has the host's fastest kernels.
            layout: Layout::Nr8k4,
            calibration,
            calibration_positions: flags.context,
            check_tokens: self.check_tokens.clone(),
            tokenizer: self.tokenizer.clone(),
            target: "host".to_owned(),
        };
        let packed =
            pack(self.machine, self.checkpoint, &options, &mut |_| ()).map_err(|error| failed(&error))?;
        let container = Container::open(&packed.file)
            .and_then(|container| container.check(Integrity::Crc))
            .map_err(|error| failed(&error))?;
        let mut runs = Vec::new();
        for activations in unique(&flags.activations) {
            let subject = Subject::Container(&container, activations.into());
            let reference = Some(&self.reference);
            let evaluation =
                evaluate(self.machine, subject, reference, &self.held_out, flags.context, &|| ())
                    .map_err(|error| failed(&error))?;
            let (format, kl) = (evaluation.activations, evaluation.mean_kl.unwrap_or(f64::NAN));
            say(bar, &format!("{what}, activations {format}: mean KL {kl:.6}"));
            runs.push(Run { method: method.name(), bits, group: group.to_string(), sample, evaluation });
            bar.inc(1);
        }
        Ok(runs)
    }
}

/// One row for the runs that differ in their sample only, in the order of the runs.
fn rows(runs: &[Run]) -> Vec<Row> {
    let key = |run: &Run| (run.method, run.bits, run.group.clone(), run.evaluation.activations);
    let mut keys = Vec::new();
    for run in runs {
        if !keys.contains(&key(run)) {
            keys.push(key(run));
        }
    }
    let row = |wanted: (&'static str, u8, String, &'static str)| {
        let same: Vec<&Run> = runs.iter().filter(|run| key(run) == wanted).collect();
        let mean = |value: fn(&Evaluation) -> f64| {
            same.iter().map(|run| value(&run.evaluation)).sum::<f64>() / same.len() as f64
        };
        let kl = |evaluation: &Evaluation| evaluation.mean_kl.unwrap_or(f64::NAN);
        let divergences: Vec<f64> = same.iter().map(|run| kl(&run.evaluation)).collect();
        let (method, bits, group, activations) = wanted;
        let calibrated = method != methods::Method::Rtn.name();
        Row {
            method,
            bits,
            group,
            activations,
            samples: same.len(),
            bits_per_weight: mean(|evaluation| evaluation.bits_per_weight),
            mean_kl: mean(kl),
            mean_kl_standard_error: if calibrated { standard_error(&divergences) } else { Some(0.0) },
            perplexity: mean(|evaluation| evaluation.perplexity),
            same_top1: mean(|evaluation| evaluation.same_top1.unwrap_or(f64::NAN)),
        }
    };
    keys.into_iter().map(row).collect()
}

/// Standard error of the mean, from the sample's variance; `None` for fewer than two values.
fn standard_error(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some((variance / count).sqrt())
}

/// The tables, one for each format of activations.
fn markdown(report: &Report) -> String {
    let mut text = format!(
        "{}: {} held-out windows of {} tokens, {} calibration windows a sample, {} samples, embedding and head at {} \
         bits.\nPerplexity in full precision: {:.4}. KL: mean over the samples, +- two standard errors of that mean (the \
         spread\nover calibration samples, not over held-out text); `rtn` uses no calibration, so its standard error is 0.\n",
        report.model,
        report.windows,
        report.context,
        report.calibration_windows,
        report.samples,
        report.head_bits,
        report.reference_perplexity,
    );
    let mut formats: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !formats.contains(&row.activations) {
            formats.push(row.activations);
        }
    }
    for format in formats {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nActivations {format}:\n\n\
             | method | bits | group | bits a weight | mean KL, nats a token | perplexity | same top-1 |\n\
             |---|---:|---:|---:|---:|---:|---:|\n"
        );
        for row in report.rows.iter().filter(|row| row.activations == format) {
            let error = row
                .mean_kl_standard_error
                .map_or_else(|| "unknown".to_owned(), |error| format!("{:.6}", 2.0 * error));
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {:.3} | {:.6} +- {error} | {:.4} | {:.2} % |",
                row.method,
                row.bits,
                row.group,
                row.bits_per_weight,
                row.mean_kl,
                row.perplexity,
                100.0 * row.same_top1,
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Activations;

    fn run(method: &'static str, sample: usize, mean_kl: f64) -> Run {
        let evaluation = Evaluation {
            perplexity: 4.0 + mean_kl,
            reference_perplexity: Some(4.0),
            mean_kl: Some(mean_kl),
            median_kl: Some(mean_kl),
            p99_kl: Some(mean_kl),
            same_top1: Some(0.5),
            bits_per_weight: 4.5,
            file_bytes: 1,
            tokens: 1,
            windows: 1,
            activations: "int8",
            kernels: "scalar",
        };
        Run { method, bits: 4, group: "64".to_owned(), sample, evaluation }
    }

    #[test]
    fn samples_become_a_mean_and_its_standard_error() {
        let rows = rows(&[run("rtn", 0, 0.4), run("gptq", 0, 0.1), run("gptq", 1, 0.2), run("gptq", 2, 0.3)]);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].samples, rows[0].mean_kl_standard_error), (1, Some(0.0)));
        assert_eq!((rows[1].samples, rows[1].method), (3, "gptq"));
        assert!((rows[1].mean_kl - 0.2).abs() < 1e-12);
        // Deviations -0.1, 0, 0.1: variance 0.02 / 2, over three samples.
        assert!(
            (rows[1].mean_kl_standard_error.expect("three samples") - (0.01_f64 / 3.0).sqrt()).abs() < 1e-12
        );
        assert_eq!(standard_error(&[0.1]), None);
    }

    #[test]
    fn the_json_goes_beside_the_markdown() {
        assert_eq!(json_path(Path::new("a/b.md")).expect("a name"), Path::new("a/b.json"));
        assert!(json_path(Path::new("a/b.json")).is_err() && json_path(Path::new("/")).is_err());
    }

    #[test]
    fn lists_keep_the_first_of_equals() {
        assert_eq!(unique(&[4, 8, 4]), [4, 8]);
        assert_eq!(unique(&[Activations::F32, Activations::Int8, Activations::F32]).len(), 2);
    }
}
