//! The walk along two tiles of a codebook matrix for one token, for NEON with and without dotprod: everything but the integer sums.
//!
//! What is read along the way moves its own pointer, in assembly: left to itself the compiler counts one index for all and adds it to each
//! pointer, nine instructions in two steps.
//!
//! A *part* of a row is what one multiplier of it stands for within a step: a unit where groups are of 32 columns, else a step.

use super::sums;
use crate::kernels::nr8k4::codebook::STEP_UNITS;
use crate::kernels::nr8k4::pairs::PairRows;
use crate::kernels::nr8k4::prepared::{Coded, Octet};
use core::arch::aarch64::*;
use core::arch::asm;
use core::mem::MaybeUninit;
use rescomp_formats::encodings::UNIT_ELEMS;

/// Rows 0 to 3 and 4 to 7 of both tiles.
pub(in crate::kernels) type Rows<T> = [T; 4];

/// The most parts that [`CodebookToken::sums`] has room for.
pub(in crate::kernels) const SUMMED_PARTS: usize = 256;

/// Where the next units of two tiles and a token are.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Cursor {
    pub(in crate::kernels) words: [*const u8; 2],
    pub(in crate::kernels) codes: *const [i8; UNIT_ELEMS],
}

impl Cursor {
    /// The activations of the next unit.
    ///
    /// # Safety
    /// There is a next unit.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in crate::kernels) unsafe fn next_activations(&mut self) -> [int8x16_t; 2] {
        let (low, high);
        // SAFETY: a unit of codes is there.
        unsafe {
            asm!(
                "ldp {low:q}, {high:q}, [{at}], #32",
                at = inout(reg) self.codes,
                low = out(vreg) low,
                high = out(vreg) high,
                options(readonly, nostack, preserves_flags),
            );
        }
        [low, high]
    }
}

/// Where what belongs to the next units of a codebook matrix is.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Beside {
    octets: [*const Octet; 2],
    scales: *const f32,
    /// See [`CodebookToken::sums`].
    pub(in crate::kernels) sums: *const int32x4_t,
}

impl Beside {
    /// The scale of the next step's activations.
    ///
    /// # Safety
    /// There is a next step.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in crate::kernels) unsafe fn next_scale(&mut self) -> f32 {
        let scale;
        // SAFETY: the scale is there.
        unsafe {
            asm!(
                "ldr {scale:s}, [{at}], #4",
                at = inout(reg) self.scales,
                scale = out(vreg) scale,
                options(readonly, nostack, preserves_flags),
            );
        }
        scale
    }

    /// What belongs to the next part of [`CodebookToken::sums`].
    ///
    /// # Safety
    /// There is a next part.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in crate::kernels) unsafe fn next_sum(&mut self) -> int32x4_t {
        let sum;
        // SAFETY: the sum is there.
        unsafe {
            asm!(
                "ldr {sum:q}, [{at}], #16",
                at = inout(reg) self.sums,
                sum = out(vreg) sum,
                options(readonly, nostack, preserves_flags),
            );
        }
        sum
    }

    /// The next scale codes of both tiles.
    ///
    /// # Safety
    /// There are next ones.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in crate::kernels) unsafe fn next_octets(&mut self) -> uint8x16_t {
        let octets;
        let [first, second] = &mut self.octets;
        // SAFETY: they are there.
        unsafe {
            asm!(
                "ldr {octets:d}, [{first}], #8",
                "ld1 {{ {octets:v}.d }}[1], [{second}], #8",
                first = inout(reg) *first,
                second = inout(reg) *second,
                octets = out(vreg) octets,
                options(readonly, nostack, preserves_flags),
            );
        }
        octets
    }

    /// The scale codes of both tiles, so many behind the next ones.
    ///
    /// # Safety
    /// They are there.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in crate::kernels) unsafe fn octets(&self, index: usize) -> uint8x16_t {
        let [first, second] = self.octets.map(|octet| octet.wrapping_add(index));
        // SAFETY: eight readable bytes.
        let low = unsafe { vld1_u8(first.cast()) };
        let both = vreinterpretq_u64_u8(vcombine_u8(low, low));
        // SAFETY: eight readable bytes, at any address.
        vreinterpretq_u8_u64(unsafe { vld1q_lane_u64::<1>(second.cast(), both) })
    }
}

