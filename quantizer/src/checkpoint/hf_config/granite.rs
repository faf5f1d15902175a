//! Granite: Llama with four constants, of which the weights take in two.

use rescomp_formats::spec::Architecture;

use super::super::CheckpointError;
use super::super::names::LLAMA;
use super::HfConfig;
use super::fields::Fields;
use super::llama::{DEFAULTS, common};

pub(super) fn granite(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let mut config = common(fields, Architecture::Llama, &LLAMA, &DEFAULTS)?;
    let multiplier = |key: &str| {
        let value = fields.number(key)?.unwrap_or(1.0);
        match (1e-6..=1e6).contains(&value) {
            true => Ok(value as f32),
            false => Err(fields.wrong(key, "a number from 1e-6 to 1e6".into(), value)),
        }
    };
    let variant = &mut config.spec.variant;
    variant.embedding_scale = multiplier("embedding_multiplier")?;
    variant.score_scale = multiplier("attention_multiplier")?;
    config.folded.residual = multiplier("residual_multiplier")?;
    config.folded.logits = 1.0 / multiplier("logits_scaling")?;
    Ok(config)
}
