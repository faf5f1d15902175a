//! 5 and 6 bits: levels are `2 code - bound`, so codes are multiplied in their place, and the bound is taken off with the sum of the activations.
//!
//! A word has four lanes of a quad in bytes: AND with a shift isolates the codes of lanes 0 and 2, or 1 and 3, where SMLAD wants them; an
//! addition joins the high four bits and the low ones.
//!
//! A step's sum of codes is at most 64 * 63 * 127, with multipliers as docs/numerics.md says.

use super::insn::smlad;
use super::prepared::{Prepared, UNIT_RUNS, by_lanes};
use super::walk::{SUMS, Unit, Word, products};
use crate::kernels::Products;
use rescomp_formats::encodings::stacked::HIGH_BITS;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::MatrixView;

pub(super) const INT5: Products = products!("int5", Int5, 5, false);
pub(super) const INT6: Products = products!("int6", Int6, 6, false);

/// Quads of a unit.
const QUADS: usize = UNIT_ELEMS / WORD_BYTES;

/// Adds a unit of `WORDS` words for one token, `LOW` bits of a code being low ones.
#[inline(always)]
fn add<const WORDS: usize, const LOW: usize>(
    words: &[Word; WORDS],
    block: usize,
    activations: &[[u32; WORD_BYTES]],
    sums: &mut [i32; SUMS],
) {
    // The numbers of `bits` bits that begin at bit `shift` of bytes 0 and 2, or 1 and 3.
    let isolated = |word: u32, shift: usize, bits: usize| word >> shift & (((1 << bits) - 1) * 0x0001_0001);
    let words = words.each_ref().map(|word| &word.as_chunks::<SUMS>().0[block]);
    for (row, sum) in sums.iter_mut().enumerate() {
        for quad in 0..QUADS {
            // A byte of low bits has those of 8 / LOW quads.
            let high = u32::from_le_bytes(words[quad / 2][row]);
            let low = u32::from_le_bytes(words[HIGH_BITS + quad * LOW / 8][row]);
            for odd in 0..2 {
                let high = isolated(high, 4 * (quad % 2) + 8 * odd, HIGH_BITS);
                let low = isolated(low, quad * LOW % 8 + 8 * odd, LOW);
                *sum = smlad(low + (high << LOW), activations[quad / 2][quad % 2 * 2 + odd], *sum);
            }
        }
    }
}

/// A unit of one stacked width: its type and width, words, low bits, and the bound of its levels.
macro_rules! stacked {
    ($unit:ident, $words:literal, $low:literal, $bound:literal) => {
        struct $unit;

        impl Unit<$words> for $unit {
            const WIDTH: CodeWidth = CodeWidth::$unit;
            const LINE: (i32, i32) = (2, $bound);
            type Tables = ();

            fn tables(_: &MatrixView<'_>) {}
            fn prepare(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
                by_lanes(codes, prepared);
            }
            #[inline(always)]
            fn add<const TOKENS: usize>(
                (): &(),
                units: &[[Word; $words]],
                block: usize,
                activations: &[Prepared; TOKENS],
                first: usize,
                sums: &mut [i32; SUMS],
            ) {
                // `products!` above asks for one token at a time.
                let [activations] = activations.as_chunks::<1>().0 else { return };
                let runs = activations[0].runs.as_chunks::<UNIT_RUNS>().0;
                for (words, runs) in units.iter().zip(&runs[first..]) {
                    add::<$words, $low>(words, block, runs, sums);
                }
            }
        }
    };
}

stacked!(Int5, 5, 1, 31);
stacked!(Int6, 6, 2, 63);
