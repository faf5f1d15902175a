//! One token at 2 bits on NEON without dotprod: sums of two products by table lookup, without a multiplication a weight.
//!
//! A nibble holds the codes of two columns, so the sum of their two products is one of sixteen numbers. They are computed once for
//! all rows:
//!
//! ```text
//! for each block of columns:  a table of sums for every nibble of a row         ([`Lane`], here)
//!     for each two tiles:     for each step: sums of the table's entries, times the multiplier, times the activation scale
//! ```
//! A sum of two products is at most 2 * 31 * 127 = 7874 in magnitude: fourteen bits with its sign. It is kept as `128 * high + low`
//! in two tables of bytes, each in 7 bits, `low` in 0..128 and `high` in -62..=61. The spare bit makes UABAL add two lookups at once: the
//! table of one has 128 and more, that of the other 128 and less with its sign turned, so the absolute difference is the difference.
//!
//! | | first nibble | second nibble | their difference |
//! |---|---|---|---|
//! | low | `128 + low`, 128..=255 | `128 - low`, 1..=128 | `low + low`, 0..=254 |
//! | high | `192 + high`, 130..=253 | `64 - high`, 3..=126 | `128 + high + high`, 4..=250 |
//!
//! A step of 64 columns has sixteen such differences a row, at most 4064, which fit the int16 lanes; 16 * 128 is then taken off the
//! second kind, and `128 * multiplier` and `multiplier` join them in int32.
//!
//! LD4 brings the nibbles together that share a table: it separates the four columns of a word, eight rows each.

use super::codebook;
use super::lookup;
use super::sums::{self, Sums};
use crate::kernels::nr8k4::Word;
use crate::kernels::nr8k4::codebook::{BLOCK_STEPS, BLOCK_UNITS, STEP_UNITS, codebook, scale_codes};
use crate::kernels::nr8k4::pairs::PairsOfTiles;
use crate::kernels::nr8k4::prepared::group_of;
use crate::kernels::quantized::check;
use crate::kernels::{Activations, OutputRows, Products, TILE_ROWS};
use crate::parts::{self, not_built};
use core::arch::aarch64::*;
use core::arch::asm;
use core::mem::MaybeUninit;
use core::ops::Range;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::{MatrixView, TABLE_ENTRIES};

/// Words a unit.
const WORDS: usize = 2;
/// Columns of a word that have tables of their own: those of one byte.
const LANES: usize = WORD_BYTES;
/// Units whose tables exist at once, whole blocks: they take 16 KiB, half of a first-level cache.
const MOST_UNITS: usize = 32;
/// Tiles whose sums are kept from one such part of the columns to the next.
const CHUNK_TILES: usize = 256;
/// With fewer tiles than these the tables cost about as much as they save, or more: they take 4 modelled cycles a column on a Cortex-A72.
const FEWEST_TILES: usize = 16;

/// The products at 2 bits.
pub(super) const INT2: Products = Products { gemv, ..codebook::INT2 };

fn gemv(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    if tiles.len() < FEWEST_TILES {
        return (codebook::INT2.gemv)(matrix, activations, tiles, output);
    }
    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
    unsafe { gemv_int2_neon(matrix, activations, tiles, output) }
}

/// What the two nibbles of a byte stand for: each table has sixteen entries.
#[repr(C, align(64))]
struct Lane {
    first_low: uint8x16_t,
    second_low: uint8x16_t,
    first_high: uint8x16_t,
    second_high: uint8x16_t,
}

/// The tables of a unit.
type UnitTables = [[Lane; LANES]; WORDS];
/// Room for them.
type UnitMemory = [[MaybeUninit<Lane>; LANES]; WORDS];

