//! Known answers of every kernel: a device finds out in a few milliseconds whether its kernels compute what they should, before
//! anyone reads a text that they made.
//!
//! Each operation runs on fixed made-up numbers, and the CRC-32 of its results' bits must be the one below, which the scalar kernels gave
//! when this was written; docs/numerics.md defines one result for all. It finds a kernel that the compiler broke, or instructions that
//! a processor or an emulator gets wrong. It reads no container and takes no memory but 32 KB of stack.

use core::fmt;
use half::f16;
use rescomp_formats::encodings::{CodeWidth, WORD_BYTES};
use rescomp_formats::hadamard::Hadamard;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{MatrixShape, MatrixView, TABLE_ENTRIES};

use crate::kernels::{
    Activations, AttentionF16, AttentionF32, AttentionInt8, Kernels, MOST_TOGETHER, OutputRows,
    POSITIONS_TOGETHER, keep_key_f32,
};
use crate::memory::MemoryBlock;
use crate::parts::Part;

/// Three tiles: two for a kernel that takes two at once, and one.
const ROWS: usize = 24;
/// A block of 128 columns, one of 64, and a unit of 32: the last group is short.
const COLS: usize = 224;
const GROUP: usize = 64;
/// Steps and groups of a row at most: those of 32.
const MOST_STEPS: usize = COLS.div_ceil(32);
/// Eight, four, two and one at once.
const TOKENS: usize = 15;
/// Values of a head, and of vectors.
const HEAD: usize = 64;
/// Keys of a head.
const KEYS: usize = 21;
/// Queries that share them: as many as kernels take together, and one.
const QUERIES: usize = MOST_TOGETHER + 1;
/// Blocks of the largest matrix section.
const SECTION_BLOCKS: usize = 100;

/// The CRC-32 of each operation's results, and the part that it is of.
const KNOWN: [(&str, Option<Part>, u32); 17] = [
    ("quantize_activations", None, 0x806c0b52),
    ("attention over f32", Some(Part::F32), 0x15de983e),
    ("attention over f16", Some(Part::CacheF16), 0x265601ab),
    ("attention over int8", Some(Part::CacheInt8), 0x8c07243f),
    ("dot_lanes", None, 0x775cb980),
    ("rms_norm", None, 0xcb3c7a9c),
    ("rms_norm_in_place", None, 0x9a77ec92),
    ("layer_norm", Some(Part::LayerNorm), 0x8a825892),
    ("gelu_tanh", Some(Part::Gelu), 0xd7a75488),
    ("gelu", Some(Part::Gelu), 0xd55bc33e),
    ("soft_cap", Some(Part::SoftCap), 0x32d63f72),
    ("softmax", None, 0xe5478539),
    ("silu_multiply", None, 0x941a3954),
    ("add", None, 0x59244636),
    ("rotate", None, 0x8ada8662),
    ("hadamard", Some(Part::Hadamard), 0xb25196f3),
    ("sin_cos_turn", None, 0x4075dbfe),
];

