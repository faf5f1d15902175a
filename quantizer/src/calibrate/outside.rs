//! The matrices outside of the blocks: the embedding, what makes tokens of an image's patches, and the head.

use super::{Calibration, CalibrationError, MatrixReport, Progress, Run, check_finite};
use crate::checkpoint::{Checkpoint, Matrix};
use crate::dense::{DenseLayer, Streams, patch_inputs};
use crate::inputs::Inputs;
use crate::moments::Moments;
use crate::plan::{BlockPlan, MatrixFormat, Vocabulary};
use crate::vocabulary::{self, VocabularyMatrix, VocabularyReport};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::{BlockWeights, LinearSet};

/// Tokens an input of a tied head, from which its Hessian is taken.
const HEAD_TOKENS_PER_INPUT: usize = 256;

/// Quantizes what is in front of the blocks, and returns the values that the quantized stream begins with, too.
pub(super) fn entry(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    original: &Matrix,
    plan: &BlockPlan,
    formats: &Vocabulary,
    inputs: Inputs<'_>,
    run: &mut Run<'_>,
) -> Result<(Vec<VocabularyMatrix>, Matrix), CalibrationError> {
    match inputs {
        Inputs::Windows { windows, positions } => {
            (run.progress)(Progress::Phase("embedding"));
            let few = enough_for_the_head(windows, positions, original.cols);
            let few = Streams::new(machine, checkpoint, original, &few, positions)?;
            let made = embedding(checkpoint, original, plan, formats, few)?;
            let values = vocabulary::embedding_values(&made, formats.bands.as_ref());
            Ok((made, values.unwrap_or_else(|| original.clone())))
        }
        Inputs::Images(images) => {
            (run.progress)(Progress::Phase("patches"));
            let format = formats.embedding.first().copied().unwrap_or(formats.head);
            // What a patch is, no error of the model changes: both streams have the same.
            let numbers = patch_inputs(&checkpoint.spec, images)?;
            let states = [numbers.clone(), numbers];
            let made = linear(SectionKind::Patches, original, plan, format, &states, images.len())?;
            let values = made.values();
            Ok((vec![made], values))
        }
    }
}

/// Windows that the moments of the final hidden states are taken of, evenly spaced: a pass of the full-precision model of its own, and
/// several times the tokens that its inputs need are as good as all.
fn enough_for_the_head(windows: &[Vec<u32>], positions: usize, inputs: usize) -> Vec<Vec<u32>> {
    let count = (HEAD_TOKENS_PER_INPUT * inputs).div_ceil(positions).min(windows.len());
    (0..count).map(|index| windows[index * windows.len() / count].clone()).collect()
}

/// Quantizes the embedding: where it is the head as well, by the final hidden states of `full`, which starts at the first block.
fn embedding(
    checkpoint: &Checkpoint,
    original: &Matrix,
    plan: &BlockPlan,
    formats: &Vocabulary,
    mut full: Streams<'_>,
) -> Result<Vec<VocabularyMatrix>, CalibrationError> {
    let mut moments = None;
    if checkpoint.spec.tied_head && plan.calibrates() {
        for layer in 0..checkpoint.spec.layers as usize {
            let weights = checkpoint.layer(layer)?;
            full.run_block(&mut Checked(DenseLayer { weights: &weights, layer }))?;
        }
        let hidden = full.all_hidden_states(&checkpoint.final_norm()?);
        if !hidden.iter().all(|value| value.is_finite()) {
            return Err(RuntimeError::NotFinite { layer: None, set: None }.into());
        }
        moments = Some(Moments::new(&hidden, &hidden, original.cols));
    }
    let kind = SectionKind::Embedding.name();
    VocabularyMatrix::embedding(original, moments.as_ref(), plan, formats)
        .map_err(|cause| CalibrationError::Vocabulary { kind, cause })
}

/// Quantizes a matrix outside of the blocks as a linear layer: a head of its own, whose `inputs` are the final hidden states of the quantized and
/// of the full-precision stream, or what makes tokens of patches.
pub(super) fn linear(
    kind: SectionKind,
    matrix: &Matrix,
    plan: &BlockPlan,
    format: MatrixFormat,
    [input, full]: &[Vec<f32>; 2],
    windows: usize,
) -> Result<VocabularyMatrix, CalibrationError> {
    let failed = |cause| CalibrationError::Vocabulary { kind: kind.name(), cause };
    if !input.iter().chain(full).all(|value| value.is_finite()) {
        return Err(RuntimeError::NotFinite { layer: None, set: None }.into());
    }
    let calibration = Calibration::new(plan, input, full, matrix.cols, windows).map_err(failed)?;
    let (weights, solver) = (matrix.view(), plan.solver_for(format));
    let problem = (weights, &solver);
    let choices = calibration.choose([problem].into_iter(), plan).map_err(|(_, cause)| failed(cause))?;
    let solved = calibration.solve(weights, &choices.first().copied().flatten(), &solver).map_err(failed)?;
    let report = calibration.report(0, kind, weights, &solved, plan).map_err(failed)?;
    let MatrixReport { relative_error, warnings, .. } = report;
    // It was reported as a matrix of a block, and is in none.
    let warnings =
        warnings.iter().map(|text| text.strip_prefix("layer 0 ").unwrap_or(text).to_owned()).collect();
    let report = VocabularyReport { kind: kind.name(), band: None, format, relative_error, warnings };
    Ok(VocabularyMatrix { kind, band: None, format, solution: solved.solution, report })
}

/// A full-precision block that refuses what is not finite by the name of its layer.
struct Checked<'a>(DenseLayer<'a>);

impl BlockWeights for Checked<'_> {
    type Error = RuntimeError;

    fn vector(&self, kind: SectionKind) -> Result<&[f32], RuntimeError> {
        self.0.vector(kind)
    }

    fn apply(
        &mut self,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), RuntimeError> {
        check_finite(self.0.layer, set, input)?;
        self.0.apply(set, tokens, input, outputs)
    }
}
