//! A matrix with a low-rank correction: what is multiplied with activations is `Q + U V`, and all three lie in one section.
//!
//! ```text
//! Q      rows x cols    the matrix, in its own encoding
//!        zeros up to a multiple of 64
//! V      rank x cols    8 bits, a scale a row, in the layout of Q
//!        zeros up to a multiple of 64
//! U      rows x rank    8 bits, a scale a row, in the layout of Q
//! ```
//! A rank is a multiple of 32, so neither factor has padding that the other multiplies with: rows of V fill tiles, columns of U fill
//! units. (Low-rank correction: arXiv:2412.07902; the branch beside the quantized product: arXiv:2411.05007, section 4.)

use super::{MatrixError, MatrixShape, MatrixView, ShapeError};
use crate::encodings::{CodeWidth, UNIT_ELEMS};
use crate::section::SECTION_ALIGNMENT_BYTES;
use core::ops::Range;

/// Ranks are multiples of this.
pub const RANK_UNIT: u32 = UNIT_ELEMS as u32;

/// The largest rank that a section table can spell.
pub const MOST_RANK: u32 = RANK_UNIT * u8::MAX as u32;

/// The shapes of both factors of a correction, and where they lie. Only [`LowRankShape::new`] makes one, so the sizes fit `usize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowRankShape {
    matrix: MatrixShape,
    right: MatrixShape,
    left: MatrixShape,
}

impl LowRankShape {
    /// The largest rank that a matrix of this shape may have: multiples of [`RANK_UNIT`] up to its rows and columns. 0: none.
    pub const fn most(matrix: &MatrixShape) -> u32 {
        let least = if matrix.rows() < matrix.cols() { matrix.rows() } else { matrix.cols() };
        let rank = least as u32 / RANK_UNIT * RANK_UNIT;
        if rank < MOST_RANK { rank } else { MOST_RANK }
    }

    /// A correction of this rank of a matrix, a multiple of [`RANK_UNIT`] from there to [`LowRankShape::most`].
    ///
    /// # Errors
    /// [`ShapeError::Rank`], and [`ShapeError::TooLarge`].
    pub fn new(matrix: MatrixShape, rank: u32) -> Result<Self, ShapeError> {
        let most = Self::most(&matrix);
        if rank == 0 || rank > most || !rank.is_multiple_of(RANK_UNIT) {
            return Err(ShapeError::Rank { found: rank, most });
        }
        let factor = |rows: u32, cols: u32| {
            MatrixShape::new(rows, cols, MatrixShape::whole_row(cols), CodeWidth::Int8, matrix.layout())
        };
        let right = factor(rank, matrix.cols() as u32)?;
        let left = factor(matrix.rows() as u32, rank)?;
        let all = [matrix, right, left].iter().try_fold(2 * SECTION_ALIGNMENT_BYTES, |sum, part| {
            sum.checked_add(part.section_bytes()).filter(|sum| isize::try_from(*sum).is_ok())
        });
        all.map(|_| LowRankShape { matrix, right, left }).ok_or(ShapeError::TooLarge)
    }

    /// The matrix that is corrected.
    pub const fn matrix(&self) -> &MatrixShape {
        &self.matrix
    }
    /// V: the rank x the matrix's columns.
    pub const fn right(&self) -> &MatrixShape {
        &self.right
    }
    /// U: the matrix's rows x the rank.
    pub const fn left(&self) -> &MatrixShape {
        &self.left
    }
    /// The rank.
    pub const fn rank(&self) -> usize {
        self.right.rows()
    }

    /// Where V lies in the section, in bytes.
    pub const fn right_range(&self) -> Range<usize> {
        let start = self.matrix.section_bytes().next_multiple_of(SECTION_ALIGNMENT_BYTES);
        start..start + self.right.section_bytes()
    }
    /// Where U lies in the section, in bytes.
    pub const fn left_range(&self) -> Range<usize> {
        let start = self.right_range().end.next_multiple_of(SECTION_ALIGNMENT_BYTES);
        start..start + self.left.section_bytes()
    }
    /// Bytes of the section, the matrix's own included.
    pub const fn section_bytes(&self) -> usize {
        self.left_range().end
    }
}

/// Both factors in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct LowRankView<'a> {
    /// V: the rank x the matrix's columns.
    pub right: MatrixView<'a>,
    /// U: the matrix's rows x the rank.
    pub left: MatrixView<'a>,
}

impl<'a> LowRankView<'a> {
    /// Views the factors in the bytes of a section. Sizes are checked; contents by [`LowRankView::check`].
    ///
    /// # Errors
    /// [`MatrixError::Length`] or [`MatrixError::Unaligned`].
    pub fn new(shape: &LowRankShape, section: &'a [u8]) -> Result<Self, MatrixError> {
        let length = MatrixError::Length { expected: shape.section_bytes(), found: section.len() };
        if section.len() != shape.section_bytes() {
            return Err(length);
        }
        let part = |range: Range<usize>| section.get(range).ok_or(length);
        Ok(LowRankView {
            right: MatrixView::new(*shape.right(), part(shape.right_range())?)?,
            left: MatrixView::new(*shape.left(), part(shape.left_range())?)?,
        })
    }

    /// Checks the contents of both factors, and that the padding in front of each is zero. `section` is what the view was made from.
    ///
    /// # Errors
    /// The first error, with the offset of the byte in the section.
    pub fn check(&self, shape: &LowRankShape, section: &[u8]) -> Result<(), (usize, MatrixError)> {
        let parts = [
            (shape.matrix().section_bytes(), shape.right_range(), &self.right),
            (shape.right_range().end, shape.left_range(), &self.left),
        ];
        for (end, range, view) in parts {
            let padding = section.get(end..range.start).unwrap_or(&[]);
            if let Some(at) = padding.iter().position(|&byte| byte != 0) {
                let (offset_bytes, found) = (end + at, padding[at].into());
                return Err((offset_bytes, MatrixError::Padding { offset_bytes, found }));
            }
            let bytes = section.get(range.clone()).unwrap_or(&[]);
            view.check(bytes).map_err(|error| (range.start + error.offset_bytes(view.shape()), error))?;
        }
        Ok(())
    }
}
