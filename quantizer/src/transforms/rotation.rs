//! Orthogonal changes of basis of rows: `x -> x R`.

use crate::checkpoint::Matrix;
use faer::Mat;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use rescomp_formats::hadamard::Hadamard;

/// An orthogonal matrix R of `elems x elems`.
#[derive(Clone, Debug)]
pub enum Rotation {
    /// `diag(signs) H / sqrt(elems)`: each value's sign, then the transform.
    Hadamard {
        /// 1 or -1 of each value.
        signs: Vec<f64>,
        /// H.
        hadamard: Box<Hadamard>,
    },
    /// R itself, by rows.
    Dense(Mat<f64>),
    /// Another rotation, then a reflection: `R (I - 2 z z^T)`.
    Reflected {
        /// R.
        rotation: Box<Rotation>,
        /// z, of length 1; zeros where nothing is reflected.
        normal: Vec<f64>,
    },
}

impl Rotation {
    /// A Hadamard transform behind random signs, or a random orthogonal matrix for a size that has none (Ashkboos et al., "QuaRot", arXiv
    /// 2404.00456, section 3). The same for the same seed.
    pub fn random(elems: usize, seed: u64) -> Rotation {
        let mut generator = Pcg64::seed_from_u64(seed);
        match Hadamard::new(elems) {
            Some(hadamard) => {
                let sign = |_| if generator.next_u64() >> 63 == 0 { 1.0 } else { -1.0 };
                Rotation::Hadamard { signs: (0..elems).map(sign).collect(), hadamard: Box::new(hadamard) }
            }
            None => Rotation::Dense(random_orthogonal(elems, &mut generator)),
        }
    }

    /// A random rotation that leaves a row's mean where it is: `1 R = 1`, so that the row without its mean is rotated too. What LayerNorm computes
    /// before its gain then turns with its input.
    ///
    /// It is [`Rotation::random`], behind which what has become of the ones is reflected back to them (A. S. Householder, "Unitary triangularization
    /// of a nonsymmetric matrix", J. ACM 5, 1958). The same for the same seed.
    pub fn random_keeping_mean(elems: usize, seed: u64) -> Rotation {
        let rotation = Box::new(Rotation::random(elems, seed));
        let ones = vec![1.0 / (elems as f64).sqrt(); elems];
        let mut normal = ones.clone();
        rotation.apply(&mut normal);
        normal.iter_mut().zip(&ones).for_each(|(rotated, one)| *rotated -= one);
        let length = normal.iter().map(|value| value * value).sum::<f64>().sqrt();
        // Ones that stay within rounding need no reflection, and have no direction for one.
        let factor = if length > 1e-8 { 1.0 / length } else { 0.0 };
        normal.iter_mut().for_each(|value| *value *= factor);
        Rotation::Reflected { rotation, normal }
    }

    /// A Hadamard transform without signs: what the forward computes.
    pub fn plain(hadamard: Hadamard) -> Rotation {
        Rotation::Hadamard { signs: vec![1.0; hadamard.elems()], hadamard: Box::new(hadamard) }
    }

    /// Values of a row.
    pub fn elems(&self) -> usize {
        match self {
            Rotation::Hadamard { signs, .. } => signs.len(),
            Rotation::Dense(matrix) => matrix.nrows(),
            Rotation::Reflected { normal, .. } => normal.len(),
        }
    }

    /// `row <- row R`.
    ///
    /// # Panics
    /// Where `row` is of another length.
    pub fn apply(&self, row: &mut [f64]) {
        match self {
            Rotation::Hadamard { signs, hadamard } => {
                assert_eq!(row.len(), signs.len(), "values of a row");
                row.iter_mut().zip(signs).for_each(|(value, sign)| *value *= sign);
                hadamard.apply(row, 1.0 / (signs.len() as f64).sqrt());
            }
            Rotation::Dense(matrix) => {
                assert_eq!(row.len(), matrix.nrows(), "values of a row");
                let before = row.to_vec();
                for (col, value) in row.iter_mut().enumerate() {
                    *value = before.iter().enumerate().map(|(at, before)| before * matrix[(at, col)]).sum();
                }
            }
            Rotation::Reflected { rotation, normal } => {
                rotation.apply(row);
                let along: f64 = row.iter().zip(normal).map(|(value, normal)| value * normal).sum();
                row.iter_mut().zip(normal).for_each(|(value, normal)| *value -= 2.0 * along * normal);
            }
        }
    }

    /// R by rows.
    pub fn dense(&self) -> Mat<f64> {
        let elems = self.elems();
        let mut matrix = Mat::zeros(elems, elems);
        for at in 0..elems {
            let mut row = vec![0.0; elems];
            row[at] = 1.0;
            self.apply(&mut row);
            row.iter().enumerate().for_each(|(col, &value)| matrix[(at, col)] = value);
        }
        matrix
    }
}

/// Uniform over the orthogonal matrices: the orthogonal factor of a Gaussian matrix, with the signs that make it unique (F. Mezzadri, "How to
/// generate random matrices from the classical compact groups", arXiv math-ph/0609050, section 5).
fn random_orthogonal(elems: usize, generator: &mut Pcg64) -> Mat<f64> {
    let gaussian = Mat::from_fn(elems, elems, |_, _| normal(generator));
    let factors = gaussian.qr();
    let (orthogonal, triangular) = (factors.compute_thin_Q(), factors.thin_R().to_owned());
    Mat::from_fn(elems, elems, |row, col| orthogonal[(row, col)] * triangular[(col, col)].signum())
}

