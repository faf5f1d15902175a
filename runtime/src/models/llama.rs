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
use crate::executor::{PART_TOKENS, for_each_chunk, for_each_part};
use crate::kernels::sin_cos_turn;
use crate::linear::{BlockWeights, LinearSet, Then};
use crate::memory::{Arena, slice_bytes};
use crate::models::attention::{MOST_GROUPS, SHARING, attend_all};
use crate::models::cache::CacheElem;
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
