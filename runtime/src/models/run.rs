//! The steps that blocks are made of.
//!
//! Each takes what the step before left in [`Scratch`] and leaves its result there. Letters of shapes: `m` tokens at once, `d` hidden, `i`
//! intermediate, `h` heads, `g` kv heads, `e` head_dim, `c` context. The order of every float operation is docs/numerics.md's.

use super::attention::attend_all;
use super::cache::{CacheElem, KeptMut, LayerCache, cache_elems, scale_elems};
use super::scratch::{Rotations, Scratch};
use crate::Machine;
use crate::executor::{PART_TOKENS, for_each_chunk, for_each_part};
use crate::kernels::Kernels;
use crate::linear::{BlockWeights, LinearSet, Then};
use rescomp_formats::hadamard::Hadamard;
use rescomp_formats::section::SectionKind as K;
use rescomp_formats::spec::{Activation, ModelSpec};

/// Which tokens a forward runs: `sequences` of equal length side by side, each with `tokens` new ones from position `start`.
/// A device has one sequence; the quantizer runs all its windows together. An encoder's `start` is 0: a text runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of sequences.
    pub sequences: usize,
    /// New tokens in each.
    pub tokens: usize,
    /// Position of the first new token in each.
    pub start: usize,
}

impl Batch {
    /// New tokens in all sequences, `m`.
    pub const fn all_tokens(&self) -> usize {
        self.sequences * self.tokens
    }
}

/// One block of a forward: what it runs on.
#[derive(Debug)]
pub struct BlockRun<'r, 's, S> {
    /// Kernels and threads.
    pub machine: Machine<'r>,
    /// The model.
    pub spec: &'r ModelSpec,
    /// Which block.
    pub layer: usize,
    /// Which tokens. [`Scratch::set_positions`] has been called for them.
    pub batch: Batch,
    /// Positions that `cache` has room for, a sequence.
    pub context: usize,
    /// m x d: the residual stream, tokens in the order (sequence, position).
    pub stream: &'r mut [f32],
    /// Keys and values.
    pub cache: LayerCache<'r, S>,
    /// Everything on the way.
    pub scratch: &'r mut Scratch<'s>,
}

impl<S: CacheElem> BlockRun<'_, '_, S> {
    /// The norm of this kind, of the stream: `hidden`.
    pub(super) fn norm<W: BlockWeights>(&mut self, weights: &W, gain: K) -> Result<(), W::Error> {
        let Self { machine, spec, batch, ref mut stream, ref mut scratch, .. } = *self;
        let bias = match gain {
            K::AttentionNorm => K::AttentionNormBias,
            _ => K::MlpNormBias,
        };
        let norm = Norm {
            gain: weights.vector(gain)?,
            bias: if spec.architecture.has_layer_norm() { weights.vector(bias)? } else { &[] },
        };
        let hidden = &mut scratch.hidden[..batch.all_tokens() * spec.hidden as usize];
        normalize(machine, spec, norm, stream, hidden);
        Ok(())
    }

    /// The stream as it is: `hidden`.
    pub(super) fn take_stream(&mut self) {
        let hidden = &mut self.scratch.hidden[..self.stream.len()];
        hidden.copy_from_slice(self.stream);
    }

    /// The norm of this kind, of the stream, in its place: the stream, and `hidden`.
    pub(super) fn norm_of_stream<W: BlockWeights>(&mut self, weights: &W, gain: K) -> Result<(), W::Error> {
        self.norm(weights, gain)?;
        self.stream.copy_from_slice(&self.scratch.hidden[..self.stream.len()]);
        Ok(())
    }

    /// Keeps `hidden` for later.
    pub(super) fn set_aside(&mut self) {
        core::mem::swap(&mut self.scratch.hidden, &mut self.scratch.aside);
    }

    /// `hidden` as it was set aside.
    pub(super) fn take_aside(&mut self) {
        self.set_aside();
    }

