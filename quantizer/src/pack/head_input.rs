//! What the input of a tied head passes where the stream was rotated: one matrix, hidden x hidden.

use super::{PackFailure, PackOptions};
use crate::calibrate::CalibrationError;
use crate::checkpoint::Matrix;
use crate::encode::encode;
use crate::methods::{self, GroupSize, MethodError};
use crate::plan::MatrixFormat;
use crate::vocabulary::VocabularyReport;
use rescomp_formats::container::write::Contents;
use rescomp_formats::section::{SectionKind, SectionName};

/// Bits and groups of what the input of a tied head passes: its errors reach every logit, and it is small.
const HEAD_INPUT: u8 = 8;

/// The format of the head's input, for a layout that has groups.
pub(super) fn head_input_format() -> MatrixFormat {
    MatrixFormat::plain(HEAD_INPUT, GroupSize::elements(64).unwrap_or(GroupSize::Row))
}

/// Encodes what the input of a tied head passes, rounded to nearest.
pub(super) fn head_input(
    matrix: &Matrix,
    options: &PackOptions,
) -> Result<(Contents, VocabularyReport), PackFailure> {
    let (kind, format) = (SectionKind::HeadInput, head_input_format());
    let section = SectionName { kind, layer: None };
    let failed = |cause: MethodError| CalibrationError::Vocabulary { kind: kind.name(), cause };
    let (weights, solver) = (methods::widened(matrix.view()), options.plan.solver_for(format));
    let solution = methods::rtn::round_to_nearest(weights.as_ref(), &solver.options).map_err(failed)?;
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let stored = solution.values();
    let lost =
        squares(&mut stored.iter().zip(&matrix.data).map(|(stored, value)| stored - f64::from(*value)));
    let power = squares(&mut matrix.data.iter().map(|value| f64::from(*value)));
    let relative_error = if power > 0.0 { lost / power } else { 0.0 };
    let report =
        VocabularyReport { kind: kind.name(), band: None, format, relative_error, warnings: Vec::new() };
    let contents =
        encode(&solution, format, options.layout).map_err(|cause| PackFailure::Encode { section, cause })?;
    Ok((contents, report))
}
