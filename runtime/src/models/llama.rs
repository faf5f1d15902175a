//! Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
//!
//! ```text
//! x = embedding of each token
//! each block:  h = rms_norm(x);  q, k, v = h Wq^T, h Wk^T, h Wv^T;  rotate q and k by position;  keep k and v
//!              x = x + attention(q, kept k, kept v) Wo^T
//!              h = rms_norm(x);  x = x + (silu(h Wgate^T) * (h Wup^T)) Wdown^T
//! logits = rms_norm(x) Whead^T
//! ```
//! Letters of shapes: `m` tokens at once, `d` hidden, `i` intermediate, `h` heads, `g` kv heads, `e` head_dim, `c` context.
//! Source: Touvron et al., "LLaMA", arXiv 2302.13971; grouped queries: Ainslie et al., arXiv 2305.13245; rotary positions: Su et
//! al., arXiv 2104.09864. The order of every float operation is docs/numerics.md's.

use crate::Machine;
use crate::error::RuntimeError;
use crate::executor::{PART_TOKENS, Serial, for_each_chunk, for_each_chunk_pair, for_each_part};
use crate::kernels::{Attention, MOST_TOGETHER, sin_cos_turn};
use crate::linear::{BlockWeights, LinearSet, Then};
use crate::memory::{Arena, slice_bytes};
use crate::models::cache::CacheElem;
use core::ops::Range;
use rescomp_formats::section::SectionKind;
use rescomp_formats::spec::ModelSpec;

/// Which tokens a forward runs: `sequences` of equal length side by side, each with `tokens` new ones from position `start`.
/// A device has one sequence; the quantizer runs all its windows together.
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

/// Keys and values of one layer, for every sequence: `sequences x g x c x e` each.
#[derive(Debug)]
pub struct LayerCache<'a, S> {
    /// Keys, already rotated.
    pub keys: &'a mut [S],
    /// Values.
    pub values: &'a mut [S],
}

/// Elements of the keys (and of the values) of one layer and one sequence.
pub fn cache_elems(spec: &ModelSpec, context: usize) -> u64 {
    (spec.kv_width() as u64).saturating_mul(context as u64)
}

/// Memory for what a block computes on the way.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// m x d: a normalized input, then a projection's output.
    hidden: &'a mut [f32],
    /// m x h e: queries, then attention's output.
    queries: &'a mut [f32],
    /// m x g e.
    keys: &'a mut [f32],
    /// m x g e.
    values: &'a mut [f32],
    /// m x i.
    gate: &'a mut [f32],
    /// m x i.
    up: &'a mut [f32],
    /// For each group of sequences, h x (tokens e + 2 c): each head's outputs, and the scores of two of its tokens.
    heads: &'a mut [f32],
    /// tokens x e/2: cosines of each position's rotations.
    cosines: &'a mut [f32],
    /// tokens x e/2.
    sines: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    /// Elements of each slice, in the order of the fields.
    fn elems(spec: &ModelSpec, sequences: usize, tokens: usize, context: usize) -> [u64; 9] {
        let all = (sequences as u64).saturating_mul(tokens as u64);
        let of = |width: usize| all.saturating_mul(width as u64);
        let pairs = (tokens as u64).saturating_mul(u64::from(spec.head_dim / 2));
        let scores = (context as u64).saturating_mul(SHARING.min(tokens) as u64);
        let head = (tokens as u64).saturating_mul(spec.head_dim.into()).saturating_add(scores);
        let groups = sequences.min(MOST_GROUPS);
        [
            of(spec.hidden as usize),
            of(spec.query_width()),
            of(spec.kv_width()),
            of(spec.kv_width()),
            of(spec.intermediate as usize),
            of(spec.intermediate as usize),
            head.saturating_mul(spec.heads.into()).saturating_mul(groups as u64),
            pairs,
            pairs,
        ]
    }

    /// Bytes that [`Scratch::carve`] takes, for batches of at most `sequences` and `tokens`, and sequences of at most `context` positions.
    pub fn bytes(spec: &ModelSpec, sequences: usize, tokens: usize, context: usize) -> u64 {
        Self::elems(spec, sequences, tokens, context)
            .into_iter()
            .fold(0, |bytes: u64, elems| bytes.saturating_add(slice_bytes::<f32>(elems)))
    }

    /// Takes the memory.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`].
    pub fn carve(
        spec: &ModelSpec,
        sequences: usize,
        tokens: usize,
        context: usize,
        arena: &mut Arena<'a>,
    ) -> Result<Self, RuntimeError> {
        let elems = Self::elems(spec, sequences, tokens, context);
        let mut take = |index: usize| arena.take::<f32>(elems[index] as usize);
        Ok(Scratch {
            hidden: take(0)?,
            queries: take(1)?,
            keys: take(2)?,
            values: take(3)?,
            gate: take(4)?,
            up: take(5)?,
            heads: take(6)?,
            cosines: take(7)?,
            sines: take(8)?,
        })
    }

    /// Computes the rotations of positions `start .. start + tokens`: once a forward, for all layers.
    pub fn set_positions(&mut self, frequencies: &[u64], start: usize, tokens: usize) {
        let pairs = frequencies.len();
        for token in 0..tokens {
            let position = (start + token) as u64;
            for (pair, &frequency) in frequencies.iter().enumerate() {
                let (sine, cosine) = sin_cos_turn(position.wrapping_mul(frequency));
                self.sines[token * pairs + pair] = sine;
                self.cosines[token * pairs + pair] = cosine;
            }
        }
    }
}

