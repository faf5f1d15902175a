//! An encoder: texts through a container, one after the other, in the caller's memory; of each one vector.
//!
//! A text runs at once, since each of its tokens sees all others. So memory grows with the longest text, and nothing is kept from one text to
//! the next: keys and values are one block's, as f32.

use crate::Machine;
use crate::error::RuntimeError;
use crate::linear::{ActivationFormat, QuantizedWeights};
use crate::memory::{Arena, MemoryBlock, slice_bytes};
use crate::models::{self, Batch, BlockRun, LayerCache, Scratch};
use crate::session::{expect_kind, wrong_kind};
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::spec::{ModelKind, ModelSpec, Pooling, TextEmbedding};

/// Most tokens that any encoder runs at once.
const MOST_TOKENS: u32 = 4096;

/// Bytes of an encoder's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderPlan {
    bytes: u64,
    tokens: usize,
}

impl EncoderPlan {
    /// The memory that [`Encoder::new`] needs for texts of at most `tokens` tokens, exactly.
    ///
    /// # Errors
    /// [`RuntimeError::Limit`], or [`RuntimeError::Kind`] of what is no encoder.
    pub fn new(container: &CheckedContainer<'_>, tokens: usize) -> Result<EncoderPlan, RuntimeError> {
        let spec = &container.manifest().spec;
        expect_kind(spec, ModelKind::Encoder)?;
        crate::parts::expect(container)?;
        let (highest, found) = (most_tokens(spec) as u64, tokens as u64);
        if !(1..=highest).contains(&found) {
            return Err(RuntimeError::Limit { name: "tokens of a text", lowest: 1, highest, found });
        }
        let parts = [
            Scratch::bytes(spec, 1, tokens, tokens),
            QuantizedWeights::bytes(container, found),
            slice_bytes::<f32>(models::cache_elems::<f32>(spec, tokens)).saturating_mul(2),
            slice_bytes::<f32>(found.saturating_mul(spec.hidden.into())),
            slice_bytes::<f64>(spec.hidden.into()),
            slice_bytes::<f32>(spec.hidden.into()),
        ];
        Ok(EncoderPlan { bytes: parts.into_iter().fold(0, u64::saturating_add), tokens })
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All bytes, in blocks.
    pub fn blocks(&self) -> u64 {
        self.bytes / crate::memory::BLOCK_BYTES
    }

    /// Tokens of the longest text.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Tokens of the longest text that a model can run.
pub fn most_tokens(spec: &ModelSpec) -> usize {
    spec.context.min(MOST_TOKENS) as usize
}

/// An encoder in its memory.
#[derive(Debug)]
pub struct Encoder<'a> {
    spec: &'a ModelSpec,
    machine: Machine<'a>,
    embedding: TextEmbedding,
    tokens: usize,
    weights: QuantizedWeights<'a>,
    scratch: Scratch<'a>,
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// tokens x hidden.
    stream: &'a mut [f32],
    sums: &'a mut [f64],
    vector: &'a mut [f32],
}

impl<'a> Encoder<'a> {
    /// An encoder of texts of at most as many tokens as the plan has, in `memory` of at least [`EncoderPlan::blocks`].
    ///
    /// # Errors
    /// [`RuntimeError::Limit`], [`RuntimeError::Memory`], or [`RuntimeError::Kind`] of what is no encoder.
    pub fn new(
        container: &'a CheckedContainer<'a>,
        machine: Machine<'a>,
        tokens: usize,
        activations: ActivationFormat,
        memory: &'a mut [MemoryBlock],
    ) -> Result<Self, RuntimeError> {
        let plan = EncoderPlan::new(container, tokens)?;
        let mut arena = Arena::new(memory, plan.bytes())?;
        let spec = &container.manifest().spec;
        let (hidden, cache) = (spec.hidden as usize, models::cache_elems::<f32>(spec, tokens) as usize);
        let encoder = Encoder {
            spec,
            machine,
            embedding: spec.embedding().ok_or_else(|| wrong_kind(spec))?,
            tokens,
            scratch: Scratch::carve(spec, 1, tokens, tokens, &mut arena),
            weights: QuantizedWeights::carve(container, machine, activations, tokens as u64, &mut arena),
            keys: arena.take(cache),
            values: arena.take(cache),
            stream: arena.take(tokens * hidden),
            sums: arena.take(hidden),
            vector: arena.take(hidden),
        };
        arena.finish()?;
        Ok(encoder)
    }

