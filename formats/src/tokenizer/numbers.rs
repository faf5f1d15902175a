//! Arrays of a section, one after another and read at any address.

use super::problem::error;
use super::{TokenizerFormatError, TokenizerProblem};

/// An array of u16 or u32 whose elements may lie at any address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a> {
    pub(super) data: &'a [u8],
    pub(super) wide: bool,
}

/// Bytes of a [`Numbers`]' element.
pub(super) fn number_bytes(wide: bool) -> usize {
    if wide { 4 } else { 2 }
}

/// Bytes of a [`Scores`]' element.
pub(super) fn score_bytes(wide: bool) -> usize {
    if wide { 8 } else { 4 }
}

impl Numbers<'_> {
    pub(super) fn get(&self, index: usize) -> Option<u32> {
        if self.wide {
            let start = index.checked_mul(4)?;
            let bytes = self.data.get(start..start.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        } else {
            let start = index.checked_mul(2)?;
            let bytes = self.data.get(start..start.checked_add(2)?)?;
            Some(u32::from(u16::from_le_bytes(bytes.try_into().ok()?)))
        }
    }

    pub(super) fn element_bytes(&self) -> usize {
        number_bytes(self.wide)
    }
}

/// An array of binary32 or binary64 whose elements may lie at any address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scores<'a> {
    pub(super) data: &'a [u8],
    pub(super) wide: bool,
}

impl Scores<'_> {
    pub(super) fn get(&self, index: usize) -> Option<f64> {
        let start = index.checked_mul(self.element_bytes())?;
        let bytes = self.data.get(start..start.checked_add(self.element_bytes())?)?;
        Some(if self.wide {
            f64::from_le_bytes(bytes.try_into().ok()?)
        } else {
            f64::from(f32::from_le_bytes(bytes.try_into().ok()?))
        })
    }

    pub(super) fn element_bytes(&self) -> usize {
        score_bytes(self.wide)
    }
}

/// A section's arrays, in its order: those that errors point into.
#[derive(Clone, Copy, Debug)]
pub(super) enum Array {
    BlockStarts = 0,
    TokenLengths = 1,
    ByteTokens = 3,
    MergeResults = 4,
    MergeSplits,
    MergeOrder,
    AddedTokens,
    TokenOrder,
    Scores,
    Templates,
}

/// How many there are.
pub(super) const ARRAYS: usize = Array::Templates as usize + 1;

/// An array of a section: how many elements of how many bytes.
pub(super) type Extent = (usize, usize);

/// Cuts the arrays that tile a section from an offset on; their bytes, and where each starts.
///
/// # Errors
/// [`TokenizerProblem::Arrays`], of the first that isn't all there, or of what is behind the last.
pub(super) fn cut(
    section: &[u8],
    mut offset: usize,
    extents: [Extent; ARRAYS],
) -> Result<([&[u8]; ARRAYS], [usize; ARRAYS]), TokenizerFormatError> {
    let mut arrays = [&section[..0]; ARRAYS];
    let mut starts = [0; ARRAYS];
    let mut rest = section.get(offset..).unwrap_or_default();
    for ((array, start), (elements, element_bytes)) in arrays.iter_mut().zip(&mut starts).zip(extents) {
        let bytes = elements.saturating_mul(element_bytes);
        let Some((taken, behind)) = rest.split_at_checked(bytes) else {
            return Err(error(TokenizerProblem::Arrays, offset, bytes, rest.len()));
        };
        (*array, *start, rest) = (taken, offset, behind);
        offset += bytes;
    }
    match rest.len() {
        0 => Ok((arrays, starts)),
        more => Err(error(TokenizerProblem::Arrays, offset, 0u8, more)),
    }
}
