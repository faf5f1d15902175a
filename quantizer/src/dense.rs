//! The full-precision model: f32 matrix products behind the runtime's own forward.
//!
//! All windows run together, a block at a time, so a model larger than memory needs only one block of it there. Products are
//! split into strips of tokens, whose number the tokens alone decide, so results do not depend on the number of threads.

use crate::checkpoint::{Checkpoint, CheckpointError, LayerWeights, Matrix, StreamNorm};
use crate::inputs::Inputs;
use bytemuck::zeroed_vec;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use rescomp_formats::section::SectionKind;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::{BlockWeights, LinearSet};
use rescomp_runtime::memory::{Arena, BLOCK_BYTES, MemoryBlock, slice_bytes};
use rescomp_runtime::models::vit::{self, Pixels};
use rescomp_runtime::models::{self, Batch, BlockRun, LayerCache, Scratch};
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens of a strip, at least and at most: the more, the faster each product, whose weights are packed once a strip.
const STRIP_TOKENS: [usize; 2] = [512, 2048];
/// As many strips, where there are tokens for them: more than threads of a host, so that all have about as much to do.
const STRIPS: usize = 32;

/// `output (m x n) = input (m x k) W^T`.
///
/// # Panics
/// Where `input` or `output` isn't a whole number of tokens.
pub fn multiply(weights: &Matrix, input: &[f32], output: &mut [f32]) {
    let (n, k) = (weights.rows, weights.cols);
    assert_eq!(input.len() / k * n, output.len(), "m x k and m x n");
    let transposed = weights.view().transpose();
    let [least, most] = STRIP_TOKENS;
    let strip = (input.len() / k / STRIPS).clamp(least, most);
    input.par_chunks(strip * k).zip(output.par_chunks_mut(strip * n)).for_each(|(input, output)| {
        let tokens = input.len() / k;
        let output = MatMut::from_row_major_slice_mut(output, tokens, n);
        matmul(
            output,
            Accum::Replace,
            MatRef::from_row_major_slice(input, tokens, k),
            transposed,
            1.0,
            Par::Seq,
        );
    });
}

/// The error of a block that lacks a part.
pub(crate) fn missing(kind: SectionKind, layer: usize) -> RuntimeError {
    RuntimeError::Missing { kind: kind.name(), layer: Some(layer as u32) }
}

/// One full-precision block.
#[derive(Clone, Copy, Debug)]
pub struct DenseLayer<'a> {
    /// Its weights.
    pub weights: &'a LayerWeights,
    /// Which block it is, for errors.
    pub layer: usize,
}

impl BlockWeights for DenseLayer<'_> {
    type Error = RuntimeError;

    fn vector(&self, kind: SectionKind) -> Result<&[f32], RuntimeError> {
        self.weights.vector(kind).ok_or_else(|| missing(kind, self.layer))
    }

    fn apply(
        &mut self,
        set: LinearSet,
        _tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), RuntimeError> {
        for (kind, output) in set.kinds().iter().zip(outputs) {
            multiply(self.weights.matrix(*kind).ok_or_else(|| missing(*kind, self.layer))?, input, output);
        }
        Ok(())
    }
}

/// The residual streams of windows that run together: `windows x positions x hidden`.
#[derive(Debug)]
pub struct Streams<'m> {
    machine: Machine<'m>,
    spec: ModelSpec,
    /// Rotary frequencies of layers that see all positions, and of those with a window where these have their own.
    frequencies: [Vec<u64>; 2],
    outside: Outside,
    batch: Batch,
    /// Blocks that have run.
    blocks: usize,
    stream: Vec<f32>,
    workspace: Arc<Mutex<Workspace>>,
}

/// What a token meets between its embedding and the first block.
#[derive(Clone, Debug)]
struct Outside {
    /// The vectors of positions, where they are learned.
    positions: Option<Arc<Matrix>>,
    /// The norm of an encoder's embeddings.
    norm: Option<Arc<StreamNorm>>,
}

/// What a block needs on the way, nothing of which outlives it: keys, values and what the forward takes.
#[derive(Debug)]
struct Workspace(Vec<u64>);

impl Workspace {
    fn new(spec: &ModelSpec, windows: usize, positions: usize) -> Self {
        let cache = slice_bytes::<f32>(cache_elems(spec, windows, positions) as u64);
        let bytes = Scratch::bytes(spec, windows, positions, positions) + 2 * cache;
        // Zeroed by the system, page by page, when it is written to: by the threads that work on it. Memory that is asked for in blocks would
        // be zeroed here, by one.
        Workspace(zeroed_vec(((bytes + BLOCK_BYTES) / size_of::<u64>() as u64) as usize))
    }

