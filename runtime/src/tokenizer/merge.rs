//! The merges of one pre-token, in place.
//!
//! Merging the leftmost pair of lowest rank again and again is done in passes, each of which merges every pair of the rank
//! that was lowest when it began, from left to right:
//!
//! ```text
//! slots = (token of each byte, rank of the merge with the next slot)
//! while lowest = min(ranks) is a merge:
//!     for each slot from the left, compacting:
//!         where its rank is lowest: merge it with the next, look up the ranks with its two neighbours;
//!         where one of these is below lowest: end the pass early
//! ```
//!
//! This is the same sequence of merges: within a pass no pair of this rank comes into being (its result is longer than
//! either part), and a pair of lower rank ends the pass. In the tables that training makes, a merge with a token has a higher
//! rank than the merge that made the token, so no pass ends early.
//!
//! n bytes take O(n) searches of the merge table and at most min(n, merges) passes over at most n slots in a trained table (n
//! passes in any table): a run of n letters takes time in proportion to n for n above the number of merges.

use rescomp_formats::tokenizer::TokenizerView;

/// How ids and ranks lie in the slots' memory.
pub(super) trait SlotLayout {
    /// Elements of memory for one slot.
    const WORDS: usize;
    /// The rank that stands for "no merge".
    const NONE: u32;

    fn get(words: &[u32], index: usize) -> (u32, u32);
    fn set(words: &mut [u32], index: usize, id: u32, rank: u32);
}

/// Ids and ranks of 16 bits, in one word: for up to 65,536 tokens and 65,535 merges.
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
pub(super) fn fits_narrow(view: &TokenizerView<'_>) -> bool {
    view.vocabulary() <= 1 << 16 && view.merges() <= Narrow::NONE
}

/// Encodes one pre-token given as its bytes: its ids are at the front of `words` afterwards; returns their number.
///
/// `words` has `L::WORDS` elements for each byte: `None` where it has fewer.
pub(super) fn merge_bytes<L: SlotLayout>(
    view: &TokenizerView<'_>,
    bytes: impl Iterator<Item = u8>,
    words: &mut [u32],
) -> Option<usize> {
    let rank = |left: u32, right: u32| view.merge(left, right).unwrap_or(L::NONE);
    let capacity = words.len() / L::WORDS;
    let mut count = 0;
    for byte in bytes {
        if count == capacity {
            return None;
        }
        // A byte without a token leaves no trace: the bytes around it may merge.
        let Some(id) = view.byte_token(byte) else { continue };
        L::set(words, count, id, L::NONE);
        if count > 0 {
            let (before, _) = L::get(words, count - 1);
            L::set(words, count - 1, before, rank(before, id));
        }
        count += 1;
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
