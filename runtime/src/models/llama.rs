//! Llama, Mistral, Phi-3, SmolLM3, Granite, OLMo, Gemma; with biases of queries, keys and values Qwen 2; with norms of heads Qwen 3.
//!
//! ```text
//! x = embedding of each token
//! each block:  h = rms_norm(x);  q, k, v = h Wq^T, h Wk^T, h Wv^T;  rotate q and k by position;  keep k and v
//!              x = x + attention(q, kept k, kept v) Wo^T
//!              h = rms_norm(x);  x = x + (silu(h Wgate^T) * (h Wup^T)) Wdown^T
//! logits = rms_norm(x) Whead^T
//! ```
//! Source: Touvron et al., "LLaMA", arXiv 2302.13971; grouped queries: Ainslie et al., arXiv 2305.13245; rotary positions: Su et
//! al., arXiv 2104.09864; windows: Jiang et al., "Mistral 7B", arXiv 2310.06825; biases: "Qwen2", arXiv 2407.10671; norms of heads: "Qwen3",
//! arXiv 2505.09388.

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
    run.gated(weights)?;
    run.add_product(weights, LinearSet::Down)
}
