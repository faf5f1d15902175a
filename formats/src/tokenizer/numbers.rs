//! Arrays of a section, cut off its front one after another and read at any address.

use super::problem::error;
use super::{TokenizerFormatError, TokenizerProblem};

/// An array of u16 or u32 whose elements may lie at any address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a> {
    pub(super) data: &'a [u8],
    pub(super) wide: bool,
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
        if self.wide { 4 } else { 2 }
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
        if self.wide { 8 } else { 4 }
    }
}

/// Cuts arrays off the front of the section.
pub(super) struct Arrays<'a> {
    pub(super) section: &'a [u8],
    pub(super) offset: usize,
}

impl<'a> Arrays<'a> {
    pub(super) fn take(
        &mut self,
        count: usize,
        element_bytes: usize,
    ) -> Result<&'a [u8], TokenizerFormatError> {
        let rest = self.section.get(self.offset..).unwrap_or_default();
        let bytes = count.saturating_mul(element_bytes);
        match rest.split_at_checked(bytes) {
            Some((array, _)) => {
                self.offset += bytes;
                Ok(array)
            }
            None => Err(error(TokenizerProblem::Arrays, self.offset, bytes, rest.len())),
        }
    }

    pub(super) fn take_numbers(
        &mut self,
        count: usize,
        wide: bool,
    ) -> Result<Numbers<'a>, TokenizerFormatError> {
        Ok(Numbers { data: self.take(count, if wide { 4 } else { 2 })?, wide })
    }

    pub(super) fn take_scores(
        &mut self,
        count: usize,
        wide: bool,
    ) -> Result<Scores<'a>, TokenizerFormatError> {
        Ok(Scores { data: self.take(count, if wide { 8 } else { 4 })?, wide })
    }
}