#[inline(never)]
#[target_feature(enable = "neon")]
fn gemv_int2_neon(
    matrix: &MatrixView<'_>,
    activations: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut OutputRows<'_>,
) {
    check(matrix, activations, &tiles, output, Some(CodeWidth::Int2));
    let shape = matrix.shape();
    let (units, steps) = (shape.units(), shape.steps());
    let codebook = codebook(matrix);
    let levels = lookup::tables::<WORDS>(codebook.levels, codebook.multipliers);
    let (row_scales, _) = codebook.row_scales.as_chunks::<TILE_ROWS>();
    let group = group_of(shape);
    // Parts of about equal length.
    let parts = units.div_ceil(MOST_UNITS).max(1);
    let part_units = units.div_ceil(parts).next_multiple_of(BLOCK_UNITS);
    let mut memory: [UnitMemory; MOST_UNITS] =
        [const { [const { [const { MaybeUninit::uninit() }; LANES] }; WORDS] }; MOST_UNITS];
    let rows = Rows::new(matrix);

    for token in 0..activations.tokens {
        let (codes, _) = activations.codes[token * shape.padded_cols()..][..shape.padded_cols()].as_chunks();
        let scales = &activations.scales[token * steps..][..steps];
        for chunk in tiles.clone().step_by(CHUNK_TILES) {
            let chunk = chunk..tiles.end.min(chunk + CHUNK_TILES);
            let mut sums = [sums::zero(); CHUNK_TILES];
            let sums = &mut sums[..chunk.len()];
            for start in (0..units).step_by(part_units) {
                let codes = &codes[start..units.min(start + part_units)];
                let part = Part {
                    start,
                    tables: unit_tables(&levels, codes, &mut memory),
                    scales: &scales[start / STEP_UNITS..],
                };
                match group {
                    32 if cfg!(feature = "groups-32") => rows.add_part::<32>(&part, chunk.start, sums),
                    64 if cfg!(feature = "groups-64") => rows.add_part::<64>(&part, chunk.start, sums),
                    _ if cfg!(feature = "other-groups") => rows.add_part::<0>(&part, chunk.start, sums),
                    _ => not_built(parts::Part::OtherGroups),
                }
            }
            let first = chunk.start;
            let rows =
                output.token_rows(token).get_mut((first - tiles.start) * TILE_ROWS..).unwrap_or_default();
            let mut pairs = PairsOfTiles::new(chunk, rows);
            for _ in 0..pairs.count() {
                let (tiles, place) = pairs.next_pair();
                let unit = shape.row_scale_unit();
                let [[a, b], [c, d]] = [
                    sums::scaled(sums[tiles[0] - first], &row_scales[tiles[0]], unit),
                    sums::scaled(sums[tiles[1] - first], &row_scales[tiles[1]], unit),
                ];
                sums::put([a, b, c, d], place);
            }
            pairs.finish();
        }
    }
}

/// Makes the tables for some units of activations.
#[inline]
#[target_feature(enable = "neon")]
fn unit_tables<'t>(
    levels: &lookup::Tables,
    codes: &[[i8; UNIT_ELEMS]],
    memory: &'t mut [UnitMemory; MOST_UNITS],
) -> &'t [UnitTables] {
    let memory = &mut memory[..codes.len()];
    for (codes, memory) in codes.iter().zip(memory.iter_mut()) {
        let (words, _) = codes.as_chunks::<{ LANES * LANES }>();
        for (codes, memory) in words.iter().zip(memory) {
            // SAFETY: 16 readable bytes.
            let codes = unsafe { vld1q_s8(codes.as_ptr()) };
            macro_rules! lane {
                ($lane:literal) => {
                    let tables = lane_tables(
                        levels,
                        [
                            vdupq_laneq_s8::<$lane>(codes),
                            vdupq_laneq_s8::<{ LANES as i32 + $lane }>(codes),
                            vdupq_laneq_s8::<{ 2 * LANES as i32 + $lane }>(codes),
                            vdupq_laneq_s8::<{ 3 * LANES as i32 + $lane }>(codes),
                        ],
                    );
                    memory[$lane].write(tables);
                };
            }
            lane!(0);
            lane!(1);
            lane!(2);
            lane!(3);
        }
    }
    // SAFETY: every lane of these units has been written above.
    unsafe { core::slice::from_raw_parts(memory.as_ptr().cast(), memory.len()) }
}

/// The tables of a [`Lane`], for one activation of each of four quads, everywhere in a register: two to a nibble.
#[inline]
#[target_feature(enable = "neon")]
fn lane_tables(levels: &lookup::Tables, [a, b, c, d]: [int8x16_t; 4]) -> Lane {
    let [first_low, first_high] = pair_sums(levels, a, b);
    let [second_low, second_high] = pair_sums(levels, c, d);
    Lane {
        first_low,
        second_low: vsubq_u8(vdupq_n_u8(0), second_low),
        first_high: vaddq_u8(first_high, vdupq_n_u8(192)),
        second_high: vsubq_u8(vdupq_n_u8(64), second_high),
    }
}

