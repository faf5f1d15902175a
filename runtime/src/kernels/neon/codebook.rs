//! 2 to 6 bits on NEON without dotprod: TBL, then products in int16.
//!
//! SMULL and SMLAL make products in int16. A lane (a row, and a column modulo four) takes one product a quad: four of at most
//! 63 * 127 make 32004, which fits. SADALP widens them then.

use super::insn::{multiply, multiply_and_widen};
use super::pair_walk::Cursor;
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

products! { "neon", "neon":
    INT2 = "int2",
        gemv_int2_neon: pairs::gemv_by_pairs::<Single<2>>,
        gemm_int2_neon: nr8k4::gemm::<Blocks<Codebook, 2>>;
    INT3 = "int3",
        gemv_int3_neon: pairs::gemv_by_pairs::<Single<3>>,
        gemm_int3_neon: nr8k4::gemm::<Blocks<Codebook, 3>>;
    INT4 = "int4",
        gemv_int4_neon: pairs::gemv_by_pairs::<Single<4>>,
        gemm_int4_neon: nr8k4::gemm::<Blocks<Codebook, 4>>;
    INT5 = "int5",
        gemv_int5_neon: pairs::gemv_by_pairs::<Single<5>>,
        gemm_int5_neon: nr8k4::gemm::<Blocks<Codebook, 5>>;
    INT6 = "int6",
        gemv_int6_neon: pairs::gemv_by_pairs::<Single<6>>,
        gemm_int6_neon: nr8k4::gemm::<Blocks<Codebook, 6>>;
}

struct Codebook;

/// By half of the tile: rows 0 and 1 of it, then 2 and 3, two sums each.
pub(super) type Integers = [[int32x4_t; 2]; 2];

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zero() -> Integers {
    [lookup::zero(); 2]
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn by_row([[a, b], [c, d]]: Integers) -> [int32x4_t; 2] {
    [vpaddq_s32(a, b), vpaddq_s32(c, d)]
}

macro_rules! unit {
    ($WORDS:ident, $TILES:ident, $TOKENS:ident, $tables:ident, $weights:ident, $activations:ident, $integers:ident, begin: $begin:literal) => {
        let mut loaded = [lookup::nothing(); $TILES];
        // Two pairs of quads share a load of activations, and their products fit an int16 at every width.
        macro_rules! half_unit {
            ($first:literal, $second:literal) => {
                let mut with = [[[vdupq_n_s8(0); 2]; 2]; $TOKENS];
                for token in 0..$TOKENS {
                    with[token] = quads($activations[token], $first / 2);
                }
                for tile in 0..$TILES {
                    let (words, loaded) = ($weights[tile], &mut loaded[tile]);
                    let mut products = [[[vdupq_n_s16(0); 2]; 2]; $TOKENS];
                    lookup::load::<$WORDS, $first>(words, loaded);
                    for half in 0..2 {
                        let levels = lookup::levels::<$WORDS, $first, false>(&$tables, loaded, half);
                        for token in 0..$TOKENS {
                            products[token][half] = multiply(levels, with[token][0]);
                        }
                    }
                    lookup::load::<$WORDS, $second>(words, loaded);
                    for half in 0..2 {
                        let levels = lookup::levels::<$WORDS, $second, false>(&$tables, loaded, half);
                        for token in 0..$TOKENS {
                            let integers = &mut $integers[tile][token][half];
                            let products = products[token][half];
                            let sums = if $begin && $first == 0 { None } else { Some(*integers) };
                            *integers = multiply_and_widen(sums, products, levels, with[token][1]);
                        }
                    }
                }
            };
        }
        half_unit!(0, 1);
        half_unit!(2, 3);
    };
}

blocks! { "neon", most_tokens: 2 }

/// Adds the products of the next unit of two tiles to `integers`, or puts them there (`BEGIN`).
///
/// # Safety
/// The unit is there.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn next_unit<const WORDS: usize, const BEGIN: bool>(
    tables: Tables,
    at: &mut Cursor,
    integers: &mut [[Integers; 1]; 2],
) {
    const TILES: usize = 2;
    const TOKENS: usize = 1;
    // SAFETY: the words are there, bytes of any address.
    let words = at.words.map(|words| unsafe { &*words.cast::<[Word; WORDS]>() });
    // SAFETY: the activations are there, likewise.
    let activations = [unsafe { &*at.codes }];
    at.words = at.words.map(|words| words.wrapping_add(size_of::<[Word; WORDS]>()));
    at.codes = at.codes.wrapping_add(1);
    if BEGIN {
        unit!(WORDS, TILES, TOKENS, tables, words, activations, integers, begin: true);
    } else {
        unit!(WORDS, TILES, TOKENS, tables, words, activations, integers, begin: false);
    }
}

/// Each quad of half a unit's activations beside each of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn quads(activations: &[i8; UNIT_ELEMS], half: usize) -> [[int8x16_t; 2]; 2] {
    let (halves, _) = activations.as_chunks::<16>();
    // SAFETY: 16 readable bytes; LD4R needs no alignment.
    let int32x4x4_t(a, b, c, d) = unsafe { vld4q_dup_s32(halves[half].as_ptr().cast()) };
    [[a, b], [c, d]].map(|pair| pair.map(|quad| vreinterpretq_s8_s32(quad)))
}
