//! Rows of an output that several tasks fill at once.
//!
//! An m x n output is row-major by token, so a range of its n columns ("rows" of the weight matrix) isn't a slice. This view is
//! the exclusive right to write such a range: [`OutputRows::new`] takes the whole from `&mut`, and only the row splitter of
//! [`crate::executor`] divides it further, into disjoint ranges.
#![allow(unsafe_code, reason = "disjoint columns of one slice can't be borrowed safely")]

use super::TILE_ROWS;
use core::marker::PhantomData;
use core::ops::Range;

/// The exclusive right to write a range of rows of an m x n output, for every token.
#[derive(Debug)]
pub struct OutputRows<'a> {
    /// The element (token 0, first row of the view).
    start: *mut f32,
    /// Elements from one token to the next: `n`.
    stride_elems: usize,
    tokens: usize,
    rows: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is as exclusive as the `&mut [f32]` it stands for.
unsafe impl Send for OutputRows<'_> {}

impl<'a> OutputRows<'a> {
    /// All rows of an output of `tokens` x `rows`.
    ///
    /// # Panics
    /// Where `output` has another length.
    pub fn new(output: &'a mut [f32], tokens: usize, rows: usize) -> Self {
        assert_eq!(Some(output.len()), tokens.checked_mul(rows), "output of {tokens} x {rows}");
        OutputRows { start: output.as_mut_ptr(), stride_elems: rows, tokens, rows, lifetime: PhantomData }
    }

    /// Rows in the view.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens in the view.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Writes rows `row .. row + 8` of the view for a token; rows beyond the view are dropped.
    ///
    /// # Panics
    /// Where `token` is out of range.
    #[inline]
    pub fn store(&mut self, token: usize, row: usize, values: &[f32; TILE_ROWS]) {
        assert!(token < self.tokens, "token {token} of {}", self.tokens);
        if row.checked_add(TILE_ROWS).is_none_or(|end| end > self.rows) {
            return self.store_part(token, row, values);
        }
        // SAFETY: token < tokens and row + 8 <= rows, so the offset stays inside the output that `new` measured.
        let target = unsafe { self.start.add(token * self.stride_elems + row) };
        // SAFETY: eight elements from `target` on are inside this token's rows, which this view alone may write.
        unsafe { target.cast::<[f32; TILE_ROWS]>().write(*values) };
    }

    /// [`OutputRows::store`] of a tile that the view has less than eight rows of. Apart, or the compiler makes one copy of unknown length
    /// for both: a call, around which the caller's registers are saved.
    #[cold]
    #[inline(never)]
    fn store_part(&mut self, token: usize, row: usize, values: &[f32; TILE_ROWS]) {
        let count = self.rows.saturating_sub(row).min(TILE_ROWS);
        if token < self.tokens && count > 0 {
            // SAFETY: token < tokens and row + count <= rows, so the offset stays inside the output that `new` measured.
            let target = unsafe { self.start.add(token * self.stride_elems + row) };
            // SAFETY: `count` elements from `target` on are this view's, and `values` is a local of the caller: they can't overlap.
            unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), target, count) };
        }
    }

    /// The view's rows for a token.
    ///
    /// # Panics
    /// Where `token` is out of range.
    pub fn token_rows(&mut self, token: usize) -> &mut [f32] {
        assert!(token < self.tokens, "token {token} of {}", self.tokens);
        if self.rows == 0 {
            return &mut [];
        }
        // SAFETY: token < tokens and there is a row, so the offset stays inside the output that `new` measured.
        let first = unsafe { self.start.add(token * self.stride_elems) };
        // SAFETY: `rows` initialized elements from there on are this token's, which this view alone may touch while it is borrowed.
        unsafe { core::slice::from_raw_parts_mut(first, self.rows) }
    }

    /// What comes after the first `tokens` tokens and the first `rows` rows of the view: nothing where it has no more.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn rest(&mut self, tokens: usize, rows: usize) -> OutputRows<'_> {
        let (tokens, rows) = (tokens.min(self.tokens), rows.min(self.rows));
        OutputRows {
            // `wrapping_add`, since a view of no tokens or rows has no element to point at.
            start: self.start.wrapping_add(tokens * self.stride_elems + rows),
            stride_elems: self.stride_elems,
            tokens: self.tokens - tokens,
            rows: self.rows - rows,
            lifetime: PhantomData,
        }
    }

    /// The rows `rows` of the view.
    ///
    /// # Safety
    /// While the result lives, no other view of any of these rows is used.
    ///
    /// # Panics
    /// Where `rows` reaches beyond the view.
    pub(crate) unsafe fn part(&self, rows: Range<usize>) -> OutputRows<'a> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        OutputRows {
            // `wrapping_add`, since an output of no tokens has no element to point at.
            start: self.start.wrapping_add(rows.start),
            stride_elems: self.stride_elems,
            tokens: self.tokens,
            rows: rows.len(),
            lifetime: PhantomData,
        }
    }
}
