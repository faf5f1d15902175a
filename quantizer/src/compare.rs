//! Several methods side by side: the error of each matrix on the calibration tokens, and on tokens that calibration never saw.
//!
//! ```text
//! full, quantized = embeddings of the calibration windows and of the held-out ones
//! for each block: run it on `full`; run it on `quantized`; when a set's input arrives:
//!     moments of the calibration windows; solve with every method, each as packing would
//!     moments of the held-out windows; the error of every solution on both
//!     go on with the solution of one of the methods
//! ```
//! What a method chooses (`rescomp-exact`: strength, ridge, refinement), it chooses on a part of the calibration windows
//! ([`crate::choose`]): the held-out windows here have no part in it, so their errors are unbiased. All methods see the same
//! inputs, so the figures of a matrix compare; those of a whole model where each method goes on with its own are perplexity and
//! divergence ([`crate::evaluate`]).

use crate::calibrate::{
    Calibration, CalibrationError, Kept, Recorder, Solved, check_finite, dequantized, share,
};
use crate::checkpoint::{Checkpoint, LayerWeights, Matrix};
use crate::dense::{DenseLayer, Streams, missing, multiply};
use crate::methods::{self, Method, MethodError, Solution, SolverOptions, Start};
use crate::moments::{Moments, drift_power};
use crate::plan::{BlockPlan, MatrixFormat};
use faer::{Mat, MatRef};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::{BlockWeights, LinearSet};
use serde::Serialize;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The methods, each with its own defaults.
    pub methods: &'a [Method],
    /// The method whose solutions the quantized stream goes on with; solved whether or not it is one of `methods`.
    pub continue_with: Method,
    /// Bits, groups, damping and the rest.
    pub options: SolverOptions,
    /// The windows: first those for calibration, then those that are held out. At least one of each.
    pub windows: &'a [Vec<u32>],
    /// How many of the windows are for calibration.
    pub calibration_windows: usize,
    /// Tokens of each window that are used.
    pub positions: usize,
}

/// The methods' errors on one matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MatrixComparison {
    /// The layer.
    pub layer: usize,
    /// Name of the matrix's kind.
    pub kind: &'static str,
    /// By method, in their order.
    pub methods: Vec<MethodErrors>,
    /// What is doubtful about the calibration of this matrix.
    pub warnings: Vec<String>,
}

/// How well a method did on one matrix. An error is `|| Xf W0^T - X Q^T ||^2 / || Xf W0^T ||^2`: what is missing from the
/// full-precision model's outputs when the layers before are quantized, as a share of these outputs' power.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodErrors {
    /// Name of the method.
    pub method: &'static str,
    /// On the calibration tokens.
    pub calibration: f64,
    /// On the held-out tokens.
    pub held_out: f64,
    /// Strength of the exact start; `None` for methods without one.
    pub strength: Option<f64>,
    /// Ridge of the exact start; `None` where the strength is 0.
    pub ridge: Option<f64>,
    /// Sweeps of refinement.
    pub refine_sweeps: usize,
}

/// A method over all matrices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodSummary {
    /// Name of the method.
    pub method: &'static str,
    /// Geometric mean of the errors on the calibration tokens, over the matrices where every method has an error; `None` if
    /// there are none.
    pub calibration: Option<f64>,
    /// The same on the held-out tokens.
    pub held_out: Option<f64>,
    /// Matrices on whose held-out tokens no method has a lower error. Where several have the same, each of them counts.
    pub wins: usize,
}

impl MatrixComparison {
    /// Whether a method, by its place, has the lowest held-out error; several may.
    pub fn wins(&self, at: usize) -> bool {
        self.methods.iter().all(|other| self.methods[at].held_out <= other.held_out)
    }
}

