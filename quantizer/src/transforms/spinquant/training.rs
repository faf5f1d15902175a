//! The training loop: batches, steps, the held-out loss, the state on disk.

use super::cayley::{self, Iterate};
use super::fake_quantize::FakeQuantize;
use super::forward::{Model, ReadError, Rotations};
use super::loss::{self, Target};
use super::state::{self, State};
use super::{
    Learned, Objective, SpinQuantError, SpinQuantOptions, SpinQuantReport, Start, StateFile, StepReport,
};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::choose::is_held_out;
use crate::dense::DenseLogits;
use crate::inputs::Inputs;
use crate::journal::Identity;
use crate::methods::SolverOptions;
use crate::transforms::{Rotation, Transform, TransformKind};
use candle_core::{Device, Tensor, Var};
use faer::Mat;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use rescomp_runtime::Machine;
use sha2::{Digest, Sha256};

/// Learns R1 and R2 of `checkpoint` on the first `positions` tokens of `windows`; every eighth window is held out, of fewer the last. `file` keeps
/// the state. `progress` hears of each step, and how many there will be.
///
/// A transform that the checkpoint has is not there for this: rotations are of its own weights.
///
/// # Errors
/// [`SpinQuantError`].
pub fn learn(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    windows: &[Vec<u32>],
    positions: usize,
    options: &SpinQuantOptions,
    file: Option<StateFile<'_>>,
    progress: &mut dyn FnMut(&StepReport, usize),
) -> Result<Learned, SpinQuantError> {
    let plain = checkpoint.transformed(Transform::default())?;
    // The refusal of other architectures.
    plain.transformed(Transform::quarot(&plain.spec))?;
    let architecture = plain.spec.architecture;
    if architecture.has_layer_norm() {
        let (path, architecture) = (plain.path().to_owned(), architecture.name());
        return Err(CheckpointError::RotationsNotLearned { path, architecture }.into());
    }
    check(options)?;
    check_windows(windows, positions, plain.spec.vocabulary)?;
    let solver = SolverOptions::for_container(options.bits, options.group);
    solver.check(plain.spec.hidden as usize)?;
    let forward = |step| move |cause| SpinQuantError::Forward { step, cause };
    let model = Model::read(&plain, positions).map_err(|error| match error {
        ReadError::Checkpoint(cause) => cause.into(),
        ReadError::Tensor(cause) => forward(0)(cause),
    })?;
    let full = DenseLogits::new(machine, &plain, windows, positions, |_| ())?;
    let operation = FakeQuantize { options: solver, estimator: options.estimator };
    let training = Training { model, full, windows, options, operation };

    let identity = file.map(|file| identity(&plain, windows, positions, options, file.program));
    let saved = file.zip(identity.as_ref());
    let sizes = training.sizes();
    let resumed = match saved {
        Some((file, identity)) if file.resume => state::read(file.path, identity, &sizes)?,
        _ => None,
    };
    let resumed_at = resumed.as_ref().map(|state| state.step);
    let save =
        |state: &State| saved.map_or(Ok(()), |(file, identity)| state::write(file.path, identity, state));
    let mut state = match resumed {
        Some(state) => state,
        None => {
            let state = training.begin()?;
            save(&state)?;
            state
        }
    };
    state.steps.last().into_iter().for_each(|step| progress(step, options.steps));
    while state.step < options.steps {
        let report = training.step(&mut state)?;
        if report.held_out.is_some() {
            save(&state)?;
        }
        progress(&report, options.steps);
    }
    training.finish(state, resumed_at)
}

/// The options that no other check sees.
fn check(options: &SpinQuantOptions) -> Result<(), SpinQuantError> {
    let within = |option, holds: bool, expected, found: &dyn ToString| match holds {
        true => Ok(()),
        false => Err(SpinQuantError::Option { option, expected, found: found.to_string() }),
    };
    let SpinQuantOptions { learning_rate, momentum, batch_tokens, evaluate_every, .. } = options;
    let rate = *learning_rate > 0.0 && *learning_rate <= 1.0;
    within("learning rate", rate, "radians above 0, at most 1", learning_rate)?;
    within("momentum", (0.0..1.0).contains(momentum), "a number from 0 to below 1", momentum)?;
    within("batch tokens", *batch_tokens > 0, "at least 1", batch_tokens)?;
    within("steps between evaluations", *evaluate_every > 0, "at least 1", evaluate_every)
}