/// `level * a + level * b` by nibble as `128 + low` and `high`, modulo 256.
#[inline]
#[target_feature(enable = "neon")]
fn pair_sums(levels: &lookup::Tables, a: int8x16_t, b: int8x16_t) -> [uint8x16_t; 2] {
    let [of_a, of_b, ..] = levels.levels;
    // The lower code of a nibble repeats every four.
    let products = vmull_s8(vget_low_s8(of_a), vget_low_s8(a));
    let begin = vmlal_s8(products, vget_low_s8(of_b), vget_low_s8(b));
    let end = vmlal_high_s8(products, of_b, b);
    let low = vmovn_high_s16(vmovn_s16(begin), end);
    let high = vshrn_high_n_s16::<7>(vshrn_n_s16::<7>(begin), end);
    [vorrq_u8(vreinterpretq_u8_s8(low), vdupq_n_u8(128)), vreinterpretq_u8_s8(high)]
}

/// The columns whose tables exist.
struct Part<'a> {
    /// The first unit.
    start: usize,
    tables: &'a [UnitTables],
    /// Of its activations, from its first step on.
    scales: &'a [f32],
}

/// A matrix as the walk reads it.
struct Rows<'a> {
    /// Units of a tile.
    units: usize,
    words: &'a [[Word; WORDS]],
    /// Scale codes of a tile for two groups each.
    pairs: usize,
    octets: &'a [[u8; TILE_ROWS]],
    multipliers: uint8x16_t,
}

/// A step that waits for its conversion: its totals and its activation scale. The sums of the next one hide how long that takes.
type Waiting = ([[int32x4_t; 2]; 2], f32);

impl<'a> Rows<'a> {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new(matrix: &MatrixView<'a>) -> Self {
        let shape = matrix.shape();
        let codebook = codebook(matrix);
        let (words, _) = matrix.codes().as_chunks::<{ TILE_ROWS * WORD_BYTES }>();
        // Without scale codes every multiplier is 1, and the scale codes of the walk are 0.
        let ones = &[1; TABLE_ENTRIES];
        let multipliers = if shape.has_scale_codes() { codebook.multipliers } else { ones };
        Rows {
            units: shape.units(),
            words: words.as_chunks().0,
            pairs: shape.scale_code_pairs(),
            octets: codebook.scale_codes.as_chunks().0,
            // SAFETY: 16 readable bytes.
            multipliers: unsafe { vld1q_u8(multipliers.as_ptr()) },
        }
    }

    /// Adds a part of the columns to the sums of tiles, from `tile` on. `GROUP` is as [`Block::add`] has it.
    ///
    /// [`Block::add`]: crate::kernels::nr8k4::codebook::Block::add
    #[inline]
    #[target_feature(enable = "neon")]
    fn add_part<const GROUP: usize>(&self, part: &Part<'_>, tile: usize, sums: &mut [Sums]) {
        for (index, sums) in sums.chunks_mut(2).enumerate() {
            // A last tile alone is computed twice: the one call of `add` becomes part of the product.
            let (first, last) = (tile + 2 * index, sums.len() - 1);
            let with = self.add::<GROUP>(part, [first, first + last], [sums[0], sums[last]]);
            (sums[last], sums[0]) = (with[last], with[0]);
        }
    }

