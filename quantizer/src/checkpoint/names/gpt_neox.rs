//! GPT-NeoX, as transformers names its tensors (`GPTNeoXForCausalLM`): queries, keys and values in one tensor, head by head.

use super::{Names, Order, Stored, whole};
use rescomp_formats::section::SectionKind as K;

pub(in super::super) const GPT_NEOX: Names = Names {
    prefixes: &["gpt_neox."],
    embedding: "embed_in.weight",
    positions: None,
    unused_positions: 0,
    token_types: None,
    norm: "final_layer_norm.weight",
    norm_bias: Some("final_layer_norm.bias"),
    head: "embed_out.weight",
    layers: "layers.",
    stored: &[&[
        whole("input_layernorm.weight", &[K::AttentionNorm]),
        whole("input_layernorm.bias", &[K::AttentionNormBias]),
        Stored {
            name: "attention.query_key_value.weight",
            kinds: &[K::Query, K::Key, K::Value],
            order: Order::Heads,
        },
        Stored {
            name: "attention.query_key_value.bias",
            kinds: &[K::QueryBias, K::KeyBias, K::ValueBias],
            order: Order::Heads,
        },
        whole("attention.dense.weight", &[K::Output]),
        whole("attention.dense.bias", &[K::OutputBias]),
        whole("post_attention_layernorm.weight", &[K::MlpNorm]),
        whole("post_attention_layernorm.bias", &[K::MlpNormBias]),
        whole("mlp.dense_h_to_4h.weight", &[K::Up]),
        whole("mlp.dense_h_to_4h.bias", &[K::UpBias]),
        whole("mlp.dense_4h_to_h.weight", &[K::Down]),
        whole("mlp.dense_4h_to_h.bias", &[K::DownBias]),
    ]],
    // The causal mask, what it fills in, and the rotary frequencies.
    passed_over: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
    parts_passed_over: &[],
    gains_less_one: false,
    bare_norms: false,
    neighbour_pairs: false,
    image: None,
};
