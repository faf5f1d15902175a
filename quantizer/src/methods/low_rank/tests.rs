//! Corrections against a naive reference: Jacobi rotations in f64, and sums over every element.

use super::*;
use crate::methods::{GroupSize, prepare};
use proptest::prelude::*;

/// Numbers from -1 to 1 that look random.
fn noise(seed: usize, index: usize) -> f64 {
    let mixed = (index + 7919 * seed).wrapping_mul(2_654_435_761) % 1_000_003;
    (mixed * 48_271 % 1_000_003) as f64 / 500_001.5 - 1.0
}

fn matrix(seed: usize, rows: usize, columns: usize) -> Mat<f64> {
    Mat::from_fn(rows, columns, |i, j| noise(seed, i * columns + j))
}

/// The moments of correlated inputs, a few of them much larger than the others.
fn hessian(seed: usize, n: usize) -> Mat<f64> {
    let inputs = Mat::from_fn(3 * n, n, |i, j| {
        let scale = if j % 5 == 0 { 6.0 } else { 1.0 };
        scale * (noise(seed, i * n + j) + 0.5 * noise(seed, i * n))
    });
    inputs.transpose() * &inputs
}

fn options(bits: u8) -> SolverOptions {
    SolverOptions::for_container(bits, GroupSize::elements(32).unwrap())
}

fn prepared(seed: usize, n: usize) -> Prepared<f64> {
    prepare(hessian(seed, n).as_ref(), None, &options(3)).unwrap()
}

/// `tr(E H E^T)`, element by element.
fn weighted(errors: &Mat<f64>, hessian: &Mat<f64>) -> f64 {
    let n = errors.ncols();
    let row = |i: usize| -> f64 {
        let pairs = (0..n).flat_map(|j| (0..n).map(move |k| (j, k)));
        pairs.map(|(j, k)| errors[(i, j)] * hessian[(j, k)] * errors[(i, k)]).sum()
    };
    (0..errors.nrows()).map(row).sum()
}