fn check_windows(windows: &[Vec<u32>], positions: usize, vocabulary: u32) -> Result<(), SpinQuantError> {
    if windows.len() < 2 {
        return Err(SpinQuantError::Windows { found: windows.len() });
    }
    for (window, tokens) in windows.iter().enumerate() {
        let refused =
            |expected: String, found: String| Err(SpinQuantError::Window { window, expected, found });
        if tokens.len() <= positions {
            return refused(format!("{} tokens", positions + 1), tokens.len().to_string());
        }
        if let Some(token) = tokens.iter().find(|token| **token >= vocabulary) {
            return refused(format!("tokens below {vocabulary}"), token.to_string());
        }
    }
    Ok(())
}

/// What decides the result.
fn identity(
    checkpoint: &Checkpoint,
    windows: &[Vec<u32>],
    positions: usize,
    options: &SpinQuantOptions,
    program: &str,
) -> Identity {
    // Taken apart by name, so that an option that is added cannot be forgotten here.
    let SpinQuantOptions {
        bits,
        group,
        steps,
        learning_rate,
        momentum,
        batch_tokens,
        seed,
        objective,
        estimator,
        start,
        evaluate_every,
    } = options;
    let mut last = Sha256::new();
    windows.iter().for_each(|window| last.update(window[positions].to_le_bytes()));
    let last = last.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let settings = [
        ("tokens behind windows", last),
        ("bits", bits.to_string()),
        ("group size", group.to_string()),
        ("steps", steps.to_string()),
        ("learning rate", learning_rate.to_string()),
        ("momentum", momentum.to_string()),
        ("batch tokens", batch_tokens.to_string()),
        ("seed", seed.to_string()),
        ("objective", format!("{objective:?}")),
        ("estimator", format!("{estimator:?}")),
        ("start", format!("{start:?}")),
        ("steps between evaluations", evaluate_every.to_string()),
    ];
    Identity::with_settings(checkpoint, Inputs::Windows { windows, positions }, program, settings)
}

/// What stays the same while rotations are learned.
struct Training<'a> {
    model: Model,
    full: DenseLogits<'a>,
    windows: &'a [Vec<u32>],
    options: &'a SpinQuantOptions,
    operation: FakeQuantize,
}

