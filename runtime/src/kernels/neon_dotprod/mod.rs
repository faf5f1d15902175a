//! NEON with the dotprod extension (Cortex-A55, A76, Neoverse N1): four products a lane in one SDOT.
#![allow(unsafe_code, reason = "processor intrinsics")]

pub(super) mod attention_int8;
pub(super) mod codebook;
mod fields;
mod insn;
pub(super) mod int8;
pub(super) mod loads;
mod pieces;
mod single;
mod units;

use super::{Kernels, neon};
use crate::parts::Part;

static KERNELS: Kernels = Kernels {
    name: "neon_dotprod",
    int2: codebook::INT2.if_built(Part::Int2),
    int3: codebook::INT3.if_built(Part::Int3),
    int4: codebook::INT4.if_built(Part::Int4),
    int5: codebook::INT5.if_built(Part::Int5),
    int6: codebook::INT6.if_built(Part::Int6),
    int8: int8::INT8.if_built(Part::Int8),
    attention_int8: attention_int8::ATTENTION.if_built(),
    // SAFETY: `detect` requires NEON too.
    ..unsafe { neon::table() }
};

/// The table, where the processor has NEON and dotprod.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found =
        std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(all(not(feature = "std"), feature = "id-registers"))]
    let found = cfg!(target_feature = "neon") && super::id_registers::has_dotprod();
    #[cfg(not(any(feature = "std", feature = "id-registers")))]
    let found = cfg!(all(target_feature = "neon", target_feature = "dotprod"));
    found.then_some(&KERNELS)
}
