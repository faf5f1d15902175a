//! Llama, Mistral, Qwen 2, Qwen 3 and Phi-3: RMSNorm, rotary positions, a gate with SiLU.

use rescomp_formats::spec::{Activation, Architecture, ModelSpec};

use super::super::CheckpointError;
use super::super::names::{LLAMA, Names, PHI3, QWEN2, QWEN3};
use super::fields::Fields;
use super::rope::{rope, rotary_dim, whole_head};
use super::windows::{Layers, windows};
use super::{Defaults, HfConfig, Keys, activation, only, spec};

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

const DEFAULTS: Defaults =
    Defaults { kv_heads: None, head_dim: None, intermediate: None, epsilon: 1e-6, tied_head: false };

/// What the families here have in common.
fn common(
    fields: &Fields<'_>,
    architecture: Architecture,
    names: &'static Names,
    defaults: &Defaults,
) -> Result<HfConfig, CheckpointError> {
    // Variants that load as the same tensors but compute something else.
    only(fields, &[("attention_bias", false), ("mlp_bias", false)])?;
    activation(fields, "hidden_act", &[("silu", Activation::Silu)], "silu")?;
    let spec = spec(fields, architecture, &KEYS, defaults)?;
    Ok(HfConfig {
        spec,
        rope: rope(fields, "rope_theta")?,
        local_rope: None,
        names,
        position_rows: None,
        token_types: 0,
    })
}

/// A config whose heads are rotated whole.
fn rotated_whole(
    fields: &Fields<'_>,
    architecture: Architecture,
    names: &'static Names,
    defaults: &Defaults,
) -> Result<HfConfig, CheckpointError> {
    whole_head(fields)?;
    common(fields, architecture, names, defaults)
}

fn set_windows(
    fields: &Fields<'_>,
    spec: &mut ModelSpec,
    default: Option<u32>,
) -> Result<(), CheckpointError> {
    windows(fields, spec, default, Layers::All)
}

pub(super) fn llama(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    rotated_whole(fields, Architecture::Llama, &LLAMA, &DEFAULTS)
}

pub(super) fn mistral(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let defaults = Defaults { kv_heads: Some(8), ..DEFAULTS };
    let mut config = rotated_whole(fields, Architecture::Llama, &LLAMA, &defaults)?;
    set_windows(fields, &mut config.spec, Some(4096))?;
    Ok(config)
}

pub(super) fn qwen2(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let defaults = Defaults { kv_heads: Some(32), ..DEFAULTS };
    let mut config = rotated_whole(fields, Architecture::Qwen2, &QWEN2, &defaults)?;
    qwen_windows(fields, &mut config.spec)?;
    Ok(config)
}

pub(super) fn qwen3(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let defaults = Defaults { kv_heads: Some(32), head_dim: Some(128), ..DEFAULTS };
    let mut config = rotated_whole(fields, Architecture::Qwen3, &QWEN3, &defaults)?;
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
    let defaults = Defaults { epsilon: 1e-5, ..DEFAULTS };
    let mut config = common(fields, Architecture::Llama, &PHI3, &defaults)?;
    config.spec.variant.rotary_dim = rotary_dim(fields, config.spec.head_dim, "partial_rotary_factor", 1.0)?;
    set_windows(fields, &mut config.spec, None)?;
    Ok(config)
}
