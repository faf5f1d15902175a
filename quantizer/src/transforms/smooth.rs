//! Channel scales of a power of the inputs' sizes, the power chosen for each set of matrices on held-out tokens.
//!
//! ```text
//! for each set of matrices with one input x (full-precision stream):
//!     m_j = mean |x_j| of the training tokens
//!     for each power p:  s_j = m_j^p, its geometric mean 1;  solve W diag(s) under the training tokens' moments of x / s
//!         loss = |(W - Q diag(1/s)) x|^2 on the held-out tokens, as a share of |W x|^2, summed over the set's matrices
//!     keep the power of the least loss; 0, which is no scaling, where none is below it
//! ```
//! Powers and statistics: AWQ (Lin et al., arXiv 2306.00978, section 3.2: the mean size), SmoothQuant+ (Pan et al., arXiv 2312.03788, section
//! 3.2: chosen by the loss). Both round to nearest where they choose; here a set is solved as it will be, with the method's own sweep, since what
//! helps rounding need not help a sweep that compensates.

use super::scales::{average_shared_heads, heads_of};
use super::{LayerScales, Transform, TransformKind};
use crate::calibrate::{CalibrationError, Kept, Recorder};
use crate::checkpoint::{Checkpoint, LayerWeights};
use crate::choose::is_held_out;
use crate::dense::{DenseLayer, Streams, missing};
use crate::methods::{self, Method, MethodError, Objective};
use crate::moments::Moments;
use crate::plan::BlockPlan;
use faer::{Mat, MatRef};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::LinearSet;

/// Powers that are tried, besides 0.
const POWERS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
/// Inputs count as this share of the mean size at least, so that those that never move have a scale.
const SMALLEST: f64 = 1e-4;

/// Chooses the scales of every set that can be scaled. `progress` hears of each layer.
///
/// # Errors
/// [`CalibrationError`]; [`RuntimeError::Limit`] in it for fewer than two windows.
pub fn smooth(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    windows: &[Vec<u32>],
    positions: usize,
    plan: &BlockPlan,
    progress: &mut dyn FnMut(usize),
) -> Result<Transform, CalibrationError> {
    if windows.len() < 2 {
        let (name, found) = ("calibration windows to choose scales on", windows.len() as u64);
        return Err(RuntimeError::Limit { name, lowest: 2, highest: u64::MAX, found }.into());
    }
    let spec = &checkpoint.spec;
    let embedding = checkpoint.embedding()?;
    let mut full = Streams::new(machine, checkpoint, &embedding, windows, positions)?;
    let (mut scales, mut inputs) = (Vec::new(), Kept::default());
    for layer in 0..spec.layers as usize {
        let weights = checkpoint.layer(layer)?;
        let mut recorder = Recorder { dense: DenseLayer { weights: &weights, layer }, inputs };
        full.run_block(&mut recorder)?;
        inputs = recorder.inputs;
        let mut of_layer = LayerScales::default();
        for set in LinearSet::of(spec.architecture) {
            let input = inputs.take(set).ok_or(CalibrationError::Unmatched { layer, set: set.name() })?;
            if LayerScales::can_scale(spec.architecture, set) {
                let tokens = Tokens::new(&input, windows.len(), positions);
                let heads = (set == LinearSet::Output).then(|| heads_of(spec));
                if let Some(chosen) = scales_of(&tokens, heads, &weights, layer, set, plan)? {
                    of_layer.set(spec, set, chosen);
                }
            }
            inputs.give_back(input);
        }
        scales.push(of_layer);
        progress(layer);
    }
    Ok(Transform { kind: TransformKind::Smooth, scales, ..Transform::default() })
}

/// What is known of a set's input.
struct Tokens {
    /// Mean size of each element on the training tokens.
    sizes: Vec<f64>,
    training: Moments,
    held_out: Moments,
}

