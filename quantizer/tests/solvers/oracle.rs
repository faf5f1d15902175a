//! The solvers against the vectors of the float64 numpy oracle (see `../oracle/make_vectors.py`).
//!
//! 2, 3 and 4 bits; the grid of 8 bits is narrower here than the oracle's, on purpose.
// Helpers of tests are no tests to clippy: here, too, an unexpected error has to stop the test.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use faer::{Mat, MatRef};
use rescomp_quantizer::grids::{Real, ScaleFormat};
use rescomp_quantizer::methods::rtn::round_to_nearest;
use rescomp_quantizer::methods::{
    ClipSearch, GroupSize, LazyVariant, Method, RefineLimits, Solution, SolverOptions, Start,
    SweepConfiguration, asymmetric_loss, prepare, refine, solve,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    unit: f64,
    problems: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    m: usize,
    n: usize,
    weights: Vec<i64>,
    hessian: Vec<i64>,
    drift: Vec<i64>,
    cases: Vec<Case>,
    refinements: Vec<Refinement>,
}

/// From the exact start with strength 1 and ridge 1, at the default options with full scales.
#[derive(Deserialize)]
struct Refinement {
    bits: u8,
    group: usize,
    sweeps: usize,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    bits: u8,
    group: usize,
    block: usize,
    activation_order: bool,
    static_groups: bool,
    damping: f64,
    clip_search: bool,
    #[serde(flatten)]
    sweep: Option<SweepCase>,
    codes: String,
    scales: Vec<f64>,
}

#[derive(Deserialize)]
struct SweepCase {
    alpha1: f64,
    alpha2: f64,
    variant: String,
    start: String,
    strength: f64,
    ridge: f64,
}

struct Matrices<T> {
    weights: Mat<T>,
    hessian: Mat<T>,
    drift: Mat<T>,
}

impl Problem {
    fn matrices<T: Real>(&self, unit: f64) -> Matrices<T> {
        let (m, n) = (self.m, self.n);
        assert_eq!(
            (self.weights.len(), self.hessian.len(), self.drift.len()),
            (m * n, n * (n + 1) / 2, n * n)
        );
        let value = |integer: i64| T::from_f64(integer as f64 / unit);
        Matrices {
            weights: Mat::from_fn(m, n, |i, j| value(self.weights[i * n + j])),
            hessian: Mat::from_fn(n, n, |i, j| {
                let (row, column) = (i.max(j), i.min(j));
                value(self.hessian[row * (row + 1) / 2 + column])
            }),
            drift: Mat::from_fn(n, n, |i, j| value(self.drift[i * n + j])),
        }
    }
}

impl Case {
    fn options(&self) -> SolverOptions {
        let group = if self.group == 0 { GroupSize::Row } else { GroupSize::elements(self.group).unwrap() };
        SolverOptions {
            damping: self.damping,
            activation_order: self.activation_order,
            static_groups: self.static_groups,
            clip: if self.clip_search { ClipSearch::Plain } else { ClipSearch::Off },
            block: NonZeroUsize::new(self.block).unwrap(),
            scale_format: ScaleFormat::Full,
            ..SolverOptions::new(self.bits, group)
        }
    }

    fn configuration(&self) -> Option<SweepConfiguration> {
        let sweep = self.sweep.as_ref()?;
        let start = match sweep.start.as_str() {
            "unchanged" => Start::Unchanged,
            "exact" => Start::Exact { strength: sweep.strength, ridge: sweep.ridge },
            "anchored" => Start::Anchored { strength: sweep.strength },
            other => panic!("unknown start {other} in the vectors"),
        };
        let variant: LazyVariant = sweep.variant.parse().unwrap();
        Some(SweepConfiguration { alpha1: sweep.alpha1, alpha2: sweep.alpha2, variant, start })
    }

    fn run<T: Real>(&self, matrices: &Matrices<T>) -> Solution<T> {
        let options = self.options();
        let prepared = prepare(matrices.hessian.as_ref(), Some(matrices.drift.as_ref()), &options).unwrap();
        assert_eq!(prepared.damping(), self.damping);
        let configuration = self.configuration();
        let solution = solve(matrices.weights.as_ref(), &prepared, configuration.as_ref(), &options).unwrap();
        if configuration.is_none() {
            assert_eq!(solution, round_to_nearest(matrices.weights.as_ref(), &options).unwrap());
        }
        solution
    }

