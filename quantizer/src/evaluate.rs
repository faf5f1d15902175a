//! Measuring a model on text: perplexity, KL divergence from the full-precision model, agreement on the most likely token.
//!
//! Everything after the logits is f64. The divergence is over the whole vocabulary.

use crate::checkpoint::Checkpoint;
use crate::dense::{DenseError, DenseLogits};
use crate::linears::Linears;
use bytemuck::Zeroable;
use rayon::prelude::*;
use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::{argmax, log_sum_exp};
use rescomp_runtime::executor::Serial;
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
    /// Bits that the weights take on average, everything counted; where only the blocks' linear layers are quantized, of these
    /// layers alone, codes and scales.
    pub bits_per_weight: f64,
    /// Bytes of the container, of the checkpoint's weight files, or of the quantized layers' codes and scales.
    pub file_bytes: u64,
    /// Tokens that were predicted and counted.
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
    /// Quantized linear layers in an otherwise full-precision model, with f32 activations; it has run over the windows.
    Linears(&'a Linears<'a>),
}

impl Subject<'_> {
    fn vocabulary(&self) -> u32 {
        match self {
            Subject::Container(container, _) => container.manifest().spec.vocabulary,
            Subject::Checkpoint(checkpoint) => checkpoint.spec.vocabulary,
            Subject::Linears(linears) => linears.vocabulary,
        }
    }
}

/// The positions of each window that are run, and those that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Positions that are run; a window has one token more.
    pub run: usize,
    /// The first one that counts: those before it are context only.
    pub score_from: usize,
}

impl Positions {
    /// All of them count.
    pub const fn all(run: usize) -> Positions {
        Positions { run, score_from: 0 }
    }
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
    /// The reference, or a subject that has run already, ran over other windows.
    #[error("{model} has run over other windows")]
    OtherWindows {
        /// Which model.
        model: String,
    },
    /// A window has another length.
    #[error("window {index}: expected {expected} tokens, found {found}")]
    Window {
        /// Which window.
        index: usize,
        /// Tokens it should have: one more than there are positions.
        expected: usize,
        /// Tokens it has.
        found: usize,
    },
    /// There are no windows, or they have no positions.
    #[error("no windows to measure on")]
    NoWindows,
    /// No position of a window would count.
    #[error("positions count from {from} on, and a window has {positions}")]
    NothingCounts {
        /// The first position that counts.
        from: usize,
        /// Positions of a window.
        positions: usize,
    },
}

/// A full-precision model that has run over the windows, to compare any number of subjects with.
///
/// It keeps the last block's output and makes logits of it a window at a time, so it takes `windows x positions` activations,
/// not as many vocabularies.
#[derive(Debug)]
pub struct Reference<'m> {
    name: String,
    vocabulary: u32,
    windows: Vec<Vec<u32>>,
    logits: DenseLogits<'m>,
}