impl Training<'_> {
    /// Rows of R1 and of each R2.
    fn sizes(&self) -> Vec<usize> {
        let spec = &self.model.spec;
        let heads = (0..spec.layers).map(|_| spec.head_dim as usize);
        std::iter::once(spec.hidden as usize).chain(heads).collect()
    }

    fn held_out(&self) -> Vec<usize> {
        self.windows_that(true)
    }

    fn trained(&self) -> Vec<usize> {
        self.windows_that(false)
    }

    fn windows_that(&self, held_out: bool) -> Vec<usize> {
        let count = self.windows.len();
        (0..count).filter(|window| is_held_out(*window, count) == held_out).collect()
    }

    /// Training windows, as many as are held out: what the report measures.
    fn measured(&self) -> Vec<usize> {
        self.trained().into_iter().take(self.held_out().len()).collect()
    }

    fn windows_of_batch(&self) -> usize {
        self.options.batch_tokens.div_ceil(self.model.positions)
    }

    /// Before the first step.
    fn begin(&self) -> Result<State, SpinQuantError> {
        let start: Vec<Mat<f64>> = match self.options.start {
            Start::Identity => self.sizes().into_iter().map(|size| Mat::identity(size, size)).collect(),
            Start::Quarot => {
                let Transform { stream, heads, .. } = Transform::quarot(&self.model.spec);
                stream.iter().chain(&heads).map(Rotation::dense).collect()
            }
        };
        let held_out = self.evaluate(&start, &self.held_out(), 0)?;
        Ok(State {
            step: 0,
            iterates: start.iter().cloned().map(Iterate::new).collect(),
            best_step: 0,
            best_loss: held_out,
            training_start: self.evaluate(&start, &self.measured(), 0)?,
            best: start,
            steps: vec![StepReport { step: 0, loss: None, held_out: Some(held_out) }],
        })
    }

    /// The next step.
    fn step(&self, state: &mut State) -> Result<StepReport, SpinQuantError> {
        let SpinQuantOptions { steps, learning_rate, momentum, evaluate_every, .. } = *self.options;
        let rotations: Vec<Mat<f64>> =
            state.iterates.iter().map(|iterate| iterate.rotation.clone()).collect();
        let failed = |cause| SpinQuantError::Forward { step: state.step, cause };
        let (loss, gradients) = self.gradients(&rotations, &self.batch(state.step)).map_err(failed)?;
        let numbers = gradients.iter().all(|gradient| gradient.norm_l2().is_finite());
        if !loss.is_finite() || !numbers {
            return Err(SpinQuantError::Diverged { step: state.step, loss });
        }
        let angle = learning_rate * (1.0 - state.step as f64 / steps as f64);
        for (iterate, gradient) in state.iterates.iter_mut().zip(&gradients) {
            iterate.step(gradient, angle, momentum);
        }
        state.step += 1;
        let mut held_out = None;
        if state.step.is_multiple_of(evaluate_every) || state.step == steps {
            let now: Vec<Mat<f64>> = state.iterates.iter().map(|iterate| iterate.rotation.clone()).collect();
            let loss = self.evaluate(&now, &self.held_out(), state.step)?;
            if loss < state.best_loss {
                (state.best, state.best_loss, state.best_step) = (now, loss, state.step);
            }
            held_out = Some(loss);
        }
        let report = StepReport { step: state.step, loss: Some(loss), held_out };
        state.steps.push(report);
        Ok(report)
    }

    /// The windows of a step: those that are learned from in a random order, anew each time all were used.
    fn batch(&self, step: usize) -> Vec<usize> {
        let trained = self.trained();
        let count = self.windows_of_batch();
        let pass = |at: usize| {
            let mut generator =
                Pcg64::seed_from_u64(self.options.seed.wrapping_add((at / trained.len()) as u64));
            let mut order = trained.clone();
            // Fisher and Yates; the remainder's bias is below 1e-15.
            for last in (1..order.len()).rev() {
                order.swap(last, (generator.next_u64() % (last as u64 + 1)) as usize);
            }
            order[at % trained.len()]
        };
        (step * count..(step + 1) * count).map(pass).collect()
    }

    /// The mean loss of windows with these rotations.
    fn evaluate(
        &self,
        rotations: &[Mat<f64>],
        windows: &[usize],
        step: usize,
    ) -> Result<f64, SpinQuantError> {
        let run = || -> candle_core::Result<f64> {
            let tensors: Result<Vec<Tensor>, _> = rotations.iter().map(tensor).collect();
            let weights = self.model.rotated(&of(tensors?), &|weights| weights.apply_op1(self.operation))?;
            let mut total = 0.0;
            for windows in windows.chunks(self.windows_of_batch()) {
                let hidden =
                    self.model.hidden(&weights, &self.tokens(windows))?.flatten_all()?.to_vec1::<f32>()?;
                total += self.loss(&hidden, windows).0;
            }
            Ok(total / (windows.len() * self.model.positions) as f64)
        };
        match run() {
            Ok(loss) if loss.is_finite() => Ok(loss),
            Ok(loss) => Err(SpinQuantError::Diverged { step, loss }),
            Err(cause) => Err(SpinQuantError::Forward { step, cause }),
        }
    }

    fn tokens(&self, windows: &[usize]) -> Vec<&[u32]> {
        windows.iter().map(|&window| self.windows[window].as_slice()).collect()
    }

    /// The sum of the losses of windows with these inputs of the head, and its gradient for them.
    fn loss(&self, hidden: &[f32], windows: &[usize]) -> (f64, Vec<f32>) {
        let Model { ref spec, ref head, positions, .. } = self.model;
        let (mut total, mut gradient) = (0.0, Vec::with_capacity(hidden.len()));
        for (&window, hidden) in windows.iter().zip(hidden.chunks(positions * spec.hidden as usize)) {
            let (loss, of_window) = match self.options.objective {
                Objective::Divergence => {
                    loss::of_window(spec, head, hidden, Target::Logits(&self.full.window(window)))
                }
                Objective::CrossEntropy => {
                    loss::of_window(spec, head, hidden, Target::Tokens(&self.windows[window][1..]))
                }
            };
            total += loss;
            gradient.extend(of_window);
        }
        (total, gradient)
    }

    /// The mean loss of windows, and its gradient for each rotation.
    fn gradients(
        &self,
        rotations: &[Mat<f64>],
        windows: &[usize],
    ) -> candle_core::Result<(f64, Vec<Mat<f64>>)> {
        gradients(
            &self.model,
            rotations,
            &self.tokens(windows),
            &|weights| weights.apply_op1(self.operation),
            |hidden| self.loss(hidden, windows),
        )
    }

    fn finish(&self, state: State, resumed_at: Option<usize>) -> Result<Learned, SpinQuantError> {
        let training_best = match state.best_step {
            0 => state.training_start,
            step => self.evaluate(&state.best, &self.measured(), step)?,
        };
        let distances = state.best.iter().map(cayley::distance_from_orthogonal);
        let report = SpinQuantReport {
            training_windows: self.trained().len(),
            held_out_windows: self.held_out().len(),
            held_out_start: state.steps.first().and_then(|step| step.held_out).unwrap_or(f64::NAN),
            held_out_best: state.best_loss,
            training_start: state.training_start,
            training_best,
            best_step: state.best_step,
            resumed_at,
            distance_from_orthogonal: distances.fold(0.0, f64::max),
            steps: state.steps,
        };
        let mut rotations = state.best.into_iter().map(Rotation::Dense);
        let transform = Transform {
            kind: TransformKind::Spinquant,
            stream: rotations.next(),
            heads: rotations.collect(),
            ..Transform::default()
        };
        Ok(Learned { transform, report })
    }
}