    fn blocks(&mut self) -> &mut [MemoryBlock] {
        bytemuck::pod_align_to_mut(&mut self.0).1
    }
}

/// Elements of the keys (and of the values) of all windows.
fn cache_elems(spec: &ModelSpec, windows: usize, positions: usize) -> usize {
    models::cache_elems::<f32>(spec, positions) as usize * windows
}

impl<'m> Streams<'m> {
    /// The embeddings of the first `positions` tokens of every window.
    ///
    /// # Errors
    /// [`DenseError`]: the vectors of positions cannot be read, or a window has fewer tokens or more than the model's context.
    pub fn new(
        machine: Machine<'m>,
        checkpoint: &Checkpoint,
        embedding: &Matrix,
        windows: &[Vec<u32>],
        positions: usize,
    ) -> Result<Self, DenseError> {
        Self::of(machine, checkpoint, embedding, Inputs::Windows { windows, positions })
    }

    /// What enters the first block of every sequence. `entry` is the embedding, or what makes tokens of an image's patches.
    ///
    /// # Errors
    /// As [`Streams::new`], or an image has another size than the model's.
    pub fn of(
        machine: Machine<'m>,
        checkpoint: &Checkpoint,
        entry: &Matrix,
        inputs: Inputs<'_>,
    ) -> Result<Self, DenseError> {
        let spec = checkpoint.spec.clone();
        let (count, tokens) = (inputs.count(), inputs.tokens(&spec));
        let outside = Outside {
            positions: checkpoint.positions()?.map(Arc::new),
            norm: checkpoint.embedding_norm()?.map(Arc::new),
        };
        let stream = entered(machine, &spec, entry, &outside, inputs)
            .map_err(|cause| DenseError::Forward { model: checkpoint.name(), cause })?;
        Ok(Streams {
            machine,
            frequencies: [checkpoint.rope.clone(), checkpoint.local_rope.clone()],
            outside,
            batch: Batch { sequences: count, tokens, start: 0 },
            blocks: 0,
            stream,
            workspace: Arc::new(Mutex::new(Workspace::new(&spec, count, tokens))),
            spec,
        })
    }

    /// The same tokens with another embedding, in the same memory: the two run their blocks in turn.
    ///
    /// # Errors
    /// [`RuntimeError::Token`] or [`RuntimeError::Limit`], where a window has fewer tokens or more than the model's context.
    ///
    /// # Panics
    /// Where `windows` are not as many as these.
    pub fn beside(&self, embedding: &Matrix, windows: &[Vec<u32>]) -> Result<Self, RuntimeError> {
        self.beside_of(embedding, Inputs::Windows { windows, positions: self.batch.tokens })
    }

    /// [`Streams::beside`] of any inputs.
    ///
    /// # Errors
    /// As [`Streams::beside`], or an image has another size than the model's.
    ///
    /// # Panics
    /// Where `inputs` are not as many as these.
    pub fn beside_of(&self, entry: &Matrix, inputs: Inputs<'_>) -> Result<Self, RuntimeError> {
        let Streams { machine, ref spec, ref frequencies, ref outside, batch, .. } = *self;
        assert_eq!(inputs.count(), batch.sequences, "the same inputs");
        let stream = entered(machine, spec, entry, outside, inputs)?;
        let (spec, frequencies, outside) = (spec.clone(), frequencies.clone(), outside.clone());
        let workspace = Arc::clone(&self.workspace);
        Ok(Streams { machine, spec, frequencies, outside, batch, blocks: 0, stream, workspace })
    }

    /// Runs the next block over all windows.
    ///
    /// # Errors
    /// What the weights fail with.
    pub fn run_block<W: BlockWeights>(&mut self, weights: &mut W) -> Result<(), W::Error>
    where
        W::Error: From<RuntimeError>,
    {
        let Batch { sequences, tokens, start } = self.batch;
        // Another stream that panicked left nothing there that counts.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = workspace.blocks();
        let bytes = memory.len() as u64 * BLOCK_BYTES;
        let mut arena = Arena::new(memory, bytes)?;
        let cache = cache_elems(&self.spec, sequences, tokens);
        let [keys, values] = [(); 2].map(|()| arena.take::<f32>(cache).into());
        let mut scratch = Scratch::carve(&self.spec, sequences, tokens, tokens, &mut arena);
        arena.finish()?;
        let [frequencies, local] = &self.frequencies;
        scratch.set_positions(frequencies, local, start, tokens);
        let mut run = BlockRun {
            machine: self.machine,
            spec: &self.spec,
            layer: self.blocks,
            batch: self.batch,
            context: tokens,
            stream: &mut self.stream,
            cache: LayerCache { keys, values },
            scratch: &mut scratch,
        };
        models::block(&mut run, weights)?;
        self.blocks += 1;
        Ok(())
    }

