//! What a solver returns, and the error it makes.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::factors::STRIP_ROWS;
use super::matrix::Matrix;
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
        let rows = self.codes.chunks(self.columns).zip(self.scales.chunks(self.groups_per_row()));
        let mut values = Vec::with_capacity(self.codes.len());
        for (codes, scales) in rows {
            for (codes, scale) in codes.chunks(self.group_elems).zip(scales) {
                values.extend(codes.iter().map(|code| *scale * T::from_f64((*code).into())));
            }
        }
        values
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
/// the scale of `hessian`.
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
    let weights = Matrix::checked("weights", weights, (m, n))?;
    let values = Matrix::checked("values", values, (m, n))?;
    let hessian = to_f64(&Matrix::checked("hessian", hessian, (n, n))?);
    let drift = drift.map(|drift| Matrix::checked("drift", drift, (n, n))).transpose()?.map(|d| to_f64(&d));

    let mut errors = Matrix::from_fn(m, n, |i, j| weights.row(i)[j].to_f64() - values.row(i)[j].to_f64());
    let weights = to_f64(&weights);
    let sums: Vec<f64> = errors
        .strips_mut(STRIP_ROWS)
        .map(|(first, errors)| {
            let rows = errors.len() / n;
            let errors = MatRef::from_row_major_slice(errors, rows, n);
            let mut product = Mat::zeros(rows, n);
            matmul(&mut product, Accum::Replace, errors, hessian.view(), 1.0, Par::Seq);
            if let Some(drift) = &drift {
                let weights = MatRef::from_row_major_slice(weights.row_range(first, rows), rows, n);
                matmul(&mut product, Accum::Add, weights, drift.view(), 2.0, Par::Seq);
            }
            (0..rows).flat_map(|i| (0..n).map(move |j| (i, j))).map(|at| product[at] * errors[at]).sum()
        })
        .collect();
    Ok(sums.iter().sum())
}

fn to_f64<T: Real>(matrix: &Matrix<T>) -> Matrix<f64> {
    Matrix::from_fn(matrix.rows(), matrix.columns(), |i, j| matrix.row(i)[j].to_f64())
}
