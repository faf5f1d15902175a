//! StableLM, as transformers names its tensors (`StableLmForCausalLM`): Llama's with biases of norms, with or without those of queries, keys and
//! values. Where attention and MLP stand side by side they have one norm, which is both of the container's.

use super::llama::{BIASES, INPUT, LLAMA, MLP, OUTPUT};
use super::{Names, Stored, whole};
use rescomp_formats::section::SectionKind as K;

const INPUT_NORM_BIAS: &[Stored] = &[whole("input_layernorm.bias", &[K::AttentionNormBias])];
const MLP_NORM_BIAS: &[Stored] = &[whole("post_attention_layernorm.bias", &[K::MlpNormBias])];
const OUTPUT_ALONE: &[Stored] = &[whole("self_attn.o_proj.weight", &[K::Output])];

pub(in super::super) const STABLE_LM: Names = Names {
    norm_bias: Some("norm.bias"),
    stored: &[INPUT, INPUT_NORM_BIAS, OUTPUT, MLP_NORM_BIAS, MLP],
    ..LLAMA
};

pub(in super::super) const STABLE_LM_WITH_BIASES: Names =
    Names { stored: &[INPUT, INPUT_NORM_BIAS, BIASES, OUTPUT, MLP_NORM_BIAS, MLP], ..STABLE_LM };

pub(in super::super) const STABLE_LM_PARALLEL: Names =
    Names { stored: &[INPUT, INPUT_NORM_BIAS, OUTPUT_ALONE, MLP], ..STABLE_LM };

pub(in super::super) const STABLE_LM_PARALLEL_WITH_BIASES: Names =
    Names { stored: &[INPUT, INPUT_NORM_BIAS, BIASES, OUTPUT_ALONE, MLP], ..STABLE_LM };
