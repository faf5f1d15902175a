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
//!              Coded scales: the same, each rounded to its row's scale times a multiplier, after other row scales were tried.
//!     codes:   e = (w1 - q) Hd;  for each column j:  level = nearest of the grid to level + e[j] / (Hd[j, j] scale),
//!              the exact minimum over this column;  e -= change * scale * Hd[j]
//! until a sweep gains less than a share of the row's loss, or the sweeps are used up
//! ```
//!
//! Both half-steps are exact minimizations over their variables, so the loss never rises; a row whose loss did not fall in
//! floating point is left as it was. (Coordinate descent over codes: cf. CDQuant, arXiv 2406.17542, and QuantEase, arXiv
//! 2309.01885.) Columns keep their original order. Dead columns have their own value as target and no neighbours in Hd: they stay.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Mat, MatRef, Par, RowRef};
use rayon::prelude::*;

use super::factors::{Prepared, STRIP_ROWS, cholesky_escalating};
use super::matrix::{Matrix, dot};
use super::options::not_negative;
use super::{MethodError, Solution};
use crate::grids::coding::{Multipliers, RowScales, fit_row, nearest};
use crate::grids::{Grid, Real, ScaleFormat};
use crate::vectorized::vectorized;

/// The system of a row's scales is singular where groups are redundant: its ridge, as a share of its mean diagonal.
const SCALE_RIDGE: f64 = 1e-10;
/// Columns whose codes are looked at together.
const LOOKED_AT: usize = 16;

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
    // Dead columns are to stay as they are: 0, or the nearest to the original weight in a grid without 0.
    if !prepared.dead_columns().is_empty() {
        let values = solution.values();
        for row in 0..target.rows() {
            let dead = prepared.dead_columns().iter();
            dead.for_each(|dead| target.row_mut(row)[*dead] = values[row * n + *dead]);
        }
    }
    let hessian = prepared.damped();
    let group_elems = solution.group_elems;
    let multipliers = solution.coding.as_ref().map(|coding| coding.multipliers);
    let problem = Problem {
        hessian: &hessian,
        diagonal: (0..n).map(|column| hessian.row(column)[column]).collect(),
        group_elems,
        grid: solution.grid,
        format,
        multipliers,
        limits,
    };
    let groups = solution.groups_per_row();
    // Without coding, there is nothing for a strip to change here.
    let mut none = vec![T::ONE; if multipliers.is_some() { 0 } else { solution.rows }];
    let row_scales = solution.coding.as_mut().map_or(&mut none, |coding| &mut coding.row_scales);
    let strips: Vec<Refined> = solution
        .codes
        .par_chunks_mut(STRIP_ROWS * n)
        .zip(solution.scales.par_chunks_mut(STRIP_ROWS * groups))
        .zip(row_scales.par_chunks_mut(STRIP_ROWS))
        .enumerate()
        .map(|(strip, ((codes, scales), row_scales))| {
            let first = strip * STRIP_ROWS;
            let target = target.row_range(first, codes.len() / n);
            problem.strip(MatRef::from_row_major_slice(target, codes.len() / n, n), codes, scales, row_scales)
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
    /// Its diagonal.
    diagonal: Vec<T>,
    group_elems: usize,
    grid: Grid,
    format: ScaleFormat,
    /// Of coded scales.
    multipliers: Option<Multipliers>,
    limits: RefineLimits,
}

impl<T: Real> Problem<'_, T> {
    fn strip(
        &self,
        target: MatRef<'_, T>,
        codes: &mut [i8],
        scales: &mut [T],
        row_scales: &mut [T],
    ) -> Refined {
        let (rows, n) = (target.nrows(), target.ncols());
        let groups = scales.len() / rows;
        let mut integers = Matrix::from_fn(rows, n, |i, j| T::from_f64(codes[i * n + j].into()));
        let mut fitted = Matrix::from_fn(rows, groups, |i, g| scales[i * groups + g]);
        let mut fitted_rows = row_scales.to_vec();
        let mut projected = Matrix::zeros(rows, n);
        matmul(projected.view_mut(), Accum::Replace, target, self.hessian.view(), T::ONE, Par::Seq);

        let (mut errors, mut gradients) = (Matrix::zeros(rows, n), Matrix::zeros(rows, n));
        self.gradients(target, &integers, &fitted, &mut errors, &mut gradients);
        let before: Vec<f64> = (0..rows).map(|row| dot(errors.row(row), gradients.row(row))).collect();
        let mut losses = before.clone();
        let mut active = vec![true; rows];
        let mut taken = 0;
        while taken < self.limits.sweeps && active.contains(&true) {
            taken += 1;
            let systems = self.systems(&integers, &projected);
            for (row, system) in systems.iter().enumerate().filter(|(row, _)| active[*row]) {
                let storage = match &self.multipliers {
                    None => Storage::Plain(self.format),
                    Some(multipliers) => Storage::Coded {
                        multipliers,
                        row_scales: self.format.row_scales(),
                        row_scale: &mut fitted_rows[row],
                    },
                };
                system.fit(fitted.row_mut(row), storage);
            }
            self.gradients(target, &integers, &fitted, &mut errors, &mut gradients);
            for row in (0..rows).filter(|row| active[*row]) {
                let (integers, gradients) = (integers.row_mut(row), gradients.row_mut(row));
                vectorized(
                    #[inline(always)]
                    || self.search_codes(integers, fitted.row(row), gradients),
                );
            }
            // The next sweep makes the gradients afresh, and so does the end: the errors of many updates do not add up.
            for row in (0..rows).filter(|row| active[*row]).collect::<Vec<_>>() {
                self.errors(target.row(row), integers.row(row), fitted.row(row), errors.row_mut(row));
                let loss = dot(errors.row(row), gradients.row(row));
                active[row] &= loss < losses[row] * (1.0 - self.limits.least_gain);
                losses[row] = loss;
            }
        }
        if taken > 0 {
            self.gradients(target, &integers, &fitted, &mut errors, &mut gradients);
        }
        for row in 0..rows {
            losses[row] = dot(errors.row(row), gradients.row(row));
            if losses[row] <= before[row] {
                let to = codes[row * n..(row + 1) * n].iter_mut();
                to.zip(integers.row(row)).for_each(|(code, integer)| *code = integer.to_code());
                scales[row * groups..(row + 1) * groups].copy_from_slice(fitted.row(row));
                row_scales[row] = fitted_rows[row];
            } else {
                losses[row] = before[row];
            }
        }
        Refined { sweeps: taken, loss_before: before.iter().sum(), loss_after: losses.iter().sum() }
    }

    /// `errors = W1 - Q` and `gradients = errors Hd`.
    fn gradients(
        &self,
        target: MatRef<'_, T>,
        integers: &Matrix<T>,
        scales: &Matrix<T>,
        errors: &mut Matrix<T>,
        gradients: &mut Matrix<T>,
    ) {
        for row in 0..target.nrows() {
            self.errors(target.row(row), integers.row(row), scales.row(row), errors.row_mut(row));
        }
        matmul(gradients.view_mut(), Accum::Replace, errors.view(), self.hessian.view(), T::ONE, Par::Seq);
    }

    /// `W1 - Q` of a row.
    fn errors(&self, target: RowRef<'_, T>, integers: &[T], scales: &[T], errors: &mut [T]) {
        let groups = errors.chunks_mut(self.group_elems).zip(integers.chunks(self.group_elems)).zip(scales);
        for (group, ((errors, integers), scale)) in groups.enumerate() {
            let start = group * self.group_elems;
            for (j, (error, integer)) in errors.iter_mut().zip(integers).enumerate() {
                *error = target[start + j] - *scale * *integer;
            }
        }
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
    ///
    /// Where nothing changes, the columns that follow see the same gradient: so many are looked at together, up to the first change.
    #[inline(always)]
    fn search_codes(&self, integers: &mut [T], scales: &[T], gradient: &mut [T]) {
        for (group, scale) in scales.iter().enumerate() {
            let mut next = group * self.group_elems;
            let end = (next + self.group_elems).min(integers.len());
            while next < end {
                let width = LOOKED_AT.min(end - next);
                // What stands in lanes beyond the width is not looked at.
                let (mut codes, mut slopes) = ([T::ZERO; LOOKED_AT], [T::ZERO; LOOKED_AT]);
                let mut curvatures = [T::ONE; LOOKED_AT];
                codes[..width].copy_from_slice(&integers[next..next + width]);
                slopes[..width].copy_from_slice(&gradient[next..next + width]);
                curvatures[..width].copy_from_slice(&self.diagonal[next..next + width]);
                curvatures[..width].iter_mut().for_each(|curvature| *curvature *= *scale);
                let mut best = codes;
                for (best, (slope, curvature)) in best.iter_mut().zip(slopes.iter().zip(&curvatures)) {
                    *best += *slope / *curvature;
                }
                self.grid.round_all(&mut best);
                let mut improves = [false; LOOKED_AT];
                for (lane, improves) in improves.iter_mut().enumerate() {
                    let (change, curvature) = (best[lane] - codes[lane], curvatures[lane]);
                    // L changes by -2 change scale e + (change scale)^2 Hd[j, j].
                    *improves = change * curvature * change < (change + change) * slopes[lane];
                }
                let Some(first) = improves[..width].iter().position(|improves| *improves) else {
                    next += width;
                    continue;
                };
                let column = next + first;
                let step = (best[first] - codes[first]) * *scale;
                integers[column] = best[first];
                gradient.iter_mut().zip(self.hessian.row(column)).for_each(|(e, h)| *e -= step * *h);
                next = column + 1;
            }
        }
    }
}

/// What a row's scales are rounded to.
enum Storage<'a, T> {
    /// Each by itself.
    Plain(ScaleFormat),
    /// To multiples of the row's scale, which may change.
    Coded { multipliers: &'a Multipliers, row_scales: RowScales, row_scale: &'a mut T },
}

