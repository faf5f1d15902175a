//! OLMo and OLMo 2: Llama with LayerNorms that have no gains and biases, and Llama with RMSNorms behind attention and MLP.

use rescomp_formats::spec::Architecture;

use super::super::CheckpointError;
use super::super::names::{OLMO, OLMO2};
use super::fields::{Fields, brief};
use super::llama::{DEFAULTS, common};
use super::{Defaults, HfConfig, Sizes};

const OLMO_DEFAULTS: Defaults =
    Defaults { sizes: Sizes { vocabulary: 50_304, ..DEFAULTS.sizes }, epsilon: 1e-5, ..DEFAULTS };

pub(super) fn olmo(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    if let Some(bound) = fields.get("clip_qkv") {
        let supported = "null: queries, keys and values that are not cut off";
        return Err(fields.unsupported("clip_qkv", &brief(bound), supported));
    }
    // The norms of nothing but embeddings and products without a mean: RMSNorms (`checkpoint::bare_norms`).
    let mut config = common(fields, Architecture::Llama, &OLMO, &OLMO_DEFAULTS)?;
    // It is in transformers' code, and what a file says of it means nothing.
    config.spec.norm_epsilon = 1e-5;
    Ok(config)
}

pub(super) fn olmo2(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    common(fields, Architecture::Olmo2, &OLMO2, &OLMO_DEFAULTS)
}
