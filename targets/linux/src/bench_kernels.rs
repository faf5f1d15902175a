//! `rescomp bench-kernels`: weights a second of the integer matrix products alone, without a container.
//!
//! The matrices fit the caches, so it is the arithmetic that is timed; `rescomp bench` has the memory as well. With `--once` nothing is
//! timed, and a profiler can count what lies between the calls of [`kernel_boundary`].

pub(crate) mod flags;
mod synthetic;
mod trial;

use std::hint::black_box;

use rescomp_runtime::kernels::{self, Kernels};
use serde::Serialize;

use crate::error::Error;
use crate::exit::Exit;
use crate::machine;
use crate::output;
use crate::table::Table;
use flags::BenchKernelsFlags;
use synthetic::Synthetic;
use trial::{Seconds, Trial};

/// The value of `--kernels` that stands for every table.
const ALL: &str = "all";

#[derive(Debug, Serialize)]
struct Report {
    cpu: String,
    /// Weights that share a scale.
    group: String,
    /// How the levels of 2 to 4 bits are spaced.
    levels: String,
    /// In the order in which they ran: by shape, bits, kernels, tokens.
    runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct Run {
    /// The table of kernels.
    kernels: &'static str,
    /// The product's full name.
    kernel: &'static str,
    bits: u8,
    rows: usize,
    cols: usize,
    tokens: usize,
    /// Bytes of the packed matrix.
    bytes: usize,
    /// One product, for all tokens. `None` with `--once`.
    product: Option<Seconds>,
    /// Quantizing the activations that it takes.
    quantization: Option<Seconds>,
}

/// Runs the command.
///
/// # Errors
/// Where the command line is wrong.
pub(crate) fn run(flags: &BenchKernelsFlags) -> Result<Exit, Error> {
    let tables = tables(&flags.kernels)?;
    let mut runs = Vec::new();
    for &shape in &flags.shapes {
        for &bits in &flags.bits {
            runs.extend(runs_of(
                &Synthetic::new(shape, flags.group, bits, flags.levels)?,
                bits,
                &tables,
                flags,
            )?);
        }
    }
    let report = Report {
        cpu: machine::cpu(),
        group: flags.group.to_string(),
        levels: flags.levels.to_string(),
        runs,
    };
    output::text(&if flags.json { output::json(&report)? } else { in_words(&report) });
    Ok(Exit::Success)
}

/// The tables that the command line asks for.
fn tables(names: &[String]) -> Result<Vec<&'static Kernels>, Error> {
    match names {
        [] => Ok(vec![kernels::best()]),
        [all] if all == ALL => Ok(kernels::available().collect()),
        names => names.iter().map(|name| machine::kernels_called(name)).collect(),
    }
}

/// The runs of one matrix.
fn runs_of(
    matrix: &Synthetic,
    bits: u8,
    tables: &[&'static Kernels],
    flags: &BenchKernelsFlags,
) -> Result<Vec<Run>, Error> {
    let each = tables.iter().flat_map(|&table| flags.tokens.iter().map(move |&tokens| (table, tokens)));
    let mut trials: Vec<Trial<'_>> =
        each.map(|(table, tokens)| Trial::new(table, matrix, tokens)).collect::<Result<_, _>>()?;
    let times = match flags.once {
        true => {
            trials.iter_mut().for_each(counted);
            vec![None; trials.len()]
        }
        false => trial::time(flags.repeats, &mut trials).into_iter().map(Some).collect(),
    };
    let shape = matrix.shape();
    let run = |(trial, times): (&Trial<'_>, Option<[Seconds; 2]>)| Run {
        kernels: trial.kernels.name,
        kernel: trial.name,
        bits,
        rows: shape.rows(),
        cols: shape.cols(),
        tokens: trial.tokens,
        bytes: shape.section_bytes(),
        product: times.map(|[product, _]| product),
        quantization: times.map(|[_, quantization]| quantization),
    };
    Ok(trials.iter().zip(times).map(run).collect())
}

/// Quantization and product once each, with a boundary before, between and after them.
fn counted(trial: &mut Trial<'_>) {
    kernel_boundary(0);
    black_box(trial.quantize());
    kernel_boundary(1);
    trial.multiply();
    kernel_boundary(2);
}

/// Does nothing, in a function of its own: what a profiler looks for.
#[inline(never)]
fn kernel_boundary(number: usize) {
    black_box(number);
}

fn in_words(report: &Report) -> String {
    let mut table =
        Table::with_header(["kernel", "matrix", "tokens", "10^9 weights/s", "GB/s", "quantization"]);
    for run in &report.runs {
        let weights = (run.rows * run.cols * run.tokens) as f64;
        let rate =
            |amount: f64| run.product.map_or("-".to_owned(), |s| format!("{:.2}", amount / s.median / 1e9));
        let share = run.product.zip(run.quantization).map(|(product, quantization)| {
            100.0 * quantization.median / (product.median + quantization.median)
        });
        table.row([
            run.kernel.to_owned(),
            format!("{}x{}", run.rows, run.cols),
            run.tokens.to_string(),
            rate(weights),
            rate(run.bytes as f64),
            share.map_or("-".to_owned(), |share| format!("{share:.0} %")),
        ]);
    }
    format!(
        "{table}\n{}; groups of {}; {} levels; one thread. A weight counts once a token; GB are those of the packed matrix, once a product. \
         Quantization of the activations is its share of both together, and not in the rates.\n",
        report.cpu, report.group, report.levels
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_the_fastest_all_or_those_named() {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            tables(&names).map(|tables| tables.iter().map(|kernels| kernels.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]), Ok(vec![kernels::best().name]));
        assert_eq!(names(&["all"]), Ok(machine::available_kernels()));
        assert_eq!(names(&["scalar", "scalar"]), Ok(vec!["scalar"; 2]));
        let error = names(&["scalar", "abacus"]).expect_err("unknown");
        assert!(error.to_string().contains("abacus") && error.to_string().contains("scalar"), "{error}");
    }
}