    /// Goes back to residual streams that [`Streams::stream`] gave, in front of this block.
    ///
    /// # Panics
    /// Where they are of another size.
    pub fn restart(&mut self, stream: &[f32], block: usize) {
        self.stream.copy_from_slice(stream);
        self.blocks = block;
    }

    /// The residual streams, `windows x positions x hidden`.
    pub fn stream(&self) -> &[f32] {
        &self.stream
    }

    /// Windows that run together.
    pub fn windows(&self) -> usize {
        self.batch.sequences
    }

    /// [`Streams::hidden_states`] of all windows, one after the other.
    pub fn all_hidden_states(&self, norm: &StreamNorm) -> Vec<f32> {
        (0..self.windows()).flat_map(|window| self.hidden_states(window, norm)).collect()
    }

    /// What the head reads: of a model of texts the normalized last hidden states of all tokens, of a classifier those of the first tokens of
    /// each image, one behind the other.
    pub fn head_inputs(&self, norm: &StreamNorm) -> Vec<f32> {
        let Some(image) = self.spec.image() else { return self.all_hidden_states(norm) };
        let (hidden, elems) = (self.spec.hidden as usize, self.batch.tokens * self.spec.hidden as usize);
        let of_head = image.head_tokens as usize * hidden;
        let states: Vec<f32> =
            self.stream.chunks_exact(elems).flat_map(|image| &image[..of_head]).copied().collect();
        let mut inputs = vec![0.0; states.len()];
        models::normalize(self.machine, &self.spec, norm.view(), &states, &mut inputs);
        inputs
    }

    /// The normalized last hidden states of one window, `positions x hidden`: the head's input.
    pub fn hidden_states(&self, window: usize, norm: &StreamNorm) -> Vec<f32> {
        let elems = self.batch.tokens * self.spec.hidden as usize;
        let mut hidden = vec![0.0; elems];
        let stream = &self.stream[window * elems..(window + 1) * elems];
        models::normalize(self.machine, &self.spec, norm.view(), stream, &mut hidden);
        if let Some(matrix) = &norm.head_input {
            let mut turned = vec![0.0; elems];
            multiply(matrix, &hidden, &mut turned);
            return turned;
        }
        hidden
    }
}

/// What enters the first block.
fn entered(
    machine: Machine<'_>,
    spec: &ModelSpec,
    entry: &Matrix,
    outside: &Outside,
    inputs: Inputs<'_>,
) -> Result<Vec<f32>, RuntimeError> {
    let images = match inputs {
        Inputs::Windows { windows, positions } => {
            return embedded(machine, spec, entry, outside, windows, positions);
        }
        Inputs::Images(images) => images,
    };
    let missing = || RuntimeError::Missing { kind: SectionKind::Positions.name(), layer: None };
    let image = spec.image().ok_or_else(missing)?;
    let positions = outside.positions.as_deref().ok_or_else(missing)?;
    let (elems, hidden) = (image.tokens() as usize * spec.hidden as usize, spec.hidden as usize);
    let mut stream = zeroed_vec(images.len() * elems);
    for (pixels, stream) in images.iter().zip(stream.chunks_exact_mut(elems)) {
        let patches = patch_inputs(spec, std::slice::from_ref(pixels))?;
        multiply(entry, &patches, &mut stream[image.tokens_before as usize * hidden..]);
        vit::enter(kernels::best(), image, &positions.data, stream);
    }
    Ok(stream)
}

/// The numbers of all patches of images, one image after the other.
///
/// # Errors
/// An image has another size than the model's, or the model reads none.
pub(crate) fn patch_inputs(spec: &ModelSpec, images: &[Vec<u8>]) -> Result<Vec<f32>, RuntimeError> {
    let Some(image) = spec.image() else {
        return Err(RuntimeError::Kind {
            architecture: spec.architecture.name(),
            kind: spec.architecture.kind(),
        });
    };
    let (expected, elems) = (image.elems(), image.patch_elems() as usize);
    if let Some(wrong) = images.iter().find(|image| image.len() != expected) {
        return Err(RuntimeError::Pixels { expected: expected as u64, found: wrong.len() as u64 });
    }
    let mut inputs = zeroed_vec(images.len() * expected);
    for (rgb, inputs) in images.iter().zip(inputs.chunks_exact_mut(expected)) {
        for (patch, numbers) in inputs.chunks_exact_mut(elems).enumerate() {
            vit::gather(image, Pixels::Bytes { rgb, repeat: 1 }, patch, numbers);
        }
    }
    Ok(inputs)
}

