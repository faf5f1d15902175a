//! The merges of a long pre-token: a tree of minima over its slots.
//!
//! A slot stays where its first symbol was. The slots that a merge empties lie right behind it; the first and the last of them
//! hold the number of slots that the token spans, so that both neighbours of a token are found in one step. A span is at most
//! 255, as a token has at most 255 bytes and each symbol at least one.

use rescomp_formats::tokenizer::TokenizerView;

use super::merge::SlotLayout;

/// Slots, or nodes, below a node.
const BRANCHES: usize = 16;

/// Number of nodes over so many slots.
pub(super) fn nodes(slots: usize) -> usize {
    let (mut nodes, mut level) = (0, slots);
    while level > 1 {
        level = level.div_ceil(BRANCHES);
        nodes += level;
    }
    nodes
}

/// The slots and, behind them, the levels of the tree, the lowest first.
struct Tree<'w> {
    slots: &'w mut [u32],
    nodes: &'w mut [u32],
    count: usize,
}

impl Tree<'_> {
    fn least_of_slots<L: SlotLayout>(&self, node: usize) -> u32 {
        let end = ((node + 1) * BRANCHES).min(self.count);
        (node * BRANCHES..end).map(|slot| L::get(self.slots, slot).1).min().unwrap_or(L::NONE)
    }

    /// Works out all nodes.
    fn fill<L: SlotLayout>(&mut self) {
        let (mut below, mut level) = (0, self.count.div_ceil(BRANCHES));
        for node in 0..level {
            self.nodes[node] = self.least_of_slots::<L>(node);
        }
        let mut start = level;
        while level > 1 {
            let above = level.div_ceil(BRANCHES);
            for node in 0..above {
                let end = ((node + 1) * BRANCHES).min(level);
                let least = self.nodes[below + node * BRANCHES..below + end].iter().min();
                self.nodes[start + node] = least.copied().unwrap_or(L::NONE);
            }
            (below, start, level) = (start, start + above, above);
        }
    }

    /// Works out the nodes over a slot whose rank has changed.
    fn update<L: SlotLayout>(&mut self, slot: usize) {
        let (mut start, mut level, mut node) = (0, self.count.div_ceil(BRANCHES), slot / BRANCHES);
        let mut least = self.least_of_slots::<L>(node);
        loop {
            if self.nodes[start + node] == least {
                return;
            }
            self.nodes[start + node] = least;
            if level == 1 {
                return;
            }
            node /= BRANCHES;
            let end = ((node + 1) * BRANCHES).min(level);
            let below = self.nodes[start + node * BRANCHES..start + end].iter().min();
            least = below.copied().unwrap_or(L::NONE);
            start += level;
            level = level.div_ceil(BRANCHES);
        }
    }

    /// The lowest rank and the leftmost slot that has it.
    fn lowest<L: SlotLayout>(&self) -> (u32, usize) {
        let lowest = self.nodes.last().copied().unwrap_or(L::NONE);
        let (mut end, mut level_above, mut node) = (self.nodes.len() - 1, 1, 0);
        // From the level below the root down; the sizes of the levels follow from that of the lowest.
        while end > 0 {
            let level = self.level_below(level_above);
            let start = end - level;
            let last = ((node + 1) * BRANCHES).min(level);
            let children = node * BRANCHES..last;
            node =
                children.clone().find(|&child| self.nodes[start + child] == lowest).unwrap_or(children.start);
            (end, level_above) = (start, level);
        }
        let last = ((node + 1) * BRANCHES).min(self.count);
        let slots = node * BRANCHES..last;
        let slot = slots.clone().find(|&slot| L::get(self.slots, slot).1 == lowest);
        (lowest, slot.unwrap_or(slots.start))
    }

    /// Size of the level below the first that is no larger than `above`.
    fn level_below(&self, above: usize) -> usize {
        let mut level = self.count.div_ceil(BRANCHES);
        while level.div_ceil(BRANCHES) > above {
            level = level.div_ceil(BRANCHES);
        }
        level
    }

    fn span<L: SlotLayout>(&self, slot: usize) -> usize {
        if slot + 1 == self.count {
            return 1;
        }
        match L::get(self.slots, slot + 1) {
            (span, rank) if rank == L::EMPTY => span as usize,
            _ => 1,
        }
    }

    fn before<L: SlotLayout>(&self, slot: usize) -> Option<usize> {
        let last = slot.checked_sub(1)?;
        match L::get(self.slots, last) {
            (span, rank) if rank == L::EMPTY => slot.checked_sub(span as usize),
            _ => Some(last),
        }
    }
}

/// Merges what can be merged in `count` slots at the front of `words`, which has [`nodes`] elements behind them; returns how many
/// ids are at the front afterwards.
pub(super) fn merge_all<L: SlotLayout>(
    view: &TokenizerView<'_>,
    words: &mut [u32],
    count: usize,
    rank: impl Fn(u32, u32) -> u32,
) -> usize {
    let (slots, rest) = words.split_at_mut(count * L::WORDS);
    let mut tree = Tree { slots, nodes: &mut rest[..nodes(count)], count };
    tree.fill::<L>();
    loop {
        let (lowest, left) = tree.lowest::<L>();
        if lowest >= L::EMPTY {
            break;
        }
        let Some(result) = view.merge_result(lowest) else { break };
        let right = left + tree.span::<L>(left);
        let span = right - left + tree.span::<L>(right);
        let next = left + span;
        let with_next = if next < count { rank(result, L::get(tree.slots, next).0) } else { L::NONE };
        L::set(tree.slots, left, result, with_next);
        for emptied in [right, left + 1, next - 1] {
            L::set(tree.slots, emptied, span as u32, L::EMPTY);
        }
        if let Some(before) = tree.before::<L>(left) {
            let (id, _) = L::get(tree.slots, before);
            L::set(tree.slots, before, id, rank(id, result));
            tree.update::<L>(before);
        }
        tree.update::<L>(left);
        tree.update::<L>(right);
    }
    let (mut slot, mut ids) = (0, 0);
    while slot < count {
        let (id, span) = (L::get(tree.slots, slot).0, tree.span::<L>(slot));
        tree.slots[ids] = id;
        ids += 1;
        slot += span;
    }
    ids
}
