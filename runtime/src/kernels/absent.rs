//! What stands in a table for a part that the program was built without ([`crate::parts`]). Plans refuse containers that would call it.

use super::{Activations, AttentionF16, AttentionF32, AttentionInt8, OutputRows, Products};
use crate::parts::{Part, not_built};
use core::ops::Range;
use rescomp_formats::hadamard::Hadamard;
use rescomp_formats::matrix::MatrixView;

impl Products {
    /// These, where the part is built.
    pub(super) const fn if_built(self, part: Part) -> Products {
        const ABSENT: Products =
            Products { gemv: product, gemm: product, gemv_name: "not built", gemm_name: "not built" };
        if part.is_built() { self } else { ABSENT }
    }
}

impl AttentionF32 {
    /// This, where the part is built.
    pub(super) const fn if_built(self) -> AttentionF32 {
        if Part::F32.is_built() {
            return self;
        }
        AttentionF32 {
            scores: |_, _, _, _, _, _| not_built(Part::F32),
            weighted_sums: |_, _, _| not_built(Part::F32),
        }
    }
}

impl AttentionF16 {
    /// This, where the part is built.
    pub(super) const fn if_built(self) -> AttentionF16 {
        if Part::CacheF16.is_built() {
            return self;
        }
        AttentionF16 {
            keep: |_, _| not_built(Part::CacheF16),
            scores: |_, _, _, _, _| not_built(Part::CacheF16),
            weighted_sums: |_, _, _| not_built(Part::CacheF16),
        }
    }
}

impl AttentionInt8 {
    /// This, where the part is built.
    pub(super) const fn if_built(self) -> AttentionInt8 {
        if Part::CacheInt8.is_built() {
            return self;
        }
        AttentionInt8 {
            keep_key: |_, _| not_built(Part::CacheInt8),
            keep_value: |_, _, _| not_built(Part::CacheInt8),
            scores: |_, _, _, _, _, _| not_built(Part::CacheInt8),
            weighted_sums: |_, _, _, _, _| not_built(Part::CacheInt8),
        }
    }
}

fn product(matrix: &MatrixView<'_>, _: &Activations<'_>, _: Range<usize>, _: &mut OutputRows<'_>) {
    not_built(crate::parts::width_part(matrix.shape().width()))
}

pub(super) fn layer_norm(_: &[f32], _: &[f32], _: &[f32], _: f32, _: &mut [f32]) {
    not_built(Part::LayerNorm)
}

pub(super) fn hadamard(_: &Hadamard, _: &mut [f32]) {
    not_built(Part::Hadamard)
}

pub(super) fn gelu(_: &mut [f32]) {
    not_built(Part::Gelu)
}

pub(super) fn soft_cap(_: &mut [f32], _: f32) {
    not_built(Part::SoftCap)
}
