//! The matrix products.

use super::*;
use crate::executor::{Executor, ROW_GRANULARITY, RowShare, Serial, for_each_row_share};
use core::ops::{Range, RangeInclusive};
use half::f16;
use rescomp_formats::matrix::{CodebookMatrix, MatrixView, pack_codebook, pack_scaled};
use std::{format, vec};

/// How the codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Codes {
    Random,
    /// Levels one apart, which a kernel may compute otherwise, where a matrix chooses them.
    Consecutive,
    /// Evenly spaced levels near zero, which more kernels may: two apart and at most 4 at 2 bits and 8 at 3, else one apart and at most 8.
    /// Codes as in `Extreme`.
    Even,
    /// All at the ends of their ranges, with signs that make every product as large as it gets.
    Extreme,
}

struct Case {
    shape: MatrixShape,
    /// The section, two bytes into aligned memory.
    memory: Vec<u64>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    tokens: usize,
}

impl Case {
    fn new(
        random: &mut Random,
        (rows, cols): (u32, u32),
        group: Option<u32>,
        width: CodeWidth,
        layout: Layout,
        tokens: usize,
        kind: Codes,
    ) -> Case {
        let group = group.unwrap_or(MatrixShape::whole_row(cols));
        let shape = MatrixShape::new(rows, cols, group, width, layout).expect("shape");
        let mut memory = vec![0; shape.section_bytes().div_ceil(8) + 1];
        let section = &mut bytemuck::cast_slice_mut(&mut memory)[2..][..shape.section_bytes()];
        pack(random, &shape, kind, section);
        let code = |random: &mut Random| match kind {
            Codes::Random | Codes::Consecutive => random.code(-127, 127),
            Codes::Extreme | Codes::Even => [-127, 127][random.code(0, 3) as usize / 3],
        };
        let codes = (0..tokens * shape.padded_cols())
            .map(|i| if i % shape.padded_cols() < shape.cols() { code(random) } else { 0 })
            .collect();
        let scales = (0..tokens * shape.steps())
            .map(|_| random.unit().abs() * [1.0, 1e-38, 1e24][random.code(0, 2) as usize])
            .collect();
        Case { shape, memory, codes, scales, tokens }
    }

    fn section_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[2..][..self.shape.section_bytes()]
    }

    fn matrix(&self) -> MatrixView<'_> {
        let section = &bytemuck::cast_slice(&self.memory)[2..][..self.shape.section_bytes()];
        MatrixView::new(self.shape, section).expect("view")
    }

    fn activations(&self) -> Activations<'_> {
        Activations { codes: &self.codes, scales: &self.scales, tokens: self.tokens }
    }

    fn tiles(&self) -> Range<usize> {
        0..self.shape.rows().div_ceil(TILE_ROWS)
    }

    fn run(&self, product: MatrixProduct) -> Vec<f32> {
        let mut output = vec![f32::NAN; self.tokens * self.shape.rows()];
        let mut rows = OutputRows::new(&mut output, self.tokens, self.shape.rows());
        product(&self.matrix(), &self.activations(), self.tiles(), &mut rows);
        output
    }
}

