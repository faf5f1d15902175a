//! 2 to 6 bits with TBL and SMMLA.
//!
//! Integer sums of a step, times their multipliers, stay below 64 * 63 * 127 * 255 < 2^31.

use super::products;
use super::squares::{self, ByRow, Squares};
use crate::kernels::TILE_ROWS;
use crate::kernels::neon::lookup::{self, Tables};
use crate::kernels::neon::sums;
use crate::kernels::neon_dotprod::codebook as few;
use crate::kernels::neon_dotprod::loads::{self, Halves};
use crate::kernels::nr8k4::codebook::{STEP_UNITS, lookup_tables, width};
use crate::kernels::nr8k4::prepared::Coded;
use crate::kernels::nr8k4::{Walk, Word};
use crate::kernels::quantized::Activations;
use core::arch::aarch64::*;
use core::array::from_fn;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::{MatrixView, STEP_ELEMS};

products! {
    INT2 = "int2", Codebook<2>, fewest: 4, few::INT2, gemm_int2_neon_i8mm;
    INT3 = "int3", Codebook<3>, fewest: 4, few::INT3, gemm_int3_neon_i8mm;
    INT4 = "int4", Codebook<4>, fewest: 4, few::INT4, gemm_int4_neon_i8mm;
    INT5 = "int5", Codebook<5>, fewest: 4, few::INT5, gemm_int5_neon_i8mm;
    INT6 = "int6", Codebook<6>, fewest: 4, few::INT6, gemm_int6_neon_i8mm;
}

struct Codebook<const WORDS: usize>;

impl<const WORDS: usize> Walk for Codebook<WORDS> {
    const WIDTH: CodeWidth = width::<WORDS>();
    const MOST_TOKENS: usize = 8;
    type Prepared<'a> = Coded<'a, Tables, WORDS>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        let (levels, multipliers) = lookup_tables(matrix);
        // SAFETY: instantiated only in the products of this module, which have NEON and i8mm.
        let tables = unsafe { lookup::tables::<WORDS>(levels, multipliers) };
        Coded::new(tables, matrix, activations)
    }

    #[inline(always)]
    fn outputs<const TILES: usize, const TOKENS: usize>(
        matrix: &Self::Prepared<'_>,
        tile: usize,
        token: usize,
    ) -> [[[f32; TILE_ROWS]; TOKENS]; TILES] {
        // A loop and no closure: `cargo xtask test` follows calls of this crate's functions to SMMLA where nothing is inlined.
        let mut outputs = [[[0.0; TILE_ROWS]; TOKENS]; TILES];
        for (tile, output) in (tile..).zip(&mut outputs) {
            // SAFETY: likewise.
            *output = unsafe {
                if cfg!(feature = "groups-32") && matrix.group == UNIT_ELEMS {
                    walk::<WORDS, TOKENS, true>(matrix, tile, token)
                } else {
                    walk::<WORDS, TOKENS, false>(matrix, tile, token)
                }
            };
        }
        outputs
    }
}

/// The outputs of a tile. Where `BY_UNIT`, each unit is a group, else each step has one multiplier.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn walk<const WORDS: usize, const TOKENS: usize, const BY_UNIT: bool>(
    matrix: &Coded<'_, Tables, WORDS>,
    tile: usize,
    token: usize,
) -> [[f32; TILE_ROWS]; TOKENS] {
    let (tables, units) = (matrix.tables, matrix.tokens.units);
    let (words, octets) = (matrix.words(tile), matrix.octets(tile));
    let codes: [_; TOKENS] = from_fn(|index| matrix.tokens.codes(token + index));
    let scales: [_; TOKENS] = from_fn(|index| matrix.tokens.scales(token + index));
    // A step is a group, or half of one of 128; a row that is one group has no scale codes.
    let steps_per_group_log2 = u32::from(matrix.group > STEP_ELEMS);

    let mut row_sums: Squares<float32x4_t, TOKENS> = [[vdupq_n_f32(0.0); 2]; TOKENS];
    for step in 0..matrix.tokens.steps {
        let first = step * STEP_UNITS;
        let mut integers = squares::zero::<TOKENS>();
        let mut totals = squares::zero::<TOKENS>();
        for unit in first..units.min(first + STEP_UNITS) {
            if BY_UNIT {
                integers = squares::zero();
            }
            let (words, codes) = (&words[unit], codes.map(|codes| &codes[unit]));
            macro_rules! half_unit {
                ($HALF:literal) => {
                    let with = squares::side_by_side(codes, $HALF);
                    let loaded = load_half::<WORDS, $HALF>(words);
                    for half in 0..2 {
                        let [even, odd] = levels::<WORDS, $HALF>(&tables, loaded, half);
                        squares::multiply(&mut integers, half, even, with, 0);
                        squares::multiply(&mut integers, half, odd, with, 1);
                    }
                };
            }
            half_unit!(0);
            half_unit!(1);
            if BY_UNIT {
                let multipliers = multipliers(&tables, octets, unit);
                for (index, (totals, integers)) in totals.iter_mut().zip(integers).enumerate() {
                    for (square, totals) in totals.iter_mut().enumerate() {
                        *totals = vmlaq_s32(*totals, integers[square], multipliers[index % 2][square]);
                    }
                }
            }
        }
        if !BY_UNIT {
            let multipliers = multipliers(&tables, octets, step >> steps_per_group_log2);
            for (index, (totals, integers)) in totals.iter_mut().zip(integers).enumerate() {
                for (square, totals) in totals.iter_mut().enumerate() {
                    *totals = vmulq_s32(integers[square], multipliers[index % 2][square]);
                }
            }
        }
        let scales = squares::by_token(scales.map(|scales| &scales[step]));
        for (index, (sums, totals)) in row_sums.iter_mut().zip(totals).enumerate() {
            for (sums, totals) in sums.iter_mut().zip(totals) {
                *sums = vfmaq_f32(*sums, vcvtq_f32_s32(totals), scales[index / 2]);
            }
        }
    }
    let (row_scales, unit) = (&matrix.row_scales[tile], matrix.row_scale_unit());
    squares::rows(row_sums).map(|rows| sums::scaled_rows(rows, row_scales, unit))
}

