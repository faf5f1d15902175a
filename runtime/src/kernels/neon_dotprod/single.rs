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
use crate::kernels::nr8k4::codebook::{BLOCK_UNITS, STEP_UNITS, codebook, lookup_tables, width};
use crate::kernels::nr8k4::pairs::Pair;
use crate::kernels::nr8k4::scaled::{self, group_scales};
use crate::kernels::quantized::Activations;
use crate::parts::{Part, not_built};
use core::arch::aarch64::*;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::{MatrixView, STEP_ELEMS, TABLE_ENTRIES};

/// Rows 0 to 3 and 4 to 7 of both tiles.
type Rows<T> = [T; 4];
type Octet = [u8; TILE_ROWS];

/// Bytes of a unit of a tile.
const fn unit_bytes(words: usize) -> usize {
    words * TILE_ROWS * WORD_BYTES
}

/// Where the next units of two tiles and a token are.
#[derive(Clone, Copy)]
struct Cursor {
    words: [*const u8; 2],
    codes: *const i8,
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
        let codes = unsafe { &*self.codes.cast::<[i8; UNIT_ELEMS]>() };
        self.codes = self.codes.wrapping_add(UNIT_ELEMS);
        sums::load_activations(codes)
    }
}

/// What the product of a codebook matrix needs, all of it measured once.
#[derive(Clone, Copy)]
pub(super) struct Codebook<'a> {
    tables: Tables,
    /// Whether the levels are consecutive.
    consecutive: bool,
    /// Columns of a group; 0 where a row is one.
    group: usize,
    units: usize,
    /// Of all tiles.
    words: &'a [u8],
    octets: &'a [Octet],
    row_scales: &'a [[u16; TILE_ROWS]],
    unit: f32,
    /// Of all tokens.
    codes: &'a [i8],
    scales: &'a [f32],
}

/// The walk along a codebook matrix.
pub(super) struct Single<const WORDS: usize>;

