//! The tables of `bench kernels`, in Markdown.

use std::collections::BTreeSet;

use super::Report;
use super::counted::{Counted, CountedRun};
use super::runner::Run;
use super::timed::Timed;

/// All of the report.
pub(crate) fn text_of(report: &Report) -> String {
    let mut lines =
        vec![format!("Groups of {}; {} levels; a weight counts once a token.", report.group, report.levels)];
    lines.extend(report.timed.iter().flat_map(timed_lines));
    lines.extend(report.counted.iter().flat_map(counted_lines));
    if !report.counted.is_empty() {
        lines.extend(["".to_owned(), tools_line(report)]);
    }
    lines.extend(report.skipped.iter().map(|why| format!("\nskipped: {why}")));
    lines.join("\n")
}

fn tools_line(report: &Report) -> String {
    let tools: Vec<&str> = report.tools.iter().map(String::as_str).collect();
    format!(
        "Counted by {}. Instructions and cycles include the quantization of the activations, whose own are in brackets. Counts are exact; cycles \
         are of the pipelines alone, without caches and mispredicted branches.",
        tools.join(", ")
    )
}

/// Names of the matrices, in order of appearance.
fn shapes<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<(usize, usize)> {
    let mut seen = BTreeSet::new();
    runs.map(|run| (run.rows, run.cols)).filter(|shape| seen.insert(*shape)).collect()
}

/// Kernel and tokens of each row, in order of appearance.
fn keys<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<(&'r str, u8, usize)> {
    let mut seen = BTreeSet::new();
    let key = |run: &'r Run| (run.kernel.as_str(), run.bits, run.tokens);
    runs.map(key).filter(|key| seen.insert(*key)).collect()
}

fn is(run: &Run, (kernel, bits, tokens): (&str, u8, usize), shape: (usize, usize)) -> bool {
    (run.kernel.as_str(), run.bits, run.tokens, run.rows, run.cols)
        == (kernel, bits, tokens, shape.0, shape.1)
}

/// A table with a row a kernel and number of tokens, and two columns a matrix; `cells` has those of a run, by its index.
fn table(runs: &[&Run], columns: [&str; 2], cells: impl Fn(usize) -> [String; 2]) -> Vec<String> {
    let shapes = shapes(runs.iter().copied());
    let head = |(rows, cols): &(usize, usize)| columns.map(|column| format!("{rows}x{cols}: {column} |"));
    let heads: Vec<String> = shapes.iter().flat_map(head).collect();
    let mut lines = vec![
        format!("| kernel | bits | tokens | {}", heads.join(" ")),
        format!("|---|---:|---:|{}", "---:|".repeat(heads.len())),
    ];
    for key in keys(runs.iter().copied()) {
        let of_shape = |shape: &(usize, usize)| {
            let index = runs.iter().position(|run| is(run, key, *shape));
            index.map_or_else(|| ["-", "-"].map(str::to_owned), &cells).map(|cell| cell + " |")
        };
        let cells: Vec<String> = shapes.iter().flat_map(of_shape).collect();
        lines.push(format!("| {} | {} | {} | {}", key.0, key.1, key.2, cells.join(" ")));
    }
    lines
}

fn timed_lines(timed: &Timed) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "Timed on {}, one thread, matrices in the caches: the median, in brackets the fastest. GB are those of the packed matrix, once a product; \
             quantization of the activations is not in it:",
            timed.cpu
        ),
        String::new(),
    ];
    let cells = |index: usize| {
        let run = &timed.runs[index];
        let rate = |amount: f64| match run.product {
            Some(seconds) => {
                let rate = |seconds: f64| amount / seconds / 1e9;
                format!("{:.2} ({:.2})", rate(seconds.median), rate(seconds.fastest))
            }
            None => "-".to_owned(),
        };
        [rate(run.weights()), rate(run.bytes as f64)]
    };
    lines.extend(table(&timed.runs.iter().collect::<Vec<_>>(), ["10^9 weights/s", "GB/s"], cells));
    lines
}

