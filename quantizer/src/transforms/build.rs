//! Making a transform by its name.

use super::spinquant::{self, SpinQuantError, SpinQuantOptions, StepReport};
use super::{Transform, TransformKind, smooth};
use crate::calibrate::CalibrationError;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::plan::BlockPlan;
use rescomp_runtime::Machine;

/// Why a checkpoint could not be transformed.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The checkpoint cannot take it, or could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What it is chosen by could not be measured.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// No rotations could be learned.
    #[error(transparent)]
    SpinQuant(#[from] SpinQuantError),
}

/// The checkpoint under the transform of this kind, chosen on the first `positions` tokens of the calibration `windows` where there is something
/// to choose. `progress` hears of each layer that was looked at, or of each step of learning.
///
/// # Errors
/// [`TransformError`].
pub fn build(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    kind: TransformKind,
    windows: &[Vec<u32>],
    positions: usize,
    plan: &BlockPlan,
    progress: &mut dyn FnMut(usize),
) -> Result<Checkpoint, TransformError> {
    let transform = match kind {
        TransformKind::None => return Ok(checkpoint.clone()),
        TransformKind::Smooth => smooth(machine, checkpoint, windows, positions, plan, progress)?,
        TransformKind::Spinquant => {
            let options = SpinQuantOptions::new(plan.options.bits, plan.options.group);
            let mut each = |report: &StepReport, _| progress(report.step);
            spinquant::learn(machine, checkpoint, windows, positions, &options, None, &mut each)?.transform
        }
        TransformKind::Quarot => Transform::quarot(&checkpoint.spec),
        TransformKind::QuarotOnline => Transform::quarot_online(&checkpoint.spec),
    };
    Ok(checkpoint.transformed(transform)?)
}
