//! A session: one sequence of tokens running through a decoder's container in the caller's memory. ([`crate::encoder`] runs encoders, [`crate::classifier`] classifiers.)

use crate::Machine;
use crate::cache_memory::{CacheMemory, Layers, not_built};
use crate::error::RuntimeError;
use crate::linear::{ActivationFormat, QuantizedWeights};
use crate::memory::{Arena, MemoryBlock, slice_bytes};
use crate::models::{self, Batch, BlockRun, CacheElem, Scratch};
use crate::parts::{self, Part};
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::spec::{ModelKind, ModelSpec};

/// What a session is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Positions of the sequence: prompt and answer together.
    pub context: usize,
    /// Tokens that prefill runs at once. More is faster and takes more memory; the result is the same.
    pub tile: usize,
}

/// Bytes of a session's memory, by use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPlan {
    /// Keys and values.
    pub kv_cache_bytes: u64,
    /// Everything else.
    pub scratch_bytes: u64,
}

impl SessionPlan {
    /// The memory that [`Session::new`] needs for these limits, exactly.
    ///
    /// # Errors
    /// [`RuntimeError::Limit`], [`RuntimeError::Kind`] of what is no decoder, or [`RuntimeError::NotBuilt`].
    pub fn new(container: &CheckedContainer<'_>, limits: Limits) -> Result<SessionPlan, RuntimeError> {
        let spec = &container.manifest().spec;
        expect_kind(spec, ModelKind::Decoder)?;
        parts::expect(container)?;
        let within = |name, highest, found: usize| {
            let (highest, found) = (u64::from(highest), found as u64);
            if (1..=highest).contains(&found) {
                Ok(())
            } else {
                Err(RuntimeError::Limit { name, lowest: 1, highest, found })
            }
        };
        within("context", spec.context, limits.context)?;
        within("tile", 4096, limits.tile)?;
        let stream = (limits.tile as u64).saturating_mul(spec.hidden.into());
        let scratch = [
            Scratch::bytes(spec, 1, limits.tile, limits.context),
            QuantizedWeights::bytes(container, limits.tile as u64),
            slice_bytes::<f32>(stream),
            slice_bytes::<f32>(spec.hidden.into()),
            slice_bytes::<f32>(spec.vocabulary.into()),
        ];
        Ok(SessionPlan {
            kv_cache_bytes: CacheMemory::bytes(container.manifest().cache, spec, limits.context)?,
            scratch_bytes: scratch.into_iter().fold(0, u64::saturating_add),
        })
    }

    /// The largest context, at most `most` and the model's, for which `blocks` of memory suffice.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`] where they don't for one position, [`RuntimeError::Limit`] for a tile that can't be.
    pub fn largest_context(
        container: &CheckedContainer<'_>,
        tile: usize,
        most: usize,
        blocks: u64,
    ) -> Result<usize, RuntimeError> {
        let plan = |context| SessionPlan::new(container, Limits { context, tile });
        let smallest = plan(1)?;
        if smallest.blocks() > blocks {
            let given_bytes = blocks.saturating_mul(crate::memory::BLOCK_BYTES);
            return Err(RuntimeError::Memory { needed_bytes: smallest.bytes(), given_bytes });
        }
        // Between a context that fits and one that doesn't, or that nobody wants.
        let (mut fits, mut beyond) = (1, most.clamp(1, container.manifest().spec.context as usize) + 1);
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            match plan(middle)?.blocks() <= blocks {
                true => fits = middle,
                false => beyond = middle,
            }
        }
        Ok(fits)
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.kv_cache_bytes.saturating_add(self.scratch_bytes)
    }

    /// All bytes, in blocks.
    pub fn blocks(&self) -> u64 {
        self.bytes() / crate::memory::BLOCK_BYTES
    }
}

/// Refuses a model of another kind.
pub(crate) fn expect_kind(spec: &ModelSpec, expected: ModelKind) -> Result<(), RuntimeError> {
    if spec.architecture.kind() == expected { Ok(()) } else { Err(wrong_kind(spec)) }
}

