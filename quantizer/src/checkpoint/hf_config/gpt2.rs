//! GPT-2 and OPT: LayerNorm, biases, learned positions.

use rescomp_formats::spec::{Activation, Architecture};

use super::super::CheckpointError;
use super::super::names::{GPT2, OPT};
use super::super::rope::Rope;
use super::fields::Fields;
use super::gpt_neox::{GELU_NAMES, GELUS};
use super::llama::{DEFAULTS, KEYS};
use super::{Defaults, HfConfig, Keys, MAX_HIDDEN, Sizes, activation, only, same_size, spec};

pub(super) fn gpt2(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    only(fields, &[("add_cross_attention", false)])?;
    let keys = Keys {
        hidden: "n_embd",
        intermediate: "n_inner",
        layers: "n_layer",
        heads: "n_head",
        kv_heads: None,
        head_dim: None,
        context: "n_positions",
        epsilon: "layer_norm_epsilon",
    };
    let defaults = Defaults {
        sizes: Sizes {
            vocabulary: 50_257,
            hidden: 768,
            intermediate: |hidden| hidden.saturating_mul(4),
            layers: 12,
            heads: 12,
            context: 1024,
        },
        epsilon: 1e-5,
        tied_head: true,
        ..DEFAULTS
    };
    let mut spec = spec(fields, Architecture::Gpt2, &keys, &defaults)?;
    same_size(fields, "num_attention_heads", keys.heads, spec.heads)?;
    let act = activation(fields, "activation_function", &GELUS, GELU_NAMES)?;
    spec.variant.activation = act.unwrap_or(Activation::GeluTanh);
    spec.variant.rotary_dim = 0;
    if !fields.flag_or("scale_attn_weights", true)? {
        spec.variant.score_scale = 1.0;
    }
    let mut config = HfConfig::new(spec, Rope::plain(1e4), None, &GPT2);
    config.folded.scores_by_layer = fields.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    Ok(config)
}

pub(super) fn opt(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    only(
        fields,
        &[
            ("do_layer_norm_before", true),
            ("enable_bias", true),
            ("layer_norm_elementwise_affine", true),
            ("_remove_final_layer_norm", false),
        ],
    )?;
    let keys = Keys { intermediate: "ffn_dim", kv_heads: None, head_dim: None, ..KEYS };
    let sizes = Sizes {
        vocabulary: 50_272,
        hidden: 768,
        intermediate: |_| 3072,
        layers: 12,
        heads: 12,
        context: 2048,
    };
    let defaults = Defaults { sizes, epsilon: 1e-5, tied_head: true, ..DEFAULTS };
    let mut spec = spec(fields, Architecture::Gpt2, &keys, &defaults)?;
    // Embeddings of another width are projected to that of the stream and back.
    let width = fields.optional_size("word_embed_proj_dim", MAX_HIDDEN)?;
    if width.is_some_and(|width| width != spec.hidden) {
        return Err(fields.unsupported("word_embed_proj_dim", "not hidden_size", "hidden_size"));
    }
    let act = activation(fields, "activation_function", &GELUS, GELU_NAMES)?;
    spec.variant.activation = act.unwrap_or(Activation::Relu);
    spec.variant.rotary_dim = 0;
    Ok(HfConfig::new(spec, Rope::plain(1e4), None, &OPT))
}
