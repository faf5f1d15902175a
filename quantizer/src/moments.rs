//! The moments of a set's inputs that the solvers see: `H = X^T X / k` and `D = (Xf - X)^T X / k`, tokens in rows.
//!
//! (docs/methods.md writes the same with tokens in columns.) Products are f32 over up to sixteen thousand tokens, piece by piece, and
//! added up in f64: accurate for any number of tokens, at the speed of f32. The work is cut by columns and, where there are few, by
//! tokens, in a way that does not depend on the number of threads; so neither do the results.
//!
//! ```text
//! for each segment of the tokens and each strip of columns, in parallel:
//!     for each chunk of tokens: for each piece of it, whose part of X stays in a core's cache:
//!         H^ += X^T X[:, strip] (rows up to the strip's last),  D^ += X^T (Xf - X)[:, strip]             f32
//!     of a chunk: added to H and D^T of the segment                                                     f64
//! H, D = sums over the segments, in their order
//! ```

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use crate::grids::Real;
use crate::vectorized::vectorized;

/// Tokens added up in f32, at most.
const CHUNK_TOKENS: usize = 16384;
/// A segment of the tokens has as many: its sums are added to the others', which takes as long as some tokens.
const LEAST_SEGMENT_TOKENS: usize = 2048;
/// Elements of the inputs that are multiplied at once: half a megabyte, which stays in a core's second cache beside the products.
const PIECE_ELEMS: usize = 1 << 17;
/// Tokens that are multiplied at once, where the inputs are few: more gain nothing.
const MOST_PIECE_TOKENS: usize = 256;
/// The same where they are many: with fewer, products would be read and written for too little.
const LEAST_PIECE_TOKENS: usize = 64;
/// Columns computed together.
const STRIP_COLS: usize = 384;
/// Columns of H computed together: of its lower triangle, what stands in a square of so many is computed for nothing.
const SYMMETRIC_COLS: usize = 64;
/// As many segments of the tokens as it takes for this many columns of products: there is something to do for several threads.
const COLS_OF_ALL_SEGMENTS: usize = 4096;
/// Columns that are transposed together: two lines of a cache.
const TRANSPOSED_COLS: usize = 16;

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
        let (mut pieces, mut tokens) = (Vec::new(), 0);
        for (quantized, full) in parts {
            assert_eq!(quantized.len(), full.len(), "the same tokens in both streams");
            tokens += quantized.len() / n;
            let elems = piece_tokens(n) * n;
            let both = rows(quantized, n, elems).zip(rows(full, n, elems));
            pieces.extend(both.map(|(quantized, full)| Piece { quantized, full: Some(full) }));
        }
        let Sums { hessian, drift } = Sums::of(&pieces, n);
        Moments { hessian: mirrored(&hessian, n, tokens), drift: transposed(&drift, n, tokens) }
    }

    /// H and D as another type has them.
    pub fn matrices<T: Real>(&self) -> [Mat<T>; 2] {
        [&self.hessian, &self.drift]
            .map(|matrix| Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| T::from_f64(matrix[(i, j)])))
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
    let drift: Vec<f32> = full.iter().zip(quantized).map(|(full, quantized)| full - quantized).collect();
    let pieces = rows(&drift, n, piece_tokens(n) * n).map(|quantized| Piece { quantized, full: None });
    mirrored(&Sums::of(&pieces.collect::<Vec<_>>(), n).hessian, n, drift.len() / n)
}

/// Tokens of a piece of inputs of `n` columns; a chunk is a whole number of them.
fn piece_tokens(n: usize) -> usize {
    let most = (PIECE_ELEMS / n).clamp(LEAST_PIECE_TOKENS, MOST_PIECE_TOKENS);
    1 << most.ilog2()
}

/// `items` in as many parts, whose lengths differ by no more than one.
fn equal_parts<T>(items: &[T], parts: usize) -> Vec<&[T]> {
    (0..parts).map(|part| &items[part * items.len() / parts..(part + 1) * items.len() / parts]).collect()
}

/// `values`, whole rows of `n`, in pieces of `elems`.
fn rows(values: &[f32], n: usize, elems: usize) -> std::slice::Chunks<'_, f32> {
    assert!(values.len().is_multiple_of(n), "whole rows of {n}");
    values.chunks(elems)
}