/// Likewise of products, the same in every layout: width, part, columns of a group, the group's part.
const KNOWN_PRODUCTS: [(&str, CodeWidth, Part, usize, Part, u32); 18] = [
    ("gemv and gemm, 2 bits, groups of 32", CodeWidth::Int2, Part::Int2, 32, Part::Groups32, 0x3588ddc5),
    ("gemv and gemm, 3 bits, groups of 32", CodeWidth::Int3, Part::Int3, 32, Part::Groups32, 0x5a949ed5),
    ("gemv and gemm, 4 bits, groups of 32", CodeWidth::Int4, Part::Int4, 32, Part::Groups32, 0xc7288d28),
    ("gemv and gemm, 5 bits, groups of 32", CodeWidth::Int5, Part::Int5, 32, Part::Groups32, 0x8ca4fa4c),
    ("gemv and gemm, 6 bits, groups of 32", CodeWidth::Int6, Part::Int6, 32, Part::Groups32, 0x0832d087),
    ("gemv and gemm, 8 bits, groups of 32", CodeWidth::Int8, Part::Int8, 32, Part::Groups32, 0x780abd62),
    ("gemv and gemm, 2 bits, groups of 64", CodeWidth::Int2, Part::Int2, 64, Part::Groups64, 0xc7948737),
    ("gemv and gemm, 3 bits, groups of 64", CodeWidth::Int3, Part::Int3, 64, Part::Groups64, 0xf2dd93d5),
    ("gemv and gemm, 4 bits, groups of 64", CodeWidth::Int4, Part::Int4, 64, Part::Groups64, 0x8d7809f1),
    ("gemv and gemm, 5 bits, groups of 64", CodeWidth::Int5, Part::Int5, 64, Part::Groups64, 0x105f2e50),
    ("gemv and gemm, 6 bits, groups of 64", CodeWidth::Int6, Part::Int6, 64, Part::Groups64, 0x7cc7271a),
    ("gemv and gemm, 8 bits, groups of 64", CodeWidth::Int8, Part::Int8, 64, Part::Groups64, 0x09be572f),
    ("gemv and gemm, 2 bits, groups of 128", CodeWidth::Int2, Part::Int2, 128, Part::OtherGroups, 0xde5ee1aa),
    ("gemv and gemm, 3 bits, groups of 128", CodeWidth::Int3, Part::Int3, 128, Part::OtherGroups, 0x67a9c61c),
    ("gemv and gemm, 4 bits, groups of 128", CodeWidth::Int4, Part::Int4, 128, Part::OtherGroups, 0x68dddfc0),
    ("gemv and gemm, 5 bits, groups of 128", CodeWidth::Int5, Part::Int5, 128, Part::OtherGroups, 0xf50ff5b5),
    ("gemv and gemm, 6 bits, groups of 128", CodeWidth::Int6, Part::Int6, 128, Part::OtherGroups, 0xf7e83305),
    ("gemv and gemm, 8 bits, groups of 128", CodeWidth::Int8, Part::Int8, 128, Part::OtherGroups, 0xdf40997a),
];

/// Number of operations that are checked where every part is built.
pub const OPERATIONS: usize = KNOWN.len() + KNOWN_PRODUCTS.len();

/// An operation that does not give its known answer on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SelfCheckError {
    /// The kernel table.
    pub kernels: &'static str,
    /// The operation.
    pub operation: &'static str,
    /// CRC-32 of the known answer.
    pub expected: u32,
    /// CRC-32 of what it gave.
    pub found: u32,
}

impl fmt::Display for SelfCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernels, operation, expected, found } = self;
        write!(
            f,
            "self-check: kernels {kernels}: {operation}: expected CRC-32 {expected:08x}, found {found:08x}: they do not compute what \
             they should on this processor"
        )
    }
}

impl core::error::Error for SelfCheckError {}

/// Checks every operation of a kernel table against its known answer. Operations of parts that the program was built without are none of it.
///
/// # Errors
/// The first operation that gives another one.
#[inline(never)]
pub fn self_check(kernels: &Kernels) -> Result<(), SelfCheckError> {
    let compare = |operation, expected, found| match found == expected {
        true => Ok(()),
        false => Err(SelfCheckError { kernels: kernels.name, operation, expected, found }),
    };
    for (operation, part, expected) in KNOWN {
        if part.is_none_or(Part::is_built) {
            compare(operation, expected, answer(kernels, operation))?;
        }
    }
    for (operation, width, part, group, group_part, expected) in KNOWN_PRODUCTS {
        if part.is_built() && group_part.is_built() {
            for layout in layouts() {
                compare(operation, expected, products(kernels, width, group, layout))?;
            }
        }
    }
    Ok(())
}

/// The layouts that are built.
fn layouts() -> impl Iterator<Item = Layout> {
    let is_built = |layout: &Layout| *layout != Layout::Rows || Part::RowsLayout.is_built();
    Layout::ALL.into_iter().filter(is_built)
}