    /// Attention of `hidden`: each head's output is left in `queries`.
    pub(super) fn attention<W: BlockWeights>(&mut self, weights: &mut W) -> Result<(), W::Error> {
        let Self { machine, spec, layer, batch, context, ref mut cache, ref mut scratch, .. } = *self;
        let m = batch.all_tokens();
        let Scratch { hidden, queries, keys, values, heads, rotations, local_rotations, .. } = &mut **scratch;
        let hidden = &hidden[..m * spec.hidden as usize];
        let queries = &mut queries[..m * spec.query_width()];
        let keys = &mut keys[..m * spec.kv_width()];
        let values = &mut values[..m * spec.kv_width()];
        weights.apply(LinearSet::QueryKeyValue, m, hidden, &mut [queries, keys, values])?;

        let architecture = spec.architecture;
        if architecture.has_query_bias() {
            add_to_each(machine, queries, weights.vector(K::QueryBias)?);
            add_to_each(machine, keys, weights.vector(K::KeyBias)?);
            add_to_each(machine, values, weights.vector(K::ValueBias)?);
        }
        if architecture.has_head_norms() {
            normalize_heads(machine, spec, queries, weights.vector(K::QueryNorm)?);
            normalize_heads(machine, spec, keys, weights.vector(K::KeyNorm)?);
        }
        if spec.rotates(layer) {
            let local = architecture.has_local_frequencies() && spec.window(layer).is_some();
            let rotations = if local { local_rotations } else { rotations };
            rotate(machine, spec, batch, queries, rotations);
            rotate(machine, spec, batch, keys, rotations);
        }
        keep(machine, spec, batch, context, keys, &mut cache.keys, S::keep_key);
        keep(machine, spec, batch, context, values, &mut cache.values, S::keep_value);
        attend_all(machine, spec, spec.window(layer), batch, context, cache, queries, heads);
        Ok(())
    }

    /// The gated hidden layer of the MLP of `hidden`: left in `gate`.
    pub(super) fn gated<W: BlockWeights>(&mut self, weights: &mut W) -> Result<(), W::Error> {
        let Self { machine, spec, batch, ref mut scratch, .. } = *self;
        let m = batch.all_tokens();
        let hidden = &scratch.hidden[..m * spec.hidden as usize];
        let gate = &mut scratch.gate[..m * spec.intermediate as usize];
        let up = &mut scratch.up[..m * spec.intermediate as usize];
        let then = match spec.variant.activation {
            Activation::Silu => Then::SiluMultiply,
            _ => Then::GeluMultiply,
        };
        weights.apply_then(machine, LinearSet::GateUp, m, hidden, &mut [gate, up], then)
    }

    /// The hidden layer of the MLP of `hidden`, without a gate: left in `up`.
    pub(super) fn ungated<W: BlockWeights>(&mut self, weights: &mut W) -> Result<(), W::Error> {
        let Self { machine, spec, batch, ref mut scratch, .. } = *self;
        let m = batch.all_tokens();
        let hidden = &scratch.hidden[..m * spec.hidden as usize];
        let up = &mut scratch.up[..m * spec.intermediate as usize];
        weights.apply(LinearSet::Up, m, hidden, &mut [&mut *up])?;
        let (bias, kernels) = (weights.vector(K::UpBias)?, machine.kernels);
        for_each_tokens(machine, up, spec.intermediate as usize, |_, up| {
            up.chunks_exact_mut(bias.len()).for_each(|up| (kernels.add)(up, bias));
            match spec.variant.activation {
                Activation::Relu => {
                    up.iter_mut().for_each(|value| *value = if *value > 0.0 { *value } else { 0.0 })
                }
                Activation::GeluTanh => (kernels.gelu_tanh)(up),
                _ => (kernels.gelu)(up),
            }
        });
        Ok(())
    }

    /// Adds to the stream what attention or the MLP gave: its product with the output or the down projection, and the bias.
    pub(super) fn add_product<W: BlockWeights>(
        &mut self,
        weights: &mut W,
        set: LinearSet,
    ) -> Result<(), W::Error> {
        let Self { machine, spec, batch, ref mut stream, ref mut scratch, .. } = *self;
        let m = batch.all_tokens();
        scratch.transform_input(machine, spec, m, set);
        let (input, hidden) = scratch.product(spec, m, set);
        weights.apply_then(machine, set, m, input, &mut [hidden], Then::AddTo(stream))?;
        if spec.architecture.has_output_bias() {
            let bias = if set == LinearSet::Output { K::OutputBias } else { K::DownBias };
            add_to_each(machine, stream, weights.vector(bias)?);
        }
        Ok(())
    }

