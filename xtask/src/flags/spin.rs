//! Options of learned rotations (SpinQuant).

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rescomp_quantizer::transforms::spinquant::{Estimator, Objective, SpinQuantOptions, Start};

use super::{GroupSize, at_least_one};

/// What learned rotations are learned with.
#[derive(Debug, Args)]
pub(crate) struct SpinFlags {
    /// Steps of learning, of `spinquant`.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) spin_steps: usize,
    /// How far rows of the rotations turn in the first step, in radians.
    #[arg(long, value_name = "RADIANS", default_value_t = 0.02)]
    pub(crate) spin_learning_rate: f64,
    /// Tokens of a step.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least_one)]
    pub(crate) spin_batch_tokens: usize,
    /// What is minimized.
    #[arg(long, value_enum, default_value_t = SpinObjective::Divergence)]
    pub(crate) spin_objective: SpinObjective,
    /// How gradients pass through the quantization.
    #[arg(long, value_enum, default_value_t = SpinEstimator::ScaledError)]
    pub(crate) spin_estimator: SpinEstimator,
    /// Where the rotations begin.
    #[arg(long, value_enum, default_value_t = SpinStart::Quarot)]
    pub(crate) spin_start: SpinStart,
    /// Folder of the state: learning goes on from what is there.
    #[arg(long, value_name = "DIR")]
    pub(crate) spin_state: Option<PathBuf>,
}

/// What is minimized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpinObjective {
    /// The KL divergence from the full-precision model.
    Divergence,
    /// The cross-entropy of the text.
    CrossEntropy,
}

/// How gradients pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpinEstimator {
    /// As they are.
    StraightThrough,
    /// With what errors gain as their groups' scales do.
    ScaledError,
}

/// Where rotations begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpinStart {
    /// At the random rotations of `quarot`.
    Quarot,
    /// In the model's own basis.
    Identity,
}

impl SpinFlags {
    /// As the quantizer takes them.
    pub(crate) fn options(&self, bits: u8, group: GroupSize) -> SpinQuantOptions {
        SpinQuantOptions {
            steps: self.spin_steps,
            learning_rate: self.spin_learning_rate,
            batch_tokens: self.spin_batch_tokens,
            objective: match self.spin_objective {
                SpinObjective::Divergence => Objective::Divergence,
                SpinObjective::CrossEntropy => Objective::CrossEntropy,
            },
            estimator: match self.spin_estimator {
                SpinEstimator::StraightThrough => Estimator::StraightThrough,
                SpinEstimator::ScaledError => Estimator::ScaledError,
            },
            start: match self.spin_start {
                SpinStart::Quarot => Start::Quarot,
                SpinStart::Identity => Start::Identity,
            },
            ..SpinQuantOptions::new(bits, group.into())
        }
    }
}
