//! A low-rank correction: what a quantized matrix lacks, approximated by two thin factors, `W ~ Q + U V`.
//!
//! Letters of [`super`]; `W1` (m x n) is what the sweep aims at ([`Prepared::target`]: with drift, the exact start), `Hd = L L^T` the
//! damped Hessian. Of all U (m x r) V (r x n), the one with the least `tr((W1 - Q - U V) Hd (W1 - Q - U V)^T)` is the truncated singular
//! value decomposition of `E = (W1 - Q) L` (Eckart and Young 1936), mapped back: `U V = E_r L^-1`. What it leaves is the sum of squares of
//! the other singular values.
//!
//! ```text
//! m <= n:  E E^T = A diag(s^2) A^T;   U = A_r,  V = A_r^T (W1 - Q)             (no L is needed: E_r = A_r A_r^T E)
//! m >  n:  E^T E = B diag(s^2) B^T;   U = E B_r,  V = B_r^T L^-1
//! both:    columns of U and rows of V are scaled so that both carry the root of s: int8 errors of U V x, which come from U and from
//!          the codes of V x, are then the least together; a common factor makes the largest entries alike
//! stored:  V to 8 bits;  U = (W1 - Q) Hd V^T (V Hd V^T)^-1, the least squares for the V that is stored;  U to 8 bits
//! ```
//!
//! Joint alternation (LRC, arXiv:2412.07902, algorithm 1): the sweep quantizes `W1 - U V`, then U V is fitted to what that leaves, and
//! again. It starts with no correction, or with the best one of W1 itself, which takes the largest directions out of what has to be
//! quantized (SVDQuant, arXiv:2411.05007, section 4.2). Nothing bounds the loss of a round by that of the one before, since a sweep is
//! no minimization: [`crate::choose`] keeps the best on held-out tokens.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Col, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::factors::{STRIP_ROWS, cholesky_escalating};
use super::options::SweepConfiguration;
use super::{
    GroupSize, MethodError, Objective, Prepared, RefineLimits, Solution, SolverOptions, gptq, refine, rtn,
    solve,
};

/// Bits of the factors.
pub const FACTOR_BITS: u8 = 8;
/// How many columns of a factor share a scale: all.
pub const FACTOR_GROUP: GroupSize = GroupSize::Row;
/// Rounds of the alternation where the number is not chosen.
pub const ROUNDS: usize = 2;
/// Singular values below this share of the largest are rounding errors of the squares that they are the roots of.
const NEGLIGIBLE: f64 = 1e-7;
/// Ridge of the least squares for U, as a share of the mean diagonal.
const LEAST_SQUARES_RIDGE: f64 = 1e-10;

/// What the alternation begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirstFactors {
    /// None: the first sweep quantizes all of the target.
    Zero,
    /// The best ones of the target itself: the first sweep quantizes the rest.
    Principal,
}

impl FirstFactors {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Zero, Self::Principal];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Principal => "principal",
        }
    }
}

/// How a correction is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternation {
    /// Columns of U and rows of V.
    pub rank: usize,
    /// What it begins with.
    pub first: FirstFactors,
    /// Rounds of sweep and fit, 1 or more.
    pub rounds: usize,
}

/// The factors as they are stored: 8 bits, a scale a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LowRank {
    /// V, r x n.
    pub right: Solution<f64>,
    /// U, m x r.
    pub left: Solution<f64>,
}

impl LowRank {
    /// The rank r.
    pub fn rank(&self) -> usize {
        self.right.rows
    }

    /// Bits of codes and scales in a container.
    pub fn stored_bits(&self) -> u64 {
        self.right.stored_bits(FACTOR_BITS) + self.left.stored_bits(FACTOR_BITS)
    }

    /// Adds U V to `values`, m x n, row-major.
    pub fn add_to(&self, values: &mut [f64]) {
        let (right, left) = (self.right.values(), self.left.values());
        let (rank, n) = (self.rank(), self.right.columns);
        let right = MatRef::from_row_major_slice(&right, rank, n);
        values.par_chunks_mut(STRIP_ROWS * n).zip(left.par_chunks(STRIP_ROWS * rank)).for_each(
            |(values, left)| {
                let rows = values.len() / n;
                let left = MatRef::from_row_major_slice(left, rows, rank);
                let values = MatMut::from_row_major_slice_mut(values, rows, n);
                matmul(values, Accum::Add, left, right, 1.0, Par::Seq);
            },
        );
    }
}

