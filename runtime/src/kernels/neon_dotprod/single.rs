//! The products for one token: two tiles side by side, in units of assembly.
//!
//! At 4 bits no table of levels is looked up where levels are consecutive integers (`--levels uniform`): a sum of levels times
//! activations is then one of codes times activations, and the lowest level times the sum of the activations.
//!
//! Integer sums of a step, times their multipliers, stay below 64 * 63 * 127 * 255 < 2^31; before it is complete, a sum of codes stays below
//! 64 * (15 + 63) * 127.

use super::insn::sdot_all;
use super::loads;
use super::units;
use crate::kernels::TILE_ROWS;
use crate::kernels::neon::lookup::{self, Tables};
use crate::kernels::neon::sums;
use crate::kernels::nr8k4::codebook::{BLOCK_UNITS, STEP_UNITS, lookup_tables, width};
use crate::kernels::nr8k4::pairs::Pair;
use crate::kernels::nr8k4::prepared::{Coded, Octet, Scaled};
use crate::kernels::quantized::Activations;
use crate::parts::{Part, not_built};
use core::arch::aarch64::*;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::{MatrixView, TABLE_ENTRIES};

/// Rows 0 to 3 and 4 to 7 of both tiles.
type Rows<T> = [T; 4];

/// The most parts that [`CodebookToken::sums`] has room for.
const SUMMED_PARTS: usize = 256;

/// Where the next units of two tiles and a token are.
#[derive(Clone, Copy)]
struct Cursor {
    words: [*const u8; 2],
    codes: *const [i8; UNIT_ELEMS],
}

impl Cursor {
    /// The activations of the next unit.
    ///
    /// # Safety
    /// There is a next unit.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn next_activations(&mut self) -> [int8x16_t; 2] {
        // SAFETY: a unit of codes is there.
        let codes = unsafe { &*self.codes };
        self.codes = self.codes.wrapping_add(1);
        sums::load_activations(codes)
    }
}

/// Where what belongs to the next units of a codebook matrix is.
#[derive(Clone, Copy)]
struct Beside {
    octets: [*const Octet; 2],
    scales: *const f32,
    /// See [`CodebookToken::sums`].
    sums: *const i32,
}

impl Beside {
    /// The scale of the next step's activations.
    ///
    /// # Safety
    /// There is a next step.
    #[inline]
    unsafe fn next_scale(&mut self) -> f32 {
        // SAFETY: the scale is there.
        let scale = unsafe { *self.scales };
        self.scales = self.scales.wrapping_add(1);
        scale
    }

    /// The lowest level times the sum of the next part's codes.
    ///
    /// # Safety
    /// There is a next part.
    #[inline]
    unsafe fn next_sum(&mut self) -> i32 {
        // SAFETY: the sum is there.
        let sum = unsafe { *self.sums };
        self.sums = self.sums.wrapping_add(1);
        sum
    }

    /// The next scale codes of both tiles.
    ///
    /// # Safety
    /// There are next ones.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn next_octets(&mut self) -> uint8x16_t {
        // SAFETY: they are there.
        let octets = self.octets.map(|octet| unsafe { &*octet });
        self.octets = self.octets.map(|octet| octet.wrapping_add(1));
        loads::load_octets(octets)
    }
}

/// Tables, and how levels are found.
#[derive(Clone, Copy)]
pub(super) struct Levels {
    tables: Tables,
    /// Whether they are consecutive, and [`CodebookToken::sums`] has room.
    consecutive: bool,
}

/// What the product of a codebook matrix needs of a token.
pub(super) struct CodebookToken<'a, const WORDS: usize> {
    matrix: Coded<'a, Levels, WORDS>,
    codes: &'a [[i8; UNIT_ELEMS]],
    scales: &'a [f32],
    /// Where the levels are consecutive, the lowest one times the sum of the codes of each part: a unit where groups are of 32 columns,
    /// else a step.
    sums: [i32; SUMMED_PARTS],
}

/// The walk along a codebook matrix.
pub(super) struct Single<const WORDS: usize>;