/// What an operation gives, as a CRC-32.
#[inline(never)]
fn answer(kernels: &Kernels, operation: &str) -> u32 {
    let mut bits = Bits::default();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut values: [f32; 4 * HEAD] = core::array::from_fn(|_| 8.0 * random.unit());
    let [a, b, c, d] = values.as_chunks_mut::<HEAD>().0 else { return 0 };
    match operation {
        "quantize_activations" => {
            let (codes, scales) = activations(kernels, GROUP, &mut random);
            codes.iter().for_each(|token| token.iter().for_each(|code| bits.add(&code.to_le_bytes())));
            scales.iter().for_each(|token| bits.floats(&token[..COLS.div_ceil(GROUP)]));
        }
        "attention over f32" if Part::F32.is_built() => {
            attention_f32(&kernels.attention_f32, &mut random, &mut bits)
        }
        "attention over f16" if Part::CacheF16.is_built() => {
            attention_f16(&kernels.attention_f16, &mut random, &mut bits)
        }
        "attention over int8" if Part::CacheInt8.is_built() => {
            attention_int8(&kernels.attention_int8, &mut random, &mut bits)
        }
        "dot_lanes" => {
            let mut lanes = [0.25; 16];
            (kernels.dot_lanes)(&mut lanes, &a[..61], &b[..61]);
            bits.floats(&lanes);
        }
        "rms_norm" => {
            (kernels.rms_norm)(&a[..61], &b[..61], 1e-5, &mut c[..61]);
            bits.floats(c);
        }
        "rms_norm_in_place" => {
            (kernels.rms_norm_in_place)(&mut a[..61], &b[..61], 1e-5);
            bits.floats(a);
        }
        "layer_norm" if Part::LayerNorm.is_built() => {
            (kernels.layer_norm)(&a[..61], &b[..61], &d[..61], 1e-5, &mut c[..61]);
            bits.floats(c);
        }
        "gelu_tanh" if Part::Gelu.is_built() => {
            (kernels.gelu_tanh)(&mut a[..61]);
            bits.floats(a);
        }
        "gelu" if Part::Gelu.is_built() => {
            (kernels.gelu)(&mut a[..61]);
            bits.floats(a);
        }
        "soft_cap" if Part::SoftCap.is_built() => {
            (kernels.soft_cap)(&mut a[..61], 5.0);
            bits.floats(a);
        }
        "softmax" => {
            (kernels.softmax)(&mut a[..61]);
            bits.floats(a);
        }
        "silu_multiply" => {
            (kernels.silu_multiply)(&mut a[..61], &b[..61]);
            bits.floats(a);
        }
        "add" => {
            (kernels.add)(&mut a[..61], &b[..61]);
            bits.floats(a);
        }
        "rotate" => {
            (kernels.rotate)(&mut a[..58], &c[..29], &d[..29]);
            bits.floats(a);
        }
        "hadamard" if Part::Hadamard.is_built() => {
            // 48 values: a dense block of 12 and two doublings.
            if let Some(transform) = Hadamard::new(48) {
                (kernels.hadamard)(&transform, &mut a[..48]);
            }
            bits.floats(a);
        }
        "sin_cos_turn" => {
            for turn in 0..HEAD as u64 {
                let (sin, cos) = crate::kernels::sin_cos_turn(turn.wrapping_mul(0x0123_4567_89ab_cdef));
                bits.floats(&[sin, cos]);
            }
        }
        _ => {}
    }
    bits.0.finalize()
}

/// Codes and scales of all tokens, in steps of `step` columns.
fn activations(
    kernels: &Kernels,
    step: usize,
    random: &mut Random,
) -> ([[i8; COLS]; TOKENS], [[f32; MOST_STEPS]; TOKENS]) {
    let (mut codes, mut scales) = ([[0; COLS]; TOKENS], [[0.0; MOST_STEPS]; TOKENS]);
    for (codes, scales) in codes.iter_mut().zip(&mut scales) {
        let input: [f32; COLS] = core::array::from_fn(|_| random.unit());
        (kernels.quantize_activations)(&input, step, codes, &mut scales[..COLS.div_ceil(step)]);
    }
    (codes, scales)
}

