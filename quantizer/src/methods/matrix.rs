//! A dense row-major matrix: the sweep walks along rows, so they are contiguous.

use faer::{Mat, MatMut, MatRef};
use rayon::prelude::*;

use super::MethodError;
use crate::grids::Real;

/// Row-major, `rows x columns`, with at least one column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matrix<T> {
    columns: usize,
    values: Vec<T>,
}

impl<T: Real> Matrix<T> {
    pub(super) fn zeros(rows: usize, columns: usize) -> Self {
        Self { columns, values: vec![T::ZERO; rows * columns] }
    }

    pub(super) fn from_fn(rows: usize, columns: usize, value: impl Fn(usize, usize) -> T) -> Self {
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            values.extend((0..columns).map(|column| value(row, column)));
        }
        Self { columns, values }
    }

    /// A copy of `source`, refused unless it has the `expected` shape and finite entries. `matrix` is its
    /// name in errors.
    pub(super) fn checked(
        matrix: &'static str,
        source: MatRef<'_, T>,
        expected: (usize, usize),
    ) -> Result<Self, MethodError> {
        let found = (source.nrows(), source.ncols());
        if found != expected || found.1 == 0 {
            return Err(MethodError::Shape { matrix, expected, found });
        }
        let mut copy = Self::zeros(found.0, found.1);
        copy.values.par_chunks_mut(found.1).enumerate().for_each(|(row, values)| {
            values.iter_mut().enumerate().for_each(|(column, value)| *value = source[(row, column)]);
        });
        match copy.values.iter().position(|value| !value.finite()) {
            None => Ok(copy),
            Some(at) => Err(MethodError::NotFinite {
                matrix,
                row: at / copy.columns,
                column: at % copy.columns,
                value: copy.values[at].to_f64(),
            }),
        }
    }

    /// The same entries as another type has them.
    pub(super) fn converted<S: Real>(&self) -> Matrix<S> {
        let values = self.values.iter().map(|value| S::from_f64(value.to_f64())).collect();
        Matrix { columns: self.columns, values }
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [T] {
        &mut self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// Rows `first..first + count`, contiguous.
    pub(super) fn row_range(&self, first: usize, count: usize) -> &[T] {
        &self.values[first * self.columns..(first + count) * self.columns]
    }

    /// What copies whole rows from this one, the first of which it is told.
    pub(super) fn rows_writer(&self) -> impl Fn(usize, &mut [T]) + Sync {
        |first, rows| rows.copy_from_slice(self.row_range(first, rows.len() / self.columns))
    }

    /// A copy whose column j is this one's column `order[j]`.
    pub(super) fn with_columns(&self, order: &[usize]) -> Self {
        Self::from_fn(self.rows(), order.len(), |row, column| self.row(row)[order[column]])
    }

    /// The matrix as faer sees it.
    pub(super) fn view(&self) -> MatRef<'_, T> {
        MatRef::from_row_major_slice(&self.values, self.rows(), self.columns)
    }

    /// The matrix as faer writes to it.
    pub(super) fn view_mut(&mut self) -> MatMut<'_, T> {
        let rows = self.rows();
        MatMut::from_row_major_slice_mut(&mut self.values, rows, self.columns)
    }

    /// Strips of `rows` rows (the last may be shorter) with the index of their first row, in parallel. The
    /// strips do not depend on the number of threads, so neither does what is computed in them.
    pub(super) fn strips_mut(
        &mut self,
        rows: usize,
    ) -> impl IndexedParallelIterator<Item = (usize, &mut [T])> {
        let columns = self.columns;
        self.values
            .par_chunks_mut(rows * columns)
            .enumerate()
            .map(move |(strip, values)| (strip * rows, values))
    }
}

/// The same entries in f64.
pub(crate) fn widened<T: Real>(matrix: MatRef<'_, T>) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[(row, column)].to_f64())
}

/// The sum of products, in f64.
pub(super) fn dot<T: Real>(left: &[T], right: &[T]) -> f64 {
    // Partial sums, so that the compiler can vectorize without reordering.
    let (left, left_rest) = left.as_chunks::<8>();
    let (right, right_rest) = right.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (left, right) in left.iter().zip(right) {
        for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += left.to_f64() * right.to_f64();
        }
    }
    let rest: f64 =
        left_rest.iter().zip(right_rest).map(|(left, right)| left.to_f64() * right.to_f64()).sum();
    sums.iter().sum::<f64>() + rest
}
