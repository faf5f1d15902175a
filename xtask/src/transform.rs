//! `pack --transform`: what is folded into the weights before they are quantized, named or chosen.

use rescomp_quantizer::calibrate::Progress;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::pack::PackOptions;
use rescomp_quantizer::transforms::spinquant::SpinQuantOptions;
use rescomp_quantizer::transforms::{Candidate, SelectError, Selected, TransformKind, build, select};
use rescomp_runtime::Machine;
use serde::Serialize;

use crate::error::Error;
use crate::flags::{Choice, PackFlags};
use crate::{encoder, host, output};

/// What `auto` chooses from: what costs a device nothing. The last one, which is learned, only of models that are small enough.
const CHOICES: [TransformKind; 4] =
    [TransformKind::None, TransformKind::Smooth, TransformKind::Quarot, TransformKind::Spinquant];
/// Parameters of a model up to which a step of learning takes seconds on a host of few cores.
const LEARNED_PARAMETERS: u64 = 20_000_000;

/// What `auto` tried.
#[derive(Debug, Serialize)]
pub(crate) struct Selection {
    /// The chosen one.
    chosen: &'static str,
    /// All of them, with what they gave on held-out calibration windows, linear layers alone.
    candidates: Vec<Candidate>,
}

impl Selection {
    /// As a line for people.
    pub(crate) fn in_words(&self) -> String {
        let each: Vec<String> = self
            .candidates
            .iter()
            .map(|candidate| match (candidate.mean_kl, &candidate.refused_because) {
                (Some(kl), _) => format!("{} {kl:.4}", candidate.transform),
                (None, cause) => {
                    let cause = cause.as_deref().unwrap_or("not measured");
                    format!("{} not possible ({cause})", candidate.transform)
                }
            })
            .collect();
        format!("transform {}: mean KL on held-out calibration windows: {}", self.chosen, each.join(", "))
    }
}

/// The checkpoint as it is to be quantized, and what was tried where something was chosen.
///
/// # Errors
/// `Exit::Input` for a transform that the model cannot take, and for a choice without text to measure on; `Exit::Failed` for a model that cannot
/// be run.
pub(crate) fn transformed(
    machine: Machine<'_>,
    flags: &PackFlags,
    checkpoint: Checkpoint,
    options: &PackOptions,
) -> Result<(Checkpoint, Option<Selection>), Error> {
    let (windows, positions) = (&options.calibration, options.calibration_positions);
    let layers = checkpoint.spec.layers as usize;
    match flags.transform {
        Choice::Given(kind) => {
            let kind = TransformKind::from(kind);
            let (what, steps) = match kind {
                TransformKind::Spinquant => (
                    "learning rotations",
                    SpinQuantOptions::new(options.plan.options.bits, options.plan.options.group).steps,
                ),
                _ => ("channel scales", layers),
            };
            let bar = host::progress(what, steps);
            let mut each = |_| bar.inc(1);
            let made = build(machine, &checkpoint, kind, windows, positions, &options.plan, &mut each);
            bar.finish_and_clear();
            Ok((made.map_err(|error| Error::input(error.to_string()))?, None))
        }
        Choice::Auto => {
            encoder::expect_decoder(&checkpoint.spec, "divergence that says which transform is best")?;
            let matrices = 7 * layers;
            let learned = checkpoint.parameters() <= LEARNED_PARAMETERS;
            let choices = if learned { &CHOICES[..] } else { &CHOICES[..CHOICES.len() - 1] };
            if !learned {
                output::note(&format!(
                    "note: spinquant is not tried: the model has {} parameters, and learning is tried up to {LEARNED_PARAMETERS}",
                    checkpoint.parameters()
                ));
            }
            let bar = host::progress("choosing a transform", choices.len() * matrices);
            let mut each = |kind: TransformKind, progress: Option<Progress<'_>>| match progress {
                None if bar.is_hidden() => {
                    output::note(&format!("transform {kind}: quantizing to measure it"))
                }
                None => bar.set_message(format!("transform {kind}")),
                Some(Progress::Matrix { .. }) => bar.inc(1),
                Some(_) => {}
            };
            let selected =
                select(machine, &checkpoint, choices, windows, positions, &options.plan, &mut each);
            bar.finish_and_clear();
            let Selected { kind, checkpoint, candidates } = selected.map_err(|error| match error {
                SelectError::Linears(_) | SelectError::Evaluation(_) => Error::failed(error.to_string()),
                SelectError::Transform(_) | SelectError::Windows(_) => Error::input(error.to_string()),
            })?;
            Ok((checkpoint, Some(Selection { chosen: kind.name(), candidates })))
        }
    }
}
