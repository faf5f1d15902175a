//! The obvious version of everything, in f64, and the identities that the fast version rests on.
//!
//! Nothing here is blocked, permuted or factored: remaining columns are found by inverting what remains of
//! the Hessian, once a column. Test-only.

use std::num::NonZeroUsize;

use faer::{Mat, MatRef};
use proptest::prelude::*;

use super::matrix::Matrix;
use super::{
    ClipSearch, GroupSize, LazyVariant, Method, Prepared, Solution, SolverOptions, Start, SweepConfiguration,
    asymmetric_loss, gptaq, gptq, prepare, solve,
};
use crate::grids::ScaleFormat;

/// Random moments and weights: k tokens of n correlated inputs, the full-precision stream a disturbed copy.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) weights: Mat<f64>,
    pub(super) hessian: Mat<f64>,
    pub(super) drift: Mat<f64>,
}

impl Problem {
    pub(super) fn new(seed: u64, m: usize, n: usize) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut uniform = || {
            // xorshift64*: any generator will do, and this one needs no crate.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        };
        let mut random = |rows, columns| {
            let values: Vec<f64> = (0..rows * columns).map(|_| uniform()).collect();
            Mat::from_fn(rows, columns, |i, j| values[i * columns + j])
        };
        let tokens = 3 * n;
        let mixing = random(n, n);
        let (inputs, noise) = (&mixing * random(n, tokens), random(n, tokens));
        let full = Mat::from_fn(n, tokens, |i, t| {
            1.1 * inputs[(i, t)] + 0.2 * inputs[((i + 1) % n, t)] + 0.1 * noise[(i, t)]
        });
        Self {
            weights: random(m, n),
            hessian: &inputs * inputs.transpose(),
            drift: (&full - &inputs) * inputs.transpose(),
        }
    }

    pub(super) fn prepare(&self, options: &SolverOptions) -> Prepared<f64> {
        prepare(self.hessian.as_ref(), Some(self.drift.as_ref()), options).unwrap()
    }

    fn solve(&self, configuration: &SweepConfiguration, options: &SolverOptions) -> Solution<f64> {
        solve(self.weights.as_ref(), &self.prepare(options), Some(configuration), options).unwrap()
    }

    fn columns(&self) -> usize {
        self.hessian.ncols()
    }

    fn lambda(&self, damping: f64) -> f64 {
        let n = self.columns();
        damping * (0..n).map(|i| self.hessian[(i, i)]).sum::<f64>() / n as f64
    }

    fn damped(&self, damping: f64) -> Mat<f64> {
        let (n, lambda) = (self.columns(), self.lambda(damping));
        Mat::from_fn(n, n, |i, j| self.hessian[(i, j)] + if i == j { lambda } else { 0.0 })
    }
}

/// Inverse by Gauss and Jordan with row exchanges.
pub(super) fn inverse(matrix: MatRef<'_, f64>) -> Mat<f64> {
    let n = matrix.nrows();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            (0..2 * n).map(|j| if j < n { matrix[(i, j)] } else { f64::from(u8::from(j - n == i)) }).collect()
        })
        .collect();
    for step in 0..n {
        let best = (step..n).max_by(|a, b| rows[*a][step].abs().total_cmp(&rows[*b][step].abs())).unwrap();
        rows.swap(step, best);
        let pivot: Vec<f64> = rows[step].iter().map(|value| value / rows[step][step]).collect();
        for (i, row) in rows.iter_mut().enumerate() {
            let factor = row[step];
            if i == step {
                row.copy_from_slice(&pivot);
            } else {
                row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
    }
    Mat::from_fn(n, n, |i, j| rows[i][n + j])
}

/// The part of a square matrix from `first` on in both directions.
fn tail(matrix: &Mat<f64>, first: usize) -> MatRef<'_, f64> {
    let rest = matrix.nrows() - first;
    matrix.as_ref().submatrix(first, first, rest, rest)
}

/// `strict_upper(moment U^T) U`.
fn strict_upper_product(moment: &Mat<f64>, factor: &Mat<f64>) -> Mat<f64> {
    let n = factor.nrows();
    let product = moment * factor.transpose();
    Mat::from_fn(n, n, |i, j| if j > i { product[(i, j)] } else { 0.0 }) * factor
}

/// N: the rows of U divided by their diagonal, above the diagonal.
fn unit_upper(factor: &Mat<f64>) -> Mat<f64> {
    let n = factor.nrows();
    Mat::from_fn(n, n, |i, j| if j > i { factor[(i, j)] / factor[(i, i)] } else { 0.0 })
}

fn to_mat(matrix: &Matrix<f64>) -> Mat<f64> {
    matrix.view().to_owned()
}

/// Q.
fn to_values(solution: &Solution<f64>) -> Mat<f64> {
    MatRef::from_row_major_slice(&solution.values(), solution.rows, solution.columns).to_owned()
}