/// One block. `stream` (m x d) is the residual stream, tokens in the order (sequence, position); `cache` has room for
/// `context` positions a sequence. [`Scratch::set_positions`] has been called for the batch.
///
/// # Errors
/// What `weights` fails with.
#[expect(clippy::too_many_arguments, reason = "a block's operands, each once")]
pub fn block<W: BlockWeights, S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    weights: &mut W,
    batch: Batch,
    context: usize,
    stream: &mut [f32],
    cache: &mut LayerCache<'_, S>,
    scratch: &mut Scratch<'_>,
) -> Result<(), W::Error> {
    let m = batch.all_tokens();
    let d = spec.hidden as usize;
    let hidden = &mut scratch.hidden[..m * d];
    let queries = &mut scratch.queries[..m * spec.query_width()];
    let keys = &mut scratch.keys[..m * spec.kv_width()];
    let values = &mut scratch.values[..m * spec.kv_width()];
    let gate = &mut scratch.gate[..m * spec.intermediate as usize];
    let up = &mut scratch.up[..m * spec.intermediate as usize];

    normalize(machine, spec, weights.norm(SectionKind::AttentionNorm)?, stream, hidden);
    weights.apply(LinearSet::QueryKeyValue, m, hidden, &mut [queries, keys, values])?;

    rotate(machine, spec, batch, queries, scratch.cosines, scratch.sines);
    rotate(machine, spec, batch, keys, scratch.cosines, scratch.sines);
    keep(machine, spec, batch, context, keys, cache.keys);
    keep(machine, spec, batch, context, values, cache.values);
    attend_all(machine, spec, batch, context, cache, queries, scratch.heads);
    weights.apply_then(machine, LinearSet::Output, m, queries, &mut [&mut *hidden], Then::AddTo(stream))?;

    normalize(machine, spec, weights.norm(SectionKind::MlpNorm)?, stream, hidden);
    weights.apply_then(machine, LinearSet::GateUp, m, hidden, &mut [&mut *gate, up], Then::SiluMultiply)?;
    weights.apply_then(machine, LinearSet::Down, m, gate, &mut [hidden], Then::AddTo(stream))
}

/// RMSNorm of each token: `input` and `output` are m x d. After the last block it makes the head's input.
pub fn normalize(machine: Machine<'_>, spec: &ModelSpec, gain: &[f32], input: &[f32], output: &mut [f32]) {
    let d = spec.hidden as usize;
    for_each_part(machine.executor, output, input, d, |output, input| {
        for (input, output) in input.chunks_exact(d).zip(output.chunks_exact_mut(d)) {
            (machine.kernels.rms_norm)(input, gain, spec.norm_epsilon, output);
        }
    });
}

/// Rotates every head of every token by its position.
fn rotate(
    machine: Machine<'_>,
    spec: &ModelSpec,
    batch: Batch,
    heads: &mut [f32],
    cosines: &[f32],
    sines: &[f32],
) {
    let e = spec.head_dim as usize;
    let width = heads.len() / batch.all_tokens();
    for_each_chunk(machine.executor, heads, PART_TOKENS * width, |part, heads| {
        for (token, heads) in heads.chunks_exact_mut(width).enumerate() {
            let position = (part * PART_TOKENS + token) % batch.tokens;
            let pairs = position * (e / 2)..(position + 1) * (e / 2);
            for head in heads.chunks_exact_mut(e) {
                (machine.kernels.rotate)(head, &cosines[pairs.clone()], &sines[pairs.clone()]);
            }
        }
    });
}