    /// Adds it to the sums of two tiles.
    #[inline]
    #[target_feature(enable = "neon")]
    fn add<const GROUP: usize>(&self, part: &Part<'_>, tiles: [usize; 2], mut sums: [Sums; 2]) -> [Sums; 2] {
        let words = tiles.map(|tile| &self.words[tile * self.units + part.start..][..part.tables.len()]);
        let octets = tiles.map(|tile| &self.octets[tile * self.pairs..][..self.pairs]);
        let (tables, rest_tables) = part.tables.as_chunks::<BLOCK_UNITS>();
        let blocks = tables.len();
        let first_block = part.start / BLOCK_UNITS;
        // As many as there are blocks, so that the loop needs no check of an index.
        let scales = &part.scales.as_chunks::<BLOCK_STEPS>().0[..blocks];
        let whole_words = words.map(|words| &words.as_chunks::<BLOCK_UNITS>().0[..blocks]);
        let whole_octets = octets.map(|octets| match GROUP {
            32 => &octets[BLOCK_STEPS * first_block..][..BLOCK_STEPS * blocks],
            64 => &octets[first_block..][..blocks],
            _ => octets,
        });
        let mut waiting: Waiting = ([lookup::zero(); 2], 0.0);
        // A step of a block: its two units, by the tables of the block, with the scale codes of the block and the step's scale.
        macro_rules! step {
            ($step:literal, $first:literal, $second:literal, $words:ident, $tables:ident, $codes:ident, $scale:expr) => {
                let unit = [&$words[0][$first], &$words[1][$first]];
                let parts = begin_word::<$first, 0>(unit, $tables, if GROUP == 32 { 1 } else { 2 });
                sums[0] = sums::add_total(sums[0], waiting.0[0], waiting.1);
                let mut parts = add_word::<$first, 1>(unit, $tables, parts);
                sums[1] = sums::add_total(sums[1], waiting.0[1], waiting.1);
                let unit = [&$words[0][$second], &$words[1][$second]];
                if GROUP == 32 {
                    for tile in 0..2 {
                        let multipliers = Multipliers::new(self.multipliers, $codes[tile][$step]);
                        waiting.0[tile] = multipliers.multiply(parts[tile]);
                    }
                    parts = begin_word::<$second, 0>(unit, $tables, 1);
                    parts = add_word::<$second, 1>(unit, $tables, parts);
                    for tile in 0..2 {
                        let multipliers = Multipliers::new(self.multipliers, $codes[tile][$step] >> 4);
                        waiting.0[tile] = multipliers.multiply_add(waiting.0[tile], parts[tile]);
                    }
                } else {
                    let multipliers =
                        $codes.map(|codes| Multipliers::new(self.multipliers, codes[0] >> (4 * $step)));
                    parts = add_word::<$second, 0>(unit, $tables, parts);
                    parts = add_word::<$second, 1>(unit, $tables, parts);
                    for tile in 0..2 {
                        waiting.0[tile] = multipliers[tile].multiply(parts[tile]);
                    }
                }
                waiting.1 = $scale;
            };
        }
        for block in 0..blocks {
            let index = if matches!(GROUP, 32 | 64) { block } else { first_block + block };
            let codes = whole_octets.map(|octets| scale_codes::<GROUP>(octets, index));
            let (tables, scales) = (tables[block].as_slice(), &scales[block]);
            let words = [&whole_words[0][block], &whole_words[1][block]];
            step!(0, 0, 1, words, tables, codes, scales[0]);
            step!(1, 2, 3, words, tables, codes, scales[1]);
        }
        if rest_tables.is_empty() {
            for tile in 0..2 {
                sums[tile] = sums::add_total(sums[tile], waiting.0[tile], waiting.1);
            }
            return sums;
        }
        // The last one to three units of the matrix: a step, as many models' rows end, and a unit.
        let codes = octets.map(|octets| scale_codes::<GROUP>(octets, first_block + blocks));
        let scales = &part.scales[BLOCK_STEPS * blocks..];
        let words = words.map(|words| &words[BLOCK_UNITS * blocks..]);
        if rest_tables.len() >= STEP_UNITS {
            step!(0, 0, 1, words, rest_tables, codes, scales[0]);
        }
        for tile in 0..2 {
            sums[tile] = sums::add_total(sums[tile], waiting.0[tile], waiting.1);
        }
        if rest_tables.len() % STEP_UNITS > 0 {
            let (last, step) = (rest_tables.len() - 1, rest_tables.len() / STEP_UNITS);
            let (unit, tables) = (words.map(|words| &words[last]), &rest_tables[last..]);
            let parts = add_word::<0, 1>(unit, tables, begin_word::<0, 0>(unit, tables, 1));
            for tile in 0..2 {
                let codes = match GROUP {
                    32 => codes[tile][step],
                    _ => codes[tile][0] >> (4 * step),
                };
                let totals = Multipliers::new(self.multipliers, codes).multiply(parts[tile]);
                sums[tile] = sums::add_total(sums[tile], totals, scales[step]);
            }
        }
        sums
    }
}

