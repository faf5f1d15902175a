//! OLMo 2.
//!
//! ```text
//! x = embedding of each token
//! each block:  q, k, v = rms_norm(x Wq^T), rms_norm(x Wk^T), x Wv^T, the norms of all heads together;  rotate q and k by position;  keep k and v
//!              x = x + rms_norm(attention(q, kept k, kept v) Wo^T)
//!              x = x + rms_norm((silu(x Wgate^T) * (x Wup^T)) Wdown^T)
//! logits = rms_norm(x) Whead^T
//! ```
//! Source: "2 OLMo 2 Furious", arXiv 2501.00656, section 3.2.

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
    run.add_normed_product(weights, LinearSet::Output, K::AttentionPostNorm)?;
    run.take_stream();
    run.gated(weights)?;
    run.add_normed_product(weights, LinearSet::Down, K::MlpPostNorm)
}
