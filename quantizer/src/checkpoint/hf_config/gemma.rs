//! Gemma, Gemma 2 and Gemma 3 (text): a gate with tanh's GELU, embeddings multiplied with the root of their width.

use rescomp_formats::spec::{Activation, Architecture, ModelSpec};

use super::super::CheckpointError;
use super::super::names::{GEMMA, GEMMA2, GEMMA3, GEMMA3_WITH_IMAGES};
use super::fields::{Fields, brief};
use super::llama::KEYS;
use super::rope::{layered_rope, rope, whole_head};
use super::windows::{Layers, windows};
use super::{Defaults, HfConfig, Sizes, activation, only, spec};

/// Families that have a window by default have one of so many positions.
const WINDOW: u32 = 4096;

const SIZES: Sizes =
    Sizes { vocabulary: 256_000, hidden: 2304, intermediate: |_| 9216, layers: 26, heads: 8, context: 8192 };

/// Everything but rotary positions.
fn sizes(
    fields: &Fields<'_>,
    architecture: Architecture,
    sizes: Sizes,
    kv_heads: u32,
) -> Result<ModelSpec, CheckpointError> {
    only(fields, &[("attention_bias", false), ("use_bidirectional_attention", false)])?;
    // The first files say "gelu", and mean tanh's.
    let known = [("gelu_pytorch_tanh", Activation::GeluTanh), ("gelu", Activation::GeluTanh)];
    for key in ["hidden_activation", "hidden_act"] {
        activation(fields, key, &known, "gelu_pytorch_tanh, gelu")?;
    }
    let defaults = Defaults {
        sizes,
        kv_heads: Some(kv_heads),
        head_dim: Some(256),
        epsilon: 1e-6,
        tied_head: true,
        tokens: Some([2, 1]),
    };
    let mut spec = spec(fields, architecture, &KEYS, &defaults)?;
    spec.variant.activation = Activation::GeluTanh;
    spec.variant.embedding_scale = f64::from(spec.hidden).sqrt() as f32;
    Ok(spec)
}

pub(super) fn gemma(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let of = Sizes { hidden: 3072, intermediate: |_| 24_576, layers: 28, heads: 16, ..SIZES };
    let mut spec = sizes(fields, Architecture::Llama, of, 16)?;
    whole_head(fields)?;
    let rope = rope(fields, "rope_theta", 1e4, &mut spec)?;
    Ok(HfConfig::new(spec, rope, None, &GEMMA))
}

pub(super) fn gemma2(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let mut spec = sizes(fields, Architecture::Gemma2, SIZES, 4)?;
    whole_head(fields)?;
    let rope = rope(fields, "rope_theta", 1e4, &mut spec)?;
    scores(fields, &mut spec, [50.0, 30.0])?;
    windows(fields, &mut spec, Some(WINDOW), Layers::AllBut { every: 2 })?;
    Ok(HfConfig::new(spec, rope, None, &GEMMA2))
}

pub(super) fn gemma3(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let of = Sizes { vocabulary: 262_208, context: 131_072, ..SIZES };
    let mut spec = sizes(fields, Architecture::Gemma3, of, 4)?;
    scores(fields, &mut spec, [0.0, 0.0])?;
    if spec.variant.score_cap > 0.0 {
        // transformers passes it over, and llama.cpp has it of Gemma 2 alone.
        return Err(fields.unsupported("attn_logit_softcapping", "given", "null"));
    }
    let every = fields.optional_size("sliding_window_pattern", super::MAX_LAYERS)?;
    let every = every.or(fields.optional_size("_sliding_window_pattern", super::MAX_LAYERS)?).unwrap_or(6);
    windows(fields, &mut spec, Some(WINDOW), Layers::AllBut { every })?;
    let (all, local) = layered_rope(fields, &mut spec)?;
    Ok(HfConfig::new(spec, all, Some(local), &GEMMA3))
}

/// The text's part of a model that sees images: `text_config`, with the tokens that stand at the top.
pub(super) fn gemma3_with_images(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let text = "text_config";
    let mut object = fields.inner(text, text)?.object.clone();
    for key in ["bos_token_id", "eos_token_id", "tie_word_embeddings"] {
        if let Some(value) = fields.get(key) {
            object.insert(key.to_owned(), value.clone());
        }
    }
    let inner = Fields { path: fields.path, prefix: text, object: &object };
    if let Some(settings) = inner.get("quantization_config") {
        let supported = "weights that are not quantized yet";
        return Err(inner.unsupported("quantization_config", &brief(settings), supported));
    }
    let config = gemma3(&inner)?;
    Ok(HfConfig { names: &GEMMA3_WITH_IMAGES, ..config })
}

/// What scores are multiplied with, and what bounds them and the logits. `caps` are what absent bounds mean; 0: there are none.
fn scores(fields: &Fields<'_>, spec: &mut ModelSpec, caps: [f32; 2]) -> Result<(), CheckpointError> {
    let positive = |key: &str, value: f64| match value > 0.0 && value <= 1e6 {
        true => Ok(value),
        false => Err(fields.wrong(key, "a number above 0, at most 1e6".into(), value)),
    };
    let width = "query_pre_attn_scalar";
    let scalar = positive(width, fields.number(width)?.unwrap_or(256.0))?;
    let variant = &mut spec.variant;
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