/// The multipliers of a tile's rows in a group.
struct Multipliers {
    of_low: int16x8_t,
    /// Times 128.
    of_high: int16x8_t,
}

impl Multipliers {
    /// From scale codes in the low nibbles.
    #[inline]
    #[target_feature(enable = "neon")]
    fn new(table: uint8x16_t, scale_codes: u64) -> Self {
        let multipliers = vqtbl1_u8(table, vcreate_u8(scale_codes & 0x0f0f_0f0f_0f0f_0f0f));
        Multipliers {
            of_low: vreinterpretq_s16_u16(vmovl_u8(multipliers)),
            of_high: vreinterpretq_s16_u16(vshll_n_u8::<7>(multipliers)),
        }
    }

    /// The integer sums of a tile times these.
    #[inline]
    #[target_feature(enable = "neon")]
    fn multiply(&self, parts: Parts) -> [int32x4_t; 2] {
        let [low, high] = parts.signed();
        [
            vmlal_s16(
                vmull_s16(vget_low_s16(high), vget_low_s16(self.of_high)),
                vget_low_s16(low),
                vget_low_s16(self.of_low),
            ),
            vmlal_high_s16(vmull_high_s16(high, self.of_high), low, self.of_low),
        ]
    }

    /// The same, added to `totals`.
    #[inline]
    #[target_feature(enable = "neon")]
    fn multiply_add(&self, totals: [int32x4_t; 2], parts: Parts) -> [int32x4_t; 2] {
        let [first, second] = self.multiply(parts);
        [vaddq_s32(totals[0], first), vaddq_s32(totals[1], second)]
    }
}

/// The integer sums of a tile's rows: `128 * high + low`.
#[derive(Clone, Copy)]
struct Parts {
    low: uint16x8_t,
    /// Modulo 2^16, since it begins below zero.
    high: uint16x8_t,
}

impl Parts {
    #[inline]
    #[target_feature(enable = "neon")]
    fn signed(self) -> [int16x8_t; 2] {
        [vreinterpretq_s16_u16(self.low), vreinterpretq_s16_u16(self.high)]
    }
}

/// The sums of word `WORD` of unit `UNIT` of two tiles, by the tables of so many units and more. They will be of `units` units.
#[inline]
#[target_feature(enable = "neon")]
fn begin_word<const UNIT: usize, const WORD: usize>(
    unit: [&[Word; WORDS]; 2],
    tables: &[UnitTables],
    units: u16,
) -> [Parts; 2] {
    /// What the lookups of a unit have too much: 128 for each two.
    const EXCESS: u16 = 128 * (WORDS * LANES) as u16;
    let tables = &tables[..=UNIT];
    let [a, b, c, d] = lanes(unit, WORD);
    let parts = begin_lane::<UNIT, WORD, 0>(tables, a, vdupq_n_u16(0u16.wrapping_sub(EXCESS * units)));
    let parts = add_lane::<UNIT, WORD, 1>(tables, b, parts);
    let parts = add_lane::<UNIT, WORD, 2>(tables, c, parts);
    add_lane::<UNIT, WORD, 3>(tables, d, parts)
}

/// Adds them to earlier ones.
#[inline]
#[target_feature(enable = "neon")]
fn add_word<const UNIT: usize, const WORD: usize>(
    unit: [&[Word; WORDS]; 2],
    tables: &[UnitTables],
    parts: [Parts; 2],
) -> [Parts; 2] {
    let tables = &tables[..=UNIT];
    let [a, b, c, d] = lanes(unit, WORD);
    let parts = add_lane::<UNIT, WORD, 0>(tables, a, parts);
    let parts = add_lane::<UNIT, WORD, 1>(tables, b, parts);
    let parts = add_lane::<UNIT, WORD, 2>(tables, c, parts);
    add_lane::<UNIT, WORD, 3>(tables, d, parts)
}

