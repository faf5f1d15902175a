//! Phi-3, as transformers names its tensors (`Phi3ForCausalLM`): Llama with queries, keys and values in one tensor, and gate and up in another.

use super::{Names, llama::LLAMA, whole};
use rescomp_formats::section::SectionKind as K;

pub(in super::super) const PHI3: Names = Names {
    stored: &[&[
        whole("input_layernorm.weight", &[K::AttentionNorm]),
        whole("self_attn.qkv_proj.weight", &[K::Query, K::Key, K::Value]),
        whole("self_attn.o_proj.weight", &[K::Output]),
        whole("post_attention_layernorm.weight", &[K::MlpNorm]),
        whole("mlp.gate_up_proj.weight", &[K::Gate, K::Up]),
        whole("mlp.down_proj.weight", &[K::Down]),
    ]],
    ..LLAMA
};
