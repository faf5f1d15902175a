//! BERT, RoBERTa and DistilBERT: encoders.
//!
//! ```text
//! x = layer_norm(embedding of each token + vector of its position)
//! each block:  q, k, v = x Wq^T + bq, x Wk^T + bk, x Wv^T + bv
//!              x = layer_norm(x + attention(q, k, v) Wo^T + bo)         every token sees all
//!              x = layer_norm(x + gelu(x Wup^T + bup) Wdown^T + bdown)
//! ```
//! The vector of token type 0 is part of every position's: a text by itself has no other type. Source: Devlin et al., "BERT", arXiv 1810.04805,
//! section 3; Liu et al., "RoBERTa", arXiv 1907.11692; Sanh et al., "DistilBERT", arXiv 1910.01108.

use super::cache::CacheElem;
use super::run::BlockRun;
use crate::linear::{BlockWeights, LinearSet};
use rescomp_formats::section::SectionKind as K;

pub(super) fn block<W: BlockWeights, S: CacheElem>(
    run: &mut BlockRun<'_, '_, S>,
    weights: &mut W,
) -> Result<(), W::Error> {
    run.take_stream();
    run.attention(weights)?;
    run.add_product(weights, LinearSet::Output)?;
    run.norm_of_stream(weights, K::AttentionNorm)?;
    run.ungated(weights)?;
    run.add_product(weights, LinearSet::Down)?;
    run.norm_of_stream(weights, K::MlpNorm)
}
