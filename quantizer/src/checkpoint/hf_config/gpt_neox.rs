//! GPT-NeoX (Pythia): LayerNorm, biases, rotary positions in a part of the head, attention and MLP side by side.

use rescomp_formats::spec::{Activation, Architecture};

use super::super::CheckpointError;
use super::super::names::GPT_NEOX;
use super::fields::Fields;
use super::llama::KEYS;
use super::rope::{rope, rotary_dim};
use super::{Defaults, HfConfig, Keys, activation, only, spec};

pub(super) const GELUS: [(&str, Activation); 5] = [
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
];
pub(super) const GELU_NAMES: &str = "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu";

pub(super) fn gpt_neox(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    only(fields, &[("attention_bias", true)])?;
    let keys = Keys { kv_heads: None, head_dim: None, epsilon: "layer_norm_eps", ..KEYS };
    let defaults =
        Defaults { kv_heads: None, head_dim: None, intermediate: None, epsilon: 1e-5, tied_head: false };
    let mut spec = spec(fields, Architecture::GptNeox, &keys, &defaults)?;
    let act = activation(fields, "hidden_act", &GELUS, GELU_NAMES)?;
    spec.variant.activation = act.unwrap_or(Activation::Gelu);
    spec.variant.parallel_residual = fields.flag_or("use_parallel_residual", true)?;
    spec.variant.rotary_dim = rotary_dim(fields, spec.head_dim, "rotary_pct", 0.25)?;
    let rope = rope(fields, "rotary_emb_base")?;
    Ok(HfConfig { spec, rope, local_rope: None, names: &GPT_NEOX, position_rows: None, token_types: 0 })
}
