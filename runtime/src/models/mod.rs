//! The architectures, one file each: the forward that serves calibration, evaluation and the device.
//!
//! `run` holds the steps that blocks are made of and the memory they need, `attention` the one step that is long. A block's file reads as its
//! equations do.

mod attention;
mod bert;
mod cache;
mod gemma;
mod gpt2;
mod gpt_neox;
mod llama;
mod run;
mod scratch;
pub mod vit;

pub use cache::{CacheElem, LayerCache, cache_elems};
pub use run::{Batch, BlockRun, Norm, cap_logits, enter, normalize, normalize_stream};
pub use scratch::Scratch;

use crate::linear::BlockWeights;
use rescomp_formats::spec::Architecture;

/// Runs one block.
///
/// # Errors
/// What `weights` fails with.
pub fn block<W: BlockWeights, S: CacheElem>(
    run: &mut BlockRun<'_, '_, S>,
    weights: &mut W,
) -> Result<(), W::Error> {
    match run.spec.architecture {
        Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => llama::block(run, weights),
        Architecture::Gemma2 | Architecture::Gemma3 => gemma::block(run, weights),
        Architecture::GptNeox => gpt_neox::block(run, weights),
        Architecture::Gpt2 => gpt2::block(run, weights),
        Architecture::Bert => bert::block(run, weights),
        Architecture::Vit => vit::block(run, weights),
    }
}
