//! OLMo and OLMo 2, as transformers names their tensors (`OlmoForCausalLM`, `Olmo2ForCausalLM`): Llama's without norms, and with norms elsewhere.

use super::llama::{HEAD_NORMS, LLAMA, MLP, MLP_POST_NORM};
use super::{Names, Stored, whole};
use rescomp_formats::section::SectionKind as K;

const ATTENTION: &[Stored] = &[
    whole("self_attn.q_proj.weight", &[K::Query]),
    whole("self_attn.k_proj.weight", &[K::Key]),
    whole("self_attn.v_proj.weight", &[K::Value]),
    whole("self_attn.o_proj.weight", &[K::Output]),
];
const ATTENTION_POST_NORM: &[Stored] = &[whole("post_attention_layernorm.weight", &[K::AttentionPostNorm])];

pub(in super::super) const OLMO: Names = Names { stored: &[ATTENTION, MLP], bare_norms: true, ..LLAMA };

pub(in super::super) const OLMO2: Names =
    Names { stored: &[ATTENTION, HEAD_NORMS, ATTENTION_POST_NORM, MLP, MLP_POST_NORM], ..LLAMA };
