//! How much work the matrices of a block are: what bars and times left are weighed by. In multiply-adds, roughly.
//!
//! For a set of matrices with n inputs and k calibration tokens, a matrix of it having m outputs:
//!
//! ```text
//! moments             2 k n^2                            both streams' products
//! factors             (2/3) n^3 for each of 1 or 2       all tokens; the training tokens, where something is chosen
//!                     (4/3) n^3 for each ridge
//! a matrix            1.5 m n^2 a sweep; 3.5 m n^2 a sweep of refinement; 4 k m n for the forwards; 2 m n^2 for its losses
//! ```

use crate::choose::{RIDGES, SWEEPS, Setting};
use crate::methods::Start;
use crate::plan::BlockPlan;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::linear::LinearSet;

/// The work of each matrix of a block, in the order of the forward, for so many calibration tokens. What is done once a set, and the
/// choice for all of its matrices, counts for its first matrix, which is finished after it.
pub fn block_work(plan: &BlockPlan, spec: &ModelSpec, tokens: usize) -> Vec<f64> {
    let k = tokens as f64;
    let mut all = Vec::new();
    for set in LinearSet::of(spec.architecture) {
        let mut shared = 0.0;
        let first = all.len();
        for kind in set.kinds() {
            let (rows, columns) = kind.shape(spec).unwrap_or_default();
            let (m, n) = (f64::from(rows), f64::from(columns));
            if all.len() == first {
                shared += 2.0 * k * n * n + factor_cubes(plan) * n.powi(3);
            }
            let (choosing, solving) = sweeps(plan);
            shared += choosing * m * n * n;
            all.push((solving + 2.0) * m * n * n + 4.0 * k * m * n);
        }
        if let Some(work) = all.get_mut(first) {
            *work += shared;
        }
    }
    all
}

/// Factorizations of a set's moments, in units of n^3.
fn factor_cubes(plan: &BlockPlan) -> f64 {
    let Some(configuration) = plan.configuration(plan.options.bits) else { return 0.0 };
    let exact = matches!(configuration.start, Start::Exact { .. });
    let ridges = match plan.tuning.ridge {
        _ if !exact => 0,
        Setting::Auto => RIDGES.len() + 1,
        Setting::Fixed(_) => 1,
    };
    let factors = if plan.tuning.chooses(&configuration) { 2.0 } else { 1.0 };
    2.0 / 3.0 * factors + 4.0 / 3.0 * ridges as f64
}

/// Sweeps over a matrix in units of m n^2: while choosing, and for the solution.
fn sweeps(plan: &BlockPlan) -> (f64, f64) {
    let Some(configuration) = plan.configuration(plan.options.bits) else { return (0.0, 0.0) };
    let most = SWEEPS.last().copied().unwrap_or(0);
    let refining = 3.5
        * match plan.tuning.refine {
            Setting::Auto => most as f64,
            Setting::Fixed(sweeps) => sweeps.min(most) as f64,
        };
    let chooses = plan.tuning.chooses(&configuration);
    let candidates = plan.tuning.candidates(configuration).len() as f64;
    (if chooses { 1.5 * candidates + refining } else { 0.0 }, 1.5 + refining)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::methods::{GroupSize, Method, SolverOptions};
    use std::path::Path;

    #[test]
    fn more_work_weighs_more() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
        let spec = Checkpoint::open(&folder).unwrap().spec;
        let work = |method, tokens| {
            let plan = BlockPlan::new(method, SolverOptions::new(3, GroupSize::Row));
            block_work(&plan, &spec, tokens)
        };
        let total = |method, tokens| work(method, tokens).iter().sum::<f64>();
        for method in Method::ALL {
            let work = work(method, 1000);
            assert_eq!(work.len(), 7, "{method}");
            assert!(work.iter().all(|work| *work > 0.0 && work.is_finite()), "{method}: {work:?}");
            assert!(total(method, 2000) > total(method, 1000));
            // The first of a set carries what the set shares; `down` has three times the inputs of `output`.
            assert!(work[0] > work[1] && work[1] == work[2] && work[4] > work[5] && work[6] > work[3]);
        }
        assert!(total(Method::Rtn, 1000) < total(Method::Gptq, 1000));
        assert!(total(Method::Gptq, 1000) < total(Method::RescompExact, 1000));
    }
}
