//! The asymmetric objective solved exactly: start from corrected weights, then GPTQ.
//!
//! For real weights, `||W0 Xf - Q X||^2 + lambda ||Q - W0||^2` is, up to a constant, `||(W1 - Q) (H + lambda
//! I)^(1/2)||^2` with
//!
//! ```text
//! W1 = W0 + W0 D (H + lambda I)^-1
//! ```
//!
//! so that GPTQ from `W1` does what re-solving all remaining columns against the full-precision output after
//! every rounding would do (proved and tested column by column). This is the objective that ResComp states;
//! its own update keeps one term of a sum that cancels. Known as QEP (NeurIPS 2025) and, up to the first
//! column, Qronos (ICLR 2026).
//!
//! The correction is a regression on the calibration tokens and overfits when they are few: it gets a ridge
//! of its own, larger than the sweep's damping (QEP's code uses 1.0 times the mean diagonal), and a strength.

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatMut, Par};
use rayon::prelude::*;

use super::factors::{STRIP_ROWS, cholesky_escalating};
use super::matrix::Matrix;
use super::{LazyVariant, MethodError, Start, SweepConfiguration};
use crate::grids::Real;

/// Strength and ridge 1, then the plain sweep.
pub const CONFIGURATION: SweepConfiguration = SweepConfiguration {
    alpha1: 0.0,
    alpha2: 0.0,
    variant: LazyVariant::Paper,
    start: Start::Exact { strength: 1.0, ridge: 1.0 },
};

/// `D (H + ridge * mean(diag H) * I)^-1` (n x n) and the ridge that was used: by Cholesky and two triangular
/// solves, in strips of rows.
pub(super) fn correction<T: Real>(
    hessian: &Matrix<T>,
    drift: &Matrix<T>,
    mean_diagonal: f64,
    ridge: f64,
) -> Result<(Matrix<T>, f64), MethodError> {
    let n = hessian.columns();
    let (lower, ridge) = cholesky_escalating(n, ridge, mean_diagonal, |i, j| hessian.row(j)[i].to_f64())?;
    let lower = Mat::from_fn(n, n, |i, j| if j <= i { T::from_f64(lower[(i, j)]) } else { T::ZERO });
    let mut product = drift.clone();
    product.strips_mut(STRIP_ROWS).for_each(|(_, strip)| {
        let rows = strip.len() / n;
        // The transpose of a strip of X in X (L L^T) = D.
        let mut transposed = MatMut::from_row_major_slice_mut(strip, rows, n).transpose_mut();
        solve_lower_triangular_in_place(lower.as_ref(), transposed.as_mut(), Par::Seq);
        solve_upper_triangular_in_place(lower.as_ref().transpose(), transposed.as_mut(), Par::Seq);
    });
    Ok((product, ridge))
}
