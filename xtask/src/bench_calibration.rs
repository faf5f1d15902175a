//! `cargo xtask bench calibration`: how near calibrating and solving come to the machine's speed at matrix products.

use std::fmt::Write as _;
use std::time::Instant;

use rescomp_quantizer::calibrate::{CalibrationError, Run, quantize_blocks};
use rescomp_quantizer::inputs::Inputs;
use rescomp_quantizer::methods::SolverOptions;
use rescomp_quantizer::operations::{Operations, measured_peak};
use rescomp_quantizer::plan::BlockPlan;
use serde::Serialize;

use crate::error::Error;
use crate::flags::CalibrationFlags;
use crate::model::{self, WindowChoice};
use crate::progress::Shown;
use crate::{host, output};

/// The report of the command.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    method: &'static str,
    bits: u8,
    group: String,
    calibration_windows: usize,
    context: usize,
    threads: usize,
    /// Of both streams, the moments and the solvers of all blocks.
    seconds: f64,
    operations: Operations,
    /// Floating-point operations a second.
    speed: f64,
    /// The same of large f32 matrix products on as many threads, the best of several.
    peak: f64,
    /// The most memory that the process had, where the system tells.
    peak_memory_bytes: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Input` for a model, text or option that cannot be, `Exit::Failed` for what cannot be solved.
pub(crate) fn run(flags: &CalibrationFlags) -> Result<(), Error> {
    let model_path = model::path(flags.solving.model.as_deref())?;
    let text =
        model::text_file(flags.calibration.as_deref(), &model_path, "calibration.txt", "--calibration")?;
    let checkpoint = model::checkpoint(&model_path)?;
    let spec = &checkpoint.spec;
    let context = model::context(flags.solving.context, spec)?;
    let tokenizer = model::tokenizer_section(&checkpoint)?;
    let choice = WindowChoice { context, skip: 0, count: Some(flags.solving.calibration_windows) };
    let windows = model::windows(&tokenizer, spec, &text, flags.solving.joiner, choice)?;
    model::check_weights(&checkpoint)?;

    let pool = host::thread_pool(flags.solving.threads)?;
    let options = SolverOptions::for_container(flags.solving.bits, flags.solving.group_size.into());
    let plan = BlockPlan::new(flags.method.into(), options);
    let before = measured_peak();
    let mut shown = Shown::new(&plan, spec, windows.len() * context);
    let mut reports = Vec::new();
    let start = Instant::now();
    let done = quantize_blocks(
        host::machine(&pool),
        &checkpoint,
        Inputs::Windows { windows: &windows, positions: context },
        &plan,
        &mut Run { journal: None, progress: &mut |progress| shown.hear(progress) },
        |_, _, matrices| -> Result<(), CalibrationError> {
            reports.extend(matrices.into_iter().map(|matrix| matrix.report));
            Ok(())
        },
    );
    let seconds = start.elapsed().as_secs_f64();
    shown.finish();
    done.map_err(|error| Error::failed(error.to_string()))?;
    // A machine that others use is not equally fast all the time.
    let peak = before.max(measured_peak());
    let operations = Operations::of_blocks(&plan, spec, windows.len(), context, &reports);
    let report = Report {
        model: checkpoint.name(),
        method: plan.method.name(),
        bits: flags.solving.bits,
        group: flags.solving.group_size.to_string(),
        calibration_windows: windows.len(),
        context,
        threads: rayon::current_num_threads(),
        seconds,
        operations,
        speed: operations.total() / seconds,
        peak,
        peak_memory_bytes: peak_memory_bytes(),
    };
    match flags.json {
        true => output::line(&output::json(&report)?),
        false => output::line(&text_of(&report)),
    }
    Ok(())
}

fn text_of(report: &Report) -> String {
    let giga = |value: f64| value / 1e9;
    let mut text = format!(
        "{}: {}, {} bits, groups of {}, {} windows of {} tokens, {} threads\n",
        report.model,
        report.method,
        report.bits,
        report.group,
        report.calibration_windows,
        report.context,
        report.threads
    );
    for (name, operations) in report.operations.parts() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<12} {:>10.1} GFLOP", giga(operations));
    }
    let _ = write!(
        text,
        "  {:<12} {:>10.1} GFLOP in {:.1} s: {:.1} GFLOP/s, {:.0} % of {:.1} GFLOP/s, the peak of f32 matrix products here",
        "all",
        giga(report.operations.total()),
        report.seconds,
        giga(report.speed),
        100.0 * report.speed / report.peak,
        giga(report.peak),
    );
    if let Some(bytes) = report.peak_memory_bytes {
        let _ = write!(text, "\n  most memory  {:>10.1} MB", bytes as f64 / 1e6);
    }
    text
}

/// The most memory that this process has had, as Linux counts it.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
