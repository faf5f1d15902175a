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
mod olmo2;
mod run;
mod scratch;
pub mod vit;

pub use cache::{CacheElem, Kept, KeptMut, LayerCache, cache_elems, scale_elems};
pub use run::{Batch, BlockRun, Norm, cap_logits, enter, normalize, normalize_stream};
pub use scratch::Scratch;

use crate::linear::BlockWeights;
use crate::parts::{Part, block_part, not_built};
use rescomp_formats::spec::Architecture;

/// Runs one block.
///
/// # Errors
/// What `weights` fails with.
///
/// # Panics
/// Where the program was built without such blocks: [`crate::parts::expect`] says so before.
pub fn block<W: BlockWeights, S: CacheElem>(
    run: &mut BlockRun<'_, '_, S>,
    weights: &mut W,
) -> Result<(), W::Error> {
    match block_part(run.spec.architecture) {
        Part::Llama if cfg!(feature = "llama") => llama::block(run, weights),
        Part::Gemma if cfg!(feature = "gemma") => match run.spec.architecture {
            Architecture::Olmo2 => olmo2::block(run, weights),
            _ => gemma::block(run, weights),
        },
        Part::GptNeox if cfg!(feature = "gpt-neox") => gpt_neox::block(run, weights),
        Part::Gpt2 if cfg!(feature = "gpt2") => gpt2::block(run, weights),
        Part::Bert if cfg!(feature = "bert") => bert::block(run, weights),
        Part::Vit if cfg!(feature = "vit") => vit::block(run, weights),
        part => not_built(part),
    }
}
