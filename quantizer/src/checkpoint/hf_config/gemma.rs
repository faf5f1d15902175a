//! Gemma, Gemma 2 and Gemma 3 (text): a gate with tanh's GELU, embeddings multiplied with the root of their width.

use rescomp_formats::spec::{Activation, Architecture};

use super::super::CheckpointError;
use super::super::names::{GEMMA, GEMMA2, GEMMA3, Names};
use super::fields::Fields;
use super::llama::KEYS;
use super::rope::{layered_rope, rope, whole_head};
use super::windows::{Layers, windows};
use super::{Defaults, HfConfig, activation, only, spec};

/// Families that have a window by default have one of so many positions.
const WINDOW: u32 = 4096;

fn common(
    fields: &Fields<'_>,
    architecture: Architecture,
    names: &'static Names,
    kv_heads: u32,
) -> Result<HfConfig, CheckpointError> {
    only(fields, &[("attention_bias", false), ("use_bidirectional_attention", false)])?;
    // The first files say "gelu", and mean tanh's.
    let known = [("gelu_pytorch_tanh", Activation::GeluTanh), ("gelu", Activation::GeluTanh)];
    for key in ["hidden_activation", "hidden_act"] {
        activation(fields, key, &known, "gelu_pytorch_tanh, gelu")?;
    }
    let defaults = Defaults {
        kv_heads: Some(kv_heads),
        head_dim: Some(256),
        intermediate: None,
        epsilon: 1e-6,
        tied_head: true,
    };
    let mut spec = spec(fields, architecture, &KEYS, &defaults)?;
    spec.variant.activation = Activation::GeluTanh;
    spec.variant.embedding_scale = f64::from(spec.hidden).sqrt() as f32;
    Ok(HfConfig {
        spec,
        rope: super::super::rope::Rope::plain(1e4),
        local_rope: None,
        names,
        position_rows: None,
        token_types: 0,
    })
}

pub(super) fn gemma(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let mut config = common(fields, Architecture::Llama, &GEMMA, 16)?;
    whole_head(fields)?;
    config.rope = rope(fields, "rope_theta")?;
    Ok(config)
}

pub(super) fn gemma2(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let mut config = common(fields, Architecture::Gemma2, &GEMMA2, 4)?;
    whole_head(fields)?;
    config.rope = rope(fields, "rope_theta")?;
    scores(fields, &mut config, [50.0, 30.0])?;
    windows(fields, &mut config.spec, Some(WINDOW), Layers::AllBut { every: 2 })?;
    Ok(config)
}

pub(super) fn gemma3(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let mut config = common(fields, Architecture::Gemma3, &GEMMA3, 4)?;
    scores(fields, &mut config, [0.0, 0.0])?;
    let every = fields.optional_size("sliding_window_pattern", super::MAX_LAYERS)?;
    let every = every.or(fields.optional_size("_sliding_window_pattern", super::MAX_LAYERS)?).unwrap_or(6);
    windows(fields, &mut config.spec, Some(WINDOW), Layers::AllBut { every })?;
    (config.rope, config.local_rope) = layered_rope(fields).map(|(all, local)| (all, Some(local)))?;
    Ok(config)
}

/// What scores are multiplied with, and what bounds them and the logits. `caps` are what absent bounds mean; 0: there are none.
fn scores(fields: &Fields<'_>, config: &mut HfConfig, caps: [f32; 2]) -> Result<(), CheckpointError> {
    let positive = |key: &str, value: f64| match value > 0.0 && value <= 1e6 {
        true => Ok(value),
        false => Err(fields.wrong(key, "a number above 0, at most 1e6".into(), value)),
    };
    let width = "query_pre_attn_scalar";
    let scalar = positive(width, fields.number(width)?.unwrap_or(256.0))?;
    let variant = &mut config.spec.variant;
    variant.score_scale = scalar.powf(-0.5) as f32;
    let cap = |key: &str, default: f32| match fields.number(key)? {
        Some(cap) => Ok(positive(key, cap)? as f32),
        // Null means none, and is told from absent.
        None if fields.object.contains_key(key) => Ok(0.0),
        None => Ok(default),
    };
    variant.score_cap = cap("attn_logit_softcapping", caps[0])?;
    variant.logit_cap = cap("final_logit_softcapping", caps[1])?;
    Ok(())
}