impl Tokens {
    /// From `windows x positions x n` elements.
    fn new(input: &[f32], windows: usize, positions: usize) -> Tokens {
        let elems = input.len() / windows;
        let n = elems / positions;
        let part = |held_out| {
            let of_part = move |(window, _): &(usize, &[f32])| is_held_out(*window, windows) == held_out;
            input.chunks_exact(elems).enumerate().filter(of_part).map(|(_, values)| (values, values))
        };
        let mut sizes = vec![0.0; n];
        let mut count = 0_usize;
        for token in part(false).flat_map(|(values, _)| values.chunks_exact(n)) {
            sizes.iter_mut().zip(token).for_each(|(size, value)| *size += f64::from(value.abs()));
            count += 1;
        }
        sizes.iter_mut().for_each(|size| *size /= count as f64);
        Tokens {
            sizes,
            training: Moments::of_parts(part(false), n),
            held_out: Moments::of_parts(part(true), n),
        }
    }
}

/// The scales of the least held-out loss; `None` where that is without any. `heads` says which inputs share a scale.
fn scales_of(
    tokens: &Tokens,
    heads: Option<[usize; 2]>,
    weights: &LayerWeights,
    layer: usize,
    set: LinearSet,
    plan: &BlockPlan,
) -> Result<Option<Vec<f32>>, CalibrationError> {
    let mut sizes = tokens.sizes.clone();
    heads.into_iter().for_each(|heads| average_shared_heads(heads, &mut sizes));
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    if !(mean > 0.0 && mean.is_finite()) {
        return Ok(None);
    }
    let candidate = |power: f64| -> Vec<f32> {
        let logarithms: Vec<f64> = sizes.iter().map(|size| power * size.max(SMALLEST * mean).ln()).collect();
        let centre = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
        logarithms.iter().map(|logarithm| (logarithm - centre).exp() as f32).collect()
    };
    let loss = |scales: &[f32]| held_out_loss(tokens, scales, weights, layer, set, plan);
    // What cannot be solved unscaled is left alone.
    let Some(mut least) = loss(&vec![1.0; sizes.len()])? else { return Ok(None) };
    let mut chosen = None;
    for power in POWERS {
        let scales = candidate(power);
        if let Some(loss) = loss(&scales)?.filter(|loss| *loss < least) {
            (least, chosen) = (loss, Some(scales));
        }
    }
    Ok(chosen)
}

/// The set's loss on the held-out tokens when it is solved with these scales; `None` where it cannot be solved.
fn held_out_loss(
    tokens: &Tokens,
    scales: &[f32],
    weights: &LayerWeights,
    layer: usize,
    set: LinearSet,
    plan: &BlockPlan,
) -> Result<Option<f64>, CalibrationError> {
    let scales: Vec<f64> = scales.iter().map(|&scale| f64::from(scale)).collect();
    let scaled = |moment: MatRef<'_, f64>| {
        Mat::from_fn(scales.len(), scales.len(), |i, j| moment[(i, j)] / (scales[i] * scales[j]))
    };
    let (training, held_out) =
        (scaled(tokens.training.hessian.as_ref()), scaled(tokens.held_out.hessian.as_ref()));
    let mut sum = 0.0;
    for &kind in set.kinds() {
        let original = methods::widened(weights.matrix(kind).ok_or_else(|| missing(kind, layer))?.view());
        let original = Mat::from_fn(original.nrows(), original.ncols(), |i, j| original[(i, j)] * scales[j]);
        match loss_of(original.as_ref(), training.as_ref(), held_out.as_ref(), layer, kind, plan) {
            Ok(loss) => sum += loss,
            Err(cause) if cause.is_about_the_data() => return Ok(None),
            Err(cause) => return Err(CalibrationError::Method { layer, kind: kind.name(), cause }),
        }
    }
    Ok(sum.is_finite().then_some(sum))
}

/// A matrix's loss on the held-out tokens over the power of its outputs.
fn loss_of(
    weights: MatRef<'_, f64>,
    training: MatRef<'_, f64>,
    held_out: MatRef<'_, f64>,
    layer: usize,
    kind: SectionKind,
    plan: &BlockPlan,
) -> Result<f64, MethodError> {
    let solver = plan.solver(layer, kind);
    let prepared = methods::prepare(training, None, &solver.options)?;
    // Within one stream nothing drifts, and every method that compensates is this one.
    let configuration = solver.configuration.and(Method::Gptq.configuration(solver.options.bits));
    let solution = methods::solve(weights, &prepared, configuration.as_ref(), &solver.options)?;
    let objective = Objective::new(weights, held_out, None)?;
    let (loss, power) = (objective.of(&solution)?.total(), objective.power());
    Ok(if power > 0.0 { loss / power } else { 0.0 })
}