fn close(left: &Mat<f64>, right: &Mat<f64>, what: &str) {
    let scale = right.norm_max().max(1.0);
    let difference = (left - right).norm_max();
    assert!(difference <= 1e-9 * scale, "{what}: {difference} apart on a scale of {scale}");
}

/// Textbook sweep in the natural order with dynamic or static groups, without lazy blocks: GPTQ's step as the
/// Lagrangian solution on the remaining columns, P row by row from its definition, ResComp's matrix in its
/// explicit form.
fn reference_sweep(problem: &Problem, alpha1: f64, alpha2: f64, options: &SolverOptions) -> Mat<f64> {
    let (m, n) = (problem.weights.nrows(), problem.columns());
    let search = options.check(n).unwrap();
    let group_elems = options.group.group_elems(n);
    let damped = problem.damped(options.damping);
    let target = &problem.hessian + &problem.drift;
    let mut values = Mat::zeros(m, n);
    for i in 0..m {
        let original: Vec<f64> = (0..n).map(|j| problem.weights[(i, j)]).collect();
        let mut current = original.clone();
        let mut scale = 0.0;
        for j in 0..n {
            if j % group_elems == 0 {
                let source = if options.static_groups { &original } else { &current };
                scale = search.scale(&source[j..(j + group_elems).min(n)]);
            }
            let w = current[j];
            let value = scale * f64::from(search.grid.level(w, scale));
            values[(i, j)] = value;
            if j + 1 == n {
                continue;
            }
            let step = inverse(tail(&damped, j));
            let later = inverse(tail(&damped, j + 1));
            for k in j + 1..n {
                let drift: f64 =
                    (j + 1..n).map(|l| problem.drift[(j, l)] * later[(l - j - 1, k - j - 1)]).sum();
                let aware: f64 = (j + 1..n).map(|l| target[(j, l)] * later[(l - j - 1, k - j - 1)]).sum();
                current[k] += (value - w) / step[(0, 0)] * step[(0, k - j)]
                    + alpha1 * w * drift
                    + alpha2 * (original[j] - w) * aware;
            }
        }
    }
    values
}

/// After every rounding, the minimum of `||W0 Xf - Q X||^2 + lambda ||Q - W0||^2` over all later columns,
/// from scratch.
fn sequential_minimum(problem: &Problem, options: &SolverOptions) -> Mat<f64> {
    let (m, n) = (problem.weights.nrows(), problem.columns());
    let search = options.check(n).unwrap();
    let group_elems = options.group.group_elems(n);
    let damped = problem.damped(options.damping);
    let target = &problem.weights * (&damped + &problem.drift);
    let mut values = Mat::zeros(m, n);
    for i in 0..m {
        let mut fixed: Vec<f64> = Vec::new();
        let mut scale = 0.0;
        for j in 0..n {
            let later = inverse(tail(&damped, j));
            let right: Vec<f64> = (j..n)
                .map(|k| {
                    target[(i, k)] - fixed.iter().enumerate().map(|(l, q)| q * damped[(l, k)]).sum::<f64>()
                })
                .collect();
            let current: Vec<f64> =
                (0..n - j).map(|k| (0..n - j).map(|l| right[l] * later[(l, k)]).sum()).collect();
            if j % group_elems == 0 {
                scale = search.scale(&current[..group_elems.min(n - j)]);
            }
            values[(i, j)] = scale * f64::from(search.grid.level(current[0], scale));
            fixed.push(values[(i, j)]);
        }
    }
    values
}

/// Without clip search: where one negative weight outweighs its group, a scale s with the code -1 and s/2
/// with -2 cost the same, and rounding errors would decide. The vectors of the oracle cover the search.
fn natural(bits: u8, group: usize, block: usize) -> SolverOptions {
    SolverOptions {
        activation_order: false,
        static_groups: false,
        clip: ClipSearch::Off,
        block: NonZeroUsize::new(block).unwrap(),
        scale_format: ScaleFormat::Full,
        ..SolverOptions::new(bits, GroupSize::elements(group).unwrap())
    }
}

const fn paper(alpha1: f64, alpha2: f64) -> SweepConfiguration {
    SweepConfiguration { alpha1, alpha2, variant: LazyVariant::Paper, start: Start::Unchanged }
}