impl<'m> Reference<'m> {
    /// Runs a checkpoint over windows of `positions + 1` tokens. `progress` hears of each block.
    ///
    /// # Errors
    /// [`EvaluationError`].
    pub fn new(
        machine: Machine<'m>,
        checkpoint: &Checkpoint,
        windows: &[Vec<u32>],
        positions: usize,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Self, EvaluationError> {
        check_windows(windows, positions)?;
        Ok(Reference {
            name: checkpoint.name(),
            vocabulary: checkpoint.spec.vocabulary,
            windows: windows.to_vec(),
            logits: DenseLogits::new(machine, checkpoint, windows, positions, |_| progress())?,
        })
    }

    /// How often [`Reference::new`] calls `progress`.
    pub fn steps(checkpoint: &Checkpoint) -> usize {
        checkpoint.spec.layers as usize
    }
}

/// Measures a model on windows of `positions.run + 1` tokens. `progress` hears of each step; there are [`steps`] of them.
///
/// Windows run in parallel, on the threads of rayon's current pool, and are added up in their order: the figures do not depend
/// on the threads.
///
/// # Errors
/// [`EvaluationError`].
pub fn evaluate(
    machine: Machine<'_>,
    subject: Subject<'_>,
    reference: Option<&Reference<'_>>,
    windows: &[Vec<u32>],
    positions: Positions,
    progress: &(dyn Fn() + Sync),
) -> Result<Evaluation, EvaluationError> {
    let Positions { run, score_from } = positions;
    check_windows(windows, run)?;
    if score_from >= run {
        return Err(EvaluationError::NothingCounts { from: score_from, positions: run });
    }
    let found = subject.vocabulary();
    if let Some(reference) = reference {
        if reference.vocabulary != found {
            let (name, expected) = (reference.name.clone(), reference.vocabulary);
            return Err(EvaluationError::Vocabulary { reference: name, expected, found });
        }
        if reference.windows != windows {
            return Err(EvaluationError::OtherWindows { model: format!("the reference {}", reference.name) });
        }
    }
    let scored = Scored { reference: reference.map(|reference| &reference.logits), windows, positions };
    let (parts, bits_per_weight, file_bytes, activations) = match subject {
        Subject::Checkpoint(checkpoint) => {
            let model = DenseLogits::new(machine, checkpoint, windows, run, |_| progress())?;
            let bytes = checkpoint.weight_bytes();
            (scored.dense(&model, progress), 8.0 * bytes as f64 / checkpoint.parameters() as f64, bytes, F32)
        }
        Subject::Linears(linears) => {
            if linears.windows != windows {
                return Err(EvaluationError::OtherWindows { model: linears.name.clone() });
            }
            let parts = scored.dense(&linears.logits, progress);
            (parts, linears.bits_per_weight(), linears.bits.div_ceil(8), F32)
        }
        Subject::Container(container, activations) => {
            let limits = Limits { context: run, tile: TILE.min(run) };
            let plan = SessionPlan::new(container, limits)?;
            // Every thread has a session of its own: cheaper than to split each of its small products over threads.
            let machine = Machine { executor: &Serial, ..machine };
            let memory = || vec![MemoryBlock::zeroed(); plan.blocks() as usize];
            let measure = |memory: &mut Vec<MemoryBlock>, index: usize| {
                let mut session = Session::new(container, machine, limits, activations, memory)?;
                let mut window = scored.window(index);
                session.run_each(&windows[index][..run], |position, logits| window.add(position, logits))?;
                progress();
                Ok(window.totals)
            };
            let parts: Result<Vec<Totals>, RuntimeError> =
                (0..windows.len()).into_par_iter().map_init(memory, measure).collect();
            let name = match activations {
                ActivationFormat::Int8 => "int8",
                ActivationFormat::F32 => F32,
            };
            let container = container.container();
            (parts?, container.bits_per_weight(), container.file_bytes() as u64, name)
        }
    };
    let totals = Totals::sum(parts);
    Ok(totals.finish(bits_per_weight, file_bytes, windows.len(), activations, machine.kernels.name))
}

/// The name of activations in full precision.
const F32: &str = "f32";

/// How often [`evaluate`] calls `progress`.
pub fn steps(subject: Subject<'_>, windows: usize) -> usize {
    match subject {
        Subject::Container(..) | Subject::Linears(_) => windows,
        Subject::Checkpoint(checkpoint) => checkpoint.spec.layers as usize + windows,
    }
}

fn check_windows(windows: &[Vec<u32>], positions: usize) -> Result<(), EvaluationError> {
    if windows.is_empty() || positions == 0 {
        return Err(EvaluationError::NoWindows);
    }
    match windows.iter().position(|window| window.len() != positions + 1) {
        Some(index) => {
            Err(EvaluationError::Window { index, expected: positions + 1, found: windows[index].len() })
        }
        None => Ok(()),
    }
}

/// What is compared, and where.
struct Scored<'a> {
    reference: Option<&'a DenseLogits<'a>>,
    windows: &'a [Vec<u32>],
    positions: Positions,
}

impl Scored<'_> {
    /// The sums of each window, of a model that has run over all.
    fn dense(&self, model: &DenseLogits<'_>, progress: &(dyn Fn() + Sync)) -> Vec<Totals> {
        let measure = |index: usize| {
            let (logits, mut window) = (model.window(index), self.window(index));
            for (position, logits) in logits.chunks_exact(logits.len() / self.positions.run).enumerate() {
                window.add(position, logits);
            }
            progress();
            window.totals
        };
        (0..self.windows.len()).into_par_iter().map(measure).collect()
    }

    /// A window of which nothing is counted yet.
    fn window(&self, index: usize) -> Window<'_> {
        Window {
            tokens: &self.windows[index],
            score_from: self.positions.score_from,
            reference: self.reference.map(|reference| reference.window(index)),
            totals: Totals::default(),
        }
    }
}

/// One window as it is measured.
struct Window<'a> {
    tokens: &'a [u32],
    score_from: usize,
    /// The reference's logits, `positions x vocabulary`.
    reference: Option<Vec<f32>>,
    totals: Totals,
}

impl Window<'_> {
    /// Counts a position, unless it is context only.
    fn add(&mut self, position: usize, logits: &[f32]) {
        if position < self.score_from {
            return;
        }
        let vocabulary = logits.len();
        let row =
            self.reference.as_deref().map(|reference| &reference[position * vocabulary..][..vocabulary]);
        self.totals.add(logits, row, self.tokens[position + 1]);
    }
}

/// Sums over the positions that count.
#[derive(Debug, Default)]
struct Totals {
    nll: f64,
    reference_nll: f64,
    divergences: Vec<f64>,
    same_top1: u64,
    tokens: u64,
}

