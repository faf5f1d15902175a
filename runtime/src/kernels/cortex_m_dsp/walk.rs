//! The walk along a matrix in layout nr8k4.
//!
//! ```text
//! for each band of eight tiles: for each step:
//!     make the activations of the step ready, once for all rows of the band
//!     for each tile, each few rows: integer sums of the step in registers; sums = fma(f32(integer), scale, sums)
//! ```
//! Sums of floats lie in memory, integers in registers, of which there are a dozen: four sums, of four rows and one token, or of two rows and
//! two tokens, which share the unpacked weights.

use super::prepared::Prepared;
use crate::kernels::lanes::Elementwise;
use crate::kernels::quantized::check;
use crate::kernels::scalar::widened;
use crate::kernels::{Activations, OutputRows, TILE_ROWS};
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::{MatrixView, STEP_ELEMS, Scaling, TABLE_ENTRIES};

/// Tiles that share the activations of a step.
const BAND_TILES: usize = 8;
/// Most units of a step.
pub(super) const STEP_UNITS: usize = STEP_ELEMS / UNIT_ELEMS;
/// Sums at once.
pub(super) const SUMS: usize = 4;

/// A word of each row of a tile.
pub(super) type Word = [[u8; WORD_BYTES]; TILE_ROWS];

/// How units of one width are unpacked and multiplied. `WORDS` is words a unit.
pub(super) trait Unit<const WORDS: usize> {
    /// The width.
    const WIDTH: CodeWidth;
    /// What the integer sum is multiplied with, and what times the sum of the activations is then taken off.
    const LINE: (i32, i32) = (1, 0);
    /// What codes are looked up in.
    type Tables;

    /// Makes the tables.
    fn tables(matrix: &MatrixView<'_>) -> Self::Tables;
    /// Makes the activations of a step ready.
    fn prepare(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared);
    /// Adds the products of units to the sums of the rows of `block` (see [`super::units`]). They are the step's from `first` on.
    fn add<const TOKENS: usize>(
        tables: &Self::Tables,
        units: &[[Word; WORDS]],
        block: usize,
        activations: &[Prepared; TOKENS],
        first: usize,
        sums: &mut [i32; SUMS],
    );
}

/// The product, a token at a time, or, where `PAIRS`, two.
pub(super) fn product<U: Unit<WORDS>, const WORDS: usize, const PAIRS: bool>(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(U::WIDTH));
    let tables = U::tables(matrix);
    let mut token = 0;
    while PAIRS && token + 1 < activations.tokens {
        pass::<U, WORDS, 2>(&tables, matrix, activations, tiles.clone(), token, output);
        token += 2;
    }
    while token < activations.tokens {
        pass::<U, WORDS, 1>(&tables, matrix, activations, tiles.clone(), token, output);
        token += 1;
    }
}

