//! Counting executed instructions from the log of QEMU's user mode, with `-d in_asm,exec,nochain`.
//!
//! ```text
//! IN: name                                           a block is translated: its instructions, once
//! 0x004090c0:  d503201f  nop
//! Trace 0: 0x7fd5 [0000/00000000004090c0/0001/0200]   a block is executed: its address, each time, since `nochain` keeps QEMU from going on
//!                                                    to the next one by itself
//! ```
//! Every QEMU prints this, with or without plugins, dynamic or static, and nothing of ours runs inside it. It costs a line a block, which is
//! bearable since the program that is counted does little else than what is counted. A plugin would be faster, but is tied to the version of
//! an interface and needs a QEMU built with it.
//!
//! The log says nothing about the caches, and user mode counts nothing below the system calls.

use std::collections::{BTreeMap, HashMap};

use super::program::{Program, is_branch};

/// Bytes of an instruction.
pub(crate) const INSTRUCTION_BYTES: u64 = 4;

/// Lines of the program's own that are kept for an error.
const MOST_SAID: usize = 20;

/// What QEMU prints before each translated block.
const RULE: &str = "----------------";

/// Instructions that are executed in a row, up to and including a branch. A block that QEMU ended at a page's end is one with its
/// continuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    /// Address of the first one, as the program's file has it.
    pub(crate) start: u64,
    /// Their number.
    pub(crate) instructions: u32,
}

impl Block {
    fn end(self) -> u64 {
        self.start + u64::from(self.instructions) * INSTRUCTION_BYTES
    }
}

/// Blocks, and how often each was executed.
pub(crate) type Blocks = BTreeMap<Block, u64>;

/// Reads a log line by line.
#[derive(Debug)]
pub(crate) struct Counter<'p> {
    program: &'p Program,
    /// Instructions of each translated block, by the address in memory.
    lengths: HashMap<u64, u32>,
    /// The block that is being translated.
    translated: Option<(u64, u32)>,
    /// The block that is about to be executed: the next line may take it back.
    about_to: Option<u64>,
    /// How far the program lies in memory from where its file says.
    moved: Option<u64>,
    /// The block that was executed last and may go on.
    open: Option<Block>,
    /// What was executed since each boundary.
    since: Vec<Blocks>,
    /// What the program itself wrote.
    said: Vec<String>,
}

impl<'p> Counter<'p> {
    /// For a run of this program.
    pub(crate) fn new(program: &'p Program) -> Self {
        Counter {
            program,
            lengths: HashMap::new(),
            translated: None,
            about_to: None,
            moved: None,
            open: None,
            since: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Takes a line.
    ///
    /// # Errors
    /// A line that is not as QEMU's are, or a block that was executed and not translated.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("Trace ") {
            let address = executed(rest).ok_or_else(|| format!("QEMU's log: cannot read `{line}`"))?;
            self.end_translated();
            // Other threads are the runner's, waiting for signals; they compute nothing.
            if rest.starts_with("0:") {
                self.execute()?;
                self.about_to = Some(address);
            }
        } else if line.starts_with("0x") {
            let address = line.split_once(':').and_then(|(address, _)| hexadecimal(address));
            let address = address.ok_or_else(|| format!("QEMU's log: cannot read `{line}`"))?;
            self.translated = match self.translated {
                None => Some((address, 1)),
                Some((start, count)) => Some((start, count + 1)),
            };
        } else if line.starts_with("IN:") {
            self.end_translated();
        } else if line.starts_with("Stopped execution of TB chain") {
            self.about_to = None;
        } else if self.said.len() < MOST_SAID {
            // QEMU's rule may come before the newline of the program's own line.
            let said = line.trim_end_matches(RULE);
            self.said.extend((!said.is_empty()).then(|| said.to_owned()));
        }
        Ok(())
    }

    /// What the program wrote to standard error.
    pub(crate) fn said(&self) -> String {
        self.said.join("\n")
    }

    /// What was executed since each boundary.
    ///
    /// # Errors
    /// As [`Counter::line`].
    pub(crate) fn finish(mut self) -> Result<Vec<Blocks>, String> {
        self.execute()?;
        self.close();
        Ok(self.since)
    }

    fn end_translated(&mut self) {
        if let Some((start, count)) = self.translated.take() {
            self.lengths.insert(start, count);
        }
    }

