//! NEON as every ARMv8-A core has it (Cortex-A53, A72), without dotprod: products in int16, widened pairwise.
#![allow(unsafe_code, reason = "processor intrinsics")]

pub(super) mod attention_int8;
pub(super) mod block;
mod codebook;
mod even;
mod even_units;
mod insn;
mod int8;
pub(super) mod lanes;
pub(super) mod lookup;
mod pair_sums;
pub(super) mod pair_walk;
mod single;
pub(super) mod sums;

use super::Kernels;
use super::instantiate::{instantiate, table};
use crate::parts::Part;
use lanes::NeonLanes;

instantiate!(NeonLanes, "neon");

/// The table, also for the backends that add to NEON.
///
/// # Safety
/// The processor has NEON wherever the table is used.
pub(super) const unsafe fn table() -> Kernels {
    Kernels {
        int2: even::INT2.if_built(Part::Int2),
        int3: even::INT3.if_built(Part::Int3),
        int4: even::INT4.if_built(Part::Int4),
        ..table!("neon")
    }
}

// SAFETY: private; `detect` hands it out only where the processor has NEON.
static KERNELS: Kernels = unsafe { table() };

/// The table, where every processor of the target runs it.
#[cfg(all(target_feature = "neon", not(feature = "std")))]
pub(super) const fn kernels() -> &'static Kernels {
    &KERNELS
}

/// The table, where the processor has NEON. Targets without floating point in their ABI don't promise it.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found = std::arch::is_aarch64_feature_detected!("neon");
    #[cfg(not(feature = "std"))]
    let found = cfg!(target_feature = "neon");
    found.then_some(&KERNELS)
}
