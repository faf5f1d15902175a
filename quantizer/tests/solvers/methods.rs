//! The solvers from outside: what they promise beside their mathematics.
// Helpers of tests are no tests to clippy: here, too, an unexpected error has to stop the test.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use faer::{Mat, MatRef};
use proptest::prelude::*;
use rayon::prelude::*;
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::encode::encode;
use rescomp_quantizer::grids::{Real, ScaleFormat};
use rescomp_quantizer::methods::rtn::round_to_nearest;
use rescomp_quantizer::methods::{
    GroupSize, LazyVariant, Method, MethodError, RefineLimits, Solution, SolverOptions, Start,
    SweepConfiguration, prepare, refine, solve,
};
use rescomp_quantizer::plan::MatrixFormat;

struct Problem<T> {
    weights: Mat<T>,
    hessian: Mat<T>,
    drift: Mat<T>,
}

/// m x n weights and the moments of 4 n tokens; the inputs in `dead` are never active.
fn problem<T: Real>(seed: u64, m: usize, n: usize, dead: &[usize]) -> Problem<T> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = |rows: usize, columns: usize| {
        let values: Vec<f64> = (0..rows * columns)
            .map(|_| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
            })
            .collect();
        Mat::from_fn(rows, columns, |i, j| values[i * columns + j])
    };
    let (weights, mixing, tokens) = (random(m, n), random(n, n), random(n, 4 * n));
    let (mixed, noise) = (&mixing * &tokens, random(n, 4 * n));
    let alive = |i: usize| if dead.contains(&i) { 0.0 } else { 1.0 };
    let inputs = Mat::from_fn(n, 4 * n, |i, t| mixed[(i, t)] * alive(i));
    // The full-precision stream is active where the quantized one is dead, too.
    let full = Mat::from_fn(n, 4 * n, |i, t| 1.1 * mixed[(i, t)] + 0.1 * noise[(i, t)]);
    let hessian = &inputs * inputs.transpose();
    let drift = (&full - &inputs) * inputs.transpose();
    let convert =
        |matrix: Mat<f64>| Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| T::from_f64(matrix[(i, j)]));
    Problem { weights: convert(weights), hessian: convert(hessian), drift: convert(drift) }
}

impl<T: Real> Problem<T> {
    fn solve(&self, configuration: Option<SweepConfiguration>, options: &SolverOptions) -> Solution<T> {
        let prepared = prepare(self.hessian.as_ref(), Some(self.drift.as_ref()), options).unwrap();
        solve(self.weights.as_ref(), &prepared, configuration.as_ref(), options).unwrap()
    }

    fn loss(&self, solution: &Solution<T>) -> f64 {
        solution.loss(self.weights.as_ref(), self.hessian.as_ref(), Some(self.drift.as_ref())).unwrap()
    }
}

const BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];

fn options(bits: u8, group: usize) -> SolverOptions {
    SolverOptions::new(bits, GroupSize::elements(group).unwrap())
}

/// Every configuration that a user can ask for by name.
fn configurations(bits: u8) -> Vec<Option<SweepConfiguration>> {
    let mut all = Vec::new();
    for method in Method::ALL {
        match method.configuration(bits) {
            None => all.push(None),
            Some(configuration) => {
                all.extend(LazyVariant::ALL.map(|variant| Some(configuration.with_variant(variant))));
                all.push(Some(configuration.with_start(Start::Anchored { strength: 0.5 })));
            }
        }
    }
    all
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    // Two whole strips of 32 rows and a short one; two lazy blocks and a short one.
    let problem = problem::<f32>(1, 70, 150, &[3]);
    let options = SolverOptions { block: 64.try_into().unwrap(), ..options(3, 32) };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| configurations(3).into_iter().map(|c| problem.solve(c, &options)).collect::<Vec<_>>())
    };
    let expected = run(1);
    for threads in [2, 3, 7] {
        assert!(run(threads) == expected, "{threads} threads");
    }
}

