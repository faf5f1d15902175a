//! Descent on the orthogonal group: Cayley SGD with momentum (Li, Fuxin and Todorovic, arXiv 2002.01113, algorithm 1), in f64.
//!
//! ```text
//! M <- beta M - G                                   G: gradient of the loss for R, by entries
//! W <- A - A^T,  A = M R^T - R (R^T M R^T) / 2      skew: the part of M R^T that turns R
//! R <- (I - a/2 W)^-1 (I + a/2 W) R                 Cayley's transform of a W, which is orthogonal
//! M <- W R                                          momentum stays in the tangent space
//! ```
//! Two departures. The paper approximates the inverse by a fixed-point iteration; here the linear system is solved, so R stays orthogonal to
//! rounding. And the paper's step is the learning rate, limited by `1 / ||W||`; here a is such that the rows of R turn by the learning rate,
//! a root mean square in radians, whatever the size of the gradient: losses of different models and the small R2 beside R1 need no rates of
//! their own.

use faer::Mat;
use faer::prelude::Solve;

/// R is made orthogonal anew where `R^T R` is further from the identity.
const ORTHOGONALITY: f64 = 1e-9;

/// One rotation that is learned.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Iterate {
    /// R, `elems x elems`.
    pub(super) rotation: Mat<f64>,
    /// M of the last step; 0 before the first.
    pub(super) momentum: Mat<f64>,
}

impl Iterate {
    /// Begins at `rotation`.
    pub(super) fn new(rotation: Mat<f64>) -> Iterate {
        let elems = rotation.nrows();
        Iterate { rotation, momentum: Mat::zeros(elems, elems) }
    }

    /// One step against `gradient` (`elems x elems`): rows of R turn by about `angle` radians. A gradient of 0 with no momentum turns
    /// nothing.
    pub(super) fn step(&mut self, gradient: &Mat<f64>, angle: f64, momentum: f64) {
        let Iterate { rotation, momentum: kept } = self;
        let elems = rotation.nrows();
        let direction =
            Mat::from_fn(elems, elems, |row, col| momentum * kept[(row, col)] - gradient[(row, col)]);
        let turns = turning(&direction, rotation);
        *kept = &turns * &*rotation;
        let length = turns.norm_l2();
        // Numbers that are not finite are the caller's to refuse: its loss isn't either.
        if length > 0.0 && length.is_finite() {
            let half = 0.5 * angle * (elems as f64).sqrt() / length;
            let identity = |row: usize, col: usize| f64::from(u8::from(row == col));
            let left = Mat::from_fn(elems, elems, |row, col| identity(row, col) - half * turns[(row, col)]);
            let right = Mat::from_fn(elems, elems, |row, col| identity(row, col) + half * turns[(row, col)]);
            // Eigenvalues of a skew matrix are imaginary, so `left` has an inverse.
            *rotation = left.partial_piv_lu().solve(&(right * &*rotation));
        }
        if distance_from_orthogonal(rotation) > ORTHOGONALITY {
            *rotation = orthogonal(rotation);
        }
    }
}

/// The skew matrix W of a direction M at R: `W R` is M's part in the tangent space.
fn turning(direction: &Mat<f64>, rotation: &Mat<f64>) -> Mat<f64> {
    let product = direction * rotation.transpose();
    let correction = rotation * (rotation.transpose() * &product);
    let at = |row: usize, col: usize| product[(row, col)] - 0.5 * correction[(row, col)];
    Mat::from_fn(product.nrows(), product.nrows(), |row, col| at(row, col) - at(col, row))
}

/// The largest entry of `R^T R - I`.
pub(super) fn distance_from_orthogonal(rotation: &Mat<f64>) -> f64 {
    let product = rotation.transpose() * rotation;
    let mut furthest = 0.0_f64;
    for col in 0..product.ncols() {
        for row in 0..product.nrows() {
            furthest = furthest.max((product[(row, col)] - f64::from(u8::from(row == col))).abs());
        }
    }
    furthest
}

/// The orthogonal factor of R's QR factorization, with the signs that leave an orthogonal R as it is.
fn orthogonal(rotation: &Mat<f64>) -> Mat<f64> {
    let factors = rotation.qr();
    let (orthogonal, triangular) = (factors.compute_thin_Q(), factors.thin_R().to_owned());
    let elems = rotation.nrows();
    Mat::from_fn(elems, elems, |row, col| orthogonal[(row, col)] * triangular[(col, col)].signum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::Rotation;
    use proptest::prelude::*;

    fn noise(elems: usize, seed: u64, size: f64) -> Mat<f64> {
        let of = |row: usize, col: usize| {
            ((row * 37 + col * 101) as f64 * 0.731 + seed as f64 * 1.37).sin() * size
        };
        Mat::from_fn(elems, elems, of)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn rotations_stay_orthogonal(seed in 0_u64..1000, elems in 2_usize..40, size in -8.0_f64..8.0, angle in 1e-4_f64..2.0) {
            let mut learned = Iterate::new(Rotation::random(elems, seed).dense());
            for step in 0..40 {
                let before = learned.rotation.clone();
                learned.step(&noise(elems, seed + step, 10_f64.powf(size)), angle, 0.9);
                prop_assert!(distance_from_orthogonal(&learned.rotation) < 1e-9);
                let turned = (&learned.rotation - before).norm_l2() / (elems as f64).sqrt();
                // The chord of Cayley's transform is at most the angle, and near it where that is small.
                prop_assert!(turned <= angle * (1.0 + 1e-6), "{turned} of {angle}");
                prop_assert!(angle > 0.05 || turned > 0.9 * angle, "{turned} of {angle}");
            }
        }

        #[test]
        fn what_is_nearly_orthogonal_is_made_so(seed in 0_u64..1000, elems in 2_usize..40) {
            let rotation = Rotation::random(elems, seed).dense();
            let off = &rotation + noise(elems, seed, 1e-5);
            prop_assert!(distance_from_orthogonal(&off) > ORTHOGONALITY);
            let mut learned = Iterate::new(off);
            learned.step(&Mat::zeros(elems, elems), 0.1, 0.0);
            prop_assert!(distance_from_orthogonal(&learned.rotation) < 1e-12);
            prop_assert!((&learned.rotation - rotation).norm_max() < 1e-3);
        }
    }

    #[test]
    fn a_rotation_is_found() {
        // The least of ||R - T||^2 is at T, which Cayley's transform reaches from anything without an eigenvalue -1 between them.
        let target = {
            let mut turned = Iterate::new(Rotation::random(12, 3).dense());
            (0..3).for_each(|step| turned.step(&noise(12, step, 1.0), 0.3, 0.0));
            turned.rotation
        };
        let mut learned = Iterate::new(Rotation::random(12, 3).dense());
        let distance = |learned: &Iterate| (&learned.rotation - &target).norm_l2();
        let start = distance(&learned);
        for step in 0..200 {
            let gradient = (&learned.rotation - &target) * faer::Scale(2.0);
            learned.step(&gradient, 0.05 * (1.0 - f64::from(step) / 200.0), 0.5);
        }
        assert!(start > 1.0 && distance(&learned) < 1e-2 * start, "{start}, {}", distance(&learned));
    }
}