/// Copies new keys or values (m x g e) into each sequence's cache (g x c x e).
fn keep<S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    batch: Batch,
    context: usize,
    new: &[f32],
    cache: &mut [S],
) {
    let (e, width) = (spec.head_dim as usize, spec.kv_width());
    let elems = batch.tokens * width;
    let keep = S::attention(machine.kernels).keep;
    for_each_chunk(machine.executor, cache, cache_elems(spec, context) as usize, |sequence, cache| {
        let new = &new[sequence * elems..][..elems];
        for (token, heads) in new.chunks_exact(width).enumerate() {
            for (head, values) in heads.chunks_exact(e).enumerate() {
                let at = (head * context + batch.start + token) * e;
                keep(values, &mut cache[at..at + e]);
            }
        }
    });
}

/// Tokens that share the loads of values.
const SHARING: usize = 2;

/// Products of queries and keys that make another thread worth its while: about as long as threads take to meet.
const PRODUCTS_PER_THREAD: usize = 16 << 10;

/// The most groups that sequences are divided into: more than processors of a host, so that each has its share.
const MOST_GROUPS: usize = 16;

/// Attention of every sequence. Several sequences run in parallel, groups of them one after the other; the heads of a lone one do.
fn attend_all<S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    batch: Batch,
    context: usize,
    cache: &LayerCache<'_, S>,
    queries: &mut [f32],
    work: &mut [f32],
) {
    let Batch { sequences, tokens, start } = batch;
    let kept = cache_elems(spec, context) as usize;
    let attend = |machine, sequence: usize, queries: &mut [f32], work: &mut [f32]| {
        let (keys, values) =
            (&cache.keys[sequence * kept..][..kept], &cache.values[sequence * kept..][..kept]);
        attend(machine, spec, start, context, keys, values, queries, work);
    };
    let together = sequences.div_ceil(MOST_GROUPS);
    let own = tokens * spec.query_width();
    let work_elems =
        spec.heads as usize * (own / spec.heads as usize + SHARING.min(tokens) * (start + tokens));
    if sequences == 1 {
        return attend(machine, 0, queries, work);
    }
    let groups = sequences.div_ceil(together);
    let slices = [queries, &mut work[..groups * work_elems]];
    for_each_chunk_pair(machine.executor, slices, [together * own, work_elems], |group, queries, work| {
        for (index, queries) in queries.chunks_exact_mut(own).enumerate() {
            let machine = Machine { executor: &Serial, ..machine };
            attend(machine, group * together + index, queries, work);
        }
    });
}

/// Causal attention of one sequence: `queries` (tokens x h e) become the outputs, in place. `keys` and `values` are g x c x e. Heads are
/// independent and run in parallel, consecutive ones on one thread, since those that share keys and values share their loads; `work`
/// holds each head's outputs and scores.
#[expect(clippy::too_many_arguments, reason = "attention's operands, each once")]
fn attend<S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    start: usize,
    context: usize,
    keys: &[S],
    values: &[S],
    queries: &mut [f32],
    work: &mut [f32],
) {
    let (h, e, width) = (spec.heads as usize, spec.head_dim as usize, spec.query_width());
    let tokens = queries.len() / width;
    let of_head = tokens * e + SHARING.min(tokens) * (start + tokens);
    let products = tokens.saturating_mul(start + tokens).saturating_mul(width);
    let tasks = machine.executor.threads().min(products / PRODUCTS_PER_THREAD).max(1);
    let heads_per_task = h.div_ceil(tasks);
    let work = &mut work[..h * of_head];
    let heads = |task: usize| task * heads_per_task..h.min((task + 1) * heads_per_task);
    if tokens == 1 {
        let slices = [&mut *queries, work];
        let chunks = [heads_per_task * e, heads_per_task * of_head];
        for_each_chunk_pair(machine.executor, slices, chunks, |task, queries, work| {
            attend_one(machine, spec, heads(task), start, context, keys, values, queries, work);
        });
        return;
    }
    let input: &[f32] = queries;
    for_each_chunk(machine.executor, work, heads_per_task * of_head, |task, work| {
        let heads = heads(task);
        let (outputs, scores) = work.split_at_mut(heads.len() * tokens * e);
        attend_several(machine, spec, heads, start, context, keys, values, input, outputs, scores);
    });
    let chunks = work.chunks_mut(heads_per_task * of_head).enumerate();
    for (task, work) in chunks {
        for (head, outputs) in heads(task).zip(work.chunks_exact(tokens * e)) {
            for (token, output) in outputs.chunks_exact(e).enumerate() {
                queries[token * width + head * e..][..e].copy_from_slice(output);
            }
        }
    }
}

