//! What is packed is read back; what can't be a matrix is refused, by the packer and by the check.

use super::*;
use crate::encodings::{CodeWidth, MAX_UNIT_WORDS, UNIT_ELEMS, WORD_BYTES};
use crate::layouts::Layout;
use half::f16;
use proptest::prelude::*;
use std::vec::Vec;

const NARROW: [CodeWidth; 5] =
    [CodeWidth::Int2, CodeWidth::Int3, CodeWidth::Int4, CodeWidth::Int5, CodeWidth::Int6];

/// A codebook matrix in vectors of its own.
#[derive(Clone, Debug)]
struct Parts {
    shape: MatrixShape,
    levels: Vec<i8>,
    multipliers: [u8; TABLE_ENTRIES],
    codes: Vec<u8>,
    scale_codes: Vec<u8>,
    row_scales: Vec<f16>,
}

impl Parts {
    /// Numbers from a counter; every code, scale code and table entry occurs.
    fn new((rows, cols): (u32, u32), group: u32, width: CodeWidth, layout: Layout) -> Parts {
        let group = if group == 0 { MatrixShape::whole_row(cols) } else { group };
        let shape = MatrixShape::new(rows, cols, group, width, layout).unwrap();
        let bound = width.level_bound();
        let count = width.levels().unwrap();
        let levels = (0..count).map(|index| (index * 2) as i8 + 1 - count as i8);
        let mut levels: Vec<i8> = levels.collect();
        (levels[0], levels[count - 1]) = (-bound, bound);
        let groups = if shape.has_scale_codes() { shape.groups() } else { 0 };
        let multipliers = match groups {
            0 => [0; TABLE_ENTRIES],
            _ => core::array::from_fn(|index| (index * 17) as u8).map(|multiplier| multiplier.max(1)),
        };
        let rows = shape.rows();
        Parts {
            shape,
            levels,
            multipliers,
            codes: (0..rows * shape.cols()).map(|index| (index * 7 % 67 % count) as u8).collect(),
            scale_codes: (0..rows * groups).map(|index| (index * 5 % 16) as u8).collect(),
            row_scales: (0..rows).map(|row| f16::from_f32(row as f32 / 64.0)).collect(),
        }
    }

    fn pack(&self) -> Result<Vec<u8>, PackError> {
        let mut section = vec![0xff; self.shape.section_bytes()];
        let matrix = CodebookMatrix {
            levels: &self.levels,
            multipliers: self.multipliers,
            codes: &self.codes,
            scale_codes: &self.scale_codes,
            row_scales: &self.row_scales,
        };
        pack_codebook(&self.shape, &matrix, &mut section).map(|()| section)
    }

    fn refused(change: impl FnOnce(&mut Parts)) -> PackError {
        let mut parts = Parts::new((9, 70), 32, CodeWidth::Int3, Layout::Nr8k4);
        change(&mut parts);
        parts.pack().unwrap_err()
    }
}

/// Bytes at an even address.
struct Even(Vec<u16>);