/// Both products of a matrix, for all tokens and for one, as a CRC-32; at widths with more than one way to levels by each.
#[inline(never)]
fn products(kernels: &Kernels, width: CodeWidth, group: usize, layout: Layout) -> u32 {
    let mut bits = Bits::default();
    let mut random = Random(width.bits() as u64);
    let Ok(shape) = MatrixShape::new(ROWS as u32, COLS as u32, group as u32, width, layout) else {
        return 0;
    };
    let mut section = [MemoryBlock([0; 64]); SECTION_BLOCKS];
    let section: &mut [u8] = bytemuck::cast_slice_mut(&mut section);
    let Some(section) = section.get_mut(..shape.section_bytes()) else { return 0 };
    make_up(&shape, &mut random, section);
    let (codes, scales) = activations(kernels, shape.step_elems(), &mut random);
    let mut of_steps = [0.0; TOKENS * MOST_STEPS];
    for (steps, scales) in of_steps.chunks_exact_mut(shape.steps()).zip(&scales) {
        steps.copy_from_slice(&scales[..shape.steps()]);
    }
    let products = kernels.products(layout, width);
    for choose in ways_to_levels(width) {
        put_levels(width, *choose, section);
        let Ok(matrix) = MatrixView::new(shape, section) else { return 0 };
        for (tokens, product) in [(TOKENS, products.gemm), (1, products.gemv)] {
            let mut output = [f32::NAN; TOKENS * ROWS];
            let output = &mut output[..tokens * ROWS];
            let activations = Activations {
                codes: codes[..tokens].as_flattened(),
                scales: &of_steps[..tokens * shape.steps()],
                tokens,
            };
            let tiles = 0..ROWS.div_ceil(crate::kernels::TILE_ROWS);
            product(&matrix, &activations, tiles, &mut OutputRows::new(output, tokens, ROWS));
            bits.floats(output);
        }
    }
    bits.0.finalize()
}

/// A way to the level of an index.
type ToLevel = fn(CodeWidth, i32) -> i8;

/// As many as a width's kernels have.
fn ways_to_levels(width: CodeWidth) -> &'static [ToLevel] {
    match width {
        CodeWidth::Int2 | CodeWidth::Int3 | CodeWidth::Int4 => &[over_the_range, nearby],
        _ => &[over_the_range],
    }
}

/// Puts levels into the section of a codebook matrix.
fn put_levels(width: CodeWidth, to_level: ToLevel, section: &mut [u8]) {
    for (index, level) in (0..width.table_levels()).zip(section) {
        *level = width.fixed_table_level(index as u8).unwrap_or(to_level(width, index as i32)) as u8;
    }
}

/// Levels from one bound to the other, as evenly as integers are.
fn over_the_range(width: CodeWidth, index: i32) -> i8 {
    let (bound, count) = (i32::from(width.level_bound()), width.table_levels() as i32);
    (-bound + 2 * bound * index / (count - 1)) as i8
}

/// Levels whose codes some kernels multiply in their place: -3, -1, 1, 3 at 2 bits, -7, -5 .. 7 at 3, -8..=7 at 4.
fn nearby(width: CodeWidth, index: i32) -> i8 {
    (match width {
        CodeWidth::Int2 => 2 * index - 3,
        CodeWidth::Int3 => 2 * index - 7,
        _ => index - 8,
    }) as i8
}