/// A word of two tiles by lane.
#[inline]
#[target_feature(enable = "neon")]
fn lanes(unit: [&[Word; WORDS]; 2], index: usize) -> [[uint8x8_t; 2]; LANES] {
    // SAFETY: 32 readable bytes.
    let uint8x8x4_t(a, b, c, d) = unsafe { vld4_u8(unit[0][index].as_ptr()) };
    // SAFETY: likewise.
    let uint8x8x4_t(e, f, g, h) = unsafe { vld4_u8(unit[1][index].as_ptr()) };
    [[a, e], [b, f], [c, g], [d, h]]
}

/// Eight rows of two tiles by the tables of a lane. For the low parts `$operation` is UABAL, or UABDL to begin them; it sees them as
/// `$direction`.
///
/// Not `pure`, so that lanes stay in the order of the source. The tables are loaded here, one by one: the compiler would load
/// pairs, which are three operations each on a Cortex-A72.
macro_rules! lane {
    ($operation:literal, $direction:ident, $tables:ident, $codes:ident, $parts:ident) => {
        // SAFETY: instructions on registers and loads of the four tables, on a processor that has them.
        unsafe {
            asm!(
                "ldr {a:q}, [{tables}, #{at}]",
                "ldr {b:q}, [{tables}, #{at} + 16]",
                "and {c:v}.8b, {first:v}.8b, {nibble:v}.8b",
                "and {d:v}.8b, {second:v}.8b, {nibble:v}.8b",
                "ushr {first:v}.8b, {first:v}.8b, #4",
                "ushr {second:v}.8b, {second:v}.8b, #4",
                "tbl {e:v}.8b, {{{a:v}.16b}}, {c:v}.8b",
                "tbl {f:v}.8b, {{{a:v}.16b}}, {d:v}.8b",
                "tbl {a:v}.8b, {{{b:v}.16b}}, {first:v}.8b",
                "tbl {b:v}.8b, {{{b:v}.16b}}, {second:v}.8b",
                "ldr {g:q}, [{tables}, #{at} + 32]",
                "ldr {h:q}, [{tables}, #{at} + 48]",
                concat!($operation, " {first_low:v}.8h, {e:v}.8b, {a:v}.8b"),
                concat!($operation, " {second_low:v}.8h, {f:v}.8b, {b:v}.8b"),
                "tbl {c:v}.8b, {{{g:v}.16b}}, {c:v}.8b",
                "tbl {d:v}.8b, {{{g:v}.16b}}, {d:v}.8b",
                "tbl {first:v}.8b, {{{h:v}.16b}}, {first:v}.8b",
                "tbl {second:v}.8b, {{{h:v}.16b}}, {second:v}.8b",
                "uabal {first_high:v}.8h, {c:v}.8b, {first:v}.8b",
                "uabal {second_high:v}.8h, {d:v}.8b, {second:v}.8b",
                tables = in(reg) $tables.as_ptr(),
                at = const size_of::<UnitTables>() * UNIT + size_of::<Lane>() * (LANES * WORD + LANE),
                nibble = in(vreg) vdup_n_u8(15),
                first = inout(vreg) $codes[0] => _,
                second = inout(vreg) $codes[1] => _,
                a = out(vreg) _,
                b = out(vreg) _,
                c = out(vreg) _,
                d = out(vreg) _,
                e = out(vreg) _,
                f = out(vreg) _,
                g = out(vreg) _,
                h = out(vreg) _,
                first_low = $direction(vreg) $parts[0].low,
                first_high = inout(vreg) $parts[0].high,
                second_low = $direction(vreg) $parts[1].low,
                second_high = inout(vreg) $parts[1].high,
                options(readonly, nostack, preserves_flags),
            );
        }
    };
}

#[inline]
#[target_feature(enable = "neon")]
fn begin_lane<const UNIT: usize, const WORD: usize, const LANE: usize>(
    tables: &[UnitTables],
    codes: [uint8x8_t; 2],
    high: uint16x8_t,
) -> [Parts; 2] {
    let mut parts = [Parts { low: high, high }; 2];
    lane!("uabdl", out, tables, codes, parts);
    parts
}

#[inline]
#[target_feature(enable = "neon")]
fn add_lane<const UNIT: usize, const WORD: usize, const LANE: usize>(
    tables: &[UnitTables],
    codes: [uint8x8_t; 2],
    mut parts: [Parts; 2],
) -> [Parts; 2] {
    lane!("uabal", inout, tables, codes, parts);
    parts
}
