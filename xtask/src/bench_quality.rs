//! `cargo xtask bench quality`: how far the methods' models are from the full-precision model, on held-out text.
//!
//! ```text
//! run the full-precision model over the held-out windows once
//! for bits x group x rank x head bits x method x calibration sample:
//!     quantize in memory, run the result over the same windows
//! a row: the mean over the calibration samples, and two standard errors of it
//! ```
//! The result is a whole container, as `pack` writes it, so the table counts what the device will compute; with
//! `--linears-only` it is the blocks' linear layers in an otherwise full-precision model, so the table counts what the methods
//! answer for.

mod learned;
mod plot;
mod table;

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::calibrate::Progress;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::evaluate::{Evaluation, Positions, Reference, Subject, evaluate};
use rescomp_quantizer::grids::Spacing;
use rescomp_quantizer::linears::{Linears, Tokens};
use rescomp_quantizer::methods::{self, SolverOptions};
use rescomp_quantizer::pack::{PackOptions, pack};
use rescomp_quantizer::plan::BlockPlan;
use rescomp_quantizer::transforms::{TransformKind, build};
use rescomp_runtime::Machine;
use table::{Report, Run, markdown, rows};

use crate::error::Error;
use crate::flags::{GroupSize, Levels, QualityFlags, unique};
use crate::interrupt::write_whole;
use crate::model::{self, WindowChoice};
use crate::{host, output};

/// Held-out tokens for the containers' own check, which is no part of the measurement.
const CHECK_TOKENS: usize = 512;

/// What all models have in common.
struct Setting<'a> {
    flags: &'a QualityFlags,
    machine: Machine<'a>,
    checkpoint: &'a Checkpoint,
    tokenizer: Vec<u8>,
    check_tokens: Vec<u32>,
    held_out: Vec<Vec<u32>>,
    positions: Positions,
    reference: Reference<'a>,
    bar: ProgressBar,
    learned: learned::Kept,
}

