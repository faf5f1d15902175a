//! Operations of a block that are one step here and many in the autodiff crate: causal softmax and rotary positions, on all threads.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// The numbers of an operand, which lie one after the other.
pub(super) fn flat<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("expected an operand whose numbers lie one after the other"),
    }
}

/// Another error as one of the autodiff crate.
pub(super) fn wrap(error: impl std::error::Error + Send + Sync + 'static) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// Weights of attention from scores `... x (sharing heads x positions) x positions`: softmax of each row over the positions that its token sees,
/// 0 elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct CausalSoftmax {
    /// Scores are multiplied with this first.
    pub(super) scale: f32,
    /// Positions that a token sees, its own included; all before it without.
    pub(super) window: Option<usize>,
}

impl CausalSoftmax {
    /// What the token at `position` sees.
    fn seen(self, position: usize) -> std::ops::Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        first..position + 1
    }
}

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let scores = flat(storage, layout)?;
        let positions = layout.shape().dims().last().copied().unwrap_or(1);
        let mut weights = vec![0.0; scores.len()];
        let rows = weights.par_chunks_mut(positions).zip(scores.par_chunks(positions)).enumerate();
        rows.for_each(|(row, (weights, scores))| {
            let seen = self.seen(row % positions);
            let (weights, scores) = (&mut weights[seen.clone()], &scores[seen]);
            let largest = scores.iter().fold(f32::NEG_INFINITY, |largest, score| largest.max(*score));
            let mut sum = 0.0;
            for (weight, score) in weights.iter_mut().zip(scores) {
                *weight = ((score - largest) * self.scale).exp();
                sum += *weight;
            }
            weights.iter_mut().for_each(|weight| *weight /= sum);
        });
        Ok((CpuStorage::F32(weights), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, weights: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let shape = weights.shape().clone();
        let positions = shape.dims().last().copied().unwrap_or(1);
        let mut through = gradient.flatten_all()?.to_vec1::<f32>()?;
        let weights = weights.flatten_all()?.to_vec1::<f32>()?;
        let rows = through.par_chunks_mut(positions).zip(weights.par_chunks(positions));
        rows.for_each(|(through, weights)| {
            let mean: f32 = weights.iter().zip(&*through).map(|(weight, gradient)| weight * gradient).sum();
            for (gradient, weight) in through.iter_mut().zip(weights) {
                *gradient = self.scale * weight * (*gradient - mean);
            }
        });
        Ok(Some(Tensor::from_vec(through, shape, gradient.device())?))
    }
}

/// Cosines and sines of positions: `positions x pairs` each.
#[derive(Debug)]
pub(super) struct Angles {
    pub(super) pairs: usize,
    pub(super) cosines: Vec<f32>,
    pub(super) sines: Vec<f32>,
}

/// Turns the first `2 pairs` elements of heads (`tokens x heads x head_dim`, windows one after the other) by their token's position: element i
/// with element `i + pairs`.
#[derive(Clone, Debug)]
pub(super) struct Rotary {
    pub(super) angles: Arc<Angles>,
    /// Turns back: the transpose, and so the gradient.
    pub(super) back: bool,
}

impl Rotary {
    fn turned(&self, values: &mut [f32], dims: (usize, usize, usize)) {
        let (_, heads, head_dim) = dims;
        let Angles { pairs, ref cosines, ref sines } = *self.angles;
        let positions = cosines.len() / pairs;
        values.par_chunks_mut(heads * head_dim).enumerate().for_each(|(token, values)| {
            let own = token % positions * pairs..(token % positions + 1) * pairs;
            for head in values.chunks_exact_mut(head_dim) {
                let (first, second) = head[..2 * pairs].split_at_mut(pairs);
                let angles = cosines[own.clone()].iter().zip(&sines[own.clone()]);
                for ((first, second), (&cosine, &sine)) in first.iter_mut().zip(second).zip(angles) {
                    let sine = if self.back { -sine } else { sine };
                    (*first, *second) = (*first * cosine - *second * sine, *second * cosine + *first * sine);
                }
            }
        });
    }
}

impl CustomOp1 for Rotary {
    fn name(&self) -> &'static str {
        "rotary positions"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut values = flat(storage, layout)?.to_vec();
        self.turned(&mut values, layout.shape().dims3()?);
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dims = gradient.dims3()?;
        let mut values = gradient.flatten_all()?.to_vec1::<f32>()?;
        Rotary { back: !self.back, ..self.clone() }.turned(&mut values, dims);
        Ok(Some(Tensor::from_vec(values, dims, gradient.device())?))
    }
}