fn counted_lines(counted: &Counted) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "{}: executed on QEMU's {}, cycles of {}, a weight:",
            counted.core, counted.emulated, counted.model
        ),
        String::new(),
    ];
    let runs: Vec<&Run> = counted.runs.iter().map(|run| &run.run).collect();
    let cells = |index: usize| [instructions(&counted.runs[index]), cycles(&counted.runs[index])];
    lines.extend(table(&runs, ["instructions", "cycles"], cells));
    lines
}

/// Instructions a weight with quantization, and those of quantization alone.
fn instructions(run: &CountedRun) -> String {
    let (product, quantization) = (run.product_cost.instructions, run.quantization_cost.instructions);
    a_weight(run, product as f64, quantization as f64)
}

/// Cycles likewise.
fn cycles(run: &CountedRun) -> String {
    match (run.product_cost.cycles, run.quantization_cost.cycles) {
        (Some(product), Some(quantization)) => a_weight(run, product, quantization),
        _ => "-".to_owned(),
    }
}

fn a_weight(run: &CountedRun, product: f64, quantization: f64) -> String {
    let weights = run.run.weights();
    format!("{:.3} ({:.3})", (product + quantization) / weights, quantization / weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_kernels::counted::Cost;
    use crate::bench_kernels::runner::Seconds;

    fn run(kernel: &str, rows: usize, cols: usize, tokens: usize, seconds: Option<f64>) -> Run {
        let seconds = seconds.map(|median| Seconds { median, fastest: median / 2.0, slowest: median });
        Run {
            kernels: "neon".to_owned(),
            kernel: kernel.to_owned(),
            bits: 4,
            rows,
            cols,
            tokens,
            bytes: 4_000,
            product: seconds,
            quantization: seconds,
        }
    }

    fn counted_run(run: Run, instructions: u64, cycles: Option<f64>) -> CountedRun {
        let cost = |instructions, cycles| Cost { instructions, cycles, functions: Vec::new() };
        CountedRun {
            run,
            product_cost: cost(instructions, cycles),
            quantization_cost: cost(instructions / 4, cycles.map(|cycles| cycles / 4.0)),
        }
    }

    #[test]
    fn there_is_a_row_a_kernel_and_number_of_tokens() {
        let runs = vec![
            run("gemv", 80, 100, 1, Some(4e-6)),
            run("gemm", 80, 100, 4, Some(8e-6)),
            run("gemv", 160, 50, 1, Some(2e-6)),
        ];
        let counted = |cycles| Counted {
            core: "Cortex-A72",
            emulated: "cortex-a72",
            model: "cortex-a72",
            runs: vec![counted_run(run("gemv", 80, 100, 1, None), 1600, cycles)],
        };
        let report = Report {
            group: "64".to_owned(),
            levels: "normal",
            timed: Some(Timed { cpu: "a processor".to_owned(), runs }),
            counted: vec![counted(Some(800.0)), counted(None)],
            tools: vec!["QEMU 1".to_owned(), "LLVM 2".to_owned()],
            skipped: vec!["a core: no tool".to_owned()],
        };
        let text = text_of(&report);
        for line in [
            "| kernel | bits | tokens | 80x100: 10^9 weights/s | 80x100: GB/s | 160x50: 10^9 weights/s | 160x50: GB/s |",
            "|---|---:|---:|---:|---:|---:|---:|",
            "| gemv | 4 | 1 | 2.00 (4.00) | 1.00 (2.00) | 4.00 (8.00) | 2.00 (4.00) |",
            "| gemm | 4 | 4 | 4.00 (8.00) | 0.50 (1.00) | - | - |",
            "| kernel | bits | tokens | 80x100: instructions | 80x100: cycles |",
            "| gemv | 4 | 1 | 0.250 (0.050) | 0.125 (0.025) |",
            "| gemv | 4 | 1 | 0.250 (0.050) | - |",
            "Cortex-A72: executed on QEMU's cortex-a72, cycles of cortex-a72, a weight:",
            "skipped: a core: no tool",
        ] {
            assert!(text.lines().any(|found| found == line), "expected `{line}` in:\n{text}");
        }
        assert!(text.contains("Counted by QEMU 1, LLVM 2."), "{text}");
    }
}
