//! The walk over a codebook matrix (2, 3 and 4 bits), in blocks of two activation steps:
//!
//! ```text
//! for each step: sums = fma(f32(sum over groups: multiplier * integer sum), activation scale, sums)
//! at the end:    output = sums * row scale
//! ```
//! A backend supplies one block ([`Block`]). It finds levels and multipliers by table lookup within a register: a nibble of the
//! packed codes indexes a table of sixteen bytes (see `rescomp_formats::encodings` for what a nibble holds).

use super::{Walk, Word};
use crate::kernels::TILE_ROWS;
use crate::kernels::quantized::Activations;
use core::array::from_fn;
use core::marker::PhantomData;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES, int3};
use rescomp_formats::matrix::{Codebook, MatrixView, STEP_ELEMS, Scaling, TABLE_ENTRIES};

/// Units of a step.
pub(in crate::kernels) const STEP_UNITS: usize = STEP_ELEMS / UNIT_ELEMS;
/// Units of a block: two steps, so that one load of scale codes serves both groups of 64 that it names.
pub(in crate::kernels) const BLOCK_UNITS: usize = 2 * STEP_UNITS;
/// Steps of a block.
pub(in crate::kernels) const BLOCK_STEPS: usize = 2;
/// Bytes of the scale codes of a tile for two groups.
type Octet = [u8; TILE_ROWS];

/// Scale codes of a block and a tile, each a byte a row: by step. Groups of 32 take the nibbles of a step's byte by unit, all others
/// the nibbles of the first byte by step.
pub(in crate::kernels) type ScaleCodes = [u64; BLOCK_STEPS];

/// One block of a product, for one backend. `WORDS` is the width: words a unit, bits a code.
///
/// The methods are `#[inline(always)]`: they become part of the backend's `#[target_feature]` function.
pub(in crate::kernels) trait Block<const WORDS: usize> {
    /// Levels and multipliers in registers.
    type Tables: Copy;
    /// Eight row sums in registers.
    type Sums: Copy;

    /// Loads the tables.
    fn tables(levels: &[i8; TABLE_ENTRIES], multipliers: &[u8; TABLE_ENTRIES]) -> Self::Tables;
    /// Sums of +0.
    fn zero() -> Self::Sums;
    /// The sums times the rows' scales (f16 bits), by row.
    fn rows(sums: Self::Sums, row_scales: &[u16; TILE_ROWS]) -> [f32; TILE_ROWS];
    /// Adds one block to `sums`. `weights` and `activations` hold the same number of units: [`BLOCK_UNITS`], or, where
    /// not `WHOLE`, 1 to 3. `GROUPS_OF_32`: each unit has its own scale code, else each step has.
    ///
    /// With `WHOLE` there is one call of each instance in a product of several tiles or tokens, and the compiler inlines what
    /// is called once, whatever its size: so the sums stay in registers.
    fn add<const TILES: usize, const TOKENS: usize, const WHOLE: bool, const GROUPS_OF_32: bool>(
        tables: Self::Tables,
        weights: [&[[Word; WORDS]]; TILES],
        scale_codes: [ScaleCodes; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [&[f32]; TOKENS],
        sums: &mut [[Self::Sums; TOKENS]; TILES],
    );
}

/// Which entries of the table of levels a table for nibbles has, for each of the tables that a width needs:
///
/// | bits | tables |
/// |---|---|
/// | 4 | 0: the levels |
/// | 3 | 0 to 2: a nibble of that word; 3: a nibble of joined spare bits |
/// | 2 | 0: the low code of a nibble; 1: the high one |
pub(in crate::kernels) const fn nibble_patterns<const WORDS: usize>() -> [[u8; TABLE_ENTRIES]; 4] {
    let mut patterns = [[0; TABLE_ENTRIES]; 4];
    let mut table = 0;
    while table < 4 {
        let mut nibble = 0;
        while nibble < TABLE_ENTRIES as u8 {
            patterns[table][nibble as usize] = match WORDS {
                2 => nibble >> (2 * (table % 2)) & 3,
                3 => int3::code_of_nibble(table, nibble),
                _ => nibble,
            };
            nibble += 1;
        }
        table += 1;
    }
    patterns
}

/// The walk of a backend's block.
pub(in crate::kernels) struct Blocks<B, const WORDS: usize>(PhantomData<B>);

impl<B: Block<WORDS>, const WORDS: usize> Walk for Blocks<B, WORDS> {
    const WIDTH: CodeWidth = match WORDS {
        2 => CodeWidth::Int2,
        3 => CodeWidth::Int3,
        _ => CodeWidth::Int4,
    };
    type Tables = B::Tables;

    #[inline(always)]
    fn tables(matrix: &MatrixView<'_>) -> B::Tables {
        let codebook = codebook(matrix);
        // Without scale codes every multiplier is 1, and the scale codes of the walk are 0.
        let ones = &[1; TABLE_ENTRIES];
        B::tables(codebook.levels, if matrix.shape().has_scale_codes() { codebook.multipliers } else { ones })
    }

    #[inline(always)]
    fn outputs<const TILES: usize, const TOKENS: usize>(
        tables: B::Tables,
        matrix: &MatrixView<'_>,
        activations: &Activations<'_>,
        tile: usize,
        token: usize,
    ) -> [[[f32; TILE_ROWS]; TOKENS]; TILES] {
        let sums = if matrix.shape().has_scale_codes() && matrix.shape().group_elems() == UNIT_ELEMS {
            walk::<B, WORDS, TILES, TOKENS, true>(tables, matrix, activations, tile, token)
        } else {
            walk::<B, WORDS, TILES, TOKENS, false>(tables, matrix, activations, tile, token)
        };
        let (row_scales, _) = codebook(matrix).row_scales.as_chunks::<TILE_ROWS>();
        from_fn(|index| from_fn(|token| B::rows(sums[index][token], &row_scales[tile + index])))
    }
}

/// The codebook; an empty one where the matrix has none, which `check` has refused.
#[inline(always)]
fn codebook<'a>(matrix: &MatrixView<'a>) -> Codebook<'a> {
    match matrix.scaling() {
        Scaling::Codebook(codebook) => codebook,
        Scaling::Groups(_) => Codebook {
            levels: &[0; TABLE_ENTRIES],
            multipliers: &[0; TABLE_ENTRIES],
            scale_codes: &[],
            row_scales: &[],
        },
    }
}