/// The embeddings of the first `positions` tokens of every window, as they enter the first block.
fn embedded(
    machine: Machine<'_>,
    spec: &ModelSpec,
    embedding: &Matrix,
    outside: &Outside,
    windows: &[Vec<u32>],
    positions: usize,
) -> Result<Vec<f32>, RuntimeError> {
    let vocabulary = spec.vocabulary;
    let longest = windows.iter().map(Vec::len).min().unwrap_or(0).min(spec.context as usize);
    if positions == 0 || positions > longest {
        let (highest, found) = (longest as u64, positions as u64);
        return Err(RuntimeError::Limit { name: "positions of a window", lowest: 1, highest, found });
    }
    let hidden = spec.hidden as usize;
    if let Some(&found) =
        windows.iter().flat_map(|window| &window[..positions]).find(|token| **token >= vocabulary)
    {
        return Err(RuntimeError::Token { found, vocabulary });
    }
    let mut stream = zeroed_vec(windows.len() * positions * hidden);
    stream.par_chunks_exact_mut(positions * hidden).zip(windows).for_each(|(stream, window)| {
        for (position, (token, entered)) in window.iter().zip(stream.chunks_exact_mut(hidden)).enumerate() {
            entered.copy_from_slice(embedding.row(*token as usize));
            let learned = outside.positions.as_deref().map_or(&[][..], |learned| learned.row(position));
            models::enter(kernels::best(), spec, learned, entered);
        }
    });
    if let Some(norm) = &outside.norm {
        let mut normalized = zeroed_vec(stream.len());
        models::normalize(machine, spec, norm.view(), &stream, &mut normalized);
        return Ok(normalized);
    }
    Ok(stream)
}

/// The logits (m x vocabulary) of normalized hidden states (m x hidden).
pub(crate) fn head_logits(spec: &ModelSpec, head: &Matrix, hidden: &[f32]) -> Vec<f32> {
    let mut logits = vec![0.0; hidden.len() / head.cols * head.rows];
    multiply(head, hidden, &mut logits);
    models::cap_logits(kernels::best(), spec, &mut logits);
    logits
}

/// The full-precision model's logits on windows, made a window at a time.
#[derive(Debug)]
pub struct DenseLogits<'m> {
    streams: Streams<'m>,
    final_norm: StreamNorm,
    head: Matrix,
}

/// Why the full-precision model could not run.
#[derive(Debug, thiserror::Error)]
pub enum DenseError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The forward stopped.
    #[error("full-precision forward of {model}: {cause}")]
    Forward {
        /// The checkpoint's name.
        model: String,
        /// Why.
        cause: RuntimeError,
    },
}

impl<'m> DenseLogits<'m> {
    /// Runs all blocks over the first `positions` tokens of every window. `progress` hears of each block.
    ///
    /// # Errors
    /// [`DenseError`].
    pub fn new(
        machine: Machine<'m>,
        checkpoint: &Checkpoint,
        windows: &[Vec<u32>],
        positions: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, DenseError> {
        let failed = |cause| DenseError::Forward { model: checkpoint.name(), cause };
        // An encoder has none: that is known before anything is run.
        checkpoint.final_norm()?;
        let embedding = checkpoint.embedding()?;
        let mut streams = Streams::new(machine, checkpoint, &embedding, windows, positions)?;
        for layer in 0..checkpoint.spec.layers as usize {
            let weights = checkpoint.layer(layer)?;
            streams.run_block(&mut DenseLayer { weights: &weights, layer }).map_err(failed)?;
            progress(layer + 1);
        }
        Ok(DenseLogits::after_blocks(streams, checkpoint, embedding)?)
    }

    /// Of streams that have run through all blocks; `embedding` is the head where the checkpoint has no other.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub(crate) fn after_blocks(
        streams: Streams<'m>,
        checkpoint: &Checkpoint,
        embedding: Matrix,
    ) -> Result<Self, CheckpointError> {
        let head = checkpoint.head()?.unwrap_or(embedding);
        Ok(DenseLogits { streams, final_norm: checkpoint.final_norm()?, head })
    }

    /// The logits of one window, `positions x vocabulary`.
    pub fn window(&self, window: usize) -> Vec<f32> {
        head_logits(&self.streams.spec, &self.head, &self.streams.hidden_states(window, &self.final_norm))
    }
}