impl<const WORDS: usize> Pair for Single<WORDS> {
    const WIDTH: CodeWidth = width::<WORDS>();
    type Prepared<'a> = Codebook<'a>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Codebook<'a> {
        let shape = matrix.shape();
        let (levels, multipliers) = lookup_tables(matrix);
        let book = codebook(matrix);
        let tiles = shape.padded_rows() / TILE_ROWS;
        Codebook {
            // SAFETY: instantiated only in the products of this backend, which have NEON and dotprod.
            tables: unsafe { lookup::tables::<WORDS>(levels, multipliers) },
            consecutive: WORDS == 4 && are_consecutive(levels),
            group: if shape.has_scale_codes() { shape.group_elems() } else { 0 },
            units: shape.units(),
            words: &matrix.codes()[..tiles * shape.units() * unit_bytes(WORDS)],
            octets: &book.scale_codes.as_chunks().0[..tiles * shape.scale_code_pairs()],
            row_scales: &book.row_scales.as_chunks().0[..tiles],
            unit: shape.row_scale_unit(),
            codes: &activations.codes[..activations.tokens * shape.padded_cols()],
            scales: &activations.scales[..activations.tokens * shape.steps()],
        }
    }

    #[inline(always)]
    fn outputs(matrix: Codebook<'_>, tiles: [usize; 2], token: usize) -> [[f32; TILE_ROWS]; 2] {
        macro_rules! walk {
            ($GROUP:literal) => {
                if WORDS == 4 && matrix.consecutive {
                    // SAFETY: has NEON and dotprod, likewise.
                    unsafe { walk::<WORDS, $GROUP, true>(matrix, tiles, token) }
                } else {
                    // SAFETY: likewise.
                    unsafe { walk::<WORDS, $GROUP, false>(matrix, tiles, token) }
                }
            };
        }
        match matrix.group {
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

/// The outputs of two tiles. `GROUP` is the columns of a group where they are 32 or 64, else 0. `CONSECUTIVE`: a level is the first one
/// plus the code.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn walk<const WORDS: usize, const GROUP: usize, const CONSECUTIVE: bool>(
    matrix: Codebook<'_>,
    tiles: [usize; 2],
    token: usize,
) -> [[f32; TILE_ROWS]; 2] {
    let Codebook { tables, units, .. } = matrix;
    let row_scales = tiles.map(|tile| &matrix.row_scales[tile]);
    let codes = &matrix.codes[token * units * UNIT_ELEMS..][..units * UNIT_ELEMS];
    let steps = units.div_ceil(STEP_UNITS);
    let scales = &matrix.scales[token * steps..][..steps];
    let pairs = matrix.octets.len() / matrix.row_scales.len();
    let octets = tiles.map(|tile| &matrix.octets[tile * pairs..][..pairs]);
    // Tiles that have row scales have words.
    let words = tiles.map(|tile| matrix.words.as_ptr().wrapping_add(tile * units * unit_bytes(WORDS)));
    let mut at = Cursor { words, codes: codes.as_ptr() };

    let lowest = vdupq_laneq_s8::<0>(tables.levels[0]);
    let mut row_sums: Rows<float32x4_t> = [vdupq_n_f32(0.0); 4];
    // The integer sums of one or two units. All calls together take as many as there are.
    macro_rules! products {
        ($units:literal) => {{
            let mut integers = [vdupq_n_s32(0); 4];
            let mut first = [[vdupq_n_s8(0); 2]; 2];
            for unit in 0..$units {
                // SAFETY: a unit is left.
                first[unit] = unsafe { at.next_activations() };
            }
            if CONSECUTIVE {
                let mut sum = integers[0];
                for codes in first[..$units].as_flattened() {
                    sum = sdot_all(sum, lowest, *codes);
                }
                integers = [vdupq_n_s32(vaddvq_s32(sum)); 4];
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
        ($units:literal, $nibbles:expr, $scale:expr) => {
            if GROUP == 32 && $units == 2 {
                let mut totals = products!(1);
                units::multiply(tables.multipliers, $nibbles[0], &mut totals);
                let integers = products!(1);
                units::end_step(
                    tables.multipliers,
                    $nibbles[1],
                    integers,
                    Some(totals),
                    $scale,
                    &mut row_sums,
                );
            } else {
                let integers = products!($units);
                units::end_step(tables.multipliers, $nibbles[0], integers, None, $scale, &mut row_sums);
            }
        };
    }
    // The scale codes of two steps; in each by unit, which differ at groups of 32.
    macro_rules! nibbles {
        ($block:expr, $octet:expr) => {
            match GROUP {
                32 => [lookup::nibbles($octet(2 * $block)), lookup::nibbles($octet(2 * $block + 1))],
                64 => lookup::nibbles($octet($block)).map(|nibbles| [nibbles; 2]),
                // A block is one group of 128, or there are no scale codes.
                _ if $block % 2 == 0 => [[lookup::low_nibbles($octet($block / 2)); 2]; 2],
                _ => [[lookup::high_nibbles($octet($block / 2)); 2]; 2],
            }
        };
    }
    let octet_or_none =
        |index: usize| loads::load_octets(octets.map(|octets| octets.get(index).unwrap_or(&[0; TILE_ROWS])));
    let [first_octets, second_octets] = octets.map(|octets| match GROUP {
        32 => &octets[..2 * (units / BLOCK_UNITS)],
        64 => &octets[..units / BLOCK_UNITS],
        _ => octets,
    });
    let octet_of_block = |index: usize| match GROUP {
        32 | 64 => loads::load_octets([&first_octets[index], &second_octets[index]]),
        _ => octet_or_none(index),
    };
    let (of_blocks, of_rest) = scales.as_chunks::<2>();
    let blocks = units / BLOCK_UNITS;
    for (block, scales) in of_blocks[..blocks].iter().enumerate() {
        let nibbles = nibbles!(block, octet_of_block);
        step!(2, nibbles[0], scales[0]);
        step!(2, nibbles[1], scales[1]);
    }
    let rest = units % BLOCK_UNITS;
    if rest > 0 {
        let [first, second] = nibbles!(blocks, octet_or_none);
        let scales =
            of_blocks.get(blocks).map_or([of_rest.first().copied().unwrap_or(0.0); 2], |scales| *scales);
        if rest >= STEP_UNITS {
            step!(2, first, scales[0]);
        }
        if rest % STEP_UNITS > 0 {
            let (nibbles, scale) = if rest > STEP_UNITS { (second, scales[1]) } else { (first, scales[0]) };
            step!(1, nibbles, scale);
        }
    }
    let [a, b, c, d] = row_sums;
    [
        sums::scaled_rows([a, b], row_scales[0], matrix.unit),
        sums::scaled_rows([c, d], row_scales[1], matrix.unit),
    ]
}

/// What the product of a matrix of 8 bits needs.
#[derive(Clone, Copy)]
pub(super) struct Scaled<'a> {
    step_units: usize,
    /// Steps of a group, as a power of two; where a row is one group so large that every step is in group 0.
    group_steps_log2: u32,
    groups: usize,
    units: usize,
    words: &'a [u8],
    weight_scales: &'a [[u16; TILE_ROWS]],
    tiles: usize,
    codes: &'a [i8],
    scales: &'a [f32],
}

/// The walk along a matrix of 8 bits.
pub(super) struct SingleInt8;

impl Pair for SingleInt8 {
    const WIDTH: CodeWidth = CodeWidth::Int8;
    type Prepared<'a> = Scaled<'a>;

    #[inline(always)]
    fn prepare<'a>(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Scaled<'a> {
        let shape = matrix.shape();
        let tiles = shape.padded_rows() / TILE_ROWS;
        let groups = shape.groups();
        Scaled {
            step_units: shape.step_elems() / UNIT_ELEMS,
            group_steps_log2: match groups {
                1 => usize::BITS - 1,
                _ => u32::from(shape.group_elems() > STEP_ELEMS),
            },
            groups,
            units: shape.units(),
            words: &matrix.codes()[..tiles * shape.units() * unit_bytes(scaled::WORDS)],
            weight_scales: &group_scales(matrix).as_chunks().0[..tiles * groups],
            tiles,
            codes: &activations.codes[..activations.tokens * shape.padded_cols()],
            scales: &activations.scales[..activations.tokens * shape.steps()],
        }
    }

    #[inline(always)]
    fn outputs(matrix: Scaled<'_>, tiles: [usize; 2], token: usize) -> [[f32; TILE_ROWS]; 2] {
        // SAFETY: instantiated only in the products of this backend, which have NEON and dotprod.
        unsafe {
            match matrix.step_units {
                1 if cfg!(feature = "groups-32") => walk_int8::<1>(matrix, tiles, token),
                _ => walk_int8::<2>(matrix, tiles, token),
            }
        }
    }
}

/// The outputs of two tiles.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn walk_int8<const UNITS: usize>(
    matrix: Scaled<'_>,
    tiles: [usize; 2],
    token: usize,
) -> [[f32; TILE_ROWS]; 2] {
    let Scaled { units, groups, .. } = matrix;
    assert!(tiles.iter().all(|&tile| tile < matrix.tiles), "tiles {tiles:?} of {}", matrix.tiles);
    let weight_scales = tiles.map(|tile| &matrix.weight_scales[tile * groups..][..groups]);
    let codes = &matrix.codes[token * units * UNIT_ELEMS..][..units * UNIT_ELEMS];
    let steps = units.div_ceil(UNITS);
    let scales = &matrix.scales[token * steps..][..steps];
    let words =
        tiles.map(|tile| matrix.words.as_ptr().wrapping_add(tile * units * unit_bytes(scaled::WORDS)));
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
            let group = $step >> matrix.group_steps_log2;
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
    if whole < steps {
        step!(whole, scales[whole], 1);
    }
    let [a, b, c, d] = row_sums;
    [sums::rows([a, b]), sums::rows([c, d])]
}