#[inline(always)]
fn walk<
    B: Block<WORDS>,
    const WORDS: usize,
    const TILES: usize,
    const TOKENS: usize,
    const GROUPS_OF_32: bool,
>(
    tables: B::Tables,
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tile: usize,
    token: usize,
) -> [[B::Sums; TOKENS]; TILES] {
    let shape = matrix.shape();
    let units = shape.units();
    let whole_blocks = units / BLOCK_UNITS;
    let (words, _) = matrix.codes().as_chunks::<{ TILE_ROWS * WORD_BYTES }>();
    let (words, _) = words.as_chunks::<WORDS>();
    let weights: [(&[[[Word; WORDS]; BLOCK_UNITS]], _); TILES] =
        from_fn(|index| words[(tile + index) * units..][..units].as_chunks());
    let (octets, _) = codebook(matrix).scale_codes.as_chunks::<TILE_ROWS>();
    let pairs = shape.scale_code_pairs();
    let octets: [&[Octet]; TILES] = from_fn(|index| &octets[(tile + index) * pairs..][..pairs]);
    let (codes, _) = activations.codes.as_chunks::<UNIT_ELEMS>();
    let codes: [(&[[_; BLOCK_UNITS]], _); TOKENS] =
        from_fn(|index| codes[(token + index) * units..][..units].as_chunks());
    let steps = shape.steps();
    let scales: [(&[[f32; BLOCK_STEPS]], _); TOKENS] =
        from_fn(|index| activations.scales[(token + index) * steps..][..steps].as_chunks());
    let wide_groups = shape.group_elems() > STEP_ELEMS;

    let mut sums = [[B::zero(); TOKENS]; TILES];
    for block in 0..whole_blocks {
        B::add::<TILES, TOKENS, true, GROUPS_OF_32>(
            tables,
            from_fn(|index| weights[index].0[block].as_slice()),
            from_fn(|index| scale_codes::<GROUPS_OF_32>(octets[index], block, wide_groups)),
            from_fn(|index| codes[index].0[block].as_slice()),
            from_fn(|index| scales[index].0[block].as_slice()),
            &mut sums,
        );
    }
    if whole_blocks * BLOCK_UNITS < units {
        B::add::<TILES, TOKENS, false, GROUPS_OF_32>(
            tables,
            from_fn(|index| weights[index].1),
            from_fn(|index| scale_codes::<GROUPS_OF_32>(octets[index], whole_blocks, wide_groups)),
            from_fn(|index| codes[index].1),
            // Three units are a whole step and a short one: two steps, which are a block of scales.
            from_fn(|index| {
                &activations.scales[(token + index) * steps..][..steps][BLOCK_STEPS * whole_blocks..]
            }),
            &mut sums,
        );
    }
    sums
}

/// The scale codes of a block.
#[inline(always)]
fn scale_codes<const GROUPS_OF_32: bool>(octets: &[Octet], block: usize, wide_groups: bool) -> ScaleCodes {
    let octet = |index: usize| octets.get(index).map_or(0, |octet| u64::from_le_bytes(*octet));
    if GROUPS_OF_32 {
        return [octet(2 * block), octet(2 * block + 1)];
    }
    if wide_groups {
        // A block is one group of 128 (or has none): its code stands for both steps.
        let code = octet(block / 2) >> (4 * (block % 2)) & 0x0f0f_0f0f_0f0f_0f0f;
        return [code | code << 4, 0];
    }
    [octet(block), 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables find every code of every unit where `decode_unit` does.
    #[test]
    fn nibbles_find_the_codes() {
        fn check<const WORDS: usize>(width: CodeWidth) {
            let patterns = nibble_patterns::<WORDS>();
            for start in 0..=255u8 {
                let mut words = [[0; 4]; 8];
                for (index, word) in words.iter_mut().take(WORDS).enumerate() {
                    *word = core::array::from_fn(|lane| {
                        start.wrapping_mul(31).wrapping_add((97 * index + lane * 41) as u8)
                    });
                }
                let codes = width.decode_unit(&words);
                for (column, code) in codes.into_iter().enumerate() {
                    let (quad, lane) = (column / 4, column % 4);
                    let high = |byte: u8, high: bool| usize::from(if high { byte >> 4 } else { byte & 15 });
                    let (table, nibble) = match WORDS {
                        2 => (quad / 2 % 2, high(words[quad % 2][lane], quad >= 4)),
                        3 if quad % 4 == 3 => {
                            let spare = int3::SPARE_BITS;
                            let joined = (0..3).fold(words[0][lane], |joined, word| {
                                joined & !spare[word] | words[word][lane] & spare[word]
                            });
                            (3, high(joined, quad >= 4))
                        }
                        3 => (quad % 4, high(words[quad % 4][lane], quad >= 4)),
                        _ => (0, high(words[quad % 4][lane], quad >= 4)),
                    };
                    assert_eq!(patterns[table][nibble], code, "{width:?} {column}");
                }
            }
        }
        check::<2>(CodeWidth::Int2);
        check::<3>(CodeWidth::Int3);
        check::<4>(CodeWidth::Int4);
    }
}
