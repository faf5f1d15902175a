//! What a product needs of its matrix and its activations, measured once a product: where rows are short, what a walk of a few tiles begins
//! with is a part of its cost.

use super::Word;
use super::codebook::codebook;
use super::scaled::{self, group_scales};
use crate::kernels::TILE_ROWS;
use crate::kernels::quantized::Activations;
use rescomp_formats::encodings::{UNIT_ELEMS, WORD_BYTES};
use rescomp_formats::matrix::{MatrixShape, MatrixView, STEP_ELEMS};

/// Bytes of the scale codes of a tile for two groups.
pub(in crate::kernels) type Octet = [u8; TILE_ROWS];

/// The units and steps of a row, and the activations of all tokens.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Tokens<'a> {
    pub(in crate::kernels) units: usize,
    pub(in crate::kernels) steps: usize,
    codes: &'a [[i8; UNIT_ELEMS]],
    scales: &'a [f32],
}

impl<'a> Tokens<'a> {
    #[inline(always)]
    fn new(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self {
        let shape = matrix.shape();
        let (codes, _) = activations.codes.as_chunks();
        Tokens { units: shape.units(), steps: shape.steps(), codes, scales: activations.scales }
    }

    /// The activations of a token, by unit.
    #[inline(always)]
    pub(in crate::kernels) fn codes(&self, token: usize) -> &'a [[i8; UNIT_ELEMS]] {
        &self.codes[token * self.units..][..self.units]
    }

    /// Their scales, by step.
    #[inline(always)]
    pub(in crate::kernels) fn scales(&self, token: usize) -> &'a [f32] {
        &self.scales[token * self.steps..][..self.steps]
    }
}

/// The words of so many tiles.
#[inline(always)]
fn words<'a, const WORDS: usize>(matrix: &MatrixView<'a>, tiles: usize) -> &'a [[Word; WORDS]] {
    let (words, _) = matrix.codes().as_chunks::<{ TILE_ROWS * WORD_BYTES }>();
    &words.as_chunks().0[..tiles * matrix.shape().units()]
}

/// Columns of a codebook matrix's group; 0 where a row is one, without scale codes.
#[inline(always)]
pub(in crate::kernels) fn group_of(shape: &MatrixShape) -> usize {
    if shape.has_scale_codes() { shape.group_elems() } else { 0 }
}

/// Of a codebook matrix of `WORDS` words a unit, with a backend's tables.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Coded<'a, T, const WORDS: usize> {
    pub(in crate::kernels) tables: T,
    /// See [`group_of`].
    pub(in crate::kernels) group: usize,
    /// Octets of a tile.
    pub(in crate::kernels) pairs: usize,
    /// Of all tiles.
    pub(in crate::kernels) words: &'a [[Word; WORDS]],
    pub(in crate::kernels) octets: &'a [Octet],
    pub(in crate::kernels) row_scales: &'a [[u16; TILE_ROWS]],
    pub(in crate::kernels) tokens: Tokens<'a>,
}

impl<'a, T, const WORDS: usize> Coded<'a, T, WORDS> {
    /// All lists are of the same tiles, those of the matrix.
    #[inline(always)]
    pub(in crate::kernels) fn new(tables: T, matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self {
        let (shape, book) = (matrix.shape(), codebook(matrix));
        let (tiles, pairs) = (shape.padded_rows() / TILE_ROWS, shape.scale_code_pairs());
        Coded {
            tables,
            group: group_of(shape),
            pairs,
            words: words(matrix, tiles),
            octets: &book.scale_codes.as_chunks().0[..tiles * pairs],
            row_scales: &book.row_scales.as_chunks().0[..tiles],
            tokens: Tokens::new(matrix, activations),
        }
    }

    /// What the row scales count. Found anew for each tile: kept, it would hold a vector register all along the walk.
    #[inline(always)]
    pub(in crate::kernels) fn row_scale_unit(&self) -> f32 {
        MatrixShape::unit_of_row_scales(self.group > 0)
    }

    /// The units of a tile.
    #[inline(always)]
    pub(in crate::kernels) fn words(&self, tile: usize) -> &'a [[Word; WORDS]] {
        &self.words[tile * self.tokens.units..][..self.tokens.units]
    }

    /// The scale codes of a tile.
    #[inline(always)]
    pub(in crate::kernels) fn octets(&self, tile: usize) -> &'a [Octet] {
        &self.octets[tile * self.pairs..][..self.pairs]
    }
}

/// Of a matrix of 8 bits.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Scaled<'a> {
    /// Units of a step.
    pub(in crate::kernels) step_units: usize,
    /// Steps of a group, as a power of two; where a row is one group so large that every step is in group 0.
    group_steps_log2: u32,
    groups: usize,
    /// Of all tiles.
    words: &'a [[Word; scaled::WORDS]],
    weight_scales: &'a [[u16; TILE_ROWS]],
    pub(in crate::kernels) tokens: Tokens<'a>,
}

impl<'a> Scaled<'a> {
    /// All lists are of the same tiles, those of the matrix.
    #[inline(always)]
    pub(in crate::kernels) fn new(matrix: &MatrixView<'a>, activations: &Activations<'a>) -> Self {
        let shape = matrix.shape();
        let (tiles, groups) = (shape.padded_rows() / TILE_ROWS, shape.groups());
        Scaled {
            step_units: shape.step_elems() / UNIT_ELEMS,
            group_steps_log2: match groups {
                1 => usize::BITS - 1,
                _ => u32::from(shape.group_elems() > STEP_ELEMS),
            },
            groups,
            words: words(matrix, tiles),
            weight_scales: &group_scales(matrix).as_chunks().0[..tiles * groups],
            tokens: Tokens::new(matrix, activations),
        }
    }

    /// The units of a tile.
    #[inline(always)]
    pub(in crate::kernels) fn words(&self, tile: usize) -> &'a [[Word; scaled::WORDS]] {
        &self.words[tile * self.tokens.units..][..self.tokens.units]
    }

    /// The scales of a tile, by group.
    #[inline(always)]
    pub(in crate::kernels) fn weight_scales(&self, tile: usize) -> &'a [[u16; TILE_ROWS]] {
        &self.weight_scales[tile * self.groups..][..self.groups]
    }

    /// The group of a step.
    #[inline(always)]
    pub(in crate::kernels) fn group_of_step(&self, step: usize) -> usize {
        step >> self.group_steps_log2
    }
}
