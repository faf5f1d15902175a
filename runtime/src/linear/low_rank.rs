//! Products with matrices that have a low-rank correction: `(Q + U V) x`, as `Q x + U (V x)`.
//!
//! ```text
//! output = Q x           as of any matrix, which quantizes x
//! inner  = V x           with the same codes of x where the steps are the same: 64 columns
//! codes  = inner, quantized as activations are
//! output += U codes      then what is to be done with the products
//! ```
//! (arXiv:2412.07902, equation 2, with both factors in 8 bits and the activations of the whole branch quantized.) Each element is made
//! by one thread from the same operands in the same order (docs/numerics.md).

use super::{BYTES_PER_THREAD, NotFinite, QuantizedWeights, Then, for_each_share, integer_product};
use crate::Machine;
use crate::executor::{MOST_OUTPUTS, ROW_GRANULARITY, RowShare, for_each_row_share};
use crate::kernels::{Activations, OutputRows, TILE_ROWS, matrix_product_f32};
use crate::linear::{ActivationFormat, LinearSet};
use crate::memory::{Arena, slice_bytes};
use crate::parts::Part;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::matrix::{LowRankView, MatrixView};
use rescomp_formats::section::SectionName;

/// The most matrices of a set.
pub(super) const MOST_MATRICES: usize = 3;

/// What the corrections of a set need while they are computed; empty where no matrix has one. For `m` tokens, `r` the ranks of a set
/// together, `n` the rows of its corrected matrices together.
#[derive(Debug, Default)]
pub(super) struct LowRankMemory<'a> {
    /// m x r: `V x` of each.
    inner: &'a mut [f32],
    /// m x r: its codes.
    codes: &'a mut [i8],
    /// Their scales, one a step.
    scales: &'a mut [f32],
    /// m x n: `U V x` of each.
    outer: &'a mut [f32],
}

/// Elements a token of each slice, in the order of the fields.
#[derive(Clone, Copy, Default)]
struct Elems {
    inner: u64,
    scales: u64,
    outer: u64,
}

impl Elems {
    /// The most that any set of any layer needs.
    fn of(container: &CheckedContainer<'_>) -> Elems {
        let spec = &container.manifest().spec;
        let mut most = Elems::default();
        for layer in 0..spec.layers {
            for set in LinearSet::of(spec.architecture) {
                let mut sum = Elems::default();
                for &kind in set.kinds() {
                    let name = SectionName { kind, layer: Some(layer as u16) };
                    let Some(LowRankView { right, left }) = container.low_rank(name) else { continue };
                    sum.inner += right.shape().rows() as u64;
                    sum.scales += left.shape().steps() as u64;
                    sum.outer += left.shape().rows() as u64;
                }
                most.inner = most.inner.max(sum.inner);
                most.scales = most.scales.max(sum.scales);
                most.outer = most.outer.max(sum.outer);
            }
        }
        most
    }

    fn of_tokens(self, tokens: u64) -> Elems {
        let times = |elems: u64| elems.saturating_mul(tokens);
        Elems { inner: times(self.inner), scales: times(self.scales), outer: times(self.outer) }
    }
}

impl<'a> LowRankMemory<'a> {
    /// Bytes that [`LowRankMemory::carve`] takes.
    pub(super) fn bytes(container: &CheckedContainer<'_>, tile: u64) -> u64 {
        if !Part::LowRank.is_built() {
            return 0;
        }
        let Elems { inner, scales, outer } = Elems::of(container).of_tokens(tile);
        slice_bytes::<f32>(inner)
            .saturating_add(slice_bytes::<i8>(inner))
            .saturating_add(slice_bytes::<f32>(scales))
            .saturating_add(slice_bytes::<f32>(outer))
    }

    /// Takes memory for tiles of at most `tile` tokens.
    pub(super) fn carve(container: &CheckedContainer<'_>, tile: u64, arena: &mut Arena<'a>) -> Self {
        if !Part::LowRank.is_built() {
            return LowRankMemory::default();
        }
        let Elems { inner, scales, outer } = Elems::of(container).of_tokens(tile);
        LowRankMemory {
            inner: arena.take(inner as usize),
            codes: arena.take(inner as usize),
            scales: arena.take(scales as usize),
            outer: arena.take(outer as usize),
        }
    }
}

/// A list of at most as many as a set has matrices.
type OfSet<T> = heapless::Vec<T, MOST_MATRICES>;

/// Takes the next `elems` elements of a slice.
fn take<'s, T>(slice: &mut &'s mut [T], elems: usize) -> &'s mut [T] {
    let (taken, rest) = core::mem::take(slice).split_at_mut(elems);
    *slice = rest;
    taken
}

