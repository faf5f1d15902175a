//! The walk over a codebook matrix (2 to 6 bits), in blocks of two activation steps:
//!
//! ```text
//! for each step: sums = fma(f32(sum over groups: multiplier * integer sum), activation scale, sums)
//! at the end:    output = sums * (row scale * unit)
//! ```
//! A backend supplies one block ([`Block`]). It finds levels and multipliers by table lookup within a register: a nibble of the
//! packed codes, or at 3 bits a code, indexes a table of sixteen bytes (see `rescomp_formats::encodings` for what a nibble holds).

use super::prepared::{Coded, Octet};
use super::{Walk, Word};
use crate::kernels::TILE_ROWS;
use crate::kernels::prefetch::{distance, prefetch};
use crate::kernels::quantized::Activations;
use crate::parts::{Part, not_built};
use core::array::from_fn;
use core::marker::PhantomData;
use rescomp_formats::encodings::stacked::{HIGH_BITS, low_level};
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::{Codebook, MatrixView, STEP_ELEMS, Scaling, TABLE_ENTRIES};

/// Units of a step.
pub(in crate::kernels) const STEP_UNITS: usize = STEP_ELEMS / UNIT_ELEMS;
/// Units of a block: two steps, so that one load of scale codes serves both groups of 64 that it names.
pub(in crate::kernels) const BLOCK_UNITS: usize = 2 * STEP_UNITS;
/// Steps of a block.
pub(in crate::kernels) const BLOCK_STEPS: usize = 2;

/// Scale codes of a block and a tile, each a byte a row: by step. Groups of 32 take the nibbles of a step's byte by unit, all others
/// the nibbles of the first byte by step.
pub(in crate::kernels) type ScaleCodes = [u64; BLOCK_STEPS];

/// One block of a product, for one backend. `WORDS` is the width: words a unit, bits a code.
///
/// The methods are `#[inline(always)]`: they become part of the backend's `#[target_feature]` function.
pub(in crate::kernels) trait Block<const WORDS: usize> {
    /// See [`Walk::MOST_TOKENS`].
    const MOST_TOKENS: usize;
    /// Levels and multipliers in registers.
    type Tables: Copy;
    /// Eight row sums in registers.
    type Sums: Copy;

    /// Loads the tables.
    fn tables(levels: &[i8; TABLE_ENTRIES], multipliers: &[u8; TABLE_ENTRIES]) -> Self::Tables;
    /// Sums of +0.
    fn zero() -> Self::Sums;
    /// `sums * (f32(row_scales) * unit)`, by row; the scales are f16 bits.
    fn rows(sums: Self::Sums, row_scales: &[u16; TILE_ROWS], unit: f32) -> [f32; TILE_ROWS];
    /// Adds the steps of a block to `sums`. `GROUP` is the columns of a group where they are 32 (each unit has a scale code) or 64, else 0;
    /// then, as at 64, each step has one.
    ///
    /// There is one call of each instance in a product of several tiles or tokens, and the compiler inlines what is called once,
    /// whatever its size: so the sums stay in registers.
    fn add<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
        tables: Self::Tables,
        weights: [&[[Word; WORDS]]; TILES],
        scale_codes: [ScaleCodes; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [&[f32]; TOKENS],
        sums: &mut [[Self::Sums; TOKENS]; TILES],
    );
    /// Adds the 1 to 3 units after the last block to `sums`.
    fn add_rest<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
        tables: Self::Tables,
        weights: [&[[Word; WORDS]]; TILES],
        scale_codes: [ScaleCodes; TILES],
        activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
        activation_scales: [&[f32]; TOKENS],
        sums: &mut [[Self::Sums; TOKENS]; TILES],
    );
}

/// The width of this many words a unit.
pub(in crate::kernels) const fn width<const WORDS: usize>() -> CodeWidth {
    match WORDS {
        2 => CodeWidth::Int2,
        3 => CodeWidth::Int3,
        4 => CodeWidth::Int4,
        5 => CodeWidth::Int5,
        _ => CodeWidth::Int6,
    }
}

/// Tables for nibbles that a width needs at most.
pub(in crate::kernels) const TABLES: usize = 5;

/// What a table for nibbles has.
#[derive(Clone, Copy)]
pub(in crate::kernels) enum NibbleTable {
    /// These entries of the matrix's table of levels.
    Levels([u8; TABLE_ENTRIES]),
    /// The parts of low bits, which are the same in every matrix.
    Low([i8; TABLE_ENTRIES]),
}

