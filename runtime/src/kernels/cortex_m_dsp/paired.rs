//! 2, 3 and 4 bits: a byte of the packed codes holds codes of one lane and several quads, and indexes tables of 256 pairs of levels.
//!
//! | bits | tables | a byte of word `w` |
//! |---|---|---|
//! | 4 | one | quads `2 w` and `2 w + 1` |
//! | 3 | one | likewise; the spare bits of three words are a fourth one |
//! | 2 | one of two pairs | quads `4 w` to `4 w + 3` |
//!
//! So two weights take a load of a byte, a load of two levels and SMLAD. Made once a product, a table takes a KiB of stack, two at 2 bits.

use super::prepared::{Prepared, UNIT_RUNS, by_quads};
use super::units::{Table, WideTable, add_looked_up, add_looked_up_twice};
use super::walk::{SUMS, Unit, Word, products};
use crate::kernels::{Products, TILE_ROWS};
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES, int3};
use rescomp_formats::matrix::{MatrixView, Scaling, TABLE_ENTRIES};

pub(super) const INT2: Products = products!("int2", Int2, 2, false);
pub(super) const INT3: Products = products!("int3", Int3, 3, true);
pub(super) const INT4: Products = products!("int4", Int4, 4, true);

/// Levels in a half of 16 bits by what a nibble is; `code` says which code that is.
fn halves(matrix: &MatrixView<'_>, code: impl Fn(u8) -> u8) -> [u32; TABLE_ENTRIES] {
    let Scaling::Codebook(codebook) = matrix.scaling() else {
        // `check` has refused a matrix without one.
        return [0; TABLE_ENTRIES];
    };
    let level = |nibble: usize| codebook.levels[usize::from(code(nibble as u8) & 15)];
    core::array::from_fn(|nibble| u32::from(i16::from(level(nibble)) as u16))
}

/// The table of a byte that holds two codes, as `codes` says.
fn table(matrix: &MatrixView<'_>, codes: impl Fn(u8) -> [u8; 2]) -> Table {
    let halves = halves(matrix, |code| code);
    core::array::from_fn(|byte| {
        let [low, high] = codes(byte as u8).map(|code| halves[usize::from(code & 15)]);
        low | high << 16
    })
}

struct Int4;

impl Unit<4> for Int4 {
    const WIDTH: CodeWidth = CodeWidth::Int4;
    type Tables = Table;

    fn tables(matrix: &MatrixView<'_>) -> Table {
        table(matrix, |byte| [byte & 15, byte >> 4])
    }
    fn prepare(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
        by_quads(codes, prepared);
    }
    #[inline(always)]
    fn add<const TOKENS: usize>(
        table: &Table,
        units: &[[Word; 4]],
        block: usize,
        activations: &[Prepared; TOKENS],
        first: usize,
        sums: &mut [i32; SUMS],
    ) {
        add_looked_up::<TOKENS>(table, units.as_flattened(), block, activations, first * UNIT_RUNS, sums);
    }
}

struct Int3;

impl Unit<3> for Int3 {
    const WIDTH: CodeWidth = CodeWidth::Int3;
    type Tables = Table;

    fn tables(matrix: &MatrixView<'_>) -> Table {
        table(matrix, int3::codes_of_byte)
    }
    fn prepare(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
        by_quads(codes, prepared);
    }
    #[inline(always)]
    fn add<const TOKENS: usize>(
        table: &Table,
        units: &[[Word; 3]],
        block: usize,
        activations: &[Prepared; TOKENS],
        first: usize,
        sums: &mut [i32; SUMS],
    ) {
        let rows = SUMS / TOKENS * block..SUMS / TOKENS * (block + 1);
        for (unit, words) in units.iter().enumerate() {
            let mut fourth = [[0; WORD_BYTES]; TILE_ROWS];
            let [a, b, c] = words.each_ref().map(|word| &word[rows.clone()]);
            for (((fourth, a), b), c) in fourth[rows.clone()].iter_mut().zip(a).zip(b).zip(c) {
                let spare = |word: &[u8; WORD_BYTES]| {
                    u32::from_le_bytes(*word) & u32::from_le_bytes([int3::SPARE_BITS; WORD_BYTES])
                };
                // As `int3::fourth_byte`, four bytes at a time.
                *fourth = (spare(a) << 6 | spare(b) << 4 | spare(c) << 2).to_le_bytes();
            }
            let run = (first + unit) * UNIT_RUNS;
            add_looked_up::<TOKENS>(table, words, block, activations, run, sums);
            add_looked_up::<TOKENS>(table, &[fourth], block, activations, run + words.len(), sums);
        }
    }
}

struct Int2;

impl Unit<2> for Int2 {
    const WIDTH: CodeWidth = CodeWidth::Int2;
    type Tables = WideTable;

    fn tables(matrix: &MatrixView<'_>) -> WideTable {
        // A nibble is two codes.
        let (low, high) = (halves(matrix, |nibble| nibble & 3), halves(matrix, |nibble| nibble >> 2));
        let pair = |nibble: usize| low[nibble] | high[nibble] << 16;
        core::array::from_fn(|byte| [pair(byte & 15), pair(byte >> 4)])
    }
    fn prepare(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
        by_quads(codes, prepared);
    }
    #[inline(always)]
    fn add<const TOKENS: usize>(
        table: &WideTable,
        units: &[[Word; 2]],
        block: usize,
        activations: &[Prepared; TOKENS],
        first: usize,
        sums: &mut [i32; SUMS],
    ) {
        // A table of two pairs leaves no registers for a second token: `products!` above asks for one at a time.
        if let [activations] = activations.as_chunks::<1>().0 {
            add_looked_up_twice(table, units.as_flattened(), block, activations, first * UNIT_RUNS, sums);
        }
    }
}
