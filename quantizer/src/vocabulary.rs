//! The matrices with a row a token: the embedding, and the head.
//!
//! A head is a linear layer whose inputs are the normalized final hidden states: their H says which errors reach the logits. An
//! embedding is only looked up; which of its errors matter later is not known, so all directions count alike. One matrix for both
//! (a tied head) has both losses, `e H e^T` and a share of `|e|^2`; both are proportional to how often a row's token occurs, so
//! that their ratio is the same for all rows: a damping.
//!
//! An embedding is quantized before the blocks, which can then correct for its errors; a head of its own after them, as another
//! linear layer with two streams ([`crate::calibrate`]), so that it corrects for what is left of theirs.

use crate::checkpoint::Matrix;
use crate::choose::Setting;
use crate::methods::{self, Method, MethodError, RefineLimits, Solution, Start};
use crate::moments::Moments;
use crate::plan::{BlockPlan, MatrixFormat};
use faer::{Mat, MatRef};
use rescomp_formats::section::SectionKind;
use serde::Serialize;

/// What an error of the embedding costs beside one of the head, as a share of H's mean diagonal: measured for tied heads
/// (docs/methods.md), 0.5 and 2 are about as good.
const EMBEDDING_SHARE: f64 = 1.0;
/// Sweeps of refinement where the number is not given.
const SWEEPS: usize = 8;

/// Solves an embedding, and its loss on the scale of the moments. `moments` are those of the final hidden states where it is the head
/// as well; `None` for an embedding that is no head.
///
/// # Errors
/// Those of the solvers.
pub fn solve(
    weights: MatRef<'_, f64>,
    moments: Option<&Moments>,
    plan: &BlockPlan,
    format: MatrixFormat,
) -> Result<(Solution<f64>, f64), MethodError> {
    let solver = plan.solver_for(format);
    let n = weights.ncols();
    let hessian = measure(moments, n);
    if solver.configuration.is_none() {
        let solution = methods::rtn::round_to_nearest(weights, &solver.options)?;
        let loss = solution.loss(weights, hessian.as_ref(), None)?;
        return Ok((solution, loss));
    }
    let prepared = methods::prepare(hessian.as_ref(), None, &solver.options)?;
    // Without drift there is nothing to correct for, whatever the method.
    let configuration = Method::Gptq.configuration(format.bits);
    let mut solution = methods::solve(weights, &prepared, configuration.as_ref(), &solver.options)?;
    let sweeps = match plan.tuning.refine {
        Setting::Auto => SWEEPS,
        Setting::Fixed(sweeps) => sweeps,
    };
    if sweeps > 0 {
        let target = prepared.target(weights, Start::Unchanged)?;
        let (scales, limits) = (solver.options.row_format(n), RefineLimits::sweeps(sweeps));
        methods::refine(&mut solution, target.as_ref(), &prepared, scales, limits)?;
    }
    let loss = solution.loss(weights, hessian.as_ref(), None)?;
    Ok((solution, loss))
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
    /// Its bits and groups.
    pub format: MatrixFormat,
    /// Loss over what setting all weights to 0 would lose, in the measure that was minimized.
    pub relative_error: f64,
    /// What is doubtful about it: too few tokens, or rounding to nearest where nothing could be solved.
    pub warnings: Vec<String>,
}

impl VocabularyMatrix {
    /// Quantizes a matrix by [`solve`].
    ///
    /// # Errors
    /// Those of the solvers.
    pub fn new(
        kind: SectionKind,
        matrix: &Matrix,
        moments: Option<&Moments>,
        plan: &BlockPlan,
        format: MatrixFormat,
    ) -> Result<Self, MethodError> {
        let weights = Mat::from_fn(matrix.rows, matrix.cols, |i, j| f64::from(matrix.row(i)[j]));
        let (solution, loss) = solve(weights.as_ref(), moments, plan, format)?;
        let nothing = vec![0.0; matrix.rows * matrix.cols];
        let nothing = MatRef::from_row_major_slice(&nothing, matrix.rows, matrix.cols);
        let power = methods::asymmetric_loss(
            weights.as_ref(),
            nothing,
            measure(moments, matrix.cols).as_ref(),
            None,
        )?;
        let relative_error = if power > 0.0 { loss / power } else { 0.0 };
        let report = VocabularyReport { kind: kind.name(), format, relative_error, warnings: Vec::new() };
        Ok(VocabularyMatrix { kind, format, solution, report })
    }

    /// The values that the model runs with.
    pub fn values(&self) -> Matrix {
        let data = self.solution.values().into_iter().map(|value| value as f32).collect();
        Matrix { rows: self.solution.rows, cols: self.solution.columns, data }
    }
}