/// The error of a model that is of another kind than is needed.
pub(crate) fn wrong_kind(spec: &ModelSpec) -> RuntimeError {
    RuntimeError::Kind { architecture: spec.architecture.name(), kind: spec.architecture.kind() }
}

/// One sequence in one container.
#[derive(Debug)]
pub struct Session<'a> {
    spec: &'a ModelSpec,
    machine: Machine<'a>,
    limits: Limits,
    weights: QuantizedWeights<'a>,
    frequencies: &'a [u64],
    /// Those of layers with a window, where they have their own.
    local_frequencies: &'a [u64],
    scratch: Scratch<'a>,
    cache: CacheMemory<'a>,
    /// tile x hidden.
    stream: &'a mut [f32],
    hidden: &'a mut [f32],
    logits: &'a mut [f32],
    position: usize,
}

impl<'a> Session<'a> {
    /// A session at position 0, in `memory` of at least [`SessionPlan::blocks`].
    ///
    /// # Errors
    /// [`RuntimeError::Limit`], [`RuntimeError::Memory`], or [`RuntimeError::Kind`] of what is no decoder.
    pub fn new(
        container: &'a CheckedContainer<'a>,
        machine: Machine<'a>,
        limits: Limits,
        activations: ActivationFormat,
        memory: &'a mut [MemoryBlock],
    ) -> Result<Self, RuntimeError> {
        let plan = SessionPlan::new(container, limits)?;
        let mut arena = Arena::new(memory, plan.bytes())?;
        let spec = &container.manifest().spec;
        let format = container.manifest().cache;
        let session = Session {
            spec,
            machine,
            limits,
            frequencies: container.rope_frequencies(),
            local_frequencies: container.local_rope_frequencies(),
            cache: CacheMemory::carve(format, spec, limits.context, &mut arena)?,
            scratch: Scratch::carve(spec, 1, limits.tile, limits.context, &mut arena),
            weights: QuantizedWeights::carve(container, machine, activations, limits.tile as u64, &mut arena),
            stream: arena.take(limits.tile * spec.hidden as usize),
            hidden: arena.take(spec.hidden as usize),
            logits: arena.take(spec.vocabulary as usize),
            position: 0,
        };
        arena.finish()?;
        Ok(session)
    }

    /// Positions in use.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Positions that the session has.
    pub fn context(&self) -> usize {
        self.limits.context
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.rewind(0);
    }

    /// Forgets all but the first `position` tokens; of no effect where there are no more. What runs next goes on behind them.
    pub fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Runs `tokens` and returns the logits that follow the last of them.
    ///
    /// # Errors
    /// [`RuntimeError`]; the session then holds the tokens of the tiles that ended before.
    pub fn run(&mut self, tokens: &[u32]) -> Result<&[f32], RuntimeError> {
        if tokens.is_empty() {
            return Err(RuntimeError::NoTokens);
        }
        let last = tokens.len() - 1;
        self.run_tiles(tokens, |index| index == last, |_, _| ())?;
        Ok(self.logits)
    }