impl<T: Real> Storage<'_, T> {
    fn round(&self, scale: T) -> T {
        match self {
            Self::Plain(format) => format.round(scale),
            Self::Coded { multipliers, row_scale, .. } => nearest(scale, **row_scale, multipliers),
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
    /// Replaces `scales` by better ones that are positive and can be stored. What is minimized never rises.
    fn fit<T: Real>(&self, scales: &mut [T], mut storage: Storage<'_, T>) {
        let joint = self.joint(scales);
        if let (Some(joint), Storage::Coded { multipliers, row_scales, row_scale }) = (&joint, &mut storage) {
            self.fit_row_scale(joint, scales, multipliers, *row_scales, row_scale);
        }
        let rounded =
            joint.map(|joint| joint.into_iter().map(|scale| storage.round(scale)).collect::<Vec<T>>());
        if let Some(rounded) = rounded
            && self.value(&rounded) < self.value(scales)
        {
            scales.copy_from_slice(&rounded);
            if matches!(storage, Storage::Plain(_)) {
                return;
            }
        }
        // Rounding spoils it, little by little or altogether: one after the other.
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
                let rounded = storage.round(T::from_f64(best));
                let (best, old) = (rounded.to_f64(), scales[group].to_f64());
                let cost = |s: f64| s * (s * curvature + 2.0 * (others - self.right[group]));
                if best > 0.0 && cost(best) < cost(old) {
                    scales[group] = rounded;
                }
            }
        }
    }

    /// Tries other row scales, with the multipliers that come nearest to the unrounded scales: the one that stores these best, and
    /// the one that is best for the multipliers as they are now.
    fn fit_row_scale<T: Real>(
        &self,
        joint: &[T],
        scales: &mut [T],
        multipliers: &Multipliers,
        row_scales: RowScales,
        row_scale: &mut T,
    ) {
        let curvatures: Vec<f64> =
            joint.iter().enumerate().map(|(g, s)| self.matrix[(g, g)] * s.to_f64() * s.to_f64()).collect();
        let (stores_best, _) = fit_row(joint, Some(&curvatures), multipliers, row_scales);
        // s = r m with m as it is: s A s^T - 2 c s^T is least for r = c m^T / (m A m^T).
        let unit: Vec<f64> = scales.iter().map(|s| s.to_f64() / row_scale.to_f64()).collect();
        let along: f64 = unit.iter().zip(&self.right).map(|(m, c)| m * c).sum();
        let curvature: f64 = (0..unit.len())
            .map(|g| unit[g] * (0..unit.len()).map(|h| self.matrix[(g, h)] * unit[h]).sum::<f64>())
            .sum();
        let mut least = self.value(scales);
        let mut consider = |row_scale_tried: T, tried: Vec<T>| {
            let value = self.value(&tried);
            if value < least {
                least = value;
                scales.copy_from_slice(&tried);
                *row_scale = row_scale_tried;
            }
        };
        consider(stores_best, joint.iter().map(|scale| nearest(*scale, stores_best, multipliers)).collect());
        if curvature > 0.0 && along > 0.0 {
            let refitted: T = row_scales.nearest(along / curvature);
            consider(refitted, unit.iter().map(|m| T::from_f64(*m) * refitted).collect());
        }
    }

    /// All scales together, unrounded; a group without codes, or whose scale would not be positive, keeps its own.
    fn joint<T: Real>(&self, scales: &[T]) -> Option<Vec<T>> {
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
            if found > T::ZERO && found.finite() { found } else { scales[g] }
        };
        Some((0..groups).map(scale).collect())
    }

    fn value<T: Real>(&self, scales: &[T]) -> f64 {
        let s = |g: usize| scales[g].to_f64();
        let row = |g: usize| (0..scales.len()).map(|h| self.matrix[(g, h)] * s(h)).sum::<f64>();
        (0..scales.len()).map(|g| s(g) * (row(g) - 2.0 * self.right[g])).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Problem as Moments, inverse};
    use super::super::{ClipSearch, GroupSize, Method, SolverOptions, Start, prepare, solve};
    use super::*;
    use crate::grids::Spacing;
    use proptest::prelude::*;

    const START: Start = Start::Exact { strength: 1.0, ridge: 0.5 };

    fn options(bits: u8, group: usize, scale_format: ScaleFormat) -> SolverOptions {
        let group = GroupSize::elements(group).unwrap();
        SolverOptions { clip: ClipSearch::Off, scale_format, ..SolverOptions::new(bits, group) }
    }

    /// Problem, target and the sweep's solution.
    fn start(moments: &Moments, options: &SolverOptions) -> (Prepared<f64>, Mat<f64>, Solution<f64>) {
        let prepared = moments.prepare(options);
        let target = prepared.target(moments.weights.as_ref(), START).unwrap();
        let configuration = Method::RescompExact.configuration(options.bits).unwrap().with_start(START);
        let solution = solve(moments.weights.as_ref(), &prepared, Some(&configuration), options).unwrap();
        (prepared, target, solution)
    }

    /// One row the obvious way: every loss from scratch.
    struct Naive<'a> {
        target: Vec<f64>,
        hessian: &'a Mat<f64>,
        group_elems: usize,
        codes: Vec<i8>,
        scales: Vec<f64>,
    }

    impl<'a> Naive<'a> {
        fn new(row: usize, target: &Mat<f64>, hessian: &'a Mat<f64>, solution: &Solution<f64>) -> Self {
            let (n, groups) = (solution.columns, solution.groups_per_row());
            Naive {
                target: (0..n).map(|j| target[(row, j)]).collect(),
                hessian,
                group_elems: solution.group_elems,
                codes: solution.codes[row * n..(row + 1) * n].to_vec(),
                scales: solution.scales[row * groups..(row + 1) * groups].to_vec(),
            }
        }

        fn loss(&self) -> f64 {
            let n = self.codes.len();
            let error =
                |j: usize| self.target[j] - self.scales[j / self.group_elems] * f64::from(self.codes[j]);
            (0..n).map(|i| (0..n).map(|j| error(i) * self.hessian[(i, j)] * error(j)).sum::<f64>()).sum()
        }

        /// The minimum over all scales from the normal equations; left alone unless it is positive and better.
        fn fit_scales(&mut self) {
            let (n, groups) = (self.codes.len(), self.scales.len());
            let used: Vec<usize> = (0..groups)
                .filter(|g| (0..n).any(|j| j / self.group_elems == *g && self.codes[j] != 0))
                .collect();
            let code = |g: usize, j: usize| {
                if j / self.group_elems == g { f64::from(self.codes[j]) } else { 0.0 }
            };
            let sum = |left: &dyn Fn(usize) -> f64, right: &dyn Fn(usize) -> f64| -> f64 {
                (0..n).map(|i| (0..n).map(|j| left(i) * self.hessian[(i, j)] * right(j)).sum::<f64>()).sum()
            };
            let matrix = Mat::from_fn(used.len(), used.len(), |a, b| {
                sum(&|j| code(used[a], j), &|j| code(used[b], j))
            });
            let right = Mat::from_fn(used.len(), 1, |a, _| sum(&|j| code(used[a], j), &|j| self.target[j]));
            let best = inverse(matrix.as_ref()) * right;
            let before = (self.loss(), self.scales.clone());
            for (at, group) in used.iter().enumerate() {
                if best[(at, 0)] > 0.0 {
                    self.scales[*group] = best[(at, 0)];
                }
            }
            assert!(self.loss() <= before.0 * (1.0 + 1e-12), "positive least squares only, in this test");
        }

        /// Every code of the grid is tried for every column.
        fn search_codes(&mut self, grid: Grid) {
            for j in 0..self.codes.len() {
                let losses: Vec<(f64, i8)> = grid
                    .levels()
                    .into_iter()
                    .map(|code| {
                        self.codes[j] = code;
                        (self.loss(), code)
                    })
                    .collect();
                self.codes[j] = losses.iter().fold(losses[0], |a, b| if b.0 < a.0 { *b } else { a }).1;
            }
        }
    }

    #[test]
    fn refinement_is_the_naive_one() {
        let mut changed = 0;
        for (seed, bits, m, n, group) in
            [(1, 2, 5, 12, 4), (2, 3, 4, 15, 6), (3, 4, 5, 16, 16), (4, 2, 3, 9, 2), (5, 3, 40, 8, 4)]
        {
            let moments = Moments::new(seed, m, n);
            let options = options(bits, group, ScaleFormat::Full);
            let (prepared, target, before) = start(&moments, &options);
            let hessian = prepared.damped_hessian();
            for sweeps in [1, 3] {
                let mut refined = before.clone();
                let limits = RefineLimits { sweeps, least_gain: 0.0 };
                let report =
                    refine(&mut refined, target.as_ref(), &prepared, options.scale_format, limits).unwrap();
                let (mut loss_before, mut loss_after) = (0.0, 0.0);
                for row in 0..m {
                    let mut naive = Naive::new(row, &target, &hessian, &before);
                    loss_before += naive.loss();
                    for _ in 0..sweeps {
                        naive.fit_scales();
                        naive.search_codes(before.grid);
                    }
                    loss_after += naive.loss();
                    let found = Naive::new(row, &target, &hessian, &refined);
                    assert_eq!(found.codes, naive.codes, "problem {seed}, row {row}, {sweeps} sweeps");
                    for (found, expected) in found.scales.iter().zip(&naive.scales) {
                        assert!((found / expected - 1.0).abs() < 1e-6, "{found} instead of {expected}");
                    }
                }
                assert!((report.loss_before / loss_before - 1.0).abs() < 1e-9);
                assert!((report.loss_after / loss_after - 1.0).abs() < 1e-6);
                changed += refined.codes.iter().zip(&before.codes).filter(|(a, b)| a != b).count();
            }
        }
        assert!(changed > 10, "{changed} codes changed");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_half_step_raises_the_loss_of_a_row(
            seed: u64, m in 1..5_usize, n in 2..20_usize, group in 1..9_usize, bits in 2..5_u8, format in 0..3_usize,
            normal: bool, far: bool,
        ) {
            let format = [ScaleFormat::Full, ScaleFormat::F16, ScaleFormat::Coded][format];
            let spacing = if normal { Spacing::Normal } else { Spacing::Uniform };
            let moments = Moments::new(seed, m, n);
            let options = SolverOptions { spacing, ..options(bits, group, format) };
            let format = options.row_format(n);
            let (prepared, target, mut solution) = start(&moments, &options);
            if far {
                // Far from a minimum: least squares gives scales that are not positive.
                let levels = solution.grid.levels();
                for (at, code) in solution.codes.iter_mut().enumerate() {
                    *code = levels[(at * 37 + (seed % 1000) as usize) % levels.len()];
                }
            }
            let (naive_hessian, hessian) = (prepared.damped_hessian(), prepared.damped());
            let limits = RefineLimits::sweeps(1);
            let multipliers = solution.coding.as_ref().map(|coding| coding.multipliers);
            let mut row_scales = solution.coding.as_ref().map(|coding| coding.row_scales.clone());
            let problem = Problem {
                hessian: &hessian,
                diagonal: (0..n).map(|column| hessian.row(column)[column]).collect(),
                group_elems: solution.group_elems,
                grid: solution.grid,
                format,
                multipliers,
                limits,
            };
            let groups = solution.groups_per_row();
            let target_view = Matrix::from_fn(m, n, |i, j| target[(i, j)]);
            let mut projected = Matrix::zeros(m, n);
            matmul(projected.view_mut(), Accum::Replace, target.as_ref(), hessian.view(), 1.0, Par::Seq);
            let mut integers = Matrix::from_fn(m, n, |i, j| f64::from(solution.codes[i * n + j]));
            let mut scales = Matrix::from_fn(m, groups, |i, g| solution.scales[i * groups + g]);
            let mut losses: Vec<f64> =
                (0..m).map(|row| Naive::new(row, &target, &naive_hessian, &solution).loss()).collect();
            let mut check = |integers: &Matrix<f64>, scales: &Matrix<f64>, row_scales: &Option<Vec<f64>>, step: &str| {
                for (row, last) in losses.iter_mut().enumerate() {
                    let state = Naive {
                        codes: integers.row(row).iter().map(|code| code.to_code()).collect(),
                        scales: scales.row(row).to_vec(),
                        ..Naive::new(row, &target, &naive_hessian, &solution)
                    };
                    let loss = state.loss();
                    assert!(loss <= *last * (1.0 + 1e-9) + 1e-12, "{step}: {loss} after {last}");
                    *last = loss;
                    assert!(state.scales.iter().all(|s| *s > 0.0 && s.is_finite() && format.round(*s) == *s));
                    if let (Some(multipliers), Some(row_scales)) = (&multipliers, row_scales) {
                        assert!(state.scales.iter().all(|s| nearest(*s, row_scales[row], multipliers) == *s));
                    }
                }
            };
            for _ in 0..3 {
                for (row, system) in problem.systems(&integers, &projected).iter().enumerate() {
                    let storage = match (&multipliers, &mut row_scales) {
                        (Some(multipliers), Some(rows)) => Storage::Coded {
                            multipliers,
                            row_scales: format.row_scales(),
                            row_scale: &mut rows[row],
                        },
                        _ => Storage::Plain(format),
                    };
                    system.fit(scales.row_mut(row), storage);
                }
                check(&integers, &scales, &row_scales, "scales");
                let (mut errors, mut gradients) = (Matrix::zeros(m, n), Matrix::zeros(m, n));
                problem.gradients(target_view.view(), &integers, &scales, &mut errors, &mut gradients);
                for row in 0..m {
                    problem.search_codes(integers.row_mut(row), scales.row(row), gradients.row_mut(row));
                }
                check(&integers, &scales, &row_scales, "codes");
            }
            let mut refined = solution.clone();
            let report = refine(&mut refined, target.as_ref(), &prepared, format, RefineLimits::sweeps(8)).unwrap();
            prop_assert!(report.loss_after <= report.loss_before && report.sweeps <= 8);
            let range = solution.grid.lowest()..=solution.grid.highest();
            prop_assert!(refined.codes.iter().all(|code| range.contains(code)));
        }
    }

    #[test]
    fn dead_columns_stay_0_and_f32_agrees() {
        let mut moments = Moments::new(9, 6, 24);
        for dead in [0, 7] {
            for j in 0..24 {
                moments.hessian[(dead, j)] = 0.0;
                moments.hessian[(j, dead)] = 0.0;
                moments.drift[(j, dead)] = 0.0;
            }
        }
        let options = options(3, 8, ScaleFormat::F16);
        let (prepared, target, mut solution) = start(&moments, &options);
        assert!((0..6).all(|row| [0, 7].iter().all(|dead| target[(row, *dead)] == 0.0)));
        let limits = RefineLimits::sweeps(4);
        // The original weights as a target: their dead columns are not 0.
        for target in [&target, &moments.weights] {
            refine(&mut solution, target.as_ref(), &prepared, options.scale_format, limits).unwrap();
            assert!((0..6).all(|row| [0, 7].iter().all(|dead| solution.codes[row * 24 + dead] == 0)));
        }

        let (_, target, double) = start(&moments, &options);
        let single =
            |matrix: &Mat<f64>| Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, j)] as f32);
        let (hessian, drift) = (single(&moments.hessian), single(&moments.drift));
        let prepared32 = prepare(hessian.as_ref(), Some(drift.as_ref()), &options).unwrap();
        let mut double_refined = double.clone();
        let expected =
            refine(&mut double_refined, target.as_ref(), &prepared, options.scale_format, limits).unwrap();
        let scales: Vec<f32> = double.scales.iter().map(|s| *s as f32).collect();
        let mut solution = Solution {
            rows: 6,
            columns: 24,
            group_elems: 8,
            grid: double.grid,
            codes: double.codes,
            scales,
            coding: None,
            ridge: None,
        };
        let found =
            refine(&mut solution, single(&target).as_ref(), &prepared32, options.scale_format, limits)
                .unwrap();
        assert!((found.loss_after / expected.loss_after - 1.0).abs() < 0.02, "{found:?} {expected:?}");
        assert!(found.loss_after < found.loss_before);
    }

    #[test]
    fn no_sweeps_change_nothing_and_bad_arguments_are_refused() {
        let moments = Moments::new(11, 40, 16);
        let options = options(2, 8, ScaleFormat::F16);
        let (prepared, target, before) = start(&moments, &options);
        let run = |limits, target: MatRef<'_, f64>| {
            let mut solution = before.clone();
            refine(&mut solution, target, &prepared, options.scale_format, limits)
                .map(|report| (solution, report))
        };
        let (same, report) = run(RefineLimits::sweeps(0), target.as_ref()).unwrap();
        assert_eq!((same, report.sweeps), (before.clone(), 0));
        assert_eq!(report.loss_before, report.loss_after);
        let bad = RefineLimits { sweeps: 1, least_gain: f64::NAN };
        assert!(matches!(run(bad, target.as_ref()), Err(MethodError::Option { .. })));
        let short = target.as_ref().subcols(0, 15);
        assert!(matches!(
            run(RefineLimits::sweeps(1), short),
            Err(MethodError::Shape { matrix: "target", .. })
        ));
        // Strips, threads and neighbours have no influence on a row.
        let limits = RefineLimits::sweeps(3);
        let (whole, _) = run(limits, target.as_ref()).unwrap();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| run(limits, target.as_ref()).unwrap().0), whole);
    }
}