/// The mean loss of windows' tokens, and its gradient for each rotation, by entries. `loss` gives the sum of a batch's losses and its gradient
/// for the head's inputs.
pub(super) fn gradients(
    model: &Model,
    rotations: &[Mat<f64>],
    windows: &[&[u32]],
    rounding: super::forward::Rounding<'_>,
    loss: impl FnOnce(&[f32]) -> (f64, Vec<f32>),
) -> candle_core::Result<(f64, Vec<Mat<f64>>)> {
    let variables: candle_core::Result<Vec<Var>> =
        rotations.iter().map(|rotation| Var::from_tensor(&tensor(rotation)?)).collect();
    let variables = variables?;
    let tensors = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let weights = model.rotated(&of(tensors), rounding)?;
    let hidden = model.hidden(&weights, windows)?;
    let (total, gradient) = loss(&hidden.flatten_all()?.to_vec1::<f32>()?);
    let gradient = Tensor::from_vec(gradient, hidden.shape().clone(), &Device::Cpu)?;
    // Its gradient for `hidden` is that of the loss.
    let mut gradients = (hidden * gradient)?.sum_all()?.backward()?;
    let tokens = (windows.len() * model.positions) as f64;
    let mut matrices = Vec::with_capacity(variables.len());
    for variable in &variables {
        let Some(gradient) = gradients.remove(variable) else {
            candle_core::bail!("the loss does not depend on a rotation");
        };
        let size = gradient.dim(0)?;
        let values = gradient.flatten_all()?.to_vec1::<f32>()?;
        matrices.push(Mat::from_fn(size, size, |row, col| f64::from(values[row * size + col]) / tokens));
    }
    Ok((total / tokens, matrices))
}

/// A rotation as the forward multiplies with it.
pub(super) fn tensor(rotation: &Mat<f64>) -> candle_core::Result<Tensor> {
    let size = rotation.nrows();
    let values = (0..size * size).map(|at| rotation[(at / size, at % size)] as f32).collect();
    Tensor::from_vec(values, (size, size), &Device::Cpu)
}

/// R1, then each layer's R2.
pub(super) fn of(tensors: Vec<Tensor>) -> Rotations {
    let mut tensors = tensors.into_iter();
    // There is R1 always: a spec has a hidden size.
    let stream = tensors.next().unwrap_or_else(|| unreachable!("R1"));
    Rotations { stream, heads: tensors.collect() }
}