/// Tokens whose products are computed at once.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// X.
    quantized: &'a [f32],
    /// Xf; `None` where D is not wanted.
    full: Option<&'a [f32]>,
}

/// Sums of products, `n x n` each, column by column.
struct Sums {
    /// `X^T X`, its upper triangle.
    hessian: Vec<f64>,
    /// `X^T (Xf - X)`; 0 where D is not wanted.
    drift: Vec<f64>,
}

impl Sums {
    /// Of all tokens of some pieces.
    fn of(pieces: &[Piece<'_>], n: usize) -> Sums {
        let most = pieces.len() * piece_tokens(n) / LEAST_SEGMENT_TOKENS;
        let segments = COLS_OF_ALL_SEGMENTS.div_ceil(n).min(most).max(1);
        let sums: Vec<Sums> = equal_parts(pieces, segments)
            .into_par_iter()
            .map(|pieces| {
                let chunks = (pieces.len() * piece_tokens(n)).div_ceil(CHUNK_TOKENS);
                Sums::of_segment(&equal_parts(pieces, chunks), n)
            })
            .collect();
        sums.into_iter().reduce(|all, segment| all.plus(&segment, n)).unwrap_or_else(|| Sums::zeros(n))
    }

    fn zeros(n: usize) -> Sums {
        Sums { hessian: vec![0.0; n * n], drift: vec![0.0; n * n] }
    }

    fn plus(mut self, other: &Sums, n: usize) -> Sums {
        for (to, from) in [(&mut self.hessian, &other.hessian), (&mut self.drift, &other.drift)] {
            to.par_chunks_mut(n).zip(from.par_chunks(n)).for_each(|(to, from)| add_to(to, from));
        }
        self
    }

    fn of_segment(chunks: &[&[Piece<'_>]], n: usize) -> Sums {
        let mut sums = Sums::zeros(n);
        let hessians = sums.hessian.par_chunks_mut(STRIP_COLS * n);
        let strips = hessians.zip(sums.drift.par_chunks_mut(STRIP_COLS * n));
        strips.enumerate().for_each(|(strip, (hessian, drift))| {
            let mut strip = Strip::new(n, strip * STRIP_COLS, hessian.len() / n);
            for chunk in chunks {
                for (index, piece) in chunk.iter().enumerate() {
                    strip.multiply(piece, if index == 0 { Accum::Replace } else { Accum::Add });
                }
                for (sum, product) in [(&mut *hessian, &strip.hessian), (&mut *drift, &strip.drift)] {
                    for (col, sum) in sum.chunks_exact_mut(n).enumerate() {
                        add_to(sum, product.col_as_slice(col));
                    }
                }
            }
        });
        sums
    }
}

/// A strip of columns: where it begins, and room for what is computed of a chunk of tokens.
struct Strip {
    n: usize,
    first: usize,
    /// `X^T X[:, strip]`, the rows up to the strip's last.
    hessian: Mat<f32>,
    /// `X^T (Xf - X)[:, strip]`.
    drift: Mat<f32>,
    /// `(Xf - X)[:, strip]` of a piece.
    difference: Vec<f32>,
}

impl Strip {
    fn new(n: usize, first: usize, width: usize) -> Strip {
        Strip {
            n,
            first,
            hessian: Mat::zeros(first + width, width),
            drift: Mat::zeros(n, width),
            difference: vec![0.0; piece_tokens(n) * width],
        }
    }

    /// Adds the products of a piece, or begins with them.
    fn multiply(&mut self, piece: &Piece<'_>, accumulate: Accum) {
        let Strip { n, first, hessian, drift, difference } = self;
        let (n, first, width) = (*n, *first, hessian.ncols());
        let tokens = piece.quantized.len() / n;
        let inputs = MatRef::from_row_major_slice(piece.quantized, tokens, n);
        for start in (0..width).step_by(SYMMETRIC_COLS) {
            let cols = SYMMETRIC_COLS.min(width - start);
            let rows = first + start + cols;
            let product = hessian.as_mut().submatrix_mut(0, start, rows, cols);
            let (left, right) = (inputs.subcols(0, rows).transpose(), inputs.subcols(first + start, cols));
            matmul(product, accumulate, left, right, 1.0, Par::Seq);
        }
        let Some(full) = piece.full else { return };
        let difference = &mut difference[..tokens * width];
        let streams = full.chunks_exact(n).zip(piece.quantized.chunks_exact(n));
        for (difference, (full, quantized)) in difference.chunks_exact_mut(width).zip(streams) {
            let streams = full[first..first + width].iter().zip(&quantized[first..first + width]);
            vectorized(
                #[inline(always)]
                || {
                    difference
                        .iter_mut()
                        .zip(streams)
                        .for_each(|(d, (full, quantized))| *d = full - quantized)
                },
            );
        }
        let difference = MatRef::from_row_major_slice(difference, tokens, width);
        matmul(drift.as_mut(), accumulate, inputs.transpose(), difference, 1.0, Par::Seq);
    }
}

/// `sum += column`; the sum may have more rows.
fn add_to<T: Copy + Into<f64>>(sum: &mut [f64], column: &[T]) {
    vectorized(
        #[inline(always)]
        || sum.iter_mut().zip(column).for_each(|(sum, value)| *sum += (*value).into()),
    );
}

/// The mean over `tokens` of a sum whose upper triangle is there.
fn mirrored(sum: &[f64], n: usize, tokens: usize) -> Mat<f64> {
    mean(sum, n, tokens, |row, col| row <= col)
}

/// The mean over `tokens`, transposed.
fn transposed(sum: &[f64], n: usize, tokens: usize) -> Mat<f64> {
    mean(sum, n, tokens, |_, _| false)
}

/// A matrix of a sum over `tokens`: at a row and column what is there where `same` says so, elsewhere what is across the diagonal.
fn mean(sum: &[f64], n: usize, tokens: usize, same: impl Fn(usize, usize) -> bool + Sync) -> Mat<f64> {
    let scale = 1.0 / tokens as f64;
    let mut mean = Mat::zeros(n, n);
    mean.as_mut().par_col_chunks_mut(TRANSPOSED_COLS).enumerate().for_each(|(chunk, mut mean)| {
        let first = chunk * TRANSPOSED_COLS;
        for row in 0..n {
            for col in 0..mean.ncols() {
                let (from, to) = if same(row, first + col) { (row, first + col) } else { (first + col, row) };
                mean[(row, col)] = scale * sum[to * n + from];
            }
        }
    });
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_sums_of_products() {
        // Three chunks, the last one short; two strips, of unequal width.
        let (n, tokens) = (450, 2 * CHUNK_TOKENS + 5);
        let value = |token: usize, col: usize, salt: usize| {
            ((token * 31 + col * 17 + salt) % 101) as f32 / 50.0 - 1.0
        };
        let quantized: Vec<f32> = (0..tokens * n).map(|i| value(i / n, i % n, 0)).collect();
        let full: Vec<f32> = (0..tokens * n).map(|i| value(i / n, i % n, 3)).collect();
        let moments = Moments::new(&quantized, &full, n);
        for (row, col) in [(0, 0), (0, 449), (449, 0), (12, 400), (400, 12), (385, 390), (449, 449)] {
            let sum = |left: &dyn Fn(usize) -> f64| {
                (0..tokens).map(|t| left(t) * f64::from(quantized[t * n + col])).sum::<f64>() / tokens as f64
            };
            let hessian = sum(&|t| f64::from(quantized[t * n + row]));
            let drift = sum(&|t| f64::from(full[t * n + row]) - f64::from(quantized[t * n + row]));
            // The mean of sums of products of magnitude at most 2: 256 of a piece, then 64 pieces of a chunk, each rounded once.
            let bound = (256.0 + 64.0) * 2.0 * f64::from(f32::EPSILON / 2.0);
            assert!((moments.hessian[(row, col)] - hessian).abs() < bound, "H {row} {col}");
            assert!((moments.drift[(row, col)] - drift).abs() < bound, "D {row} {col}");
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
        let n = 500;
        let inputs: Vec<f32> = (0..600 * n).map(|i| ((i * 7919) % 997) as f32 / 997.0).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Moments::new(&inputs, &inputs, n).hessian)
        };
        assert_eq!(with(1), with(3));
    }
}
