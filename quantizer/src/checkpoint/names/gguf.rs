//! Llama and its relatives, GPT-NeoX and GPT-2, as llama.cpp names their tensors in GGUF files.
//!
//! Gains of norms are stored as they are multiplied with, also Gemma's. Only of Llama, Mistral, SmolLM3 and Granite are rows of queries and keys in
//! another order. Where queries, keys and values are one tensor, all queries come first; matrices with outputs in columns have been transposed.

use super::super::gguf;
use super::{Names, Stored, whole};
use rescomp_formats::section::SectionKind as K;

/// The norm before attention, and its three projections.
const INPUT: &[Stored] = &[
    whole("attn_norm.weight", &[K::AttentionNorm]),
    whole("attn_q.weight", &[K::Query]),
    whole("attn_k.weight", &[K::Key]),
    whole("attn_v.weight", &[K::Value]),
];
/// The same with the projections in one tensor.
const STACKED_INPUT: &[Stored] = &[
    whole("attn_norm.weight", &[K::AttentionNorm]),
    whole("attn_qkv.weight", &[K::Query, K::Key, K::Value]),
];
const BIASES: &[Stored] = &[
    whole("attn_q.bias", &[K::QueryBias]),
    whole("attn_k.bias", &[K::KeyBias]),
    whole("attn_v.bias", &[K::ValueBias]),
];
const HEAD_NORMS: &[Stored] =
    &[whole("attn_q_norm.weight", &[K::QueryNorm]), whole("attn_k_norm.weight", &[K::KeyNorm])];
/// The projection behind attention, and the norm before the MLP.
const OUTPUT: &[Stored] =
    &[whole("attn_output.weight", &[K::Output]), whole("ffn_norm.weight", &[K::MlpNorm])];
const MLP: &[Stored] = &[
    whole("ffn_gate.weight", &[K::Gate]),
    whole("ffn_up.weight", &[K::Up]),
    whole("ffn_down.weight", &[K::Down]),
];
/// The same with gate and up in one tensor.
const STACKED_MLP: &[Stored] =
    &[whole("ffn_up.weight", &[K::Gate, K::Up]), whole("ffn_down.weight", &[K::Down])];
const POST_NORMS: &[Stored] = &[
    whole("post_attention_norm.weight", &[K::AttentionPostNorm]),
    whole("post_ffw_norm.weight", &[K::MlpPostNorm]),
];

/// GPT's layer.
const GPT: &[Stored] = &[
    whole("attn_norm.weight", &[K::AttentionNorm]),
    whole("attn_norm.bias", &[K::AttentionNormBias]),
    whole("attn_qkv.weight", &[K::Query, K::Key, K::Value]),
    whole("attn_qkv.bias", &[K::QueryBias, K::KeyBias, K::ValueBias]),
    whole("attn_output.weight", &[K::Output]),
    whole("attn_output.bias", &[K::OutputBias]),
    whole("ffn_norm.weight", &[K::MlpNorm]),
    whole("ffn_norm.bias", &[K::MlpNormBias]),
    whole("ffn_up.weight", &[K::Up]),
    whole("ffn_up.bias", &[K::UpBias]),
    whole("ffn_down.weight", &[K::Down]),
    whole("ffn_down.bias", &[K::DownBias]),
];

/// The first Gemma: Llama with rotary pairs of halves.
pub(in super::super) const GGUF_GEMMA: Names = Names {
    prefixes: &[""],
    embedding: gguf::EMBEDDING,
    positions: None,
    unused_positions: 0,
    token_types: None,
    norm: "output_norm.weight",
    norm_bias: None,
    head: gguf::HEAD,
    layers: "blk.",
    stored: &[INPUT, OUTPUT, MLP],
    passed_over: &[],
    parts_passed_over: &[],
    gains_less_one: false,
    bare_norms: false,
    neighbour_pairs: false,
    image: None,
};

/// Llama, Mistral, SmolLM3, Granite.
pub(in super::super) const GGUF_LLAMA: Names =
    Names { passed_over: &[gguf::ROPE_DIVISORS], neighbour_pairs: true, ..GGUF_GEMMA };

/// Qwen 2: biases of queries, keys and values.
pub(in super::super) const GGUF_QWEN2: Names = Names { stored: &[INPUT, BIASES, OUTPUT, MLP], ..GGUF_GEMMA };

/// Qwen 3: norms of each head.
pub(in super::super) const GGUF_QWEN3: Names =
    Names { stored: &[INPUT, HEAD_NORMS, OUTPUT, MLP], ..GGUF_GEMMA };

/// Phi-3: queries, keys and values in one tensor, gate and up in another.
pub(in super::super) const GGUF_PHI3: Names = Names {
    stored: &[STACKED_INPUT, OUTPUT, STACKED_MLP],
    passed_over: &[gguf::SHORT_DIVISORS, gguf::LONG_DIVISORS],
    ..GGUF_GEMMA
};

/// GPT-NeoX.
pub(in super::super) const GGUF_GPT_NEOX: Names =
    Names { norm_bias: Some("output_norm.bias"), stored: &[GPT], ..GGUF_GEMMA };

/// GPT-2: positions, too.
pub(in super::super) const GGUF_GPT2: Names =
    Names { positions: Some("position_embd.weight"), ..GGUF_GPT_NEOX };

/// Gemma 2: norms behind attention and MLP.
pub(in super::super) const GGUF_GEMMA2: Names =
    Names { stored: &[INPUT, OUTPUT, MLP, POST_NORMS], ..GGUF_GEMMA };

/// Gemma 3: norms of each head, too.
pub(in super::super) const GGUF_GEMMA3: Names =
    Names { stored: &[INPUT, HEAD_NORMS, OUTPUT, MLP, POST_NORMS], ..GGUF_GEMMA };