    /// Runs `tokens` and hands the logits that follow each of them to `each`, with the token's index.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_each(&mut self, tokens: &[u32], each: impl FnMut(usize, &[f32])) -> Result<(), RuntimeError> {
        self.run_tiles(tokens, |_| true, each)
    }

    /// Runs `tokens` and hands the head's input at each of them to `each`, with the token's index: what the last block gives, normalized.
    /// No logits are computed.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_hidden(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.check_tokens(tokens)?;
        for (tile, tokens) in tokens.chunks(self.limits.tile).enumerate() {
            self.run_tile(tokens)?;
            for token in 0..tokens.len() {
                self.normalize(token)?;
                each(tile * self.limits.tile + token, self.hidden);
            }
        }
        Ok(())
    }

    fn run_tiles(
        &mut self,
        tokens: &[u32],
        wants_logits: impl Fn(usize) -> bool,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.check_tokens(tokens)?;
        for (tile, tokens) in tokens.chunks(self.limits.tile).enumerate() {
            self.run_tile(tokens)?;
            for token in 0..tokens.len() {
                let index = tile * self.limits.tile + token;
                if wants_logits(index) {
                    self.normalize(token)?;
                    self.weights.logits(self.hidden, self.logits)?;
                    models::cap_logits(self.machine.kernels, self.spec, self.logits);
                    each(index, self.logits);
                }
            }
        }
        Ok(())
    }

    /// Refuses tokens that are none, and more than there is room for.
    fn check_tokens(&self, tokens: &[u32]) -> Result<(), RuntimeError> {
        let vocabulary = self.spec.vocabulary;
        if let Some(&found) = tokens.iter().find(|&&token| token >= vocabulary) {
            return Err(RuntimeError::Token { found, vocabulary });
        }
        if tokens.len() > self.limits.context - self.position {
            let (position, tokens, context) =
                (self.position as u64, tokens.len() as u64, self.limits.context as u64);
            return Err(RuntimeError::ContextFull { position, tokens, context });
        }
        Ok(())
    }

    /// The head's input at a token of the tile that ran last.
    fn normalize(&mut self, token: usize) -> Result<(), RuntimeError> {
        let d = self.spec.hidden as usize;
        let stream = &self.stream[token * d..(token + 1) * d];
        models::normalize(self.machine, self.spec, self.weights.final_norm()?, stream, self.hidden);
        Ok(())
    }

    /// Runs at most a tile of tokens through all blocks.
    fn run_tile(&mut self, tokens: &[u32]) -> Result<(), RuntimeError> {
        let d = self.spec.hidden as usize;
        let stream = &mut self.stream[..tokens.len() * d];
        for ((&token, row), position) in tokens.iter().zip(stream.chunks_exact_mut(d)).zip(self.position..) {
            self.weights.embed(token, row)?;
            models::enter(self.machine.kernels, self.spec, self.weights.position(position)?, row);
        }
        let batch = Batch { sequences: 1, tokens: tokens.len(), start: self.position };
        self.scratch.set_positions(self.frequencies, self.local_frequencies, batch.start, batch.tokens);
        let mut blocks = Blocks {
            machine: self.machine,
            spec: self.spec,
            batch,
            context: self.limits.context,
            stream,
            weights: &mut self.weights,
            scratch: &mut self.scratch,
        };
        match &mut self.cache {
            CacheMemory::Binary16(cache) if Part::CacheF16.is_built() => blocks.run(cache)?,
            CacheMemory::Int8(cache) if Part::CacheInt8.is_built() => blocks.run(cache)?,
            CacheMemory::Binary16(_) => return Err(not_built(CacheFormat::Binary16)),
            CacheMemory::Int8(_) => return Err(not_built(CacheFormat::Int8)),
        }
        self.position += tokens.len();
        Ok(())
    }
}

/// All blocks, and what they run on.
struct Blocks<'r, 's> {
    machine: Machine<'r>,
    spec: &'r ModelSpec,
    batch: Batch,
    context: usize,
    stream: &'r mut [f32],
    weights: &'r mut QuantizedWeights<'s>,
    scratch: &'r mut Scratch<'s>,
}

impl Blocks<'_, '_> {
    fn run<S: CacheElem>(&mut self, cache: &mut Layers<'_, S>) -> Result<(), RuntimeError> {
        for layer in 0..self.spec.layers as usize {
            let mut run = BlockRun {
                machine: self.machine,
                spec: self.spec,
                layer,
                batch: self.batch,
                context: self.context,
                stream: &mut *self.stream,
                cache: cache.layer(self.spec, self.context, layer),
                scratch: &mut *self.scratch,
            };
            models::block(&mut run, &mut self.weights.layer(layer))?;
        }
        Ok(())
    }
}
