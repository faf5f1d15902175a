//! Loops compiled for the vectors that the processor has.
//!
//! A plain build for x86-64 knows SSE2 alone. What runs inside [`vectorized`], and is inlined into it (`#[inline(always)]`), is
//! compiled once more for wider vectors; the closure itself needs the attribute, too. No operation is reordered or contracted by that, so the results are the same.

/// Runs `work` with the widest vectors there are.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
