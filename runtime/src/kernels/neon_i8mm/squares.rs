//! Sums of two rows and two tokens in a register, `[r0 t0, r0 t1, r1 t0, r1 t1]`: a square, as SMMLA adds to it.
//!
//! Every function here is for a processor with NEON and i8mm and is called from functions compiled for it. Of `TOKENS` tokens,
//! tokens `2 p` and `2 p + 1` make pair `p`.

use super::insn::smmla;
use core::arch::aarch64::*;
use rescomp_formats::encodings::UNIT_ELEMS;

/// The squares of a tile: of pair `p`, rows 0 and 1, and 2 and 3, are in element `2 p`, rows 4 and 5, and 6 and 7, in element
/// `2 p + 1`.
pub(super) type Squares<T, const TOKENS: usize> = [[T; 2]; TOKENS];

/// A number a row, twice: for rows 0 and 1, 2 and 3, 4 and 5, and 6 and 7 as squares have them.
pub(super) type ByRow<T> = [[T; 2]; 2];

/// Integer sums of zero.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn zero<const TOKENS: usize>() -> Squares<int32x4_t, TOKENS> {
    [[vdupq_n_s32(0); 2]; TOKENS]
}

/// Half a unit's activations by pair of tokens: quads 0 and 2 of both tokens, then quads 1 and 3. In the elements of `TOKENS` after
/// those of the pairs is nothing.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn side_by_side<const TOKENS: usize>(
    activations: [&[i8; UNIT_ELEMS]; TOKENS],
    half: usize,
) -> [[int8x16_t; 2]; TOKENS] {
    let mut pairs = [[vdupq_n_s8(0); 2]; TOKENS];
    for pair in 0..TOKENS / 2 {
        let load = |token: usize| {
            let (halves, _) = activations[token].as_chunks::<16>();
            // SAFETY: 16 readable bytes.
            vreinterpretq_s32_s8(unsafe { vld1q_s8(halves[half].as_ptr()) })
        };
        let (first, second) = (load(2 * pair), load(2 * pair + 1));
        pairs[pair] = [
            vreinterpretq_s8_s32(vuzp1q_s32(first, second)),
            vreinterpretq_s8_s32(vuzp2q_s32(first, second)),
        ];
    }
    pairs
}

/// Two quads of four rows, those of half a tile: both quads of rows 0 and 1, and of rows 2 and 3.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn rows_of(first: uint8x16_t, second: uint8x16_t) -> [uint8x16_t; 2] {
    let (first, second) = (vreinterpretq_u32_u8(first), vreinterpretq_u32_u8(second));
    [vreinterpretq_u8_u32(vzip1q_u32(first, second)), vreinterpretq_u8_u32(vzip2q_u32(first, second))]
}

/// Adds the products of half a tile over two quads: `weights` as from [`rows_of`], `activations` of each pair.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn multiply<const TOKENS: usize>(
    sums: &mut Squares<int32x4_t, TOKENS>,
    half: usize,
    weights: [int8x16_t; 2],
    activations: [[int8x16_t; 2]; TOKENS],
    quads: usize,
) {
    for pair in 0..TOKENS / 2 {
        let sums = &mut sums[2 * pair + half];
        sums[0] = smmla(sums[0], weights[0], activations[pair][quads]);
        sums[1] = smmla(sums[1], weights[1], activations[pair][quads]);
    }
}

/// The activation scales of each pair, `[t0, t1, t0, t1]`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn by_token<const TOKENS: usize>(scales: [&f32; TOKENS]) -> [float32x4_t; TOKENS] {
    let mut pairs = [vdupq_n_f32(0.0); TOKENS];
    for pair in 0..TOKENS / 2 {
        // SAFETY: a readable value each.
        let [first, second] =
            [scales[2 * pair], scales[2 * pair + 1]].map(|scale| unsafe { vld1q_dup_f32(scale) });
        pairs[pair] = vzip1q_f32(first, second);
    }
    pairs
}

/// The values by token and row.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn rows<const TOKENS: usize>(squares: Squares<float32x4_t, TOKENS>) -> [[float32x4_t; 2]; TOKENS] {
    let mut rows = [[vdupq_n_f32(0.0); 2]; TOKENS];
    for pair in 0..TOKENS / 2 {
        for half in 0..2 {
            let [a, b] = squares[2 * pair + half];
            rows[2 * pair][half] = vuzp1q_f32(a, b);
            rows[2 * pair + 1][half] = vuzp2q_f32(a, b);
        }
    }
    rows
}