impl<'a> QuantizedWeights<'a> {
    /// [`QuantizedWeights::products`] of matrices of which some have a correction.
    pub(super) fn corrected_products(
        &mut self,
        matrices: &[MatrixView<'a>],
        corrections: &[Option<LowRankView<'a>>],
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
        then: Then<'_>,
    ) -> Result<(), NotFinite> {
        self.products(matrices, tokens, input, outputs, Then::Nothing)?;
        let step = |matrix: &MatrixView<'_>| matrix.shape().step_elems();
        let (mut rights, mut lefts) = (OfSet::<MatrixView<'_>>::new(), OfSet::<MatrixView<'_>>::new());
        for LowRankView { right, left } in corrections.iter().flatten() {
            // No set has more matrices.
            let _ = rights.push(*right);
            let _ = lefts.push(*left);
        }
        let Some(first) = rights.first() else { return Ok(()) };
        // The codes of `products` are still there, and those that V needs, where all matrices have its step.
        let quantized = matrices.iter().all(|matrix| step(matrix) == step(first));
        // Taken out, since it is used beside `self`.
        let mut memory = core::mem::take(&mut self.low_rank);
        let corrected = outputs.iter_mut().zip(corrections).filter(|(_, correction)| correction.is_some());
        let mut corrected: OfSet<&mut [f32]> = corrected.map(|(output, _)| &mut **output).collect();
        let made =
            self.add_corrections(&mut memory, &rights, &lefts, quantized, tokens, input, &mut corrected);
        drop(corrected);
        self.low_rank = memory;
        made?;
        then.run(self.machine, tokens, outputs);
        Ok(())
    }

    /// Adds `U V x` to each output. `quantized` says that the codes of `input` are there.
    #[expect(clippy::too_many_arguments, reason = "all are parts of one product")]
    fn add_corrections(
        &mut self,
        memory: &mut LowRankMemory<'_>,
        rights: &[MatrixView<'a>],
        lefts: &[MatrixView<'a>],
        quantized: bool,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), NotFinite> {
        let machine = self.machine;
        let mut rest = &mut *memory.inner;
        let mut inner: OfSet<&mut [f32]> =
            rights.iter().map(|right| take(&mut rest, tokens * right.shape().rows())).collect();
        let Some(first) = rights.first() else { return Ok(()) };
        match self.activations {
            ActivationFormat::F32 => {
                for_each_share(machine, rights, tokens, &mut inner, Then::Nothing, |right, tiles, out| {
                    matrix_product_f32(machine.kernels, right, input, tokens, tiles, out);
                });
                if !inner.iter().all(|values| values.iter().all(|value| value.is_finite())) {
                    return Err(NotFinite);
                }
                add_left(machine, lefts, tokens, memory.outer, outputs, |index, left, tiles, out| {
                    matrix_product_f32(machine.kernels, left, &*inner[index], tokens, tiles, out);
                });
            }
            ActivationFormat::Int8 => {
                let activations = match quantized {
                    true => self.quantized(first.shape(), tokens),
                    false => self.quantize(first.shape(), tokens, input)?,
                };
                let product = integer_product(machine, &activations);
                for_each_share(machine, rights, tokens, &mut inner, Then::Nothing, product);
                let (mut codes, mut scales) = (&mut *memory.codes, &mut *memory.scales);
                let mut all = OfSet::<Activations<'_>>::new();
                for (left, inner) in lefts.iter().zip(&inner) {
                    let shape = left.shape();
                    let codes = take(&mut codes, tokens * shape.padded_cols());
                    let scales = take(&mut scales, tokens * shape.steps());
                    super::quantize(machine, shape, inner, codes, scales)?;
                    // No set has more matrices.
                    let _ = all.push(Activations { codes, scales, tokens });
                }
                add_left(machine, lefts, tokens, memory.outer, outputs, |index, left, tiles, out| {
                    integer_product(machine, &all[index])(left, tiles, out);
                });
            }
        }
        Ok(())
    }
}

/// Adds to each output the product of its U, which `product` computes for a range of tiles: one parallel part for all.
fn add_left(
    machine: Machine<'_>,
    lefts: &[MatrixView<'_>],
    tokens: usize,
    mut outer: &mut [f32],
    outputs: &mut [&mut [f32]],
    product: impl Fn(usize, &MatrixView<'_>, core::ops::Range<usize>, &mut OutputRows<'_>) + Sync,
) {
    let mut views = heapless::Vec::<OutputRows<'_>, MOST_OUTPUTS>::new();
    for (left, output) in lefts.iter().zip(outputs) {
        let rows = left.shape().rows();
        // Two for each matrix of a set, which are fewer than the bands of a head.
        let _ = views.push(OutputRows::new(take(&mut outer, tokens * rows), tokens, rows));
        let _ = views.push(OutputRows::new(output, tokens, rows));
    }
    let bytes: usize = lefts.iter().map(|left| left.shape().section_bytes()).sum();
    let most_tasks = bytes.saturating_mul(tokens) / BYTES_PER_THREAD;
    for_each_row_share(machine.executor, &mut views, ROW_GRANULARITY, most_tasks, |shares| {
        for (index, (left, pair)) in lefts.iter().zip(shares.chunks_exact_mut(2)).enumerate() {
            let [RowShare { range, rows: correction }, RowShare { rows: output, .. }] = pair else {
                continue;
            };
            product(index, left, range.start / TILE_ROWS..range.end.div_ceil(TILE_ROWS), correction);
            for token in 0..tokens {
                (machine.kernels.add)(output.token_rows(token), correction.token_rows(token));
            }
        }
    });
}

const _: () = assert!(2 * MOST_MATRICES <= MOST_OUTPUTS);
