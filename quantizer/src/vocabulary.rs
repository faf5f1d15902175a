//! The matrices with a row a token: the embedding, and the head.
//!
//! A head is a linear layer whose inputs are the normalized final hidden states: their H says which errors reach the logits. An
//! embedding is only looked up; which of its errors matter later is not known, so all directions count alike. One matrix for both
//! (a tied head) has both losses, `e H e^T` and a share of `|e|^2`; both are proportional to how often a row's token occurs, so
//! that their ratio is the same for all rows: a damping.
//!
//! An embedding is quantized before the blocks, which can then correct for its errors; a head of its own after them, as another
//! linear layer with two streams ([`crate::calibrate`]), so that it corrects for what is left of theirs.

use crate::bands::Bands;
use crate::checkpoint::Matrix;
use crate::choose::Setting;
use crate::methods::{self, Method, MethodError, RefineLimits, Solution, Start};
use crate::moments::Moments;
use crate::plan::{BlockPlan, MatrixFormat, Vocabulary};
use faer::{Mat, MatRef};
use rescomp_formats::section::{SectionKind, SectionName};
use serde::Serialize;

/// What an error of the embedding costs beside one of the head, as a share of H's mean diagonal: measured for tied heads
/// (docs/methods.md), 0.5 and 2 are about as good.
const EMBEDDING_SHARE: f64 = 1.0;
/// Sweeps of refinement where the number is not given.
const SWEEPS: usize = 8;

/// A solved embedding.
#[derive(Clone, Debug)]
pub struct SolvedEmbedding {
    /// Levels and scales.
    pub solution: Solution<f64>,
    /// What it loses, on the scale of the moments.
    pub loss: f64,
    /// Why it was rounded to nearest instead of solved; `None` where it was solved as asked.
    pub rounded_because: Option<MethodError>,
}

/// Solves an embedding. `moments` are those of the final hidden states where it is the head as well; `None` for an embedding that
/// is no head. Where the moments have no solution it is rounded to nearest.
///
/// # Errors
/// Those of the solvers that are not about the data.
pub fn solve(
    weights: MatRef<'_, f64>,
    moments: Option<&Moments>,
    plan: &BlockPlan,
    format: MatrixFormat,
) -> Result<SolvedEmbedding, MethodError> {
    let solver = plan.solver_for(format);
    let hessian = measure(moments, weights.ncols());
    let mut rounded_because = None;
    let mut solution = None;
    if solver.configuration.is_some() {
        match compensated(weights, hessian.as_ref(), plan, format) {
            Err(cause) if cause.is_about_the_data() => rounded_because = Some(cause),
            solved => solution = Some(solved?),
        }
    }
    let solution = match solution {
        Some(solution) => solution,
        None => methods::rtn::round_to_nearest(weights, &solver.options)?,
    };
    let loss = measured(solution.loss(weights, hessian.as_ref(), None))?;
    Ok(SolvedEmbedding { solution, loss, rounded_because })
}

/// The sweep and its refinement. Without drift there is nothing to correct for, so it is the same for all methods.
fn compensated(
    weights: MatRef<'_, f64>,
    hessian: MatRef<'_, f64>,
    plan: &BlockPlan,
    format: MatrixFormat,
) -> Result<Solution<f64>, MethodError> {
    let options = plan.solver_for(format).options;
    let prepared = methods::prepare(hessian, None, &options)?;
    let configuration = Method::Gptq.configuration(format.bits);
    let mut solution = methods::solve(weights, &prepared, configuration.as_ref(), &options)?;
    let sweeps = match plan.tuning.refine {
        Setting::Auto => SWEEPS,
        Setting::Fixed(sweeps) => sweeps,
    };
    if sweeps > 0 {
        let target = prepared.target(weights, Start::Unchanged)?;
        let (scales, limits) = (options.row_format(weights.ncols()), RefineLimits::sweeps(sweeps));
        methods::refine(&mut solution, target.as_ref(), &prepared, scales, limits)?;
    }
    Ok(solution)
}

