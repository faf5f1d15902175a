//! Refinement after a sweep: better scales for the codes, better codes for the scales, in turn.
//!
//! The sweep rounds each column once and never looks back, and its scales were found before any code. Around its
//! solution, the same loss against the same target can be lowered further, a row q = scale * code at a time:
//!
//! ```text
//! L(q) = (w1 - q) Hd (w1 - q)^T            w1 the start of the sweep, Hd the damped Hessian
//! repeat:
//!     scales:  with z_g the codes of group g, A[g, h] = z_g Hd z_h^T, c[g] = z_g Hd w1^T:  solve A s = c, round s to
//!              the scale format; taken if L falls. Else one group after the other: s_g = (c_g - sum A[g, h] s_h) / A[g, g]
//!     codes:   e = (w1 - q) Hd;  for each column j:  code = nearest of the grid to code + e[j] / (Hd[j, j] scale),
//!              the exact minimum over this column;  e -= change * scale * Hd[j]
//! until a sweep gains less than a share of the row's loss, or the sweeps are used up
//! ```
//!
//! Both half-steps are exact minimizations over their variables, so the loss never rises; a row whose loss did not fall in
//! floating point is left as it was. (Coordinate descent over codes: cf. CDQuant, arXiv 2406.17542, and QuantEase, arXiv
//! 2309.01885.) Columns keep their original order. Dead columns have target 0, error 0 and no neighbours in Hd: they stay 0.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::factors::{Prepared, STRIP_ROWS, cholesky_escalating};
use super::matrix::Matrix;
use super::options::not_negative;
use super::{MethodError, Solution};
use crate::grids::{Grid, Real, ScaleFormat};

/// The system of a row's scales is singular where groups are redundant: its ridge, as a share of its mean diagonal.
const SCALE_RIDGE: f64 = 1e-10;

/// When refinement stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RefineLimits {
    /// The most sweeps (scales, then codes) of a row.
    pub sweeps: usize,
    /// A row stops after a sweep that lowered its loss by less than this share.
    pub least_gain: f64,
}

impl RefineLimits {
    /// At most `sweeps`, as long as a sweep gains a ten-thousandth.
    pub const fn sweeps(sweeps: usize) -> Self {
        Self { sweeps, least_gain: 1e-4 }
    }
}

/// What a refinement did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refined {
    /// The most sweeps that a row took.
    pub sweeps: usize,
    /// `tr((W1 - Q) Hd (W1 - Q)^T)` before, on the scale of the Hessian.
    pub loss_before: f64,
    /// The same after: at most `loss_before`.
    pub loss_after: f64,
}

/// Lowers the loss of `solution` against `target` W1 (m x n; what [`Prepared::target`] returns for the sweep's start) under the
/// damped Hessian. New scales are rounded to `format`.
///
/// # Errors
/// [`MethodError::Shape`], [`MethodError::NotFinite`], and [`MethodError::Option`] for a bad `least_gain`.
pub fn refine<T: Real>(
    solution: &mut Solution<T>,
    target: MatRef<'_, T>,
    prepared: &Prepared<T>,
    format: ScaleFormat,
    limits: RefineLimits,
) -> Result<Refined, MethodError> {
    let n = prepared.columns();
    not_negative("the refinement's least gain", limits.least_gain)?;
    let found = (solution.rows, solution.columns);
    if found.1 != n {
        return Err(MethodError::Shape { matrix: "solution", expected: (found.0, n), found });
    }
    let mut target = Matrix::checked("target", target, (solution.rows, n))?;
    for row in 0..target.rows() {
        prepared.dead_columns().iter().for_each(|dead| target.row_mut(row)[*dead] = T::ZERO);
    }
    let hessian = prepared.damped();
    let group_elems = solution.group_elems;
    let problem = Problem { hessian: &hessian, group_elems, grid: solution.grid, format, limits };
    let groups = solution.groups_per_row();
    let strips: Vec<Refined> = solution
        .codes
        .par_chunks_mut(STRIP_ROWS * n)
        .zip(solution.scales.par_chunks_mut(STRIP_ROWS * groups))
        .enumerate()
        .map(|(strip, (codes, scales))| {
            let first = strip * STRIP_ROWS;
            let target = target.row_range(first, codes.len() / n);
            problem.strip(MatRef::from_row_major_slice(target, codes.len() / n, n), codes, scales)
        })
        .collect();
    let nothing = Refined { sweeps: 0, loss_before: 0.0, loss_after: 0.0 };
    Ok(strips.iter().fold(nothing, |sum, strip| Refined {
        sweeps: sum.sweeps.max(strip.sweeps),
        loss_before: sum.loss_before + strip.loss_before,
        loss_after: sum.loss_after + strip.loss_after,
    }))
}