    /// Adds to the stream the norm of what attention or the MLP gave.
    pub(super) fn add_normed_product<W: BlockWeights>(
        &mut self,
        weights: &mut W,
        set: LinearSet,
        gain: K,
    ) -> Result<(), W::Error> {
        let Self { machine, spec, batch, ref mut stream, ref mut scratch, .. } = *self;
        let m = batch.all_tokens();
        scratch.transform_input(machine, spec, m, set);
        let (input, hidden) = scratch.product(spec, m, set);
        weights.apply(set, m, input, &mut [&mut *hidden])?;
        let (gain, kernels, d) = (weights.vector(gain)?, machine.kernels, spec.hidden as usize);
        for_each_tokens(machine, hidden, d, |_, hidden| {
            let norm = |token| (kernels.rms_norm_in_place)(token, gain, spec.norm_epsilon);
            hidden.chunks_exact_mut(d).for_each(norm);
        });
        for_each_part(machine.executor, stream, hidden, d, kernels.add);
        Ok(())
    }
}

impl Scratch<'_> {
    /// The input of the output or of the down projection, and room for its product.
    fn product(&mut self, spec: &ModelSpec, m: usize, set: LinearSet) -> (&mut [f32], &mut [f32]) {
        let input = match set {
            LinearSet::Output => &mut self.queries[..m * spec.query_width()],
            _ if spec.architecture.has_gate() => &mut self.gate[..m * spec.intermediate as usize],
            _ => &mut self.up[..m * spec.intermediate as usize],
        };
        (input, &mut self.hidden[..m * spec.hidden as usize])
    }

    /// Passes the input of the output or of the down projection through a Hadamard transform, where the weights were rotated for one.
    fn transform_input(&mut self, machine: Machine<'_>, spec: &ModelSpec, m: usize, set: LinearSet) {
        let asked = match set {
            LinearSet::Output => spec.online.output,
            _ => spec.online.down,
        };
        if !(asked && cfg!(feature = "hadamard")) || m == 0 {
            return;
        }
        let (input, _) = self.product(spec, m, set);
        let width = input.len() / m;
        // A model that asks for a transform of another width was refused (`ModelSpec::check`).
        let Some(transform) = Hadamard::new(width) else { return };
        for_each_tokens(machine, input, width, |_, input| {
            input.chunks_exact_mut(width).for_each(|row| (machine.kernels.hadamard)(&transform, row));
        });
    }
}

/// The gain and, where it is a LayerNorm, the bias of a norm of the stream; no bias makes it an RMSNorm.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// d.
    pub gain: &'a [f32],
    /// d, or none.
    pub bias: &'a [f32],
}

/// The norm of each token: `input` and `output` are m x d. After the last block it makes the head's input.
pub fn normalize(machine: Machine<'_>, spec: &ModelSpec, norm: Norm<'_>, input: &[f32], output: &mut [f32]) {
    let (d, kernels, epsilon) = (spec.hidden as usize, machine.kernels, spec.norm_epsilon);
    for_each_part(machine.executor, output, input, d, |output, input| {
        for (input, output) in input.chunks_exact(d).zip(output.chunks_exact_mut(d)) {
            match norm.bias {
                [] => (kernels.rms_norm)(input, norm.gain, epsilon, output),
                bias => (kernels.layer_norm)(input, norm.gain, bias, epsilon, output),
            }
        }
    });
}

/// The norm of each token, in its place: of an encoder's embeddings.
pub fn normalize_stream(
    machine: Machine<'_>,
    spec: &ModelSpec,
    norm: Norm<'_>,
    stream: &mut [f32],
    scratch: &mut Scratch<'_>,
) {
    let hidden = &mut scratch.hidden[..stream.len()];
    normalize(machine, spec, norm, stream, hidden);
    stream.copy_from_slice(hidden);
}

