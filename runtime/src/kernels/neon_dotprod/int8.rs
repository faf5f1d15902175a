//! 8-bit codes with SDOT: the products, and a step of that for several tokens (for one: `single`).

use super::insn::sdot;
use super::loads;
use super::single::SingleInt8;
use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::neon::sums::{self, Sums};
use crate::kernels::nr8k4::scaled::{Step, Steps, WORDS};
use crate::kernels::nr8k4::{self, Word, pairs};
use core::arch::aarch64::*;
use rescomp_formats::encodings::UNIT_ELEMS;

products! { "neon,dotprod", "neon_dotprod":
    INT8 = "int8",
        gemv_int8_neon_dotprod: pairs::gemv_by_pairs::<SingleInt8>,
        gemm_int8_neon_dotprod: nr8k4::gemm::<Steps<Int8>>;
}

struct Int8;

impl Step for Int8 {
    const MOST_TOKENS: usize = 4;
    type Sums = Sums;

    #[inline(always)]
    fn zero() -> Sums {
        // SAFETY: instantiated only in the functions above, which have NEON and dotprod.
        unsafe { sums::zero() }
    }

    #[inline(always)]
    fn rows(sums: Sums) -> [f32; TILE_ROWS] {
        // SAFETY: instantiated only in the functions above, which have NEON and dotprod.
        unsafe { sums::rows(sums) }
    }

    #[inline(always)]
    fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
        weights: [&[[Word; WORDS]]; TILES],
        weight_scales: [&[u16; TILE_ROWS]; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [f32; TOKENS],
        sums: &mut [[Sums; TOKENS]; TILES],
    ) {
        // SAFETY: instantiated only in the functions above, which have NEON and dotprod.
        unsafe { add::<TILES, TOKENS, UNITS>(weights, weight_scales, activations, activation_scales, sums) }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
    weights: [&[[Word; WORDS]]; TILES],
    weight_scales: [&[u16; TILE_ROWS]; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [f32; TOKENS],
    sums: &mut [[Sums; TOKENS]; TILES],
) {
    let units = if UNITS == 0 { weights[0].len() } else { UNITS };
    // By tile, token and half: the sums of four rows.
    let mut integers = [[[vdupq_n_s32(0); 2]; TOKENS]; TILES];
    macro_rules! words {
        ($unit:literal, $codes:ident, $couple:literal) => {
            for tile in 0..TILES {
                let (couples, _) = weights[tile][$unit].as_chunks::<2>();
                let [even, odd] = loads::load_two(&couples[$couple]);
                for half in 0..2 {
                    let even = vreinterpretq_s8_u8(even[half]);
                    for token in 0..TOKENS {
                        let integers = &mut integers[tile][token][half];
                        *integers = sdot::<{ $couple % 2 * 2 }>(*integers, even, $codes[token][$couple / 2]);
                    }
                }
                for half in 0..2 {
                    let odd = vreinterpretq_s8_u8(odd[half]);
                    for token in 0..TOKENS {
                        let integers = &mut integers[tile][token][half];
                        *integers =
                            sdot::<{ $couple % 2 * 2 + 1 }>(*integers, odd, $codes[token][$couple / 2]);
                    }
                }
            }
        };
    }
    // A loop over the units stays a loop, which costs a twelfth of the instructions; so it is written out.
    macro_rules! unit {
        ($unit:literal) => {
            if $unit < units {
                let mut codes = [[vdupq_n_s8(0); 2]; TOKENS];
                for token in 0..TOKENS {
                    codes[token] = sums::load_activations(&activations[token][$unit]);
                }
                words!($unit, codes, 0);
                words!($unit, codes, 1);
                words!($unit, codes, 2);
                words!($unit, codes, 3);
            }
        };
    }
    unit!(0);
    unit!(1);
    for tile in 0..TILES {
        let scales = sums::widened(weight_scales[tile]);
        for token in 0..TOKENS {
            let integers = integers[tile][token].map(|integers| vcvtq_f32_s32(integers));
            sums[tile][token] = sums::add_step(sums[tile][token], integers, scales, activation_scales[token]);
        }
    }
}
