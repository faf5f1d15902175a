//! Hostile containers with low-rank corrections: ranks of the table, and factors behind a matrix.

use super::{HostileFile, small_model};
use crate::forge::{entry, entry_at, put_entry, repair, repair_front};
use crate::tiny::{self, Widths};
use half::f16;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{LowRankShape, MatrixShape, RANK_UNIT};
use rescomp_formats::spec::ModelSpec;

// Places in the table.
const EMBEDDING: usize = 3;
const FINAL_NORM: usize = 4;
const QUERY: usize = 6;
const GATE: usize = 11;
const UP: usize = 12;

/// Gate and down have corrections of rank 32; up is large enough for one, and has none.
fn spec() -> ModelSpec {
    ModelSpec { hidden: 40, intermediate: 36, ..small_model() }
}

pub(super) fn container() -> Vec<u8> {
    tiny::container(&spec(), Widths::Corrected, Layout::Nr8k4).to_vec()
}

fn shape(file: &[u8], index: usize) -> LowRankShape {
    let entry = entry(file, index);
    let width = CodeWidth::from_bits(entry.encoding - 16).expect("a matrix");
    let matrix = MatrixShape::new(entry.rows, entry.cols, entry.group_elems, width, Layout::Nr8k4);
    LowRankShape::new(matrix.expect("a shape"), u32::from(entry.rank_units) * RANK_UNIT)
        .expect("a correction")
}

pub(super) fn files() -> Vec<HostileFile> {
    let sound = container();
    let rank = |name, attack, index, offset: usize, rank_units| {
        let mut file = sound.clone();
        let mut changed = entry(&file, index);
        changed.rank_units = rank_units;
        put_entry(&mut file, index, &changed);
        repair_front(&mut file);
        HostileFile { name, attack, offset: Some((entry_at(&sound, index) + offset) as u64), bytes: file }
    };
    let begin = entry(&sound, GATE).offset_bytes;
    let content = |name, attack, at: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[begin as usize + at..][..bytes.len()].copy_from_slice(bytes);
        repair(&mut file);
        HostileFile { name, attack, offset: Some(begin + at as u64), bytes: file }
    };
    let gate = shape(&sound, GATE);
    let (right, left) = (gate.right_range().start, gate.left_range().start);
    assert!(gate.matrix().section_bytes() < right, "padding between the matrix and V");
    let infinite = f16::INFINITY.to_le_bytes();
    let scales = |shape: &MatrixShape| shape.scales_offset_bytes();
    vec![
        rank("container/rank-of-embedding.rescomp", "a correction of the embedding", EMBEDDING, 7, 1),
        rank("container/rank-of-norm.rescomp", "a correction of a norm", FINAL_NORM, 7, 1),
        rank("container/rank-above-rows.rescomp", "a larger rank than a matrix has rows", QUERY, 7, 1),
        rank("container/rank-most.rescomp", "the largest rank that an entry can spell", GATE, 7, u8::MAX),
        rank("container/rank-without-factors.rescomp", "a rank where there are no factors", UP, 32, 1),
        rank("container/factors-without-rank.rescomp", "factors where there is no rank", GATE, 32, 0),
        content(
            "container/factor-padding.rescomp",
            "a byte between a matrix and its factors",
            right - 1,
            &[1],
        ),
        content("container/factor-code.rescomp", "a code of -128 in a factor", left, &[0x80]),
        content(
            "container/factor-scale-infinite.rescomp",
            "an infinite scale of V",
            right + scales(gate.right()),
            &infinite,
        ),
        content(
            "container/factor-scale-negative.rescomp",
            "a negative scale of U",
            left + scales(gate.left()),
            &f16::NEG_ONE.to_le_bytes(),
        ),
    ]
}