#[test]
fn rows_are_independent() {
    let problem = problem::<f32>(2, 67, 96, &[]);
    let options = options(3, 32);
    let configuration = Method::Rescomp.configuration(3);
    let whole = problem.solve(configuration, &options);
    let prepared = prepare(problem.hessian.as_ref(), Some(problem.drift.as_ref()), &options).unwrap();
    for row in [0, 31, 40, 66] {
        let weights = problem.weights.as_ref().subrows(row, 1);
        let alone = solve(weights, &prepared, configuration.as_ref(), &options).unwrap();
        assert_eq!(alone.codes, whole.codes[row * 96..(row + 1) * 96]);
        assert_eq!(alone.scales, whole.scales[row * 3..(row + 1) * 3]);
    }
}

#[test]
fn matrices_that_share_their_factors_may_be_solved_in_parallel() {
    let problem = problem::<f32>(3, 64, 96, &[]);
    let options = options(2, 32);
    let prepared = prepare(problem.hessian.as_ref(), Some(problem.drift.as_ref()), &options).unwrap();
    let all: Vec<_> = (0..4).flat_map(|_| configurations(2)).collect();
    let run = |configuration: &Option<SweepConfiguration>| {
        solve(problem.weights.as_ref(), &prepared, configuration.as_ref(), &options).unwrap()
    };
    let parallel: Vec<_> = all.par_iter().map(run).collect();
    assert!(all.iter().map(run).eq(parallel));
}

#[test]
fn dead_columns_are_as_if_removed() {
    let dead = [0, 5, 11];
    let with = problem::<f64>(4, 6, 24, &dead);
    let live: Vec<usize> = (0..24).filter(|column| !dead.contains(column)).collect();
    let live_square = |matrix: &Mat<f64>| Mat::from_fn(21, 21, |i, j| matrix[(live[i], live[j])]);
    let without = Problem {
        weights: Mat::from_fn(6, 21, |i, j| with.weights[(i, live[j])]),
        hessian: live_square(&with.hessian),
        drift: live_square(&with.drift),
    };
    for activation_order in [true, false] {
        let options = SolverOptions { activation_order, ..SolverOptions::new(3, GroupSize::Row) };
        let prepared = prepare(with.hessian.as_ref(), None, &options).unwrap();
        assert_eq!(prepared.dead_columns(), dead);
        for configuration in configurations(3).into_iter().flatten() {
            let (whole, reduced) =
                (with.solve(Some(configuration), &options), without.solve(Some(configuration), &options));
            assert_eq!(whole.scales, reduced.scales);
            for row in 0..6 {
                let codes = |column: &usize| whole.codes[row * 24 + column];
                assert!(dead.iter().all(|column| codes(column) == 0));
                assert!(live.iter().map(codes).eq(reduced.codes[row * 21..(row + 1) * 21].iter().copied()));
            }
        }
    }
}

#[test]
fn damping_grows_until_the_hessian_is_positive_definite() {
    let options = options(3, 4);
    let damping = |hessian: &Mat<f64>, damping| {
        prepare(hessian.as_ref(), None, &SolverOptions { damping, ..options })
            .map(|prepared| prepared.damping())
    };
    let mut indefinite = Mat::<f64>::identity(8, 8);
    // Eigenvalues 1 - 1.05 and 1 + 1.05.
    (indefinite[(2, 6)], indefinite[(6, 2)]) = (1.05, 1.05);
    assert_eq!(damping(&indefinite, 0.01), Ok(0.1));
    assert_eq!(damping(&indefinite, 0.0), Ok(0.1));
    assert_eq!(damping(&indefinite, 0.06), Ok(0.06));
    assert_eq!(damping(&Mat::identity(8, 8), 0.0), Ok(0.0));
    // All inputs the same: singular.
    let used = damping(&Mat::full(8, 8, 1.0), 0.0).unwrap();
    assert!(used > 0.0 && used <= 1e-5, "{used}");
    (indefinite[(2, 6)], indefinite[(6, 2)]) = (200.0, 200.0);
    assert_eq!(damping(&indefinite, 0.01), Err(MethodError::NotPositiveDefinite { damping: 10.0 }));

    // The start's ridge grows by itself.
    let (weights, drift) = (Mat::full(2, 8, 0.5), Mat::full(8, 8, 0.1));
    (indefinite[(2, 6)], indefinite[(6, 2)]) = (1.05, 1.05);
    let prepared = prepare(indefinite.as_ref(), Some(drift.as_ref()), &options).unwrap();
    let configuration = SweepConfiguration {
        start: Start::Exact { strength: 1.0, ridge: 0.001 },
        ..Method::RescompExact.configuration(3).unwrap()
    };
    let solution = solve(weights.as_ref(), &prepared, Some(&configuration), &options).unwrap();
    assert_eq!(solution.ridge.map(|ridge| (ridge * 1e6).round()), Some(1e5));
}