prop_compose! {
    fn problem()(seed in any::<u64>(), m in 1..5_usize, n in 2..14_usize) -> Problem {
        Problem::new(seed, m, n)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn factor_inverts_the_damped_hessian(problem in problem(), activation_order: bool) {
        let prepared = problem.prepare(&SolverOptions { activation_order, ..natural(3, 64, 4) });
        let factor = to_mat(prepared.factor());
        let (n, order, damped) = (problem.columns(), prepared.order(), problem.damped(0.01));
        let ordered = Mat::from_fn(n, n, |i, j| damped[(order[i], order[j])]);
        close(&(factor.transpose() * &factor * &ordered), &Mat::identity(n, n), "U^T U H");
        for i in 0..n {
            prop_assert!(factor[(i, i)] > 0.0);
            prop_assert!((0..i).all(|j| factor[(i, j)] == 0.0));
            prop_assert!(!activation_order || i == 0 || ordered[(i - 1, i - 1)] >= ordered[(i, i)]);
        }
    }

    #[test]
    fn projection_rows_solve_the_later_columns(problem in problem(), activation_order: bool) {
        let prepared = problem.prepare(&SolverOptions { activation_order, ..natural(3, 64, 4) });
        let projection = to_mat(&prepared.projection().unwrap().unwrap());
        let (n, order, damped) = (problem.columns(), prepared.order(), problem.damped(0.01));
        let ordered = Mat::from_fn(n, n, |i, j| damped[(order[i], order[j])]);
        let expected = Mat::from_fn(n, n, |q, k| {
            if k <= q {
                return 0.0;
            }
            let later = inverse(tail(&ordered, q + 1));
            (q + 1..n).map(|l| problem.drift[(order[q], order[l])] * later[(l - q - 1, k - q - 1)]).sum()
        });
        close(&projection, &expected, "P");
    }

    #[test]
    fn the_matrix_of_rescomp_folds_into_the_others(problem in problem()) {
        let prepared = problem.prepare(&natural(3, 64, 4));
        let factor = to_mat(prepared.factor());
        let explicit = strict_upper_product(&(&problem.hessian + &problem.drift), &factor);
        let projection = to_mat(&prepared.projection().unwrap().unwrap());
        close(&(projection - unit_upper(&factor)), &explicit, "P - N");
    }

    #[test]
    fn the_sweep_is_the_explicit_one(
        problem in problem(), bits in 2..5_u8, group in 1..9_usize, block in 1..16_usize, static_groups: bool,
        strengths in prop_oneof![Just((0.0, 0.0)), Just((0.25, 0.25)), (0.0..1.0, 0.0..1.0)],
    ) {
        // Groups that do not divide the row, straddle blocks or span several: the result must not depend on
        // the block.
        let options = SolverOptions { static_groups, ..natural(bits, group, block) };
        let solution = problem.solve(&paper(strengths.0, strengths.1), &options);
        close(&to_values(&solution), &reference_sweep(&problem, strengths.0, strengths.1, &options), "Q");
    }

    #[test]
    fn paper_does_not_depend_on_the_block(
        problem in problem(), bits in 2..5_u8, group in 1..9_usize, block in 1..16_usize,
        alpha1 in 0.0..1.0, alpha2 in 0.0..1.0,
    ) {
        let options = SolverOptions { activation_order: true, static_groups: true, ..natural(bits, group, 128) };
        let blocked = SolverOptions { block: NonZeroUsize::new(block).unwrap(), ..options };
        let configuration = paper(alpha1, alpha2);
        let (whole, blocked) = (problem.solve(&configuration, &options), problem.solve(&configuration, &blocked));
        close(&to_values(&whole), &to_values(&blocked), "Q");
    }

    #[test]
    fn variants_differ_in_the_alpha_terms_only(problem in problem(), bits in 2..5_u8, block in 1..16_usize) {
        let options = natural(bits, 4, block);
        let expected = problem.solve(&gptq::CONFIGURATION, &options);
        for variant in LazyVariant::ALL {
            prop_assert_eq!(&problem.solve(&gptq::CONFIGURATION.with_variant(variant), &options), &expected);
        }
    }

    #[test]
    fn without_drift_gptaq_and_exact_are_gptq(problem in problem(), bits in 2..5_u8, block in 1..16_usize) {
        let options = SolverOptions { block: NonZeroUsize::new(block).unwrap(), ..SolverOptions::new(bits, GroupSize::Row) };
        let zero = Mat::zeros(problem.columns(), problem.columns());
        for drift in [None, Some(zero.as_ref())] {
            let prepared = prepare(problem.hessian.as_ref(), drift, &options).unwrap();
            let run = |configuration: SweepConfiguration| {
                solve(problem.weights.as_ref(), &prepared, Some(&configuration), &options).unwrap()
            };
            let expected = run(gptq::CONFIGURATION);
            prop_assert_eq!(&run(gptaq::CONFIGURATION), &expected);
            prop_assert_eq!(&run(gptaq::PUBLISHED_EQUATIONS), &expected);
            prop_assert_eq!(&run(gptq::CONFIGURATION.with_start(Start::Anchored { strength: 1.0 })), &expected);
            let exact = run(Method::RescompExact.configuration(bits).unwrap());
            prop_assert_eq!(exact.ridge.is_some(), drift.is_some());
            prop_assert_eq!((&exact.codes, &exact.scales), (&expected.codes, &expected.scales));
        }
    }

    #[test]
    fn the_exact_start_re_solves_every_column(
        problem in problem(), bits in 2..5_u8, group in 1..9_usize, block in 1..16_usize, damping in 0.005..0.2,
    ) {
        let options = SolverOptions { damping, ..natural(bits, group, block) };
        let start = Start::Exact { strength: 1.0, ridge: damping };
        let solution = problem.solve(&gptq::CONFIGURATION.with_start(start), &options);
        close(&to_values(&solution), &sequential_minimum(&problem, &options), "Q");
        prop_assert_eq!(solution.ridge, Some(damping));
    }

    /// With e = w - q, the loss without drift is `||e (I + a N^2 (I - a N)^-1 (I + N)^-1) diag(U)^-1||^2`:
    /// the compensation-aware term never helps in expectation.
    #[test]
    fn the_loss_has_its_closed_form(problem in problem(), alpha in 0.0..1.0) {
        let options = natural(3, 64, 5);
        let prepared = prepare(problem.hessian.as_ref(), None, &options).unwrap();
        let configuration = paper(0.0, alpha);
        let solution = solve(problem.weights.as_ref(), &prepared, Some(&configuration), &options).unwrap();
        let (n, m) = (problem.columns(), problem.weights.nrows());
        let values = solution.values();
        let values = MatRef::from_row_major_slice(&values, m, n);
        let factor = to_mat(prepared.factor());
        let unit = unit_upper(&factor);

        let mut current = problem.weights.clone();
        let mut errors = Mat::zeros(m, n);
        for j in 0..n {
            for i in 0..m {
                errors[(i, j)] = current[(i, j)] - values[(i, j)];
                let pushed = errors[(i, j)] + alpha * (problem.weights[(i, j)] - current[(i, j)]);
                (j + 1..n).for_each(|k| current[(i, k)] -= pushed * unit[(j, k)]);
            }
        }
        let identity = Mat::<f64>::identity(n, n);
        let scaled = Mat::from_fn(n, n, |i, j| alpha * unit[(i, j)]);
        let excess = &scaled * &unit * inverse((&identity - &scaled).as_ref()) * inverse((&identity + &unit).as_ref());
        let pushed = &errors * (identity + excess);
        let predicted: f64 =
            (0..n).flat_map(|j| (0..m).map(move |i| (i, j))).map(|at| (pushed[at] / factor[(at.1, at.1)]).powi(2)).sum();
        let damped = problem.damped(options.damping);
        let loss = asymmetric_loss(problem.weights.as_ref(), values, damped.as_ref(), None).unwrap();
        prop_assert!((loss / predicted - 1.0).abs() < 1e-7, "{} instead of {}", loss, predicted);
    }
}

/// In the steps of GPTQ without drift, the compensation-aware error summed over *all* columns has no
/// component along the later ones: the part that ResComp keeps is cancelled by the parts that it drops.
#[test]
fn what_rescomp_keeps_is_cancelled_by_what_it_drops() {
    let problem = Problem::new(7, 3, 12);
    let options = natural(3, 64, 5);
    let prepared = problem.prepare(&options);
    let unit = unit_upper(&to_mat(prepared.factor()));
    let damped = problem.damped(options.damping);
    let (mut largest_sum, mut largest_part) = (0.0_f64, 0.0_f64);
    for i in 0..3 {
        let original: Vec<f64> = (0..12).map(|j| problem.weights[(i, j)]).collect();
        let mut current = original.clone();
        for j in 0..11 {
            for k in j..12 {
                let part = |l: usize| (original[l] - current[l]) * damped[(l, k)];
                largest_sum = largest_sum.max((0..12).map(part).sum::<f64>().abs());
                largest_part = largest_part.max(part(j).abs());
            }
            let (w, q) = (current[j], (current[j] * 6.0).round() / 6.0);
            (j + 1..12).for_each(|k| current[k] -= (w - q) * unit[(j, k)]);
            current[j] = q;
        }
    }
    assert!(largest_sum < 1e-12, "{largest_sum}");
    assert!(largest_part > 0.01, "{largest_part}");
}

#[test]
fn the_variants_are_three_and_the_published_ones_depend_on_the_block() {
    let problem = Problem::new(3, 8, 24);
    let run = |variant, block| {
        let configuration = SweepConfiguration { variant, ..paper(1.0, 1.0) };
        problem.solve(&configuration, &natural(2, 24, block)).codes
    };
    let [paper, original, all_weights] = LazyVariant::ALL.map(|variant| run(variant, 6));
    assert_ne!(paper, original);
    assert_ne!(paper, all_weights);
    assert_ne!(original, all_weights);
    assert_ne!(original, run(LazyVariant::Original, 24));
}