/// Of consecutive `heads`, those that share keys and values: their kv head and how many they are.
fn sharing_heads(spec: &ModelSpec, heads: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let heads_per_kv = (spec.heads / spec.kv_heads) as usize;
    let kv_heads = heads.start / heads_per_kv..heads.end.div_ceil(heads_per_kv);
    kv_heads.map(move |kv_head| {
        let own = kv_head * heads_per_kv..(kv_head + 1) * heads_per_kv;
        (kv_head, heads.end.min(own.end) - heads.start.max(own.start))
    })
}

/// Attention of one token: `queries` of these heads become their outputs. `scores` has room for all of them.
#[expect(clippy::too_many_arguments, reason = "attention's operands, each once")]
fn attend_one<S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    heads: Range<usize>,
    start: usize,
    context: usize,
    keys: &[S],
    values: &[S],
    mut queries: &mut [f32],
    scores: &mut [f32],
) {
    let attention = S::attention(machine.kernels);
    let (e, seen) = (spec.head_dim as usize, start + 1);
    for (kv_head, sharing) in sharing_heads(spec, heads) {
        let (now, later) = queries.split_at_mut(sharing * e);
        let scores = &mut scores[..sharing * seen];
        let own = kv_head * context * e..(kv_head + 1) * context * e;
        (attention.scores)(now, e, &keys[own.clone()], score_scale(spec), scores);
        scores.chunks_exact_mut(seen).for_each(machine.kernels.softmax);
        let mut together = Together::default();
        for (scores, output) in scores.chunks_exact(seen).zip(now.chunks_exact_mut(e)) {
            together.add(attention, &values[own.clone()], scores, output);
        }
        together.run(attention, &values[own]);
        queries = later;
    }
}

/// Attention of several tokens: `outputs` are heads x tokens x e. Consecutive tokens share the loads of values, as heads do.
#[expect(clippy::too_many_arguments, reason = "attention's operands, each once")]
fn attend_several<S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    heads: Range<usize>,
    start: usize,
    context: usize,
    keys: &[S],
    values: &[S],
    queries: &[f32],
    mut outputs: &mut [f32],
    scores: &mut [f32],
) {
    let attention = S::attention(machine.kernels);
    let (e, width) = (spec.head_dim as usize, spec.query_width());
    let tokens = queries.len() / width;
    let mut head = heads.start;
    for (kv_head, sharing) in sharing_heads(spec, heads) {
        let (now, later) = outputs.split_at_mut(sharing * tokens * e);
        let own = kv_head * context * e..(kv_head + 1) * context * e;
        for first in (0..tokens).step_by(SHARING) {
            let mut rest = &mut *scores;
            let mut together = Together::default();
            let seen = |token: usize| start + token + 1;
            let last = tokens.min(first + SHARING);
            for token in first..last {
                let (scores, later) = rest.split_at_mut(sharing * seen(token));
                let queries = &queries[token * width + head * e..][..sharing * e];
                (attention.scores)(queries, e, &keys[own.clone()], score_scale(spec), scores);
                scores.chunks_exact_mut(seen(token)).for_each(machine.kernels.softmax);
                rest = later;
            }
            for (index, outputs) in now.chunks_exact_mut(tokens * e).enumerate() {
                let mut before = 0;
                for (token, output) in (first..last).zip(outputs[first * e..].chunks_exact_mut(e)) {
                    let weights = &scores[before + index * seen(token)..][..seen(token)];
                    together.add(attention, &values[own.clone()], weights, output);
                    before += sharing * seen(token);
                }
            }
            together.run(attention, &values[own.clone()]);
        }
        head += sharing;
        outputs = later;
    }
}

/// What a score is multiplied with.
fn score_scale(spec: &ModelSpec) -> f32 {
    1.0 / libm::sqrtf(spec.head_dim as f32)
}

/// Rows of weights over the same values, and their outputs, until there are enough to share the loads.
#[derive(Default)]
struct Together<'a> {
    weights: heapless::Vec<&'a [f32], MOST_TOGETHER>,
    outputs: heapless::Vec<&'a mut [f32], MOST_TOGETHER>,
}

impl<'a> Together<'a> {
    /// Adds a row, and computes all where there are as many as can share.
    fn add<S>(&mut self, attention: Attention<S>, values: &[S], weights: &'a [f32], output: &'a mut [f32]) {
        // Neither is full: what is full is computed at once.
        let _ = self.weights.push(weights);
        let _ = self.outputs.push(output);
        if self.weights.is_full() {
            self.run(attention, values);
        }
    }

    /// Computes what is there.
    fn run<S>(&mut self, attention: Attention<S>, values: &[S]) {
        (attention.weighted_sums)(&self.weights, values, &mut self.outputs);
        self.weights.clear();
        self.outputs.clear();
    }
}