/// Packs random weights.
fn pack(random: &mut Random, shape: &MatrixShape, kind: Codes, section: &mut [u8]) {
    let scale = |random: &mut Random| match random.code(0, 15) {
        0 => f16::ZERO,
        1 => f16::from_bits(3),
        2 => f16::MAX,
        _ => f16::from_f32(random.unit().abs()),
    };
    let places = shape.rows() * shape.cols();
    let Some(levels) = shape.width().levels() else {
        let codes: Vec<i8> = (0..places)
            .map(|_| match kind {
                Codes::Random | Codes::Consecutive => random.code(-127, 127),
                Codes::Extreme | Codes::Even => [-127, 127][random.code(0, 3) as usize / 3],
            })
            .collect();
        let scales: Vec<f16> = (0..shape.rows() * shape.groups()).map(|_| scale(random)).collect();
        return pack_scaled(shape, &codes, &scales, section).expect("pack");
    };
    let highest = (levels - 1) as i8;
    let codes: Vec<u8> = (0..places)
        .map(|_| match kind {
            Codes::Random | Codes::Consecutive => random.code(0, highest) as u8,
            Codes::Extreme | Codes::Even => [0, highest][random.code(0, 3) as usize / 3] as u8,
        })
        .collect();
    let row_scales: Vec<f16> = (0..shape.rows()).map(|_| scale(random)).collect();
    let groups = if shape.has_scale_codes() { shape.groups() } else { 0 };
    let scale_codes: Vec<u8> = (0..shape.rows() * groups).map(|_| random.code(0, 15) as u8).collect();
    let multipliers = match groups {
        0 => [0; 16],
        _ => rising(random, 1..=255, 16).try_into().expect("sixteen"),
    };
    let bound = shape.width().level_bound();
    let lowest = -i32::from(random.code(0, 2 * bound - highest)) + i32::from(bound - highest);
    let apart = if levels <= 8 { 2 } else { 1 };
    let near_zero = -apart * levels as i32 / 2;
    let lowest_even = near_zero + i32::from(random.code(0, apart as i8));
    let evenly =
        |lowest: i32, apart: i32| (0..levels as i32).map(|code| lowest + apart * code).collect::<Vec<_>>();
    let chosen = match kind {
        Codes::Consecutive => Some(evenly(lowest, 1)),
        Codes::Even => Some(evenly(lowest_even, apart)),
        Codes::Random | Codes::Extreme => None,
    };
    let mut table = fixed_levels(shape.width(), levels)
        .or(chosen)
        .unwrap_or_else(|| rising(random, -i32::from(bound)..=bound.into(), levels));
    if kind == Codes::Extreme {
        (table[0], table[levels - 1]) = ((-bound).into(), bound.into());
    }
    let table: Vec<i8> = table.into_iter().map(|level| level as i8).collect();
    let multipliers = multipliers.map(|multiplier| multiplier as u8);
    let matrix = CodebookMatrix {
        levels: &table,
        multipliers,
        codes: &codes,
        scale_codes: &scale_codes,
        row_scales: &row_scales,
    };
    pack_codebook(shape, &matrix, section).expect("pack");
}

/// The levels of a width whose levels no matrix chooses.
fn fixed_levels<T: From<i8>>(width: CodeWidth, levels: usize) -> Option<Vec<T>> {
    (0..levels).map(|code| width.fixed_level(code as u8).map(T::from)).collect()
}

/// Different numbers of a range, in rising order.
fn rising(random: &mut Random, range: RangeInclusive<i32>, count: usize) -> Vec<i32> {
    let span = (range.end() - range.start() + 1) as u64;
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(range.start() + ((random.bits() >> 33) % span) as i32);
        numbers.sort_unstable();
        numbers.dedup();
    }
    numbers
}

const GROUPS: [Option<u32>; 4] = [Some(32), Some(64), Some(128), None];

fn products(kernels: &Kernels, width: CodeWidth) -> [MatrixProduct; 2] {
    let products = kernels.products(Layout::Nr8k4, width);
    [products.gemv, products.gemm]
}

#[test]
fn every_product_equals_the_portable_one() {
    let mut random = Random(1);
    for width in CodeWidth::ALL {
        for cols in 1..=300 {
            for (index, group) in GROUPS.into_iter().enumerate() {
                // Row counts 1..=34 and token counts 1..=9, out of step with the groups.
                let rows = 1 + (cols * 5 + index as u32) % if cols % 10 == 0 { 34 } else { 17 };
                let tokens = 1 + (cols as usize + 3 * index) % 9;
                let kinds = [Codes::Extreme, Codes::Random, Codes::Consecutive, Codes::Even];
                let kind = kinds[(cols as usize + cols as usize / 4 + index) % 4];
                let case = Case::new(&mut random, (rows, cols), group, width, Layout::Nr8k4, tokens, kind);
                let expected = case.run(scalar::portable::product);
                assert!(expected.iter().all(|value| !value.is_nan()));
                for kernels in available() {
                    for product in products(kernels, width) {
                        let what =
                            format!("{} {width:?} {rows} x {cols} {group:?} {tokens} tokens", kernels.name);
                        assert_same_bits(&case.run(product), &expected, &what);
                    }
                }
            }
        }
    }
}

/// As many tiles as make tables of their own for a product worth it, and more columns and rows than one pass takes.
#[test]
fn products_of_many_tiles_equal_the_portable_one() {
    let mut random = Random(8);
    let shapes = [
        (160, 1),
        (161, 32),
        (168, 96),
        (177, 160),
        (184, 300),
        (163, 1023),
        (160, 1056),
        (164, 2177),
        (2081, 40),
    ];
    for width in CodeWidth::ALL {
        for (index, shape) in shapes.into_iter().enumerate() {
            for group in GROUPS {
                let kind = [Codes::Random, Codes::Extreme, Codes::Even][index % 3];
                let case = Case::new(&mut random, shape, group, width, Layout::Nr8k4, 2, kind);
                let expected = case.run(scalar::portable::product);
                for kernels in available() {
                    for product in products(kernels, width) {
                        let what = format!("{} {width:?} {shape:?} {group:?}", kernels.name);
                        assert_same_bits(&case.run(product), &expected, &what);
                    }
                }
            }
        }
    }
}

