//! The matrices with a row a token: the embedding, and the head.
//!
//! A head is a linear layer whose inputs are the normalized final hidden states: their H says which errors reach the logits. An
//! embedding is only looked up; which of its errors matter later is not known, so all directions count alike. One matrix for both
//! (a tied head) has both losses, `e H e^T` and a share of `|e|^2`; both are proportional to how often a row's token occurs, so
//! that their ratio is the same for all rows: a damping.
//!
//! They are quantized before the blocks, which can then correct for the embedding's errors.

use crate::choose::Setting;
use crate::methods::{self, Method, MethodError, RefineLimits, Solution, Start};
use crate::moments::Moments;
use crate::plan::{BlockPlan, MatrixFormat};
use faer::{Mat, MatRef};

/// What an error of the embedding costs beside one of the head, as a share of H's mean diagonal: measured for tied heads
/// (docs/methods.md), 0.5 and 2 are about as good.
const EMBEDDING_SHARE: f64 = 1.0;
/// Sweeps of refinement where the number is not given.
const SWEEPS: usize = 8;

/// Solves the embedding or the head, and its loss on the scale of the moments. `moments` are those of the final hidden states;
/// `None` for an embedding that is no head.
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
    let isotropic = Mat::<f64>::identity(n, n);
    if solver.configuration.is_none() {
        let solution = methods::rtn::round_to_nearest(weights, &solver.options)?;
        let loss = solution.loss(weights, isotropic.as_ref(), None)?;
        return Ok((solution, loss));
    }
    let hessian = match moments {
        None => isotropic,
        Some(moments) => {
            let mean = (0..n).map(|i| moments.hessian[(i, i)]).sum::<f64>() / n as f64;
            let share = |i, j| if i == j { EMBEDDING_SHARE * mean } else { 0.0 };
            Mat::from_fn(n, n, |i, j| moments.hessian[(i, j)] + share(i, j))
        }
    };
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
