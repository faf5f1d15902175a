//! The moments of a set's inputs that the solvers see: `H = X^T X / k` and `D = (Xf - X)^T X / k`, tokens in rows.
//!
//! (docs/methods.md writes the same with tokens in columns.) Products are f32 over chunks of tokens, added up in f64: accurate
//! for any number of tokens, at the speed of f32. Both the chunks and the strips of columns are of fixed size, so results do
//! not depend on the number of threads.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

/// Tokens added up in f32.
const CHUNK_TOKENS: usize = 1024;
/// Elements that one task subtracts.
const PART: usize = 1 << 15;
/// Columns computed together.
const STRIP_COLS: usize = 128;

/// Second moments of a set's input, `n x n` each.
#[derive(Clone, Debug)]
pub struct Moments {
    /// `H`: of the quantized stream's input with itself.
    pub hessian: Mat<f64>,
    /// `D`: of the drift (full-precision minus quantized stream) with the quantized stream's input.
    pub drift: Mat<f64>,
}

impl Moments {
    /// The moments of `quantized` and `full`, both `k x n`: the inputs of a set in the two streams, for the same tokens.
    ///
    /// # Panics
    /// Where the slices differ in length, or aren't whole rows of `n`.
    pub fn new(quantized: &[f32], full: &[f32], n: usize) -> Moments {
        Self::of_parts([(quantized, full)], n)
    }

    /// The moments of several parts together, each as [`Moments::new`] takes them.
    ///
    /// # Panics
    /// As [`Moments::new`].
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = (&'a [f32], &'a [f32])>, n: usize) -> Moments {
        let mut moments = Moments { hessian: Mat::zeros(n, n), drift: Mat::zeros(n, n) };
        let (mut tokens, mut difference) = (0, Vec::<f32>::new());
        for (quantized, full) in parts {
            assert_eq!(quantized.len(), full.len(), "the same tokens in both streams");
            assert!(quantized.len().is_multiple_of(n), "whole rows of {n}");
            tokens += quantized.len() / n;
            for (quantized, full) in quantized.chunks(CHUNK_TOKENS * n).zip(full.chunks(CHUNK_TOKENS * n)) {
                difference.resize(full.len(), 0.0);
                difference
                    .par_chunks_mut(PART)
                    .zip(full.par_chunks(PART).zip(quantized.par_chunks(PART)))
                    .for_each(|(difference, (full, quantized))| {
                        let streams = full.iter().zip(quantized);
                        difference
                            .iter_mut()
                            .zip(streams)
                            .for_each(|(d, (full, quantized))| *d = full - quantized);
                    });
                let inputs = MatRef::from_row_major_slice(quantized, quantized.len() / n, n);
                let drifts = MatRef::from_row_major_slice(&difference, quantized.len() / n, n);
                rayon::join(
                    || add_product(&mut moments.hessian, inputs, inputs, Part::UpperTriangle),
                    || add_product(&mut moments.drift, drifts, inputs, Part::Whole),
                );
            }
        }
        mirror(&mut moments.hessian);
        divide(&mut moments.hessian, tokens);
        divide(&mut moments.drift, tokens);
        moments
    }

    /// The moments of the tokens of both, `tokens` and `other_tokens` of them.
    #[must_use]
    pub fn merged(&self, tokens: usize, other: &Moments, other_tokens: usize) -> Moments {
        let all = (tokens + other_tokens) as f64;
        let (share, other_share) = (tokens as f64 / all, other_tokens as f64 / all);
        let mix = |left: &Mat<f64>, right: &Mat<f64>| {
            Mat::from_fn(left.nrows(), left.ncols(), |i, j| {
                share * left[(i, j)] + other_share * right[(i, j)]
            })
        };
        Moments { hessian: mix(&self.hessian, &other.hessian), drift: mix(&self.drift, &other.drift) }
    }
}

/// `(Xf - X)^T (Xf - X) / k`: the power of the drift itself, which no quantization of the set changes.
///
/// # Panics
/// As [`Moments::new`].
pub fn drift_power(quantized: &[f32], full: &[f32], n: usize) -> Mat<f64> {
    assert_eq!(quantized.len(), full.len(), "the same tokens in both streams");
    assert!(quantized.len().is_multiple_of(n), "whole rows of {n}");
    let mut power = Mat::zeros(n, n);
    for (quantized, full) in quantized.chunks(CHUNK_TOKENS * n).zip(full.chunks(CHUNK_TOKENS * n)) {
        let difference: Vec<f32> =
            full.iter().zip(quantized).map(|(full, quantized)| full - quantized).collect();
        let drifts = MatRef::from_row_major_slice(&difference, quantized.len() / n, n);
        add_product(&mut power, drifts, drifts, Part::UpperTriangle);
    }
    mirror(&mut power);
    divide(&mut power, quantized.len() / n);
    power
}

