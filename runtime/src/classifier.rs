//! A classifier: images through a container, one after the other, in the caller's memory; of each the logits of its classes.
//!
//! An image runs at once, since each of its tokens sees all others. Nothing is kept from one image to the next: keys and values are one block's,
//! as f32.

use crate::Machine;
use crate::error::RuntimeError;
use crate::linear::{ActivationFormat, QuantizedWeights};
use crate::memory::{Arena, MemoryBlock, slice_bytes};
use crate::models::vit::{self, Pixels};
use crate::models::{self, Batch, BlockRun, LayerCache, Scratch};
use crate::session::wrong_kind;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_formats::spec::ModelSpec;

/// Patches whose numbers are in memory at once: enough that each weight is unpacked for several.
const PATCHES: usize = 16;

/// Bytes of a classifier's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassifierPlan {
    bytes: u64,
}

impl ClassifierPlan {
    /// The memory that [`Classifier::new`] needs, exactly.
    ///
    /// # Errors
    /// [`RuntimeError::Kind`] of what is no classifier, or [`RuntimeError::NotBuilt`].
    pub fn new(container: &CheckedContainer<'_>) -> Result<ClassifierPlan, RuntimeError> {
        let spec = &container.manifest().spec;
        let image = spec.image().ok_or_else(|| wrong_kind(spec))?;
        crate::parts::expect(container)?;
        let tokens = image.tokens() as usize;
        let hidden = u64::from(spec.hidden);
        let parts = [
            Scratch::bytes(spec, 1, tokens, tokens),
            QuantizedWeights::bytes(container, tokens as u64),
            slice_bytes::<f32>(models::cache_elems::<f32>(spec, tokens)).saturating_mul(2),
            slice_bytes::<f32>((tokens as u64).saturating_mul(hidden)),
            slice_bytes::<f32>(PATCHES as u64 * u64::from(image.patch_elems())),
            slice_bytes::<f32>(u64::from(image.head_tokens).saturating_mul(hidden)),
            slice_bytes::<f32>(spec.vocabulary.into()),
        ];
        Ok(ClassifierPlan { bytes: parts.into_iter().fold(0, u64::saturating_add) })
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All bytes, in blocks.
    pub fn blocks(&self) -> u64 {
        self.bytes / crate::memory::BLOCK_BYTES
    }
}

/// A classifier in its memory.
#[derive(Debug)]
pub struct Classifier<'a> {
    spec: &'a ModelSpec,
    image: &'a ImageInput,
    machine: Machine<'a>,
    weights: QuantizedWeights<'a>,
    /// tokens x hidden.
    positions: &'a [f32],
    scratch: Scratch<'a>,
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// tokens x hidden.
    stream: &'a mut [f32],
    /// `PATCHES` x numbers of a patch.
    patches: &'a mut [f32],
    /// head_tokens x hidden.
    head_input: &'a mut [f32],
    logits: &'a mut [f32],
}

impl<'a> Classifier<'a> {
    /// A classifier in `memory` of at least [`ClassifierPlan::blocks`].
    ///
    /// # Errors
    /// [`RuntimeError::Memory`], or [`RuntimeError::Kind`] of what is no classifier.
    pub fn new(
        container: &'a CheckedContainer<'a>,
        machine: Machine<'a>,
        activations: ActivationFormat,
        memory: &'a mut [MemoryBlock],
    ) -> Result<Self, RuntimeError> {
        let plan = ClassifierPlan::new(container)?;
        let mut arena = Arena::new(memory, plan.bytes())?;
        let spec = &container.manifest().spec;
        let image = spec.image().ok_or_else(|| wrong_kind(spec))?;
        let (hidden, tokens) = (spec.hidden as usize, image.tokens() as usize);
        let cache = models::cache_elems::<f32>(spec, tokens) as usize;
        let kind = SectionKind::Positions;
        let missing = RuntimeError::Missing { kind: kind.name(), layer: None };
        let classifier = Classifier {
            spec,
            image,
            machine,
            positions: container.floats(SectionName { kind, layer: None }).ok_or(missing)?,
            scratch: Scratch::carve(spec, 1, tokens, tokens, &mut arena),
            weights: QuantizedWeights::carve(container, machine, activations, tokens as u64, &mut arena),
            keys: arena.take(cache),
            values: arena.take(cache),
            stream: arena.take(tokens * hidden),
            patches: arena.take(PATCHES * image.patch_elems() as usize),
            head_input: arena.take(image.head_tokens as usize * hidden),
            logits: arena.take(spec.vocabulary as usize),
        };
        arena.finish()?;
        Ok(classifier)
    }

    /// The logits of an image's classes.
    ///
    /// # Errors
    /// [`RuntimeError::Pixels`] for an image of another size; [`RuntimeError::NotFinite`] for numbers that aren't, or overflow.
    pub fn classify(&mut self, pixels: Pixels<'_>) -> Result<&[f32], RuntimeError> {
        self.run(pixels)?;
        let norm = self.weights.final_norm()?;
        let states = &self.stream[..self.head_input.len()];
        models::normalize(self.machine, self.spec, norm, states, self.head_input);
        self.weights.logits(self.head_input, self.logits)?;
        (self.machine.kernels.add)(self.logits, self.weights.head_bias()?);
        if !self.logits.iter().all(|logit| logit.is_finite()) {
            return Err(RuntimeError::NotFinite { layer: None, set: None });
        }
        Ok(self.logits)
    }

    /// The states of an image's tokens behind the last block, tokens x hidden.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn states(&mut self, pixels: Pixels<'_>) -> Result<&[f32], RuntimeError> {
        self.run(pixels)?;
        Ok(self.stream)
    }

    /// Runs an image through all blocks.
    fn run(&mut self, pixels: Pixels<'_>) -> Result<(), RuntimeError> {
        let Self { spec, image, machine, positions, .. } = *self;
        let (found, expected) = pixels.numbers(image);
        if found != expected {
            return Err(RuntimeError::Pixels { expected: expected as u64, found: found as u64 });
        }
        let (hidden, elems) = (spec.hidden as usize, image.patch_elems() as usize);
        let (_, of_patches) = self.stream.split_at_mut(image.tokens_before as usize * hidden);
        for (first, tokens) in (0..).step_by(PATCHES).zip(of_patches.chunks_mut(PATCHES * hidden)) {
            let count = tokens.len() / hidden;
            let patches = &mut self.patches[..count * elems];
            for (patch, numbers) in (first..).zip(patches.chunks_exact_mut(elems)) {
                vit::gather(image, pixels, patch, numbers);
            }
            self.weights.patches(count, patches, tokens)?;
        }
        vit::enter(machine.kernels, image, positions, self.stream);
        let tokens = image.tokens() as usize;
        for layer in 0..spec.layers as usize {
            let mut run = BlockRun {
                machine,
                spec,
                layer,
                batch: Batch { sequences: 1, tokens, start: 0 },
                context: tokens,
                stream: &mut *self.stream,
                cache: LayerCache { keys: (&mut *self.keys).into(), values: (&mut *self.values).into() },
                scratch: &mut self.scratch,
            };
            models::block(&mut run, &mut self.weights.layer(layer))?;
        }
        Ok(())
    }
}
