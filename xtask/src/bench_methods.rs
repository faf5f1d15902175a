//! `cargo xtask bench methods`: which method is best on each matrix of a model, on text that calibration never saw.

use std::fmt::Write as _;
use std::path::Path;

use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::compare::{Comparison, MatrixComparison, MethodSummary, compare, summarize};
use rescomp_quantizer::methods::{self, SolverOptions};
use serde::Serialize;

use crate::error::Error;
use crate::flags::{Method, MethodsFlags, unique};
use crate::interrupt::write_whole;
use crate::model::{self, WindowChoice};
use crate::{host, output};

/// The report of the command.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    bits: u8,
    group: String,
    /// How the levels of 2, 3 and 4 bits are spaced.
    levels: &'static str,
    context: usize,
    calibration_windows: usize,
    held_out_windows: usize,
    /// The method whose solutions the layers behind a matrix see.
    continued_with: &'static str,
    matrices: Vec<MatrixComparison>,
    summary: Vec<MethodSummary>,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Input` for a model, text or option that cannot be, `Exit::Disk` for a file that cannot be read or written,
/// `Exit::Failed` for what cannot be solved.
pub(crate) fn run(flags: &MethodsFlags) -> Result<(), Error> {
    let json_path = flags.output.as_deref().map(|path| output::beside(path, "json")).transpose()?;
    let model_path = model::path(flags.solving.model.as_deref())?;
    let text =
        model::text_file(flags.calibration.as_deref(), &model_path, "calibration.txt", "--calibration")?;
    let checkpoint = model::checkpoint(&model_path)?;
    let spec = &checkpoint.spec;
    let context = model::context(flags.solving.context, spec)?;
    let tokenizer = model::tokenizer_section(&checkpoint)?;
    let windows = read_windows(flags, context, &tokenizer, &checkpoint, &text)?;
    model::check_weights(&checkpoint)?;

    let methods = unique(&flags.methods);
    let continue_with = flags.continue_with.unwrap_or_else(|| continuation(&methods));
    let names: Vec<methods::Method> = methods.into_iter().map(methods::Method::from).collect();
    let pool = host::thread_pool(flags.solving.threads)?;
    let bar = host::progress("comparing", 7 * spec.layers as usize);
    let options = SolverOptions {
        spacing: flags.levels.into(),
        ..SolverOptions::for_container(flags.solving.bits, flags.solving.group_size.into())
    };
    let comparison = Comparison {
        methods: &names,
        continue_with: continue_with.into(),
        options,
        windows: &windows,
        calibration_windows: flags.solving.calibration_windows,
        positions: context,
    };
    let matrices = compare(host::machine(&pool), &checkpoint, &comparison, &mut |matrix| {
        bar.set_message(format!("layer {} {}", matrix.layer, matrix.kind));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let matrices = matrices.map_err(|error| Error::failed(error.to_string()))?;
    let report = Report {
        model: checkpoint.name(),
        bits: flags.solving.bits,
        group: flags.solving.group_size.to_string(),
        levels: options.spacing.name(),
        context,
        calibration_windows: flags.solving.calibration_windows,
        held_out_windows: flags.held_out_windows,
        continued_with: comparison.continue_with.name(),
        summary: summarize(&matrices),
        matrices,
    };
    let json = output::json(&report)?;
    let markdown = markdown(&report);
    if let (Some(path), Some(json_path)) = (&flags.output, json_path) {
        write_whole(path, markdown.as_bytes())?;
        write_whole(&json_path, json.as_bytes())?;
    }
    output::line(if flags.json { &json } else { markdown.trim_end() });
    Ok(())
}

/// The calibration windows, and the held-out ones after them.
fn read_windows(
    flags: &MethodsFlags,
    context: usize,
    tokenizer: &[u8],
    checkpoint: &Checkpoint,
    text: &Path,
) -> Result<Vec<Vec<u32>>, Error> {
    let choice = WindowChoice {
        context,
        skip: flags.calibration_offset,
        count: Some(flags.solving.calibration_windows.saturating_add(flags.held_out_windows)),
    };
    model::windows(tokenizer, &checkpoint.spec, text, flags.solving.joiner, choice)
}

/// What the stream goes on with where nothing is said: the project's own method if it is compared, else the last one.
fn continuation(methods: &[Method]) -> Method {
    match methods.last() {
        Some(&last) if !methods.contains(&Method::RescompExact) => last,
        _ => Method::RescompExact,
    }
}

/// One line a matrix, then the means and the wins. Columns are padded, so that it reads as well unrendered.
fn markdown(report: &Report) -> String {
    let mut text = format!(
        "{}, {} bits, group {}, levels {}: error on {} calibration windows / on the {} windows after them, of {} tokens. An error is the\n\
         share of a matrix's outputs in the full-precision model, by power, that is missing when it and the layers before it\n\
         are quantized (those with `{}`). Bold: the least error on the windows that calibration never saw.\n\n",
        report.model,
        report.bits,
        report.group,
        report.levels,
        report.calibration_windows,
        report.held_out_windows,
        report.context,
        report.continued_with,
    );
    let mut lines = vec![vec!["layer".to_owned(), "matrix".to_owned()]];
    lines[0].extend(report.summary.iter().map(|method| method.method.to_owned()));
    for matrix in &report.matrices {
        let mut line = vec![matrix.layer.to_string(), matrix.kind.to_owned()];
        line.extend(matrix.methods.iter().enumerate().map(|(at, errors)| {
            let (calibration, held_out) = (share(errors.calibration), share(errors.held_out));
            let mark = if matrix.wins(at) { "**" } else { "" };
            format!("{calibration} / {mark}{held_out}{mark}")
        }));
        lines.push(line);
    }
    let cells = |cell: &dyn Fn(&MethodSummary) -> String| -> Vec<String> {
        report.summary.iter().map(cell).collect()
    };
    let mean = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), share);
    let means = cells(&|method| format!("{} / {}", mean(method.calibration), mean(method.held_out)));
    let wins = cells(&|method| format!("{} of {}", method.wins, report.matrices.len()));
    lines.push([vec!["all".to_owned(), "geometric mean".to_owned()], means].concat());
    lines.push([vec!["all".to_owned(), "wins".to_owned()], wins].concat());
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0))
        .collect();
    for (index, line) in lines.iter().enumerate() {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} |", padded.collect::<Vec<_>>().join(" | "));
        if index == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            let _ = writeln!(text, "|{}|", rules.join("|"));
        }
    }
    let mut warnings: Vec<&String> = report.matrices.iter().flat_map(|matrix| &matrix.warnings).collect();
    warnings.sort();
    warnings.dedup();
    for warning in warnings {
        let _ = write!(text, "\nWARNING: {warning}\n");
    }
    text
}

/// A share of a whole, with three significant digits.
fn share(share: f64) -> String {
    if share >= 0.001 { format!("{:.3} %", 100.0 * share) } else { format!("{:.5} %", 100.0 * share) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_quantizer::compare::MethodErrors;

    fn errors(method: &'static str, calibration: f64, held_out: f64) -> MethodErrors {
        MethodErrors { method, calibration, held_out, strength: None, ridge: None, refine_sweeps: 0 }
    }

    fn matrix(kind: &'static str, gptq: f64, exact: f64) -> MatrixComparison {
        MatrixComparison {
            layer: 3,
            kind,
            methods: vec![errors("gptq", gptq / 2.0, gptq), errors("rescomp-exact", exact / 2.0, exact)],
            warnings: vec!["few tokens".to_owned()],
        }
    }

    #[test]
    fn a_line_a_matrix_and_the_winner_marked() {
        let matrices =
            vec![matrix("query", 0.02, 0.01), matrix("down", 0.005, 0.02), matrix("up", 0.0002, 0.0002)];
        let report = Report {
            model: "m".to_owned(),
            bits: 3,
            group: "64".to_owned(),
            levels: "normal",
            context: 512,
            calibration_windows: 64,
            held_out_windows: 16,
            continued_with: "rescomp-exact",
            summary: summarize(&matrices),
            matrices,
        };
        let text = markdown(&report);
        let table: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(table.len(), 2 + 3 + 2, "{text}");
        assert!(table.iter().all(|line| line.len() == table[0].len()), "{text}");
        assert!(table[2].contains("query") && table[2].contains("0.500 % / **1.000 %**"), "{text}");
        assert!(table[3].contains("**0.500 %**") && !table[3].contains("**2.000 %**"), "{text}");
        assert_eq!(table[4].matches("**0.02000 %**").count(), 2, "{text}");
        assert!(table[6].contains("2 of 3") && text.matches("few tokens").count() == 1, "{text}");
    }

    #[test]
    fn the_stream_goes_on_with_what_is_compared() {
        let (gptq, exact) = (Method::Gptq, Method::RescompExact);
        assert_eq!(continuation(&[gptq, exact, Method::Rtn]), exact);
        assert_eq!(continuation(&[Method::Rtn, gptq]), gptq);
    }
}
