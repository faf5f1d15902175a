//! ViT and DeiT, as transformers names their tensors (`ViTForImageClassification`, `DeiTForImageClassification`).
//!
//! The logits are made of the states of the tokens in front of the patches', so what stands beside the heads is passed over: the pooler, and the
//! token in place of masked patches.

use super::{ImageNames, Names, Stored, whole};
use rescomp_formats::section::SectionKind as K;

const LAYER: &[Stored] = &[
    whole("layernorm_before.weight", &[K::AttentionNorm]),
    whole("layernorm_before.bias", &[K::AttentionNormBias]),
    whole("attention.attention.query.weight", &[K::Query]),
    whole("attention.attention.query.bias", &[K::QueryBias]),
    whole("attention.attention.key.weight", &[K::Key]),
    whole("attention.attention.key.bias", &[K::KeyBias]),
    whole("attention.attention.value.weight", &[K::Value]),
    whole("attention.attention.value.bias", &[K::ValueBias]),
    whole("attention.output.dense.weight", &[K::Output]),
    whole("attention.output.dense.bias", &[K::OutputBias]),
    whole("layernorm_after.weight", &[K::MlpNorm]),
    whole("layernorm_after.bias", &[K::MlpNormBias]),
    whole("intermediate.dense.weight", &[K::Up]),
    whole("intermediate.dense.bias", &[K::UpBias]),
    whole("output.dense.weight", &[K::Down]),
    whole("output.dense.bias", &[K::DownBias]),
];

pub(in super::super) const VIT: Names = Names {
    prefixes: &["vit."],
    embedding: "embeddings.patch_embeddings.projection.weight",
    positions: Some("embeddings.position_embeddings"),
    unused_positions: 0,
    token_types: None,
    norm: "layernorm.weight",
    norm_bias: Some("layernorm.bias"),
    head: "classifier.weight",
    layers: "encoder.layer.",
    stored: &[LAYER],
    passed_over: &["embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias"],
    parts_passed_over: &[],
    gains_less_one: false,
    bare_norms: false,
    neighbour_pairs: false,
    image: Some(&ImageNames {
        patch_bias: "embeddings.patch_embeddings.projection.bias",
        tokens: &["embeddings.cls_token"],
        heads: &[("classifier.weight", "classifier.bias")],
    }),
};

/// With a token of distillation, which no head reads.
pub(in super::super) const DEIT: Names = Names {
    prefixes: &["deit."],
    image: Some(&ImageNames {
        patch_bias: "embeddings.patch_embeddings.projection.bias",
        tokens: &["embeddings.cls_token", "embeddings.distillation_token"],
        heads: &[("classifier.weight", "classifier.bias")],
    }),
    ..VIT
};

/// With a head of each token.
pub(in super::super) const DEIT_WITH_TEACHER: Names = Names {
    head: "cls_classifier.weight",
    image: Some(&ImageNames {
        patch_bias: "embeddings.patch_embeddings.projection.bias",
        tokens: &["embeddings.cls_token", "embeddings.distillation_token"],
        heads: &[
            ("cls_classifier.weight", "cls_classifier.bias"),
            ("distillation_classifier.weight", "distillation_classifier.bias"),
        ],
    }),
    ..DEIT
};