impl Totals {
    /// The parts added up in their order.
    fn sum(parts: Vec<Totals>) -> Totals {
        let mut sum = Totals::default();
        for part in parts {
            sum.nll += part.nll;
            sum.reference_nll += part.reference_nll;
            sum.divergences.extend(part.divergences);
            sum.same_top1 += part.same_top1;
            sum.tokens += part.tokens;
        }
        sum
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
pub(crate) fn kl_divergence(p: &[f32], p_normalizer: f64, q: &[f32], q_normalizer: f64) -> f64 {
    p.iter()
        .zip(q)
        .map(|(&p, &q)| {
            let (log_p, log_q) = (f64::from(p) - p_normalizer, f64::from(q) - q_normalizer);
            log_p.exp() * (log_p - log_q)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linears::Tokens;
    use crate::methods::{GroupSize, Method, SolverOptions};
    use crate::pack::{PackOptions, pack};
    use crate::plan::BlockPlan;
    use crate::texts;
    use rescomp_formats::cache_format::CacheFormat;
    use rescomp_formats::container::{Container, Integrity};
    use rescomp_formats::layouts::Layout;
    use rescomp_runtime::kernels;
    use std::path::Path;

    const MACHINE: fn() -> Machine<'static> = || Machine { kernels: kernels::best(), executor: &Serial };

    fn checkpoint() -> Checkpoint {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")).unwrap()
    }

    /// Windows of arbitrary tokens.
    fn windows(count: u32, positions: u32) -> Vec<Vec<u32>> {
        (0..count).map(|w| (0..=positions).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect()).collect()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-7, "{found}, expected {expected}");
    }

    #[test]
    fn figures_of_two_known_distributions() {
        let logits = |odds: [f32; 2]| odds.map(|odds| odds.ln() + 5.0);
        let (half, quarter) = (logits([1.0, 1.0]), logits([1.0, 3.0]));
        let mut totals = Totals::default();
        totals.add(&quarter, Some(&half), 0);
        totals.add(&quarter, Some(&quarter), 1);
        let found = totals.finish(4.0, 10, 1, "int8", "scalar");
        // exp(-(ln 1/4 + ln 3/4) / 2) and exp(-(ln 1/2 + ln 3/4) / 2).
        close(found.perplexity, (16.0_f64 / 3.0).sqrt());
        close(found.reference_perplexity.unwrap(), (8.0_f64 / 3.0).sqrt());
        // 1/2 ln (1/2 / 1/4) + 1/2 ln (1/2 / 3/4) at the first position, 0 at the second.
        close(found.mean_kl.unwrap(), 0.25 * (2.0_f64.ln() + (2.0_f64 / 3.0).ln()));
        close(found.p99_kl.unwrap(), 0.5 * (4.0_f64 / 3.0).ln());
        // Of equals the first is the most likely.
        assert_eq!((found.same_top1, found.tokens), (Some(0.5), 2));
    }

    #[test]
    fn without_a_reference_nothing_is_compared() {
        let mut totals = Totals::default();
        totals.add(&[0.0; 8], None, 3);
        let found = totals.finish(4.0, 10, 1, "int8", "scalar");
        close(found.perplexity, 8.0);
        assert_eq!((found.mean_kl, found.p99_kl, found.same_top1), (None, None, None));
    }

    #[test]
    fn a_model_does_not_differ_from_itself() {
        let (checkpoint, windows) = (checkpoint(), windows(3, 20));
        let steps_done = std::sync::atomic::AtomicUsize::new(0);
        let progress = || {
            steps_done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let reference = Reference::new(MACHINE(), &checkpoint, &windows, 20, &progress).unwrap();
        let subject = Subject::Checkpoint(&checkpoint);
        let found =
            evaluate(MACHINE(), subject, Some(&reference), &windows, Positions::all(20), &progress).unwrap();
        assert_eq!((found.mean_kl, found.p99_kl, found.same_top1), (Some(0.0), Some(0.0), Some(1.0)));
        assert_eq!(found.reference_perplexity, Some(found.perplexity));
        assert_eq!((found.tokens, found.windows), (60, 3));
        assert_eq!(steps_done.into_inner(), Reference::steps(&checkpoint) + steps(subject, windows.len()));
    }

    #[test]
    fn a_container_gives_the_same_figures_on_any_number_of_threads() {
        let (checkpoint, windows) = (checkpoint(), windows(5, 12));
        let options = PackOptions {
            plan: BlockPlan::new(
                Method::Rtn,
                SolverOptions::for_container(4, GroupSize::elements(64).unwrap()),
            )
            .with_head_bits(8),
            layout: Layout::Nr8k4,
            calibration: windows.clone(),
            calibration_positions: 12,
            check_tokens: (0..512).collect(),
            check_texts: Vec::new(),
            images: None,
            tokenizer: texts::tokenizer_section(&checkpoint).unwrap(),
            chat_template: Default::default(),
            cache: CacheFormat::default(),
            target: "host".to_owned(),
        };
        let file = pack(MACHINE(), &checkpoint, &options, &mut |_| ()).unwrap().file;
        let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
        let reference = Reference::new(MACHINE(), &checkpoint, &windows, 12, &|| ()).unwrap();
        let measure = |windows: &[Vec<u32>], threads, activations| {
            let subject = Subject::Container(&container, activations);
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                evaluate(MACHINE(), subject, Some(&reference), windows, Positions::all(12), &|| ())
            })
        };
        for activations in [ActivationFormat::Int8, ActivationFormat::F32] {
            let found = measure(&windows, 1, activations).unwrap();
            assert_eq!(found, measure(&windows, 3, activations).unwrap());
            // Four bits are not lossless, and not noise.
            assert!((1e-6..1.0).contains(&found.mean_kl.unwrap()), "{found:?}");
        }
        let error = measure(&windows[1..], 1, ActivationFormat::Int8).unwrap_err();
        assert_eq!(error.to_string(), "the reference stories-1m has run over other windows");
    }

    #[test]
    fn linears_that_hardly_differ_are_close_and_windows_are_compared() {
        let (checkpoint, windows) = (checkpoint(), windows(3, 16));
        let reference = Reference::new(MACHINE(), &checkpoint, &windows, 16, &|| ()).unwrap();
        let made = |bits, windows: &[Vec<u32>]| {
            let plan =
                BlockPlan::new(Method::Rtn, SolverOptions::new(bits, GroupSize::elements(32).unwrap()));
            let tokens = Tokens { windows, positions: 16 };
            Linears::new(MACHINE(), &checkpoint, &plan, tokens, tokens, &mut |_| ()).unwrap()
        };
        let measure = |linears: &Linears<'_>| {
            let (subject, all) = (Subject::Linears(linears), Positions::all(16));
            evaluate(MACHINE(), subject, Some(&reference), &windows, all, &|| ())
        };
        let [eight, four, two] = [8, 4, 2].map(|bits| measure(&made(bits, &windows)).unwrap());
        let kl = |found: &Evaluation| found.mean_kl.unwrap();
        assert!(kl(&eight) > 0.0 && kl(&eight) < 0.1 * kl(&four) && kl(&four) < 0.5 * kl(&two));
        assert_eq!((eight.activations, eight.bits_per_weight, eight.tokens), ("f32", 8.5, 48));
        assert_eq!(eight.file_bytes, 6 * 12 * 128 * 128 * 17 / 16);
        let error = measure(&made(4, &windows[1..])).unwrap_err();
        assert_eq!(error.to_string(), "stories-1m has run over other windows");
    }

    #[test]
    fn positions_before_the_first_that_counts_are_context_only() {
        let (checkpoint, windows) = (checkpoint(), windows(2, 12));
        let measure = |score_from| {
            let (subject, positions) = (Subject::Checkpoint(&checkpoint), Positions { run: 12, score_from });
            evaluate(MACHINE(), subject, None, &windows, positions, &|| ())
        };
        let nll = |found: &Evaluation| found.perplexity.ln() * found.tokens as f64;
        let (all, last) = (measure(0).unwrap(), measure(11).unwrap());
        assert_eq!((all.tokens, last.tokens), (24, 2));
        let model = DenseLogits::new(MACHINE(), &checkpoint, &windows, 12, |_| ()).unwrap();
        let expected: f64 = windows
            .iter()
            .enumerate()
            .map(|(index, window)| {
                let logits = model.window(index);
                let logits = &logits[11 * 1024..];
                log_sum_exp(logits) - f64::from(logits[window[12] as usize])
            })
            .sum();
        close(nll(&last), expected);
        let (from_5, from_6) = (measure(5).unwrap(), measure(6).unwrap());
        assert_eq!((from_5.tokens, from_6.tokens), (14, 12));
        assert!(nll(&from_6) < nll(&from_5) && nll(&from_5) < nll(&all));
        assert_eq!(measure(12).unwrap_err().to_string(), "positions count from 12 on, and a window has 12");
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        let (checkpoint, mut windows) = (checkpoint(), windows(2, 8));
        let refused = |windows: &[Vec<u32>], positions| {
            let subject = Subject::Checkpoint(&checkpoint);
            evaluate(MACHINE(), subject, None, windows, Positions::all(positions), &|| ())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refused(&[], 8), "no windows to measure on");
        assert_eq!(refused(&windows, 0), "no windows to measure on");
        windows[1].pop();
        assert_eq!(refused(&windows, 8), "window 1: expected 9 tokens, found 8");
    }
}
