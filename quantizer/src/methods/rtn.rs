//! Round to nearest: every weight becomes the nearest value of its group's grid. The baseline; needs no
//! calibration.

use faer::MatRef;
use rayon::prelude::*;

use super::matrix::Matrix;
use super::{MethodError, Solution, SolverOptions};
use crate::grids::Real;
use crate::vectorized::vectorized;

/// Quantizes `weights` (m x n) without a Hessian. Of `options`, damping, order, static groups and block have
/// no influence.
///
/// # Errors
/// [`MethodError::NotFinite`], [`MethodError::Shape`] for a matrix without columns, and those of
/// [`SolverOptions::check`].
pub fn round_to_nearest<T: Real>(
    weights: MatRef<'_, T>,
    options: &SolverOptions,
) -> Result<Solution<T>, MethodError> {
    let shape = (weights.nrows(), weights.ncols().max(1));
    let search = options.check(shape.1)?;
    let weights = Matrix::checked("weights", weights, shape)?;
    let mut solution = Solution::zeros(weights.rows(), weights.columns(), options.group, search.grid);
    let (group_elems, columns) = (solution.group_elems, solution.columns);
    solution.scales.par_chunks_mut(columns.div_ceil(group_elems)).enumerate().for_each(|(row, scales)| {
        vectorized(
            #[inline(always)]
            || {
                // A loop: what `for_each` is given need not be inlined, and would then be compiled for SSE2 alone.
                for (weights, scale) in weights.row(row).chunks(group_elems).zip(scales) {
                    *scale = search.scale(weights);
                }
            },
        );
    });
    let groups = solution.groups_per_row();
    solution.coding = search.format.code(&mut solution.scales, groups, None);
    solution.codes.par_chunks_mut(columns).zip(solution.scales.par_chunks(groups)).enumerate().for_each(
        |(row, (codes, scales))| {
            let groups = weights.row(row).chunks(group_elems).zip(codes.chunks_mut(group_elems));
            for ((weights, codes), scale) in groups.zip(scales) {
                for (code, weight) in codes.iter_mut().zip(weights) {
                    *code = search.grid.level(*weight, *scale);
                }
            }
        },
    );
    Ok(solution)
}
