//! The runner's command `bench-kernels`: how it is asked, and what it answers.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::flags::{KernelsFlags, Shape};
use crate::error::Error;

/// What `rescomp bench-kernels --json` prints.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Answer {
    /// The processor.
    pub(crate) cpu: String,
    /// In the order in which they ran.
    pub(crate) runs: Vec<Run>,
}

/// One product.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    /// The table of kernels.
    pub(crate) kernels: String,
    /// The product's full name.
    pub(crate) kernel: String,
    /// Bits a weight.
    pub(crate) bits: u8,
    /// Outputs.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) cols: usize,
    /// Tokens at once.
    pub(crate) tokens: usize,
    /// Bytes of the packed matrix.
    pub(crate) bytes: usize,
    /// Time of a product, where it was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) product: Option<Seconds>,
    /// Time of the quantization of its activations, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quantization: Option<Seconds>,
}

impl Run {
    /// Weights of the matrix, once a token.
    pub(crate) fn weights(&self) -> f64 {
        self.rows as f64 * self.cols as f64 * self.tokens as f64
    }
}

/// Seconds that a call takes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Seconds {
    /// The median.
    pub(crate) median: f64,
    /// The least.
    pub(crate) fastest: f64,
    /// The most.
    pub(crate) slowest: f64,
}

/// Adds the command and its options for one shape and width.
pub(crate) fn ask(command: &mut Command, flags: &KernelsFlags, shape: Shape, bits: u8) {
    let tokens: Vec<String> = flags.tokens.iter().map(usize::to_string).collect();
    command.args(["bench-kernels", "--json", "--shapes", &shape.to_string(), "--bits", &bits.to_string()]);
    command.args(["--group", &flags.group.to_string(), "--tokens", &tokens.join(",")]);
    command.args(["--levels", flags.levels.name()]);
}

/// Reads the answer.
///
/// # Errors
/// `Exit::Failed` with what the program said, where it failed or answered something else.
pub(crate) fn answer(
    program: &Path,
    status: std::process::ExitStatus,
    stdout: &[u8],
    said: &str,
) -> Result<Answer, Error> {
    let failed = |why: String| Error::failed(format!("{} bench-kernels {why}", program.display()));
    if !status.success() {
        return Err(failed(format!("ended with {status}")).because(said.trim()));
    }
    serde_json::from_slice(stdout).map_err(|error| failed("printed no report".to_owned()).caused_by(&error))
}
