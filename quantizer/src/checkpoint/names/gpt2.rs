//! GPT-2, as transformers names its tensors (`GPT2LMHeadModel`): outputs in columns, queries, keys and values in one tensor.

use super::{Names, Order, Stored, whole};
use rescomp_formats::section::SectionKind as K;

/// A matrix with outputs in columns.
const fn columns(name: &'static str, kinds: &'static [K]) -> Stored {
    Stored { name, kinds, order: Order::Columns }
}

pub(in super::super) const GPT2: Names = Names {
    // The files of the first models have none.
    prefixes: &["transformer.", ""],
    embedding: "wte.weight",
    positions: Some("wpe.weight"),
    unused_positions: 0,
    token_types: None,
    norm: "ln_f.weight",
    norm_bias: Some("ln_f.bias"),
    head: "lm_head.weight",
    layers: "h.",
    stored: &[&[
        whole("ln_1.weight", &[K::AttentionNorm]),
        whole("ln_1.bias", &[K::AttentionNormBias]),
        columns("attn.c_attn.weight", &[K::Query, K::Key, K::Value]),
        whole("attn.c_attn.bias", &[K::QueryBias, K::KeyBias, K::ValueBias]),
        columns("attn.c_proj.weight", &[K::Output]),
        whole("attn.c_proj.bias", &[K::OutputBias]),
        whole("ln_2.weight", &[K::MlpNorm]),
        whole("ln_2.bias", &[K::MlpNormBias]),
        columns("mlp.c_fc.weight", &[K::Up]),
        whole("mlp.c_fc.bias", &[K::UpBias]),
        columns("mlp.c_proj.weight", &[K::Down]),
        whole("mlp.c_proj.bias", &[K::DownBias]),
    ]],
    // The causal mask, and what it fills in.
    passed_over: &[".attn.bias", ".attn.masked_bias"],
    parts_passed_over: &[],
    gains_less_one: false,
    bare_norms: false,
    neighbour_pairs: false,
    image: None,
};
