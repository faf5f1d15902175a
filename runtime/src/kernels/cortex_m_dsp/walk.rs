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
use crate::kernels::{Activations, OutputRows, TILE_ROWS};
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::{MatrixView, STEP_ELEMS, Scaling};

/// Tiles that share the activations of a step.
const BAND_TILES: usize = 8;
/// Most units of a step.
const STEP_UNITS: usize = STEP_ELEMS / UNIT_ELEMS;

/// One word of some rows of a tile.
pub(super) type RowWords<const ROWS: usize> = [[u8; WORD_BYTES]; ROWS];

/// How units of one width are unpacked and multiplied. `WORDS` is words a unit.
pub(super) trait Unit<const WORDS: usize> {
    /// The width.
    const WIDTH: CodeWidth;
    /// What codes are looked up in.
    type Tables;

    /// Makes the tables.
    fn tables(matrix: &MatrixView<'_>) -> Self::Tables;
    /// Makes activations ready.
    fn prepare(codes: &[i8; UNIT_ELEMS]) -> Prepared;
    /// Adds the unit's products to `sums`.
    fn add<const ROWS: usize, const TOKENS: usize>(
        tables: &Self::Tables,
        words: [&RowWords<ROWS>; WORDS],
        activations: [&Prepared; TOKENS],
        sums: &mut [[i32; TOKENS]; ROWS],
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
        pass::<U, WORDS, 2, 2>(&tables, matrix, activations, tiles.clone(), token, output);
        token += 2;
    }
    while token < activations.tokens {
        pass::<U, WORDS, 4, 1>(&tables, matrix, activations, tiles.clone(), token, output);
        token += 1;
    }
}

/// The product for `TOKENS` tokens from `token` on, `ROWS` rows at a time.
#[inline(never)]
fn pass<U: Unit<WORDS>, const WORDS: usize, const ROWS: usize, const TOKENS: usize>(
    tables: &U::Tables,
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    token: usize,
    output: &mut OutputRows<'_>,
) {
    let shape = matrix.shape();
    let (units, steps) = (shape.units(), shape.steps());
    let step_units = shape.step_elems() / UNIT_ELEMS;
    let (words, _) = matrix.codes().as_chunks::<WORD_BYTES>();
    let (words, _) = words.as_chunks::<ROWS>();
    // Rows `ROWS * block ..` of a tile have every eighth word from `block` on, in chunks of `ROWS`.
    let blocks = TILE_ROWS / ROWS;
    let (codes, _) = activations.codes.as_chunks::<UNIT_ELEMS>();
    let mut prepared = [[Prepared::NONE; STEP_UNITS]; TOKENS];
    for first in tiles.clone().step_by(BAND_TILES) {
        let band = first..tiles.end.min(first + BAND_TILES);
        let mut sums = [[[0.0; TILE_ROWS]; TOKENS]; BAND_TILES];
        for step in 0..steps {
            let unit = step * step_units;
            let count = step_units.min(units - unit);
            for (index, prepared) in prepared.iter_mut().enumerate() {
                let codes = &codes[(token + index) * units + unit..][..count];
                prepared.iter_mut().zip(codes).for_each(|(prepared, codes)| *prepared = U::prepare(codes));
            }
            let scales: [f32; TOKENS] =
                core::array::from_fn(|index| activations.scales[(token + index) * steps + step]);
            for (tile, sums) in band.clone().zip(&mut sums) {
                let words = &words[(tile * units + unit) * WORDS * blocks..][..count * WORDS * blocks];
                let factors = Factors::new(matrix, tile, unit);
                for block in 0..blocks {
                    let mut integers = [[0; TOKENS]; ROWS];
                    for (index, words) in words.chunks_exact(WORDS * blocks).enumerate() {
                        let mut of_unit = [[0; TOKENS]; ROWS];
                        U::add::<ROWS, TOKENS>(
                            tables,
                            core::array::from_fn(|word| &words[word * blocks + block]),
                            prepared.each_ref().map(|prepared| &prepared[index]),
                            &mut of_unit,
                        );
                        let multipliers = &factors.multipliers[index];
                        for (row, (integers, of_unit)) in integers.iter_mut().zip(&of_unit).enumerate() {
                            let multiplier = i32::from(multipliers[block * ROWS + row]);
                            integers.iter_mut().zip(of_unit).for_each(|(sum, of)| *sum += multiplier * of);
                        }
                    }
                    for (row, integers) in integers.iter().enumerate() {
                        let row = block * ROWS + row;
                        for ((sums, integer), scale) in sums.iter_mut().zip(integers).zip(scales) {
                            sums[row] = (*integer as f32).fma(factors.scales[row] * scale, sums[row]);
                        }
                    }
                }
            }
        }
        for (tile, sums) in band.zip(&mut sums) {
            for (index, sums) in sums.iter_mut().enumerate() {
                if let Scaling::Codebook(_) = matrix.scaling() {
                    sums.iter_mut()
                        .enumerate()
                        .for_each(|(row, sum)| *sum *= matrix.scale(tile * TILE_ROWS + row, 0));
                }
                output.store(token + index, (tile - tiles.start) * TILE_ROWS, sums);
            }
        }
    }
}

/// What the integer sums of a tile and step are multiplied with.
struct Factors {
    /// By unit and row.
    multipliers: [[u8; TILE_ROWS]; STEP_UNITS],
    /// Of a matrix of 8 bits the group's, by row; else 1, which changes no bit of what it is multiplied with.
    scales: [f32; TILE_ROWS],
}

impl Factors {
    /// Of the step that begins at this unit.
    #[inline(always)]
    fn new(matrix: &MatrixView<'_>, tile: usize, unit: usize) -> Factors {
        let shape = matrix.shape();
        let group_of = |unit: usize| unit * UNIT_ELEMS / shape.group_elems();
        let mut factors = Factors { multipliers: [[1; TILE_ROWS]; STEP_UNITS], scales: [1.0; TILE_ROWS] };
        match matrix.scaling() {
            Scaling::Groups(_) => {
                for (row, scale) in factors.scales.iter_mut().enumerate() {
                    *scale = matrix.scale(tile * TILE_ROWS + row, group_of(unit));
                }
            }
            Scaling::Codebook(codebook) if shape.has_scale_codes() => {
                let (octets, _) = codebook.scale_codes.as_chunks::<TILE_ROWS>();
                for (index, multipliers) in factors.multipliers.iter_mut().enumerate() {
                    let group = group_of(unit + index);
                    // The last step may be one unit: what its second would be multiplied with doesn't matter.
                    let pair = (group / 2).min(shape.scale_code_pairs() - 1);
                    let octet = &octets[tile * shape.scale_code_pairs() + pair];
                    for (multiplier, codes) in multipliers.iter_mut().zip(octet) {
                        *multiplier = codebook.multipliers[usize::from(codes >> (4 * (group % 2)) & 15)];
                    }
                }
            }
            Scaling::Codebook(_) => {}
        }
        factors
    }
}

/// The products of one width: its name, its unit, and words a unit.
macro_rules! products {
    ($width:literal, $unit:ty, $words:literal) => {
        $crate::kernels::Products {
            gemv: $crate::kernels::cortex_m_dsp::walk::product::<$unit, $words, false>,
            gemm: $crate::kernels::cortex_m_dsp::walk::product::<$unit, $words, true>,
            gemv_name: concat!("gemv_", $width, "_nr8k4_cortex_m_dsp"),
            gemm_name: concat!("gemm_", $width, "_nr8k4_cortex_m_dsp"),
        }
    };
}
pub(super) use products;
