//! 8-bit codes with SMMLA.

use super::products;
use super::squares::{self, ByRow, Squares};
use crate::kernels::TILE_ROWS;
use crate::kernels::neon::sums;
use crate::kernels::neon_dotprod::int8 as few;
use crate::kernels::nr8k4::Walk;
use crate::kernels::nr8k4::prepared::Scaled;
use crate::kernels::quantized::Activations;
use core::arch::aarch64::*;
use core::array::from_fn;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::matrix::MatrixView;

products! {
    INT8 = "int8", Int8, fewest: 8, few::INT8, gemm_int8_neon_i8mm;
}

struct Int8;

impl Walk for Int8 {
    const WIDTH: CodeWidth = CodeWidth::Int8;
    const MOST_TOKENS: usize = 8;
    type Prepared<'a> = Scaled<'a>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Scaled<'a> {
        Scaled::new(matrix, activations)
    }

    #[inline(always)]
    fn outputs<const TILES: usize, const TOKENS: usize>(
        matrix: &Scaled<'_>,
        tile: usize,
        token: usize,
    ) -> [[[f32; TILE_ROWS]; TOKENS]; TILES] {
        // A loop and no closure, as in `codebook`.
        let mut outputs = [[[0.0; TILE_ROWS]; TOKENS]; TILES];
        for (tile, output) in (tile..).zip(&mut outputs) {
            // SAFETY: instantiated only in the products of this module, which have NEON and i8mm.
            *output = unsafe { walk::<TOKENS>(matrix, tile, token) };
        }
        outputs
    }
}

/// The outputs of a tile.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn walk<const TOKENS: usize>(matrix: &Scaled<'_>, tile: usize, token: usize) -> [[f32; TILE_ROWS]; TOKENS] {
    let (units, step_units) = (matrix.tokens.units, matrix.step_units);
    let (words, weight_scales) = (matrix.words(tile), matrix.weight_scales(tile));
    let codes: [_; TOKENS] = from_fn(|index| matrix.tokens.codes(token + index));
    let scales: [_; TOKENS] = from_fn(|index| matrix.tokens.scales(token + index));

    let mut row_sums: Squares<float32x4_t, TOKENS> = [[vdupq_n_f32(0.0); 2]; TOKENS];
    for step in 0..matrix.tokens.steps {
        let first = step * step_units;
        let mut integers = squares::zero::<TOKENS>();
        for unit in first..units.min(first + step_units) {
            let (words, codes) = (&words[unit], codes.map(|codes| &codes[unit]));
            macro_rules! half_unit {
                ($HALF:literal) => {
                    let with = squares::side_by_side(codes, $HALF);
                    // Registers don't suffice for more than two of weights at once.
                    for quads in 0..2 {
                        let words = [4 * $HALF + quads, 4 * $HALF + quads + 2].map(|word| &words[word]);
                        for half in 0..2 {
                            let [first, second] =
                                words.map(|word| vreinterpretq_u8_s8(sums::load_weights(word, half)));
                            let weights =
                                squares::rows_of(first, second).map(|rows| vreinterpretq_s8_u8(rows));
                            squares::multiply(&mut integers, half, weights, with, quads);
                        }
                    }
                };
            }
            half_unit!(0);
            half_unit!(1);
        }
        let weight_scales = by_row(&weight_scales[matrix.group_of_step(step)]);
        let scales = squares::by_token(scales.map(|scales| &scales[step]));
        for (index, (sums, integers)) in row_sums.iter_mut().zip(integers).enumerate() {
            for (square, (sums, integers)) in sums.iter_mut().zip(integers).enumerate() {
                let scale = vmulq_f32(weight_scales[index % 2][square], scales[index / 2]);
                *sums = vfmaq_f32(*sums, vcvtq_f32_s32(integers), scale);
            }
        }
    }
    squares::rows(row_sums).map(|rows| sums::rows(rows))
}

/// The scales of a group, by row.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn by_row(scales: &[u16; TILE_ROWS]) -> ByRow<float32x4_t> {
    sums::widened(scales).map(|rows| [vzip1q_f32(rows, rows), vzip2q_f32(rows, rows)])
}