impl Even {
    fn new(bytes: &[u8]) -> Even {
        Even(bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
    }
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
    fn check(&self, shape: MatrixShape) -> Result<(), MatrixError> {
        MatrixView::new(shape, self.bytes())?.check(self.bytes())
    }
}

#[test]
fn what_is_packed_is_read_back() {
    for layout in Layout::ALL {
        for width in NARROW {
            let sizes = [(9, 70), (1, 1), (8, 32), (9, 64), (3, 65), (17, 200), (11, 300)];
            for (rows, cols) in sizes.into_iter().take(if cfg!(miri) { 1 } else { 7 }) {
                for group in [0, 32, 64, 128] {
                    let parts = Parts::new((rows, cols), group, width, layout);
                    let (shape, section) = (parts.shape, Even::new(&parts.pack().unwrap()));
                    assert_eq!(section.check(shape), Ok(()), "{shape:?}");
                    let view = MatrixView::new(shape, section.bytes()).unwrap();
                    let (cols, groups) = (cols as usize, shape.groups());
                    for row in 0..rows as usize {
                        let mut values = vec![f32::NAN; cols];
                        view.decode_row(row, &mut values);
                        for (col, value) in values.into_iter().enumerate() {
                            let code = parts.codes[row * cols + col];
                            let level = parts.levels[usize::from(code)];
                            let group = col / shape.group_elems();
                            let multiplier = match parts.scale_codes.get(row * groups + group) {
                                Some(&code) => parts.multipliers[usize::from(code)],
                                None => 1,
                            };
                            assert_eq!(view.unit_codes(row, col / UNIT_ELEMS)[col % UNIT_ELEMS], code);
                            assert_eq!(view.unit_levels(row, col / UNIT_ELEMS)[col % UNIT_ELEMS], level);
                            assert_eq!(view.multiplier(row, group), multiplier);
                            // Exact in f64, so rounded once.
                            let multiplier =
                                if shape.has_scale_codes() { f64::from(multiplier) / 256.0 } else { 1.0 };
                            let exact = f64::from(level) / 64.0 * multiplier;
                            assert_eq!(value, (exact * parts.row_scales[row].to_f64()) as f32);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn eight_bits_are_read_back() {
    for layout in Layout::ALL {
        for (rows, cols, group) in [(1, 1, 32), (9, 70, 64), (17, 130, 128), (5, 96, 96)] {
            let shape = MatrixShape::new(rows, cols, group, CodeWidth::Int8, layout).unwrap();
            let codes: Vec<i8> = (0..rows * cols).map(|index| (index * 7 % 255) as u8 as i8).collect();
            let codes: Vec<i8> = codes.into_iter().map(|code| code.max(-127)).collect();
            let scales: Vec<f16> =
                (0..shape.rows() * shape.groups()).map(|index| f16::from_f32(index as f32 / 8.0)).collect();
            let mut section = vec![0xff; shape.section_bytes()];
            pack_scaled(&shape, &codes, &scales, &mut section).unwrap();
            let section = Even::new(&section);
            assert_eq!(section.check(shape), Ok(()));
            let view = MatrixView::new(shape, section.bytes()).unwrap();
            for row in 0..shape.rows() {
                let mut values = vec![f32::NAN; shape.cols()];
                view.decode_row(row, &mut values);
                for (col, value) in values.into_iter().enumerate() {
                    let scale = scales[row * shape.groups() + col / shape.group_elems()].to_f32();
                    assert_eq!(value, f32::from(codes[row * shape.cols() + col]) * scale);
                }
            }
        }
    }
}

/// The parts of a section, where docs/container.md says that they are.
#[test]
fn the_bytes_are_the_documented_ones() {
    let parts = Parts::new((9, 70), 32, CodeWidth::Int4, Layout::Nr8k4);
    let (shape, section) = (parts.shape, parts.pack().unwrap());
    let tables: Vec<u8> = parts.levels.iter().map(|&level| level as u8).chain(parts.multipliers).collect();
    assert_eq!(section[..32], tables);
    assert_eq!(section[32..64], [0; 32]);
    // 16 padded rows of 96 padded columns at half a byte.
    assert_eq!((shape.codes_offset_bytes(), shape.codes_bytes()), (64, 768));
    assert_eq!(section[64], parts.codes[0] | parts.codes[4] << 4);
    assert_eq!(section[64 + 4], parts.codes[70] | parts.codes[70 + 4] << 4);
    // Three groups: two pairs a row, in the order (tile, pair, row).
    assert_eq!((shape.scale_codes_offset_bytes(), shape.scale_codes_bytes()), (832, 32));
    assert_eq!(section[832 + 1], parts.scale_codes[3] | parts.scale_codes[4] << 4);
    assert_eq!(section[832 + 8 + 1], parts.scale_codes[5]);
    assert_eq!(section[832 + 16], parts.scale_codes[24] | parts.scale_codes[25] << 4);
    assert_eq!((shape.scales_offset_bytes(), section.len()), (864, 864 + 32));
    assert_eq!(section[864 + 2..][..2], parts.row_scales[1].to_le_bytes());
    // A stacked width: the table of high parts, four words of high codes of each row, then those of low ones.
    let parts = Parts::new((9, 70), 32, CodeWidth::Int6, Layout::Nr8k4);
    let section = parts.pack().unwrap();
    assert_eq!([section[0] as i8, section[1] as i8, section[15] as i8], [-60, -52, 60]);
    assert_eq!(section[64 + 4], parts.codes[70] >> 2 | parts.codes[70 + 4] >> 2 << 4);
    let low = [0, 4, 8, 12].map(|column| parts.codes[70 + column] & 3);
    assert_eq!(section[64 + 4 * 32 + 4], low[0] | low[1] << 2 | low[2] << 4 | low[3] << 6);
    // A whole row needs no scale codes: tables, codes, row scales.
    let parts = Parts::new((3, 70), 0, CodeWidth::Int2, Layout::Rows);
    assert_eq!(parts.shape.section_bytes(), 64 + (3 * 24_usize).next_multiple_of(64) + 2 * 3);
    assert_eq!(parts.pack().unwrap()[16..64], [0; 48]);
}

#[test]
fn the_packer_names_what_is_out_of_place() {
    let content = |change: fn(&mut Parts)| match Parts::refused(change) {
        PackError::Content(error) => error,
        other => panic!("{other}"),
    };
    let level = |index, found, lowest, highest| MatrixError::Level { index, found, lowest, highest };
    assert_eq!(content(|parts| parts.levels[0] = -32), level(0, -32, -31, 24));
    assert_eq!(content(|parts| parts.levels[7] = 32), level(7, 32, 6, 31));
    assert_eq!(content(|parts| parts.levels[3] = parts.levels[2]), level(3, -3, -2, 27));
    assert_eq!(content(|parts| parts.levels[0] = 31), level(0, 31, -31, 24));
    let multiplier =
        |index, found, lowest, highest| MatrixError::Multiplier { index, found, lowest, highest };
    assert_eq!(content(|parts| parts.multipliers[0] = 0), multiplier(0, 0, 1, 240));
    assert_eq!(content(|parts| parts.multipliers[0] = 255), multiplier(0, 255, 1, 240));
    assert_eq!(content(|parts| parts.multipliers[2] = 17), multiplier(2, 17, 18, 242));
    assert_eq!(content(|parts| parts.codes[70] = 8), MatrixError::Code { row: 1, col: 0, found: 8 });
    let bits = |value: f16| MatrixError::RowScale { row: 2, bits: value.to_bits() };
    assert_eq!(content(|parts| parts.row_scales[2] = f16::NAN), bits(f16::NAN));
    assert_eq!(content(|parts| parts.row_scales[2] = f16::INFINITY), bits(f16::INFINITY));
    assert_eq!(content(|parts| parts.row_scales[2] = f16::NEG_ZERO), bits(f16::NEG_ZERO));
    let refused = Parts::refused(|parts| parts.scale_codes[4] = 16);
    assert_eq!(refused, PackError::ScaleCode { row: 1, group: 1, found: 16 });
    let length = |change: fn(&mut Parts)| match Parts::refused(change) {
        PackError::Length { what, expected, found } => (what, expected, found),
        other => panic!("{other}"),
    };
    assert_eq!(length(|parts| parts.levels.truncate(7)), ("levels", 8, 7));
    assert_eq!(length(|parts| parts.codes.truncate(629)), ("codes", 630, 629));
    assert_eq!(length(|parts| parts.scale_codes.clear()), ("scale codes", 27, 0));
    assert_eq!(length(|parts| parts.row_scales.truncate(8)), ("row scales", 9, 8));
    let whole_row = Parts { multipliers: [1; 16], ..Parts::new((1, 8), 0, CodeWidth::Int2, Layout::Rows) };
    let error = MatrixError::Multiplier { index: 0, found: 1, lowest: 0, highest: 0 };
    assert_eq!(whole_row.pack(), Err(PackError::Content(error)));
}

/// No matrix chooses the levels of 5 and 6 bits: a kernel adds parts that it knows.
#[test]
fn stacked_widths_have_one_table() {
    for (width, step) in [(CodeWidth::Int5, 4), (CodeWidth::Int6, 8)] {
        let parts = Parts::new((9, 70), 32, width, Layout::Nr8k4);
        let level = |index, found, only| MatrixError::Level { index, found, lowest: only, highest: only };
        for index in 0..16 {
            let only = step * index as i8 - step / 2 * 15;
            assert_eq!(parts.pack().unwrap()[index], only as u8);
            for found in [0, only - 1, only + 1, i8::MIN, i8::MAX] {
                assert_eq!(changed(&parts, index, found as u8), Err(level(index, found, only)));
            }
        }
        for index in 0..parts.levels.len() {
            let mut other = parts.clone();
            other.levels[index] += 1;
            let only = parts.levels[index];
            assert_eq!(other.pack(), Err(PackError::Content(level(index, only + 1, only))));
        }
    }
    let error = MatrixError::Level { index: 3, found: 7, lowest: -36, highest: -36 };
    assert_eq!(std::string::ToString::to_string(&error), "level 3: expected -36, found 7");
}

#[test]
fn a_form_of_another_width_is_refused() {
    let narrow = MatrixShape::new(1, 32, 32, CodeWidth::Int4, Layout::Rows).unwrap();
    let error = pack_scaled(&narrow, &[0; 32], &[f16::ONE], &mut [0; 144]).unwrap_err();
    assert_eq!(error, PackError::Form { bits: 4, expected: "8 with scales a group" });
    let wide = MatrixShape::new(1, 32, 32, CodeWidth::Int8, Layout::Rows).unwrap();
    let parts = Parts { shape: wide, ..Parts::new((1, 32), 32, CodeWidth::Int4, Layout::Rows) };
    assert_eq!(parts.pack(), Err(PackError::Form { bits: 8, expected: "2 to 6 with a codebook" }));
    let error = pack_scaled(&wide, &[i8::MIN; 32], &[f16::ONE], &mut [0; 66]).unwrap_err();
    assert_eq!(error, PackError::Content(MatrixError::Code { row: 0, col: 0, found: -128 }));
}

/// One byte of a valid section changed.
fn changed(parts: &Parts, at: usize, to: u8) -> Result<(), MatrixError> {
    let mut section = parts.pack().unwrap();
    section[at] = to;
    Even::new(&section).check(parts.shape)
}

#[test]
fn the_check_finds_tables_out_of_order() {
    let parts = Parts::new((9, 70), 32, CodeWidth::Int3, Layout::Nr8k4);
    let level = |index, found, lowest, highest| Err(MatrixError::Level { index, found, lowest, highest });
    assert_eq!(changed(&parts, 0, -32i8 as u8), level(0, -32, -31, 24));
    assert_eq!(changed(&parts, 0, -128i8 as u8), level(0, -128, -31, 24));
    assert_eq!(changed(&parts, 7, 127), level(7, 127, 6, 31));
    assert_eq!(changed(&parts, 3, -5i8 as u8), level(3, -5, -2, 27));
    let multiplier =
        |index, found, lowest, highest| Err(MatrixError::Multiplier { index, found, lowest, highest });
    assert_eq!(changed(&parts, 16, 0), multiplier(0, 0, 1, 240));
    assert_eq!(changed(&parts, 17, 1), multiplier(1, 1, 2, 241));
    assert_eq!(changed(&parts, 31, 0), multiplier(15, 0, 239, 255));
    for at in (8..16).chain(32..64) {
        assert_eq!(changed(&parts, at, 1), Err(MatrixError::Padding { offset_bytes: at, found: 1 }));
    }
    let whole_row = Parts::new((9, 70), 0, CodeWidth::Int3, Layout::Nr8k4);
    for index in 0..16 {
        assert_eq!(changed(&whole_row, 16 + index, 1), multiplier(index, 1, 0, 0));
    }
}

#[test]
fn the_check_finds_padding_and_scales_that_are_not() {
    for layout in Layout::ALL {
        for width in NARROW {
            // 70 columns are two units and a part of a third; three groups leave half of a last byte.
            let parts = Parts::new((9, 70), 32, width, layout);
            let shape = parts.shape;
            let section = parts.pack().unwrap();
            let padding = |offset_bytes, found| Err(MatrixError::Padding { offset_bytes, found });
            let between = [
                shape.codes_offset_bytes() + shape.codes_bytes()..shape.scale_codes_offset_bytes(),
                shape.scale_codes_offset_bytes() + shape.scale_codes_bytes()..shape.scales_offset_bytes(),
            ];
            for at in between.into_iter().flatten() {
                assert_eq!(changed(&parts, at, 1), padding(at, 1), "{layout:?} {width:?}");
            }
            // The last column of the last unit: lane 3 of quad 7.
            let at = |row, word| shape.codes_offset_bytes() + 4 * shape.word_index(row, 2, word) + 3;
            let last = at(4, width.bits() - 1);
            let found = changed(&parts, last, section[last] | 0xe0).unwrap_err();
            let unit = at(4, 0) - 3;
            assert!(
                matches!(found, MatrixError::Padding { offset_bytes, .. } if offset_bytes == unit),
                "{found}"
            );
            let odd = shape.scale_codes_offset_bytes() + shape.scale_code_index(5, 1);
            assert_eq!(changed(&parts, odd, section[odd] | 0x10), padding(odd, 1));
            let scale = |row: usize| shape.scales_offset_bytes() + 2 * row + 1;
            for high in [0x7c, 0x7e, 0x80, 0xff] {
                let found = changed(&parts, scale(3), high).unwrap_err();
                assert!(matches!(found, MatrixError::RowScale { row: 3, .. }), "{found}");
            }
            if layout == Layout::Nr8k4 {
                let row = 12;
                assert_eq!(changed(&parts, scale(row), 1), padding(scale(row) - 1, 0x100));
                let codes = shape.scale_codes_offset_bytes() + shape.scale_code_index(row, 0);
                assert_eq!(changed(&parts, codes, 3), padding(codes, 3));
                let word = shape.codes_offset_bytes() + 4 * shape.word_index(row, 1, 0);
                // The lowest bit of the first word is one of some code, whose number the width says.
                let mut words = [[0; WORD_BYTES]; MAX_UNIT_WORDS];
                words[0][0] = 1;
                let codes = width.decode_unit(&words);
                let found = codes.into_iter().find(|&code| code != 0).unwrap();
                assert_eq!(changed(&parts, word, 1), padding(word, found.into()));
            }
        }
    }
}

#[test]
fn sections_of_another_size_are_refused() {
    let parts = Parts::new((9, 70), 32, CodeWidth::Int2, Layout::Rows);
    let section = parts.pack().unwrap();
    let (shape, expected) = (parts.shape, section.len());
    for found in [0, 15, 63, 64, expected - 1] {
        let error = MatrixView::new(shape, &section[..found]).unwrap_err();
        assert_eq!(error, MatrixError::Length { expected, found });
    }
    let even = Even::new(&[&section[..], &[0, 0]].concat());
    let odd = &even.bytes()[1..=expected];
    assert_eq!(MatrixView::new(shape, odd).unwrap_err(), MatrixError::Unaligned);
}

#[test]
fn steps_are_sixty_four_columns_but_for_short_groups_of_f16_scales() {
    let step = |cols, group, width| {
        MatrixShape::new(1, cols, group, width, Layout::Rows).map(|shape| (shape.step_elems(), shape.steps()))
    };
    for width in NARROW {
        for group in [32, 64, 128] {
            assert_eq!(step(300, group, width), Ok((64, 5)));
        }
        assert_eq!(step(20, 32, width), Ok((64, 1)));
        assert_eq!(step(300, 320, width), Ok((64, 5)));
    }
    assert_eq!(step(300, 32, CodeWidth::Int8), Ok((32, 10)));
    assert_eq!(step(300, 64, CodeWidth::Int8), Ok((64, 5)));
    assert_eq!(step(300, 128, CodeWidth::Int8), Ok((64, 5)));
    assert_eq!(step(300, 320, CodeWidth::Int8), Ok((64, 5)));
}

proptest! {
    /// Any change of any byte is refused or gives numbers within their bounds; nothing panics.
    #[test]
    fn changed_sections_never_break_a_bound(place in any::<prop::sample::Index>(), value in any::<u8>()) {
        for width in NARROW {
            let parts = Parts::new((9, 70), 32, width, Layout::Nr8k4);
            let mut section = parts.pack().unwrap();
            section[place.index(parts.shape.section_bytes())] = value;
            let section = Even::new(&section);
            // Nothing is decoded before it is checked; that it is must not matter for safety.
            let view = MatrixView::new(parts.shape, section.bytes()).unwrap();
            let most = f32::from(width.level_bound()) * 255.0 * 65504.0;
            let checked = section.check(parts.shape).is_ok();
            for row in 0..9 {
                let mut values = [f32::NAN; 70];
                view.decode_row(row, &mut values);
                prop_assert!(!checked || values.iter().all(|value| value.abs() <= most));
            }
        }
    }
}