/// The tables that a width needs:
///
/// | bits | tables |
/// |---|---|
/// | 6 | 0: the levels; 1: the part of the low code of a nibble of low bits; 2: that of the high one |
/// | 5 | 0: the levels; 1 to 4: the parts of each bit of a nibble of low bits |
/// | 4 | 0: the levels |
/// | 3 | 0: the levels, twice; 1 and 2, one behind the other: the same four times each, for four times a code |
/// | 2 | 0: the low code of a nibble; 1: the high one |
pub(in crate::kernels) const fn nibble_tables<const WORDS: usize>() -> [NibbleTable; TABLES] {
    let low_bits = width::<WORDS>().low_bits();
    let mut tables = [NibbleTable::Levels([0; TABLE_ENTRIES]); TABLES];
    let mut table = 0;
    while table < TABLES {
        let (mut pattern, mut low) = ([0; TABLE_ENTRIES], [0; TABLE_ENTRIES]);
        let mut nibble = 0;
        while nibble < TABLE_ENTRIES as u8 {
            pattern[nibble as usize] = match WORDS {
                2 => nibble >> (2 * (table % 2)) & 3,
                3 if table == 1 => nibble >> 2,
                3 if table == 2 => 4 + (nibble >> 2),
                3 => nibble & 7,
                _ => nibble,
            };
            if table > 0 {
                low[nibble as usize] = low_level(low_bits, nibble >> (low_bits * (table - 1)));
            }
            nibble += 1;
        }
        tables[table] =
            if table > 0 && low_bits > 0 { NibbleTable::Low(low) } else { NibbleTable::Levels(pattern) };
        table += 1;
    }
    tables
}

/// Whether a level is a sum of two parts.
pub(in crate::kernels) const fn is_stacked<const WORDS: usize>() -> bool {
    width::<WORDS>().low_bits() > 0
}

/// Where the low bits of two quads are, at a stacked width.
pub(in crate::kernels) struct LowPart {
    /// The word.
    pub(in crate::kernels) word: usize,
    /// Which nibbles of it: the low ones (0) or the high ones (1).
    pub(in crate::kernels) nibble: usize,
    /// The tables for them, by quad.
    pub(in crate::kernels) tables: [usize; 2],
}

/// Where the low bits of quads `2 * pair` and `2 * pair + 1` are.
pub(in crate::kernels) const fn low_part<const WORDS: usize>(pair: usize) -> LowPart {
    match WORDS {
        5 => LowPart { word: HIGH_BITS, nibble: pair / 2, tables: [1 + 2 * (pair % 2), 2 + 2 * (pair % 2)] },
        _ => LowPart { word: HIGH_BITS + pair / 2, nibble: pair % 2, tables: [1, 2] },
    }
}

/// The walk of a backend's block.
pub(in crate::kernels) struct Blocks<B, const WORDS: usize>(PhantomData<B>);

impl<B: Block<WORDS>, const WORDS: usize> Walk for Blocks<B, WORDS> {
    const WIDTH: CodeWidth = width::<WORDS>();
    const MOST_TOKENS: usize = B::MOST_TOKENS;
    type Prepared<'a> = Coded<'a, B::Tables, WORDS>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        let (levels, multipliers) = lookup_tables(matrix);
        Coded::new(B::tables(levels, multipliers), matrix, activations)
    }

    #[inline(always)]
    fn outputs<const TILES: usize, const TOKENS: usize>(
        matrix: &Self::Prepared<'_>,
        tile: usize,
        token: usize,
    ) -> [[[f32; TILE_ROWS]; TOKENS]; TILES] {
        let sums = match matrix.group {
            32 if cfg!(feature = "groups-32") => walk::<B, WORDS, TILES, TOKENS, 32>(matrix, tile, token),
            64 if cfg!(feature = "groups-64") => walk::<B, WORDS, TILES, TOKENS, 64>(matrix, tile, token),
            _ if cfg!(feature = "other-groups") => walk::<B, WORDS, TILES, TOKENS, 0>(matrix, tile, token),
            _ => not_built(Part::OtherGroups),
        };
        let (row_scales, unit) = (matrix.row_scales, matrix.row_scale_unit());
        from_fn(|index| from_fn(|token| B::rows(sums[index][token], &row_scales[tile + index], unit)))
    }
}

/// The levels and the multipliers. Without scale codes every multiplier is 1, and the scale codes of the walk are 0.
#[inline(always)]
pub(in crate::kernels) fn lookup_tables<'a>(
    matrix: &MatrixView<'a>,
) -> (&'a [i8; TABLE_ENTRIES], &'a [u8; TABLE_ENTRIES]) {
    let codebook = codebook(matrix);
    let ones = &[1; TABLE_ENTRIES];
    (codebook.levels, if matrix.shape().has_scale_codes() { codebook.multipliers } else { ones })
}