    fn expected_codes(&self) -> Vec<i8> {
        self.codes.chars().map(|digit| digit.to_digit(16).unwrap() as i8 - 8).collect()
    }

    fn describe(&self, problem: &Problem) -> String {
        let variant = self.sweep.as_ref().map_or("", |sweep| &sweep.variant);
        let Self { name, bits, group, block, activation_order, static_groups, clip_search, .. } = self;
        format!(
            "{}x{} {name} {variant}: {bits} bits, group {group}, block {block}, order {activation_order}, \
             static {static_groups}, clip {clip_search}",
            problem.m, problem.n
        )
    }
}

fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/vectors.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn f64_agrees_with_the_oracle_code_by_code() {
    let vectors = vectors();
    let mut cases = 0;
    for problem in &vectors.problems {
        let matrices = problem.matrices::<f64>(vectors.unit);
        for case in &problem.cases {
            let solution = case.run(&matrices);
            let what = case.describe(problem);
            assert_eq!(solution.codes, case.expected_codes(), "codes of {what}");
            assert_eq!(solution.scales.len(), case.scales.len(), "{what}");
            let expected = Solution { scales: case.scales.clone(), ..solution.clone() };
            for (value, expected) in solution.values().iter().zip(expected.values()) {
                assert!((value - expected).abs() <= 1e-9, "{value} instead of {expected} in {what}");
            }
            cases += 1;
        }
    }
    assert!(cases > 200, "only {cases} cases");
}

#[test]
fn refinement_agrees_with_the_oracle() {
    let vectors = vectors();
    let mut changed = 0;
    for problem in &vectors.problems {
        let Matrices { weights, hessian, drift } = problem.matrices::<f64>(vectors.unit);
        for case in &problem.refinements {
            let group = GroupSize::elements(case.group).unwrap();
            let options =
                SolverOptions { scale_format: ScaleFormat::Full, ..SolverOptions::new(case.bits, group) };
            let prepared = prepare(hessian.as_ref(), Some(drift.as_ref()), &options).unwrap();
            let configuration = Method::RescompExact.configuration(case.bits).unwrap();
            let swept = solve(weights.as_ref(), &prepared, Some(&configuration), &options).unwrap();
            let target = prepared.target(weights.as_ref(), configuration.start).unwrap();
            let limits = RefineLimits { sweeps: case.sweeps, least_gain: 0.0 };
            let mut refined = swept.clone();
            refine(&mut refined, target.as_ref(), &prepared, options.scale_format, limits).unwrap();
            // A code that differed would show as a whole scale; what is left is the two ridges of the systems of scales.
            for (at, (value, expected)) in refined.values().iter().zip(&case.values).enumerate() {
                let bound = 1e-6 * expected.abs().max(1e-3);
                assert!(
                    (value - expected).abs() <= bound,
                    "{value} instead of {expected} at {at}, {} bits",
                    case.bits
                );
            }
            changed += refined.codes.iter().zip(&swept.codes).filter(|(a, b)| a != b).count();
        }
    }
    assert!(changed > 30, "only {changed} codes changed");
}

#[test]
fn f32_loses_nothing_that_matters() {
    let vectors = vectors();
    for problem in &vectors.problems {
        let exact = problem.matrices::<f64>(vectors.unit);
        let single = problem.matrices::<f32>(vectors.unit);
        let (hessian, drift) = (exact.hessian.as_ref(), Some(exact.drift.as_ref()));
        for case in &problem.cases {
            let values: Vec<f64> = case.run(&single).values().iter().map(|value| f64::from(*value)).collect();
            let values = MatRef::from_row_major_slice(&values, problem.m, problem.n);
            let found = asymmetric_loss(exact.weights.as_ref(), values, hessian, None).unwrap();
            let reference = case.run(&exact);
            let expected = reference.loss(exact.weights.as_ref(), hessian, None).unwrap();
            let what = case.describe(problem);
            assert!((found / expected - 1.0).abs() < 1e-4, "{found} instead of {expected} for {what}");
            // With drift the loss is a difference of large numbers: compare on the scale of the symmetric loss.
            let drifted = asymmetric_loss(exact.weights.as_ref(), values, hessian, drift).unwrap();
            let drifted_reference = reference.loss(exact.weights.as_ref(), hessian, drift).unwrap();
            assert!((drifted - drifted_reference).abs() < 1e-4 * expected, "{what}");
        }
    }
}