/// A standard normal number (Box and Muller, "A note on the generation of random normal deviates", 1958).
fn normal(generator: &mut Pcg64) -> f64 {
    // Above 0, at most 1.
    let mut uniform = || ((generator.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let (radius, angle) = (uniform(), uniform());
    (-2.0 * radius.ln()).sqrt() * (core::f64::consts::TAU * angle).cos()
}

/// `W <- W R`, for each `elems` columns of it: the matrix of inputs that are rotated in parts of `elems` values.
pub(super) fn rotate_inputs(matrix: &mut Matrix, rotation: &Rotation) {
    rotate_inputs_behind(matrix, &[], rotation);
}

/// `W <- W diag(gain) R`: of a matrix behind a norm whose gain it takes in; no gain is ones. Rounded once.
pub(super) fn rotate_inputs_behind(matrix: &mut Matrix, gain: &[f32], rotation: &Rotation) {
    let (cols, part) = (matrix.cols, rotation.elems());
    matrix.data.par_chunks_mut(cols).for_each_init(Vec::new, |row, values| {
        for (values, start) in values.chunks_exact_mut(part).zip((0..).step_by(part)) {
            row.clear();
            row.extend(values.iter().map(|&value| f64::from(value)));
            let gain = gain.get(start..).unwrap_or(&[]);
            row.iter_mut().zip(gain).for_each(|(value, &gain)| *value *= f64::from(gain));
            rotation.apply(row);
            values.iter_mut().zip(&*row).for_each(|(value, &rotated)| *value = rotated as f32);
        }
    });
}

/// `W <- R^T W`, for each `elems` rows of it: the matrix whose outputs come out rotated in parts of `elems` values. A vector is a matrix of one
/// column.
pub(super) fn rotate_outputs(values: &mut [f32], cols: usize, rotation: &Rotation) {
    let part = rotation.elems();
    values.par_chunks_mut(part * cols).for_each(|values| {
        let mut column = vec![0.0; part];
        for col in 0..cols {
            let stored = values[col..].iter().step_by(cols);
            column.iter_mut().zip(stored).for_each(|(to, &from)| *to = f64::from(from));
            rotation.apply(&mut column);
            let stored = values[col..].iter_mut().step_by(cols);
            stored.zip(&column).for_each(|(to, &from)| *to = from as f32);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(elems: usize) -> Vec<f64> {
        (0..elems).map(|at| (at as f64 * 1.3).sin()).collect()
    }

    #[test]
    fn rotations_are_orthogonal_and_repeat() {
        // With a transform, and without.
        for elems in [32, 48, 24, 6, 46] {
            let rotation = Rotation::random(elems, 7);
            assert_eq!(matches!(rotation, Rotation::Dense(_)), Hadamard::new(elems).is_none());
            for random in [Rotation::random, Rotation::random_keeping_mean] {
                let dense = random(elems, 7).dense();
                let identity = dense.transpose() * &dense;
                for (at, col) in (0..elems * elems).map(|index| (index / elems, index % elems)) {
                    let expected = f64::from(u8::from(at == col));
                    assert!((identity[(at, col)] - expected).abs() < 1e-12, "{elems}: {at}, {col}");
                }
                let rotated = |seed| {
                    let mut values = row(elems);
                    random(elems, seed).apply(&mut values);
                    values
                };
                assert_eq!(rotated(7), rotated(7));
                assert_ne!(rotated(7), rotated(8));
            }
        }
    }

    #[test]
    fn the_mean_is_kept_and_the_rest_is_rotated() {
        // 1 has nothing but its mean.
        for elems in [1, 2, 6, 24, 46, 64] {
            let rotation = Rotation::random_keeping_mean(elems, 5);
            let mut ones = vec![1.0; elems];
            rotation.apply(&mut ones);
            assert!(ones.iter().all(|one| (one - 1.0).abs() < 1e-12), "{elems}: {ones:?}");
            let mean = |row: &[f64]| row.iter().sum::<f64>() / elems as f64;
            let (before, mut after) = (row(elems), row(elems));
            rotation.apply(&mut after);
            assert!((mean(&before) - mean(&after)).abs() < 1e-12, "{elems}");
            let apart = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // Of two numbers there is but one direction beside the mean, which may stay.
            assert!(apart > 0.01 || elems <= 2, "{elems}: {apart}");
        }
    }

    #[test]
    fn products_stay_where_input_and_weights_are_rotated() {
        let (rows, cols) = (5, 24);
        let rotation = Rotation::random(12, 3);
        let data = (0..rows * cols).map(|at| (at as f32 * 0.37).cos()).collect();
        let matrix = Matrix { rows, cols, data };
        let product = |matrix: &Matrix, input: &[f64]| -> Vec<f64> {
            let dot = |row: usize| matrix.row(row).iter().zip(input).map(|(w, x)| f64::from(*w) * x).sum();
            (0..matrix.rows).map(dot).collect()
        };
        let mut rotated = matrix.clone();
        rotate_inputs(&mut rotated, &rotation);
        let input = row(cols);
        let mut rotated_input = input.clone();
        rotated_input.chunks_exact_mut(12).for_each(|part| rotation.apply(part));
        let expected = product(&matrix, &input);
        for (found, expected) in product(&rotated, &rotated_input).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
        }
        // Of outputs: the rotated product.
        let wide = Matrix { rows: cols, cols: rows, data: matrix.data.clone() };
        let input = row(rows);
        let mut expected = product(&wide, &input);
        expected.chunks_exact_mut(12).for_each(|part| rotation.apply(part));
        let mut rotated = wide.clone();
        rotate_outputs(&mut rotated.data, rows, &rotation);
        for (found, expected) in product(&rotated, &input).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
        }
    }
}
