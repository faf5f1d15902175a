//! Measuring a model on text: perplexity, KL divergence from the full-precision model, agreement on the most likely token.
//!
//! Everything after the logits is f64. The divergence is over the whole vocabulary.

use crate::checkpoint::Checkpoint;
use crate::dense::{DenseError, DenseLogits};
use bytemuck::Zeroable;
use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::{argmax, log_sum_exp};
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use serde::Serialize;

/// Tokens that the host's prefill runs at once.
const TILE: usize = 64;

/// What a text gave. Figures that need a reference model are absent without one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// `exp` of the mean negative log-likelihood of the model.
    pub perplexity: f64,
    /// The same of the full-precision model.
    pub reference_perplexity: Option<f64>,
    /// Mean KL divergence from the full-precision model, nats a token.
    pub mean_kl: Option<f64>,
    /// Median KL divergence.
    pub median_kl: Option<f64>,
    /// 99th percentile of the KL divergence.
    pub p99_kl: Option<f64>,
    /// Share of positions whose most likely token is the full-precision model's.
    pub same_top1: Option<f64>,
    /// Bits that the weights take on average, everything counted.
    pub bits_per_weight: f64,
    /// Bytes of the container, or of the checkpoint's weight files.
    pub file_bytes: u64,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Windows.
    pub windows: u64,
    /// How the activations entered the matrix products.
    pub activations: &'static str,
    /// The kernel table.
    pub kernels: &'static str,
}

/// The model that is measured.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A container, with int8 or f32 activations.
    Container(&'a CheckedContainer<'a>, ActivationFormat),
    /// A full-precision checkpoint.
    Checkpoint(&'a Checkpoint),
}

/// Why a measurement stopped.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The full-precision model could not run.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// The container could not run.
    #[error("container: {0}")]
    Container(#[from] RuntimeError),
    /// The two models differ in their vocabulary.
    #[error("the reference {reference} has a vocabulary of {expected} tokens, the model has {found}")]
    Vocabulary {
        /// Name of the reference.
        reference: String,
        /// Its vocabulary.
        expected: u32,
        /// The model's.
        found: u32,
    },
    /// There are no windows.
    #[error("no windows to measure on")]
    NoWindows,
}

/// Measures a model on windows of `positions + 1` tokens. `progress` hears of each step; there are [`steps`] of them.
///
/// # Errors
/// [`EvaluationError`].
pub fn evaluate(
    machine: Machine<'_>,
    subject: Subject<'_>,
    reference: Option<&Checkpoint>,
    windows: &[Vec<u32>],
    positions: usize,
    mut progress: impl FnMut(),
) -> Result<Evaluation, EvaluationError> {
    if windows.is_empty() {
        return Err(EvaluationError::NoWindows);
    }
    let found = match subject {
        Subject::Container(container, _) => container.manifest().spec.vocabulary,
        Subject::Checkpoint(checkpoint) => checkpoint.spec.vocabulary,
    };
    if let Some(reference) = reference
        && reference.spec.vocabulary != found
    {
        let expected = reference.spec.vocabulary;
        return Err(EvaluationError::Vocabulary { reference: reference.name(), expected, found });
    }
    let mut dense = |checkpoint| DenseLogits::new(machine, checkpoint, windows, positions, |_| progress());
    let reference = reference.map(&mut dense).transpose()?;
    let mut totals = Totals::default();
    let (bits_per_weight, file_bytes, activations) = match subject {
        Subject::Checkpoint(checkpoint) => {
            let model = dense(checkpoint)?;
            for (index, window) in windows.iter().enumerate() {
                let logits = model.window(index);
                totals.add_window(&logits, reference.as_ref().map(|model| model.window(index)), window);
                progress();
            }
            let bytes = checkpoint.weight_bytes();
            (8.0 * bytes as f64 / checkpoint.parameters() as f64, bytes, "f32")
        }
        Subject::Container(container, activations) => {
            let limits = Limits { context: positions, tile: TILE.min(positions) };
            let plan = SessionPlan::new(container, limits)?;
            let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
            let mut session = Session::new(container, machine, limits, activations, &mut memory)?;
            for (index, window) in windows.iter().enumerate() {
                let reference = reference.as_ref().map(|model| model.window(index));
                let vocabulary = found as usize;
                session.reset();
                session.run_each(&window[..positions], |position, logits| {
                    let reference = reference.as_ref().map(|all| &all[position * vocabulary..][..vocabulary]);
                    totals.add(logits, reference, window[position + 1]);
                })?;
                progress();
            }
            let name = match activations {
                ActivationFormat::Int8 => "int8",
                ActivationFormat::F32 => "f32",
            };
            let container = container.container();
            (container.bits_per_weight(), container.file_bytes() as u64, name)
        }
    };
    Ok(totals.finish(bits_per_weight, file_bytes, windows.len(), activations, machine.kernels.name))
}

