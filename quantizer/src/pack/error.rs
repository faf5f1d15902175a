//! Why packing stopped.

use crate::calibrate::CalibrationError;
use crate::checkpoint::CheckpointError;
use crate::dense::DenseError;
use crate::encode::EncodeError;
use crate::evaluate_images::ImageError;
use rescomp_formats::check_windows::CheckWindowsError;
use rescomp_formats::error::ContainerError;
use rescomp_formats::section::SectionName;
use rescomp_runtime::error::RuntimeError;

/// Why packing stopped.
#[derive(Debug, thiserror::Error)]
pub enum PackFailure {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Calibration stopped.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A quantized matrix has no encoding.
    #[error("{section}: {cause}")]
    Encode {
        /// The matrix.
        section: SectionName,
        /// Why.
        cause: EncodeError,
    },
    /// The full-precision model could not run.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// The check text is too short.
    #[error("the check needs {needed} tokens after the calibration windows, found {found}")]
    CheckTokens {
        /// Tokens needed.
        needed: usize,
        /// Tokens there.
        found: usize,
    },
    /// There is no text for the check of an encoder.
    #[error("the check needs one text or more that follows the calibration, found none")]
    CheckTexts,
    /// There are no images for the check of a classifier.
    #[error("the check needs one image or more that the calibration has not seen, found none")]
    CheckImages,
    /// The container could not be held against the full-precision model.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The check windows could not be written.
    #[error("check windows: expected {}, found {}", .0.expected, .0.found)]
    CheckWindows(CheckWindowsError),
    /// The container could not be written, or what was written is refused.
    #[error("container: {0}")]
    Container(#[from] ContainerError),
    /// The container could not run.
    #[error("the packed container does not run: {0}")]
    Run(#[from] RuntimeError),
    /// A section was asked for that nothing made.
    #[error("nothing made the section {0}")]
    Section(SectionName),
}