/// The words of half a unit: two that hold its quads, at 2 bits one; and that of the low bits at a stacked width.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn load_half<const WORDS: usize, const HALF: usize>(words: &[Word; WORDS]) -> [Halves; 3] {
    let (couples, _) = words.as_chunks::<2>();
    let nothing = [vdupq_n_u8(0); 2];
    match (WORDS, HALF) {
        (2, _) => [loads::load_one(&words[HALF]), nothing, nothing],
        (3, 0) => {
            let [a, b] = loads::load_two(&couples[0]);
            [a, b, nothing]
        }
        (3, _) => {
            let ([a, b], c) = (loads::load_two(&couples[0]), loads::load_one(&words[2]));
            [c, [lookup::fourth_word([a[0], b[0], c[0]]), lookup::fourth_word([a[1], b[1], c[1]])], nothing]
        }
        _ => {
            let [a, b] = loads::load_two(&couples[HALF]);
            let low = match WORDS {
                5 => loads::load_one(&words[4]),
                6 => loads::load_one(&words[4 + HALF]),
                _ => nothing,
            };
            [a, b, low]
        }
    }
}

/// The levels of half a tile in half a unit: quads 0 and 2 of both pairs of rows, and quads 1 and 3.
///
/// Bringing quads together costs least before tables are looked up: codes of two words, or nibbles that serve two tables. Where the quads
/// have different tables, at 5 bits, it is levels.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn levels<const WORDS: usize, const HALF: usize>(
    tables: &Tables,
    [first, second, low]: [Halves; 3],
    half: usize,
) -> [[int8x16_t; 2]; 2] {
    let (first, second, low) = (first[half], second[half], low[half]);
    let table = &tables.levels;
    let lookup = |table: int8x16_t, rows: [uint8x16_t; 2]| rows.map(|rows| vqtbl1q_s8(table, rows));
    let of_two_codes = |codes: uint8x16_t, tables: [int8x16_t; 2]| {
        let [low, high] = lookup::nibbles(codes);
        let rows = squares::rows_of(low, high);
        tables.map(|table| lookup(table, rows))
    };
    let of_codes = || {
        let [a, b] = squares::rows_of(first, second).map(|rows| lookup::nibbles(rows));
        [lookup(table[0], [a[0], b[0]]), lookup(table[0], [a[1], b[1]])]
    };
    let by_levels = |[a, b]: [int8x16_t; 2], [c, d]: [int8x16_t; 2]| {
        [(a, c), (b, d)].map(|(first, second)| {
            let rows = squares::rows_of(vreinterpretq_u8_s8(first), vreinterpretq_u8_s8(second));
            rows.map(|rows| vreinterpretq_s8_u8(rows))
        })
    };
    match (WORDS, HALF) {
        (2, _) => of_two_codes(first, [table[0], table[1]]),
        (3, _) => {
            let [a, b] = squares::rows_of(first, second);
            let [a, c] = lookup::levels_of_three_bits::<true>(tables, a);
            let [b, d] = lookup::levels_of_three_bits::<true>(tables, b);
            [[a, b], [c, d]]
        }
        (4, _) => of_codes(),
        (6, _) => {
            let ([a, b], [c, d]) = (of_codes(), of_two_codes(low, [table[1], table[2]]));
            let add = |[a, b]: [int8x16_t; 2], [c, d]: [int8x16_t; 2]| [vaddq_s8(a, c), vaddq_s8(b, d)];
            [add(a, c), add(b, d)]
        }
        (_, 0) => by_levels(
            lookup::levels_of::<WORDS, 0>(tables, first, low),
            lookup::levels_of::<WORDS, 1>(tables, second, low),
        ),
        _ => by_levels(
            lookup::levels_of::<WORDS, 2>(tables, first, low),
            lookup::levels_of::<WORDS, 3>(tables, second, low),
        ),
    }
}

/// The multipliers of a group, by row.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn multipliers(tables: &Tables, octets: &[[u8; TILE_ROWS]], group: usize) -> ByRow<int32x4_t> {
    let octet = octets.get(group / 2).map_or(0, |octet| u64::from_le_bytes(*octet));
    let nibbles = vcreate_u8(octet >> (4 * (group % 2)) & 0x0f0f_0f0f_0f0f_0f0f);
    let bytes = vqtbl1_u8(tables.multipliers, nibbles);
    let wide = vmovl_u8(bytes);
    let [low, high] = [vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide)];
    [low, high].map(|rows| {
        let rows = vreinterpretq_s32_u32(rows);
        [vzip1q_s32(rows, rows), vzip2q_s32(rows, rows)]
    })
}