#[test]
fn the_last_group_may_be_short() {
    let problem = problem::<f64>(5, 3, 10, &[]);
    for static_groups in [true, false] {
        let options = SolverOptions { static_groups, activation_order: static_groups, ..options(4, 4) };
        for configuration in configurations(4) {
            let solution = problem.solve(configuration, &options);
            assert_eq!((solution.group_elems, solution.groups_per_row(), solution.scales.len()), (4, 3, 9));
            let values = solution.values();
            for row in 0..3 {
                for column in 0..10 {
                    let scale = solution.scales[row * 3 + column / 4];
                    assert_eq!(
                        values[row * 10 + column],
                        scale * f64::from(solution.codes[row * 10 + column])
                    );
                }
            }
        }
    }
    let solution = round_to_nearest(problem.weights.as_ref(), &options(4, 4)).unwrap();
    let last = problem.weights.as_ref().subcols(8, 2).to_owned();
    let alone = round_to_nearest(last.as_ref(), &options(4, 4)).unwrap();
    assert_eq!(alone.group_elems, 2);
    assert!((0..3).all(|row| solution.scales[row * 3 + 2] == alone.scales[row]));
}

#[test]
fn the_sweep_sees_the_scales_of_the_device() {
    let problem = problem::<f32>(6, 5, 48, &[]);
    for bits in BITS {
        let full = SolverOptions { scale_format: ScaleFormat::Full, ..options(bits, 16) };
        for configuration in configurations(bits) {
            let solution = problem.solve(configuration, &options(bits, 16));
            assert!(solution.scales.iter().all(|s| *s > 0.0 && half::f16::from_f32(*s).to_f32() == *s));
            assert_ne!(solution.scales, problem.solve(configuration, &full).scales);
        }
        // Every code is nearest for the rounded scale, not for the one before rounding.
        let solution = round_to_nearest(problem.weights.as_ref(), &options(bits, 16)).unwrap();
        for (at, code) in solution.codes.iter().enumerate() {
            let (row, column) = (at / 48, at % 48);
            let scale = solution.scales[row * 3 + column / 16];
            assert_eq!(*code, solution.grid.level(problem.weights[(row, column)], scale));
        }
    }
    // Weights too small and too large for binary16 scales.
    for (magnitude, expected) in [(1e-9, 2.0_f32.powi(-14)), (1e9, 65504.0)] {
        let weights = Mat::full(1, 48, magnitude);
        let prepared = prepare(problem.hessian.as_ref(), None, &options(4, 16)).unwrap();
        let configuration = Method::Gptq.configuration(4);
        let solution = solve(weights.as_ref(), &prepared, configuration.as_ref(), &options(4, 16)).unwrap();
        assert_eq!(solution.scales, [expected; 3]);
    }
}

