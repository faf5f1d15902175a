//! GPT-NeoX (Pythia); with a gate StableLM.
//!
//! ```text
//! x = embedding of each token
//! each block:  h = layer_norm(x);  q, k, v = h Wq^T + bq, h Wk^T + bk, h Wv^T + bv;  rotate a part of q and k by position;  keep k and v
//!              g = layer_norm(x), another one
//!              x = x + attention(q, kept k, kept v) Wo^T + bo + gelu(g Wup^T + bup) Wdown^T + bdown
//! logits = layer_norm(x) Whead^T
//! ```
//! Without parallel residuals `g` is made of the sum with attention's output, as in GPT-2. StableLM's MLP is Llama's, and only its queries, keys
//! and values have biases. Source: Black et al., "GPT-NeoX-20B", arXiv 2204.06745, section 2; Bellagente et al., "Stable LM 2 1.6B", arXiv
//! 2402.17834, section 2.

use super::cache::CacheElem;
use super::run::BlockRun;
use super::{gpt2, llama};
use crate::linear::{BlockWeights, LinearSet};
use rescomp_formats::section::SectionKind as K;

pub(super) fn block<W: BlockWeights, S: CacheElem>(
    run: &mut BlockRun<'_, '_, S>,
    weights: &mut W,
) -> Result<(), W::Error> {
    let has_gate = run.spec.architecture.has_gate();
    if !run.spec.variant.parallel_residual {
        return if has_gate { llama::block(run, weights) } else { gpt2::block(run, weights) };
    }
    run.norm(weights, K::MlpNorm)?;
    run.set_aside();
    run.norm(weights, K::AttentionNorm)?;
    run.attention(weights)?;
    run.add_product(weights, LinearSet::Output)?;
    run.take_aside();
    if has_gate { run.gated(weights) } else { run.ungated(weights) }?;
    run.add_product(weights, LinearSet::Down)
}
