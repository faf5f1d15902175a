//! 2, 3 and 4 bits: a byte of the packed codes holds codes of one lane and several quads, and indexes tables of 256 pairs of levels.
//!
//! | bits | tables | a byte of word `w` |
//! |---|---|---|
//! | 4 | one | quads `2 w` and `2 w + 1` |
//! | 3 | four | likewise by the table of the word; the spare bits of three words, joined, are quads 6 and 7 by the fourth |
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

/// Levels by nibble in a half of 16 bits; `code` says which code a nibble is.
fn halves(matrix: &MatrixView<'_>, code: impl Fn(u8) -> u8) -> [u32; TABLE_ENTRIES] {
    let Scaling::Codebook(codebook) = matrix.scaling() else {
        // `check` has refused a matrix without one.
        return [0; TABLE_ENTRIES];
    };
    let level = |nibble: usize| codebook.levels[usize::from(code(nibble as u8) & 15)];
    core::array::from_fn(|nibble| u32::from(i16::from(level(nibble)) as u16))
}

/// The table of a byte whose nibbles are two codes.
fn table(matrix: &MatrixView<'_>, code: impl Fn(u8) -> u8) -> Table {
    let halves = halves(matrix, code);
    let mut table = [0; 256];
    for (pairs, high) in table.chunks_exact_mut(TABLE_ENTRIES).zip(halves) {
        pairs.iter_mut().zip(halves).for_each(|(pair, low)| *pair = low | high << 16);
    }
    table
}

struct Int4;

impl Unit<4> for Int4 {
    const WIDTH: CodeWidth = CodeWidth::Int4;
    type Tables = Table;

    fn tables(matrix: &MatrixView<'_>) -> Table {
        table(matrix, |nibble| nibble)
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
    type Tables = [Table; 4];

    fn tables(matrix: &MatrixView<'_>) -> [Table; 4] {
        core::array::from_fn(|word| table(matrix, |nibble| int3::code_of_nibble(word, nibble)))
    }
    fn prepare(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
        by_quads(codes, prepared);
    }
    #[inline(always)]
    fn add<const TOKENS: usize>(
        tables: &[Table; 4],
        units: &[[Word; 3]],
        block: usize,
        activations: &[Prepared; TOKENS],
        first: usize,
        sums: &mut [i32; SUMS],
    ) {
        let rows = SUMS / TOKENS * block..SUMS / TOKENS * (block + 1);
        for (unit, words) in units.iter().enumerate() {
            let mut joined = [[0; WORD_BYTES]; TILE_ROWS];
            let [a, b, c] = words.each_ref().map(|word| &word[rows.clone()]);
            for (((joined, a), b), c) in joined[rows.clone()].iter_mut().zip(a).zip(b).zip(c) {
                let spare = |word: &[u8; WORD_BYTES], bits| {
                    u32::from_le_bytes(*word) & u32::from_le_bytes([bits; WORD_BYTES])
                };
                let [first, second, third] = int3::SPARE_BITS;
                *joined = (spare(a, first) | spare(b, second) | spare(c, third)).to_le_bytes();
            }
            let [a, b, c] = words;
            for (run, (table, word)) in tables.iter().zip([a, b, c, &joined]).enumerate() {
                let run = (first + unit) * UNIT_RUNS + run;
                add_looked_up::<TOKENS>(table, core::slice::from_ref(word), block, activations, run, sums);
            }
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