/// The values Q + U V (m x n, row-major), or Q where there is no correction.
pub fn corrected_values(solution: &Solution<f64>, low_rank: Option<&LowRank>) -> Vec<f64> {
    let mut values = solution.values();
    if let Some(low_rank) = low_rank {
        low_rank.add_to(&mut values);
    }
    values
}

/// Real factors: U (m x r) and V (r x n).
#[derive(Debug, Clone)]
pub struct Factors {
    /// U, m x r.
    pub left: Mat<f64>,
    /// V, r x n.
    pub right: Mat<f64>,
}

/// Refuses methods whose sweep is more than compensation: their other terms are about the weights, not about what a correction leaves.
pub(crate) fn check_configuration(configuration: Option<&SweepConfiguration>) -> Result<(), MethodError> {
    match configuration {
        Some(SweepConfiguration { alpha1: 0.0, alpha2: 0.0, .. }) => Ok(()),
        _ => Err(MethodError::CorrectionOfMethod),
    }
}

/// The best real factors of `errors` (m x n; 0 in dead columns) of at most `rank` under the damped Hessian.
///
/// # Errors
/// [`MethodError::Shape`] for other columns than the Hessian's, [`MethodError::NotFinite`] where the errors or their squares are beyond the
/// range of numbers, [`MethodError::NotPositiveDefinite`].
pub fn best_factors(
    errors: MatRef<'_, f64>,
    prepared: &Prepared<f64>,
    rank: usize,
) -> Result<Factors, MethodError> {
    let (m, n) = (errors.nrows(), errors.ncols());
    let expected = (m, prepared.columns());
    if n != expected.1 {
        return Err(MethodError::Shape { matrix: "errors", expected, found: (m, n) });
    }
    let hessian = prepared.damped_hessian();
    let rank = rank.min(m).min(n);
    let mut factors = if m <= n {
        let gram = product(product(errors, hessian.as_ref()).as_ref(), errors.transpose());
        let (squares, vectors) = largest(gram.as_ref(), rank)?;
        let right = product(vectors.as_ref().transpose(), errors);
        // Rows of V carry s, columns of U carry 1.
        scaled(Factors { left: vectors, right }, &squares, -0.25)
    } else {
        let (lower, _) = cholesky_escalating(n, 0.0, 1.0, |i, j| hessian[(i, j)])?;
        let lower = Mat::from_fn(n, n, |i, j| if j <= i { lower[(i, j)] } else { 0.0 });
        let weighted = product(errors, lower.as_ref());
        let gram = product(weighted.as_ref().transpose(), weighted.as_ref());
        let (squares, mut vectors) = largest(gram.as_ref(), rank)?;
        let left = product(weighted.as_ref(), vectors.as_ref());
        solve_upper_triangular_in_place(lower.as_ref().transpose(), vectors.as_mut(), Par::Seq);
        // Columns of U carry s, rows of V carry 1.
        scaled(Factors { left, right: vectors.transpose().to_owned() }, &squares, 0.25)
    };
    let largest_entry = |matrix: &Mat<f64>| matrix.as_ref().norm_max();
    let (left, right) = (largest_entry(&factors.left), largest_entry(&factors.right));
    if left > 0.0 && right > 0.0 {
        let balance = (left / right).sqrt();
        factors.left = &factors.left * faer::Scale(1.0 / balance);
        factors.right = &factors.right * faer::Scale(balance);
    }
    Ok(factors)
}

/// The product of two matrices, in strips of rows that do not depend on the number of threads.
fn product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let (m, n) = (left.nrows(), right.ncols());
    let strips: Vec<Mat<f64>> = (0..m.div_ceil(STRIP_ROWS))
        .into_par_iter()
        .map(|strip| {
            let (first, rows) = (strip * STRIP_ROWS, STRIP_ROWS.min(m - strip * STRIP_ROWS));
            let mut product = Mat::zeros(rows, n);
            let left = left.subrows(first, rows);
            matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
            product
        })
        .collect();
    Mat::from_fn(m, n, |i, j| strips[i / STRIP_ROWS][(i % STRIP_ROWS, j)])
}