#[test]
fn every_method_gives_what_a_container_can_store() {
    let problem = problem::<f64>(8, 16, 72, &[5, 40]);
    for (bits, group) in BITS.into_iter().flat_map(|bits| ["32", "64", "row"].map(|group| (bits, group))) {
        let format = MatrixFormat::plain(bits, group.parse().unwrap());
        let options = SolverOptions::for_container(bits, format.group);
        let prepared = prepare(problem.hessian.as_ref(), Some(problem.drift.as_ref()), &options).unwrap();
        for configuration in configurations(bits).into_iter().flatten() {
            let weights = problem.weights.as_ref();
            let mut solution = solve(weights, &prepared, Some(&configuration), &options).unwrap();
            encode(&solution, format, Layout::Nr8k4).unwrap();
            let dead_levels = |solution: &Solution<f64>| -> Vec<i8> {
                (0..16).flat_map(|row| [5, 40].map(|dead| solution.codes[row * 72 + dead])).collect()
            };
            // Dead inputs: 0, or the nearest to the original weight where the grid has no 0.
            let expected = |row: usize, dead: usize| {
                let scale = solution.scales[row * solution.groups_per_row() + dead / solution.group_elems];
                if bits == 8 { 0 } else { solution.grid.level(problem.weights[(row, dead)], scale) }
            };
            let dead: Vec<i8> = (0..16).flat_map(|row| [5, 40].map(|dead| expected(row, dead))).collect();
            assert_eq!(dead_levels(&solution), dead);

            let target = prepared.target(weights, configuration.start).unwrap();
            let stored = if group == "row" && bits < 8 { ScaleFormat::Row } else { options.scale_format };
            refine(&mut solution, target.as_ref(), &prepared, stored, RefineLimits::sweeps(3)).unwrap();
            encode(&solution, format, Layout::Nr8k4).unwrap();
            let levels = solution.grid.levels();
            assert!(solution.codes.iter().all(|code| levels.contains(code)));
        }
    }
}

#[test]
fn each_number_of_bits_loses_less_than_the_one_before() {
    let problem = problem::<f64>(9, 32, 128, &[]);
    for group in ["32", "row"] {
        for method in Method::ALL {
            let losses = BITS.map(|bits| {
                let options = SolverOptions::for_container(bits, group.parse().unwrap());
                let prepared = prepare(problem.hessian.as_ref(), None, &options).unwrap();
                let weights = problem.weights.as_ref();
                let configuration = method.configuration(bits);
                let solution = solve(weights, &prepared, configuration.as_ref(), &options).unwrap();
                solution.loss(weights, problem.hessian.as_ref(), None).unwrap()
            });
            assert!(
                losses.windows(2).all(|pair| pair[1] < 0.4 * pair[0]),
                "{method}, groups of {group}: {losses:?}"
            );
        }
    }
}

#[test]
fn eight_bits_never_use_the_code_that_kernels_exclude() {
    let problem = problem::<f64>(7, 16, 64, &[]);
    for group in [1, 2, 64] {
        for configuration in configurations(8) {
            let solution = problem.solve(configuration, &options(8, group));
            assert!(solution.codes.iter().all(|code| *code >= -127));
            assert!(solution.codes.iter().any(|code| code.unsigned_abs() > 100));
        }
    }
}

#[test]
fn compensation_pays_and_the_exact_solution_pays_most() {
    let problem = problem::<f64>(8, 64, 96, &[]);
    for bits in [2, 3, 4] {
        let mut options = options(bits, 32);
        options.damping = 0.001;
        let loss = |method: Method| problem.loss(&problem.solve(method.configuration(bits), &options));
        let (rtn, gptq, gptaq) = (loss(Method::Rtn), loss(Method::Gptq), loss(Method::Gptaq));
        let exact = Start::Exact { strength: 1.0, ridge: options.damping };
        let exact = Method::Gptq.configuration(bits).unwrap().with_start(exact);
        let exact = problem.loss(&problem.solve(Some(exact), &options));
        assert!(exact < gptaq && gptaq < gptq && gptq < rtn, "{bits} bits: {exact} {gptaq} {gptq} {rtn}");
    }
}