/// What the product of a codebook matrix needs of a token.
pub(in crate::kernels) struct CodebookToken<'a, 's, T, const WORDS: usize> {
    pub(in crate::kernels) matrix: Coded<'a, T, WORDS>,
    pub(in crate::kernels) codes: &'a [[i8; UNIT_ELEMS]],
    pub(in crate::kernels) scales: &'a [f32],
    /// Where codes are multiplied in place of levels: what the sums of the codes' products lack, by part; each way to sum has its own.
    pub(in crate::kernels) sums: &'s [int32x4_t],
}

/// Memory for [`CodebookToken::sums`].
pub(in crate::kernels) type PartSums = [MaybeUninit<int32x4_t>; SUMMED_PARTS];

/// Such memory.
pub(in crate::kernels) const NO_SUMS: PartSums = [MaybeUninit::uninit(); SUMMED_PARTS];

impl<'a, 's, T: Copy, const WORDS: usize> CodebookToken<'a, 's, T, WORDS> {
    /// A token without sums.
    #[inline(always)]
    pub(in crate::kernels) fn new(matrix: Coded<'a, T, WORDS>, token: usize) -> Self {
        let (codes, scales) = (matrix.tokens.codes(token), matrix.tokens.scales(token));
        CodebookToken { matrix, codes, scales, sums: &[] }
    }

    /// The units of each part, and where its sum belongs: for as many as [`are_summed`].
    #[inline(always)]
    pub(in crate::kernels) fn parts<'x>(
        &self,
        sums: &'x mut PartSums,
    ) -> impl Iterator<Item = (&'a [[i8; UNIT_ELEMS]], &'x mut MaybeUninit<int32x4_t>)> {
        self.codes.chunks(part_units(self.matrix.group)).zip(sums)
    }

    /// With the sums of its parts.
    ///
    /// # Safety
    /// All that [`CodebookToken::parts`] gives are written.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn with_sums(self, sums: &'s PartSums) -> Self {
        let count = self.codes.len().div_ceil(part_units(self.matrix.group));
        // SAFETY: the caller has written so many.
        CodebookToken { sums: unsafe { sums[..count].assume_init_ref() }, ..self }
    }

    /// Where the walk along two tiles begins: neighbours, or one and the same.
    #[inline(always)]
    pub(in crate::kernels) fn begin(&self, tiles: [usize; 2]) -> (Cursor, Beside) {
        let Coded { pairs, words, octets, .. } = self.matrix;
        // Tiles that have row scales have words and octets: all lists are of the same tiles. The second tile is the next one or the same.
        let next = usize::from(tiles[1] != tiles[0]);
        let (units, first_unit, first_octet) =
            (self.codes.len(), tiles[0] * self.codes.len(), tiles[0] * pairs);
        let words = [0, next].map(|tile| words.as_ptr().wrapping_add(first_unit + tile * units).cast());
        let beside = Beside {
            octets: [0, next].map(|tile| octets.as_ptr().wrapping_add(first_octet + tile * pairs)),
            scales: self.scales.as_ptr(),
            sums: self.sums.as_ptr(),
        };
        (Cursor { words, codes: self.codes.as_ptr() }, beside)
    }

    /// Puts the outputs of two tiles in their place, from the sums of the rows.
    ///
    /// # Safety
    /// The matrix has the tiles.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(in crate::kernels) unsafe fn put(
        &self,
        tiles: [usize; 2],
        [a, b, c, d]: Rows<float32x4_t>,
        place: &mut PairRows,
    ) {
        // SAFETY: the caller vouches for the tiles.
        let [first, second] = tiles.map(|tile| unsafe { self.matrix.row_scales.get_unchecked(tile) });
        let unit = self.matrix.row_scale_unit();
        let [a, b] = sums::scaled([a, b], first, unit);
        let [c, d] = sums::scaled([c, d], second, unit);
        sums::put([a, b, c, d], place);
    }
}

/// Units of a part.
pub(in crate::kernels) const fn part_units(group: usize) -> usize {
    if group == UNIT_ELEMS { 1 } else { STEP_UNITS }
}

/// Whether [`CodebookToken::sums`] has room for the parts of so many units.
pub(in crate::kernels) const fn are_summed(units: usize, group: usize) -> bool {
    units.div_ceil(part_units(group)) <= SUMMED_PARTS
}

