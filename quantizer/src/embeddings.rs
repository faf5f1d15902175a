//! The full-precision vectors of texts: what an encoder's container is compared with.

use crate::checkpoint::Checkpoint;
use crate::dense::{DenseError, DenseLayer, Streams};
use rescomp_runtime::Machine;
use rescomp_runtime::encoder::pool;
use rescomp_runtime::error::RuntimeError;
use std::collections::BTreeMap;

/// The vector of each text. Texts of one length run together, all of them a block at a time; `progress` hears of each block.
///
/// # Errors
/// [`DenseError`]: the model is a decoder, or a text is empty, too long, or has a token that is none.
pub fn dense_embeddings(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    texts: &[Vec<u32>],
    mut progress: impl FnMut(usize),
) -> Result<Vec<Vec<f32>>, DenseError> {
    let failed = |cause| DenseError::Forward { model: checkpoint.name(), cause };
    let spec = &checkpoint.spec;
    let kind = RuntimeError::Kind { architecture: spec.architecture.name(), kind: spec.architecture.kind() };
    let rule = spec.embedding().ok_or_else(|| failed(kind))?;
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, text) in texts.iter().enumerate() {
        by_length.entry(text.len()).or_default().push(index);
    }
    let embedding = checkpoint.embedding()?;
    let mut groups = Vec::new();
    for (length, indexes) in by_length {
        let windows: Vec<Vec<u32>> = indexes.iter().map(|index| texts[*index].clone()).collect();
        groups.push((indexes, Streams::new(machine, checkpoint, &embedding, &windows, length)?));
    }
    for layer in 0..spec.layers as usize {
        let weights = checkpoint.layer(layer)?;
        for (_, streams) in &mut groups {
            streams.run_block(&mut DenseLayer { weights: &weights, layer }).map_err(failed)?;
        }
        progress(layer + 1);
    }
    let hidden = spec.hidden as usize;
    let mut vectors = vec![Vec::new(); texts.len()];
    let mut sums = vec![0.0; hidden];
    for (indexes, streams) in groups {
        let states = streams.stream().chunks_exact(streams.stream().len() / indexes.len());
        for (index, states) in indexes.into_iter().zip(states) {
            if !states.iter().all(|number| number.is_finite()) {
                return Err(failed(RuntimeError::NotFinite { layer: None, set: None }));
            }
            let mut vector = vec![0.0; hidden];
            pool(rule, states, &mut sums, &mut vector);
            vectors[index] = vector;
        }
    }
    Ok(vectors)
}
