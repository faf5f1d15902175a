//! Attention of a block over kept keys and values, for architectures with grouped queries: causal, but that an encoder's and a classifier's tokens see all.
//!
//! Letters of shapes are those of the architectures: `h` heads, `g` kv heads, `e` head_dim, `c` context.

use crate::Machine;
use crate::executor::{Serial, for_each_chunk, for_each_chunk_pair};
use crate::kernels::{Kernels, MOST_TOGETHER, square_root};
use crate::models::cache::{CacheElem, Kept, LayerCache};
use crate::models::run::Batch;
use core::ops::Range;
use rescomp_formats::spec::ModelSpec;

/// Tokens that share the loads of values.
pub(super) const SHARING: usize = 2;

/// Products of queries and keys that make another thread worth its while: about as long as threads take to meet.
const PRODUCTS_PER_THREAD: usize = 16 << 10;

/// The most groups that sequences are divided into: more than processors of a host, so that each has its share.
pub(super) const MOST_GROUPS: usize = 16;

/// Attention of every sequence. `window`: positions that a token sees, its own included; all without. Several sequences run in parallel, groups of them one after the other; the heads of a lone one do.
#[expect(clippy::too_many_arguments, reason = "the operands of attention, each once")]
pub(super) fn attend_all<S: CacheElem>(
    machine: Machine<'_>,
    spec: &ModelSpec,
    window: Option<usize>,
    batch: Batch,
    context: usize,
    cache: &LayerCache<'_, S>,
    queries: &mut [f32],
    work: &mut [f32],
) {
    let Batch { sequences, tokens, start } = batch;
    let (keys, values) = (cache.keys.as_kept(), cache.values.as_kept());
    let attend = |machine, sequence: usize, queries: &mut [f32], work: &mut [f32]| {
        let keys = keys.sequence(spec, context, sequence);
        let values = values.sequence(spec, context, sequence);
        Sequence { machine, spec, window, start, context, keys, values }.attend(queries, work);
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

/// One sequence in a layer, from position `start` on, and what is kept of it.
struct Sequence<'a, S> {
    machine: Machine<'a>,
    spec: &'a ModelSpec,
    window: Option<usize>,
    start: usize,
    context: usize,
    keys: Kept<'a, S>,
    values: Kept<'a, S>,
}

impl<S: CacheElem> Sequence<'_, S> {
    /// Attention: `queries` (tokens x h e) become the outputs, in place. Heads are
    /// independent and run in parallel, consecutive ones on one thread, since those that share keys and values share their loads; `work`
    /// holds each head's outputs and scores.
    fn attend(&self, queries: &mut [f32], work: &mut [f32]) {
        let Self { machine, spec, start, .. } = *self;
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
                self.attend_one(heads(task), queries, work);
            });
            return;
        }
        let input: &[f32] = queries;
        for_each_chunk(machine.executor, work, heads_per_task * of_head, |task, work| {
            let heads = heads(task);
            let (outputs, scores) = work.split_at_mut(heads.len() * tokens * e);
            self.attend_several(heads, input, outputs, scores);
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

    /// Attention of one token: `queries` of these heads become their outputs. `scores` has room for all of them.
    fn attend_one(&self, heads: Range<usize>, mut queries: &mut [f32], scores: &mut [f32]) {
        let Self { machine, spec, start, context, keys, values, .. } = *self;
        let kernels = machine.kernels;
        let (e, first) = (spec.head_dim as usize, self.first_seen(start));
        let seen = start + 1 - first;
        for (kv_head, sharing) in sharing_heads(spec, heads) {
            let (now, later) = queries.split_at_mut(sharing * e);
            let scores = &mut scores[..sharing * seen];
            let (keys, values) = (keys.head(spec, context, kv_head), values.head(spec, context, kv_head));
            S::scores(kernels, now, e, keys, first, score_scale(spec), scores);
            self.weigh(scores, seen);
            let mut together = Together::new(kernels, values, first);
            for (scores, output) in scores.chunks_exact(seen).zip(now.chunks_exact_mut(e)) {
                together.add(scores, output);
            }
            together.run();
            queries = later;
        }
    }

    /// Attention of several tokens: `outputs` are heads x tokens x e. Consecutive tokens share the loads of values, as heads do.
    fn attend_several(
        &self,
        heads: Range<usize>,
        queries: &[f32],
        mut outputs: &mut [f32],
        scores: &mut [f32],
    ) {
        let Self { machine, spec, start, context, keys, values, .. } = *self;
        let kernels = machine.kernels;
        let (e, width) = (spec.head_dim as usize, spec.query_width());
        let tokens = queries.len() / width;
        // Tokens that see other first positions have no values in common to begin with.
        let sharing_tokens = if self.first_seen(start + tokens - 1) > 0 { 1 } else { SHARING };
        let mut head = heads.start;
        for (kv_head, sharing) in sharing_heads(spec, heads) {
            let (now, later) = outputs.split_at_mut(sharing * tokens * e);
            let (keys, values) = (keys.head(spec, context, kv_head), values.head(spec, context, kv_head));
            for first in (0..tokens).step_by(sharing_tokens) {
                let mut rest = &mut *scores;
                let first_seen = self.first_seen(start + first);
                let mut together = Together::new(kernels, values, first_seen);
                let seen = |token: usize| match spec.architecture.sees_all() {
                    true => tokens,
                    false => start + token + 1 - first_seen,
                };
                let last = tokens.min(first + sharing_tokens);
                for token in first..last {
                    let (scores, later) = rest.split_at_mut(sharing * seen(token));
                    let queries = &queries[token * width + head * e..][..sharing * e];
                    S::scores(kernels, queries, e, keys, first_seen, score_scale(spec), scores);
                    self.weigh(scores, seen(token));
                    rest = later;
                }
                for (index, outputs) in now.chunks_exact_mut(tokens * e).enumerate() {
                    let mut before = 0;
                    for (token, output) in (first..last).zip(outputs[first * e..].chunks_exact_mut(e)) {
                        let weights = &scores[before + index * seen(token)..][..seen(token)];
                        together.add(weights, output);
                        before += sharing * seen(token);
                    }
                }
                together.run();
            }
            head += sharing;
            outputs = later;
        }
    }
}

impl<S> Sequence<'_, S> {
    /// The first position that a token at this position sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Makes weights of rows of scores, `seen` in each.
    fn weigh(&self, scores: &mut [f32], seen: usize) {
        let cap = self.spec.variant.score_cap;
        if cap > 0.0 {
            (self.machine.kernels.soft_cap)(scores, cap);
        }
        scores.chunks_exact_mut(seen).for_each(self.machine.kernels.softmax);
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

/// What a score is multiplied with.
fn score_scale(spec: &ModelSpec) -> f32 {
    match spec.variant.score_scale {
        0.0 => 1.0 / square_root(spec.head_dim as f32),
        scale => scale,
    }
}

/// Rows of weights over the same values, and their outputs, until there are enough to share the loads.
struct Together<'a, S> {
    kernels: &'a Kernels,
    /// Of a head, and the position that the first weight of each row is for.
    values: Kept<'a, S>,
    first: usize,
    weights: heapless::Vec<&'a [f32], MOST_TOGETHER>,
    outputs: heapless::Vec<&'a mut [f32], MOST_TOGETHER>,
}

impl<'a, S: CacheElem> Together<'a, S> {
    fn new(kernels: &'a Kernels, values: Kept<'a, S>, first: usize) -> Self {
        Together { kernels, values, first, weights: heapless::Vec::new(), outputs: heapless::Vec::new() }
    }

    /// Adds a row, and computes all where there are as many as can share.
    fn add(&mut self, weights: &'a [f32], output: &'a mut [f32]) {
        // Neither is full: what is full is computed at once.
        let _ = self.weights.push(weights);
        let _ = self.outputs.push(output);
        if self.weights.is_full() {
            self.run();
        }
    }

    /// Computes what is there.
    fn run(&mut self) {
        S::weighted_sums(self.kernels, &self.weights, self.values, self.first, &mut self.outputs);
        self.weights.clear();
        self.outputs.clear();
    }
}