/// Moments beyond the range of numbers measure nothing; the weights are finite.
fn measured(loss: Result<f64, MethodError>) -> Result<f64, MethodError> {
    match loss {
        Err(MethodError::NotFinite { .. }) => Ok(f64::NAN),
        other => other,
    }
}

/// What errors cost: H and the embedding's share, or the same in all directions.
fn measure(moments: Option<&Moments>, n: usize) -> Mat<f64> {
    let Some(moments) = moments else { return Mat::identity(n, n) };
    let mean = (0..n).map(|i| moments.hessian[(i, i)]).sum::<f64>() / n as f64;
    let share = |i, j| if i == j { EMBEDDING_SHARE * mean } else { 0.0 };
    Mat::from_fn(n, n, |i, j| moments.hessian[(i, j)] + share(i, j))
}

/// A quantized embedding or head.
#[derive(Clone, Debug)]
pub struct VocabularyMatrix {
    /// Which one: the embedding, also where it is the head as well, or the head.
    pub kind: SectionKind,
    /// The band of the embedding, where it has several.
    pub band: Option<u8>,
    /// Its bits and groups.
    pub format: MatrixFormat,
    /// Levels and scales.
    pub solution: Solution<f64>,
    /// The report's line.
    pub report: VocabularyReport,
}

/// How well the quantization of an embedding or a head went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VocabularyReport {
    /// Name of the kind.
    pub kind: &'static str,
    /// The band of the embedding, where it has several.
    pub band: Option<u8>,
    /// Its bits and groups.
    pub format: MatrixFormat,
    /// Loss over what setting all weights to 0 would lose, in the measure that was minimized.
    pub relative_error: f64,
    /// What is doubtful about it: too few tokens, or rounding to nearest where nothing could be solved.
    pub warnings: Vec<String>,
}

impl VocabularyMatrix {
    /// Quantizes an embedding by [`solve`], each band by itself: rows are independent of each other.
    ///
    /// # Errors
    /// Those of the solvers.
    pub fn embedding(
        matrix: &Matrix,
        moments: Option<&Moments>,
        plan: &BlockPlan,
        formats: &Vocabulary,
    ) -> Result<Vec<Self>, MethodError> {
        let of_band = |(band, format): (Option<u8>, MatrixFormat)| {
            let part;
            let matrix = match (&formats.bands, band) {
                (Some(bands), Some(band)) => {
                    part = bands.part(matrix, band);
                    &part
                }
                _ => matrix,
            };
            Self::new(matrix, moments, plan, band, format)
        };
        formats.embedding_matrices().map(of_band).collect()
    }

    fn new(
        matrix: &Matrix,
        moments: Option<&Moments>,
        plan: &BlockPlan,
        band: Option<u8>,
        format: MatrixFormat,
    ) -> Result<Self, MethodError> {
        let kind = SectionKind::Embedding;
        let weights = Mat::from_fn(matrix.rows, matrix.cols, |i, j| f64::from(matrix.row(i)[j]));
        let SolvedEmbedding { solution, loss, rounded_because } =
            solve(weights.as_ref(), moments, plan, format)?;
        let nothing = vec![0.0; matrix.rows * matrix.cols];
        let nothing = MatRef::from_row_major_slice(&nothing, matrix.rows, matrix.cols);
        let hessian = measure(moments, matrix.cols);
        let power = measured(methods::asymmetric_loss(weights.as_ref(), nothing, hessian.as_ref(), None))?;
        let relative_error = if power == 0.0 { 0.0 } else { loss / power };
        let warning = |cause| format!("{}: rounded to nearest, because {cause}", kind.name());
        let warnings = rounded_because.map(warning).into_iter().collect();
        let report = VocabularyReport { kind: kind.name(), band, format, relative_error, warnings };
        Ok(VocabularyMatrix { kind, band, format, solution, report })
    }

    /// Its section.
    pub fn name(&self) -> SectionName {
        SectionName { kind: self.kind, layer: self.band.map(u16::from) }
    }

    /// The values that the model runs with.
    pub fn values(&self) -> Matrix {
        let data = self.solution.values().into_iter().map(|value| value as f32).collect();
        Matrix { rows: self.solution.rows, cols: self.solution.columns, data }
    }
}