/// Rows around the length up to which a kernel sums the activations of each step, or of each unit, once for all rows.
#[test]
fn products_of_long_rows_equal_the_portable_one() {
    let mut random = Random(9);
    for cols in [255 * 32, 256 * 32, 257 * 32, 256 * 64 - 32, 256 * 64, 256 * 64 + 1, 257 * 64] {
        for group in GROUPS {
            for kind in [Codes::Random, Codes::Consecutive, Codes::Even] {
                for width in [CodeWidth::Int2, CodeWidth::Int4] {
                    let shape = (17, cols);
                    let case = Case::new(&mut random, shape, group, width, Layout::Nr8k4, 1, kind);
                    let expected = case.run(scalar::portable::product);
                    for kernels in available() {
                        for product in products(kernels, width) {
                            let what = format!("{} {width:?} {shape:?} {group:?} {kind:?}", kernels.name);
                            assert_same_bits(&case.run(product), &expected, &what);
                        }
                    }
                }
            }
        }
    }
}

/// Tables of levels with the largest a width has at their ends, and with the largest that kernels multiply codes for. Of 8 bits the ends
/// alone, which are codes.
fn tables_of_large_levels(width: CodeWidth) -> Vec<Vec<i8>> {
    let bound = width.level_bound();
    let Some(levels) = width.levels() else { return vec![vec![-bound, bound]] };
    let mut range = fixed_levels::<i8>(width, levels).unwrap_or_else(|| (0..levels as i8).collect());
    (range[0], range[levels - 1]) = (-bound, bound);
    let evenly = |lowest: i8, spacing: i8| (0..levels as i8).map(|code| lowest + spacing * code).collect();
    match width {
        CodeWidth::Int2 => vec![range, evenly(-4, 2), evenly(-2, 2), evenly(-bound, 2)],
        CodeWidth::Int3 => vec![range, evenly(-8, 2), evenly(-6, 2), evenly(-bound, 2)],
        CodeWidth::Int4 => vec![range, evenly(-8, 1), evenly(-7, 1), evenly(-bound, 1)],
        _ => vec![range],
    }
}

/// All products of one sign: what overflows narrow accumulators, if anything does.
#[test]
fn the_largest_sums_fit() {
    /// Enough for tables that serve many tiles.
    const ROWS: usize = 163;
    let cols = 1024;
    for width in CodeWidth::ALL {
        for (table, activation) in
            tables_of_large_levels(width).iter().flat_map(|table| [(table, 127), (table, -127)])
        {
            for weight in [table[0], table[table.len() - 1]] {
                for group in GROUPS {
                    let mut case = Case::new(
                        &mut Random(2),
                        (ROWS as u32, 1024),
                        group,
                        width,
                        Layout::Nr8k4,
                        5,
                        Codes::Random,
                    );
                    let shape = case.shape;
                    let multiplier = match width.levels() {
                        Some(levels) => {
                            let groups = if shape.has_scale_codes() { shape.groups() } else { 0 };
                            let matrix = CodebookMatrix {
                                levels: table,
                                multipliers: core::array::from_fn(|i| u8::from(groups > 0) * (240 + i as u8)),
                                codes: &vec![
                                    if weight == table[0] { 0 } else { levels as u8 - 1 };
                                    ROWS * cols
                                ],
                                scale_codes: &vec![15; ROWS * groups],
                                row_scales: &[f16::ONE; ROWS],
                            };
                            pack_codebook(&shape, &matrix, case.section_mut()).expect("pack");
                            if groups > 0 { 255 } else { 1 }
                        }
                        None => {
                            let scales = vec![f16::ONE; ROWS * shape.groups()];
                            pack_scaled(&shape, &vec![weight; ROWS * cols], &scales, case.section_mut())
                                .expect("pack");
                            1
                        }
                    };
                    case.codes.fill(activation);
                    case.scales.fill(1.0);
                    // A step's sum isn't exact in f32 any more, but of equal steps, so neither is one of their number.
                    let step =
                        multiplier * i64::from(weight) * i64::from(activation) * shape.step_elems() as i64;
                    let unit = if shape.has_codebook() { shape.row_scale_unit() } else { 1.0 };
                    let expected = (0..shape.steps()).fold(0.0f32, |sum, _| sum + step as f32) * unit;
                    for kernels in available() {
                        for product in products(kernels, width) {
                            assert_same_bits(&case.run(product), &vec![expected; 5 * ROWS], kernels.name);
                        }
                    }
                }
            }
        }
    }
}

