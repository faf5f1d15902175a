//! Activations of a unit, widened to 16 bits and paired as the codes are unpacked.

use super::insn::{sxtb16, sxtb16_odd};
use rescomp_formats::encodings::{UNIT_ELEMS, WORD_BYTES};

/// Pairs of a unit.
const PAIRS: usize = UNIT_ELEMS / 2;

/// Activations of a unit in pairs, the first in the low half.
#[derive(Clone, Copy)]
pub(super) struct Prepared {
    /// The pairs, four for each eight columns.
    pub(super) pairs: [[u32; WORD_BYTES]; PAIRS / WORD_BYTES],
    /// The sum of all; 0 in [`Prepared::by_quads`], which nobody asks for it.
    pub(super) sum: i32,
}

impl Prepared {
    /// None.
    pub(super) const NONE: Prepared = Prepared { pairs: [[0; WORD_BYTES]; PAIRS / WORD_BYTES], sum: 0 };

    /// Of columns 8 w to 8 w + 7, pair `lane` of run `w` has columns `8 w + lane` and `8 w + 4 + lane`: the lane of two quads.
    #[inline(always)]
    pub(super) fn by_quads(codes: &[i8; UNIT_ELEMS]) -> Prepared {
        let mut prepared = Prepared::NONE;
        for (pairs, [first, second]) in prepared.pairs.iter_mut().zip(words(codes).as_chunks().0) {
            let (even, odd) = ([sxtb16(*first), sxtb16(*second)], [sxtb16_odd(*first), sxtb16_odd(*second)]);
            let low = |[first, second]: [u32; 2]| first & 0xffff | second << 16;
            let high = |[first, second]: [u32; 2]| first >> 16 | second & 0xffff_0000;
            *pairs = [low(even), low(odd), high(even), high(odd)];
        }
        prepared
    }

    /// Of columns 8 w to 8 w + 7, run `w` has the pairs (0, 2), (1, 3), (4, 6), (5, 7): lanes of one quad.
    #[inline(always)]
    pub(super) fn by_lanes(codes: &[i8; UNIT_ELEMS]) -> Prepared {
        let mut prepared = Prepared::NONE;
        for (pairs, [first, second]) in prepared.pairs.iter_mut().zip(words(codes).as_chunks().0) {
            *pairs = [sxtb16(*first), sxtb16_odd(*first), sxtb16(*second), sxtb16_odd(*second)];
        }
        prepared.sum = codes.iter().map(|&code| i32::from(code)).sum();
        prepared
    }
}

/// Four codes a word.
#[inline(always)]
fn words(codes: &[i8; UNIT_ELEMS]) -> [u32; UNIT_ELEMS / WORD_BYTES] {
    let mut words = [0; UNIT_ELEMS / WORD_BYTES];
    for (word, codes) in words.iter_mut().zip(codes.as_chunks().0) {
        *word = u32::from_le_bytes(codes.map(|code: i8| code as u8));
    }
    words
}
