//! NEON with the i8mm extension (Neoverse N2 and V1, Cortex-A510, A710, A78C, X2): SMMLA makes the products of two rows and two tokens
//! over eight columns at once.
//!
//! One token would leave half of each product unused, and few save less than it takes to bring them, and rows, side by side: up to three
//! tokens, at 8 bits up to seven, are left to the kernels of `neon_dotprod`.
#![allow(unsafe_code, reason = "processor intrinsics")]

mod codebook;
mod insn;
mod int8;
mod squares;

use super::{Kernels, neon, neon_dotprod};
use crate::parts::Part;

static KERNELS: Kernels = Kernels {
    name: "neon_i8mm",
    int2: codebook::INT2.if_built(Part::Int2),
    int3: codebook::INT3.if_built(Part::Int3),
    int4: codebook::INT4.if_built(Part::Int4),
    int5: codebook::INT5.if_built(Part::Int5),
    int6: codebook::INT6.if_built(Part::Int6),
    int8: int8::INT8.if_built(Part::Int8),
    attention_int8: neon_dotprod::attention_int8::ATTENTION.if_built(),
    // SAFETY: `detect` requires NEON too.
    ..unsafe { neon::table() }
};

/// The table, where the processor has NEON, dotprod and i8mm.
pub fn detect() -> Option<&'static Kernels> {
    #[cfg(feature = "std")]
    let found = std::arch::is_aarch64_feature_detected!("i8mm");
    #[cfg(all(not(feature = "std"), feature = "id-registers"))]
    let found = super::id_registers::has_i8mm();
    #[cfg(not(any(feature = "std", feature = "id-registers")))]
    let found = cfg!(target_feature = "i8mm");
    // The products for few tokens are those of the backend with dotprod.
    (found && neon_dotprod::detect().is_some()).then_some(&KERNELS)
}

/// The products of this backend: those of `neon_dotprod`, with a product for several tokens by a walk over squares of sums.
macro_rules! products {
    ($($constant:ident = $width:literal, $walk:ty, fewest: $fewest:literal, $few:path, $gemm:ident;)*) => {
        $(
            pub(super) const $constant: $crate::kernels::Products = {
                use $crate::kernels::nr8k4::many::gemm_of_many;
                use $crate::kernels::{Activations, OutputRows, Products};
                use core::ops::Range;
                use rescomp_formats::matrix::MatrixView;

                #[inline(never)]
                #[target_feature(enable = "neon,dotprod,i8mm")]
                fn $gemm(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
                    gemm_of_many::<$walk, $fewest>(m, a, tiles, output, $few.gemm);
                }

                fn gemm(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
                    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
                    unsafe { $gemm(m, a, tiles, output) }
                }

                Products { gemm, gemm_name: concat!("gemm_", $width, "_nr8k4_neon_i8mm"), ..$few }
            };
        )*
    };
}
use products;
