//! Products counted instruction by instruction under QEMU, with cycles modelled for the same instructions.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use serde::Serialize;

use super::cycles::Modeller;
use super::flags::{Core, KernelsFlags, Shape};
use super::program::Program;
use super::runner::{self, Answer, Run};
use super::trace::{Blocks, Counter};
use crate::error::Error;
use crate::qemu::Emulator;
use crate::{command, host, output};

/// Boundaries that the runner calls for a product: before the quantization, between, and after the product.
const BOUNDARIES: usize = 3;

/// What was counted on one processor.
#[derive(Debug, Serialize)]
pub(crate) struct Counted {
    /// The processor.
    pub(crate) core: &'static str,
    /// QEMU's processor.
    pub(crate) emulated: &'static str,
    /// llvm-mca's model.
    pub(crate) model: &'static str,
    /// By shape, bits, tokens.
    pub(crate) runs: Vec<CountedRun>,
}

/// One product.
#[derive(Debug, Serialize)]
pub(crate) struct CountedRun {
    /// Which.
    #[serde(flatten)]
    pub(crate) run: Run,
    /// All that the product runs, to its return.
    pub(crate) product_cost: Cost,
    /// All that quantizing its activations runs.
    pub(crate) quantization_cost: Cost,
}

/// What something runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Executed instructions.
    pub(crate) instructions: u64,
    /// Modelled cycles, where there is a model.
    pub(crate) cycles: Option<f64>,
    /// Executed instructions by function, most first.
    pub(crate) functions: Vec<(String, u64)>,
}

/// Counts the kernels of the runner at `path` on one processor.
///
/// # Errors
/// `Exit::Missing` where QEMU lacks the processor, `Exit::Failed` where the runner fails or the log is not as expected.
pub(crate) fn count(
    path: &Path,
    core: Core,
    emulator: &Emulator,
    modeller: &mut Option<Modeller>,
    flags: &KernelsFlags,
) -> Result<Counted, Error> {
    emulator.knows(&[core.emulated().to_owned()])?;
    let program = Program::read(path)?;
    let bar = host::progress("counting", flags.shapes.len() * flags.bits.len());
    let mut runs = Vec::new();
    for &shape in &flags.shapes {
        for &bits in &flags.bits {
            bar.set_message(format!("{}: {bits} bits, {shape}", core.emulated()));
            let (answer, since) = traced(path, &program, core, emulator, flags, (shape, bits), &bar)?;
            for (run, blocks) in answer.runs.into_iter().zip(since.chunks_exact(BOUNDARIES)) {
                let mut cost = |blocks: &Blocks| cost(&program, blocks, modeller.as_mut(), core.model());
                runs.push(CountedRun {
                    quantization_cost: cost(&blocks[0])?,
                    product_cost: cost(&blocks[1])?,
                    run,
                });
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(Counted { core: core.name(), emulated: core.emulated(), model: core.model(), runs })
}

/// Runs the products of one matrix; the answer, and what was executed since each boundary.
fn traced(
    path: &Path,
    program: &Program,
    core: Core,
    emulator: &Emulator,
    flags: &KernelsFlags,
    (shape, bits): (Shape, u8),
    bar: &indicatif::ProgressBar,
) -> Result<(Answer, Vec<Blocks>), Error> {
    let mut command = emulator.tracing(core.emulated(), path);
    runner::ask(&mut command, flags, shape, bits);
    command.arg("--once");
    if !flags.kernels.is_empty() {
        command.args(["--kernels", &flags.kernels.join(",")]);
    }
    let shown = command::show(&command);
    bar.suspend(|| output::note(&format!("$ {shown}")));
    let failed = |why: &str| Error::failed(format!("cannot count: {shown}")).because(why);
    let io = |error: std::io::Error| failed(&error.to_string());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(io)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut counter = Counter::new(program);
    // The log comes with standard error; both are read at once, so that neither pipe fills up.
    let (report, read, ended) = std::thread::scope(|scope| {
        let report = scope.spawn(move || {
            let mut report = Vec::new();
            stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut report)).map(|_| report)
        });
        let read = each_line(stderr, &mut counter);
        // Nobody reads on. Where it has ended already there is nothing to end.
        let ended = if read.is_err() { child.kill() } else { Ok(()) };
        (report.join(), read, ended)
    });
    ended.map_err(io)?;
    let status = child.wait().map_err(io)?;
    read.map_err(|why| failed(&why))?;
    let report = report.map_err(|_| failed("its report was not read"))?.map_err(io)?;
    let answer = runner::answer(path, status, &report, &counter.said())?;
    let since = counter.finish().map_err(|why| failed(&why))?;
    if since.len() != BOUNDARIES * answer.runs.len() {
        let (found, runs) = (since.len(), answer.runs.len());
        return Err(failed(&format!(
            "{found} boundaries for {runs} products, {BOUNDARIES} expected for each"
        )));
    }
    Ok((answer, since))
}

/// Gives the counter each line. After an error nothing more is read.
fn each_line(log: Option<impl Read>, counter: &mut Counter<'_>) -> Result<(), String> {
    let Some(log) = log else { return Err("its log cannot be read".to_owned()) };
    let mut log = BufReader::with_capacity(1 << 16, log);
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).map_err(|error| error.to_string())? > 0 {
        counter.line(String::from_utf8_lossy(&line).trim_end())?;
        line.clear();
    }
    Ok(())
}

/// What blocks cost.
fn cost(
    program: &Program,
    blocks: &Blocks,
    modeller: Option<&mut Modeller>,
    model: &str,
) -> Result<Cost, Error> {
    let instructions = blocks.iter().map(|(block, times)| u64::from(block.instructions) * times).sum();
    let cycles = match modeller {
        None => None,
        Some(modeller) => {
            let words: Option<Vec<Vec<u32>>> =
                blocks.keys().map(|block| program.words(block.start, block.instructions)).collect();
            let words = words.ok_or_else(|| {
                Error::failed("instructions were executed that are not in the program's file")
            })?;
            let cycles = modeller.cycles(model, &words)?;
            Some(blocks.values().zip(cycles).map(|(times, cycles)| *times as f64 * cycles).sum())
        }
    };
    Ok(Cost { instructions, cycles, functions: program.by_function(blocks) })
}