/// The portable product itself, against codes and scales looked up one by one and summed in f64.
#[test]
fn the_portable_product_is_the_definition() {
    let mut random = Random(3);
    for layout in Layout::ALL {
        for width in CodeWidth::ALL {
            for cols in [1, 31, 32, 33, 100, 128, 129, 257] {
                for group in GROUPS {
                    let case = Case::new(&mut random, (11, cols), group, width, layout, 9, Codes::Random);
                    let matrix = case.matrix();
                    let (product, _) = scalar().matrix_product(&case.shape, 9);
                    let found = case.run(product);
                    for (i, &found) in found.iter().enumerate() {
                        let (token, row) = (i / 11, i % 11);
                        let (mut sum, mut magnitude) = (0.0, 0.0);
                        for col in 0..case.shape.cols() {
                            let group = col / case.shape.group_elems();
                            let weight = f64::from(matrix.unit_levels(row, col / 32)[col % 32])
                                * f64::from(matrix.multiplier(row, group))
                                * f64::from(matrix.scale(row, group));
                            let activation = f64::from(case.codes[token * case.shape.padded_cols() + col])
                                * f64::from(
                                    case.scales[token * case.shape.steps() + col / case.shape.step_elems()],
                                );
                            sum += weight * activation;
                            magnitude += (weight * activation).abs();
                        }
                        // A step rounds its integer or the product of its scales, and its sum, each by at most eps/2 of the
                        // magnitudes so far; the row's scale rounds once more; and what lies below the normal numbers.
                        let steps = case.shape.steps() as f64;
                        let bound = (steps + 2.0) * f64::from(f32::EPSILON) * magnitude
                            + (steps * 16_384.0 * 128.0 + 65_504.0 * steps) * 2e-45;
                        assert!(
                            (f64::from(found) - sum).abs() <= bound,
                            "{layout:?} {width:?} {cols} {group:?}: {found} {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_is_the_same_alone_and_in_company() {
    let mut random = Random(4);
    for width in CodeWidth::ALL {
        for layout in Layout::ALL {
            let case = Case::new(&mut random, (21, 200), Some(64), width, layout, 9, Codes::Random);
            for kernels in available() {
                let together = case.run(kernels.matrix_product(&case.shape, 9).0);
                for token in 0..9 {
                    let codes = &case.codes[token * case.shape.padded_cols()..][..case.shape.padded_cols()];
                    let scales = &case.scales[token * case.shape.steps()..][..case.shape.steps()];
                    let mut alone = vec![f32::NAN; 21];
                    (kernels.matrix_product(&case.shape, 1).0)(
                        &case.matrix(),
                        &Activations { codes, scales, tokens: 1 },
                        case.tiles(),
                        &mut OutputRows::new(&mut alone, 1, 21),
                    );
                    assert_same_bits(&alone, &together[token * 21..][..21], kernels.name);
                }
            }
        }
    }
}

/// Runs a product split by rows.
fn run_split(case: &Case, product: MatrixProduct, executor: &dyn Executor, granularity: usize) -> Vec<f32> {
    let rows = case.shape.rows();
    let mut output = vec![f32::NAN; case.tokens * rows];
    let mut views = [OutputRows::new(&mut output, case.tokens, rows)];
    for_each_row_share(executor, &mut views, granularity, usize::MAX, |shares| {
        for RowShare { range, rows } in shares {
            let tiles = range.start / TILE_ROWS..range.end.div_ceil(TILE_ROWS);
            product(&case.matrix(), &case.activations(), tiles, rows);
        }
    });
    output
}

#[test]
fn any_split_gives_the_same_rows() {
    let mut random = Random(5);
    for width in CodeWidth::ALL {
        for rows in [1, 7, 8, 17, 40, 75, 500] {
            for tokens in [1, 4, 7] {
                let case = Case::new(
                    &mut random,
                    (rows, 160),
                    Some(64),
                    width,
                    Layout::Nr8k4,
                    tokens,
                    Codes::Random,
                );
                for kernels in available() {
                    let (product, name) = kernels.matrix_product(&case.shape, tokens);
                    let expected = case.run(product);
                    assert_same_bits(&run_split(&case, product, &Serial, ROW_GRANULARITY), &expected, name);
                    #[cfg(feature = "std")]
                    for threads in 1..=3 {
                        let pool = crate::threads::ThreadPool::new(threads).expect("threads");
                        for granularity in [TILE_ROWS, ROW_GRANULARITY] {
                            assert_same_bits(&run_split(&case, product, &pool, granularity), &expected, name);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_part_of_the_tiles_writes_those_rows_and_no_others() {
    let mut random = Random(6);
    for width in CodeWidth::ALL {
        let case = Case::new(&mut random, (37, 96), None, width, Layout::Nr8k4, 3, Codes::Random);
        let expected = case.run(scalar::portable::product);
        for kernels in available() {
            for product in products(kernels, width) {
                for start in 0..5 {
                    for end in start..=5 {
                        // Sixteen columns wide, so rows beyond the tiles' stay NaN and rows beyond sixteen are dropped.
                        let mut output = [f32::NAN; 3 * 16];
                        let mut rows = OutputRows::new(&mut output, 3, 16);
                        product(&case.matrix(), &case.activations(), start..end, &mut rows);
                        for token in 0..3 {
                            for row in 0..16 {
                                let from = token * 37 + start * 8 + row;
                                let found = output[token * 16 + row];
                                if row >= (end - start) * 8 {
                                    assert!(found.is_nan(), "{}: {start}..{end} row {row}", kernels.name);
                                } else if start * 8 + row < 37 {
                                    assert_same_bits(&[found], &expected[from..=from], kernels.name);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_with_f32_activations_agree_and_are_right() {
    let mut random = Random(7);
    for layout in Layout::ALL {
        for width in CodeWidth::ALL {
            for cols in [1, 17, 32, 100, 129, 300] {
                for group in GROUPS {
                    let tokens = [1, 2, 17][cols as usize % 3];
                    let case =
                        Case::new(&mut random, (11, cols), group, width, layout, tokens, Codes::Random);
                    let input = random.values(Kind::Usual, tokens * cols as usize);
                    let run = |kernels: &Kernels| {
                        let mut output = vec![f32::NAN; tokens * 11];
                        let mut rows = OutputRows::new(&mut output, tokens, 11);
                        matrix_product_f32(kernels, &case.matrix(), &input, tokens, 0..2, &mut rows);
                        output
                    };
                    let expected = run(scalar());
                    for kernels in others() {
                        assert_same_bits(&run(kernels), &expected, kernels.name);
                    }
                    for (i, &found) in expected.iter().enumerate() {
                        let mut row = vec![0.0; cols as usize];
                        case.matrix().decode_row(i % 11, &mut row);
                        let input = &input[i / 11 * cols as usize..][..cols as usize];
                        let terms = || row.iter().zip(input).map(|(&w, &x)| f64::from(w) * f64::from(x));
                        let sum: f64 = terms().sum();
                        let magnitude: f64 = terms().map(f64::abs).sum();
                        // A lane's roundings and four folds; the values are the decoder's own.
                        let roundings = f64::from(cols) / 16.0 + 6.0;
                        let bound = roundings * f64::from(f32::EPSILON) * magnitude + 1e-37;
                        assert!((f64::from(found) - sum).abs() <= bound, "{found} {sum} {bound}");
                    }
                }
            }
        }
    }
}

#[test]
fn names_say_what_runs() {
    for kernels in available() {
        for layout in Layout::ALL {
            for width in CodeWidth::ALL {
                for tokens in [1, 2] {
                    let shape = MatrixShape::new(8, 32, 32, width, layout).expect("shape");
                    let (_, name) = kernels.matrix_product(&shape, tokens);
                    let fast = layout == Layout::Nr8k4 && kernels.name != "scalar";
                    let backend = match kernels.name {
                        _ if !fast => "portable",
                        // One token would leave half of each SMMLA unused.
                        "neon_i8mm" if tokens == 1 => "neon_dotprod",
                        name => name,
                    };
                    let operation = if tokens == 1 { "gemv" } else { "gemm" };
                    let expected = format!("{operation}_int{}_{}_{backend}", width.bits(), layout.name());
                    assert_eq!(name, expected);
                }
            }
        }
    }
}

#[test]
fn another_encoding_is_refused() {
    for width in CodeWidth::ALL {
        for layout in Layout::ALL {
            let case = Case::new(&mut Random(8), (8, 32), None, width, layout, 1, Codes::Random);
            for kernels in others() {
                for other in
                    CodeWidth::ALL.into_iter().filter(|&other| (other, Layout::Nr8k4) != (width, layout))
                {
                    for product in products(kernels, other) {
                        let result = std::panic::catch_unwind(|| case.run(product));
                        assert!(result.is_err(), "{} for {other:?}: {width:?}, {layout:?}", kernels.name);
                    }
                }
            }
        }
    }
}
