//! Llama, as llama.cpp names its tensors in GGUF files.

use super::super::gguf;
use super::{Names, whole};
use rescomp_formats::section::SectionKind as K;

pub(in super::super) const GGUF_LLAMA: Names = Names {
    prefixes: &[""],
    embedding: gguf::EMBEDDING,
    positions: None,
    unused_positions: 0,
    final_norm: "output_norm.weight",
    final_norm_bias: None,
    head: gguf::HEAD,
    layers: "blk.",
    stored: &[
        whole("attn_norm.weight", &[K::AttentionNorm]),
        whole("attn_q.weight", &[K::Query]),
        whole("attn_k.weight", &[K::Key]),
        whole("attn_v.weight", &[K::Value]),
        whole("attn_output.weight", &[K::Output]),
        whole("ffn_norm.weight", &[K::MlpNorm]),
        whole("ffn_gate.weight", &[K::Gate]),
        whole("ffn_up.weight", &[K::Up]),
        whole("ffn_down.weight", &[K::Down]),
    ],
    passed_over: &[gguf::ROPE_DIVISORS],
    gains_less_one: false,
    neighbour_pairs: true,
};
