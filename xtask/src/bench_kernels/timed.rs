//! Products timed on this machine.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::flags::KernelsFlags;
use super::runner::{self, Run};
use crate::error::Error;
use crate::{command, host, output};

/// What was timed.
#[derive(Debug, Serialize)]
pub(crate) struct Timed {
    /// The processor.
    pub(crate) cpu: String,
    /// By shape, bits, kernels, tokens.
    pub(crate) runs: Vec<Run>,
}

/// Times the kernels with the runner `program`.
///
/// # Errors
/// `Exit::Failed` with what the runner said, where it failed.
pub(crate) fn time(program: &Path, flags: &KernelsFlags) -> Result<Timed, Error> {
    let kernels = if flags.kernels.is_empty() { "all".to_owned() } else { flags.kernels.join(",") };
    let bar = host::progress("timing", flags.shapes.len() * flags.bits.len());
    let mut timed = Timed { cpu: String::new(), runs: Vec::new() };
    for &shape in &flags.shapes {
        for &bits in &flags.bits {
            bar.set_message(format!("{bits} bits, {shape}"));
            let mut command = Command::new(program);
            runner::ask(&mut command, flags, shape, bits);
            command.args(["--kernels", &kernels, "--repeats", &flags.repeats.to_string()]);
            bar.suspend(|| output::note(&format!("$ {}", command::show(&command))));
            let result = command.output().map_err(|error| {
                Error::failed(format!("cannot run {}", program.display())).caused_by(&error)
            })?;
            let said = String::from_utf8_lossy(&result.stderr);
            let answer = runner::answer(program, result.status, &result.stdout, &said)?;
            timed.cpu = answer.cpu;
            timed.runs.extend(answer.runs);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(timed)
}