/// The product for `TOKENS` tokens from `token` on.
#[inline(never)]
fn pass<U: Unit<WORDS>, const WORDS: usize, const TOKENS: usize>(
    tables: &U::Tables,
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    token: usize,
    output: &mut OutputRows<'_>,
) {
    let has_codebook = const { U::WIDTH.levels().is_some() };
    let shape = matrix.shape();
    let (units, steps) = (shape.units(), shape.steps());
    let step_units = shape.step_elems() / UNIT_ELEMS;
    let group_units = (shape.group_elems() / UNIT_ELEMS).max(1);
    let (words, _) = matrix.codes().as_chunks::<WORD_BYTES>();
    let (words, _) = words.as_chunks::<TILE_ROWS>();
    let (words, _) = words.as_chunks::<WORDS>();
    let (codes, _) = activations.codes.as_chunks::<UNIT_ELEMS>();
    // Scale codes of two groups a row and tile; where there are none, every multiplier is 1.
    let (ones, no_codes, no_scales) = ([1; TABLE_ENTRIES], [[0; TILE_ROWS]], [[0; TILE_ROWS]]);
    let (mut multipliers, mut octets, mut scales) = (&ones, &no_codes[..], &no_scales[..]);
    match matrix.scaling() {
        Scaling::Groups(of_groups) => scales = of_groups.as_chunks().0,
        Scaling::Codebook(codebook) if shape.has_scale_codes() => {
            (multipliers, octets) = (codebook.multipliers, codebook.scale_codes.as_chunks().0);
        }
        Scaling::Codebook(_) => {}
    }
    let (pairs, groups) = (shape.scale_code_pairs(), shape.groups());
    // Units with a multiplier of their own are summed one at a time.
    let part_units = if shape.has_scale_codes() { group_units.min(step_units) } else { step_units };

    let mut prepared = [Prepared::NONE; TOKENS];
    for first in tiles.clone().step_by(BAND_TILES) {
        let band = first..tiles.end.min(first + BAND_TILES);
        let mut sums = [[[0.0; TILE_ROWS]; TOKENS]; BAND_TILES];
        for step in 0..steps {
            let unit = step * step_units;
            let count = step_units.min(units - unit);
            let mut token_scales = [0.0; TOKENS];
            for (index, (prepared, scale)) in prepared.iter_mut().zip(&mut token_scales).enumerate() {
                U::prepare(&codes[(token + index) * units + unit..][..count], prepared);
                *scale = activations.scales[(token + index) * steps + step];
            }
            let group = unit / group_units;
            for (tile, sums) in band.clone().zip(&mut sums) {
                let words = &words[tile * units + unit..][..count];
                // The groups of a step are of one pair: one group, or a whole pair of groups of 32.
                let octet = &octets[if pairs > 0 { tile * pairs + group / 2 } else { 0 }];
                let group_scales = &scales[if has_codebook { 0 } else { tile * groups + group }];
                for block in 0..TILE_ROWS * TOKENS / SUMS {
                    let mut integers = [0; SUMS];
                    let mut shift = 4 * (group % 2);
                    for (part, words) in words.chunks(part_units).enumerate() {
                        let mut of_part = [0; SUMS];
                        let first = part * part_units;
                        U::add::<TOKENS>(tables, words, block, &prepared, first, &mut of_part);
                        if let (factor, bound @ 1..) = U::LINE {
                            for (sum, place) in of_part.iter_mut().zip(0..) {
                                let of_activations = &prepared[place % TOKENS].sums[first..][..words.len()];
                                *sum = factor * *sum - bound * of_activations.iter().sum::<i32>();
                            }
                        }
                        for row in 0..SUMS / TOKENS {
                            let code = octet[SUMS / TOKENS * block + row] >> shift & 15;
                            let multiplier = i32::from(multipliers[usize::from(code)]);
                            for token in 0..TOKENS {
                                integers[row * TOKENS + token] += multiplier * of_part[row * TOKENS + token];
                            }
                        }
                        shift = 4;
                    }
                    for row in 0..SUMS / TOKENS {
                        let in_tile = SUMS / TOKENS * block + row;
                        let weight_scale = if has_codebook { 1.0 } else { widened(group_scales[in_tile]) };
                        for token in 0..TOKENS {
                            let scale = if has_codebook {
                                token_scales[token]
                            } else {
                                weight_scale * token_scales[token]
                            };
                            let sum = &mut sums[token][in_tile];
                            *sum = (integers[row * TOKENS + token] as f32).fma(scale, *sum);
                        }
                    }
                }
            }
        }
        for (tile, sums) in band.zip(&mut sums) {
            for (index, sums) in sums.iter_mut().enumerate() {
                if let Scaling::Codebook(codebook) = matrix.scaling() {
                    let unit = shape.row_scale_unit();
                    let (scales, _) = codebook.row_scales.as_chunks::<TILE_ROWS>();
                    for (sum, &scale) in sums.iter_mut().zip(&scales[tile]) {
                        *sum *= widened(scale) * unit;
                    }
                }
                output.store(token + index, (tile - tiles.start) * TILE_ROWS, sums);
            }
        }
    }
}

/// The products of one width: its name, its unit, words a unit, and whether two tokens at once pay.
macro_rules! products {
    ($width:literal, $unit:ty, $words:literal, $pairs:literal) => {
        $crate::kernels::Products {
            gemv: $crate::kernels::cortex_m_dsp::walk::product::<$unit, $words, false>,
            gemm: $crate::kernels::cortex_m_dsp::walk::product::<$unit, $words, $pairs>,
            gemv_name: concat!("gemv_", $width, "_nr8k4_cortex_m_dsp"),
            gemm_name: concat!("gemm_", $width, "_nr8k4_cortex_m_dsp"),
        }
    };
}
pub(super) use products;