#[test]
fn the_loss_is_that_of_the_outputs() {
    // Two tokens that are known: W0 Xf - Q X, less the part that does not depend on Q.
    let inputs = Mat::from_fn(3, 2, |i, t| (i + 2 * t) as f64 - 1.5);
    let full = Mat::from_fn(3, 2, |i, t| (i * t) as f64 + 0.25);
    let weights = Mat::from_fn(2, 3, |i, j| 0.3 * i as f64 - 0.7 * j as f64 + 0.1);
    let hessian = &inputs * inputs.transpose();
    let drift = (&full - &inputs) * inputs.transpose();
    let solution = round_to_nearest(weights.as_ref(), &options(2, 3)).unwrap();
    let values = solution.values();
    let values = MatRef::from_row_major_slice(&values, 2, 3);
    let square = |matrix: Mat<f64>| matrix.squared_norm_l2();
    let expected = square(&weights * &full - values * &inputs) - square(&weights * (&full - &inputs));
    let found = solution.loss(weights.as_ref(), hessian.as_ref(), Some(drift.as_ref())).unwrap();
    assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    let symmetric = solution.loss(weights.as_ref(), hessian.as_ref(), None).unwrap();
    assert!((symmetric - square((&weights - values) * &inputs)).abs() < 1e-12);
}

#[test]
fn bad_matrices_are_refused_by_name() {
    let good = problem::<f32>(9, 3, 8, &[]);
    let options = options(3, 4);
    let prepared = prepare(good.hessian.as_ref(), None, &options).unwrap();
    let (h, d) = (good.hessian.as_ref(), good.drift.as_ref());
    let shape = |matrix, expected, found| Some(MethodError::Shape { matrix, expected, found });
    assert_eq!(prepare(h.subcols(0, 7), None, &options).err(), shape("hessian", (8, 8), (8, 7)));
    assert_eq!(prepare(h, Some(d.subrows(0, 5)), &options).err(), shape("drift", (8, 8), (5, 8)));
    assert_eq!(prepare(h.submatrix(0, 0, 0, 0), None, &options).err(), shape("hessian", (1, 1), (0, 0)));
    for configuration in [None, Method::Gptq.configuration(3)] {
        let weights = good.weights.as_ref().subcols(0, 6);
        let refused = solve(weights, &prepared, configuration.as_ref(), &options).err();
        assert_eq!(refused, shape("weights", (3, 8), (3, 6)));
    }

    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let spoiled = |matrix: &Mat<f32>| {
            let mut matrix = matrix.clone();
            matrix[(2, 5)] = value;
            matrix
        };
        let named = |error: Option<MethodError>, expected: &str| match error {
            Some(MethodError::NotFinite { matrix, row: 2, column: 5, .. }) => assert_eq!(matrix, expected),
            other => panic!("{other:?}"),
        };
        named(prepare(spoiled(&good.hessian).as_ref(), None, &options).err(), "hessian");
        named(prepare(h, Some(spoiled(&good.drift).as_ref()), &options).err(), "drift");
        let weights = spoiled(&good.weights);
        for configuration in [None, Method::Rescomp.configuration(3)] {
            named(solve(weights.as_ref(), &prepared, configuration.as_ref(), &options).err(), "weights");
        }
        named(round_to_nearest(weights.as_ref(), &options).err(), "weights");
    }

    assert_eq!(
        prepare(Mat::<f32>::zeros(8, 8).as_ref(), None, &options).err(),
        Some(MethodError::HessianZero(8))
    );
    let mut bad = good.hessian.clone();
    bad[(4, 4)] = -1.0;
    let refused = prepare(bad.as_ref(), None, &options).err();
    assert_eq!(refused, Some(MethodError::HessianNegative { index: 4, value: -1.0 }));
    let mut bad = good.hessian.clone();
    bad[(1, 4)] += 1.0;
    let refused = prepare(bad.as_ref(), None, &options).err();
    assert!(
        matches!(refused, Some(MethodError::HessianNotSymmetric { row: 4, column: 1, .. })),
        "{refused:?}"
    );
}

