//! What cannot be solved is rounded to nearest, with a warning that names it; broken activations are an error.

use super::*;
use crate::choose::Setting;
use crate::methods::{ClipSearch, GroupSize, SolverOptions, SweepConfiguration};
use faer::Mat;
use std::path::Path;

const N: usize = 16;

fn noise(i: usize) -> f32 {
    ((i * 2_654_435_761) % 100_003) as f32 / 50_001.5 - 1.0
}

fn plan(method: Method) -> BlockPlan {
    BlockPlan::new(method, SolverOptions::new(3, GroupSize::elements(8).unwrap()))
}

fn weights() -> Mat<f32> {
    Mat::from_fn(4, N, |i, j| noise(1000 + i * N + j))
}

/// Quantizes a matrix whose input is `size` times noise, in 8 windows of 32 tokens.
fn quantized(plan: &BlockPlan, size: impl Fn(usize) -> f32) -> (Solved, MatrixReport) {
    quantized_with(plan, plan.solver(5, SectionKind::Down), size)
}

fn quantized_with(plan: &BlockPlan, solver: Solver, size: impl Fn(usize) -> f32) -> (Solved, MatrixReport) {
    let input: Vec<f32> = (0..256 * N).map(|i| size(i) * noise(i)).collect();
    let full: Vec<f32> = (0..256 * N).map(|i| size(i) * (noise(i) + 0.1 * noise(i + 7))).collect();
    let calibration = Calibration::new(plan, &input, &full, N, 8).unwrap();
    let weights = weights();
    let choices = calibration.choose([(weights.as_ref(), &solver)].into_iter(), plan).unwrap();
    let solved = calibration.solve(weights.as_ref(), &choices[0], &solver).unwrap();
    let report = calibration.report(5, SectionKind::Down, weights.as_ref(), &solved, plan).unwrap();
    (solved, report)
}

#[track_caller]
fn assert_rounded(plan: &BlockPlan, size: impl Fn(usize) -> f32, cause: &str) -> MatrixReport {
    assert_was_rounded(plan, quantized(plan, size), cause)
}

#[track_caller]
fn assert_was_rounded(
    plan: &BlockPlan,
    (solved, report): (Solved, MatrixReport),
    cause: &str,
) -> MatrixReport {
    // Whatever clip search the method has: rounding has the plain one.
    let options = SolverOptions { clip: ClipSearch::Plain, ..plan.options };
    assert_eq!(
        solved.solution,
        methods::rtn::round_to_nearest(weights().as_ref(), &options).unwrap().widened()
    );
    let expected = format!("layer 5 down: rounded to nearest, because {cause}");
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.starts_with(&expected), "{warning}");
    assert!(report.rounded_because.as_ref().is_some_and(|why| why.starts_with(cause)));
    assert_eq!((report.strength, report.ridge, report.held_out, report.refine_sweeps), (None, None, None, 0));
    report
}

#[test]
fn an_input_that_is_always_zero() {
    for method in [Method::Gptq, Method::Rescomp, Method::RescompExact] {
        let report = assert_rounded(&plan(method), |_| 0.0, "every diagonal entry of the 16x16 Hessian is 0");
        assert_eq!((report.relative_error, report.relative_asymmetric_error), (0.0, 0.0));
    }
    // Round to nearest was asked for: nothing to warn of.
    let (_, report) = quantized(&plan(Method::Rtn), |_| 0.0);
    assert_eq!((report.rounded_because, report.warnings), (None, vec![]));
}

#[test]
fn moments_beyond_the_range_of_numbers() {
    for method in [Method::Gptaq, Method::RescompExact] {
        let report =
            assert_rounded(&plan(method), |_| 1e25, "the hessian matrix holds inf at row 0, column 0");
        assert!(report.relative_error.is_nan());
        assert_eq!(serde_json::to_value(&report).unwrap()["relative_error"], serde_json::Value::Null);
    }
}

