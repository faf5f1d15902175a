//! ResComp as published (arXiv 2604.07955, ICLR 2026): GPTAQ plus the compensation-aware error.
//!
//! The target of every step is the output of the *original* weights, so the residual gains `(w0 - w) Xf`. Of
//! it the paper keeps the current neuron's part ("neuron decomposition"): `alpha2 * (w0_j - w_j) * P2[j, F]`
//! with `P2 = strict_upper((H + D) U^T) U`. Because `P2 = P - N` (see [`super::sweep`]), that matrix is never
//! formed. [`super::exact`] solves the stated objective without the decomposition.

use super::{LazyVariant, Start, SweepConfiguration};

/// As in the published code at `bits` bits: both strengths 0.25; the rounded column updates the columns
/// beyond the block at 2 bits, where the limited weights can diverge, and the limited weights at 3 bits and
/// more.
pub const fn configuration(bits: u8) -> SweepConfiguration {
    let variant = if bits <= 2 { LazyVariant::Original } else { LazyVariant::AllWeights };
    SweepConfiguration { alpha1: 0.25, alpha2: 0.25, variant, start: Start::Unchanged }
}
