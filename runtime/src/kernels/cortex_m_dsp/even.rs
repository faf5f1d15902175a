//! 5 and 6 bits: levels are `2 code - bound`, so codes are multiplied in their place, and the bound is taken off with the sum of the activations.
//!
//! A word has four lanes of a quad in bytes: AND with a shift isolates the codes of lanes 0 and 2, or 1 and 3, where SMLAD wants them; an
//! addition joins the high four bits and the low ones.
//!
//! A unit's sum is at most 32 * 63 * 127 in magnitude, a step's with multipliers as docs/numerics.md says.

use super::insn::smlad;
use super::prepared::Prepared;
use super::walk::{RowWords, Unit, products};
use crate::kernels::Products;
use rescomp_formats::encodings::stacked::HIGH_BITS;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::MatrixView;

pub(super) const INT5: Products = products!("int5", Int5, 5);
pub(super) const INT6: Products = products!("int6", Int6, 6);

/// Quads of a unit.
const QUADS: usize = UNIT_ELEMS / WORD_BYTES;

/// Adds a unit of `WORDS` words, `LOW` bits of a code being low ones.
#[inline(always)]
fn add<const WORDS: usize, const LOW: usize, const ROWS: usize, const TOKENS: usize>(
    words: [&RowWords<ROWS>; WORDS],
    activations: [&Prepared; TOKENS],
    sums: &mut [[i32; TOKENS]; ROWS],
) {
    // The numbers of `bits` bits that begin at bit `shift` of bytes 0 and 2, or 1 and 3.
    let isolated = |word: u32, shift: usize, bits: usize| word >> shift & (((1 << bits) - 1) * 0x0001_0001);
    let bound = (1 << (HIGH_BITS + LOW)) - 1;
    for (row, sums) in sums.iter_mut().enumerate() {
        let mut products = [0; TOKENS];
        for quad in 0..QUADS {
            // A byte of low bits has those of 8 / LOW quads.
            let high = u32::from_le_bytes(words[quad / 2][row]);
            let low = u32::from_le_bytes(words[HIGH_BITS + quad * LOW / 8][row]);
            for odd in 0..2 {
                let high = isolated(high, 4 * (quad % 2) + 8 * odd, HIGH_BITS);
                let low = isolated(low, quad * LOW % 8 + 8 * odd, LOW);
                let codes = low + (high << LOW);
                for (sum, activations) in products.iter_mut().zip(activations) {
                    *sum = smlad(codes, activations.pairs[quad / 2][quad % 2 * 2 + odd], *sum);
                }
            }
        }
        for ((sum, products), activations) in sums.iter_mut().zip(products).zip(activations) {
            *sum += 2 * products - bound * activations.sum;
        }
    }
}

/// A unit of one stacked width: its type, the width, words and low bits.
macro_rules! stacked {
    ($unit:ident, $words:literal, $low:literal) => {
        struct $unit;

        impl Unit<$words> for $unit {
            const WIDTH: CodeWidth = CodeWidth::$unit;
            type Tables = ();

            fn tables(_: &MatrixView<'_>) {}
            #[inline(always)]
            fn prepare(codes: &[i8; UNIT_ELEMS]) -> Prepared {
                Prepared::by_lanes(codes)
            }
            #[inline(always)]
            fn add<const ROWS: usize, const TOKENS: usize>(
                (): &(),
                words: [&RowWords<ROWS>; $words],
                activations: [&Prepared; TOKENS],
                sums: &mut [[i32; TOKENS]; ROWS],
            ) {
                add::<$words, $low, ROWS, TOKENS>(words, activations, sums);
            }
        }
    };
}

stacked!(Int5, 5, 1);
stacked!(Int6, 6, 2);