#[test]
fn a_sweep_that_diverges() {
    let mut plan = plan(Method::Rescomp);
    let mut diverging = plan.solver(5, SectionKind::Down);
    diverging.configuration = diverging.configuration.map(|c| SweepConfiguration { alpha1: 1e300, ..c });
    let cause = "the compensated weight at row";
    assert_was_rounded(&plan, quantized_with(&plan, diverging, |_| 1.0), cause);
    // Also where something is to be chosen, and no candidate has a solution.
    plan.tuning.refine = Setting::Auto;
    assert_was_rounded(&plan, quantized_with(&plan, diverging, |_| 1.0), cause);
}

#[test]
fn a_candidate_that_diverges_is_passed_over() {
    let plan = plan(Method::RescompExact);
    let moments = |salt: usize| {
        let input: Vec<f32> = (0..200 * N).map(|i| noise(i + salt)).collect();
        let full: Vec<f32> = (0..200 * N).map(|i| noise(i + salt) + 0.1 * noise(i + salt + 7)).collect();
        Moments::new(&input, &full, N)
    };
    let (training, held_out) = (moments(0), moments(9999));
    let [hessian, drift] = training.matrices();
    let prepared = methods::prepare(hessian.as_ref(), Some(drift.as_ref()), &plan.options).unwrap();
    let good = Method::RescompExact.configuration(3).unwrap();
    let diverging = SweepConfiguration { alpha1: 1e300, ..good };
    let weights = weights();
    let choice = |candidates: &[SweepConfiguration]| {
        let mut selection = Selection::new(weights.as_ref(), &prepared, &held_out, &plan.options).unwrap();
        candidates.iter().for_each(|candidate| selection.consider(*candidate).unwrap());
        selection.finish(Setting::Auto, 0).unwrap()
    };
    assert_eq!(choice(&[diverging]), None);
    assert_eq!(choice(&[diverging, good]), choice(&[good]));
    // A method that is at fault otherwise is an error.
    let mut selection = Selection::new(weights.as_ref(), &prepared, &held_out, &plan.options).unwrap();
    let wrong = good.with_start(Start::Exact { strength: -1.0, ridge: 1.0 });
    assert!(matches!(selection.consider(wrong), Err(MethodError::Option { .. })));
}

#[test]
fn nothing_is_chosen_where_the_training_tokens_say_nothing() {
    // Only the held-out window, the last of eight, has an input.
    let (solved, report) =
        quantized(&plan(Method::RescompExact), |i| if i / N / 32 == 7 { 1.0 } else { 0.0 });
    assert!(solved.rounded_because.is_none() && report.held_out.is_none());
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    let cause = "because without the held-out tokens every diagonal entry of the 16x16 Hessian is 0";
    assert!(
        warning.starts_with("layer 5 down: strength 1, ridge 1 and") && warning.contains(cause),
        "{warning}"
    );
    assert_eq!((report.strength, report.ridge), (Some(1.0), Some(1.0)));
}

#[test]
fn broken_activations_are_named_by_layer_and_set_in_both_streams() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
    let weights = Checkpoint::open(&folder).unwrap().layer(3).unwrap();
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut input = vec![0.5; 128];
        input[77] = broken;
        let mut output = [0.0; 128];
        let dense = DenseLayer { weights: &weights, layer: 3 };
        let mut recorder = Recorder { dense, inputs: Kept::default() };
        let error = recorder.apply(LinearSet::Output, 1, &input, &mut [&mut output]).unwrap_err();
        assert!(error.to_string().ends_with("layer 3, input of output"), "{error}");
        let mut inputs = Kept::default();
        assert!(inputs.keep(LinearSet::Output, &[0.5; 128]));
        let mut calibrator = Calibrator {
            weights: &weights,
            layer: 3,
            inputs,
            windows: 1,
            plan: &plan(Method::Gptq),
            done: Vec::new(),
            progress: &mut |_| (),
        };
        let error = calibrator.apply(LinearSet::Output, 1, &input, &mut [&mut output]).unwrap_err();
        assert!(error.to_string().ends_with("layer 3, input of output"), "{error}");
        assert!(calibrator.done.is_empty());
    }
}
