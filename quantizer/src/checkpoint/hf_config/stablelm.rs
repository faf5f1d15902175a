//! StableLM: Llama with LayerNorms, and rotary positions in a part of the head.

use rescomp_formats::spec::{Activation, Architecture};

use super::super::CheckpointError;
use super::super::names::{
    STABLE_LM, STABLE_LM_PARALLEL, STABLE_LM_PARALLEL_WITH_BIASES, STABLE_LM_WITH_BIASES,
};
use super::fields::Fields;
use super::llama::{DEFAULTS, GATE_NAMES, GATES, KEYS};
use super::rope::{rope, rotary_dim};
use super::{Defaults, HfConfig, Keys, Sizes, activation, only, spec};

pub(super) fn stablelm(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    // Norms of each head are LayerNorms, another for each, which the forward does not have.
    only(fields, &[("qk_layernorm", false)])?;
    // Heads are as wide as the quotient, whatever a file says.
    let keys = Keys { head_dim: None, epsilon: "layer_norm_eps", ..KEYS };
    let sizes =
        Sizes { vocabulary: 50_304, hidden: 2560, intermediate: |_| 6912, context: 4096, ..DEFAULTS.sizes };
    let defaults = Defaults { sizes, kv_heads: Some(32), epsilon: 1e-5, ..DEFAULTS };
    let mut spec = spec(fields, Architecture::StableLm, &keys, &defaults)?;
    if let Some(head_dim) = fields.optional_size("head_dim", super::MAX_HEAD_DIM)?
        && head_dim != spec.head_dim
    {
        // The class takes it for the frequencies, and not for the heads.
        let expected = format!("{}, the width of a head", spec.head_dim);
        return Err(fields.wrong("head_dim", expected, head_dim));
    }
    let gate = activation(fields, "hidden_act", &GATES, GATE_NAMES)?;
    spec.variant.activation = gate.unwrap_or(Activation::Silu);
    spec.variant.parallel_residual = fields.flag_or("use_parallel_residual", false)?;
    spec.variant.rotary_dim = rotary_dim(fields, spec.head_dim, "partial_rotary_factor", 0.25)?;
    let rope = rope(fields, "rope_theta", 1e4, &mut spec)?;
    let names = match (spec.variant.parallel_residual, fields.flag_or("use_qkv_bias", false)?) {
        (false, false) => &STABLE_LM,
        (false, true) => &STABLE_LM_WITH_BIASES,
        (true, false) => &STABLE_LM_PARALLEL,
        (true, true) => &STABLE_LM_PARALLEL_WITH_BIASES,
    };
    Ok(HfConfig::new(spec, rope, None, names))
}