    /// Tokens of the longest text.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The vector of a text, `hidden` numbers. The tokens are all that the model reads: those that a template puts around a text, too.
    ///
    /// # Errors
    /// [`RuntimeError`]: no tokens, too many, one that is none; numbers that overflow.
    pub fn embed(&mut self, tokens: &[u32]) -> Result<&[f32], RuntimeError> {
        self.run(tokens)?;
        let states = &self.stream[..tokens.len() * self.spec.hidden as usize];
        if !states.iter().all(|number| number.is_finite()) {
            return Err(RuntimeError::NotFinite { layer: None, set: None });
        }
        pool(self.embedding, states, self.sums, self.vector);
        Ok(self.vector)
    }

    /// The states of a text's tokens behind the last block, tokens x hidden.
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn states(&mut self, tokens: &[u32]) -> Result<&[f32], RuntimeError> {
        self.run(tokens)?;
        Ok(&self.stream[..tokens.len() * self.spec.hidden as usize])
    }

    /// Runs a text through all blocks.
    fn run(&mut self, tokens: &[u32]) -> Result<(), RuntimeError> {
        let Self { spec, machine, .. } = *self;
        if tokens.is_empty() {
            return Err(RuntimeError::NoTokens);
        }
        let vocabulary = spec.vocabulary;
        if let Some(&found) = tokens.iter().find(|&&token| token >= vocabulary) {
            return Err(RuntimeError::Token { found, vocabulary });
        }
        if tokens.len() > self.tokens {
            let (tokens, context) = (tokens.len() as u64, self.tokens as u64);
            return Err(RuntimeError::ContextFull { position: 0, tokens, context });
        }
        let d = spec.hidden as usize;
        let stream = &mut self.stream[..tokens.len() * d];
        for ((position, &token), row) in tokens.iter().enumerate().zip(stream.chunks_exact_mut(d)) {
            self.weights.embed(token, row)?;
            models::enter(machine.kernels, spec, self.weights.position(position)?, row);
        }
        models::normalize_stream(machine, spec, self.weights.embedding_norm()?, stream, &mut self.scratch);
        let batch = Batch { sequences: 1, tokens: tokens.len(), start: 0 };
        for layer in 0..spec.layers as usize {
            let mut run = BlockRun {
                machine,
                spec,
                layer,
                batch,
                context: self.tokens,
                stream: &mut *stream,
                cache: LayerCache { keys: (&mut *self.keys).into(), values: (&mut *self.values).into() },
                scratch: &mut self.scratch,
            };
            models::block(&mut run, &mut self.weights.layer(layer))?;
        }
        Ok(())
    }
}

/// One vector (d) of the states of a text's tokens (tokens x d). Sums are f64 in the order of tokens and of elements, so that they are the same
/// everywhere; a vector of zeros stays one.
pub fn pool(embedding: TextEmbedding, states: &[f32], sums: &mut [f64], vector: &mut [f32]) {
    let d = vector.len();
    sums.fill(0.0);
    let tokens = match embedding.pooling {
        Pooling::Mean => states.len() / d.max(1),
        Pooling::Cls => 1,
    };
    for state in states.chunks_exact(d.max(1)).take(tokens) {
        sums.iter_mut().zip(state).for_each(|(sum, number)| *sum += f64::from(*number));
    }
    sums.iter_mut().for_each(|sum| *sum /= tokens as f64);
    let mut divisor = 1.0;
    if embedding.normalized {
        let mut squares = 0.0;
        sums.iter().for_each(|number| squares += number * number);
        divisor = libm::sqrt(squares).max(f64::MIN_POSITIVE);
    }
    vector.iter_mut().zip(sums).for_each(|(number, sum)| *number = (*sum / divisor) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(pooling: Pooling, normalized: bool, states: &[f32]) -> [f32; 2] {
        let (mut sums, mut vector) = ([f64::NAN; 2], [f32::NAN; 2]);
        pool(TextEmbedding { pooling, normalized }, states, &mut sums, &mut vector);
        vector
    }

    #[test]
    fn vectors_are_means_or_the_first_state() {
        let states = [3.0, 4.0, 1.0, 0.0, 2.0, 2.0];
        assert_eq!(pooled(Pooling::Mean, false, &states), [2.0, 2.0]);
        assert_eq!(pooled(Pooling::Cls, false, &states), [3.0, 4.0]);
        assert_eq!(pooled(Pooling::Cls, true, &states), [0.6, 0.8]);
        let root = core::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(pooled(Pooling::Mean, true, &states), [root, root]);
        assert_eq!(pooled(Pooling::Mean, true, &[0.0; 4]), [0.0, 0.0]);
    }
}