/// What a token brings into the first block: `row` is its embedding and becomes that. `position` is its position's vector, where positions are
/// learned, else nothing.
pub fn enter(kernels: &Kernels, spec: &ModelSpec, position: &[f32], row: &mut [f32]) {
    let scale = spec.variant.embedding_scale;
    if scale != 1.0 {
        row.iter_mut().for_each(|value| *value *= scale);
    }
    if !position.is_empty() {
        (kernels.add)(row, position);
    }
}

/// Bounds logits as the model says.
pub fn cap_logits(kernels: &Kernels, spec: &ModelSpec, logits: &mut [f32]) {
    if spec.variant.logit_cap > 0.0 {
        (kernels.soft_cap)(logits, spec.variant.logit_cap);
    }
}

/// RMSNorm of each head, or of all together: as many elements as there are gains.
fn normalize_heads(machine: Machine<'_>, spec: &ModelSpec, heads: &mut [f32], gain: &[f32]) {
    let (e, norm, epsilon) = (gain.len(), machine.kernels.rms_norm_in_place, spec.norm_epsilon);
    for_each_tokens(machine, heads, e, |_, heads| {
        heads.chunks_exact_mut(e).for_each(|head| norm(head, gain, epsilon));
    });
}

/// Adds a bias to each token's values.
fn add_to_each(machine: Machine<'_>, values: &mut [f32], bias: &[f32]) {
    let add = machine.kernels.add;
    for_each_tokens(machine, values, bias.len(), |_, values| {
        values.chunks_exact_mut(bias.len()).for_each(|values| add(values, bias));
    });
}

/// Rotates the first elements of every head of every token by its position.
fn rotate(
    machine: Machine<'_>,
    spec: &ModelSpec,
    batch: Batch,
    heads: &mut [f32],
    Rotations { cosines, sines }: &Rotations<'_>,
) {
    let (e, rotated) = (spec.head_dim as usize, spec.variant.rotary_dim as usize);
    let width = heads.len() / batch.all_tokens();
    for_each_tokens(machine, heads, width, |first, heads| {
        for (token, heads) in heads.chunks_exact_mut(width).enumerate() {
            let position = (first + token) % batch.tokens;
            let pairs = position * (rotated / 2)..(position + 1) * (rotated / 2);
            for head in heads.chunks_exact_mut(e) {
                (machine.kernels.rotate)(
                    &mut head[..rotated],
                    &cosines[pairs.clone()],
                    &sines[pairs.clone()],
                );
            }
        }
    });
}

/// Keeps new keys or values (m x g e) in each sequence's cache, by `keep_one`.
fn keep<S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    batch: Batch,
    context: usize,
    new: &[f32],
    cache: &mut KeptMut<'_, S>,
    keep_one: fn(&Kernels, &[f32], usize, KeptMut<'_, S>),
) {
    let (e, width) = (spec.head_dim as usize, spec.kv_width());
    let keep_sequence = |sequence: usize, mut cache: KeptMut<'_, S>| {
        let new = new[sequence * batch.tokens * width..].chunks_exact(width).take(batch.tokens);
        for (position, new) in (batch.start..).zip(new) {
            for (head, new) in cache.heads(spec, context).zip(new.chunks_exact(e)) {
                keep_one(machine.kernels, new, position, head);
            }
        }
    };
    let kept = cache_elems::<S>(spec, context) as usize;
    if S::SCALED {
        // A device has one sequence: there is nothing to hand out.
        let scales = cache.scales.chunks_exact_mut(scale_elems::<S>(spec, context) as usize);
        for (sequence, (numbers, scales)) in cache.numbers.chunks_exact_mut(kept).zip(scales).enumerate() {
            keep_sequence(sequence, KeptMut { numbers, scales });
        }
    } else {
        for_each_chunk(machine.executor, cache.numbers, kept, |sequence, numbers| {
            keep_sequence(sequence, KeptMut::from(numbers));
        });
    }
}

/// Runs `task` with parts of `values` (m x `width`) on all threads, and with the number of each part's first token.
fn for_each_tokens(
    machine: Machine<'_>,
    values: &mut [f32],
    width: usize,
    task: impl Fn(usize, &mut [f32]) + Sync,
) {
    for_each_chunk(machine.executor, values, PART_TOKENS * width, |part, values| {
        task(part * PART_TOKENS, values);
    });
}