/// Eigenvalues of a symmetric matrix by Jacobi's rotations, falling.
fn eigenvalues(mut matrix: Mat<f64>) -> Vec<f64> {
    let n = matrix.nrows();
    for _ in 0..60 {
        for (p, q) in (0..n).flat_map(|p| (p + 1..n).map(move |q| (p, q))) {
            if matrix[(p, q)] == 0.0 {
                continue;
            }
            let angle = 0.5 * (2.0 * matrix[(p, q)]).atan2(matrix[(q, q)] - matrix[(p, p)]);
            let (sine, cosine) = angle.sin_cos();
            for k in 0..n {
                let (a, b) = (matrix[(k, p)], matrix[(k, q)]);
                (matrix[(k, p)], matrix[(k, q)]) = (cosine * a - sine * b, sine * a + cosine * b);
            }
            for k in 0..n {
                let (a, b) = (matrix[(p, k)], matrix[(q, k)]);
                (matrix[(p, k)], matrix[(q, k)]) = (cosine * a - sine * b, sine * a + cosine * b);
            }
        }
    }
    let mut values: Vec<f64> = (0..n).map(|i| matrix[(i, i)]).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// Squares of the singular values of E L: eigenvalues of `E H E^T`.
fn squares(errors: &Mat<f64>, hessian: &Mat<f64>) -> Vec<f64> {
    let (m, n) = (errors.nrows(), errors.ncols());
    let entry = |i: usize, k: usize| -> f64 {
        let pairs = (0..n).flat_map(|j| (0..n).map(move |l| (j, l)));
        pairs.map(|(j, l)| errors[(i, j)] * hessian[(j, l)] * errors[(k, l)]).sum()
    };
    eigenvalues(Mat::from_fn(m, m, entry))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Eckart and Young, in both orientations: what the best factors leave is the sum of the squares that are left out.
    #[test]
    fn the_best_factors_leave_the_tail_of_the_singular_values(
        seed in 0..1000_usize,
        m in 2..14_usize,
        n in 2..14_usize,
    ) {
        let prepared = prepared(seed, n);
        let (errors, hessian) = (matrix(seed + 1, m, n), prepared.damped_hessian());
        let all = squares(&errors, &hessian);
        let total: f64 = all.iter().sum();
        let mut last = total;
        for rank in 1..=m.min(n) {
            let Factors { left, right } = best_factors(errors.as_ref(), &prepared, rank).unwrap();
            let left_over = weighted(&(&errors - &left * &right), &hessian);
            let tail: f64 = all[rank..].iter().sum();
            prop_assert!((left_over - tail).abs() < 1e-9 * total, "rank {}: {} {}", rank, left_over, tail);
            prop_assert!(left_over <= last + 1e-9 * total);
            last = left_over;
        }
    }

    /// With stored factors: never above no correction, near the best ones, and no larger with a larger rank but for the rounding to 8 bits.
    #[test]
    fn stored_factors_gain_what_the_best_ones_do(seed in 0..1000_usize, tall in any::<bool>()) {
        let (m, n) = if tall { (40, 24) } else { (24, 40) };
        let prepared = prepared(seed, n);
        let (errors, hessian) = (matrix(seed + 1, m, n), prepared.damped_hessian());
        let none = weighted(&errors, &hessian);
        let mut last = none;
        for rank in [1, 2, 4, 8, 16] {
            let stored = fit(errors.as_ref(), &prepared, rank).unwrap();
            let mut values = vec![0.0; m * n];
            stored.add_to(&mut values);
            let left_over = weighted(&(&errors - MatRef::from_row_major_slice(&values, m, n)), &hessian);
            let Factors { left, right } = best_factors(errors.as_ref(), &prepared, rank).unwrap();
            let best = weighted(&(&errors - &left * &right), &hessian);
            prop_assert!(best <= left_over * (1.0 + 1e-9) && left_over < none);
            // Two roundings to 8 bits of what was taken away, whose square is below a thousandth of it.
            prop_assert!(left_over <= best + 2e-3 * (none - best), "{} {} {}", left_over, best, none);
            prop_assert!(left_over <= last + 2e-3 * none, "rank {}: {} {}", rank, left_over, last);
            last = left_over;
        }
    }
}

#[test]
fn nothing_to_correct_is_corrected_by_nothing() {
    for (m, n) in [(6, 9), (9, 6)] {
        let prepared = prepared(3, n);
        let stored = fit(Mat::<f64>::zeros(m, n).as_ref(), &prepared, 4).unwrap();
        let mut values = vec![0.0; m * n];
        stored.add_to(&mut values);
        assert!(values.iter().all(|value| *value == 0.0));
        // A matrix of lower rank than asked for is met up to the rounding of its factors.
        let errors = matrix(1, m, 2) * matrix(2, 2, n);
        let Factors { left, right } = best_factors(errors.as_ref(), &prepared, 5).unwrap();
        let rest = weighted(&(&errors - left * right), &prepared.damped_hessian());
        assert!(rest < 1e-12 * weighted(&errors, &prepared.damped_hessian()), "{rest}");
    }
}

/// A problem whose weights are a few strong directions and weak noise: what a grid of few levels cannot spell, and two factors can.
fn strong_directions(m: usize, n: usize) -> Mat<f64> {
    matrix(5, m, 3) * matrix(6, 3, n) + matrix(7, m, n) * faer::Scale(0.05)
}

#[test]
fn the_alternation_takes_strong_directions_out_of_what_is_quantized() {
    let (m, n) = (40, 64);
    let (prepared, options) = (prepared(4, n), options(3));
    let loss = |weights: &Mat<f64>, alternation: Option<Alternation>| {
        let weights = weights.as_ref();
        let problem = Problem { weights, target: weights, prepared: &prepared, options: &options, sweeps: 2 };
        match alternation {
            None => {
                let mut solution = solve(weights, &prepared, Some(&gptq::CONFIGURATION), &options).unwrap();
                let limits = RefineLimits::sweeps(2);
                refine(&mut solution, weights, &prepared, options.row_format(n), limits).unwrap();
                problem.loss(&solution, None).unwrap()
            }
            Some(alternation) => {
                let mut losses = Vec::new();
                let (solution, low_rank) = problem
                    .alternate(alternation, |round, solution, low_rank| {
                        losses.push((round, problem.loss(solution, Some(low_rank))?));
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(losses.len(), alternation.rounds);
                let last = problem.loss(&solution, Some(&low_rank)).unwrap();
                assert_eq!(losses.last(), Some(&(alternation.rounds, last)));
                last
            }
        }
    };
    let of = |first, rounds| Some(Alternation { rank: 4, first, rounds });
    let strong = strong_directions(m, n);
    let plain = loss(&strong, None);
    // The strong directions are gone, and the grid spells the rest: twenty times smaller, four hundred times in squares.
    let principal = loss(&strong, of(FirstFactors::Principal, 1));
    assert!(principal < 0.02 * plain, "{principal} {plain}");
    // From none, the second round begins to take them out.
    let (one, three) = (loss(&strong, of(FirstFactors::Zero, 1)), loss(&strong, of(FirstFactors::Zero, 3)));
    assert!(one < plain && three < one, "{plain} {one} {three}");
    // White weights have no such directions, though their inputs have: a tenth of the rank takes half, not all but a fiftieth.
    let white = matrix(8, m, n);
    let (plain, corrected) = (loss(&white, None), loss(&white, of(FirstFactors::Zero, 2)));
    assert!(corrected < plain && corrected > 0.3 * plain, "{plain} {corrected}");
}

#[test]
fn dead_columns_are_left_alone() {
    let (m, n) = (8, 32);
    let mut moments = hessian(2, n);
    for j in 0..n {
        (moments[(5, j)], moments[(j, 5)]) = (0.0, 0.0);
    }
    let options = options(3);
    let prepared = prepare(moments.as_ref(), None, &options).unwrap();
    let weights = matrix(9, m, n);
    let target = prepared.target(weights.as_ref(), crate::methods::Start::Unchanged).unwrap();
    let (weights, target) = (weights.as_ref(), target.as_ref());
    let problem = Problem { weights, target, prepared: &prepared, options: &options, sweeps: 1 };
    let alternation = Alternation { rank: 4, first: FirstFactors::Principal, rounds: 2 };
    let (solution, low_rank) = problem.alternate(alternation, |_, _, _| Ok(())).unwrap();
    let (right, values) = (low_rank.right.values(), solution.values());
    for i in 0..m {
        // The nearest level to the original weight, and no more than half the distance between levels off.
        let scale = solution.scales[i];
        let levels = solution.grid.levels();
        let nearest = levels.iter().map(|level| (f64::from(*level) * scale - weights[(i, 5)]).abs());
        let nearest = nearest.fold(f64::INFINITY, f64::min);
        assert!(((values[i * n + 5] - weights[(i, 5)]).abs() - nearest).abs() < 1e-12);
    }
    assert!((0..4).all(|row| right[row * n + 5] == 0.0));
}

#[test]
fn methods_that_do_more_than_compensate_are_refused() {
    use crate::methods::Method;
    for method in Method::ALL {
        let found = check_configuration(method.configuration(3).as_ref());
        let expected = match method {
            Method::Gptq | Method::RescompExact => Ok(()),
            Method::Rtn | Method::Gptaq | Method::Rescomp => Err(MethodError::CorrectionOfMethod),
        };
        assert_eq!(found, expected, "{method}");
    }
}
