//! GPT-Neo, as transformers names its tensors (`GPTNeoForCausalLM`): GPT-2 with outputs in rows, and without biases of queries, keys and values.

use super::{Names, gpt2::GPT2, whole};
use rescomp_formats::section::SectionKind as K;

pub(in super::super) const GPT_NEO: Names = Names {
    stored: &[&[
        whole("ln_1.weight", &[K::AttentionNorm]),
        whole("ln_1.bias", &[K::AttentionNormBias]),
        whole("attn.attention.q_proj.weight", &[K::Query]),
        whole("attn.attention.k_proj.weight", &[K::Key]),
        whole("attn.attention.v_proj.weight", &[K::Value]),
        whole("attn.attention.out_proj.weight", &[K::Output]),
        whole("attn.attention.out_proj.bias", &[K::OutputBias]),
        whole("ln_2.weight", &[K::MlpNorm]),
        whole("ln_2.bias", &[K::MlpNormBias]),
        whole("mlp.c_fc.weight", &[K::Up]),
        whole("mlp.c_fc.bias", &[K::UpBias]),
        whole("mlp.c_proj.weight", &[K::Down]),
        whole("mlp.c_proj.bias", &[K::DownBias]),
    ]],
    // The causal mask, and what it fills in.
    passed_over: &[".attn.attention.bias", ".attn.attention.masked_bias"],
    ..GPT2
};
