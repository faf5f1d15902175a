//! What a solver returns, and the error it makes.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::factors::STRIP_ROWS;
use super::matrix::{Matrix, dot};
use super::{GroupSize, MethodError};
use crate::grids::{Grid, Real, ScaleCoding};

/// Levels and scales of a quantized matrix of m rows and n columns: `Q[i, j] = scales[i, j / group_elems] *
/// levels[i, j]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Solution<T> {
    /// Rows m: output channels.
    pub rows: usize,
    /// Columns n: inputs.
    pub columns: usize,
    /// Consecutive columns that share a scale; the last group of a row may be shorter.
    pub group_elems: usize,
    /// The levels that may occur.
    pub grid: Grid,
    /// m x n, row-major, in the original order of columns: levels of the grid.
    pub codes: Vec<i8>,
    /// m x `groups_per_row`, row-major, positive and finite.
    pub scales: Vec<T>,
    /// How the scales are stored, where they are coded.
    pub coding: Option<ScaleCoding<T>>,
    /// The ridge that the start's correction was computed with, as a share of the Hessian's mean diagonal:
    /// larger than asked for if Cholesky's factorization failed. `None` without such a start.
    pub ridge: Option<f64>,
}

impl<T: Real> Solution<T> {
    pub(super) fn zeros(rows: usize, columns: usize, group: GroupSize, grid: Grid) -> Self {
        let group_elems = group.group_elems(columns);
        Self {
            rows,
            columns,
            group_elems,
            grid,
            codes: vec![0; rows * columns],
            scales: vec![T::ONE; rows * columns.div_ceil(group_elems)],
            coding: None,
            ridge: None,
        }
    }

    /// Groups of a row: `n / group_elems`, rounded up.
    pub fn groups_per_row(&self) -> usize {
        self.columns.div_ceil(self.group_elems)
    }

    /// Bits of codes and scales in a container, `bits` a code, without tables and a layout's padding; of scales that are not
    /// rounded as if they were binary16.
    pub fn stored_bits(&self, bits: u8) -> u64 {
        let scales = match &self.coding {
            Some(coding) => 4 * self.scales.len() + 16 * coding.row_scales.len(),
            None => 16 * self.scales.len(),
        };
        u64::from(bits) * self.codes.len() as u64 + scales as u64
    }

    /// The dequantized weights Q, m x n, row-major.
    pub fn values(&self) -> Vec<T> {
        let mut values = vec![T::ZERO; self.codes.len()];
        self.write_values(0, &mut values);
        values
    }

    /// The values of whole rows, from row `first` on.
    fn write_values(&self, first: usize, values: &mut [T]) {
        let (n, groups) = (self.columns, self.groups_per_row());
        let rows = self.codes[first * n..].chunks(n).zip(self.scales[first * groups..].chunks(groups));
        for (values, (codes, scales)) in values.chunks_mut(n).zip(rows) {
            let values = values.chunks_mut(self.group_elems);
            for (values, (codes, scale)) in values.zip(codes.chunks(self.group_elems).zip(scales)) {
                let pairs = values.iter_mut().zip(codes);
                pairs.for_each(|(value, code)| *value = *scale * T::from_f64((*code).into()));
            }
        }
    }

    /// The same levels and scales, these as f64: exactly.
    pub fn widened(&self) -> Solution<f64> {
        let wide = |values: &[T]| values.iter().map(|value| value.to_f64()).collect();
        Solution {
            rows: self.rows,
            columns: self.columns,
            group_elems: self.group_elems,
            grid: self.grid,
            codes: self.codes.clone(),
            scales: wide(&self.scales),
            coding: self.coding.as_ref().map(|coding| ScaleCoding {
                multipliers: coding.multipliers,
                row_scales: wide(&coding.row_scales),
            }),
            ridge: self.ridge,
        }
    }

    /// [`asymmetric_loss`] of these values for the original `weights`.
    ///
    /// # Errors
    /// Those of [`asymmetric_loss`].
    pub fn loss(
        &self,
        weights: MatRef<'_, T>,
        hessian: MatRef<'_, T>,
        drift: Option<MatRef<'_, T>>,
    ) -> Result<f64, MethodError> {
        let values = self.values();
        let values = MatRef::from_row_major_slice(&values, self.rows, self.columns);
        asymmetric_loss(weights, values, hessian, drift)
    }
}

/// `||W0 Xf - Q X||^2 - ||W0 (Xf - X)||^2 = tr(E H E^T) + 2 tr(W0 D E^T)` with `E = W0 - Q`, computed in f64.
///
/// The constant that is left out needs the second moment of the drift itself, which calibration does not
/// collect; it does not depend on Q, so differences between two quantizations of the same weights are exact.
/// With drift the result may be negative; without (`None`) it is the symmetric loss `||W0 X - Q X||^2`. On
/// the scale of `hessian`. For several quantizations of the same weights, [`Objective`] does the common part once.
///
/// # Errors
/// [`MethodError::Shape`] and [`MethodError::NotFinite`].
pub fn asymmetric_loss<T: Real>(
    weights: MatRef<'_, T>,
    values: MatRef<'_, T>,
    hessian: MatRef<'_, T>,
    drift: Option<MatRef<'_, T>>,
) -> Result<f64, MethodError> {
    let (m, n) = (weights.nrows(), weights.ncols().max(1));
    let checked = |name, matrix, expected| {
        Matrix::checked(name, matrix, expected).map(|checked| checked.converted::<f64>())
    };
    let values = checked("values", values, (m, n))?;
    let (weights, hessian) = (checked("weights", weights, (m, n))?, checked("hessian", hessian, (n, n))?);
    let drift = drift.map(|drift| checked("drift", drift, (n, n))).transpose()?;
    Ok(Objective::of_matrices(weights, hessian, drift).of_rows(values.rows_writer()).total())
}

