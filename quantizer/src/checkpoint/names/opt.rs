//! OPT, as transformers names its tensors (`OPTForCausalLM`): GPT-2 with two rows in front of the positions.

use super::{Names, whole};
use rescomp_formats::section::SectionKind as K;

pub(in super::super) const OPT: Names = Names {
    prefixes: &["model.decoder.", "decoder."],
    embedding: "embed_tokens.weight",
    positions: Some("embed_positions.weight"),
    unused_positions: 2,
    token_types: None,
    norm: "final_layer_norm.weight",
    norm_bias: Some("final_layer_norm.bias"),
    head: "lm_head.weight",
    layers: "layers.",
    stored: &[&[
        whole("self_attn_layer_norm.weight", &[K::AttentionNorm]),
        whole("self_attn_layer_norm.bias", &[K::AttentionNormBias]),
        whole("self_attn.q_proj.weight", &[K::Query]),
        whole("self_attn.k_proj.weight", &[K::Key]),
        whole("self_attn.v_proj.weight", &[K::Value]),
        whole("self_attn.q_proj.bias", &[K::QueryBias]),
        whole("self_attn.k_proj.bias", &[K::KeyBias]),
        whole("self_attn.v_proj.bias", &[K::ValueBias]),
        whole("self_attn.out_proj.weight", &[K::Output]),
        whole("self_attn.out_proj.bias", &[K::OutputBias]),
        whole("final_layer_norm.weight", &[K::MlpNorm]),
        whole("final_layer_norm.bias", &[K::MlpNormBias]),
        whole("fc1.weight", &[K::Up]),
        whole("fc1.bias", &[K::UpBias]),
        whole("fc2.weight", &[K::Down]),
        whole("fc2.bias", &[K::DownBias]),
    ]],
    passed_over: &[],
    parts_passed_over: &[],
    gains_less_one: false,
    bare_norms: false,
    neighbour_pairs: false,
    image: None,
};
