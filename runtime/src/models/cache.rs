//! The keys and values of a layer, and what they are kept as: binary16 or int8 on devices, f32 where all tokens run at once: the full-precision
//! model, encoders, classifiers.
//!
//! Letters of shapes: `g` kv heads, `c` context, `e` head_dim.

use crate::kernels::{Kernels, POSITION_GRAIN, POSITIONS_TOGETHER, keep_key_f32};
use bytemuck::Pod;
use core::ops::Range;
use rescomp_formats::spec::ModelSpec;

/// A number of the cache, and attention over such numbers.
pub trait CacheElem: Pod + Send + Sync {
    /// Whether the numbers of a position and head have an f32 scale.
    const SCALED: bool = false;
    /// Positions that memory is taken for, of a head with `context` positions.
    fn positions(context: usize) -> usize {
        context
    }
    /// Keeps the key of a position in those of its head.
    fn keep_key(kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>);
    /// Keeps the value of a position in those of its head.
    fn keep_value(kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>);
    /// Scores of queries (any number of `e` elements) with the keys of a head from position `first` on.
    fn scores(
        kernels: &Kernels,
        queries: &[f32],
        e: usize,
        keys: Kept<'_, Self>,
        first: usize,
        scale: f32,
        scores: &mut [f32],
    );
    /// Sums of the values of a head from position `first` on, by rows of weights.
    fn weighted_sums(
        kernels: &Kernels,
        weights: &[&[f32]],
        values: Kept<'_, Self>,
        first: usize,
        outputs: &mut [&mut [f32]],
    );
}

impl CacheElem for f32 {
    /// In whole blocks: the keys of their positions are kept in one another.
    fn positions(context: usize) -> usize {
        context.next_multiple_of(POSITIONS_TOGETHER)
    }
    fn keep_key(_kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>) {
        keep_key_f32(values, position, head.numbers);
    }
    fn keep_value(_kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>) {
        head.numbers[position * values.len()..][..values.len()].copy_from_slice(values);
    }
    fn scores(
        kernels: &Kernels,
        queries: &[f32],
        e: usize,
        keys: Kept<'_, Self>,
        first: usize,
        scale: f32,
        scores: &mut [f32],
    ) {
        (kernels.attention_f32.scores)(queries, e, keys.numbers, first, scale, scores);
    }
    fn weighted_sums(
        kernels: &Kernels,
        weights: &[&[f32]],
        values: Kept<'_, Self>,
        first: usize,
        outputs: &mut [&mut [f32]],
    ) {
        let e = outputs.first().map_or(0, |output| output.len());
        (kernels.attention_f32.weighted_sums)(weights, &values.numbers[first * e..], outputs);
    }
}

/// The bits of a binary16 number.
impl CacheElem for u16 {
    fn keep_key(kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>) {
        (kernels.attention_f16.keep)(values, &mut head.numbers[position * values.len()..][..values.len()]);
    }
    fn keep_value(kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>) {
        Self::keep_key(kernels, values, position, head);
    }
    fn scores(
        kernels: &Kernels,
        queries: &[f32],
        e: usize,
        keys: Kept<'_, Self>,
        first: usize,
        scale: f32,
        scores: &mut [f32],
    ) {
        (kernels.attention_f16.scores)(queries, e, &keys.numbers[first * e..], scale, scores);
    }
    fn weighted_sums(
        kernels: &Kernels,
        weights: &[&[f32]],
        values: Kept<'_, Self>,
        first: usize,
        outputs: &mut [&mut [f32]],
    ) {
        let e = outputs.first().map_or(0, |output| output.len());
        (kernels.attention_f16.weighted_sums)(weights, &values.numbers[first * e..], outputs);
    }
}

