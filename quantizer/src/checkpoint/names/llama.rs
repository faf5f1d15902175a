//! Llama and its relatives, as transformers names their tensors: `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM`,
//! `Qwen3ForCausalLM`, `GemmaForCausalLM`, `Gemma2ForCausalLM`, `Gemma3ForCausalLM`.
//!
//! With hidden width `h`, intermediate width `f`, `q` query and `kv` key outputs and `v` tokens, all `[outputs, inputs]`:
//!
//! ```text
//! model.embed_tokens.weight [v, h]    model.norm.weight [h]    lm_head.weight [v, h] (absent when tied)
//! model.layers.{i}.input_layernorm.weight [h]    .post_attention_layernorm.weight [h]
//!     .self_attn.{q,k,v}_proj.weight [q|kv|kv, h]    .self_attn.o_proj.weight [h, q]
//!     .mlp.{gate,up}_proj.weight [f, h]              .mlp.down_proj.weight [h, f]
//! ```

use super::{Names, Stored, whole};
use rescomp_formats::section::SectionKind as K;

/// The norm before attention, and its three projections.
pub(super) const INPUT: &[Stored] = &[
    whole("input_layernorm.weight", &[K::AttentionNorm]),
    whole("self_attn.q_proj.weight", &[K::Query]),
    whole("self_attn.k_proj.weight", &[K::Key]),
    whole("self_attn.v_proj.weight", &[K::Value]),
];
pub(super) const BIASES: &[Stored] = &[
    whole("self_attn.q_proj.bias", &[K::QueryBias]),
    whole("self_attn.k_proj.bias", &[K::KeyBias]),
    whole("self_attn.v_proj.bias", &[K::ValueBias]),
];
pub(super) const HEAD_NORMS: &[Stored] =
    &[whole("self_attn.q_norm.weight", &[K::QueryNorm]), whole("self_attn.k_norm.weight", &[K::KeyNorm])];
/// The projection behind attention, and the norm before the MLP.
pub(super) const OUTPUT: &[Stored] = &[
    whole("self_attn.o_proj.weight", &[K::Output]),
    whole("post_attention_layernorm.weight", &[K::MlpNorm]),
];
/// With a norm behind attention, the name of the one before the MLP is another.
const NORMED_OUTPUT: &[Stored] = &[
    whole("self_attn.o_proj.weight", &[K::Output]),
    whole("post_attention_layernorm.weight", &[K::AttentionPostNorm]),
    whole("pre_feedforward_layernorm.weight", &[K::MlpNorm]),
];
pub(super) const MLP: &[Stored] = &[
    whole("mlp.gate_proj.weight", &[K::Gate]),
    whole("mlp.up_proj.weight", &[K::Up]),
    whole("mlp.down_proj.weight", &[K::Down]),
];
pub(super) const MLP_POST_NORM: &[Stored] = &[whole("post_feedforward_layernorm.weight", &[K::MlpPostNorm])];

/// Llama, Mistral.
pub(in super::super) const LLAMA: Names = Names {
    prefixes: &["model."],
    embedding: "embed_tokens.weight",
    positions: None,
    unused_positions: 0,
    token_types: None,
    norm: "norm.weight",
    norm_bias: None,
    head: "lm_head.weight",
    layers: "layers.",
    stored: &[INPUT, OUTPUT, MLP],
    // A buffer that old transformers saved beside the weights.
    passed_over: &[".rotary_emb.inv_freq"],
    parts_passed_over: &[],
    gains_less_one: false,
    bare_norms: false,
    neighbour_pairs: false,
    image: None,
};

/// Qwen 2: biases of queries, keys and values.
pub(in super::super) const QWEN2: Names = Names { stored: &[INPUT, BIASES, OUTPUT, MLP], ..LLAMA };

/// Qwen 3: norms of each head.
pub(in super::super) const QWEN3: Names = Names { stored: &[INPUT, HEAD_NORMS, OUTPUT, MLP], ..LLAMA };

/// The first Gemma.
pub(in super::super) const GEMMA: Names = Names { gains_less_one: true, ..LLAMA };

/// Gemma 2: norms behind attention and MLP.
pub(in super::super) const GEMMA2: Names =
    Names { stored: &[INPUT, NORMED_OUTPUT, MLP, MLP_POST_NORM], ..GEMMA };

/// Gemma 3: norms of each head, too.
pub(in super::super) const GEMMA3: Names =
    Names { stored: &[INPUT, HEAD_NORMS, NORMED_OUTPUT, MLP, MLP_POST_NORM], ..GEMMA };

/// Gemma 3 with images, of which the text's part is read. The second prefix is that of transformers before 4.52.
pub(in super::super) const GEMMA3_WITH_IMAGES: Names = Names {
    prefixes: &["model.language_model.", "language_model.model."],
    parts_passed_over: &[
        "model.vision_tower.",
        "model.multi_modal_projector.",
        "vision_tower.",
        "multi_modal_projector.",
    ],
    ..GEMMA3
};
