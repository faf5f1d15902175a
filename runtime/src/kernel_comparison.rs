//! The integer products of a table against the portable ones, bit for bit, on the device: every width and group, sizes that are odd, and numbers
//! at the ends of their ranges. [`crate::self_check`] is for every start of a program; this takes seconds, and is for testing kernels
//! on processors that tests of the host can't run on.

use core::fmt;

use crate::error::RuntimeError;
use crate::kernels::{Activations, Kernels, OutputRows, TILE_ROWS, scalar};
use crate::memory::{Arena, MemoryBlock};
use crate::self_check::Random;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{MatrixShape, MatrixView, TABLE_ENTRIES};

/// Rows and columns: less than a tile and a unit, one more than some, several bands of tiles, steps that are short.
const SHAPES: [(u32, u32); 6] = [(1, 1), (7, 33), (8, 64), (9, 96), (73, 352), (136, 160)];
/// Columns of a group; 0 is the row.
const GROUPS: [u32; 4] = [32, 64, 128, 0];
const TOKENS: [usize; 4] = [1, 2, 3, 5];
const MOST_TOKENS: usize = 5;
const MOST_ROWS: usize = 136;
const MOST_COLS: usize = 352;
/// Bytes of the largest section: 80 padded rows of 352 columns at 8 bits with their scales, and room for padding.
const SECTION_BYTES: usize = 80 * 352 + 80 * 11 * 2 + 512;

/// What the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Random,
    /// Codes, activations and multipliers at either end of their ranges.
    Ends,
    /// All such that every product is as large as it gets, with one sign.
    Largest,
}

/// Why tables are not equal, or could not be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ComparisonError {
    /// The memory is too small.
    Memory(RuntimeError),
    /// A shape that can't be: a mistake in this file.
    Shape,
    /// An output differs.
    Differs {
        /// Bits of the codes.
        bits: usize,
        /// Rows of the matrix.
        rows: u32,
        /// Its columns.
        cols: u32,
        /// Columns of its groups.
        group: u32,
        /// Tokens.
        tokens: usize,
        /// Which output, tokens x rows.
        output: usize,
        /// Bits of the portable product.
        expected: u32,
        /// Bits of the other.
        found: u32,
    },
}

impl fmt::Display for ComparisonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComparisonError::Memory(error) => error.fmt(f),
            ComparisonError::Shape => f.write_str("a shape of the comparison can't be"),
            ComparisonError::Differs { bits, rows, cols, group, tokens, output, expected, found } => write!(
                f,
                "{bits} bits, {rows} x {cols} in groups of {group}, {tokens} tokens: output {output} is {found:08x}, expected {expected:08x}"
            ),
        }
    }
}

impl core::error::Error for ComparisonError {}

/// Compares both products of every width, shape, group and number of tokens; how many were equal.
///
/// # Errors
/// [`ComparisonError`].
pub fn compare_products(kernels: &Kernels, memory: &mut [MemoryBlock]) -> Result<usize, ComparisonError> {
    let mut arena = Arena::new(memory, 0).map_err(ComparisonError::Memory)?;
    let mut random = Random(0x5eed_0f4d_5071_ab1e);
    let section: &mut [u8] = arena.take(SECTION_BYTES);
    let codes: &mut [i8] = arena.take(MOST_TOKENS * MOST_COLS);
    let scales: &mut [f32] = arena.take(MOST_TOKENS * MOST_COLS / 32);
    let expected: &mut [f32] = arena.take(MOST_TOKENS * MOST_ROWS);
    let found: &mut [f32] = arena.take(MOST_TOKENS * MOST_ROWS);
    arena.finish().map_err(ComparisonError::Memory)?;
    let mut equal = 0;
    for width in CodeWidth::ALL {
        for (rows, cols) in SHAPES {
            for group in GROUPS {
                let group = if group == 0 { MatrixShape::whole_row(cols) } else { group };
                // The largest group that a row has is the row.
                if group > MatrixShape::whole_row(cols) {
                    continue;
                }
                let shape = MatrixShape::new(rows, cols, group, width, Layout::Nr8k4)
                    .map_err(|_| ComparisonError::Shape)?;
                for contents in [Contents::Random, Contents::Ends, Contents::Largest] {
                    let section = section.get_mut(..shape.section_bytes()).ok_or(ComparisonError::Shape)?;
                    fill(&shape, contents, &mut random, section);
                    let matrix = MatrixView::new(shape, section).map_err(|_| ComparisonError::Shape)?;
                    for tokens in TOKENS {
                        let codes = &mut codes[..tokens * shape.padded_cols()];
                        let scales = &mut scales[..tokens * shape.steps()];
                        fill_activations(&shape, contents, &mut random, codes, scales);
                        let activations = Activations { codes, scales, tokens };
                        let outputs = tokens * shape.rows();
                        let tiles = 0..shape.rows().div_ceil(TILE_ROWS);
                        let (portable, _) = scalar::reference_product(&shape);
                        let (product, _) = kernels.matrix_product(&shape, tokens);
                        for (product, output) in [(portable, &mut *expected), (product, &mut *found)] {
                            let output = &mut output[..outputs];
                            output.fill(f32::NAN);
                            product(
                                &matrix,
                                &activations,
                                tiles.clone(),
                                &mut OutputRows::new(output, tokens, shape.rows()),
                            );
                        }
                        for (output, (expected, found)) in
                            expected.iter().zip(&*found).take(outputs).enumerate()
                        {
                            let (expected, found) = (expected.to_bits(), found.to_bits());
                            if expected != found {
                                let bits = width.bits();
                                return Err(ComparisonError::Differs {
                                    bits,
                                    rows,
                                    cols,
                                    group,
                                    tokens,
                                    output,
                                    expected,
                                    found,
                                });
                            }
                        }
                        equal += 1;
                    }
                }
            }
        }
    }
    Ok(equal)
}

