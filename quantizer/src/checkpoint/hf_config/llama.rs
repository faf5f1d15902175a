//! Llama, Mistral, Qwen 2, Qwen 3, Phi-3 and SmolLM3: RMSNorm, rotary positions, a gate with SiLU.

use rescomp_formats::spec::{Activation, Architecture, ModelSpec};
use serde_json::Value;

use super::super::CheckpointError;
use super::super::names::{LLAMA, Names, PHI3, QWEN2, QWEN3};
use super::fields::{Fields, brief};
use super::rope::{rope, rotary_dim, whole_head};
use super::windows::{Layers, windows};
use super::{Defaults, HfConfig, Keys, MAX_LAYERS, Sizes, activation, only, spec};

pub(super) const KEYS: Keys = Keys {
    hidden: "hidden_size",
    intermediate: "intermediate_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: Some("num_key_value_heads"),
    head_dim: Some("head_dim"),
    context: "max_position_embeddings",
    epsilon: "rms_norm_eps",
};

pub(super) const DEFAULTS: Defaults = Defaults {
    sizes: Sizes {
        vocabulary: 32_000,
        hidden: 4096,
        intermediate: |_| 11_008,
        layers: 32,
        heads: 32,
        context: 2048,
    },
    kv_heads: None,
    head_dim: None,
    epsilon: 1e-6,
    tied_head: false,
    tokens: None,
};
const QWEN_DEFAULTS: Defaults = Defaults {
    sizes: Sizes { vocabulary: 151_936, intermediate: |_| 22_016, context: 32_768, ..DEFAULTS.sizes },
    kv_heads: Some(32),
    ..DEFAULTS
};

/// A gate, as transformers names it.
pub(super) const GATES: [(&str, Activation); 5] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
];
pub(super) const GATE_NAMES: &str = "silu, swish, gelu_pytorch_tanh, gelu_new, gelu_fast";

/// What the families here have in common, with heads that are rotated whole.
pub(super) fn common(
    fields: &Fields<'_>,
    architecture: Architecture,
    names: &'static Names,
    defaults: &Defaults,
) -> Result<HfConfig, CheckpointError> {
    whole_head(fields)?;
    let mut spec = sizes(fields, architecture, defaults)?;
    let rope = rope(fields, "rope_theta", 1e4, &mut spec)?;
    Ok(HfConfig::new(spec, rope, None, names))
}

/// Everything but rotary positions.
fn sizes(
    fields: &Fields<'_>,
    architecture: Architecture,
    defaults: &Defaults,
) -> Result<ModelSpec, CheckpointError> {
    // Variants that load as the same tensors but compute something else.
    only(fields, &[("attention_bias", false), ("mlp_bias", false)])?;
    let gate = activation(fields, "hidden_act", &GATES, GATE_NAMES)?;
    let mut spec = spec(fields, architecture, &KEYS, defaults)?;
    spec.variant.activation = gate.unwrap_or(Activation::Silu);
    Ok(spec)
}

pub(super) fn llama(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    common(fields, Architecture::Llama, &LLAMA, &DEFAULTS)
}

pub(super) fn mistral(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let sizes = Sizes { intermediate: |_| 14_336, context: 131_072, ..DEFAULTS.sizes };
    let defaults = Defaults { sizes, kv_heads: Some(8), ..DEFAULTS };
    let mut config = common(fields, Architecture::Llama, &LLAMA, &defaults)?;
    windows(fields, &mut config.spec, Some(4096), Layers::All)?;
    Ok(config)
}

pub(super) fn qwen2(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let mut config = common(fields, Architecture::Qwen2, &QWEN2, &QWEN_DEFAULTS)?;
    qwen_windows(fields, &mut config.spec)?;
    Ok(config)
}

pub(super) fn qwen3(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let defaults = Defaults { head_dim: Some(128), ..QWEN_DEFAULTS };
    let mut config = common(fields, Architecture::Qwen3, &QWEN3, &defaults)?;
    qwen_windows(fields, &mut config.spec)?;
    Ok(config)
}

/// Layers from `max_window_layers` on have the window, where windows are used at all.
fn qwen_windows(fields: &Fields<'_>, spec: &mut ModelSpec) -> Result<(), CheckpointError> {
    if !fields.flag_or("use_sliding_window", false)? {
        return Ok(());
    }
    let first = fields.whole("max_window_layers", 1 << 20)?.unwrap_or(28);
    windows(fields, spec, Some(4096), Layers::From(first))
}

pub(super) fn phi3(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let sizes_of =
        Sizes { vocabulary: 32_064, hidden: 3072, intermediate: |_| 8192, context: 4096, ..DEFAULTS.sizes };
    let defaults = Defaults { sizes: sizes_of, epsilon: 1e-5, ..DEFAULTS };
    let mut spec = sizes(fields, Architecture::Llama, &defaults)?;
    spec.variant.rotary_dim = rotary_dim(fields, spec.head_dim, "partial_rotary_factor", 1.0)?;
    let rope = rope(fields, "rope_theta", 1e4, &mut spec)?;
    windows(fields, &mut spec, None, Layers::All)?;
    Ok(HfConfig::new(spec, rope, None, &PHI3))
}

/// SmolLM3: Llama with layers that rotate nothing.
pub(super) fn smollm3(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    only(fields, &[("use_sliding_window", false)])?;
    whole_head(fields)?;
    let sizes_of =
        Sizes { vocabulary: 128_256, hidden: 2048, layers: 36, heads: 16, context: 32_768, ..DEFAULTS.sizes };
    let defaults = Defaults { sizes: sizes_of, kv_heads: Some(4), tied_head: true, ..DEFAULTS };
    let mut spec = sizes(fields, Architecture::Llama, &defaults)?;
    let rope = rope(fields, "rope_theta", 2e6, &mut spec)?;
    spec.variant.unrotated_every = unrotated_every(fields, &spec)?;
    Ok(HfConfig::new(spec, rope, None, &LLAMA))
}

/// Of `no_rope_layers`, where 1 says that the layer rotates, and of `no_rope_layer_interval` where there is no such list.
fn unrotated_every(fields: &Fields<'_>, spec: &ModelSpec) -> Result<u32, CheckpointError> {
    let (list, interval) = ("no_rope_layers", "no_rope_layer_interval");
    let layers = spec.layers as usize;
    let rotates: Vec<bool> = match fields.get(list) {
        None => return Ok(fields.optional_size(interval, MAX_LAYERS)?.unwrap_or(4)),
        Some(Value::Array(values)) if values.len() >= layers => {
            let of = |value: &Value| match value.as_u64() {
                Some(0) => Ok(false),
                Some(1) => Ok(true),
                _ => Err(fields.wrong(list, "0 or 1 for each layer".into(), brief(value))),
            };
            values[..layers].iter().map(of).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(fields.wrong(list, format!("a list of {layers}"), brief(other))),
    };
    let Some(first) = rotates.iter().position(|rotates| !rotates) else { return Ok(0) };
    let every = first + 1;
    match rotates.iter().zip(1..).all(|(rotates, layer)| *rotates != (layer % every == 0)) {
        true => Ok(every as u32),
        false => {
            let found = "no periodic order of layers with and without rotation";
            Err(fields.unsupported(list, found, "every so many-th layer 0"))
        }
    }
}
