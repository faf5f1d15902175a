//! GPT-Neo: GPT-2 whose scores are not scaled, with windows in some layers.

use rescomp_formats::spec::{Activation, Architecture};
use serde_json::Value;

use super::super::CheckpointError;
use super::super::names::GPT_NEO;
use super::super::rope::Rope;
use super::fields::{Fields, brief};
use super::gpt_neox::{GELU_NAMES, GELUS};
use super::llama::{DEFAULTS, KEYS};
use super::windows::set_windows;
use super::{Defaults, HfConfig, Keys, MAX_CONTEXT, MAX_LAYERS, Sizes, activation, same_size, spec};

const TYPES: &str = "attention_types";
const LAYERS: &str = "attention_layers";
const NAMES: &str = "global, local";
/// Layers that `attention_types` means where it is absent: a global and a local one in turn.
const DEFAULT_LAYERS: usize = 24;

pub(super) fn gpt_neo(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let keys = Keys {
        layers: "num_layers",
        heads: "num_heads",
        kv_heads: None,
        head_dim: None,
        epsilon: "layer_norm_epsilon",
        ..KEYS
    };
    let sizes = Sizes {
        vocabulary: 50_257,
        hidden: 2048,
        intermediate: |hidden| hidden.saturating_mul(4),
        layers: 24,
        heads: 16,
        context: 2048,
    };
    let defaults = Defaults { sizes, epsilon: 1e-5, tied_head: true, ..DEFAULTS };
    let mut spec = spec(fields, Architecture::GptNeo, &keys, &defaults)?;
    same_size(fields, "num_attention_heads", keys.heads, spec.heads)?;
    let act = activation(fields, "activation_function", &GELUS, GELU_NAMES)?;
    spec.variant.activation = act.unwrap_or(Activation::GeluTanh);
    spec.variant.rotary_dim = 0;
    spec.variant.score_scale = 1.0;
    let window = fields.optional_size("window_size", MAX_CONTEXT)?.unwrap_or(256);
    let (key, local) = local_layers(fields, spec.layers as usize)?;
    set_windows(fields, &mut spec, window, &local, key)?;
    Ok(HfConfig::new(spec, Rope::plain(1e4), None, &GPT_NEO))
}

/// Whether each layer has a window, and the field that says it: `attention_types` in runs, or `attention_layers` one by one. Where both are
/// there they must agree.
fn local_layers(fields: &Fields<'_>, layers: usize) -> Result<(&'static str, Vec<bool>), CheckpointError> {
    let listed = match fields.get(LAYERS) {
        None => None,
        Some(Value::Array(list)) if list.len() == layers => {
            let local: Result<Vec<bool>, _> =
                list.iter().map(|kind| is_local(fields, LAYERS, kind)).collect();
            Some(local?)
        }
        Some(other) => return Err(fields.wrong(LAYERS, format!("a list of {layers}"), brief(other))),
    };
    let expanded = match (fields.get(TYPES), &listed) {
        (Some(types), _) => Some(expand(fields, types)?),
        (None, Some(_)) if layers != DEFAULT_LAYERS => None,
        (None, _) => Some((0..DEFAULT_LAYERS).map(|layer| layer % 2 == 1).collect()),
    };
    match (expanded, listed) {
        (Some(types), _) if types.len() != layers => {
            let found = match fields.get(TYPES) {
                None => "nothing, which means 24".to_owned(),
                Some(_) => types.len().to_string(),
            };
            Err(fields.wrong(TYPES, format!("as many layers as num_layers = {layers}"), found))
        }
        (Some(types), Some(listed)) if types != listed => {
            let expected = "the layers of attention_types (absent, global and local in turn)".into();
            Err(fields.wrong(LAYERS, expected, "others"))
        }
        (Some(types), _) => Ok((TYPES, types)),
        (None, listed) => Ok((LAYERS, listed.unwrap_or_default())),
    }
}

/// A list of runs, each a list of kinds and how often it comes: `[[["global", "local"], 12]]`.
fn expand(fields: &Fields<'_>, types: &Value) -> Result<Vec<bool>, CheckpointError> {
    let wrong = || {
        let expected = format!("a list of [[kinds], times], of at most {MAX_LAYERS} layers");
        fields.wrong(TYPES, expected, brief(types))
    };
    let mut local = Vec::new();
    for run in types.as_array().ok_or_else(wrong)? {
        let Some([Value::Array(kinds), times]) = run.as_array().map(Vec::as_slice) else {
            return Err(wrong());
        };
        let times = times.as_u64().filter(|&times| times <= MAX_LAYERS.into()).ok_or_else(wrong)?;
        for _ in 0..times {
            for kind in kinds {
                local.push(is_local(fields, TYPES, kind)?);
            }
            if local.len() > MAX_LAYERS as usize {
                return Err(wrong());
            }
        }
    }
    Ok(local)
}

fn is_local(fields: &Fields<'_>, key: &str, kind: &Value) -> Result<bool, CheckpointError> {
    match kind.as_str() {
        Some("local") => Ok(true),
        Some("global") => Ok(false),
        _ => Err(fields.unsupported(key, &brief(kind), NAMES)),
    }
}
