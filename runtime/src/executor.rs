//! How the runtime asks for parallel work: the caller supplies an [`Executor`], and two splitters hand each task its own part of
//! the output, so that nothing above this module is unsafe.
//!
//! The split is static. What a task computes never depends on it (docs/numerics.md), only who computes it.
#![allow(unsafe_code, reason = "tasks on several threads write disjoint parts of one slice")]

use crate::kernels::OutputRows;
use core::ops::Range;
use rescomp_formats::spec::MAX_EMBEDDING_BANDS;

/// Rows that [`for_each_row_share`] keeps together where the caller has no other wish: a cache line of `f32`, so that two
/// threads don't write to one line, and two tiles of a kernel.
pub const ROW_GRANULARITY: usize = 16;

/// Runs tasks, on several threads or on one.
///
/// # Safety
/// [`Executor::run`] calls `task` exactly once for each index in `0..tasks` (where a task panics, at most once), and returns or
/// unwinds only after every call has ended: the splitters hand each index a part of a slice that they borrow for that long.
pub unsafe trait Executor: Sync {
    /// How many tasks run at once, at least 1; work is split into this many parts.
    fn threads(&self) -> usize;
    /// Calls `task(index)` once for each index in `0..tasks`, in any order, on any thread, and waits for all.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// Everything on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

// SAFETY: a loop over the indices.
unsafe impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

/// Outputs that [`for_each_row_share`] splits at once, at most: a head of so many bands.
pub const MOST_OUTPUTS: usize = if MAX_EMBEDDING_BANDS > 4 { MAX_EMBEDDING_BANDS as usize } else { 4 };

/// A task's rows of one output.
#[derive(Debug)]
pub struct RowShare<'a> {
    /// Which.
    pub range: Range<usize>,
    /// The right to write them.
    pub rows: OutputRows<'a>,
}

