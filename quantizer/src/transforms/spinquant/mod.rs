//! SpinQuant: rotations that are learned (Liu et al., arXiv 2405.16406), in front of any method of quantization, free at run time.
//!
//! ```text
//! R1, R2 <- where they start (QuaRot's random Hadamard rotations, or none)
//! for each step:
//!     weights <- fold R1 and R2 into the block's matrices, round them to nearest  (forward, fake_quantize)
//!     loss <- of the model with these weights, on some training windows           (loss)
//!     R1, R2 <- Cayley SGD                                                        (cayley)
//! R1, R2 with the least loss on held-out windows
//! ```
//! R1 turns the residual stream, R2 the values of each layer's heads; neither leaves anything to do at run time. Gradients are those of
//! candle-core, in f32; rotations are f64. Every eighth window is held out, so what comes out is never worse there than the start.
//!
//! The same windows and options give the same rotations, bit for bit, on the same machine: every sum has one order, in pools of any number of
//! threads. Where candle-core cuts its products follows from the machine's processors or `RAYON_NUM_THREADS`.

mod cayley;
mod fake_quantize;
mod forward;
mod loss;
mod operations;
mod state;
#[cfg(test)]
mod tests;
mod training;

pub use fake_quantize::Estimator;
pub use loss::Objective;
pub use training::learn;

use super::Transform;
use crate::checkpoint::CheckpointError;
use crate::dense::DenseError;
use crate::methods::{GroupSize, MethodError};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Where rotations begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At [`Transform::quarot`]'s.
    Quarot,
    /// At the identity: the model's own basis.
    Identity,
}

/// What decides which rotations are learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpinQuantOptions {
    /// Bits of the weights in the forward: 2, 3, 4, 5, 6 or 8.
    pub bits: u8,
    /// Their groups.
    pub group: GroupSize,
    /// Steps of descent.
    pub steps: usize,
    /// How far the rows of every rotation turn in the first step: radians, a root mean square. Falls to 0 in a line. Above 0, at most 1.
    pub learning_rate: f64,
    /// Share of a step's direction that the next one keeps, from 0 to below 1.
    pub momentum: f64,
    /// Tokens of a step, rounded up to windows.
    pub batch_tokens: usize,
    /// Of the order of windows.
    pub seed: u64,
    /// What is minimized.
    pub objective: Objective,
    /// How gradients pass through the quantization.
    pub estimator: Estimator,
    /// Where rotations begin.
    pub start: Start,
    /// After so many steps the held-out windows are run, and the state is written: at least 1.
    pub evaluate_every: usize,
}

impl SpinQuantOptions {
    /// Settings to begin with: they have not been tuned (docs/methods.md).
    pub const fn new(bits: u8, group: GroupSize) -> SpinQuantOptions {
        SpinQuantOptions {
            bits,
            group,
            steps: 100,
            learning_rate: 0.02,
            momentum: 0.9,
            batch_tokens: 2048,
            seed: 0,
            objective: Objective::Divergence,
            estimator: Estimator::ScaledError,
            start: Start::Quarot,
            evaluate_every: 10,
        }
    }
}

/// The file that learning is written to, and goes on from where it is there.
#[derive(Clone, Copy, Debug)]
pub struct StateFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// Whether it is read; otherwise learning begins anew, and the file is replaced.
    pub resume: bool,
    /// Tells one build of the program from another, which may compute other bits.
    pub program: &'a str,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps that were taken, this one included.
    pub step: usize,
    /// Mean loss of the step's training tokens before it, in nats; none at the start.
    pub loss: Option<f64>,
    /// Mean loss of the held-out tokens behind it, where they were run.
    pub held_out: Option<f64>,
}

/// What learning brought: mean losses in nats a token, of the model with weights rounded to nearest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpinQuantReport {
    /// Windows that were learned from.
    pub training_windows: usize,
    /// Windows that were held out.
    pub held_out_windows: usize,
    /// Of held-out windows, where the rotations start.
    pub held_out_start: f64,
    /// Of the same with the rotations that are returned: never more.
    pub held_out_best: f64,
    /// Of training windows, as many as are held out, where the rotations start.
    pub training_start: f64,
    /// Of the same with the rotations that are returned.
    pub training_best: f64,
    /// Steps that led to these; 0: the start.
    pub best_step: usize,
    /// The step that a state's file was resumed at, where there was one.
    pub resumed_at: Option<usize>,
    /// The largest entry of `R^T R - I` of any rotation that is returned.
    pub distance_from_orthogonal: f64,
    /// Every step.
    pub steps: Vec<StepReport>,
}

/// Learned rotations.
#[derive(Clone, Debug)]
pub struct Learned {
    /// To be folded into the checkpoint ([`Checkpoint::transformed`](crate::checkpoint::Checkpoint::transformed)).
    pub transform: Transform,
    /// How they were found.
    pub report: SpinQuantReport,
}

/// Why no rotations were learned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpinQuantError {
    /// The checkpoint could not be read, its stream cannot be rotated, or rotations of its architecture cannot be learned.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The full-precision model could not be run.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// Bits or groups that no grid has.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// An option has a value that cannot be.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// What would have been accepted.
        expected: &'static str,
        /// What was asked for.
        found: String,
    },
    /// There are too few windows: some are learned from, others held out.
    #[error("expected at least 2 windows to learn rotations from, found {found}")]
    Windows {
        /// How many.
        found: usize,
    },
    /// A window is too short, or has a token that the model has not.
    #[error("window {window}: expected {expected}, found {found}")]
    Window {
        /// Which one, counted from 0.
        window: usize,
        /// What it should have.
        expected: String,
        /// What it has.
        found: String,
    },
    /// The forward or its gradient failed.
    #[error("learning rotations, step {step}: {cause}")]
    Forward {
        /// Steps that were taken.
        step: usize,
        /// What the autodiff crate said.
        cause: candle_core::Error,
    },
    /// The loss is not a number any more.
    #[error("learning rotations, step {step}: the loss is {loss}")]
    Diverged {
        /// Steps that were taken.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// The state's file could not be read or written.
    #[error("cannot {doing} {path}: {cause}")]
    Disk {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file is damaged, or not a state.
    #[error("{path}: {why}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The state is of another model, other windows or settings.
    #[error("{path} was begun with other settings: {}", .differences.join("; "))]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// What differs, a setting each.
        differences: Vec<String>,
    },
}