/// What all strips share.
struct Problem<'a, T> {
    /// Hd, n x n.
    hessian: &'a Matrix<T>,
    group_elems: usize,
    grid: Grid,
    format: ScaleFormat,
    limits: RefineLimits,
}

impl<T: Real> Problem<'_, T> {
    fn strip(&self, target: MatRef<'_, T>, codes: &mut [i8], scales: &mut [T]) -> Refined {
        let (rows, n) = (target.nrows(), target.ncols());
        let groups = scales.len() / rows;
        let mut integers = Matrix::from_fn(rows, n, |i, j| T::from_f64(codes[i * n + j].into()));
        let mut fitted = Matrix::from_fn(rows, groups, |i, g| scales[i * groups + g]);
        let mut projected = Matrix::zeros(rows, n);
        matmul(projected.view_mut(), Accum::Replace, target, self.hessian.view(), T::ONE, Par::Seq);

        let mut gradients = self.gradients(target, &integers, &fitted);
        let before: Vec<f64> =
            (0..rows).map(|i| self.loss(target, i, &integers, &fitted, &gradients)).collect();
        let mut losses = before.clone();
        let mut active = vec![true; rows];
        let mut taken = 0;
        while taken < self.limits.sweeps && active.contains(&true) {
            taken += 1;
            let systems = self.systems(&integers, &projected);
            for (row, system) in systems.iter().enumerate().filter(|(row, _)| active[*row]) {
                system.fit(fitted.row_mut(row), self.format);
            }
            gradients = self.gradients(target, &integers, &fitted);
            for row in (0..rows).filter(|row| active[*row]) {
                self.search_codes(integers.row_mut(row), fitted.row(row), gradients.row_mut(row));
            }
            // Afresh: the errors of many updates do not add up.
            gradients = self.gradients(target, &integers, &fitted);
            for row in 0..rows {
                let loss = self.loss(target, row, &integers, &fitted, &gradients);
                active[row] &= loss < losses[row] * (1.0 - self.limits.least_gain);
                losses[row] = loss;
            }
        }
        for row in 0..rows {
            if losses[row] <= before[row] {
                let to = codes[row * n..(row + 1) * n].iter_mut();
                to.zip(integers.row(row)).for_each(|(code, integer)| *code = integer.to_code());
                scales[row * groups..(row + 1) * groups].copy_from_slice(fitted.row(row));
            } else {
                losses[row] = before[row];
            }
        }
        Refined { sweeps: taken, loss_before: before.iter().sum(), loss_after: losses.iter().sum() }
    }

    /// `(W1 - Q) Hd`.
    fn gradients(&self, target: MatRef<'_, T>, integers: &Matrix<T>, scales: &Matrix<T>) -> Matrix<T> {
        let (rows, n) = (target.nrows(), target.ncols());
        let errors = Matrix::from_fn(rows, n, |i, j| {
            target[(i, j)] - scales.row(i)[j / self.group_elems] * integers.row(i)[j]
        });
        let mut gradients = Matrix::zeros(rows, n);
        matmul(gradients.view_mut(), Accum::Replace, errors.view(), self.hessian.view(), T::ONE, Par::Seq);
        gradients
    }

    /// L of a row.
    fn loss(
        &self,
        target: MatRef<'_, T>,
        row: usize,
        integers: &Matrix<T>,
        scales: &Matrix<T>,
        gradients: &Matrix<T>,
    ) -> f64 {
        let (integers, scales) = (integers.row(row), scales.row(row));
        let error = |j: usize| target[(row, j)] - scales[j / self.group_elems] * integers[j];
        gradients.row(row).iter().enumerate().map(|(j, e)| error(j).to_f64() * e.to_f64()).sum()
    }

    /// A and c of every row, from the codes and `W1 Hd`.
    fn systems(&self, integers: &Matrix<T>, projected: &Matrix<T>) -> Vec<ScaleSystem> {
        let (rows, n) = (integers.rows(), integers.columns());
        let groups = n.div_ceil(self.group_elems);
        let mut systems =
            vec![ScaleSystem { matrix: Mat::zeros(groups, groups), right: vec![0.0; groups] }; rows];
        let mut product = Matrix::zeros(rows, n);
        for group in 0..groups {
            let start = group * self.group_elems;
            let width = self.group_elems.min(n - start);
            let end = start + width;
            // A is symmetric: the columns up to the group's own are enough.
            matmul(
                product.view_mut().submatrix_mut(0, 0, rows, end),
                Accum::Replace,
                integers.view().submatrix(0, start, rows, width),
                self.hessian.view().submatrix(start, 0, width, end),
                T::ONE,
                Par::Seq,
            );
            for (row, system) in systems.iter_mut().enumerate() {
                let codes = integers.row(row);
                system.right[group] = dot(&projected.row(row)[start..end], &codes[start..end]);
                let parts =
                    product.row(row)[..end].chunks(self.group_elems).zip(codes.chunks(self.group_elems));
                for (other, (product, codes)) in parts.enumerate() {
                    let value = dot(product, codes);
                    system.matrix[(group, other)] = value;
                    system.matrix[(other, group)] = value;
                }
            }
        }
        systems
    }

    /// The best code of every column in turn; `gradient` is that of the row and stays so.
    fn search_codes(&self, integers: &mut [T], scales: &[T], gradient: &mut [T]) {
        for j in 0..integers.len() {
            let scale = scales[j / self.group_elems];
            let hessian = self.hessian.row(j);
            let (code, curvature) = (integers[j], hessian[j] * scale);
            let best = self.grid.rounded(code + gradient[j] / curvature, T::ONE);
            let change = best - code;
            // L changes by -2 change scale e + (change scale)^2 Hd[j, j].
            if change * curvature * change < (change + change) * gradient[j] {
                integers[j] = best;
                let step = change * scale;
                gradient.iter_mut().zip(hessian).for_each(|(e, h)| *e -= step * *h);
            }
        }
    }
}