/// The codebook; an empty one where the matrix has none, which `check` has refused.
#[inline(always)]
pub(in crate::kernels) fn codebook<'a>(matrix: &MatrixView<'a>) -> Codebook<'a> {
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
fn walk<B: Block<WORDS>, const WORDS: usize, const TILES: usize, const TOKENS: usize, const GROUP: usize>(
    matrix: &Coded<'_, B::Tables, WORDS>,
    tile: usize,
    token: usize,
) -> [[B::Sums; TOKENS]; TILES] {
    let (tables, units) = (matrix.tables, matrix.tokens.units);
    let words: [(&[[[Word; WORDS]; BLOCK_UNITS]], _); TILES] =
        from_fn(|index| matrix.words(tile + index).as_chunks());
    let octets: [&[Octet]; TILES] = from_fn(|index| matrix.octets(tile + index));
    let codes: [(&[[[i8; UNIT_ELEMS]; BLOCK_UNITS]], _); TOKENS] =
        from_fn(|index| matrix.tokens.codes(token + index).as_chunks());
    let scales: [&[f32]; TOKENS] = from_fn(|index| matrix.tokens.scales(token + index));

    // As many as there are whole blocks, so that the loop needs no check of an index.
    let blocks = units / BLOCK_UNITS;
    let whole_words = words.map(|(words, _)| &words[..blocks]);
    let whole_codes = codes.map(|(codes, _)| &codes[..blocks]);
    let whole_scales = scales.map(|scales| &scales.as_chunks::<BLOCK_STEPS>().0[..blocks]);
    let whole_octets = octets.map(|octets| match GROUP {
        32 => &octets[..BLOCK_STEPS * blocks],
        64 => &octets[..blocks],
        _ => octets,
    });
    let mut sums = [[B::zero(); TOKENS]; TILES];
    let ahead = distance(TILES * units * size_of::<[Word; WORDS]>());
    for block in 0..blocks {
        if TOKENS == 1 {
            // The same block of later tiles.
            for words in whole_words {
                prefetch(&words[block], ahead);
            }
        }
        B::add::<TILES, TOKENS, GROUP>(
            tables,
            from_fn(|index| whole_words[index][block].as_slice()),
            from_fn(|index| scale_codes::<GROUP>(whole_octets[index], block)),
            from_fn(|index| whole_codes[index][block].as_slice()),
            from_fn(|index| whole_scales[index][block].as_slice()),
            &mut sums,
        );
    }
    if blocks * BLOCK_UNITS < units {
        // A copy, since the call below needs sums in memory: those of the loop above stay in registers.
        let mut with_rest = sums;
        B::add_rest::<TILES, TOKENS, GROUP>(
            tables,
            words.map(|(_, rest)| rest),
            from_fn(|index| scale_codes::<GROUP>(octets[index], blocks)),
            codes.map(|(_, rest)| rest),
            scales.map(|scales| &scales[blocks * BLOCK_STEPS..]),
            &mut with_rest,
        );
        sums = with_rest;
    }
    sums
}

/// The scale codes of a block.
#[inline(always)]
pub(in crate::kernels) fn scale_codes<const GROUP: usize>(octets: &[Octet], block: usize) -> ScaleCodes {
    let octet = |index: usize| octets.get(index).map_or(0, |octet| u64::from_le_bytes(*octet));
    match GROUP {
        32 => [octet(2 * block), octet(2 * block + 1)],
        64 => [octet(block), 0],
        _ => {
            // A block is one group of 128, or there are no scale codes: one code stands for both steps.
            let code = octet(block / 2) >> (4 * (block % 2)) & 0x0f0f_0f0f_0f0f_0f0f;
            [code | code << 4, 0]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_formats::encodings::int3;

    /// The tables find the level of every code of every unit where `decode_unit` finds the code.
    #[test]
    fn nibbles_find_the_levels() {
        let levels: [i8; TABLE_ENTRIES] = core::array::from_fn(|index| 7 * index as i8 - 50);
        fn nibble(byte: u8, high: usize) -> usize {
            usize::from(byte >> (4 * high) & 15)
        }
        fn check<const WORDS: usize>(levels: &[i8; TABLE_ENTRIES]) {
            let width = width::<WORDS>();
            assert_eq!(width.bits(), WORDS);
            let tables = nibble_tables::<WORDS>();
            let lookup = |table: usize, nibble: usize| match tables[table] {
                NibbleTable::Levels(pattern) => levels[usize::from(pattern[nibble])],
                NibbleTable::Low(low) => low[nibble],
            };
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
                    let (table, high) = match WORDS {
                        2 => (quad % 2, nibble(words[quad / 4][lane], quad % 4 / 2)),
                        3 => {
                            let byte = match quad / 2 {
                                3 => int3::fourth_byte([0, 1, 2].map(|word| words[word][lane])),
                                word => words[word][lane],
                            };
                            let code = usize::from(int3::codes_of_byte(byte)[quad % 2]);
                            // Any bit beside a code, and any two behind it.
                            let level = lookup(0, code);
                            assert_eq!(lookup(0, code + 8), level);
                            for wide in 4 * code..4 * code + 4 {
                                assert_eq!(lookup(1 + wide / TABLE_ENTRIES, wide % TABLE_ENTRIES), level);
                            }
                            (0, code)
                        }
                        _ => (0, nibble(words[quad / 2][lane], quad % 2)),
                    };
                    let mut level = lookup(table, high);
                    if is_stacked::<WORDS>() {
                        let low = low_part::<WORDS>(quad / 2);
                        level += lookup(low.tables[quad % 2], nibble(words[low.word][lane], low.nibble));
                    }
                    let low_bits = width.low_bits();
                    let expected = levels[usize::from(code >> low_bits)] + low_level(low_bits, code);
                    assert_eq!(level, expected, "{width:?} {column}");
                }
            }
        }
        check::<2>(&levels);
        check::<3>(&levels);
        check::<4>(&levels);
        check::<5>(&levels);
        check::<6>(&levels);
    }
}