/// Makes a matrix up but for its levels, word by word, and the same for every layout: any bits of a narrow width are codes, and packing codes took kilobytes of
/// code.
#[inline(never)]
fn make_up(shape: &MatrixShape, random: &mut Random, section: &mut [u8]) {
    let width = shape.width();
    if shape.has_scale_codes() {
        for (index, multiplier) in section[TABLE_ENTRIES..2 * TABLE_ENTRIES].iter_mut().enumerate() {
            *multiplier = 15 + 16 * index as u8;
        }
    }
    for row in 0..shape.rows() {
        for unit in 0..shape.units() {
            for word in 0..width.bits() {
                let at = shape.codes_offset_bytes() + WORD_BYTES * shape.word_index(row, unit, word);
                for byte in &mut section[at..at + WORD_BYTES] {
                    let bits = random.bits() >> 56;
                    // -128 is no code.
                    *byte = if shape.has_codebook() || bits != 0x80 { bits as u8 } else { 0 };
                }
            }
        }
        for pair in 0..shape.scale_code_pairs() {
            let bits = (random.bits() >> 56) as u8;
            let at = shape.scale_codes_offset_bytes() + shape.scale_code_index(row, pair);
            section[at] = if 2 * pair + 1 == shape.groups() { bits & 15 } else { bits };
        }
        let scales = if shape.has_codebook() { 1 } else { shape.groups() };
        for group in 0..scales {
            let index = if shape.has_codebook() { row } else { shape.scale_index(row, group) };
            let at = shape.scales_offset_bytes() + 2 * index;
            let scale = f16::from_f32(0.01 + 0.005 * random.unit());
            section[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
}

/// Adds scores, and the weighted sums that they make as weights, the rows of different lengths.
#[inline(always)]
fn add_attended(
    scores: &[[f32; KEYS]; QUERIES],
    bits: &mut Bits,
    weighted_sums: impl FnOnce(&[&[f32]], &mut [&mut [f32]]),
) {
    bits.floats(scores.as_flattened());
    let weights: [&[f32]; QUERIES] = core::array::from_fn(|query| &scores[query][..KEYS - query]);
    let mut outputs = [[0.0; HEAD]; QUERIES];
    let mut rows = outputs.each_mut().map(|output| &mut output[..]);
    weighted_sums(&weights, &mut rows);
    bits.floats(outputs.as_flattened());
}

/// Keeping keys, scores of several queries, and weighted sums of as many tokens of different lengths.
#[inline(never)]
fn attention_f16(attention: &AttentionF16, random: &mut Random, bits: &mut Bits) {
    let queries: [f32; QUERIES * HEAD] = core::array::from_fn(|_| random.unit());
    let values: [f32; KEYS * HEAD] = core::array::from_fn(|_| random.unit());
    let mut kept = [0; KEYS * HEAD];
    (attention.keep)(&values, &mut kept);
    let mut scores = [[0.0; KEYS]; QUERIES];
    (attention.scores)(&queries, HEAD, &kept, 0.125, scores.as_flattened_mut());
    add_attended(&scores, bits, |weights, rows| (attention.weighted_sums)(weights, &kept, rows));
}

/// Likewise of f32 numbers: positions from the middle of a block on.
#[inline(never)]
fn attention_f32(attention: &AttentionF32, random: &mut Random, bits: &mut Bits) {
    const FIRST: usize = 5;
    const POSITIONS: usize = (FIRST + KEYS).next_multiple_of(POSITIONS_TOGETHER);
    let queries: [f32; QUERIES * HEAD] = core::array::from_fn(|_| random.unit());
    let values: [f32; KEYS * HEAD] = core::array::from_fn(|_| random.unit());
    let mut keys = [f32::NAN; POSITIONS * HEAD];
    for (index, key) in values.chunks_exact(HEAD).enumerate() {
        keep_key_f32(key, FIRST + index, &mut keys);
    }
    let mut scores = [[0.0; KEYS]; QUERIES];
    (attention.scores)(&queries, HEAD, &keys, FIRST, 0.125, scores.as_flattened_mut());
    add_attended(&scores, bits, |weights, rows| (attention.weighted_sums)(weights, &values, rows));
}

/// Likewise of int8 codes: positions 60 to 80, which end one block of weights and begin the next.
fn attention_int8(attention: &AttentionInt8, random: &mut Random, bits: &mut Bits) {
    const FIRST: usize = 60;
    const POSITIONS: usize = (FIRST + KEYS).next_multiple_of(4);
    let queries: [f32; QUERIES * HEAD] = core::array::from_fn(|_| random.unit());
    let (mut keys, mut key_scales) = ([0; KEYS * HEAD], [0.0; KEYS]);
    let (mut values, mut value_scales) = ([-128; POSITIONS * HEAD], [f32::NAN; POSITIONS]);
    for (index, (key, scale)) in keys.chunks_exact_mut(HEAD).zip(&mut key_scales).enumerate() {
        let numbers: [f32; HEAD] = core::array::from_fn(|_| random.unit());
        *scale = (attention.keep_key)(&numbers, key);
        value_scales[FIRST + index] = (attention.keep_value)(&numbers, FIRST + index, &mut values);
    }
    let mut scores = [[0.0; KEYS]; QUERIES];
    (attention.scores)(&queries, HEAD, &keys, &key_scales, 0.125, scores.as_flattened_mut());
    add_attended(&scores, bits, |weights, rows| {
        (attention.weighted_sums)(weights, FIRST, &values, &value_scales, rows)
    });
}

/// The CRC-32 of numbers' bits.
struct Bits(crc::Digest<'static, u32>);

impl Default for Bits {
    fn default() -> Self {
        const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
        static TABLE: crc::Crc<u32> = CRC;
        Bits(TABLE.digest())
    }
}

impl Bits {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn floats(&mut self, values: &[f32]) {
        values.iter().for_each(|value| self.add(&value.to_bits().to_le_bytes()));
    }
}

/// Numbers that look random and are the same each time (xorshift64*: Vigna, arXiv:1402.6246).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (2.0 / 16_777_216.0) - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    #[test]
    fn every_table_gives_the_known_answers() {
        for kernels in kernels::available() {
            let found = KNOWN.map(|(operation, part, _)| (operation, part, answer(kernels, operation)));
            assert_eq!(found, KNOWN, "{}", kernels.name);
            for layout in Layout::ALL {
                let found = KNOWN_PRODUCTS.map(|(operation, width, part, group, group_part, _)| {
                    (operation, width, part, group, group_part, products(kernels, width, group, layout))
                });
                assert_eq!(found, KNOWN_PRODUCTS, "{} {layout:?}", kernels.name);
            }
            assert_eq!(self_check(kernels), Ok(()));
        }
    }

    #[test]
    fn made_up_matrices_could_be_a_containers() {
        for (_, width, _, group, ..) in KNOWN_PRODUCTS {
            for layout in Layout::ALL {
                let shape =
                    MatrixShape::new(ROWS as u32, COLS as u32, group as u32, width, layout).expect("a shape");
                let mut section = [MemoryBlock([0; 64]); SECTION_BLOCKS];
                let section = &mut bytemuck::cast_slice_mut(&mut section)[..shape.section_bytes()];
                make_up(&shape, &mut Random(7), section);
                for way in ways_to_levels(width) {
                    put_levels(width, *way, section);
                    let matrix = MatrixView::new(shape, section).expect("a section");
                    assert_eq!(matrix.check(section), Ok(()), "{width:?} {group} {layout:?}");
                }
            }
        }
    }

    #[test]
    fn every_operation_does_something() {
        let nothing = Bits::default().0.finalize();
        let scalar = kernels::by_name("scalar").unwrap();
        let mut answers = std::vec::Vec::from(KNOWN.map(|(operation, _, _)| answer(scalar, operation)));
        answers.extend(KNOWN_PRODUCTS.map(|(.., answer)| answer));
        answers.sort_unstable();
        assert!(answers.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(!answers.contains(&nothing) && !answers.contains(&0));
    }

    #[test]
    fn a_broken_kernel_is_found_and_named() {
        let mut broken = *kernels::best();
        broken.softmax = |scores| {
            (kernels::best().softmax)(scores);
            scores[0] = f32::from_bits(scores[0].to_bits() ^ 1);
        };
        assert_eq!(self_check(&broken).unwrap_err().operation, "softmax");
        let mut broken = *kernels::best();
        broken.int4.gemv = |matrix, activations, tiles, output| {
            (kernels::best().int4.gemv)(matrix, activations, tiles.clone(), output);
            output.store(0, 8, &[0.0; 8]);
        };
        let error = self_check(&broken).unwrap_err();
        assert_eq!(error.operation, "gemv and gemm, 4 bits, groups of 32");
        assert!(std::string::ToString::to_string(&error).contains("do not compute what they should"));
    }
}