/// The `count` largest eigenvalues of a positive semidefinite matrix, falling, and their eigenvectors in columns.
fn largest(gram: MatRef<'_, f64>, count: usize) -> Result<(Vec<f64>, Mat<f64>), MethodError> {
    let n = gram.nrows();
    let not_finite = |row, column, value| MethodError::NotFinite { matrix: "errors", row, column, value };
    for row in 0..n {
        if let Some(column) = (0..n).find(|column| !gram[(row, *column)].is_finite()) {
            return Err(not_finite(row, column, gram[(row, column)]));
        }
    }
    let (mut values, mut vectors) = (Col::<f64>::zeros(n), Mat::<f64>::zeros(n, n));
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Spec::default());
    let mut buffer = MemBuffer::new(scratch);
    let values_mut: DiagMut<'_, f64> = values.as_mut().as_diagonal_mut();
    let vectors_mut = Some(vectors.as_mut());
    self_adjoint_evd(gram, values_mut, vectors_mut, Par::Seq, MemStack::new(&mut buffer), Spec::default())
        .map_err(|_| not_finite(0, 0, f64::NAN))?;
    // In rising order.
    let at = |index: usize| n - 1 - index;
    let squares = (0..count).map(|index| values[at(index)].max(0.0)).collect();
    Ok((squares, Mat::from_fn(n, count, |i, j| vectors[(i, at(j))])))
}

/// Columns of U times s^(-2 power), rows of V times s^(2 power), where s are the roots of `squares`; both 0 where s is negligible.
fn scaled(mut factors: Factors, squares: &[f64], power: f64) -> Factors {
    let least = squares.first().copied().unwrap_or(0.0) * NEGLIGIBLE * NEGLIGIBLE;
    for (index, &square) in squares.iter().enumerate() {
        let counts = square > least;
        // `power` is of the square: a quarter of it is the root of s.
        let factor = if counts { square.powf(power) } else { 0.0 };
        let inverse = if counts { 1.0 / factor } else { 0.0 };
        factors.left.as_mut().col_mut(index).iter_mut().for_each(|value| *value *= inverse);
        factors.right.as_mut().row_mut(index).iter_mut().for_each(|value| *value *= factor);
    }
    factors
}

/// The factors of `errors` (m x n; 0 in dead columns) as they are stored.
///
/// # Errors
/// Those of [`best_factors`].
pub fn fit(errors: MatRef<'_, f64>, prepared: &Prepared<f64>, rank: usize) -> Result<LowRank, MethodError> {
    let Factors { left, right } = best_factors(errors, prepared, rank)?;
    let options = SolverOptions::for_container(FACTOR_BITS, FACTOR_GROUP);
    // A scale is not 0, whatever it multiplies.
    let right = rtn::round_to_nearest(right.as_ref(), &options)?;
    let stored = right.values();
    let stored = MatRef::from_row_major_slice(&stored, right.rows, right.columns);
    let left = least_squares(errors, prepared, stored)?.unwrap_or(left);
    Ok(LowRank { left: rtn::round_to_nearest(left.as_ref(), &options)?, right })
}

/// `errors Hd V^T (V Hd V^T)^-1`: the best U for this V. `None` where V Hd V^T has no inverse at all.
fn least_squares(
    errors: MatRef<'_, f64>,
    prepared: &Prepared<f64>,
    right: MatRef<'_, f64>,
) -> Result<Option<Mat<f64>>, MethodError> {
    let weighted = product(prepared.damped_hessian().as_ref(), right.transpose());
    let (inner, mut left) = (product(right, weighted.as_ref()), product(errors, weighted.as_ref()));
    let rank = right.nrows();
    let mean = (0..rank).map(|i| inner[(i, i)]).sum::<f64>() / rank as f64;
    if !(mean > 0.0 && mean.is_finite()) {
        return Ok(None);
    }
    let (lower, _) = cholesky_escalating(rank, LEAST_SQUARES_RIDGE, mean, |i, j| inner[(i, j)])?;
    // The transpose of U in U (L L^T) = errors Hd V^T.
    let mut transposed = left.as_mut().transpose_mut();
    solve_lower_triangular_in_place(lower.as_ref(), transposed.as_mut(), Par::Seq);
    solve_upper_triangular_in_place(lower.as_ref().transpose(), transposed.as_mut(), Par::Seq);
    Ok(Some(left))
}

