//! BERT, RoBERTa and DistilBERT, as transformers names their tensors (`BertModel`, `RobertaModel`, `DistilBertModel`).
//!
//! Sentence embeddings are made of the last block's states, so what stands behind them is passed over: the pooler, and the heads of models that
//! were saved with the one they were trained with.

use super::{Names, Stored, whole};
use rescomp_formats::section::SectionKind as K;

/// A layer of BERT and RoBERTa.
const LAYER: &[Stored] = &[
    whole("attention.self.query.weight", &[K::Query]),
    whole("attention.self.query.bias", &[K::QueryBias]),
    whole("attention.self.key.weight", &[K::Key]),
    whole("attention.self.key.bias", &[K::KeyBias]),
    whole("attention.self.value.weight", &[K::Value]),
    whole("attention.self.value.bias", &[K::ValueBias]),
    whole("attention.output.dense.weight", &[K::Output]),
    whole("attention.output.dense.bias", &[K::OutputBias]),
    whole("attention.output.LayerNorm.weight", &[K::AttentionNorm]),
    whole("attention.output.LayerNorm.bias", &[K::AttentionNormBias]),
    whole("intermediate.dense.weight", &[K::Up]),
    whole("intermediate.dense.bias", &[K::UpBias]),
    whole("output.dense.weight", &[K::Down]),
    whole("output.dense.bias", &[K::DownBias]),
    whole("output.LayerNorm.weight", &[K::MlpNorm]),
    whole("output.LayerNorm.bias", &[K::MlpNormBias]),
];

pub(in super::super) const BERT: Names = Names {
    prefixes: &["", "bert."],
    embedding: "embeddings.word_embeddings.weight",
    positions: Some("embeddings.position_embeddings.weight"),
    unused_positions: 0,
    token_types: Some("embeddings.token_type_embeddings.weight"),
    norm: "embeddings.LayerNorm.weight",
    norm_bias: Some("embeddings.LayerNorm.bias"),
    head: "",
    layers: "encoder.layer.",
    stored: &[LAYER],
    passed_over: &[
        "embeddings.position_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "cls.predictions.bias",
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    ],
    parts_passed_over: &[],
    gains_less_one: false,
    bare_norms: false,
    neighbour_pairs: false,
    image: None,
};

/// Positions count from the one behind the padding token's.
pub(in super::super) const ROBERTA: Names = Names {
    prefixes: &["", "roberta."],
    unused_positions: 2,
    passed_over: &[
        "embeddings.position_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "lm_head.bias",
        "lm_head.dense.weight",
        "lm_head.dense.bias",
        "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias",
        "lm_head.decoder.weight",
        "lm_head.decoder.bias",
    ],
    ..BERT
};

pub(in super::super) const DISTILBERT: Names = Names {
    prefixes: &["", "distilbert."],
    token_types: None,
    layers: "transformer.layer.",
    stored: &[&[
        whole("attention.q_lin.weight", &[K::Query]),
        whole("attention.q_lin.bias", &[K::QueryBias]),
        whole("attention.k_lin.weight", &[K::Key]),
        whole("attention.k_lin.bias", &[K::KeyBias]),
        whole("attention.v_lin.weight", &[K::Value]),
        whole("attention.v_lin.bias", &[K::ValueBias]),
        whole("attention.out_lin.weight", &[K::Output]),
        whole("attention.out_lin.bias", &[K::OutputBias]),
        whole("sa_layer_norm.weight", &[K::AttentionNorm]),
        whole("sa_layer_norm.bias", &[K::AttentionNormBias]),
        whole("ffn.lin1.weight", &[K::Up]),
        whole("ffn.lin1.bias", &[K::UpBias]),
        whole("ffn.lin2.weight", &[K::Down]),
        whole("ffn.lin2.bias", &[K::DownBias]),
        whole("output_layer_norm.weight", &[K::MlpNorm]),
        whole("output_layer_norm.bias", &[K::MlpNormBias]),
    ]],
    passed_over: &[
        "embeddings.position_ids",
        "vocab_transform.weight",
        "vocab_transform.bias",
        "vocab_layer_norm.weight",
        "vocab_layer_norm.bias",
        "vocab_projector.weight",
        "vocab_projector.bias",
    ],
    ..BERT
};