/// A way to the integer sums of parts.
///
/// The methods are `#[inline(always)]`: they become part of the walk, whose processor features they need.
pub(in crate::kernels) trait Parts: Copy {
    /// Whether the walk goes step by step instead of two steps at a time: less code, a few instructions more.
    const STEP_BY_STEP: bool;
    /// Whether a step of such a walk waits for its end until the products of the next one are on their way, which hide how long that takes:
    /// where registers are left for it, and no other operations wait for its place.
    const ENDS_LATE: bool = false;
    /// The sums of a part.
    type Integers;
    /// Such sums times multipliers.
    type Totals;

    /// Sums of zero.
    fn zero(&self) -> Self::Integers;

    /// The sums of the next `UNITS` units (1 or 2).
    ///
    /// # Safety
    /// The units are there.
    unsafe fn next<const UNITS: usize>(&self, at: &mut Cursor, beside: &mut Beside) -> Self::Integers;

    /// The sums times the multipliers that `nibbles` name, a row each.
    fn multiply(&self, nibbles: uint8x16_t, integers: Self::Integers) -> Self::Totals;

    /// `sums = fma(f32(integers * multipliers + totals), scale, sums)`.
    fn end_step(
        &self,
        nibbles: uint8x16_t,
        integers: Self::Integers,
        totals: Option<Self::Totals>,
        scale: f32,
        sums: &mut Rows<float32x4_t>,
    );
}

