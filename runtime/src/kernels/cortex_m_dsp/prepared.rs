//! Activations of a step, widened to 16 bits and paired as the codes are unpacked.

use super::insn::{sxtb16, sxtb16_odd};
use super::walk::STEP_UNITS;
use rescomp_formats::encodings::{UNIT_ELEMS, WORD_BYTES};

/// Pairs of eight columns, the first of each in the low half.
pub(super) type Run = [u32; WORD_BYTES];
/// Runs of a unit.
pub(super) const UNIT_RUNS: usize = UNIT_ELEMS / 8;

/// Activations of a step. What assembly reads is at its beginning.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Prepared {
    /// The pairs.
    pub(super) runs: [Run; STEP_UNITS * UNIT_RUNS],
    /// The sum of each unit; 0 in [`by_quads`], which nobody asks for it.
    pub(super) sums: [i32; STEP_UNITS],
}

impl Prepared {
    /// None.
    pub(super) const NONE: Prepared =
        Prepared { runs: [[0; WORD_BYTES]; STEP_UNITS * UNIT_RUNS], sums: [0; STEP_UNITS] };
}

/// Of columns 8 w to 8 w + 7, pair `lane` of run `w` has columns `8 w + lane` and `8 w + 4 + lane`: the lane of two quads.
pub(super) fn by_quads(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
    for (run, codes) in prepared.runs.iter_mut().zip(codes.as_flattened().as_chunks().0) {
        let [first, second] = words(codes);
        let (even, odd) = ([sxtb16(first), sxtb16(second)], [sxtb16_odd(first), sxtb16_odd(second)]);
        let low = |[first, second]: [u32; 2]| first & 0xffff | second << 16;
        let high = |[first, second]: [u32; 2]| first >> 16 | second & 0xffff_0000;
        *run = [low(even), low(odd), high(even), high(odd)];
    }
}

/// Of columns 8 w to 8 w + 7, run `w` has the pairs (0, 2), (1, 3), (4, 6), (5, 7): lanes of one quad.
pub(super) fn by_lanes(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
    for (run, codes) in prepared.runs.iter_mut().zip(codes.as_flattened().as_chunks().0) {
        let [first, second] = words(codes);
        *run = [sxtb16(first), sxtb16_odd(first), sxtb16(second), sxtb16_odd(second)];
    }
    for (sum, codes) in prepared.sums.iter_mut().zip(codes) {
        *sum = codes.iter().map(|&code| i32::from(code)).sum();
    }
}

/// Four codes a word.
fn words(codes: &[i8; 8]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = codes.map(|code| code as u8);
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
