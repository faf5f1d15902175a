//! The merges of one pre-token, in place.
//!
//! Byte-pair encoding merges the leftmost pair of lowest rank again and again. A short pre-token is merged in passes, each of
//! which merges every pair of the rank that was lowest when it began, from left to right:
//!
//! ```text
//! slots = (token of each symbol, rank of the merge with the next slot)
//! while lowest = min(ranks) is a merge:
//!     for each slot from the left, compacting:
//!         where its rank is lowest: merge it with the next, look up the ranks with its two neighbours;
//!         where one of these is below lowest: end the pass early
//! ```
//!
//! This is the same sequence of merges: within a pass no pair of this rank comes into being (its result is longer than
//! either part), and a pair of lower rank ends the pass. n slots take at most n passes over n slots: short ones only.
//!
//! A long one keeps its slots where they are, with a tree of minima over them, 16 below each node (`tree.rs`). A merge takes a
//! walk down the tree to the leftmost lowest rank and three walks up: n symbols take O(n log n) steps and O(n) searches of the
//! merge table, whatever the table.

use rescomp_formats::tokenizer::TokenizerView;

use super::tree;

/// Symbols up to which merging in passes is the faster way.
pub(super) const MOST_IN_PASSES: usize = 48;

/// How ids and ranks lie in the slots' memory.
pub(super) trait SlotLayout {
    /// Elements of memory for one slot.
    const WORDS: usize;
    /// The rank that stands for "no merge".
    const NONE: u32;
    /// The rank of a slot that a merge has emptied; its id is a number of slots. Between all merges and [`NONE`](Self::NONE).
    const EMPTY: u32 = Self::NONE - 1;

    fn get(words: &[u32], index: usize) -> (u32, u32);
    fn set(words: &mut [u32], index: usize, id: u32, rank: u32);
}

/// Ids and ranks of 16 bits, in one word: for up to 65,536 tokens and 65,534 merges.
pub(super) struct Narrow;

impl SlotLayout for Narrow {
    const WORDS: usize = 1;
    const NONE: u32 = 0xffff;

    #[inline]
    fn get(words: &[u32], index: usize) -> (u32, u32) {
        (words[index] & 0xffff, words[index] >> 16)
    }

    #[inline]
    fn set(words: &mut [u32], index: usize, id: u32, rank: u32) {
        words[index] = rank << 16 | id;
    }
}

/// Ids and ranks of 32 bits, in two words.
pub(super) struct Wide;

impl SlotLayout for Wide {
    const WORDS: usize = 2;
    const NONE: u32 = u32::MAX;

    #[inline]
    fn get(words: &[u32], index: usize) -> (u32, u32) {
        (words[2 * index], words[2 * index + 1])
    }

    #[inline]
    fn set(words: &mut [u32], index: usize, id: u32, rank: u32) {
        words[2 * index] = id;
        words[2 * index + 1] = rank;
    }
}

/// Whether ids and ranks of this vocabulary fit one word together.
pub(crate) fn fits_narrow(view: &TokenizerView<'_>) -> bool {
    view.vocabulary() <= 1 << 16 && view.merges() <= Narrow::EMPTY
}

/// Whether they are merged in one word. Where the other way isn't built, text of a vocabulary that needs it is not encoded.
pub(super) fn is_narrow(view: &TokenizerView<'_>) -> bool {
    !cfg!(feature = "wide-merges") || fits_narrow(view)
}

/// Elements of memory that merging so many symbols takes.
pub(super) fn words_needed<L: SlotLayout>(symbols: usize) -> usize {
    let tree = if symbols > MOST_IN_PASSES { tree::nodes(symbols) } else { 0 };
    symbols.saturating_mul(L::WORDS).saturating_add(tree)
}

/// Merges the symbols of one pre-token: the ids are at the front of `words` afterwards; returns their number.
///
/// `None` where `words` has fewer elements than [`words_needed`].
pub(super) fn merge<L: SlotLayout>(
    view: &TokenizerView<'_>,
    symbols: impl Iterator<Item = u32>,
    words: &mut [u32],
) -> Option<usize> {
    let rank = |left: u32, right: u32| view.merge(left, right).unwrap_or(L::NONE);
    let capacity = words.len() / L::WORDS;
    let mut count = 0;
    for id in symbols {
        if count == capacity {
            return None;
        }
        L::set(words, count, id, L::NONE);
        if count > 0 {
            let (before, _) = L::get(words, count - 1);
            L::set(words, count - 1, before, rank(before, id));
        }
        count += 1;
    }
    if words.len() < words_needed::<L>(count) {
        return None;
    }
    if count > MOST_IN_PASSES {
        return Some(tree::merge_all::<L>(view, words, count, rank));
    }
    loop {
        let lowest = (0..count).map(|index| L::get(words, index).1).min().unwrap_or(L::NONE);
        // Every rank in the slots is that of a merge, or none.
        let Some(result) = view.merge_result(lowest).filter(|_| lowest != L::NONE) else { break };
        count = merge_pass::<L>(words, count, lowest, result, rank);
    }
    for index in 0..count {
        words[index] = L::get(words, index).0;
    }
    Some(count)
}

/// Merges all pairs of rank `lowest` among the first `count` slots; returns how many slots are left.
///
/// The last slot's rank is none, before and after.
fn merge_pass<L: SlotLayout>(
    words: &mut [u32],
    count: usize,
    lowest: u32,
    result: u32,
    rank: impl Fn(u32, u32) -> u32,
) -> usize {
    let (mut from, mut to) = (0, 0);
    let mut ended = false;
    while from < count {
        let (id, with_next) = L::get(words, from);
        from += 1;
        if ended || with_next != lowest {
            L::set(words, to, id, with_next);
            to += 1;
            continue;
        }
        from += 1;
        let right = if from < count { rank(result, L::get(words, from).0) } else { L::NONE };
        L::set(words, to, result, right);
        let mut left = L::NONE;
        if to > 0 {
            let (before, _) = L::get(words, to - 1);
            left = rank(before, result);
            L::set(words, to - 1, before, left);
        }
        to += 1;
        ended = left.min(right) < lowest;
    }
    to
}