/// The methods over all matrices.
pub fn summarize(matrices: &[MatrixComparison]) -> Vec<MethodSummary> {
    let Some(first) = matrices.first() else { return Vec::new() };
    let mean = |at: usize, error: fn(&MethodErrors) -> f64| {
        // A matrix of zeros has errors of 0, and no logarithm.
        let logarithms: Vec<f64> = matrices
            .iter()
            .filter(|matrix| matrix.methods.iter().all(|errors| error(errors) > 0.0))
            .map(|matrix| error(&matrix.methods[at]).ln())
            .collect();
        (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    };
    let summary = |(at, errors): (usize, &MethodErrors)| MethodSummary {
        method: errors.method,
        calibration: mean(at, |errors| errors.calibration),
        held_out: mean(at, |errors| errors.held_out),
        wins: matrices.iter().filter(|matrix| matrix.wins(at)).count(),
    };
    first.methods.iter().enumerate().map(summary).collect()
}

/// Compares methods on every matrix of the blocks. `progress` hears of each matrix.
///
/// # Errors
/// [`CalibrationError`]; [`RuntimeError::Limit`] in it where there are no windows for calibration or none that are held out.
pub fn compare(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    comparison: &Comparison<'_>,
    progress: &mut dyn FnMut(&MatrixComparison),
) -> Result<Vec<MatrixComparison>, CalibrationError> {
    let Comparison { windows, calibration_windows, positions, .. } = *comparison;
    if calibration_windows == 0 || calibration_windows >= windows.len() {
        return Err(RuntimeError::Limit {
            name: "calibration windows of a comparison",
            lowest: 1,
            highest: windows.len().saturating_sub(1) as u64,
            found: calibration_windows as u64,
        }
        .into());
    }
    let embedding = checkpoint.embedding()?;
    let mut full = Streams::new(machine, checkpoint, &embedding, windows, positions)?;
    let mut quantized = full.beside(&embedding, windows)?;
    let (mut matrices, mut inputs) = (Vec::new(), Kept::default());
    for layer in 0..checkpoint.spec.layers as usize {
        let weights = checkpoint.layer(layer)?;
        let mut recorder = Recorder { dense: DenseLayer { weights: &weights, layer }, inputs };
        full.run_block(&mut recorder)?;
        let mut comparer = Comparer {
            comparison,
            weights: &weights,
            layer,
            inputs: recorder.inputs,
            done: Vec::new(),
            progress,
        };
        quantized.run_block(&mut comparer)?;
        matrices.append(&mut comparer.done);
        inputs = comparer.inputs;
    }
    Ok(matrices)
}

/// A block that solves each set with every method when its input arrives, and answers with the values of one.
struct Comparer<'a> {
    comparison: &'a Comparison<'a>,
    weights: &'a LayerWeights,
    layer: usize,
    /// Of the full-precision stream.
    inputs: Kept,
    done: Vec<MatrixComparison>,
    progress: &'a mut dyn FnMut(&MatrixComparison),
}

impl BlockWeights for Comparer<'_> {
    type Error = CalibrationError;

    fn vector(&self, kind: SectionKind) -> Result<&[f32], CalibrationError> {
        Ok(self.weights.vector(kind).ok_or_else(|| missing(kind, self.layer))?)
    }

    fn apply(
        &mut self,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), CalibrationError> {
        let layer = self.layer;
        check_finite(layer, set, input)?;
        let full = self.inputs.take(set).ok_or(CalibrationError::Unmatched { layer, set: set.name() })?;
        let mut matrices = Vec::new();
        for &kind in set.kinds() {
            let original = self.weights.matrix(kind).ok_or_else(|| missing(kind, layer))?;
            matrices.push((kind, original));
        }
        let weights: Vec<MatRef<'_, f32>> = matrices.iter().map(|matrix| matrix.1.view()).collect();
        let names: Vec<&'static str> = matrices.iter().map(|matrix| matrix.0.name()).collect();
        let failed = |kind: &'static str| move |cause| CalibrationError::Method { layer, kind, cause };
        let solved = SolvedSet::new(self.comparison, input, &full, input.len() / tokens, &weights)
            .map_err(|(at, cause)| failed(at.map_or(set.name(), |at| names[at]))(cause))?;
        for (at, ((kind, _), output)) in matrices.iter().zip(outputs).enumerate() {
            let original = methods::widened(weights[at]);
            let errors = solved.errors(at, original.as_ref()).map_err(failed(kind.name()))?;
            let warnings = solved.warnings(at);
            let compared = MatrixComparison { layer, kind: kind.name(), methods: errors, warnings };
            (self.progress)(&compared);
            self.done.push(compared);
            multiply(&solved.continuing[at], input, output);
        }
        Ok(())
    }
}