fn divide(matrix: &mut Mat<f64>, tokens: usize) {
    let scale = 1.0 / tokens as f64;
    for col in 0..matrix.ncols() {
        matrix.col_as_slice_mut(col).iter_mut().for_each(|element| *element *= scale);
    }
}

/// What of a product is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// At least the upper triangle: a product that is symmetric has it twice.
    UpperTriangle,
}

/// `sum += left^T right`.
fn add_product(sum: &mut Mat<f64>, left: MatRef<'_, f32>, right: MatRef<'_, f32>, part: Part) {
    let n = right.ncols();
    let strips = sum.as_mut().par_col_chunks_mut(STRIP_COLS).zip(right.par_col_chunks(STRIP_COLS));
    strips.enumerate().for_each(|(strip, (mut sum, right))| {
        let rows = match part {
            Part::Whole => n,
            Part::UpperTriangle => strip * STRIP_COLS + right.ncols(),
        };
        let mut product = Mat::<f32>::zeros(rows, right.ncols());
        let left = left.subcols(0, rows).transpose();
        matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
        for col in 0..right.ncols() {
            let products = product.col_as_slice(col);
            for (row, product) in products.iter().enumerate() {
                sum[(row, col)] += f64::from(*product);
            }
        }
    });
}

/// Copies the upper triangle to the lower one.
fn mirror(matrix: &mut Mat<f64>) {
    for col in 0..matrix.ncols() {
        for row in col + 1..matrix.nrows() {
            matrix[(row, col)] = matrix[(col, row)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_sums_of_products() {
        // Three chunks, the last one short; two strips, of unequal width.
        let (n, tokens) = (150, 2 * CHUNK_TOKENS + 5);
        let value = |token: usize, col: usize, salt: usize| {
            ((token * 31 + col * 17 + salt) % 101) as f32 / 50.0 - 1.0
        };
        let quantized: Vec<f32> = (0..tokens * n).map(|i| value(i / n, i % n, 0)).collect();
        let full: Vec<f32> = (0..tokens * n).map(|i| value(i / n, i % n, 3)).collect();
        let moments = Moments::new(&quantized, &full, n);
        for (row, col) in [(0, 0), (0, 149), (149, 0), (12, 140), (140, 12), (149, 149)] {
            let sum = |left: &dyn Fn(usize) -> f64| {
                (0..tokens).map(|t| left(t) * f64::from(quantized[t * n + col])).sum::<f64>() / tokens as f64
            };
            let hessian = sum(&|t| f64::from(quantized[t * n + row]));
            let drift = sum(&|t| f64::from(full[t * n + row]) - f64::from(quantized[t * n + row]));
            // A chunk of 1,024 products of magnitude at most 2, each rounding once: 1024 * 2^-24 * 4.
            assert!((moments.hessian[(row, col)] - hessian).abs() < 2.5e-4, "H {row} {col}");
            assert!((moments.drift[(row, col)] - drift).abs() < 2.5e-4, "D {row} {col}");
        }
    }

    #[test]
    fn the_drift_has_the_power_that_is_missing_in_the_other_moments() {
        // Xf^T Xf = H + D + D^T + (Xf - X)^T (Xf - X), all over k.
        let (n, tokens) = (66, CHUNK_TOKENS + 9);
        let value = |i: usize| ((i * 7919) % 997) as f32 / 500.0 - 1.0;
        let quantized: Vec<f32> = (0..tokens * n).map(value).collect();
        let full: Vec<f32> = (0..tokens * n).map(|i| 1.1 * value(i) + 0.3 * value(i + 31)).collect();
        let Moments { hessian, drift } = Moments::new(&quantized, &full, n);
        let all = Moments::new(&full, &full, n).hessian;
        let sum = hessian + &drift + drift.transpose() + drift_power(&quantized, &full, n);
        assert!((sum - all).norm_max() < 1e-5);
    }

    #[test]
    fn merged_moments_are_those_of_all_tokens() {
        let n = 5;
        let value = |i: usize| ((i * 7919) % 997) as f32 / 500.0 - 1.0;
        let quantized: Vec<f32> = (0..60 * n).map(value).collect();
        let full: Vec<f32> = (0..60 * n).map(|i| value(i) + 0.1 * value(i + 31)).collect();
        let of = |range: std::ops::Range<usize>| {
            Moments::new(&quantized[range.start * n..range.end * n], &full[range.start * n..range.end * n], n)
        };
        let (all, merged) = (of(0..60), of(0..45).merged(45, &of(45..60), 15));
        for (found, expected) in [(merged.hessian, all.hessian), (merged.drift, all.drift)] {
            assert!((found - expected).norm_max() < 1e-6);
        }
    }

    #[test]
    fn threads_change_nothing() {
        let n = 300;
        let inputs: Vec<f32> = (0..600 * n).map(|i| ((i * 7919) % 997) as f32 / 997.0).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Moments::new(&inputs, &inputs, n).hessian)
        };
        assert_eq!(with(1), with(3));
    }
}
