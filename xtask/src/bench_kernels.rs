//! `cargo xtask bench kernels`: what the integer matrix products cost, by kernel, bits and tokens.
//!
//! ```text
//! timed     on this machine by the runner's `bench-kernels`:                        weights and packed bytes a second
//! counted   the same command of the ARM runner under QEMU  -> trace   -> blocks:   instructions a weight
//!           its instructions through llvm-mca              -> cycles            :   modelled cycles a weight
//! ```
//! What can't be done here is left out, and the report says why.

mod counted;
mod cycles;
pub(crate) mod flags;
mod program;
mod runner;
mod table;
mod timed;
mod trace;

use std::path::Path;

use serde::Serialize;

use crate::error::Error;
use crate::qemu::Emulator;
use crate::system::Install;
use crate::target::{self, Target};
use crate::{output, root, runner as target_runner};
use counted::Counted;
use cycles::Modeller;
use flags::{KernelsFlags, Part};
use timed::Timed;

/// The target whose runner is counted.
const COUNTED_TARGET: &str = "aarch64";

/// The report of the command.
#[derive(Debug, Serialize)]
struct Report {
    /// Weights that share a scale.
    group: String,
    /// How the levels of 2 to 4 bits are spaced.
    levels: &'static str,
    timed: Option<Timed>,
    counted: Vec<Counted>,
    /// What counted, with versions.
    tools: Vec<String>,
    /// What was left out, and why.
    skipped: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Failed` where a runner does not build or fails, or a log or model can't be read. What is missing is no error but named in the report.
pub(crate) fn run(flags: &KernelsFlags) -> Result<(), Error> {
    let root = root::root()?;
    let mut report = Report {
        group: flags.group.to_string(),
        levels: flags.levels.name(),
        timed: None,
        counted: Vec::new(),
        tools: Vec::new(),
        skipped: Vec::new(),
    };
    if flags.wants(Part::Timed) {
        let timed = target::of_host()
            .and_then(|name| built(&root, name, flags))
            .and_then(|program| timed::time(&program, flags));
        report.timed = report.unless_missing("timings on this machine", timed)?;
    }
    if flags.wants(Part::Counted) {
        count(&root, flags, &mut report)?;
    }
    match flags.json {
        true => output::line(&output::json(&report)?),
        false => output::line(&table::text_of(&report)),
    }
    Ok(())
}

fn built(root: &Path, target: &str, flags: &KernelsFlags) -> Result<std::path::PathBuf, Error> {
    target_runner::build_program(root, &Target::load(target)?, Install::unless(flags.no_install), None)
}

fn count(root: &Path, flags: &KernelsFlags, report: &mut Report) -> Result<(), Error> {
    let emulator = Emulator::find(Install::unless(flags.no_install));
    let Some(emulator) = report.unless_missing("counts", emulator)? else { return Ok(()) };
    let Some(program) = report.unless_missing("counts", built(root, COUNTED_TARGET, flags))? else {
        return Ok(());
    };
    let mut modeller = report.unless_missing("modelled cycles", Modeller::find(flags.llvm))?;
    report.tools.push(emulator.version().to_owned());
    report.tools.extend(modeller.iter().map(Modeller::version));
    for &core in &flags.cores {
        let counted = counted::count(&program, core, &emulator, &mut modeller, flags);
        let counted = report.unless_missing(&format!("counts for {}", core.name()), counted)?;
        report.counted.extend(counted);
    }
    Ok(())
}

impl Report {
    /// The result, or nothing and a line of the report where a tool is missing.
    fn unless_missing<T>(&mut self, what: &str, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.exit() == crate::error::Exit::Missing => {
                output::note(&format!("note: {what} are left out: {error}"));
                self.skipped.push(format!("{what}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
