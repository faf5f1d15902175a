//! Of the whole: forward, gradients, learning, resuming.

use super::forward::Model;
use super::loss::{self, Target};
use super::training::{gradients, of, tensor};
use super::*;
use crate::checkpoint::Checkpoint;
use crate::dense::DenseLogits;
use crate::transforms::Rotation;
use candle_core::Tensor;
use faer::Mat;
use rescomp_runtime::Machine;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;

const MACHINE: fn() -> Machine<'static> = || Machine { kernels: kernels::best(), executor: &Serial };

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Of [`checkpoint`].
const VOCABULARY: u32 = 288;

/// A tiny one: learning takes parts of a second.
fn checkpoint() -> Checkpoint {
    Checkpoint::open(&folder("tests/architectures/llama")).unwrap()
}

/// Windows of arbitrary tokens.
fn windows(count: usize, positions: usize, vocabulary: u32) -> Vec<Vec<u32>> {
    let token = |window: usize, at: usize| (window * 331 + at * at * 7 + at) as u32 % vocabulary;
    (0..count).map(|window| (0..=positions).map(|at| token(window, at)).collect()).collect()
}

/// Rotations of every size.
fn random(checkpoint: &Checkpoint) -> Vec<Mat<f64>> {
    let Transform { stream, heads, .. } = Transform::quarot(&checkpoint.spec);
    stream.iter().chain(&heads).map(Rotation::dense).collect()
}

fn unrounded(weights: &Tensor) -> candle_core::Result<Tensor> {
    Ok(weights.clone())
}

/// Smooth, and no rotation leaves it as it is.
fn smooth(weights: &Tensor) -> candle_core::Result<Tensor> {
    weights + ((weights * 12.0)?.sin()? * 0.05)?
}

#[test]
fn the_rotated_forward_is_the_models() {
    for name in [
        "../models/stories-1m",
        "tests/architectures/llama",
        "tests/architectures/llama-linear",
        "tests/architectures/mistral",
        "tests/architectures/qwen2",
        "tests/architectures/qwen2-yarn",
        "tests/architectures/qwen3",
        "tests/architectures/phi3",
        "tests/architectures/gemma",
        "tests/architectures/smollm3",
        "tests/architectures/granite",
    ] {
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        let positions = 12.min(checkpoint.spec.context as usize);
        let windows = windows(2, positions, checkpoint.spec.vocabulary);
        let model = Model::read(&checkpoint, positions).unwrap();
        let tensors = random(&checkpoint).iter().map(|rotation| tensor(rotation).unwrap()).collect();
        let weights = model.rotated(&of(tensors), &unrounded).unwrap();
        let tokens: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        let hidden =
            model.hidden(&weights, &tokens).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let found = crate::dense::head_logits(&model.spec, &model.head, &hidden);
        let dense = DenseLogits::new(MACHINE(), &checkpoint, &windows, positions, |_| ()).unwrap();
        let expected = [dense.window(0), dense.window(1)].concat();
        let largest = expected.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
        let furthest =
            found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max) / largest;
        assert!(furthest < 5e-5, "{name}: furthest {furthest:e} of the largest");
    }
}

