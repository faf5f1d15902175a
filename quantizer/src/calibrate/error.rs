//! Why calibration stops.

use crate::checkpoint::CheckpointError;
use crate::dense::DenseError;
use crate::journal::JournalError;
use crate::methods::MethodError;
use rescomp_runtime::error::RuntimeError;

/// Why calibration stopped.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The forward stopped.
    #[error("calibration: {0}")]
    Forward(#[from] RuntimeError),
    /// A finished block could not be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The quantized stream asked for the products of a set that the full-precision stream did not, or twice.
    #[error("layer {layer} {set}: the full-precision stream has no such input")]
    Unmatched {
        /// The layer.
        layer: usize,
        /// The set.
        set: &'static str,
    },
    /// A solver refused the embedding or the head.
    #[error("{kind}: {cause}")]
    Vocabulary {
        /// Which one.
        kind: &'static str,
        /// Why.
        cause: MethodError,
    },
    /// A solver refused a matrix.
    #[error("layer {layer} {kind}: {cause}")]
    Method {
        /// The layer.
        layer: usize,
        /// The matrix, or the set where the moments are at fault.
        kind: &'static str,
        /// Why.
        cause: MethodError,
    },
}

impl From<DenseError> for CalibrationError {
    fn from(error: DenseError) -> Self {
        match error {
            DenseError::Checkpoint(cause) => CalibrationError::Checkpoint(cause),
            DenseError::Forward { cause, .. } => CalibrationError::Forward(cause),
        }
    }
}