impl<const WORDS: usize> Pair for Single<WORDS> {
    const WIDTH: CodeWidth = width::<WORDS>();
    type Prepared<'a> = Coded<'a, Levels, WORDS>;
    type Token<'a> = CodebookToken<'a, WORDS>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        let (levels, multipliers) = lookup_tables(matrix);
        // SAFETY: instantiated only in the products of this backend, which have NEON and dotprod.
        let tables = unsafe { lookup::tables::<WORDS>(levels, multipliers) };
        let mut prepared = Coded::new(Levels { tables, consecutive: false }, matrix, activations);
        let parts = prepared.tokens.units.div_ceil(part_units(prepared.group));
        prepared.tables.consecutive = WORDS == 4 && parts <= SUMMED_PARTS && are_consecutive(levels);
        prepared
    }

    #[inline(always)]
    fn token<'a>(matrix: Self::Prepared<'a>, token: usize) -> Self::Token<'a> {
        let (codes, scales) = (matrix.tokens.codes(token), matrix.tokens.scales(token));
        let mut of_token = CodebookToken { matrix, codes, scales, sums: [0; SUMMED_PARTS] };
        if WORDS == 4 && matrix.tables.consecutive {
            // SAFETY: likewise.
            unsafe { sum_parts(&mut of_token) };
        }
        of_token
    }

    #[inline(always)]
    fn outputs(token: &CodebookToken<'_, WORDS>, tiles: [usize; 2]) -> [[f32; TILE_ROWS]; 2] {
        macro_rules! walk {
            ($GROUP:literal) => {
                if WORDS == 4 && token.matrix.tables.consecutive {
                    // SAFETY: has NEON and dotprod, likewise.
                    unsafe { walk::<WORDS, $GROUP, true>(token, tiles) }
                } else {
                    // SAFETY: likewise.
                    unsafe { walk::<WORDS, $GROUP, false>(token, tiles) }
                }
            };
        }
        match token.matrix.group {
            32 if cfg!(feature = "groups-32") => walk!(32),
            64 if cfg!(feature = "groups-64") => walk!(64),
            _ if cfg!(feature = "other-groups") => walk!(0),
            _ => not_built(Part::OtherGroups),
        }
    }
}

fn are_consecutive(levels: &[i8; TABLE_ENTRIES]) -> bool {
    levels.windows(2).all(|pair| i16::from(pair[1]) - i16::from(pair[0]) == 1)
}

/// Units of a part: those that one multiplier of a row stands for, within a step.
const fn part_units(group: usize) -> usize {
    if group == UNIT_ELEMS { 1 } else { STEP_UNITS }
}

/// The lowest level times the sum of the codes of each part.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sum_parts<const WORDS: usize>(token: &mut CodebookToken<'_, WORDS>) {
    let lowest = vdupq_laneq_s8::<0>(token.matrix.tables.tables.levels[0]);
    for (sum, units) in token.sums.iter_mut().zip(token.codes.chunks(part_units(token.matrix.group))) {
        let mut lanes = vdupq_n_s32(0);
        for unit in units {
            for codes in sums::load_activations(unit) {
                lanes = sdot_all(lanes, lowest, codes);
            }
        }
        *sum = vaddvq_s32(lanes);
    }
}

/// The outputs of two tiles. `GROUP` is the columns of a group where they are 32 or 64, else 0. `CONSECUTIVE`: a level is the first one
/// plus the code.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn walk<const WORDS: usize, const GROUP: usize, const CONSECUTIVE: bool>(
    token: &CodebookToken<'_, WORDS>,
    tiles: [usize; 2],
) -> [[f32; TILE_ROWS]; 2] {
    let Coded { tables: Levels { ref tables, .. }, pairs, words, octets, .. } = token.matrix;
    let units = token.codes.len();
    let row_scales = tiles.map(|tile| &token.matrix.row_scales[tile]);
    // Tiles that have row scales have words and octets: all lists are of the same tiles.
    let words = tiles.map(|tile| words.as_ptr().wrapping_add(tile * units).cast());
    let mut at = Cursor { words, codes: token.codes.as_ptr() };
    let mut beside = Beside {
        octets: tiles.map(|tile| octets.as_ptr().wrapping_add(tile * pairs)),
        scales: token.scales.as_ptr(),
        sums: token.sums.as_ptr(),
    };

    let mut row_sums: Rows<float32x4_t> = [vdupq_n_f32(0.0); 4];
    // The integer sums of one or two units: a part. All calls together take as many as there are.
    macro_rules! products {
        ($units:literal) => {{
            // SAFETY: a part is left.
            let begin = if CONSECUTIVE { vdupq_n_s32(unsafe { beside.next_sum() }) } else { vdupq_n_s32(0) };
            let mut integers = [begin; 4];
            let mut first = [[vdupq_n_s8(0); 2]; 2];
            for unit in 0..$units {
                // SAFETY: a unit is left.
                first[unit] = unsafe { at.next_activations() };
            }
            for unit in 0..$units {
                for tile in 0..2 {
                    let (words, integers) = (&mut at.words[tile], &mut integers[2 * tile..][..2]);
                    // SAFETY: a unit of both tiles is left.
                    unsafe {
                        units::add_codebook_unit::<WORDS, CONSECUTIVE>(
                            &tables.levels,
                            words,
                            first[unit],
                            integers,
                        );
                    }
                }
            }
            integers
        }};
    }
    macro_rules! step {
        ($units:literal, $nibbles:expr) => {
            // SAFETY: a step is left.
            let scale = unsafe { beside.next_scale() };
            let (sums, multipliers) = (&mut row_sums, tables.multipliers);
            if GROUP == 32 && $units == 2 {
                let mut totals = products!(1);
                units::multiply(multipliers, $nibbles[0], &mut totals);
                let integers = products!(1);
                units::end_step(multipliers, $nibbles[1], integers, Some(totals), scale, sums);
            } else {
                let integers = products!($units);
                units::end_step(multipliers, $nibbles[0], integers, None, scale, sums);
            }
        };
    }
    // The scale codes of a step by unit, which differ at groups of 32: an octet has those of a step there, of two at 64, of four at 128.
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
    let [a, b, c, d] = row_sums;
    [
        sums::scaled_rows([a, b], row_scales[0], token.matrix.row_scale_unit()),
        sums::scaled_rows([c, d], row_scales[1], token.matrix.row_scale_unit()),
    ]
}

