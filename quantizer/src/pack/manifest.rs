//! A container's manifest: the model, and where its weights come from.

use super::PackOptions;
use crate::bands::{BANDS, Bands};
use crate::checkpoint::Checkpoint;
use crate::methods::GroupSize;
use crate::transforms::TransformKind;
use crate::vocabulary::VocabularyMatrix;
use rescomp_formats::manifest::{Check, Manifest, Provenance, Text, is_printable};
use rescomp_formats::spec::ModelSpec;

/// Bits of the head: of the embedding where they are the same, and of its widest band.
pub(super) fn head_bits(vocabulary: &[VocabularyMatrix]) -> u8 {
    let Some(last) = vocabulary.last() else { return 0 };
    let same_kind = vocabulary.iter().filter(|matrix| matrix.kind == last.kind);
    same_kind.map(|matrix| matrix.format.bits).max().unwrap_or(0)
}

/// The bands of the embedding, where it has several.
pub(super) fn bands(options: &PackOptions) -> Option<&Bands> {
    options.plan.vocabulary.as_ref()?.bands.as_ref()
}

pub(super) fn manifest(
    checkpoint: &Checkpoint,
    options: &PackOptions,
    head_bits: u8,
    check: Check,
) -> Manifest {
    let solver = &options.plan.options;
    Manifest {
        spec: ModelSpec {
            chat_template: options.chat_template.section.is_some(),
            embedding_bands: bands(options).map_or(1, |_| BANDS as u8),
            ..checkpoint.spec.clone()
        },
        provenance: Provenance {
            checkpoint: text(&checkpoint.name()),
            checkpoint_sha256: checkpoint.digest(),
            method: text(options.plan.method.name()),
            transform: text(transform_name(checkpoint)),
            bits: solver.bits,
            group_elems: group_elems(solver.group),
            head_bits,
            calibration_sha256: calibration_digest(options),
            calibration_tokens: calibration_tokens(&checkpoint.spec, options),
            target: text(&options.target),
            tool_version: text(env!("CARGO_PKG_VERSION")),
        },
        check,
        cache: options.cache,
    }
}

/// Calibration tokens that had a part in the codes: none where the method only rounds.
pub(super) fn calibration_tokens(spec: &ModelSpec, options: &PackOptions) -> u64 {
    match options.plan.calibrates() {
        true => {
            let inputs = options.inputs();
            (inputs.count() * inputs.tokens(spec)) as u64
        }
        false => 0,
    }
}

/// SHA-256 of the calibration tokens or images; zeros where they had no part in the codes.
fn calibration_digest(options: &PackOptions) -> [u8; 32] {
    match options.plan.calibrates() {
        true => options.inputs().digest(),
        false => [0; 32],
    }
}

/// Name of what is folded into the weights.
pub(super) fn transform_name(checkpoint: &Checkpoint) -> &'static str {
    checkpoint.transform().map_or(TransformKind::None, |transform| transform.kind).name()
}

/// Columns a group, 0 standing for whole rows.
pub(super) fn group_elems(group: GroupSize) -> u32 {
    match group {
        GroupSize::Elements(elems) => elems.get() as u32,
        GroupSize::Row => 0,
    }
}

/// As much of a name as the manifest holds; what it does not hold becomes U+FFFD.
fn text(name: &str) -> Text {
    let mut text = Text::new();
    for character in name.chars() {
        if text.push(if is_printable(character) { character } else { '\u{fffd}' }).is_err() {
            break;
        }
    }
    text
}
