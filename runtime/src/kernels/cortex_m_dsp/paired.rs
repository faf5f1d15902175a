//! 2, 3 and 4 bits: a byte of the packed codes holds codes of one lane and several quads, and indexes tables of 256 pairs of levels.
//!
//! | bits | tables | a byte of word `w` |
//! |---|---|---|
//! | 4 | one | quads `2 w` and `2 w + 1` |
//! | 3 | four | likewise by the table of the word; the spare bits of three words, joined, are quads 6 and 7 by the fourth |
//! | 2 | two | quads `4 w` and `4 w + 1` by the first, `4 w + 2` and `4 w + 3` by the second |
//!
//! So two weights take a load of a byte, a load of two levels and SMLAD. Made once a product, a table takes a KiB of stack and some 800
//! instructions.

use super::insn::smlad;
use super::prepared::Prepared;
use super::walk::{RowWords, Unit, products};
use crate::kernels::Products;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES, int3};
use rescomp_formats::matrix::{MatrixView, Scaling};

pub(super) const INT2: Products = products!("int2", Int2, 2);
pub(super) const INT3: Products = products!("int3", Int3, 3);
pub(super) const INT4: Products = products!("int4", Int4, 4);

/// Pairs of levels by byte, as signed numbers of 16 bits, that of the first quad in the low half.
type Table = [u32; 256];

/// The table of the codes that a byte holds.
fn table(matrix: &MatrixView<'_>, codes: fn(u8) -> [u8; 2]) -> Table {
    let Scaling::Codebook(codebook) = matrix.scaling() else {
        // `check` has refused a matrix without one.
        return [0; 256];
    };
    let half = |code: u8| u32::from(i16::from(codebook.levels[usize::from(code & 15)]) as u16);
    let mut table = [0; 256];
    for (byte, pair) in (0..=255).zip(&mut table) {
        let [first, second] = codes(byte);
        *pair = half(first) | half(second) << 16;
    }
    table
}

/// Adds the products of four bytes of each row, by one table.
#[inline(always)]
fn add_word<const ROWS: usize, const TOKENS: usize>(
    table: &Table,
    word: &RowWords<ROWS>,
    activations: [&[u32; WORD_BYTES]; TOKENS],
    sums: &mut [[i32; TOKENS]; ROWS],
) {
    for lane in 0..WORD_BYTES {
        let activations = activations.map(|activations| activations[lane]);
        for (sums, word) in sums.iter_mut().zip(word) {
            let levels = table[usize::from(word[lane])];
            for (sum, activations) in sums.iter_mut().zip(activations) {
                *sum = smlad(levels, activations, *sum);
            }
        }
    }
}

struct Int4;

impl Unit<4> for Int4 {
    const WIDTH: CodeWidth = CodeWidth::Int4;
    type Tables = Table;

    fn tables(matrix: &MatrixView<'_>) -> Table {
        table(matrix, |byte| [byte & 15, byte >> 4])
    }
    #[inline(always)]
    fn prepare(codes: &[i8; UNIT_ELEMS]) -> Prepared {
        Prepared::by_quads(codes)
    }
    #[inline(always)]
    fn add<const ROWS: usize, const TOKENS: usize>(
        table: &Table,
        words: [&RowWords<ROWS>; 4],
        activations: [&Prepared; TOKENS],
        sums: &mut [[i32; TOKENS]; ROWS],
    ) {
        for (run, word) in words.into_iter().enumerate() {
            add_word(table, word, activations.map(|activations| &activations.pairs[run]), sums);
        }
    }
}

struct Int3;

impl Unit<3> for Int3 {
    const WIDTH: CodeWidth = CodeWidth::Int3;
    type Tables = [Table; 4];

    fn tables(matrix: &MatrixView<'_>) -> [Table; 4] {
        fn codes(word: usize, byte: u8) -> [u8; 2] {
            [int3::code_of_nibble(word, byte & 15), int3::code_of_nibble(word, byte >> 4)]
        }
        [
            table(matrix, |byte| codes(0, byte)),
            table(matrix, |byte| codes(1, byte)),
            table(matrix, |byte| codes(2, byte)),
            table(matrix, |byte| codes(3, byte)),
        ]
    }
    #[inline(always)]
    fn prepare(codes: &[i8; UNIT_ELEMS]) -> Prepared {
        Prepared::by_quads(codes)
    }
    #[inline(always)]
    fn add<const ROWS: usize, const TOKENS: usize>(
        tables: &[Table; 4],
        words: [&RowWords<ROWS>; 3],
        activations: [&Prepared; TOKENS],
        sums: &mut [[i32; TOKENS]; ROWS],
    ) {
        let mut joined = [[0; WORD_BYTES]; ROWS];
        for (row, joined) in joined.iter_mut().enumerate() {
            let mut bits = 0;
            for (word, spare) in words.into_iter().zip(int3::SPARE_BITS) {
                bits |= u32::from_le_bytes(word[row]) & u32::from_le_bytes([spare; WORD_BYTES]);
            }
            *joined = bits.to_le_bytes();
        }
        let [a, b, c] = words;
        for (run, (table, word)) in tables.iter().zip([a, b, c, &joined]).enumerate() {
            add_word(table, word, activations.map(|activations| &activations.pairs[run]), sums);
        }
    }
}

struct Int2;

impl Unit<2> for Int2 {
    const WIDTH: CodeWidth = CodeWidth::Int2;
    type Tables = [Table; 2];

    fn tables(matrix: &MatrixView<'_>) -> [Table; 2] {
        [
            table(matrix, |byte| [byte & 3, byte >> 2 & 3]),
            table(matrix, |byte| [byte >> 4 & 3, byte >> 6]),
        ]
    }
    #[inline(always)]
    fn prepare(codes: &[i8; UNIT_ELEMS]) -> Prepared {
        Prepared::by_quads(codes)
    }
    #[inline(always)]
    fn add<const ROWS: usize, const TOKENS: usize>(
        [low, high]: &[Table; 2],
        words: [&RowWords<ROWS>; 2],
        activations: [&Prepared; TOKENS],
        sums: &mut [[i32; TOKENS]; ROWS],
    ) {
        for (index, word) in words.into_iter().enumerate() {
            for lane in 0..WORD_BYTES {
                let first = activations.map(|activations| activations.pairs[2 * index][lane]);
                let second = activations.map(|activations| activations.pairs[2 * index + 1][lane]);
                for (sums, word) in sums.iter_mut().zip(word) {
                    let byte = usize::from(word[lane]);
                    let (low, high) = (low[byte], high[byte]);
                    for (token, sum) in sums.iter_mut().enumerate() {
                        *sum = smlad(high, second[token], smlad(low, first[token], *sum));
                    }
                }
            }
        }
    }
}