    /// Counts the block that was about to be executed.
    fn execute(&mut self) -> Result<(), String> {
        let Some(address) = self.about_to.take() else { return Ok(()) };
        // A static program begins with its entry.
        let moved = *self.moved.get_or_insert(address.wrapping_sub(self.program.entry));
        let start = address.wrapping_sub(moved);
        if self.program.boundary.contains(&start) {
            self.close();
            if start == self.program.boundary.start {
                self.since.push(Blocks::new());
            }
            return Ok(());
        }
        if self.since.is_empty() {
            return Ok(());
        }
        let instructions = *self.lengths.get(&address).ok_or_else(|| {
            format!("QEMU's log: block {address:#x} was executed and not disassembled: is this QEMU built without a disassembler?")
        })?;
        match &mut self.open {
            Some(open) if open.end() == start && !self.program.ends_with_branch(*open) => {
                open.instructions += instructions;
            }
            _ => {
                self.close();
                self.open = Some(Block { start, instructions });
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        if let (Some(block), Some(blocks)) = (self.open.take(), self.since.last_mut()) {
            *blocks.entry(block).or_default() += 1;
        }
    }
}

impl Program {
    fn ends_with_branch(&self, block: Block) -> bool {
        let last = self.words(block.end() - INSTRUCTION_BYTES, 1);
        last.is_none_or(|words| words.iter().all(|word| is_branch(*word)))
    }
}

/// The address in `0: 0x7fd564000100 [cs_base/ADDRESS/flags/cflags] name`.
fn executed(rest: &str) -> Option<u64> {
    u64::from_str_radix(rest.split_once('[')?.1.split('/').nth(1)?, 16).ok()
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_kernels::program::tests::program;

    /// Address, instructions and executions of a block.
    type Row = (u64, u32, u64);

    fn counted(log: &str) -> Result<Vec<Vec<Row>>, String> {
        let program = program();
        let mut counter = Counter::new(&program);
        log.lines().try_for_each(|line| counter.line(line))?;
        let rows = |blocks: &Blocks| -> Vec<Row> {
            blocks.iter().map(|(block, times)| (block.start, block.instructions, *times)).collect()
        };
        counter.finish().map(|all| all.iter().map(rows).collect())
    }

    /// The log of a run: `t`ranslations with their number of instructions, and `x`ecutions, moved in memory by 0x5000.
    fn log(events: &[(char, u64, u64)]) -> String {
        let mut log = String::new();
        for &(kind, address, count) in events {
            let address = address + 0x5000;
            match kind {
                't' => {
                    log.push_str("----------------\nIN: some_name\n");
                    (0..count).for_each(|i| {
                        log.push_str(&format!("0x{:08x}:  d503201f  nop      \n", address + 4 * i))
                    });
                    log.push('\n');
                }
                _ => (0..count).for_each(|_| {
                    log.push_str(&format!(
                        "Trace 0: 0x7fd564000100 [0000000000001001/{address:016x}/00000001/00000200] n\n"
                    ));
                }),
            }
        }
        log
    }

    #[test]
    fn blocks_are_counted_between_boundaries() {
        let events = [('t', 0x1000, 1), ('x', 0x1000, 1), ('t', 0x1004, 3), ('x', 0x1004, 5)];
        let more = [('t', 0x1010, 2), ('x', 0x1010, 1), ('x', 0x1000, 1), ('x', 0x1004, 2)];
        let found = counted(&log(&[&events[..], &more].concat())).expect("counted");
        assert_eq!(found, [vec![(0x1004, 3, 5), (0x1010, 2, 1)], vec![(0x1004, 3, 2)]]);
    }

    #[test]
    fn a_block_that_a_page_cuts_is_one() {
        // Two instructions and the branch behind them, which goes back to the first.
        let cut = [
            ('t', 0x1000, 1),
            ('x', 0x1000, 1),
            ('t', 0x1004, 2),
            ('x', 0x1004, 1),
            ('t', 0x100c, 1),
            ('x', 0x100c, 1),
        ];
        let again = [('x', 0x1004, 1), ('x', 0x100c, 1), ('t', 0x1010, 2), ('x', 0x1010, 1)];
        let found = counted(&log(&[&cut[..], &again].concat())).expect("counted");
        assert_eq!(found, [vec![(0x1004, 3, 2), (0x1010, 2, 1)]]);
    }

    #[test]
    fn a_block_that_was_stopped_or_is_another_threads_is_not_counted() {
        let before = log(&[('t', 0x1000, 1), ('x', 0x1000, 1), ('t', 0x1004, 3), ('x', 0x1004, 1)]);
        let stopped = "Stopped execution of TB chain before 0x7fd564000100 [0000000000006004] n\n";
        let other = "Trace 1: 0x7fd564000100 [0000000000001001/0000000000006010/00000001/00000200] n\n";
        let found =
            counted(&format!("{before}{stopped}{other}{}", log(&[('x', 0x1004, 1)]))).expect("counted");
        assert_eq!(found, [vec![(0x1004, 3, 1)]]);
    }

    #[test]
    fn what_is_not_qemus_is_the_programs() {
        let program = program();
        let mut counter = Counter::new(&program);
        counter.line("error: --kernels abacus: not available----------------").expect("kept");
        counter.line("----------------").expect("left out");
        counter.line("").expect("left out");
        assert_eq!(counter.said(), "error: --kernels abacus: not available");
        assert!(counter.line("Trace 0: nothing").expect_err("refused").contains("Trace 0: nothing"));
        assert!(counter.line("0xzz: nop").expect_err("refused").contains("0xzz"));
        let unknown = counted(&log(&[('x', 0x1000, 1), ('x', 0x1004, 1)])).expect_err("refused");
        assert!(unknown.contains("block 0x6004 was executed and not disassembled"), "{unknown}");
    }
}