/// One model to make.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Case {
    bits: u8,
    group: GroupSize,
    /// Of the blocks' low-rank corrections.
    rank: u32,
    /// Of the embedding and the head; `None` where they stay as they are.
    head_bits: Option<u8>,
    method: methods::Method,
    transform: TransformKind,
    sample: usize,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Input` for a model, text or option that cannot be, `Exit::Disk` for a file that cannot be read or written,
/// `Exit::Failed` for what cannot be run.
pub(crate) fn run(flags: &QualityFlags) -> Result<(), Error> {
    let paths = flags.output.as_deref().map(OutputPaths::beside).transpose()?;
    let model_path = model::path(flags.model.as_deref())?;
    let text = model::text_file(flags.text.as_deref(), &model_path, "held_out.txt", "--text")?;
    let calibration_text =
        model::text_file(flags.calibration.as_deref(), &model_path, "calibration.txt", "--calibration")?;
    let checkpoint = model::checkpoint(&model_path)?;
    let spec = &checkpoint.spec;
    let context = model::context(flags.context, spec)?;
    let positions = model::positions(context, flags.score_from)?;
    let tokenizer = model::tokenizer_section(&checkpoint)?;
    let read = |text: &Path, context, count| {
        let choice = WindowChoice { context, skip: 0, count };
        model::windows(&tokenizer, spec, text, flags.joiner, choice)
    };
    let held_out = read(&text, context, Some(flags.windows))?;
    let check_tokens = read(&text, CHECK_TOKENS - 1, Some(1))?.concat();
    let needed = flags.samples.saturating_mul(flags.calibration_windows);
    let calibration = read(&calibration_text, context, Some(needed))?;
    model::check_weights(&checkpoint)?;

    let cases = cases(flags);
    let pool = host::thread_pool(flags.threads)?;
    let machine = host::machine(&pool);
    let measured = if flags.linears_only { 1 } else { unique(&flags.activations).len() };
    let steps_a_case = 7 * spec.layers as usize + measured * held_out.len();
    let bar = host::progress("measuring", Reference::steps(&checkpoint) + cases.len() * steps_a_case);
    say(&bar, &format!("{}: full precision", checkpoint.name()));
    let reference = Reference::new(machine, &checkpoint, &held_out, context, &|| bar.inc(1))
        .map_err(|error| Error::failed(error.to_string()))?;
    let windows = held_out.len();
    let setting = Setting {
        flags,
        machine,
        checkpoint: &checkpoint,
        tokenizer: tokenizer.clone(),
        check_tokens,
        held_out,
        positions,
        reference,
        bar,
        learned: Default::default(),
    };
    let mut runs = Vec::new();
    for case in cases {
        runs.extend(setting.measure(case, &calibration)?);
    }
    setting.bar.finish_and_clear();
    let reference_perplexity =
        runs.first().and_then(|run| run.evaluation.reference_perplexity).unwrap_or(f64::NAN);
    let report = Report {
        model: checkpoint.name(),
        levels: Spacing::from(flags.levels).name(),
        linears_only: flags.linears_only,
        context,
        score_from: flags.score_from,
        windows,
        calibration_windows: flags.calibration_windows,
        samples: flags.samples,
        reference_perplexity,
        rows: rows(&runs),
        runs,
    };
    let json = output::json(&report)?;
    let markdown = markdown(&report);
    if let Some(paths) = paths {
        write_whole(&paths.markdown, markdown.as_bytes())?;
        write_whole(&paths.json, json.as_bytes())?;
        write_whole(&paths.plot, plot::svg(&report)?.as_bytes())?;
    }
    output::line(if flags.json { &json } else { markdown.trim_end() });
    Ok(())
}

/// Where the report goes.
#[derive(Debug)]
struct OutputPaths {
    markdown: PathBuf,
    json: PathBuf,
    plot: PathBuf,
}

impl OutputPaths {
    /// The files that belong to a Markdown file.
    fn beside(markdown: &Path) -> Result<OutputPaths, Error> {
        let (json, plot) = (output::beside(markdown, "json")?, output::beside(markdown, "svg")?);
        Ok(OutputPaths { markdown: markdown.to_path_buf(), json, plot })
    }
}

/// Every model to make. A method without calibration gives the same model for each sample, and is made once
/// where the transform isn't learned on it.
fn cases(flags: &QualityFlags) -> Vec<Case> {
    let head_bits = match flags.linears_only {
        true => vec![None],
        false => unique(&flags.head_bits).into_iter().map(Some).collect(),
    };
    let mut cases = Vec::new();
    for bits in unique(&flags.bits) {
        let groups = unique(&flags.group_size);
        let ranks = unique(&flags.low_rank);
        for (group, rank) in groups.iter().flat_map(|group| ranks.iter().map(|rank| (*group, *rank))) {
            for &head_bits in &head_bits {
                for method in unique(&flags.methods).into_iter().map(methods::Method::from) {
                    for transform in unique(&flags.transforms).into_iter().map(TransformKind::from) {
                        let calibrated =
                            method.configuration(bits).is_some() || transform == TransformKind::Spinquant;
                        let samples = if calibrated { flags.samples } else { 1 };
                        let case = |sample| Case { bits, group, rank, head_bits, method, transform, sample };
                        cases.extend((0..samples).map(case));
                    }
                }
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
    /// Quantizes one model and runs it over the held-out windows, once for each format of activations.
    fn measure(&self, case: Case, calibration: &[Vec<u32>]) -> Result<Vec<Run>, Error> {
        let Case { bits, group, rank, head_bits, method, transform, sample } = case;
        let flags = self.flags;
        let head = head_bits.map_or_else(String::new, |bits| format!(", head {bits} bits"));
        let folded = match transform {
            TransformKind::None => String::new(),
            other => format!(", {}", other.name()),
        };
        let corrected = if rank > 0 { format!(", rank {rank}") } else { String::new() };
        let what =
            format!("{method}{folded}, {bits} bits, group {group}{corrected}, sample {}{head}", sample + 1);
        say(&self.bar, &what);
        let options = match (flags.linears_only, flags.levels) {
            (true, Levels::Uniform) => SolverOptions::new(bits, group.into()),
            (_, levels) => {
                let options = SolverOptions::for_container(bits, group.into());
                SolverOptions { spacing: levels.into(), ..options }
            }
        };
        let plan = BlockPlan { rank, ..BlockPlan::new(method, options) };
        // Where nothing is calibrated, one window keeps the forward that quantizing runs anyway short.
        let needed = plan.calibrates() || transform == TransformKind::Smooth;
        let windows = if needed { flags.calibration_windows } else { 1 };
        let positions = self.positions.run;
        let refused = |error: &dyn std::error::Error| Error::input(error.to_string());
        let checkpoint = match transform {
            TransformKind::Spinquant => {
                let learned = self.learned(case, calibration)?;
                self.checkpoint.transformed(learned).map_err(|error| refused(&error))?
            }
            other => {
                let sample = &calibration[sample * flags.calibration_windows..][..windows];
                build(self.machine, self.checkpoint, other, sample, positions, &plan, &mut |layer| {
                    self.bar.set_message(format!("{what}: scales of layer {layer}"));
                })
                .map_err(|error| refused(&error))?
            }
        };
        let calibration = &calibration[sample * flags.calibration_windows..][..windows];
        let evaluations = match head_bits {
            Some(head_bits) => self.containers(&what, &checkpoint, plan, head_bits, calibration),
            None => self.linears(&checkpoint, &plan, calibration).map(|evaluation| vec![evaluation]),
        };
        let run = |evaluation: Evaluation| {
            let (format, kl) = (evaluation.activations, evaluation.mean_kl.unwrap_or(f64::NAN));
            say(&self.bar, &format!("{what}, activations {format}: mean KL {kl:.6}"));
            Run {
                method: method.name(),
                transform: transform.name(),
                bits,
                group: group.to_string(),
                rank,
                head_bits,
                sample,
                evaluation,
            }
        };
        let failed = |error: String| Error::failed(format!("{what}: {error}"));
        Ok(evaluations.map_err(failed)?.into_iter().map(run).collect())
    }

    /// Packs a container and measures it with each format of activations.
    fn containers(
        &self,
        what: &str,
        checkpoint: &Checkpoint,
        plan: BlockPlan,
        head_bits: u8,
        calibration: &[Vec<u32>],
    ) -> Result<Vec<Evaluation>, String> {
        let options = PackOptions {
            plan: plan.with_head_bits(head_bits),
            // Results are the same in every layout; this one has the host's fastest kernels.
            layout: Layout::Nr8k4,
            calibration: calibration.to_vec(),
            calibration_positions: self.positions.run,
            check_texts: Vec::new(),
            images: None,
            check_tokens: self.check_tokens.clone(),
            tokenizer: self.tokenizer.clone(),
            chat_template: Default::default(),
            cache: CacheFormat::default(),
            target: "host".to_owned(),
        };
        let mut each = |progress: Progress<'_>| self.hear(what, progress);
        let packed =
            pack(self.machine, checkpoint, &options, &mut each).map_err(|error| error.to_string())?;
        let container = Container::open(&packed.file)
            .and_then(|container| container.check(Integrity::Crc))
            .map_err(|error| error.to_string())?;
        unique(&self.flags.activations)
            .into_iter()
            .map(|activations| self.evaluate(Subject::Container(&container, activations.into())))
            .collect()
    }

    /// Quantizes the blocks' linear layers and measures them in the model.
    fn linears(
        &self,
        checkpoint: &Checkpoint,
        plan: &BlockPlan,
        calibration: &[Vec<u32>],
    ) -> Result<Evaluation, String> {
        let tokens = |windows| Tokens { windows, positions: self.positions.run };
        let mut each = |progress: Progress<'_>| self.hear(plan.method.name(), progress);
        let (calibration, held_out) = (tokens(calibration), tokens(&self.held_out));
        let linears = Linears::new(self.machine, checkpoint, plan, calibration, held_out, &mut each)
            .map_err(|error| error.to_string())?;
        self.evaluate(Subject::Linears(&linears))
    }

    fn hear(&self, what: &str, progress: Progress<'_>) {
        let Progress::Matrix { report, .. } = progress else { return };
        let place = format!("{what}: layer {} {}", report.layer, report.kind);
        if let Some(cause) = &report.rounded_because {
            let warning = format!("warning: {place}: rounded to nearest, because {cause}");
            self.bar.suspend(|| output::note(&warning));
        }
        self.bar.set_message(place);
        self.bar.inc(1);
    }

    fn evaluate(&self, subject: Subject<'_>) -> Result<Evaluation, String> {
        let (reference, progress) = (Some(&self.reference), || self.bar.inc(1));
        evaluate(self.machine, subject, reference, &self.held_out, self.positions, &progress)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{BenchCommand, Command, Flags};
    use clap::Parser;

    fn flags(arguments: &[&str]) -> QualityFlags {
        let head = ["cargo xtask", "bench", "quality"];
        match Flags::try_parse_from(head.iter().chain(arguments)).expect("valid").command {
            Command::Bench(BenchCommand::Quality(flags)) => *flags,
            other => panic!("parsed as {other:?}"),
        }
    }

    #[test]
    fn every_combination_is_made_once_and_rtn_with_one_sample() {
        let flags = flags(&[
            "--methods",
            "rtn,gptq,rtn",
            "--bits",
            "2,3",
            "--group-size",
            "32,64,128,row",
            "--head-bits",
            "4,8,4",
            "--samples",
            "2",
        ]);
        let cases = cases(&flags);
        assert_eq!(cases.len(), 2 * 4 * 2 * (1 + 2));
        assert!((1..cases.len()).all(|at| !cases[..at].contains(&cases[at])));
    }

    #[test]
    fn linears_alone_have_no_head_bits() {
        let cases = cases(&flags(&["--methods", "gptq", "--linears-only", "--samples", "3"]));
        assert_eq!(cases.len(), 2 * 3);
        assert!(cases.iter().all(|case| case.head_bits.is_none()));
    }
}
