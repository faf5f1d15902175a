//! 2, 3 and 4 bits with TBL and SDOT.
//!
//! Sums of a group are exact in int32, and so are they times a multiplier: see docs/numerics.md.

use super::insn::sdot;
use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::neon::lookup::{self, Tables};
use crate::kernels::neon::sums::{self, Sums};
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{Block, Blocks, ScaleCodes};
use core::arch::aarch64::*;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::matrix::TABLE_ENTRIES;

products! { "neon,dotprod", "neon_dotprod":
    INT2 = "int2", Blocks<Codebook, 2>, gemv_int2_neon_dotprod, gemm_int2_neon_dotprod;
    INT3 = "int3", Blocks<Codebook, 3>, gemv_int3_neon_dotprod, gemm_int3_neon_dotprod;
    INT4 = "int4", Blocks<Codebook, 4>, gemv_int4_neon_dotprod, gemm_int4_neon_dotprod;
}

struct Codebook;

impl<const WORDS: usize> Block<WORDS> for Codebook {
    type Tables = Tables;
    type Sums = Sums;

    #[inline(always)]
    fn tables(levels: &[i8; TABLE_ENTRIES], multipliers: &[u8; TABLE_ENTRIES]) -> Tables {
        // SAFETY: instantiated only in the functions above, which have NEON.
        unsafe { lookup::tables::<WORDS>(levels, multipliers) }
    }

    #[inline(always)]
    fn zero() -> Sums {
        // SAFETY: instantiated only in the functions above, which have NEON.
        unsafe { sums::zero() }
    }

    #[inline(always)]
    fn rows(sums: Sums, row_scales: &[u16; TILE_ROWS]) -> [f32; TILE_ROWS] {
        // SAFETY: instantiated only in the functions above, which have NEON.
        unsafe { sums::scaled_rows(sums, row_scales) }
    }

    #[inline(always)]
    fn add<const TILES: usize, const TOKENS: usize, const WHOLE: bool, const GROUPS_OF_32: bool>(
        tables: Tables,
        weights: [&[[Word; WORDS]]; TILES],
        scale_codes: [ScaleCodes; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [&[f32]; TOKENS],
        sums: &mut [[Sums; TOKENS]; TILES],
    ) {
        // SAFETY: instantiated only in the functions above, which have NEON and dotprod.
        unsafe {
            add::<WORDS, TILES, TOKENS, WHOLE, GROUPS_OF_32>(
                tables,
                weights,
                scale_codes,
                activations,
                activation_scales,
                sums,
            );
        }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add<
    const WORDS: usize,
    const TILES: usize,
    const TOKENS: usize,
    const WHOLE: bool,
    const GROUPS_OF_32: bool,
>(
    tables: Tables,
    weights: [&[[Word; WORDS]]; TILES],
    scale_codes: [ScaleCodes; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [&[f32]; TOKENS],
    sums: &mut [[Sums; TOKENS]; TILES],
) {
    let units = if WHOLE { 4 } else { weights[0].len() };
    let zero = [[[vdupq_n_s32(0); 2]; TOKENS]; TILES];
    // A loop over units stays a loop, which costs a twelfth of the instructions; so it is written out.
    macro_rules! unit {
        ($unit:literal, $integers:ident) => {
            let mut codes = [[vdupq_n_s8(0); 2]; TOKENS];
            for token in 0..TOKENS {
                codes[token] = sums::load_activations(&activations[token][$unit]);
            }
            for tile in 0..TILES {
                for half in 0..2 {
                    let quads = lookup::quads(&tables, &weights[tile][$unit], half);
                    for token in 0..TOKENS {
                        let [low, high] = codes[token];
                        let mut sum = $integers[tile][token][half];
                        sum = sdot::<0>(sum, quads[0], low);
                        sum = sdot::<0>(sum, quads[4], high);
                        sum = sdot::<1>(sum, quads[1], low);
                        sum = sdot::<1>(sum, quads[5], high);
                        sum = sdot::<2>(sum, quads[2], low);
                        sum = sdot::<2>(sum, quads[6], high);
                        sum = sdot::<3>(sum, quads[3], low);
                        sum = sdot::<3>(sum, quads[7], high);
                        $integers[tile][token][half] = sum;
                    }
                }
            }
        };
    }
    macro_rules! step {
        ($step:literal, $first:literal, $second:literal) => {
            if $first < units {
                let mut integers = zero;
                let mut totals = zero;
                unit!($first, integers);
                if GROUPS_OF_32 {
                    for tile in 0..TILES {
                        let multipliers = lookup::multipliers::<0>(&tables, scale_codes[tile][$step]);
                        for token in 0..TOKENS {
                            totals[tile][token] = lookup::multiply(integers[tile][token], multipliers);
                        }
                    }
                    integers = zero;
                }
                if $second < units {
                    unit!($second, integers);
                }
                for tile in 0..TILES {
                    let multipliers = if GROUPS_OF_32 {
                        lookup::multipliers::<1>(&tables, scale_codes[tile][$step])
                    } else {
                        lookup::multipliers::<$step>(&tables, scale_codes[tile][0])
                    };
                    for token in 0..TOKENS {
                        let integers = integers[tile][token];
                        let totals = if GROUPS_OF_32 {
                            lookup::multiply_add(totals[tile][token], integers, multipliers)
                        } else {
                            lookup::multiply(integers, multipliers)
                        };
                        sums[tile][token] =
                            sums::add_total(sums[tile][token], totals, activation_scales[token][$step]);
                    }
                }
            }
        };
    }
    step!(0, 0, 1);
    step!(1, 2, 3);
}