/// What the product of a matrix of 8 bits needs of a token.
pub(super) struct ScaledToken<'a> {
    matrix: Scaled<'a>,
    codes: &'a [[i8; UNIT_ELEMS]],
    scales: &'a [f32],
}

/// The walk along a matrix of 8 bits.
pub(super) struct SingleInt8;

impl Pair for SingleInt8 {
    const WIDTH: CodeWidth = CodeWidth::Int8;
    type Prepared<'a> = Scaled<'a>;
    type Token<'a> = ScaledToken<'a>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self::Prepared<'a> {
        Scaled::new(matrix, activations)
    }

    #[inline(always)]
    fn token<'a>(matrix: Self::Prepared<'a>, token: usize) -> Self::Token<'a> {
        ScaledToken { matrix, codes: matrix.tokens.codes(token), scales: matrix.tokens.scales(token) }
    }

    #[inline(always)]
    fn outputs(token: &ScaledToken<'_>, tiles: [usize; 2]) -> [[f32; TILE_ROWS]; 2] {
        // SAFETY: instantiated only in the products of this backend, which have NEON and dotprod.
        unsafe {
            match token.matrix.step_units {
                1 if cfg!(feature = "groups-32") => walk_int8::<1>(token, tiles),
                _ => walk_int8::<2>(token, tiles),
            }
        }
    }
}

/// The outputs of two tiles.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn walk_int8<const UNITS: usize>(token: &ScaledToken<'_>, tiles: [usize; 2]) -> [[f32; TILE_ROWS]; 2] {
    let ScaledToken { ref matrix, codes, scales } = *token;
    let units = codes.len();
    let weight_scales = tiles.map(|tile| matrix.weight_scales(tile));
    let words = tiles.map(|tile| matrix.words(tile).as_ptr().cast());
    let mut at = Cursor { words, codes: codes.as_ptr() };
    let mut row_sums: Rows<float32x4_t> = [vdupq_n_f32(0.0); 4];
    macro_rules! step {
        ($step:expr, $scale:expr, $units:expr) => {
            let mut integers = [vdupq_n_s32(0); 4];
            for _ in 0..$units {
                // SAFETY: a unit is left.
                let activations = unsafe { at.next_activations() };
                // SAFETY: a unit of both tiles is left.
                unsafe { units::add_int8_units(&mut at.words, activations, &mut integers) };
            }
            let group = matrix.group_of_step($step);
            for tile in 0..2 {
                let of_rows = sums::widened(&weight_scales[tile][group]);
                for half in 0..2 {
                    let scale = vmulq_n_f32(of_rows[half], $scale);
                    let sums = &mut row_sums[2 * tile + half];
                    *sums = vfmaq_f32(*sums, vcvtq_f32_s32(integers[2 * tile + half]), scale);
                }
            }
        };
    }
    let whole = units / UNITS;
    for (step, &scale) in scales.iter().take(whole).enumerate() {
        step!(step, scale, UNITS);
    }
    if units % UNITS > 0 {
        step!(whole, scales[whole], 1);
    }
    let [a, b, c, d] = row_sums;
    [sums::rows([a, b]), sums::rows([c, d])]
}