/// Splits the rows of each output into at most `most_tasks` shares, one a thread, and runs `task` with the shares of an index: one parallel
/// part for all outputs. Shares start at multiples of `granularity_rows` (use [`ROW_GRANULARITY`]) and differ by at most that, so some
/// are empty where there are few rows. Outputs of as many rows are split alike.
///
/// # Panics
/// Where there are more outputs than [`MOST_OUTPUTS`], or `granularity_rows` is 0.
pub fn for_each_row_share(
    executor: &dyn Executor,
    outputs: &mut [OutputRows<'_>],
    granularity_rows: usize,
    most_tasks: usize,
    task: impl Fn(&mut [RowShare<'_>]) + Sync,
) {
    assert!(outputs.len() <= MOST_OUTPUTS, "{} outputs at once", outputs.len());
    let blocks = outputs.iter().map(|output| output.rows().div_ceil(granularity_rows)).max().unwrap_or(0);
    let tasks = executor.threads().min(most_tasks).clamp(1, blocks.max(1));
    let outputs = Shared(outputs);
    let run = |index: usize| {
        let mut shares = heapless::Vec::<RowShare<'_>, MOST_OUTPUTS>::new();
        for output in outputs.get().iter() {
            let blocks = output.rows().div_ceil(granularity_rows);
            let bound = |index: usize| output.rows().min(split(blocks, tasks, index) * granularity_rows);
            let range = bound(index)..bound(index + 1);
            // SAFETY: the ranges of different indices don't overlap, and the executor runs each index once (its contract) while
            // the outputs are borrowed.
            let rows = unsafe { output.part(range.clone()) };
            // There are no more outputs than `shares` holds.
            let _ = shares.push(RowShare { range, rows });
        }
        task(&mut shares);
    };
    if blocks > 0 {
        executor.run(tasks, &run);
    }
}

/// Runs `task` with each chunk of `chunk_elems` elements (the last may be short) and its index.
///
/// # Panics
/// Where `chunk_elems` is 0.
pub fn for_each_chunk<T: Send>(
    executor: &dyn Executor,
    output: &mut [T],
    chunk_elems: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    let length = output.len();
    let chunks = length.div_ceil(chunk_elems);
    let start = Shared(output.as_mut_ptr());
    let run = |index: usize| {
        assert!(index < chunks, "chunk {index} of {chunks}");
        let from = index * chunk_elems;
        // SAFETY: index < chunks, so `from` is inside the slice.
        let first = unsafe { start.get().add(from) };
        let count = chunk_elems.min(length - from);
        // SAFETY: `count` elements are inside the slice; chunks don't overlap, and the executor runs each index once (its
        // contract) while `output` is borrowed.
        let chunk = unsafe { core::slice::from_raw_parts_mut(first, count) };
        task(index, chunk);
    };
    executor.run(chunks, &run);
}

/// [`for_each_chunk`] of two slices with the same number of chunks: `task` gets the chunks of one index together.
///
/// # Panics
/// Where a chunk is 0 elements, or the numbers of chunks differ.
pub fn for_each_chunk_pair(
    executor: &dyn Executor,
    [left, right]: [&mut [f32]; 2],
    [left_elems, right_elems]: [usize; 2],
    task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let chunks = right.len().div_ceil(right_elems);
    assert_eq!(left.len().div_ceil(left_elems), chunks, "chunks of the two slices");
    let (length, start) = (right.len(), Shared(right.as_mut_ptr()));
    for_each_chunk(executor, left, left_elems, |index, left| {
        let from = index * right_elems;
        // SAFETY: index < chunks, so `from` is inside the slice.
        let first = unsafe { start.get().add(from) };
        let count = right_elems.min(length - from);
        // SAFETY: `count` elements are inside the slice; chunks don't overlap, and `for_each_chunk` runs each index once while
        // `right` is borrowed.
        let right = unsafe { core::slice::from_raw_parts_mut(first, count) };
        task(index, left, right);
    });
}

/// Tokens of a part of work that is the same for each token: less is not worth another thread's attention.
pub(crate) const PART_TOKENS: usize = 32;

/// Runs `task` with corresponding parts of `changed` and `read`, both m x `width`, on all threads.
pub(crate) fn for_each_part(
    executor: &dyn Executor,
    changed: &mut [f32],
    read: &[f32],
    width: usize,
    task: impl Fn(&mut [f32], &[f32]) + Sync,
) {
    let part = PART_TOKENS * width;
    for_each_chunk(executor, changed, part, |index, changed| {
        task(changed, &read[index * part..][..changed.len()]);
    });
}

/// Where part `index` of `items` in `parts` begins: parts differ by one item at most.
pub(crate) const fn split(items: usize, parts: usize, index: usize) -> usize {
    let (share, extra) = (items / parts, items % parts);
    share * index + if index < extra { index } else { extra }
}

/// Something that every task sees but each uses another part of.
struct Shared<T>(T);

impl<T> Shared<T> {
    // A method, so that closures capture the wrapper and not the field.
    fn get(&self) -> &T {
        &self.0
    }
}

// SAFETY: used in this module alone, for pointers to a slice of which each task touches its own part.
unsafe impl<T> Sync for Shared<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    /// Calls in reverse, to show that order doesn't count.
    struct Reverse(usize);
    // SAFETY: a loop over the indices.
    unsafe impl Executor for Reverse {
        fn threads(&self) -> usize {
            self.0
        }
        fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            (0..tasks).rev().for_each(task);
        }
    }

    #[test]
    fn row_shares_cover_every_row_once() {
        for threads in 1..6 {
            for rows in 0..100 {
                for (tokens, granularity) in [(0, 16), (1, 16), (3, 8), (2, 1)] {
                    // Two of as many rows and one of others.
                    let counts = [rows, rows, 2 * rows / 3];
                    let mut outputs = counts.map(|rows| vec![0.0; tokens * rows]);
                    let mut index = 0;
                    let mut views = outputs.each_mut().map(|output| {
                        index += 1;
                        OutputRows::new(output, tokens, counts[index - 1])
                    });
                    let executor = Reverse(threads);
                    for_each_row_share(&executor, &mut views, granularity, threads, |shares| {
                        assert_eq!(shares[0].range, shares[1].range);
                        for (RowShare { range, rows: part }, rows) in shares.iter_mut().zip(counts) {
                            assert!(range.start == range.end || range.start % granularity == 0);
                            assert_eq!(range.len(), part.rows());
                            for token in 0..tokens {
                                for row in (0..range.len()).step_by(8) {
                                    let value = |lane| (token * rows + range.start + row + lane + 1) as f32;
                                    part.store(token, row, &core::array::from_fn(value));
                                }
                                for (row, value) in range.clone().zip(part.token_rows(token)) {
                                    *value += (token * rows + row) as f32;
                                }
                            }
                        }
                    });
                    for (output, rows) in outputs.into_iter().zip(counts) {
                        let expected: Vec<f32> = (0..tokens * rows).map(|i| (2 * i + 1) as f32).collect();
                        assert_eq!(output, expected, "{threads} threads, {tokens} x {rows}");
                    }
                }
            }
        }
    }

    #[test]
    fn chunks_cover_every_element_once() {
        for length in 0..40 {
            for chunk_elems in 1..10 {
                let mut output = vec![0.0; length];
                for_each_chunk(&Reverse(3), &mut output, chunk_elems, |index, chunk| {
                    for value in chunk {
                        *value += (index + 1) as f32;
                    }
                });
                let expected: Vec<f32> = (0..length).map(|i| (i / chunk_elems + 1) as f32).collect();
                assert_eq!(output, expected);
            }
        }
    }

    #[test]
    fn pairs_of_chunks_belong_together() {
        for chunks in 1..8 {
            for (left_elems, right_elems, short) in [(3, 5, 0), (4, 1, 0), (3, 4, 2)] {
                let (mut left, mut right) =
                    (vec![0.0; chunks * left_elems - short], vec![0.0; chunks * right_elems - short]);
                let slices = [&mut left[..], &mut right[..]];
                for_each_chunk_pair(&Reverse(3), slices, [left_elems, right_elems], |index, left, right| {
                    left.iter_mut().chain(right).for_each(|value| *value += (index + 1) as f32);
                });
                for (slice, elems) in [(left, left_elems), (right, right_elems)] {
                    let expected: Vec<f32> = (0..slice.len()).map(|i| (i / elems + 1) as f32).collect();
                    assert_eq!(slice, expected);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "chunks of the two slices")]
    fn pairs_of_chunks_need_as_many_on_both_sides() {
        let (mut left, mut right) = ([0.0; 6], [0.0; 9]);
        for_each_chunk_pair(&Serial, [&mut left, &mut right], [2, 2], |_, _, _| ());
    }

    #[test]
    fn rows_beyond_a_view_are_dropped() {
        let mut output = [0.0; 10];
        OutputRows::new(&mut output, 1, 10).store(0, 8, &[1.0; 8]);
        assert_eq!(output, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        OutputRows::new(&mut output, 1, 10).store(0, 10, &[2.0; 8]);
        assert_eq!(output[9], 1.0);
    }

    #[test]
    #[should_panic(expected = "token 1 of 1")]
    fn a_token_beyond_a_view_is_refused() {
        OutputRows::new(&mut [0.0; 8], 1, 8).store(1, 0, &[1.0; 8]);
    }
}
