//! Choosing a transform by what it does to the model: the divergence of its quantized linear layers on held-out calibration windows.

use super::{TransformError, TransformKind, build};
use crate::calibrate::Progress;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::choose::is_held_out;
use crate::evaluate::{EvaluationError, Positions, Reference, Subject, evaluate};
use crate::linears::{Linears, LinearsError, Tokens};
use crate::plan::BlockPlan;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use serde::Serialize;

/// How much lower a transform's divergence must be than that of the one before it, as a share: less is no reason to take it.
const LEAST_GAIN: f64 = 0.01;

/// What a transform gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub transform: &'static str,
    /// Mean KL divergence from the full-precision model on the held-out windows, nats a token; absent where the model cannot take it.
    pub mean_kl: Option<f64>,
    /// Why it cannot.
    pub refused_because: Option<String>,
}

/// What was chosen, and why.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The transform.
    pub kind: TransformKind,
    /// The checkpoint under it, chosen on all windows.
    pub checkpoint: Checkpoint,
    /// All that were tried.
    pub candidates: Vec<Candidate>,
}

/// Why nothing could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A transform could not be made.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// A model could not be quantized.
    #[error(transparent)]
    Linears(#[from] LinearsError),
    /// A model could not be measured.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// There is nothing to hold out.
    #[error("choosing a transform: {0}")]
    Windows(RuntimeError),
}

/// Quantizes the model's linear layers under each transform on seven of eight calibration windows, measures it on the eighth, and takes the
/// transform of the least divergence: the first one, unless a later one is lower by more than a hundredth. `plan` says how they are quantized;
/// `progress` hears of each transform and of each matrix.
///
/// # Errors
/// [`SelectError`]. A transform that the model cannot take is no error.
pub fn select(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    kinds: &[TransformKind],
    windows: &[Vec<u32>],
    positions: usize,
    plan: &BlockPlan,
    progress: &mut dyn FnMut(TransformKind, Option<Progress<'_>>),
) -> Result<Selected, SelectError> {
    if windows.len() < 2 {
        let (name, found) = ("calibration windows", windows.len() as u64);
        return Err(SelectError::Windows(RuntimeError::Limit { name, lowest: 2, highest: u64::MAX, found }));
    }
    let part = |held_out| -> Vec<Vec<u32>> {
        let of_part = |(window, _): &(usize, &Vec<u32>)| is_held_out(*window, windows.len()) == held_out;
        windows.iter().enumerate().filter(of_part).map(|(_, window)| window[..=positions].to_vec()).collect()
    };
    let (training, held_out) = (part(false), part(true));
    let reference = Reference::new(machine, checkpoint, &held_out, positions, &|| ())?;
    let mut best: Option<(TransformKind, f64)> = None;
    let mut candidates = Vec::new();
    for &kind in kinds {
        progress(kind, None);
        let transformed = match build(machine, checkpoint, kind, &training, positions, plan, &mut |_| ()) {
            Err(TransformError::Checkpoint(
                cause @ (CheckpointError::StreamNotRotated { .. }
                | CheckpointError::RotationsNotLearned { .. }
                | CheckpointError::NoTransform { .. }),
            )) => {
                let refused_because = Some(cause.to_string());
                candidates.push(Candidate { transform: kind.name(), mean_kl: None, refused_because });
                continue;
            }
            other => other?,
        };
        let tokens = |windows| Tokens { windows, positions };
        let linears =
            Linears::new(machine, &transformed, plan, tokens(&training), tokens(&held_out), &mut |matrix| {
                progress(kind, Some(matrix))
            })?;
        let subject = Subject::Linears(&linears);
        let measured =
            evaluate(machine, subject, Some(&reference), &held_out, Positions::all(positions), &|| ())?;
        let mean_kl = measured.mean_kl;
        candidates.push(Candidate { transform: kind.name(), mean_kl, refused_because: None });
        if let Some(kl) = mean_kl.filter(|kl| best.is_none_or(|(_, least)| *kl < least * (1.0 - LEAST_GAIN)))
        {
            best = Some((kind, kl));
        }
    }
    let kind = best.map_or(TransformKind::None, |(kind, _)| kind);
    let checkpoint = build(machine, checkpoint, kind, windows, positions, plan, &mut |_| ())?;
    Ok(Selected { kind, checkpoint, candidates })
}
