//! GPT-2 and OPT; without biases of queries, keys and values GPT-Neo.
//!
//! ```text
//! x = embedding of each token + vector of its position
//! each block:  h = layer_norm(x);  q, k, v = h Wq^T + bq, h Wk^T + bk, h Wv^T + bv;  keep k and v
//!              x = x + attention(q, kept k, kept v) Wo^T + bo
//!              h = layer_norm(x);  x = x + gelu(h Wup^T + bup) Wdown^T + bdown
//! logits = layer_norm(x) Whead^T
//! ```
//! Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3; Zhang et al., "OPT", arXiv 2205.01068;
//! windows of GPT-Neo: Black et al., "GPT-Neo", 2021, after Child et al., arXiv 1904.10509.

use super::cache::CacheElem;
use super::run::BlockRun;
use crate::linear::{BlockWeights, LinearSet};
use rescomp_formats::section::SectionKind as K;

pub(super) fn block<W: BlockWeights, S: CacheElem>(
    run: &mut BlockRun<'_, '_, S>,
    weights: &mut W,
) -> Result<(), W::Error> {
    run.norm(weights, K::AttentionNorm)?;
    run.attention(weights)?;
    run.add_product(weights, LinearSet::Output)?;
    run.norm(weights, K::MlpNorm)?;
    run.ungated(weights)?;
    run.add_product(weights, LinearSet::Down)
}
