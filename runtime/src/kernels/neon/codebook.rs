//! 2, 3 and 4 bits on NEON without dotprod: TBL, then products in int16.
//!
//! SMULL and SMLAL make products in int16. A lane (a row, and a column modulo four) takes one product a quad: four of at most
//! 63 * 127 at 4 bits make 32004, eight of at most 31 * 127 at 2 and 3 bits make 31496, which fit. SADALP widens them then.

use crate::kernels::TILE_ROWS;
use crate::kernels::instantiate::products;
use crate::kernels::neon::lookup::{self, Tables};
use crate::kernels::neon::sums::{self, Sums};
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{Block, Blocks, ScaleCodes};
use core::arch::aarch64::*;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::matrix::TABLE_ENTRIES;

products! { "neon", "neon":
    INT2 = "int2", Blocks<Codebook, 2>, gemv_int2_neon, gemm_int2_neon;
    INT3 = "int3", Blocks<Codebook, 3>, gemv_int3_neon, gemm_int3_neon;
    INT4 = "int4", Blocks<Codebook, 4>, gemv_int4_neon, gemm_int4_neon;
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
        // SAFETY: instantiated only in the functions above, which have NEON.
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
#[target_feature(enable = "neon")]
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
    let zero = [[[[vdupq_n_s32(0); 2]; 2]; TOKENS]; TILES];
    // A loop over units stays a loop, which costs a twelfth of the instructions; so it is written out.
    macro_rules! unit {
        ($unit:literal, $integers:ident) => {
            for tile in 0..TILES {
                for half in 0..2 {
                    let quads = lookup::quads(&tables, &weights[tile][$unit], half);
                    for token in 0..TOKENS {
                        let integers = &mut $integers[tile][token][half];
                        *integers = add_quads::<WORDS>(*integers, quads, &activations[token][$unit]);
                    }
                }
            }
        };
    }
    macro_rules! step {
        ($step:literal, $first:literal, $second:literal) => {
            if $first < units {
                let mut integers = zero;
                let mut totals = [[[vdupq_n_s32(0); 2]; TOKENS]; TILES];
                unit!($first, integers);
                if GROUPS_OF_32 {
                    for tile in 0..TILES {
                        let multipliers = lookup::multipliers::<0>(&tables, scale_codes[tile][$step]);
                        for token in 0..TOKENS {
                            let integers = rows_of_tile(integers[tile][token]);
                            totals[tile][token] = lookup::multiply(integers, multipliers);
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
                        let integers = rows_of_tile(integers[tile][token]);
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

/// Adds the products of half a tile's levels in a unit: rows 0 and 1 of the half, then 2 and 3, two sums each.
#[inline]
#[target_feature(enable = "neon")]
fn add_quads<const WORDS: usize>(
    [mut first, mut second]: [int32x4_t; 2],
    quads: [int8x16_t; 8],
    activations: &[i8; UNIT_ELEMS],
) -> [int32x4_t; 2] {
    let (with, _) = activations.as_chunks::<4>();
    let mut products = [vdupq_n_s16(0); 2];
    // Of a word's codes at once: at 4 bits words 0 and 1, then 2 and 3.
    for (place, index) in [0, 4, 1, 5, 2, 6, 3, 7].into_iter().enumerate() {
        let levels = quads[index];
        let with = quad(with[index]);
        if place == 0 || WORDS == 4 && place == 4 {
            if place > 0 {
                first = vpadalq_s16(first, products[0]);
                second = vpadalq_s16(second, products[1]);
            }
            products = [vmull_s8(vget_low_s8(levels), vget_low_s8(with)), vmull_high_s8(levels, with)];
        } else {
            products[0] = vmlal_s8(products[0], vget_low_s8(levels), vget_low_s8(with));
            products[1] = vmlal_high_s8(products[1], levels, with);
        }
    }
    [vpadalq_s16(first, products[0]), vpadalq_s16(second, products[1])]
}

/// Sums each row's columns.
#[inline]
#[target_feature(enable = "neon")]
fn rows_of_tile([[a, b], [c, d]]: [[int32x4_t; 2]; 2]) -> [int32x4_t; 2] {
    [vpaddq_s32(a, b), vpaddq_s32(c, d)]
}

/// Four activations beside each of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn quad(codes: [i8; 4]) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(codes.map(|code| code as u8))))
}