/// Every method's solutions of a set, and what they are measured on.
struct SolvedSet {
    /// By matrix, then by method.
    solved: Vec<Vec<(Method, Solved)>>,
    /// The values that the stream goes on with, by matrix.
    continuing: Vec<Matrix>,
    calibration: Measure,
    held_out: Measure,
    warnings: Vec<String>,
}

impl SolvedSet {
    /// From a set's input in both streams, `k x n` each. An error comes with the matrix's index where it is of one matrix.
    fn new(
        comparison: &Comparison<'_>,
        input: &[f32],
        full: &[f32],
        n: usize,
        weights: &[MatRef<'_, f32>],
    ) -> Result<SolvedSet, (Option<usize>, MethodError)> {
        let windows = comparison.calibration_windows;
        let split = input.len() / comparison.windows.len() * windows;
        let ((input, held_out_input), (full, held_out_full)) = (input.split_at(split), full.split_at(split));
        let plan = |method: &Method| BlockPlan::new(*method, comparison.options);
        let mut all: Vec<Method> = comparison.methods.to_vec();
        if !all.contains(&comparison.continue_with) {
            all.push(comparison.continue_with);
        }
        let plans: Vec<BlockPlan> = all.iter().map(plan).collect();
        // The factors are the same for all methods, and a method that chooses needs more than the others.
        let bits = comparison.options.bits;
        let chooses = |plan: &&BlockPlan| {
            plan.configuration(bits).is_some_and(|configuration| plan.tuning.chooses(&configuration))
        };
        let most = plans.iter().find(chooses).or(plans.iter().find(|plan| plan.calibrates()));
        let of_set = |cause| (None, cause);
        let calibration =
            Calibration::new(most.unwrap_or(&plans[0]), input, full, n, windows).map_err(of_set)?;
        let (mut solved, mut continuing) = (Vec::new(), Vec::new());
        solved.resize_with(weights.len(), Vec::new);
        for plan in &plans {
            let solver = plan.solver_for(MatrixFormat::plain(bits, comparison.options.group));
            let choices = if chooses(&plan) {
                let problems = weights.iter().map(|weights| (*weights, &solver));
                calibration.choose(problems, plan).map_err(|(at, cause)| (Some(at), cause))?
            } else {
                let configuration = solver.configuration;
                let choice = configuration.map(|configuration| plan.tuning.without_held_out(configuration));
                vec![choice; weights.len()]
            };
            for (at, (weights, choice)) in weights.iter().zip(choices).enumerate() {
                let done =
                    calibration.solve(*weights, &choice, &solver).map_err(|cause| (Some(at), cause))?;
                if plan.method == comparison.continue_with {
                    continuing.push(dequantized(&done.solution));
                }
                solved[at].push((plan.method, done));
            }
        }
        for solved in &mut solved {
            solved.truncate(comparison.methods.len());
        }
        Ok(SolvedSet {
            solved,
            continuing,
            held_out: Measure::new(
                Moments::new(held_out_input, held_out_full, n),
                held_out_input,
                held_out_full,
            ),
            warnings: calibration.warnings,
            calibration: Measure::new(calibration.moments, input, full),
        })
    }

    /// What is doubtful about a matrix.
    fn warnings(&self, at: usize) -> Vec<String> {
        let rounded = self.solved[at].iter().filter_map(|(method, solved)| {
            let cause = solved.rounded_because.as_ref()?;
            Some(format!("{method} rounds to nearest, since it has no solution: {cause}"))
        });
        self.warnings.iter().cloned().chain(rounded).collect()
    }

    fn errors(&self, at: usize, weights: MatRef<'_, f64>) -> Result<Vec<MethodErrors>, MethodError> {
        let (calibration, held_out) =
            (self.calibration.constants(weights)?, self.held_out.constants(weights)?);
        let errors = |(method, solved): &(Method, Solved)| {
            let Solved { solution, choice, refine_sweeps, .. } = solved;
            let start = choice.map(|choice| choice.configuration.start);
            Ok(MethodErrors {
                method: method.name(),
                calibration: self.calibration.error(weights, solution, calibration)?,
                held_out: self.held_out.error(weights, solution, held_out)?,
                strength: match (start, method) {
                    (Some(Start::Exact { strength, .. }), _) => Some(strength),
                    (Some(Start::Unchanged), Method::RescompExact) => Some(0.0),
                    _ => None,
                },
                ridge: match start {
                    Some(Start::Exact { ridge, .. }) => Some(solution.ridge.unwrap_or(ridge)),
                    _ => None,
                },
                refine_sweeps: *refine_sweeps,
            })
        };
        self.solved[at].iter().map(errors).collect()
    }
}

/// Moments of tokens that errors are measured on.
struct Measure {
    moments: Moments,
    /// `(Xf - X)^T (Xf - X) / k`.
    drift_power: Mat<f64>,
}

/// What is the same for all quantizations of a matrix.
#[derive(Clone, Copy)]
struct Constants {
    /// `|| (Xf - X) W0^T ||^2 / k`.
    drift: f64,
    /// `|| Xf W0^T ||^2 / k`.
    outputs: f64,
}

impl Measure {
    fn new(moments: Moments, input: &[f32], full: &[f32]) -> Measure {
        let n = moments.hessian.nrows();
        Measure { moments, drift_power: drift_power(input, full, n) }
    }

