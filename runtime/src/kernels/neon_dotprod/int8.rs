//! 8-bit codes with SDOT.

use super::insn::sdot;
use crate::kernels::neon::sums::{self, Sums};
use crate::kernels::nr8k4::{self, Step, Word};
use crate::kernels::{Activations, OutputRows, TILE_ROWS};
use core::arch::aarch64::*;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

const UNIT_WORDS: usize = 8;

pub(super) fn gemv(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
    unsafe { gemv_int8_neon_dotprod(m, a, tiles, output) }
}

pub(super) fn gemm(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
    unsafe { gemm_int8_neon_dotprod(m, a, tiles, output) }
}

#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
fn gemv_int8_neon_dotprod(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    nr8k4::gemv::<Int8, UNIT_WORDS>(m, a, tiles, output);
}

#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
fn gemm_int8_neon_dotprod(
    m: &MatrixView<'_>,
    a: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    nr8k4::gemm::<Int8, UNIT_WORDS>(m, a, tiles, output);
}

struct Int8;

impl Step<UNIT_WORDS> for Int8 {
    const WIDTH: CodeWidth = CodeWidth::Int8;
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
        weights: [&[[Word; UNIT_WORDS]]; TILES],
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
    weights: [&[[Word; UNIT_WORDS]]; TILES],
    weight_scales: [&[u16; TILE_ROWS]; TILES],
    activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
    activation_scales: [f32; TOKENS],
    sums: &mut [[Sums; TOKENS]; TILES],
) {
    let units = if UNITS == 0 { weights[0].len() } else { UNITS };
    // By tile, token and half: the sums of four rows.
    let mut integers = [[[vdupq_n_s32(0); 2]; TOKENS]; TILES];
    macro_rules! word {
        ($unit:literal, $codes:ident, $word:literal) => {
            for tile in 0..TILES {
                for half in 0..2 {
                    let weights = sums::load_weights(&weights[tile][$unit][$word], half);
                    for token in 0..TOKENS {
                        let integers = &mut integers[tile][token][half];
                        *integers = sdot::<{ $word % 4 }>(*integers, weights, $codes[token][$word / 4]);
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
                word!($unit, codes, 0);
                word!($unit, codes, 1);
                word!($unit, codes, 2);
                word!($unit, codes, 3);
                word!($unit, codes, 4);
                word!($unit, codes, 5);
                word!($unit, codes, 6);
                word!($unit, codes, 7);
            }
        };
    }
    unit!(0);
    unit!(1);
    unit!(2);
    unit!(3);
    for tile in 0..TILES {
        let scales = sums::scales(weight_scales[tile]);
        for token in 0..TOKENS {
            let integers = integers[tile][token].map(|integers| vcvtq_f32_s32(integers));
            sums[tile][token] = sums::add_step(sums[tile][token], integers, scales, activation_scales[token]);
        }
    }
}