/// The gradient along `R A`, A skew, of the loss of windows, and what finite differences say.
fn slopes(rounding: super::forward::Rounding<'_>, turned: usize) -> (f64, f64) {
    let checkpoint = Checkpoint::open(&folder("tests/architectures/qwen2")).unwrap();
    let positions = 10;
    let windows = windows(2, positions, checkpoint.spec.vocabulary);
    let tokens: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
    let model = Model::read(&checkpoint, positions).unwrap();
    let loss = |hidden: &[f32]| {
        let (mut total, mut gradient) = (0.0, Vec::new());
        for (window, hidden) in windows.iter().zip(hidden.chunks(hidden.len() / windows.len())) {
            let (loss, of_window) =
                loss::of_window(&model.spec, &model.head, hidden, Target::Tokens(&window[1..]));
            total += loss;
            gradient.extend(of_window);
        }
        (total, gradient)
    };
    let rotations = random(&checkpoint);
    let size = rotations[turned].nrows();
    let number = |row: usize, col: usize| ((row * 31 + col * 17) as f64 * 0.77).sin();
    let skew = Mat::from_fn(size, size, |row, col| number(row, col) - number(col, row));
    let (_, all) = gradients(&model, &rotations, &tokens, rounding, loss).unwrap();
    let direction = &rotations[turned] * &skew;
    let mut along = 0.0;
    for col in 0..size {
        for row in 0..size {
            along += direction[(row, col)] * all[turned][(row, col)];
        }
    }
    // exp(t A) to the second order.
    let moved = |by: f64| {
        let mut moved = rotations.clone();
        let second = &direction * &skew;
        let entry = |row: usize, col: usize| {
            rotations[turned][(row, col)] + by * direction[(row, col)] + 0.5 * by * by * second[(row, col)]
        };
        moved[turned] = Mat::from_fn(size, size, entry);
        gradients(&model, &moved, &tokens, rounding, loss).unwrap().0
    };
    let step = 2e-3 / (skew.norm_l2() / (size as f64).sqrt());
    (along, (moved(step) - moved(-step)) / (2.0 * step))
}

#[test]
fn a_model_that_is_not_rounded_has_no_slope_and_a_smooth_one_has_that_of_finite_differences() {
    // R1, and R2 of the first layer.
    for turned in [0, 1] {
        let (flat, _) = slopes(&unrounded, turned);
        let (found, expected) = slopes(&smooth, turned);
        assert!((found - expected).abs() < 0.02 * expected.abs() + 2e-4, "{turned}: {found}, {expected}");
        assert!(flat.abs() < 1e-3 * expected.abs() + 1e-5, "{turned}: {flat} beside {expected}");
        assert!(expected.abs() > 1e-3, "{turned}: {expected} tells nothing");
    }
}

fn options() -> SpinQuantOptions {
    let group = GroupSize::elements(64).unwrap();
    SpinQuantOptions { steps: 6, batch_tokens: 48, evaluate_every: 2, ..SpinQuantOptions::new(2, group) }
}

fn bits(transform: &Transform) -> Vec<u64> {
    let rotations = transform.stream.iter().chain(&transform.heads).map(Rotation::dense);
    rotations
        .flat_map(|matrix| {
            let size = matrix.nrows();
            (0..size * size).map(move |at| matrix[(at / size, at % size)].to_bits()).collect::<Vec<_>>()
        })
        .collect()
}

fn run(options: &SpinQuantOptions, file: Option<StateFile<'_>>) -> Result<Learned, SpinQuantError> {
    learn(MACHINE(), &checkpoint(), &windows(9, 24, VOCABULARY), 24, options, file, &mut |_, _| ())
}

#[test]
fn learning_lowers_the_held_out_loss_and_repeats() {
    let mut heard = Vec::new();
    let windows = windows(9, 24, VOCABULARY);
    let mut hear = |report: &StepReport, steps: usize| heard.push((report.step, steps));
    let learned = learn(MACHINE(), &checkpoint(), &windows, 24, &options(), None, &mut hear).unwrap();
    assert_eq!(heard, [0, 1, 2, 3, 4, 5, 6].map(|step| (step, 6)));
    let report = &learned.report;
    assert_eq!((report.training_windows, report.held_out_windows, report.steps.len()), (8, 1, 7));
    assert!(report.held_out_best < report.held_out_start, "{report:?}");
    assert!(report.best_step > 0 && report.distance_from_orthogonal < 1e-9);
    let held_out: Vec<usize> = report.steps.iter().filter(|s| s.held_out.is_some()).map(|s| s.step).collect();
    assert_eq!(held_out, [0, 2, 4, 6]);
    // Bit for bit, on any number of threads.
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| run(&options(), None)).unwrap();
        assert_eq!(bits(&again.transform), bits(&learned.transform));
        assert_eq!(again.report, learned.report);
    }
    let other = run(&SpinQuantOptions { seed: 1, ..options() }, None).unwrap();
    assert_ne!(bits(&other.transform), bits(&learned.transform));
}