    fn constants(&self, weights: MatRef<'_, f64>) -> Result<Constants, MethodError> {
        let Moments { hessian, drift } = &self.moments;
        let zero = Mat::zeros(weights.nrows(), weights.ncols());
        // Of zeros, the asymmetric loss is || Xf W0^T ||^2 - || (Xf - X) W0^T ||^2.
        let power = |hessian: &Mat<f64>, drift: Option<MatRef<'_, f64>>| {
            methods::asymmetric_loss(weights, zero.as_ref(), hessian.as_ref(), drift)
        };
        let drift_outputs = power(&self.drift_power, None)?;
        let outputs = power(hessian, Some(drift.as_ref()))? + drift_outputs;
        Ok(Constants { drift: drift_outputs, outputs })
    }

    fn error(
        &self,
        weights: MatRef<'_, f64>,
        solution: &Solution<f64>,
        constants: Constants,
    ) -> Result<f64, MethodError> {
        let Moments { hessian, drift } = &self.moments;
        let loss = solution.loss(weights, hessian.as_ref(), Some(drift.as_ref()))?;
        // Not below 0 but for the rounding of the moments.
        Ok(share((loss + constants.drift).max(0.0), constants.outputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::{MatrixReport, Run, quantize_blocks};
    use crate::inputs::Inputs;
    use crate::methods::GroupSize;
    use proptest::prelude::*;
    use rescomp_runtime::executor::Serial;
    use rescomp_runtime::kernels;
    use std::path::Path;

    const METHODS: [Method; 4] = [Method::Gptq, Method::Gptaq, Method::Rescomp, Method::RescompExact];
    const POSITIONS: usize = 80;

    fn machine() -> Machine<'static> {
        Machine { kernels: kernels::best(), executor: &Serial }
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")).unwrap()
    }

    /// Windows of arbitrary tokens.
    fn windows(count: u32) -> Vec<Vec<u32>> {
        (0..count)
            .map(|w| (0..POSITIONS as u32).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect())
            .collect()
    }

    fn options(bits: u8) -> SolverOptions {
        SolverOptions::new(bits, GroupSize::elements(64).unwrap())
    }

    fn compared(methods: &[Method], continue_with: Method, windows: &[Vec<u32>]) -> Vec<MatrixComparison> {
        let comparison = Comparison {
            methods,
            continue_with,
            options: options(3),
            windows,
            calibration_windows: windows.len() - 1,
            positions: POSITIONS,
        };
        let mut heard = Vec::new();
        let found = compare(machine(), &checkpoint(), &comparison, &mut |matrix| heard.push(matrix.clone()));
        let found = found.unwrap();
        assert_eq!(found, heard);
        found
    }

    #[test]
    fn every_matrix_is_solved_as_packing_would_and_measured() {
        let windows = windows(4);
        let found = compared(&METHODS, Method::RescompExact, &windows);
        assert_eq!(found.len(), 6 * 7);
        for matrix in &found {
            assert_eq!(
                matrix.methods.iter().map(|errors| errors.method).collect::<Vec<_>>(),
                METHODS.map(Method::name)
            );
            for errors in &matrix.methods {
                assert!(errors.calibration > 0.0 && errors.calibration < 1.0, "{matrix:?}");
                assert!(errors.held_out > 0.0 && errors.held_out < 2.0, "{matrix:?}");
            }
        }
        // Without drift there is nothing that gptaq adds to gptq.
        for matrix in &found[..3] {
            let [gptq, gptaq, ..] = &matrix.methods[..] else { panic!("{matrix:?}") };
            assert_eq!((gptq.calibration, gptq.held_out), (gptaq.calibration, gptaq.held_out), "{matrix:?}");
        }
        let summary = summarize(&found);
        for method in &summary {
            // Few tokens are fitted well and tell little about others.
            assert!(method.held_out > method.calibration, "{summary:?}");
        }
        assert!(summary[3].calibration < summary[0].calibration, "{summary:?}");

        // The choices are those of packing with the calibration windows; the held-out one had no part in them.
        let (plan, mut reports) =
            (BlockPlan::new(Method::RescompExact, options(3)), Vec::<MatrixReport>::new());
        quantize_blocks(
            machine(),
            &checkpoint(),
            Inputs::Windows { windows: &windows[..3], positions: POSITIONS },
            &plan,
            &mut Run { journal: None, progress: &mut |_| () },
            |_, _, done| {
                reports.extend(done.into_iter().map(|matrix| matrix.report));
                Ok::<(), CalibrationError>(())
            },
        )
        .unwrap();
        for (matrix, report) in found.iter().zip(&reports) {
            let exact = &matrix.methods[3];
            assert_eq!(
                (matrix.layer, matrix.kind, exact.strength, exact.ridge, exact.refine_sweeps),
                (report.layer, report.kind, report.strength, report.ridge, report.refine_sweeps)
            );
            assert_eq!(matrix.warnings, report.warnings);
        }
    }

    #[test]
    fn what_the_stream_goes_on_with_shows_after_the_first_set() {
        let windows = windows(3);
        let listed = compared(&[Method::Gptq, Method::Rtn], Method::Rtn, &windows);
        let unlisted = compared(&[Method::Gptq], Method::Rtn, &windows);
        let other = compared(&[Method::Gptq], Method::Gptq, &windows);
        for (at, ((listed, unlisted), other)) in listed.iter().zip(&unlisted).zip(&other).enumerate() {
            assert_eq!((listed.methods.len(), unlisted.methods.len()), (2, 1));
            assert_eq!(listed.methods[0], unlisted.methods[0]);
            assert_eq!(unlisted.methods[0] == other.methods[0], at < 3, "{unlisted:?} {other:?}");
        }
    }

    #[test]
    fn an_error_is_the_share_of_the_outputs_that_is_missing() {
        let (m, n, tokens) = (6, 20, 50);
        let noise = |i: usize| ((i * 2_654_435_761) % 100_003) as f32 / 50_001.5 - 1.0;
        let input: Vec<f32> = (0..tokens * n).map(noise).collect();
        let full: Vec<f32> = input.iter().enumerate().map(|(i, x)| 0.9 * x + 0.2 * noise(i + 9999)).collect();
        let weights = Mat::from_fn(m, n, |i, j| f64::from(noise(i * n + j + 77)));
        let measure = Measure::new(Moments::new(&input, &full, n), &input, &full);
        for bits in [2, 4, 8] {
            let solution = methods::rtn::round_to_nearest(weights.as_ref(), &options(bits)).unwrap();
            let values = solution.values();
            let (mut missing, mut power) = (0.0, 0.0);
            for (input, full) in input.chunks(n).zip(full.chunks(n)) {
                for row in 0..m {
                    let dot = |inputs: &[f32], weight: &dyn Fn(usize) -> f64| {
                        inputs.iter().enumerate().map(|(j, x)| f64::from(*x) * weight(j)).sum::<f64>()
                    };
                    let wanted = dot(full, &|j| weights[(row, j)]);
                    missing += (wanted - dot(input, &|j| values[row * n + j])).powi(2);
                    power += wanted.powi(2);
                }
            }
            let constants = measure.constants(weights.as_ref()).unwrap();
            let found = measure.error(weights.as_ref(), &solution, constants).unwrap();
            assert!((found - missing / power).abs() < 1e-6, "{found}, expected {}", missing / power);
        }
    }

    #[test]
    fn a_comparison_needs_windows_of_both_kinds() {
        let windows = windows(2);
        for calibration_windows in [0, 2, 3] {
            let comparison = Comparison {
                methods: &METHODS,
                continue_with: Method::Gptq,
                options: options(3),
                windows: &windows,
                calibration_windows,
                positions: POSITIONS,
            };
            let error = compare(machine(), &checkpoint(), &comparison, &mut |_| ()).unwrap_err().to_string();
            assert!(error.contains("calibration windows of a comparison"), "{error}");
        }
    }

    fn matrix(errors: &[(f64, f64)]) -> MatrixComparison {
        let methods = errors.iter().zip(METHODS).map(|(&(calibration, held_out), method)| MethodErrors {
            method: method.name(),
            calibration,
            held_out,
            strength: None,
            ridge: None,
            refine_sweeps: 0,
        });
        MatrixComparison { layer: 0, kind: "query", methods: methods.collect(), warnings: Vec::new() }
    }

    #[test]
    fn the_summary_counts_wins_and_multiplies_errors() {
        let found = summarize(&[
            matrix(&[(0.1, 0.2), (0.1, 0.1)]),
            matrix(&[(0.4, 0.8), (0.2, 0.8)]),
            // Of zeros: both win, and no mean knows of it.
            matrix(&[(0.0, 0.0), (0.0, 0.0)]),
        ]);
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
        assert!(close(found[0].calibration, 0.2) && close(found[0].held_out, 0.4), "{found:?}");
        assert!(close(found[1].held_out, 0.08_f64.sqrt()), "{found:?}");
        assert_eq!((found[0].wins, found[1].wins), (2, 3));
        assert_eq!(summarize(&[matrix(&[(0.0, 0.0)])])[0].held_out, None);
        assert_eq!(summarize(&[]), Vec::new());
    }

    proptest! {
        /// A method that is better by a factor everywhere has a mean that is lower by that factor, and wins everywhere.
        #[test]
        fn a_factor_everywhere_is_a_factor_of_the_mean(
            errors in proptest::collection::vec((1e-6..1.0_f64, 1e-6..1.0_f64), 1..20),
            factor in 0.01..0.99_f64,
        ) {
            let matrices: Vec<MatrixComparison> = errors
                .iter()
                .map(|&(calibration, held_out)| {
                    matrix(&[(calibration, held_out), (factor * calibration, factor * held_out)])
                })
                .collect();
            let found = summarize(&matrices);
            prop_assert_eq!((found[0].wins, found[1].wins), (0, errors.len()));
            for (first, second) in
                [(found[0].held_out, found[1].held_out), (found[0].calibration, found[1].calibration)]
            {
                prop_assert!((second.unwrap() / first.unwrap() / factor - 1.0).abs() < 1e-9);
            }
        }
    }
}
