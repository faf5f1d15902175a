//! Llama and its relatives, as llama.cpp names their tensors in GGUF files.
//!
//! Gains of norms are stored as they are multiplied with, also Gemma's. Only of Llama and Mistral are rows of queries and keys in another order.

use super::super::gguf;
use super::{Names, Stored, whole};
use rescomp_formats::section::SectionKind as K;

const ATTENTION_NORM: Stored = whole("attn_norm.weight", &[K::AttentionNorm]);
const QUERY: Stored = whole("attn_q.weight", &[K::Query]);
const KEY: Stored = whole("attn_k.weight", &[K::Key]);
const VALUE: Stored = whole("attn_v.weight", &[K::Value]);
const OUTPUT: Stored = whole("attn_output.weight", &[K::Output]);
const MLP_NORM: Stored = whole("ffn_norm.weight", &[K::MlpNorm]);
const GATE: Stored = whole("ffn_gate.weight", &[K::Gate]);
const UP: Stored = whole("ffn_up.weight", &[K::Up]);
const DOWN: Stored = whole("ffn_down.weight", &[K::Down]);
const QUERY_NORM: Stored = whole("attn_q_norm.weight", &[K::QueryNorm]);
const KEY_NORM: Stored = whole("attn_k_norm.weight", &[K::KeyNorm]);
const ATTENTION_POST_NORM: Stored = whole("post_attention_norm.weight", &[K::AttentionPostNorm]);
const MLP_POST_NORM: Stored = whole("post_ffw_norm.weight", &[K::MlpPostNorm]);

/// The first Gemma: Llama with rotary pairs of halves.
pub(in super::super) const GGUF_GEMMA: Names = Names {
    prefixes: &[""],
    embedding: gguf::EMBEDDING,
    positions: None,
    unused_positions: 0,
    final_norm: "output_norm.weight",
    final_norm_bias: None,
    head: gguf::HEAD,
    layers: "blk.",
    stored: &[ATTENTION_NORM, QUERY, KEY, VALUE, OUTPUT, MLP_NORM, GATE, UP, DOWN],
    passed_over: &[],
    gains_less_one: false,
    neighbour_pairs: false,
};

/// Llama, Mistral.
pub(in super::super) const GGUF_LLAMA: Names =
    Names { passed_over: &[gguf::ROPE_DIVISORS], neighbour_pairs: true, ..GGUF_GEMMA };

/// Qwen 2: biases of queries, keys and values.
pub(in super::super) const GGUF_QWEN2: Names = Names {
    stored: &[
        ATTENTION_NORM,
        QUERY,
        KEY,
        VALUE,
        whole("attn_q.bias", &[K::QueryBias]),
        whole("attn_k.bias", &[K::KeyBias]),
        whole("attn_v.bias", &[K::ValueBias]),
        OUTPUT,
        MLP_NORM,
        GATE,
        UP,
        DOWN,
    ],
    ..GGUF_GEMMA
};

/// Qwen 3: norms of each head.
pub(in super::super) const GGUF_QWEN3: Names = Names {
    stored: &[ATTENTION_NORM, QUERY, KEY, VALUE, QUERY_NORM, KEY_NORM, OUTPUT, MLP_NORM, GATE, UP, DOWN],
    ..GGUF_GEMMA
};

/// Phi-3: queries, keys and values in one tensor, gate and up in another.
pub(in super::super) const GGUF_PHI3: Names = Names {
    stored: &[
        ATTENTION_NORM,
        whole("attn_qkv.weight", &[K::Query, K::Key, K::Value]),
        OUTPUT,
        MLP_NORM,
        whole("ffn_up.weight", &[K::Gate, K::Up]),
        DOWN,
    ],
    ..GGUF_GEMMA
};

/// Gemma 2: norms behind attention and MLP.
pub(in super::super) const GGUF_GEMMA2: Names = Names {
    stored: &[
        ATTENTION_NORM,
        QUERY,
        KEY,
        VALUE,
        OUTPUT,
        ATTENTION_POST_NORM,
        MLP_NORM,
        GATE,
        UP,
        DOWN,
        MLP_POST_NORM,
    ],
    ..GGUF_GEMMA
};

/// Gemma 3: norms of each head, too.
pub(in super::super) const GGUF_GEMMA3: Names = Names {
    stored: &[
        ATTENTION_NORM,
        QUERY,
        KEY,
        VALUE,
        QUERY_NORM,
        KEY_NORM,
        OUTPUT,
        ATTENTION_POST_NORM,
        MLP_NORM,
        GATE,
        UP,
        DOWN,
        MLP_POST_NORM,
    ],
    ..GGUF_GEMMA
};
