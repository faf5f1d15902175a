//! Memory for what a block computes on the way.

use super::attention::{MOST_GROUPS, SHARING};
use crate::kernels::sin_cos_turn;
use crate::memory::{Arena, slice_bytes};
use rescomp_formats::spec::ModelSpec;

/// Memory for what a block computes on the way. Letters of shapes: `m` tokens at once, `d` hidden, `i` intermediate, `h` heads, `g` kv heads,
/// `e` head_dim, `r` rotary_dim, `c` context.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// m x d: a normalized input, then a projection's output.
    pub(super) hidden: &'a mut [f32],
    /// m x d: the MLP's input, where attention comes between; else nothing.
    pub(super) aside: &'a mut [f32],
    /// m x h e: queries, then attention's output.
    pub(super) queries: &'a mut [f32],
    /// m x g e.
    pub(super) keys: &'a mut [f32],
    /// m x g e.
    pub(super) values: &'a mut [f32],
    /// m x i; nothing without a gate.
    pub(super) gate: &'a mut [f32],
    /// m x i.
    pub(super) up: &'a mut [f32],
    /// For each group of sequences, h x (tokens e + 2 c): each head's outputs, and the scores of two of its tokens.
    pub(super) heads: &'a mut [f32],
    /// tokens x r/2: each position's rotations.
    pub(super) rotations: Rotations<'a>,
    /// tokens x r/2: those of layers with a window, where they have frequencies of their own; else nothing.
    pub(super) local_rotations: Rotations<'a>,
}

/// Cosines and sines of the angles that the pairs of each position's heads are turned by.
#[derive(Debug)]
pub(super) struct Rotations<'a> {
    pub(super) cosines: &'a mut [f32],
    pub(super) sines: &'a mut [f32],
}

impl Rotations<'_> {
    fn set(&mut self, frequencies: &[u64], start: usize, tokens: usize) {
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

impl<'a> Scratch<'a> {
    /// Elements of each slice, in the order of the fields.
    fn elems(spec: &ModelSpec, sequences: usize, tokens: usize, context: usize) -> [u64; 12] {
        let all = (sequences as u64).saturating_mul(tokens as u64);
        let of = |width: usize| all.saturating_mul(width as u64);
        let only = |needed: bool, elems: u64| if needed { elems } else { 0 };
        let pairs = (tokens as u64).saturating_mul(u64::from(spec.variant.rotary_dim / 2));
        let local_pairs = only(spec.architecture.has_local_frequencies(), pairs);
        let scores = (context as u64).saturating_mul(SHARING.min(tokens) as u64);
        let head = (tokens as u64).saturating_mul(spec.head_dim.into()).saturating_add(scores);
        let groups = sequences.min(MOST_GROUPS);
        [
            of(spec.hidden as usize),
            only(spec.variant.parallel_residual, of(spec.hidden as usize)),
            of(spec.query_width()),
            of(spec.kv_width()),
            of(spec.kv_width()),
            only(spec.architecture.has_gate(), of(spec.intermediate as usize)),
            of(spec.intermediate as usize),
            head.saturating_mul(spec.heads.into()).saturating_mul(groups as u64),
            pairs,
            pairs,
            local_pairs,
            local_pairs,
        ]
    }

    /// Bytes that [`Scratch::carve`] takes, for batches of at most `sequences` and `tokens`, and sequences of at most `context` positions.
    pub fn bytes(spec: &ModelSpec, sequences: usize, tokens: usize, context: usize) -> u64 {
        Self::elems(spec, sequences, tokens, context)
            .into_iter()
            .fold(0, |bytes: u64, elems| bytes.saturating_add(slice_bytes::<f32>(elems)))
    }

    /// Takes the memory.
    pub fn carve(
        spec: &ModelSpec,
        sequences: usize,
        tokens: usize,
        context: usize,
        arena: &mut Arena<'a>,
    ) -> Self {
        let mut slices: [&'a mut [f32]; 12] = Default::default();
        for (slice, elems) in slices.iter_mut().zip(Self::elems(spec, sequences, tokens, context)) {
            *slice = arena.take(elems as usize);
        }
        let [
            hidden,
            aside,
            queries,
            keys,
            values,
            gate,
            up,
            heads,
            cosines,
            sines,
            local_cosines,
            local_sines,
        ] = slices;
        Scratch {
            hidden,
            aside,
            queries,
            keys,
            values,
            gate,
            up,
            heads,
            rotations: Rotations { cosines, sines },
            local_rotations: Rotations { cosines: local_cosines, sines: local_sines },
        }
    }

    /// Computes the rotations of positions `start .. start + tokens`: once a forward, for all layers. `local` are the frequencies of layers with
    /// a window, where they have their own.
    pub fn set_positions(&mut self, frequencies: &[u64], local: &[u64], start: usize, tokens: usize) {
        self.rotations.set(frequencies, start, tokens);
        self.local_rotations.set(local, start, tokens);
    }
}