/// What a quantization of a matrix is measured by: [`asymmetric_loss`] with everything that does not depend on Q made ready. Products
/// are computed in T, and added up in f64.
#[derive(Debug)]
pub struct Objective<T> {
    /// W0, m x n.
    weights: Matrix<T>,
    /// H, n x n.
    hessian: Matrix<T>,
    /// 2 W0 D, m x n.
    pull: Option<Matrix<T>>,
}

/// The terms of [`asymmetric_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// `tr(E H E^T)`: the loss without drift.
    pub symmetric: f64,
    /// `2 tr(W0 D E^T)`.
    pub drift: f64,
}

impl Loss {
    /// Their sum.
    pub fn total(&self) -> f64 {
        self.symmetric + self.drift
    }
}

impl<T: Real> Objective<T> {
    /// For `weights` W0 (m x n), `hessian` H (n x n) and `drift` D (n x n).
    ///
    /// # Errors
    /// [`MethodError::Shape`] and [`MethodError::NotFinite`].
    pub fn new(
        weights: MatRef<'_, T>,
        hessian: MatRef<'_, T>,
        drift: Option<MatRef<'_, T>>,
    ) -> Result<Self, MethodError> {
        let (m, n) = (weights.nrows(), weights.ncols().max(1));
        let weights = Matrix::checked("weights", weights, (m, n))?;
        let hessian = Matrix::checked("hessian", hessian, (n, n))?;
        let drift = drift.map(|drift| Matrix::checked("drift", drift, (n, n))).transpose()?;
        Ok(Self::of_matrices(weights, hessian, drift))
    }

    fn of_matrices(weights: Matrix<T>, hessian: Matrix<T>, drift: Option<Matrix<T>>) -> Self {
        let (m, n) = (weights.rows(), weights.columns());
        let pull = drift.map(|drift| {
            let mut pull = Matrix::zeros(m, n);
            pull.strips_mut(STRIP_ROWS).for_each(|(first, strip)| {
                let rows = strip.len() / n;
                let weights = MatRef::from_row_major_slice(weights.row_range(first, rows), rows, n);
                let strip = MatMut::from_row_major_slice_mut(strip, rows, n);
                matmul(strip, Accum::Replace, weights, drift.view(), T::from_f64(2.0), Par::Seq);
            });
            pull
        });
        Objective { weights, hessian, pull }
    }

    /// The loss of a solution.
    ///
    /// # Errors
    /// [`MethodError::Shape`] and [`MethodError::NotFinite`].
    pub fn of(&self, solution: &Solution<T>) -> Result<Loss, MethodError> {
        let expected = (self.weights.rows(), self.weights.columns());
        let found = (solution.rows, solution.columns);
        if found != expected {
            return Err(MethodError::Shape { matrix: "values", expected, found });
        }
        let groups = solution.groups_per_row();
        if let Some(at) = solution.scales.iter().position(|scale| !scale.finite()) {
            let (row, column) = (at / groups, at % groups * solution.group_elems);
            let value = solution.scales[at].to_f64();
            return Err(MethodError::NotFinite { matrix: "values", row, column, value });
        }
        Ok(self.of_rows(|first, values| solution.write_values(first, values)))
    }

    /// The loss of dequantized weights, m x n.
    ///
    /// # Errors
    /// [`MethodError::Shape`] and [`MethodError::NotFinite`].
    pub fn of_values(&self, values: MatRef<'_, T>) -> Result<Loss, MethodError> {
        let expected = (self.weights.rows(), self.weights.columns());
        Ok(self.of_rows(Matrix::checked("values", values, expected)?.rows_writer()))
    }

    /// The loss where every weight is zero, without drift: the power of the matrix's outputs.
    pub fn power(&self) -> f64 {
        self.of_rows(|_, values| values.fill(T::ZERO)).symmetric
    }

    /// The loss of values that `write` puts into whole rows, the first of which it is told.
    fn of_rows(&self, write: impl Fn(usize, &mut [T]) + Sync) -> Loss {
        let n = self.weights.columns();
        let mut errors = Matrix::zeros(self.weights.rows(), n);
        let sums: Vec<Loss> = errors
            .strips_mut(STRIP_ROWS)
            .map(|(first, errors)| {
                let rows = errors.len() / n;
                write(first, errors);
                let weights = self.weights.row_range(first, rows);
                errors.iter_mut().zip(weights).for_each(|(error, weight)| *error = *weight - *error);
                let mut product = Matrix::zeros(rows, n);
                let strip = MatRef::from_row_major_slice(errors, rows, n);
                matmul(product.view_mut(), Accum::Replace, strip, self.hessian.view(), T::ONE, Par::Seq);
                let drift = self.pull.as_ref().map(|pull| dot(pull.row_range(first, rows), errors));
                Loss { symmetric: dot(product.row_range(0, rows), errors), drift: drift.unwrap_or(0.0) }
            })
            .collect();
        sums.iter().fold(Loss { symmetric: 0.0, drift: 0.0 }, |all, strip| Loss {
            symmetric: all.symmetric + strip.symmetric,
            drift: all.drift + strip.drift,
        })
    }
}