#[test]
fn bad_options_are_refused_by_name() {
    let good = problem::<f32>(10, 3, 8, &[]);
    let base = options(3, 4);
    let prepared = prepare(good.hessian.as_ref(), Some(good.drift.as_ref()), &base).unwrap();
    let gptq = Method::Gptq.configuration(3).unwrap();
    let refused = |configuration: SweepConfiguration, options: SolverOptions| {
        solve(good.weights.as_ref(), &prepared, Some(&configuration), &options).err()
    };
    assert_eq!(GroupSize::elements(0), Err(MethodError::GroupOfZero));
    for bits in [0, 1, 7, 9, 16] {
        assert!(matches!(refused(gptq, options(bits, 4)), Some(MethodError::Bits(e)) if e.found == bits));
    }
    let dynamic = SolverOptions { static_groups: false, ..base };
    let coded = SolverOptions { scale_format: ScaleFormat::Coded, activation_order: false, ..dynamic };
    assert_eq!(coded.check(32).err(), Some(MethodError::DynamicGroupsWithCodedScales));
    let named = Some(MethodError::DynamicGroupsWithActivationOrder);
    assert_eq!(refused(gptq, dynamic), named);
    assert_eq!(prepare(good.hessian.as_ref(), None, &dynamic).err(), named);
    // With one group a row there is nothing to mix up.
    for group in [GroupSize::Row, GroupSize::elements(8).unwrap(), GroupSize::elements(64).unwrap()] {
        assert_eq!(refused(gptq, SolverOptions { group, ..dynamic }), None);
    }
    for bad in [-0.1, f64::NAN, f64::INFINITY] {
        let is_option = |error| assert!(matches!(error, Some(MethodError::Option { .. })), "{error:?}");
        is_option(prepare(good.hessian.as_ref(), None, &SolverOptions { damping: bad, ..base }).err());
        is_option(refused(SweepConfiguration { alpha1: bad, ..gptq }, base));
        is_option(refused(SweepConfiguration { alpha2: bad, ..gptq }, base));
        is_option(refused(gptq.with_start(Start::Exact { strength: bad, ridge: 1.0 }), base));
        is_option(refused(gptq.with_start(Start::Exact { strength: 1.0, ridge: bad }), base));
        is_option(refused(gptq.with_start(Start::Anchored { strength: bad }), base));
    }
    for other in [SolverOptions { damping: 0.02, ..base }, SolverOptions { activation_order: false, ..base }]
    {
        assert!(matches!(refused(gptq, other), Some(MethodError::PreparedOtherwise { .. })));
    }
    let diverging = SweepConfiguration { alpha1: 1e38, ..gptq };
    assert!(matches!(refused(diverging, base), Some(MethodError::Diverged { .. })));
}

#[test]
fn names_are_read_back() {
    for method in Method::ALL {
        assert_eq!(method.name().parse(), Ok(method));
        assert_eq!(method.to_string(), method.name());
    }
    for variant in LazyVariant::ALL {
        assert_eq!(variant.to_string().parse(), Ok(variant));
    }
    let groups = [GroupSize::Row, GroupSize::elements(64).unwrap()];
    assert!(groups.iter().all(|group| group.to_string().parse() == Ok(*group)));
    assert_eq!("0".parse::<GroupSize>(), Err(MethodError::GroupOfZero));
    let error = "awq".parse::<Method>().unwrap_err().to_string();
    assert_eq!(error, "unknown method `awq`: expected one of rtn, gptq, gptaq, rescomp, rescomp-exact");
    let published = |bits| Method::Rescomp.configuration(bits).unwrap().variant;
    assert_eq!(
        BITS.map(published).map(LazyVariant::name),
        ["original", "all-weights", "all-weights", "all-weights", "all-weights", "all-weights"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_gives_codes_of_the_grid(
        seed: u64, m in 0..40_usize, n in 1..40_usize, group in 1..50_usize, block in 1..50_usize,
        bits in proptest::sample::select(&BITS), activation_order: bool,
    ) {
        let problem = problem::<f32>(seed, m, n, &[]);
        let options = SolverOptions { block: block.try_into().unwrap(), activation_order, ..options(bits, group) };
        for configuration in configurations(bits) {
            let solution = problem.solve(configuration, &options);
            prop_assert_eq!(solution.codes.len(), m * n);
            prop_assert_eq!(solution.scales.len(), m * n.div_ceil(group.min(n)));
            let range = solution.grid.lowest()..=solution.grid.highest();
            prop_assert!(solution.codes.iter().all(|code| range.contains(code)));
            prop_assert!(solution.scales.iter().all(|scale| scale.is_finite() && *scale > 0.0));
        }
    }
}