/// What a correction is for: a matrix, and how its sweep and refinement are configured.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// W0 (m x n): what dead columns keep.
    pub weights: MatRef<'a, f64>,
    /// W1 (m x n): what is aimed at, of [`Prepared::target`].
    pub target: MatRef<'a, f64>,
    /// The factors of the input.
    pub prepared: &'a Prepared<f64>,
    /// Bits, groups and the rest of the quantized part.
    pub options: &'a SolverOptions,
    /// The most sweeps of refinement in a round.
    pub sweeps: usize,
}

impl Problem<'_> {
    /// Runs the alternation; `heard` gets what each round ends with, and may stop it with an error.
    ///
    /// # Errors
    /// Those of the sweep, of the refinement, of [`fit`], and what `heard` returns.
    pub fn alternate(
        &self,
        alternation: Alternation,
        mut heard: impl FnMut(usize, &Solution<f64>, &LowRank) -> Result<(), MethodError>,
    ) -> Result<(Solution<f64>, LowRank), MethodError> {
        let Alternation { rank, first, rounds } = alternation;
        let (m, n) = (self.target.nrows(), self.target.ncols());
        let mut low_rank = match first {
            FirstFactors::Zero => None,
            FirstFactors::Principal => Some(fit(self.target, self.prepared, rank)?),
        };
        let mut round = 0;
        loop {
            round += 1;
            let mut rest = Mat::from_fn(m, n, |i, j| self.target[(i, j)]);
            if let Some(low_rank) = &low_rank {
                let mut values = vec![0.0; m * n];
                low_rank.add_to(&mut values);
                rest -= MatRef::from_row_major_slice(&values, m, n);
            }
            // A dead column is to be what is nearest to the original model: no correction of it is trusted.
            for &dead in self.prepared.dead_columns() {
                (0..m).for_each(|i| rest[(i, dead)] = self.weights[(i, dead)]);
            }
            let mut solution = solve(rest.as_ref(), self.prepared, Some(&gptq::CONFIGURATION), self.options)?;
            if self.sweeps > 0 {
                let (format, limits) = (self.options.row_format(n), RefineLimits::sweeps(self.sweeps));
                for &dead in self.prepared.dead_columns() {
                    (0..m).for_each(|i| rest[(i, dead)] = 0.0);
                }
                refine(&mut solution, rest.as_ref(), self.prepared, format, limits)?;
            }
            let fitted = fit(self.errors(&solution).as_ref(), self.prepared, rank)?;
            heard(round, &solution, &fitted)?;
            if round >= rounds {
                return Ok((solution, fitted));
            }
            low_rank = Some(fitted);
        }
    }

    /// W1 - Q, 0 in dead columns.
    fn errors(&self, solution: &Solution<f64>) -> Mat<f64> {
        let (values, n) = (solution.values(), self.target.ncols());
        let mut errors = Mat::from_fn(self.target.nrows(), n, |i, j| self.target[(i, j)] - values[i * n + j]);
        for &dead in self.prepared.dead_columns() {
            errors.as_mut().col_mut(dead).iter_mut().for_each(|error| *error = 0.0);
        }
        errors
    }

    /// `tr((W1 - Q - U V) Hd (W1 - Q - U V)^T)`: what sweep, refinement and fit minimize.
    ///
    /// # Errors
    /// [`MethodError::NotFinite`].
    pub fn loss(&self, solution: &Solution<f64>, low_rank: Option<&LowRank>) -> Result<f64, MethodError> {
        let (m, n) = (self.target.nrows(), self.target.ncols());
        let values = corrected_values(solution, low_rank);
        let values = MatRef::from_row_major_slice(&values, m, n);
        let hessian = self.prepared.damped_hessian();
        let mut target = Mat::from_fn(m, n, |i, j| self.target[(i, j)]);
        // What stands in a dead column multiplies nothing.
        for &dead in self.prepared.dead_columns() {
            (0..m).for_each(|i| target[(i, dead)] = values[(i, dead)]);
        }
        Ok(Objective::new(target.as_ref(), hessian.as_ref(), None)?.of_values(values)?.total())
    }
}

#[cfg(test)]
mod tests;