/// The values of a whole embedding, from those of its matrices among `matrices`; `None` where it is not among them.
pub fn embedding_values(matrices: &[VocabularyMatrix], bands: Option<&Bands>) -> Option<Matrix> {
    let mut parts = matrices.iter().filter(|matrix| matrix.kind == SectionKind::Embedding);
    let Some(bands) = bands else { return parts.next().map(VocabularyMatrix::values) };
    let rows = bands.of_token().len();
    let mut whole: Option<Matrix> = None;
    for part in parts {
        let values = part.values();
        let cols = values.cols;
        let whole = whole.get_or_insert_with(|| Matrix { rows, cols, data: vec![0.0; rows * cols] });
        bands.put(whole, &values, part.band.unwrap_or(0));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{GroupSize, SolverOptions};

    const ROWS: usize = 12;
    const N: usize = 32;

    fn noise(i: usize) -> f32 {
        ((i * 2_654_435_761) % 100_003) as f32 / 50_001.5 - 1.0
    }

    fn embedding() -> Matrix {
        Matrix { rows: ROWS, cols: N, data: (0..ROWS * N).map(|i| noise(1000 + i)).collect() }
    }

    /// Of hidden states whose neighbours are alike, `size` times as large.
    fn moments(size: f32) -> Moments {
        let state = |i: usize| size * (noise(i) + if i.is_multiple_of(N) { 0.0 } else { 0.9 * noise(i - 1) });
        let states: Vec<f32> = (0..500 * N).map(state).collect();
        Moments::new(&states, &states, N)
    }

    fn plan(method: Method) -> BlockPlan {
        BlockPlan::new(method, SolverOptions::for_container(3, GroupSize::elements(16).unwrap()))
    }

    fn quantized(method: Method, moments: Option<&Moments>) -> VocabularyMatrix {
        let format = MatrixFormat::plain(3, GroupSize::elements(16).unwrap());
        VocabularyMatrix::new(&embedding(), moments, &plan(method), None, format).unwrap()
    }

    #[test]
    fn solving_loses_less_than_rounding_in_the_measure_that_counts() {
        let moments = moments(1.0);
        for moments in [None, Some(&moments)] {
            let (rounded, solved) =
                (quantized(Method::Rtn, moments), quantized(Method::RescompExact, moments));
            let (rounded, solved) = (rounded.report.relative_error, solved.report.relative_error);
            assert!(solved > 0.0 && solved < rounded, "{solved} {rounded}");
        }
        // What is best for a head is not what is best for an embedding alone.
        let (tied, alone) =
            (quantized(Method::RescompExact, Some(&moments)), quantized(Method::RescompExact, None));
        assert_ne!(tied.solution, alone.solution);
        let loss = |matrix: &VocabularyMatrix| {
            let weights = Mat::from_fn(ROWS, N, |i, j| f64::from(embedding().row(i)[j]));
            matrix.solution.loss(weights.as_ref(), measure(Some(&moments), N).as_ref(), None).unwrap()
        };
        assert!(loss(&tied) < loss(&alone), "{} {}", loss(&tied), loss(&alone));
    }

    #[test]
    fn the_scale_of_the_moments_changes_nothing() {
        let (one, eight) = (moments(1.0), moments(8.0));
        let of = |moments| quantized(Method::RescompExact, Some(moments));
        assert_eq!(of(&one).solution, of(&eight).solution);
    }

    #[test]
    fn what_has_no_solution_is_rounded_and_says_so() {
        for size in [0.0, 1e30] {
            let matrix = quantized(Method::RescompExact, Some(&moments(size)));
            let options = plan(Method::RescompExact).solver_for(matrix.format).options;
            let weights = Mat::from_fn(ROWS, N, |i, j| f64::from(embedding().row(i)[j]));
            assert_eq!(matrix.solution, methods::rtn::round_to_nearest(weights.as_ref(), &options).unwrap());
            let [warning] = &matrix.report.warnings[..] else { panic!("{:?}", matrix.report) };
            assert!(warning.starts_with("embedding: rounded to nearest, because "), "{warning}");
        }
        assert!(quantized(Method::RescompExact, None).report.warnings.is_empty());
    }
}
