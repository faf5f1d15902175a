//! What is computed once for all matrices that share an input: order, damping, and the factors of the sweep.
//!
//! ```text
//! dead columns:  H[j, j] = 0: the input was never active. Its weights become 0, and it is left out below.
//! order:         columns by descending diag H (activation order), or as they are
//! damping:       Hd = H + damping * mean(diag H) * I; if Cholesky fails, ten times the damping, and again
//! factor U:      Hd^-1 = U^T U, U upper triangular, by the reverse Cholesky factorization Hd = M M^T with M
//!                upper triangular: reverse rows and columns of Hd, factor, invert the triangle, reverse.
//!                Hd^-1 itself is never formed.
//! projection P:  P = strict_upper(D U^T) U; row q is D[q, F] (Hd[F, F])^-1 on the later columns F = q+1..n
//! ```
//!
//! The factorization runs in f64 for f32 matrices too: it is a small part of the work, and the smallest
//! pivots are differences of nearly equal numbers. Large products run in strips of rows of a fixed size, each
//! on one thread, so the result does not depend on the number of threads.

use std::sync::{Arc, Mutex, PoisonError};

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{LltRegularization, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;

use super::matrix::Matrix;
use super::{MethodError, SolverOptions, Start, exact};
use crate::grids::Real;

/// Rows of a strip.
pub(super) const STRIP_ROWS: usize = 64;
/// A failed factorization is tried again up to at least this damping.
const LARGEST_DAMPING: f64 = 10.0;
/// What a failed factorization without damping is tried again with.
const SMALLEST_DAMPING: f64 = 1e-6;
/// Elements of the corrections that are kept, where they are more than one.
const CORRECTION_ELEMS: usize = 1 << 24;
/// Corrections that are kept where they are small: those of as many ridges as are tried, and some that a matrix was given.
const MOST_CORRECTIONS: usize = 8;
/// `|H[i, j] - H[j, i]|` may be this share of `sqrt(H[i, i] H[j, j])`: more than rounding of any sum leaves.
const SYMMETRY_TOLERANCE: f64 = 1e-3;

/// Corrections of inputs of so many channels that are kept: at least one.
fn corrections_kept(n: usize) -> usize {
    (CORRECTION_ELEMS / (n * n)).clamp(1, MOST_CORRECTIONS)
}

/// The factors of one input's moments, shared by all weight matrices that read this input (such as q, k and
/// v).
#[derive(Debug)]
pub struct Prepared<T> {
    /// H in the original order, with the dead columns taken out and their diagonal set to the mean.
    hessian: Matrix<T>,
    /// D in the original order, zero in the rows and columns of dead columns.
    drift: Option<Matrix<T>>,
    mean_diagonal: f64,
    order: Vec<usize>,
    dead_columns: Vec<usize>,
    factor: Matrix<T>,
    damping: f64,
    asked_damping: f64,
    activation_order: bool,
    projection: Shared<Matrix<T>>,
    corrections: Shared<Correction<T>>,
}

/// The exact start's matrix for one ridge.
#[derive(Debug)]
pub(super) struct Correction<T> {
    asked_ridge: f64,
    /// The ridge it was factored with.
    pub(super) ridge: f64,
    /// `D (H + ridge * mean(diag H) * I)^-1`.
    pub(super) matrix: Matrix<T>,
}

/// Values computed when they are first needed, the last ones of which are kept.
///
/// Not a `OnceLock`: the computation uses rayon, and a thread that waits for its share may steal a task that
/// needs the same value; it would wait for itself. Here two threads may at worst compute the same value
/// twice.
#[derive(Debug)]
struct Shared<V> {
    values: Mutex<Vec<Arc<V>>>,
    most: usize,
}

impl<V> Shared<V> {
    /// Keeps at most so many values.
    fn new(most: usize) -> Self {
        Self { values: Mutex::new(Vec::new()), most }
    }

    /// The stored value that is `valid`, or else the one that `compute` returns, stored in the place of the oldest one.
    fn get(
        &self,
        valid: impl Fn(&V) -> bool,
        compute: impl FnOnce() -> Result<V, MethodError>,
    ) -> Result<Arc<V>, MethodError> {
        let values = || self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values().iter().find(|value| valid(value)) {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(compute()?);
        let mut values = values();
        if values.len() >= self.most {
            values.remove(0);
        }
        values.push(Arc::clone(&value));
        Ok(value)
    }
}

/// Factors the moments of an input of n channels: `hessian` H (n x n, both triangles) and `drift` D (n x n,
/// first index the full-precision side), or `None` where both streams are the same. Of `options`, damping and
/// activation order matter.
///
/// # Errors
/// [`MethodError::Shape`], [`MethodError::NotFinite`], the `Hessian*` errors,
/// [`MethodError::NotPositiveDefinite`], and those of [`SolverOptions::check`].
pub fn prepare<T: Real>(
    hessian: MatRef<'_, T>,
    drift: Option<MatRef<'_, T>>,
    options: &SolverOptions,
) -> Result<Prepared<T>, MethodError> {
    let n = hessian.nrows().max(1);
    options.check(n)?;
    let mut hessian = Matrix::checked("hessian", hessian, (n, n))?;
    let mut drift = drift.map(|drift| Matrix::checked("drift", drift, (n, n))).transpose()?;
    let diagonal: Vec<T> = (0..n).map(|i| hessian.row(i)[i]).collect();
    check_hessian(&hessian, &diagonal)?;

    let mut order: Vec<usize> = (0..n).collect();
    if options.activation_order {
        // Stable, so that equal columns keep their order; no entry is a NaN.
        order.sort_by(|a, b| diagonal[*b].partial_cmp(&diagonal[*a]).unwrap_or(std::cmp::Ordering::Equal));
    }
    let dead_columns: Vec<usize> = (0..n).filter(|i| diagonal[*i] == T::ZERO).collect();
    let live_columns = n - dead_columns.len();
    if live_columns == 0 {
        return Err(MethodError::HessianZero(n));
    }
    let mean_diagonal = diagonal.iter().map(|d| d.to_f64()).sum::<f64>() / live_columns as f64;
    for &dead in &dead_columns {
        for matrix in std::iter::once(&mut hessian).chain(&mut drift) {
            matrix.row_mut(dead).fill(T::ZERO);
            for row in 0..n {
                matrix.row_mut(row)[dead] = T::ZERO;
            }
        }
        hessian.row_mut(dead)[dead] = T::from_f64(mean_diagonal);
    }

    let (factor, damping) = factor(&hessian, &order, mean_diagonal, options.damping)?;
    Ok(Prepared {
        hessian,
        drift,
        mean_diagonal,
        order,
        dead_columns,
        factor,
        damping,
        asked_damping: options.damping,
        activation_order: options.activation_order,
        projection: Shared::new(1),
        corrections: Shared::new(corrections_kept(n)),
    })
}

fn check_hessian<T: Real>(hessian: &Matrix<T>, diagonal: &[T]) -> Result<(), MethodError> {
    for (index, value) in diagonal.iter().enumerate() {
        if *value < T::ZERO {
            return Err(MethodError::HessianNegative { index, value: value.to_f64() });
        }
    }
    let roots: Vec<f64> = diagonal.iter().map(|d| d.to_f64().sqrt()).collect();
    for row in 0..diagonal.len() {
        for column in 0..row {
            let (value, mirrored) = (hessian.row(row)[column].to_f64(), hessian.row(column)[row].to_f64());
            // Where a diagonal entry is 0 or has lost its digits to underflow, the entries may be as small.
            let tolerance = SYMMETRY_TOLERANCE * roots[row] * roots[column] + T::min_positive_impl().to_f64();
            if (value - mirrored).abs() > tolerance {
                return Err(MethodError::HessianNotSymmetric { row, column, value, mirrored });
            }
        }
    }
    Ok(())
}

/// U (n x n) with `U^T U = (H + damping * mean * I)^-1` in the given order of columns, and the damping that
/// was used.
fn factor<T: Real>(
    hessian: &Matrix<T>,
    order: &[usize],
    mean_diagonal: f64,
    damping: f64,
) -> Result<(Matrix<T>, f64), MethodError> {
    let n = order.len();
    let last = n - 1;
    let (lower, damping) = cholesky_escalating(n, damping, mean_diagonal, |i, j| {
        // Symmetric: read along rows, since the factor is made by columns.
        hessian.row(order[last - j])[order[last - i]].to_f64()
    })?;
    let mut inverse = Mat::<f64>::zeros(n, n);
    invert_lower_triangular(inverse.as_mut(), lower.as_ref(), Par::Seq);
    let factor =
        Matrix::from_fn(
            n,
            n,
            |i, j| {
                if j >= i { T::from_f64(inverse[(last - i, last - j)]) } else { T::ZERO }
            },
        );
    Ok((factor, damping))
}

/// The lower Cholesky factor of `entry + ridge * mean_diagonal * I` (its upper triangle is unspecified) and
/// the ridge, multiplied by ten until the matrix is positive definite.
pub(super) fn cholesky_escalating(
    n: usize,
    mut ridge: f64,
    mean_diagonal: f64,
    entry: impl Fn(usize, usize) -> f64,
) -> Result<(Mat<f64>, f64), MethodError> {
    let scratch = cholesky_in_place_scratch::<f64>(n, Par::Seq, Spec::default());
    let mut buffer = MemBuffer::new(scratch);
    loop {
        let mut matrix = Mat::from_fn(n, n, |i, j| {
            // Only the lower triangle is read.
            if i < j { 0.0 } else { entry(i, j) + if i == j { ridge * mean_diagonal } else { 0.0 } }
        });
        let outcome = cholesky_in_place(
            matrix.as_mut(),
            LltRegularization::default(),
            Par::Seq,
            MemStack::new(&mut buffer),
            Spec::default(),
        );
        if outcome.is_ok() && (0..n).all(|i| matrix[(i, i)].is_finite() && matrix[(i, i)] > 0.0) {
            return Ok((matrix, ridge));
        }
        if ridge >= LARGEST_DAMPING {
            return Err(MethodError::NotPositiveDefinite { damping: ridge });
        }
        ridge = (ridge * 10.0).max(SMALLEST_DAMPING);
    }
}

/// `strict_upper(D U^T) U` with D in the order of U, by strips of rows; the zeros of the triangles are
/// skipped.
fn projection<T: Real>(drift: &Matrix<T>, factor: &Matrix<T>, order: &[usize]) -> Matrix<T> {
    let n = order.len();
    let mut projection = Matrix::zeros(n, n);
    projection.strips_mut(STRIP_ROWS).for_each(|(first, strip)| {
        let rows = strip.len() / n;
        // U is upper triangular and only columns after the row's own survive: columns before `first` do not
        // matter.
        let width = n - first;
        let drift = Matrix::from_fn(rows, width, |i, j| drift.row(order[first + i])[order[first + j]]);
        let factor = factor.view().submatrix(first, first, width, width);
        let mut product = Matrix::zeros(rows, width);
        matmul(product.view_mut(), Accum::Replace, drift.view(), factor.transpose(), T::ONE, Par::Seq);
        for row in 0..rows {
            product.row_mut(row)[..=row].fill(T::ZERO);
        }
        let strip = MatMut::from_row_major_slice_mut(strip, rows, n).submatrix_mut(0, first, rows, width);
        matmul(strip, Accum::Replace, product.view(), factor, T::ONE, Par::Seq);
    });
    projection
}

impl<T: Real> Prepared<T> {
    /// Channels n of the input.
    pub fn columns(&self) -> usize {
        self.order.len()
    }

    /// The damping that the factorization succeeded with, as a share of the mean diagonal: at least what was
    /// asked for.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Inputs that were never active, ascending. Their weights are quantized to 0.
    pub fn dead_columns(&self) -> &[usize] {
        &self.dead_columns
    }

    /// The columns in the order of the sweep.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The damped Hessian Hd (n x n) in the original order, with the dead columns taken out and their diagonal set to the mean.
    pub fn damped_hessian(&self) -> Mat<T> {
        self.damped().view().to_owned()
    }

    /// The diagonal of the Hessian before damping, 0 for dead columns.
    pub(super) fn diagonal(&self) -> Vec<T> {
        let mut diagonal: Vec<T> = (0..self.columns()).map(|j| self.hessian.row(j)[j]).collect();
        self.dead_columns.iter().for_each(|dead| diagonal[*dead] = T::ZERO);
        diagonal
    }

    /// The same factors in f64.
    pub fn widened(&self) -> Prepared<f64> {
        Prepared {
            hessian: self.hessian.converted(),
            drift: self.drift.as_ref().map(Matrix::converted),
            mean_diagonal: self.mean_diagonal,
            order: self.order.clone(),
            dead_columns: self.dead_columns.clone(),
            factor: self.factor.converted(),
            damping: self.damping,
            asked_damping: self.asked_damping,
            activation_order: self.activation_order,
            projection: Shared::new(1),
            corrections: Shared::new(corrections_kept(self.columns())),
        }
    }

    /// [`Prepared::damped_hessian`], row-major.
    pub(super) fn damped(&self) -> Matrix<T> {
        let mut damped = self.hessian.clone();
        let ridge = T::from_f64(self.damping * self.mean_diagonal);
        for index in 0..damped.columns() {
            damped.row_mut(index)[index] += ridge;
        }
        damped
    }

    /// W1 (m x n): the weights that a sweep with `start` begins from, in the original order, 0 in dead columns. What
    /// [`super::refine`] aims at.
    ///
    /// # Errors
    /// [`MethodError::Shape`], [`MethodError::NotFinite`], [`MethodError::Option`], [`MethodError::NotPositiveDefinite`].
    pub fn target(&self, weights: MatRef<'_, T>, start: Start) -> Result<Mat<T>, MethodError> {
        start.check()?;
        let mut original = Matrix::checked("weights", weights, (weights.nrows(), self.columns()))?;
        for row in 0..original.rows() {
            self.dead_columns.iter().for_each(|dead| original.row_mut(row)[*dead] = T::ZERO);
        }
        let mut target = original.clone();
        let mut add = |matrix: &Matrix<T>, strength: f64| {
            let n = matrix.columns();
            target.strips_mut(STRIP_ROWS).for_each(|(first, strip)| {
                let rows = strip.len() / n;
                let original = MatRef::from_row_major_slice(original.row_range(first, rows), rows, n);
                let strip = MatMut::from_row_major_slice_mut(strip, rows, n);
                matmul(strip, Accum::Add, original, matrix.view(), T::from_f64(strength), Par::Seq);
            });
        };
        match start {
            Start::Unchanged => {}
            Start::Exact { strength, ridge } => {
                if let Some(correction) = self.correction(ridge)? {
                    add(&correction.matrix, strength);
                }
            }
            Start::Anchored { strength } => {
                if let Some(projection) = self.projection()? {
                    let mut natural = Matrix::zeros(self.columns(), self.columns());
                    for (row, to) in self.order.iter().enumerate() {
                        for (column, to_column) in self.order.iter().enumerate() {
                            natural.row_mut(*to)[*to_column] = projection.row(row)[column];
                        }
                    }
                    add(&natural, strength);
                }
            }
        }
        Ok(target.view().to_owned())
    }

    /// U, in the order of the sweep.
    pub(super) fn factor(&self) -> &Matrix<T> {
        &self.factor
    }

    /// P, in the order of the sweep; `None` without drift.
    pub(super) fn projection(&self) -> Result<Option<Arc<Matrix<T>>>, MethodError> {
        let Some(drift) = &self.drift else { return Ok(None) };
        self.projection.get(|_| true, || Ok(projection(drift, &self.factor, &self.order))).map(Some)
    }

    /// Computes the matrices of several exact starts side by side, where there is room to keep them: what is serial in each is long. A start
    /// that has none is an error where it is used.
    pub(crate) fn prepare_starts(&self, starts: impl Iterator<Item = Start>) {
        let mut ridges: Vec<f64> = Vec::new();
        for start in starts {
            if let Start::Exact { ridge, .. } = start
                && !ridges.contains(&ridge)
            {
                ridges.push(ridge);
            }
        }
        if (2..=self.corrections.most).contains(&ridges.len()) {
            ridges.par_iter().for_each(|ridge| _ = self.correction(*ridge));
        }
    }

    /// The exact start's matrix for a ridge, in the original order; `None` without drift. The last ones are
    /// kept.
    pub(super) fn correction(&self, ridge: f64) -> Result<Option<Arc<Correction<T>>>, MethodError> {
        let Some(drift) = &self.drift else { return Ok(None) };
        let compute = || {
            let (matrix, used) = exact::correction(&self.hessian, drift, self.mean_diagonal, ridge)?;
            Ok(Correction { asked_ridge: ridge, ridge: used, matrix })
        };
        self.corrections.get(|stored| stored.asked_ridge == ridge, compute).map(Some)
    }

    /// Refuses options that disagree with those of [`prepare`].
    pub(super) fn check_same(&self, options: &SolverOptions) -> Result<(), MethodError> {
        let differs = |option, prepared: String, asked: String| {
            Err(MethodError::PreparedOtherwise { option, prepared, asked })
        };
        if self.asked_damping != options.damping {
            return differs("damping", self.asked_damping.to_string(), options.damping.to_string());
        }
        if self.activation_order != options.activation_order {
            let (prepared, asked) = (self.activation_order, options.activation_order);
            return differs("activation order", prepared.to_string(), asked.to_string());
        }
        Ok(())
    }
}
