//! Gemma 2; with norms of heads, and frequencies of their own for layers with a window, Gemma 3.
//!
//! ```text
//! x = root of d times the embedding of each token
//! each block:  h = rms_norm(x);  q, k, v = h Wq^T, h Wk^T, h Wv^T;  rotate q and k by position;  keep k and v
//!              x = x + rms_norm(attention(q, kept k, kept v) Wo^T)
//!              h = rms_norm(x);  x = x + rms_norm((gelu(h Wgate^T) * (h Wup^T)) Wdown^T)
//! logits = rms_norm(x) Whead^T
//! ```
//! Gains are stored as they are multiplied with: 1 and the checkpoint's number. Source: "Gemma 2", arXiv 2408.00118, section 2; "Gemma 3", arXiv
//! 2503.19786, section 2.

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
    run.add_normed_product(weights, LinearSet::Output, K::AttentionPostNorm)?;
    run.norm(weights, K::MlpNorm)?;
    run.gated(weights)?;
    run.add_normed_product(weights, LinearSet::Down, K::MlpPostNorm)
}