/// Makes `walk(parts, token, tiles, rows)`, which puts the outputs of `tiles` in `rows`, for processors with `$features`.
///
/// A macro, because the instructions of a backend become part only of functions that have its features.
macro_rules! pair_walk {
    ($features:literal) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn walk<P: Parts, T: Copy, const WORDS: usize>(
            parts: P,
            token: &CodebookToken<'_, '_, T, WORDS>,
            tiles: Range<usize>,
            rows: &mut [f32],
        ) {
            match token.matrix.group {
                32 if cfg!(feature = "groups-32") => {
                    walk_groups::<P, T, WORDS, 32>(parts, token, tiles, rows)
                }
                64 if cfg!(feature = "groups-64") => {
                    walk_groups::<P, T, WORDS, 64>(parts, token, tiles, rows)
                }
                _ if cfg!(feature = "other-groups") => {
                    walk_groups::<P, T, WORDS, 0>(parts, token, tiles, rows)
                }
                _ => $crate::parts::not_built($crate::parts::Part::OtherGroups),
            }
        }

        /// `GROUP` is the columns of a group where they are 32 or 64, else 0.
        #[inline]
        #[target_feature(enable = $features)]
        fn walk_groups<P: Parts, T: Copy, const WORDS: usize, const GROUP: usize>(
            parts: P,
            token: &CodebookToken<'_, '_, T, WORDS>,
            tiles: Range<usize>,
            rows: &mut [f32],
        ) {
            let mut pairs = $crate::kernels::nr8k4::pairs::PairsOfTiles::new(tiles, rows);
            for _ in 0..pairs.count() {
                let (tiles, place) = pairs.next_pair();
                let sums = sums_of_rows::<P, T, WORDS, GROUP>(parts, token, tiles);
                // SAFETY: the matrix has the tiles, which `quantized::check` has seen to.
                unsafe { token.put(tiles, sums, place) };
            }
            pairs.finish();
        }

        /// The sums of the rows of two tiles.
        #[inline]
        #[target_feature(enable = $features)]
        fn sums_of_rows<P: Parts, T: Copy, const WORDS: usize, const GROUP: usize>(
            parts: P,
            token: &CodebookToken<'_, '_, T, WORDS>,
            tiles: [usize; 2],
        ) -> Rows<float32x4_t> {
            let (pairs, units) = (token.matrix.pairs, token.codes.len());
            let (mut at, mut beside) = token.begin(tiles);
            let mut row_sums = [vdupq_n_f32(0.0); 4];
            // All calls together take as many units as there are.
            macro_rules! step {
                ($units:literal, $nibbles:expr) => {
                    // SAFETY: a step is left.
                    let scale = unsafe { beside.next_scale() };
                    if GROUP == 32 && $units == 2 {
                        // SAFETY: a unit is left.
                        let first = unsafe { parts.next::<1>(&mut at, &mut beside) };
                        let totals = parts.multiply($nibbles[0], first);
                        // SAFETY: a unit is left.
                        let second = unsafe { parts.next::<1>(&mut at, &mut beside) };
                        parts.end_step($nibbles[1], second, Some(totals), scale, &mut row_sums);
                    } else {
                        // SAFETY: so many units are left.
                        let integers = unsafe { parts.next::<$units>(&mut at, &mut beside) };
                        parts.end_step($nibbles[0], integers, None, scale, &mut row_sums);
                    }
                };
            }
            if P::STEP_BY_STEP {
                // The nibbles of the scale codes: those of a step by unit where they differ, at groups of 32. Two steps are one group of 128,
                // or there are no scale codes.
                macro_rules! nibbles {
                    ($step:expr) => {{
                        let (octet, place) = match GROUP {
                            32 => ($step, 0),
                            64 => ($step / 2, $step % 2),
                            _ => ($step / 4, $step / 2 % 2),
                        };
                        if GROUP > 0 || pairs > 0 {
                            // SAFETY: scale codes of a step that is left.
                            let octets = unsafe { beside.octets(octet) };
                            let shifted = vshlq_u8(octets, vdupq_n_s8(-4 * place as i8));
                            [lookup::low_nibbles(shifted), lookup::high_nibbles(octets)]
                        } else {
                            [vdupq_n_u8(0); 2]
                        }
                    }};
                }
                // None waits at first: sums of zero, times a scale of zero.
                let mut waiting = (parts.zero(), vdupq_n_u8(0), 0.0);
                macro_rules! next_step {
                    ($units:literal, $step:expr) => {
                        let nibbles = nibbles!($step);
                        if GROUP == 32 || !P::ENDS_LATE {
                            step!($units, nibbles);
                        } else {
                            // SAFETY: so many units are left, and their scale.
                            let (integers, scale) =
                                unsafe { (parts.next::<$units>(&mut at, &mut beside), beside.next_scale()) };
                            let (integers_before, nibbles_before, scale_before) = waiting;
                            parts.end_step(
                                nibbles_before,
                                integers_before,
                                None,
                                scale_before,
                                &mut row_sums,
                            );
                            waiting = (integers, nibbles[0], scale);
                        }
                    };
                }
                for step in 0..units / STEP_UNITS {
                    next_step!(2, step);
                }
                if units % STEP_UNITS > 0 {
                    next_step!(1, units / STEP_UNITS);
                }
                if GROUP != 32 && P::ENDS_LATE {
                    let (integers, nibbles, scale) = waiting;
                    parts.end_step(nibbles, integers, None, scale, &mut row_sums);
                }
                return row_sums;
            }
            // The scale codes of a step by unit, which differ at groups of 32: an octet has those of a step there, of two at 64, of four
            // at 128.
            let mut octets = vdupq_n_u8(0);
            macro_rules! nibbles {
                ($step:expr) => {{
                    let begins = match GROUP {
                        32 => true,
                        64 => $step % 2 == 0,
                        _ => pairs > 0 && $step % 4 == 0,
                    };
                    if begins {
                        // SAFETY: scale codes of a step that is left.
                        octets = unsafe { beside.next_octets() };
                    }
                    match GROUP {
                        32 => lookup::nibbles(octets),
                        64 if $step % 2 == 0 => [lookup::low_nibbles(octets); 2],
                        64 => [lookup::high_nibbles(octets); 2],
                        // Two steps are one group of 128, or there are no scale codes.
                        _ if $step % 4 < 2 => [lookup::low_nibbles(octets); 2],
                        _ => [lookup::high_nibbles(octets); 2],
                    }
                }};
            }
            for block in 0..units / BLOCK_UNITS {
                let nibbles = nibbles!(2 * block);
                step!(2, nibbles);
                let nibbles = nibbles!(2 * block + 1);
                step!(2, nibbles);
            }
            let (rest, step) = (units % BLOCK_UNITS, units / BLOCK_UNITS * 2);
            if rest > 0 {
                let mut nibbles = nibbles!(step);
                if rest >= STEP_UNITS {
                    step!(2, nibbles);
                }
                if rest % STEP_UNITS > 0 {
                    if rest > STEP_UNITS {
                        nibbles = nibbles!(step + 1);
                    }
                    step!(1, nibbles);
                }
            }
            row_sums
        }
    };
}
pub(in crate::kernels) use pair_walk;
