//! Sliding windows, and which layers have them.

use rescomp_formats::spec::{Architecture, ModelSpec};
use serde_json::Value;

use super::super::CheckpointError;
use super::MAX_CONTEXT;
use super::fields::{Fields, brief};

/// The layers that have a window where `layer_types` does not say.
#[derive(Clone, Copy)]
pub(super) enum Layers {
    /// All.
    All,
    /// All from this one on.
    From(u32),
    /// All but every so many-th.
    AllBut {
        /// How many.
        every: u32,
    },
}

/// Reads `sliding_window` and `layer_types`. `default` is the window where its field is absent; null means none.
///
/// # Errors
/// A window that cannot be; layers with and without one in an order that isn't periodic.
pub(super) fn windows(
    fields: &Fields<'_>,
    spec: &mut ModelSpec,
    default: Option<u32>,
    layers: Layers,
) -> Result<(), CheckpointError> {
    let given = fields.optional_size("sliding_window", MAX_CONTEXT)?;
    let default = default.filter(|_| !fields.object.contains_key("sliding_window"));
    let Some(window) = given.or(default).filter(|window| bounds(spec, *window)) else { return Ok(()) };
    let has_window: Vec<bool> = match layer_types(fields, spec.layers)? {
        Some(types) => types,
        None => (0..spec.layers)
            .map(|layer| match layers {
                Layers::All => true,
                Layers::From(first) => layer >= first,
                Layers::AllBut { every } => !(layer + 1).is_multiple_of(every),
            })
            .collect(),
    };
    set_windows(fields, spec, window, &has_window, "layer_types")
}

/// Whether a window means anything: one as long as the context bounds nothing; but where layers with a window have frequencies of their own,
/// they keep these.
fn bounds(spec: &ModelSpec, window: u32) -> bool {
    window < spec.context || spec.architecture.has_local_frequencies()
}

/// Of layers with (`true`) and without a window, which `key` says.
///
/// # Errors
/// Layers with and without a window in an order that isn't periodic.
pub(super) fn set_windows(
    fields: &Fields<'_>,
    spec: &mut ModelSpec,
    window: u32,
    has_window: &[bool],
    key: &'static str,
) -> Result<(), CheckpointError> {
    if !bounds(spec, window) || has_window.iter().all(|has| !has) {
        return Ok(());
    }
    let mut without = (0..).zip(has_window).filter(|(_, has)| !**has).map(|(layer, _)| layer);
    let period = match spec.architecture {
        // Where the only layer without a window is the first, the next would follow the last.
        Architecture::GptNeo => without.next().map(|_| without.next().unwrap_or(spec.layers)),
        _ => without.next().map(|first| first + 1),
    };
    spec.variant.sliding_window = window.min(1 << 20);
    spec.variant.global_every = period.unwrap_or(0);
    let periodic = (0..).zip(has_window).all(|(layer, has)| spec.window(layer).is_some() == *has);
    if !periodic {
        let found = "no periodic order of layers with and without a window";
        let supported = match spec.architecture {
            Architecture::GptNeo => "every so many-th layer, from the first on, without a window",
            _ => "every so many-th layer without a window",
        };
        return Err(fields.unsupported(key, found, supported));
    }
    Ok(())
}

/// Whether each layer has a window.
fn layer_types(fields: &Fields<'_>, layers: u32) -> Result<Option<Vec<bool>>, CheckpointError> {
    let key = "layer_types";
    let list = match fields.get(key) {
        None => return Ok(None),
        Some(Value::Array(list)) if list.len() == layers as usize => list,
        Some(other) => return Err(fields.wrong(key, format!("a list of {layers}"), brief(other))),
    };
    let of = |value: &Value| match value.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(fields.unsupported(key, &brief(value), "sliding_attention, full_attention")),
    };
    list.iter().map(of).collect::<Result<_, _>>().map(Some)
}