/// How often [`evaluate`] calls `progress`.
pub fn steps(subject: Subject<'_>, reference: Option<&Checkpoint>, windows: usize) -> usize {
    let layers = |checkpoint: &Checkpoint| checkpoint.spec.layers as usize;
    let own = match subject {
        Subject::Container(..) => 0,
        Subject::Checkpoint(checkpoint) => layers(checkpoint),
    };
    own + reference.map_or(0, layers) + windows
}

/// Sums over all positions.
#[derive(Debug, Default)]
struct Totals {
    nll: f64,
    reference_nll: f64,
    divergences: Vec<f64>,
    same_top1: u64,
    tokens: u64,
}

impl Totals {
    fn add_window(&mut self, logits: &[f32], reference: Option<Vec<f32>>, window: &[u32]) {
        let positions = window.len() - 1;
        let vocabulary = logits.len() / positions;
        for (position, logits) in logits.chunks_exact(vocabulary).enumerate() {
            let reference = reference.as_ref().map(|all| &all[position * vocabulary..][..vocabulary]);
            self.add(logits, reference, window[position + 1]);
        }
    }

    fn add(&mut self, logits: &[f32], reference: Option<&[f32]>, next: u32) {
        let normalizer = log_sum_exp(logits);
        self.nll += normalizer - f64::from(logits[next as usize]);
        self.tokens += 1;
        if let Some(reference) = reference {
            let reference_normalizer = log_sum_exp(reference);
            self.reference_nll += reference_normalizer - f64::from(reference[next as usize]);
            self.divergences.push(kl_divergence(reference, reference_normalizer, logits, normalizer));
            self.same_top1 += u64::from(argmax(reference) == argmax(logits));
        }
    }

    fn finish(
        mut self,
        bits_per_weight: f64,
        file_bytes: u64,
        windows: usize,
        activations: &'static str,
        kernels: &'static str,
    ) -> Evaluation {
        let count = self.tokens as f64;
        let compared = (!self.divergences.is_empty()).then_some(());
        self.divergences.sort_by(f64::total_cmp);
        let quantile =
            |share: f64| self.divergences[((self.divergences.len() - 1) as f64 * share).round() as usize];
        Evaluation {
            perplexity: (self.nll / count).exp(),
            reference_perplexity: compared.map(|()| (self.reference_nll / count).exp()),
            mean_kl: compared.map(|()| self.divergences.iter().sum::<f64>() / count),
            median_kl: compared.map(|()| quantile(0.5)),
            p99_kl: compared.map(|()| quantile(0.99)),
            same_top1: compared.map(|()| self.same_top1 as f64 / count),
            bits_per_weight,
            file_bytes,
            tokens: self.tokens,
            windows: windows as u64,
            activations,
            kernels,
        }
    }
}

/// `sum p (ln p - ln q)` over the vocabulary, from logits and their normalizers.
fn kl_divergence(p: &[f32], p_normalizer: f64, q: &[f32], q_normalizer: f64) -> f64 {
    p.iter()
        .zip(q)
        .map(|(&p, &q)| {
            let (log_p, log_q) = (f64::from(p) - p_normalizer, f64::from(q) - q_normalizer);
            log_p.exp() * (log_p - log_q)
        })
        .sum()
}
