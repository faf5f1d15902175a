//! 2 to 6 bits with TBL and SDOT: the products, and a block of that for several tokens (for one: `single`).
//!
//! Integer sums of a step, times their multipliers, stay below 64 * 63 * 127 * 255 < 2^31.

use super::insn::sdot;
use super::single::Single;
use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::neon::block::blocks;
use crate::kernels::neon::lookup::{self, Tables};
use crate::kernels::neon::sums::{self, Sums};
use crate::kernels::nr8k4::codebook::{Block, Blocks, STEP_UNITS, ScaleCodes};
use crate::kernels::nr8k4::{self, Word, pairs};
use core::arch::aarch64::*;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::matrix::TABLE_ENTRIES;

products! { "neon,dotprod", "neon_dotprod":
    INT2 = "int2",
        gemv_int2_neon_dotprod: pairs::gemv_by_pairs::<Single<2>>,
        gemm_int2_neon_dotprod: nr8k4::gemm::<Blocks<Codebook, 2>>;
    INT3 = "int3",
        gemv_int3_neon_dotprod: pairs::gemv_by_pairs::<Single<3>>,
        gemm_int3_neon_dotprod: nr8k4::gemm::<Blocks<Codebook, 3>>;
    INT4 = "int4",
        gemv_int4_neon_dotprod: pairs::gemv_by_pairs::<Single<4>>,
        gemm_int4_neon_dotprod: nr8k4::gemm::<Blocks<Codebook, 4>>;
    INT5 = "int5",
        gemv_int5_neon_dotprod: pairs::gemv_by_pairs::<Single<5>>,
        gemm_int5_neon_dotprod: nr8k4::gemm::<Blocks<Codebook, 5>>;
    INT6 = "int6",
        gemv_int6_neon_dotprod: pairs::gemv_by_pairs::<Single<6>>,
        gemm_int6_neon_dotprod: nr8k4::gemm::<Blocks<Codebook, 6>>;
}

struct Codebook;

/// Rows 0 to 3, and 4 to 7.
type Integers = [int32x4_t; 2];

#[inline]
#[target_feature(enable = "neon")]
fn zero() -> Integers {
    lookup::zero()
}

#[inline]
#[target_feature(enable = "neon")]
fn by_row(integers: Integers) -> [int32x4_t; 2] {
    integers
}

macro_rules! unit {
    ($WORDS:ident, $TILES:ident, $TOKENS:ident, $tables:ident, $weights:ident, $activations:ident, $integers:ident, begin: $begin:literal) => {
        if $begin {
            $integers = [[zero(); $TOKENS]; $TILES];
        }
        let mut codes = [[vdupq_n_s8(0); 2]; $TOKENS];
        for token in 0..$TOKENS {
            codes[token] = sums::load_activations($activations[token]);
        }
        macro_rules! pair {
            ($tile:literal, $PAIR:literal, $loaded:ident) => {
                lookup::load::<$WORDS, $PAIR>($weights[$tile], &mut $loaded);
                for half in 0..2 {
                    let [even, odd] = lookup::levels::<$WORDS, $PAIR, true>(&$tables, &$loaded, half);
                    for token in 0..$TOKENS {
                        let with = codes[token][$PAIR / 2];
                        let sum = &mut $integers[$tile][token][half];
                        *sum = sdot::<{ $PAIR % 2 * 2 }>(*sum, even, with);
                        *sum = sdot::<{ $PAIR % 2 * 2 + 1 }>(*sum, odd, with);
                    }
                }
            };
        }
        macro_rules! tile {
            ($tile:literal) => {
                let mut loaded = lookup::nothing();
                pair!($tile, 0, loaded);
                pair!($tile, 1, loaded);
                pair!($tile, 2, loaded);
                pair!($tile, 3, loaded);
            };
        }
        // The compiler leaves a loop over tiles as it is at 6 bits, with the sums in memory: 0.454 instructions a weight for 0.416.
        tile!(0);
        if $TILES > 1 {
            tile!(1);
        }
    };
}

blocks! { "neon,dotprod", most_tokens: 4 }