/// A code; the numbers of a position and head are codes times their scale.
impl CacheElem for i8 {
    const SCALED: bool = true;
    /// In whole grains: a backend may keep the values of their positions in one another.
    fn positions(context: usize) -> usize {
        context.next_multiple_of(POSITION_GRAIN)
    }
    fn keep_key(kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>) {
        let own = position * values.len()..(position + 1) * values.len();
        head.scales[position] = (kernels.attention_int8.keep_key)(values, &mut head.numbers[own]);
    }
    fn keep_value(kernels: &Kernels, values: &[f32], position: usize, head: KeptMut<'_, Self>) {
        head.scales[position] = (kernels.attention_int8.keep_value)(values, position, head.numbers);
    }
    fn scores(
        kernels: &Kernels,
        queries: &[f32],
        e: usize,
        keys: Kept<'_, Self>,
        first: usize,
        scale: f32,
        scores: &mut [f32],
    ) {
        let (numbers, scales) = (&keys.numbers[first * e..], &keys.scales[first..]);
        (kernels.attention_int8.scores)(queries, e, numbers, scales, scale, scores);
    }
    fn weighted_sums(
        kernels: &Kernels,
        weights: &[&[f32]],
        values: Kept<'_, Self>,
        first: usize,
        outputs: &mut [&mut [f32]],
    ) {
        (kernels.attention_int8.weighted_sums)(weights, first, values.numbers, values.scales, outputs);
    }
}

/// Keys or values with their scales, to be read: of all sequences in a layer, of one, or of one head of one.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a, S> {
    /// A head has `positions x e`.
    pub numbers: &'a [S],
    /// A head has `positions`; none where numbers have no scale.
    pub scales: &'a [f32],
}

impl<'a, S: CacheElem> Kept<'a, S> {
    /// Those of one sequence.
    pub(super) fn sequence(self, spec: &ModelSpec, context: usize, sequence: usize) -> Self {
        let own = |elems: u64| sequence * elems as usize..(sequence + 1) * elems as usize;
        Kept {
            numbers: &self.numbers[own(cache_elems::<S>(spec, context))],
            scales: &self.scales[own(scale_elems::<S>(spec, context))],
        }
    }

    /// Those of one head of a sequence.
    pub(super) fn head(self, spec: &ModelSpec, context: usize, head: usize) -> Self {
        let own = |elems: usize| head * elems..(head + 1) * elems;
        let positions = S::positions(context);
        let scales = if S::SCALED { own(positions) } else { 0..0 };
        Kept { numbers: &self.numbers[own(positions * spec.head_dim as usize)], scales: &self.scales[scales] }
    }
}

/// [`Kept`], to be written.
#[derive(Debug)]
pub struct KeptMut<'a, S> {
    /// A head has `positions x e`.
    pub numbers: &'a mut [S],
    /// A head has `positions`, or none.
    pub scales: &'a mut [f32],
}

impl<'a, S> From<&'a mut [S]> for KeptMut<'a, S> {
    /// Numbers without scales.
    fn from(numbers: &'a mut [S]) -> Self {
        KeptMut { numbers, scales: &mut [] }
    }
}

impl<S: CacheElem> KeptMut<'_, S> {
    /// Some of the numbers, and some of the scales.
    pub(crate) fn part(&mut self, [numbers, scales]: [Range<usize>; 2]) -> KeptMut<'_, S> {
        KeptMut { numbers: &mut self.numbers[numbers], scales: &mut self.scales[scales] }
    }

    /// To be read.
    pub(super) fn as_kept(&self) -> Kept<'_, S> {
        Kept { numbers: self.numbers, scales: self.scales }
    }

    /// The heads of one sequence, each with its number.
    pub(super) fn heads(&mut self, spec: &ModelSpec, context: usize) -> impl Iterator<Item = KeptMut<'_, S>> {
        let positions = S::positions(context);
        let mut scales = self.scales.chunks_exact_mut(positions);
        self.numbers
            .chunks_exact_mut(positions * spec.head_dim as usize)
            .map(move |numbers| KeptMut { numbers, scales: scales.next().unwrap_or_default() })
    }
}

/// Keys and values of one layer, for every sequence: `sequences x g x positions x e` each.
#[derive(Debug)]
pub struct LayerCache<'a, S> {
    /// Keys, already rotated.
    pub keys: KeptMut<'a, S>,
    /// Values.
    pub values: KeptMut<'a, S>,
}

/// Elements of the keys (and of the values) of one layer and one sequence.
pub fn cache_elems<S: CacheElem>(spec: &ModelSpec, context: usize) -> u64 {
    (spec.kv_width() as u64).saturating_mul(S::positions(context) as u64)
}

/// Scales of the keys (and of the values) of one layer and one sequence.
pub fn scale_elems<S: CacheElem>(spec: &ModelSpec, context: usize) -> u64 {
    if S::SCALED { u64::from(spec.kv_heads).saturating_mul(S::positions(context) as u64) } else { 0 }
}
