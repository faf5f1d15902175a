//! Inputs that are dead, massive or large: the solvers give finite results that are no worse than they should be.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use faer::{Mat, MatRef};
use proptest::prelude::*;
use rescomp_quantizer::choose::{self, Choice, Selection, Tuning};
use rescomp_quantizer::methods::rtn::round_to_nearest;
use rescomp_quantizer::methods::{GroupSize, Method, Solution, SolverOptions, prepare};
use rescomp_quantizer::moments::Moments;

/// A set's input in both streams and a matrix that reads it.
#[derive(Debug)]
struct Case {
    weights: Mat<f64>,
    /// Tokens in columns, n x tokens.
    quantized: Mat<f64>,
    full: Mat<f64>,
    training: Moments,
    held_out: Moments,
    all: Moments,
}

/// `tokens` tokens of n correlated inputs, input i being `sizes[i]` times as large as it would be.
fn case(seed: u64, m: usize, sizes: &[f32], tokens: usize) -> Case {
    let n = sizes.len();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let weights: Vec<f64> = (0..m * n).map(|_| f64::from(random())).collect();
    let weights = Mat::from_fn(m, n, |i, j| weights[i * n + j]);
    let (mut quantized, mut full) = (Vec::new(), Vec::new());
    for _ in 0..tokens {
        let common = random();
        for size in sizes {
            let value = random() + 0.5 * common;
            quantized.push(size * value);
            full.push(size * (value + 0.1 * common + 0.02 * random()));
        }
    }
    let part = tokens / 8 * 7;
    let moments = |range: std::ops::Range<usize>| {
        Moments::new(&quantized[range.start * n..range.end * n], &full[range.start * n..range.end * n], n)
    };
    let columns = |stream: &[f32]| Mat::from_fn(n, tokens, |i, t| f64::from(stream[t * n + i]));
    Case {
        weights,
        quantized: columns(&quantized),
        full: columns(&full),
        training: moments(0..part),
        held_out: moments(part..tokens),
        all: moments(0..tokens),
    }
}

/// Solves as calibration does: what is to be chosen is chosen on the held-out tokens.
fn solve(case: &Case, method: Method, options: &SolverOptions) -> Solution<f64> {
    let Some(configuration) = method.configuration(options.bits) else {
        return round_to_nearest(case.weights.as_ref(), options).unwrap();
    };
    let prepared =
        |moments: &Moments| prepare(moments.hessian.as_ref(), Some(moments.drift.as_ref()), options).unwrap();
    let tuning = if method == Method::RescompExact { Tuning::AUTO } else { Tuning::PLAIN };
    let choice: Choice = match tuning.chooses(&configuration) {
        false => tuning.without_held_out(configuration),
        true => {
            let training = prepared(&case.training);
            let mut selection =
                Selection::new(case.weights.as_ref(), &training, &case.held_out, options).unwrap();
            for candidate in tuning.candidates(configuration) {
                selection.consider(candidate).unwrap();
            }
            selection.finish(tuning.refine, 0).unwrap().unwrap()
        }
    };
    choose::solve(case.weights.as_ref(), &prepared(&case.all), &choice, options).unwrap().solution
}

/// `||W0 Xf - Q X||^2 / ||W0 Xf||^2`, or without drift, from the tokens themselves.
fn relative_error(case: &Case, solution: &Solution<f64>, drift: bool) -> f64 {
    let values = solution.values();
    let values = MatRef::from_row_major_slice(&values, solution.rows, solution.columns);
    let wanted = &case.weights * if drift { &case.full } else { &case.quantized };
    (&wanted - values * &case.quantized).squared_norm_l2() / wanted.squared_norm_l2()
}

fn sound(solution: &Solution<f64>) {
    let levels = solution.grid.levels();
    assert!(solution.codes.iter().all(|level| levels.contains(level)));
    assert!(solution.scales.iter().all(|scale| scale.is_finite() && *scale > 0.0));
    assert!(solution.values().iter().all(|value| value.is_finite()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One input 10,000 times the others, some never active, all of a size up to a million.
    #[test]
    fn dead_massive_and_large_inputs_give_good_finite_results(
        seed in any::<u64>(),
        n in 8_usize..40,
        massive in proptest::option::of(0_usize..40),
        dead in proptest::collection::vec(0_usize..40, 0..6),
        size in prop_oneof![Just(1.0_f32), Just(1e-4), Just(1e6)],
        bits in prop_oneof![Just(2_u8), Just(3), Just(4), Just(5), Just(6), Just(8)],
        as_in_containers in any::<bool>(),
    ) {
        let mut sizes = vec![size; n];
        if let Some(massive) = massive {
            // Activations of a million at most.
            sizes.iter_mut().for_each(|size| *size = size.min(100.0));
            sizes[massive % n] *= 1e4;
        }
        dead.iter().for_each(|dead| sizes[dead % n] = 0.0);
        prop_assume!(sizes.iter().any(|size| *size > 0.0));
        let case = case(seed, 16, &sizes, 400);
        let group = GroupSize::elements(16).unwrap();
        let options = match as_in_containers {
            true => SolverOptions::for_container(bits, group),
            false => SolverOptions::new(bits, group),
        };
        let rounded = solve(&case, Method::Rtn, &options);
        for method in [Method::Gptq, Method::Gptaq, Method::Rescomp, Method::RescompExact] {
            let solution = solve(&case, method, &options);
            sound(&solution);
            for (column, size) in sizes.iter().enumerate() {
                let mut codes = solution.codes.iter().skip(column).step_by(n);
                // Where a grid has no 0, a dead input keeps a weight near its own.
                let zero = codes.all(|code| *code == 0) || !solution.grid.has_zero();
                prop_assert!(*size > 0.0 || zero, "{method}: dead column {column}");
            }
            let drift = method != Method::Gptq;
            let error = relative_error(&case, &solution, drift);
            let nearest = relative_error(&case, &rounded, drift);
            // Rounding few weights may be lucky, above all where one input outweighs the others: what uniform rounding of
            // uniform weights costs on average is allowed beside it.
            let luck = 0.25 / f64::from((1 << (bits - 1)) - 1).powi(2);
            prop_assert!(error <= 1.5 * nearest + luck, "{method}, {bits} bits: {error}, rounded {nearest}");
        }
    }
}