/// The least-squares problem of a row's scales: minimize `s A s^T - 2 c s^T`.
#[derive(Debug, Clone)]
struct ScaleSystem {
    /// A, symmetric.
    matrix: Mat<f64>,
    /// c.
    right: Vec<f64>,
}

impl ScaleSystem {
    /// Replaces `scales` by better ones that are positive and of the format. What is minimized never rises.
    fn fit<T: Real>(&self, scales: &mut [T], format: ScaleFormat) {
        let now = self.value(scales);
        if let Some(joint) = self.joint(scales, format)
            && self.value(&joint) < now
        {
            scales.copy_from_slice(&joint);
            return;
        }
        // Rounding, or a scale that would not be positive, spoiled it: one after the other.
        for group in 0..scales.len() {
            let (curvature, row) = (self.matrix[(group, group)], self.matrix.row(group));
            let others: f64 = scales
                .iter()
                .enumerate()
                .filter(|(g, _)| *g != group)
                .map(|(g, s)| row[g] * s.to_f64())
                .sum();
            let best = (self.right[group] - others) / curvature;
            if curvature > 0.0 && best.is_finite() && best > 0.0 {
                let (best, old) = (format.round(T::from_f64(best)).to_f64(), scales[group].to_f64());
                let cost = |s: f64| s * (s * curvature + 2.0 * (others - self.right[group]));
                if best > 0.0 && cost(best) < cost(old) {
                    scales[group] = T::from_f64(best);
                }
            }
        }
    }

    /// All scales together; a group without codes, or whose scale would not be positive, keeps its own.
    fn joint<T: Real>(&self, scales: &[T], format: ScaleFormat) -> Option<Vec<T>> {
        let groups = scales.len();
        let empty = |g: usize| self.matrix[(g, g)] <= 0.0;
        let mean = (0..groups).map(|g| self.matrix[(g, g)]).sum::<f64>() / groups as f64;
        if mean <= 0.0 || !mean.is_finite() {
            return None;
        }
        let entry = |g: usize, h: usize| if g == h && empty(g) { mean } else { self.matrix[(g, h)] };
        let (lower, _) = cholesky_escalating(groups, SCALE_RIDGE, mean, entry).ok()?;
        let mut solution = Mat::from_fn(groups, 1, |g, _| self.right[g]);
        solve_lower_triangular_in_place(lower.as_ref(), solution.as_mut(), Par::Seq);
        solve_upper_triangular_in_place(lower.transpose(), solution.as_mut(), Par::Seq);
        let scale = |g: usize| {
            // An f32 may underflow to 0.
            let found = T::from_f64(solution[(g, 0)]);
            if found > T::ZERO && found.finite() { format.round(found) } else { scales[g] }
        };
        Some((0..groups).map(scale).collect())
    }

    fn value<T: Real>(&self, scales: &[T]) -> f64 {
        let s = |g: usize| scales[g].to_f64();
        let row = |g: usize| (0..scales.len()).map(|h| self.matrix[(g, h)] * s(h)).sum::<f64>();
        (0..scales.len()).map(|g| s(g) * (row(g) - 2.0 * self.right[g])).sum()
    }
}

/// The sum of products, in f64.
fn dot<T: Real>(left: &[T], right: &[T]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left.to_f64() * right.to_f64()).sum()
}