/// A section with contents that `MatrixView::check` lets pass, but for padding, which outputs don't show: any bits are codes of 2 to 6 bits.
fn fill(shape: &MatrixShape, contents: Contents, random: &mut Random, section: &mut [u8]) {
    let width = shape.width();
    let mut end = |low: u8, high: u8| match contents {
        Contents::Random => None,
        Contents::Ends if random.bits() >> 63 == 0 => Some(low),
        Contents::Ends | Contents::Largest => Some(high),
    };
    let codes = shape.codes_offset_bytes()..shape.codes_offset_bytes() + shape.codes_bytes();
    for byte in &mut section[codes] {
        // -127 is 0x81; bits of the narrow widths are all set or none.
        *byte = end(
            if width == CodeWidth::Int8 { 0x81 } else { 0 },
            if width == CodeWidth::Int8 { 127 } else { 0xff },
        )
        .unwrap_or(0x80);
    }
    if contents == Contents::Random {
        for byte in &mut section[shape.codes_offset_bytes()..][..shape.codes_bytes()] {
            *byte = (random.bits() >> 40) as u8;
            if width == CodeWidth::Int8 && *byte == 0x80 {
                *byte = 0x7f;
            }
        }
    }
    if let Some(levels) = width.levels() {
        let bound = i32::from(width.level_bound());
        let table = width.table_levels();
        for index in 0..TABLE_ENTRIES {
            let level = match width.fixed_table_level(index as u8) {
                Some(level) => level.into(),
                // From one bound to the other.
                None if index < table => -bound + 2 * bound * index as i32 / (levels as i32 - 1),
                None => 0,
            };
            section[index] = level as u8;
            let multiplier = if contents == Contents::Largest {
                240 + index
            } else {
                1 + 17 * index.min(14) + index / 15 * 16
            };
            section[TABLE_ENTRIES + index] = if shape.has_scale_codes() { multiplier as u8 } else { 0 };
        }
        let from = shape.scale_codes_offset_bytes();
        for byte in &mut section[from..from + shape.scale_codes_bytes()] {
            *byte = match contents {
                Contents::Largest => 0xff,
                Contents::Random | Contents::Ends => (random.bits() >> 40) as u8,
            };
        }
    }
    for scale in section[shape.scales_offset_bytes()..].chunks_exact_mut(2) {
        // Positive binary16 numbers, some of them without a leading 1, and 0.
        let bits = [0x3c00, 0x0001, 0x7bff, 0x0000, 0x2e66, 0x1d3b][(random.bits() >> 40) as usize % 6];
        scale.copy_from_slice(&u16::to_le_bytes(bits));
    }
}

fn fill_activations(
    shape: &MatrixShape,
    contents: Contents,
    random: &mut Random,
    codes: &mut [i8],
    scales: &mut [f32],
) {
    for (index, code) in codes.iter_mut().enumerate() {
        *code = match contents {
            _ if index % shape.padded_cols() >= shape.cols() => 0,
            Contents::Random => ((random.bits() >> 33) % 255) as i8,
            Contents::Ends => [-127, 127][(random.bits() >> 63) as usize],
            Contents::Largest => 127,
        };
        if *code == -128 {
            *code = -127;
        }
    }
    for scale in scales {
        *scale = random.unit().abs() * [1.0, 1e-38, 1e24][(random.bits() >> 40) as usize % 3];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;
    use bytemuck::Zeroable;

    #[test]
    fn every_table_has_the_portable_products() {
        let mut memory = std::vec![MemoryBlock::zeroed(); 1024];
        for kernels in kernels::available() {
            let equal = compare_products(kernels, &mut memory)
                .unwrap_or_else(|error| panic!("{}: {error}", kernels.name));
            // Six widths, three contents, four numbers of tokens, and the groups that shapes have.
            assert!(equal > 6 * 3 * 4 * SHAPES.len(), "{equal}");
        }
    }

    #[test]
    fn a_broken_product_is_found() {
        let mut memory = std::vec![MemoryBlock::zeroed(); 1024];
        let mut broken = *kernels::best();
        broken.int3.gemm = |matrix, activations, tiles, output| {
            (kernels::best().int3.gemm)(matrix, activations, tiles, output);
            if activations.tokens == 5 && matrix.shape().rows() == 73 {
                output.store(4, 72, &[1.0; 8]);
            }
        };
        let error = compare_products(&broken, &mut memory);
        assert!(
            matches!(error, Err(ComparisonError::Differs { bits: 3, rows: 73, tokens: 5, output: 364, .. })),
            "{error:?}"
        );
        assert!(matches!(compare_products(&broken, &mut memory[..8]), Err(ComparisonError::Memory(_))));
    }
}