#[test]
fn nothing_learned_is_the_start() {
    let learned = run(&SpinQuantOptions { steps: 0, ..options() }, None).unwrap();
    assert_eq!(bits(&learned.transform), bits(&Transform::quarot(&checkpoint().spec)));
    let start = SpinQuantOptions { steps: 0, start: Start::Identity, ..options() };
    let learned = run(&start, None).unwrap();
    let stream = learned.transform.stream.unwrap().dense();
    assert_eq!(stream, Mat::<f64>::identity(32, 32));
    assert_eq!((learned.report.best_step, learned.report.held_out_best), (0, learned.report.held_out_start));
}

/// Stops the process's learning as a kill would: between two steps.
#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let file = |resume| Some(StateFile { path: &path, resume, program: "this build" });
    for objective in [Objective::Divergence, Objective::CrossEntropy] {
        let options = SpinQuantOptions { objective, ..options() };
        let whole = run(&options, None).unwrap();
        let killed = std::panic::catch_unwind(|| {
            let mut kill = |report: &StepReport, _: usize| assert!(report.step < 5, "killed");
            let windows = windows(9, 24, VOCABULARY);
            learn(MACHINE(), &checkpoint(), &windows, 24, &options, file(false), &mut kill).map(|_| ())
        });
        assert!(killed.is_err());
        let resumed = run(&options, file(true)).unwrap();
        assert_eq!(resumed.report.resumed_at, Some(4));
        assert_eq!(bits(&resumed.transform), bits(&whole.transform));
        assert_eq!(resumed.report.steps, whole.report.steps);
        // A finished one has nothing left to do.
        assert_eq!(run(&options, file(true)).unwrap().report.resumed_at, Some(6));
    }
    let error = run(&SpinQuantOptions { bits: 3, ..options() }, file(true)).unwrap_err().to_string();
    assert!(error.contains("bits was 2, is 3") && error.contains("objective was CrossEntropy"), "{error}");
    let other = Some(StateFile { path: &path, resume: true, program: "another build" });
    assert!(run(&options(), other).unwrap_err().to_string().contains("program was this build"));
}

#[test]
fn what_cannot_be_is_refused() {
    let error = |options: SpinQuantOptions| run(&options, None).unwrap_err().to_string();
    assert!(error(SpinQuantOptions { learning_rate: f64::NAN, ..options() }).starts_with("learning rate: "));
    assert!(error(SpinQuantOptions { learning_rate: 0.0, ..options() }).starts_with("learning rate: "));
    assert!(error(SpinQuantOptions { momentum: 1.0, ..options() }).starts_with("momentum: "));
    assert!(error(SpinQuantOptions { batch_tokens: 0, ..options() }).starts_with("batch tokens: "));
    assert!(error(SpinQuantOptions { evaluate_every: 0, ..options() }).starts_with("steps between "));
    assert!(error(SpinQuantOptions { bits: 7, ..options() }).contains("7 bits"));
    let of = |windows: &[Vec<u32>], name: &str| {
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        learn(MACHINE(), &checkpoint, windows, 24, &options(), None, &mut |_, _| ()).unwrap_err().to_string()
    };
    let model = "../models/stories-1m";
    assert!(of(&windows(1, 24, 1024), model).contains("at least 2 windows"));
    assert!(of(&windows(2, 23, 1024), model).contains("window 0: expected 25 tokens, found 24"));
    assert!(of(&windows(2, 24, 4096), model).contains("expected tokens below 1024"));
    for (name, cannot_be) in
        [("gemma2", "rotated"), ("gpt-neox", "learned"), ("gpt2", "learned"), ("bert", "rotated")]
    {
        let error = of(&windows(2, 24, 64), &format!("tests/architectures/{name}"));
        assert!(error.contains(&format!("cannot be {cannot_be}")), "{error}");
    }
}
