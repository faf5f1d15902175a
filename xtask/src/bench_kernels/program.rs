//! A built 64-bit ARM program as counting sees it: its functions by address, and the instructions there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

use super::trace::{Blocks, INSTRUCTION_BYTES};
use crate::error::Error;

/// Part of the symbol of the function that the runner calls before, between and after what is counted.
const BOUNDARY: &str = "kernel_boundary";

/// A program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it starts.
    pub(crate) entry: u64,
    /// The boundary function's code.
    pub(crate) boundary: Range<u64>,
    /// Functions, by the address after their last instruction; the value is their first address and their mangled name.
    functions: BTreeMap<u64, (u64, String)>,
    /// Sections of code: address and bytes.
    code: Vec<(u64, Vec<u8>)>,
}

impl Program {
    /// Reads a program.
    ///
    /// # Errors
    /// `Exit::Disk` where it can't be read, `Exit::Failed` where it is no program, is linked dynamically, or has no boundary function.
    pub(crate) fn read(path: &Path) -> Result<Program, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::disk("read", path, &error))?;
        let failed = |why: &str| Error::failed(format!("{}: {why}", path.display()));
        let file = object::File::parse(bytes.as_slice()).map_err(|error| failed(&error.to_string()))?;
        if file.section_by_name(".interp").is_some() {
            // Its first instructions would be the loader's, at addresses that no file tells.
            return Err(failed("it is linked dynamically, and only a static program can be counted"));
        }
        let mut functions = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
            if let Ok(name) = symbol.name() {
                functions.insert(symbol.address() + symbol.size(), (symbol.address(), name.to_owned()));
            }
        }
        let code = file
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .filter_map(|section| Some((section.address(), section.data().ok()?.to_vec())))
            .collect();
        let boundary = functions
            .iter()
            .find_map(|(end, (start, name))| name.contains(BOUNDARY).then_some(*start..*end))
            .ok_or_else(|| failed(&format!("it has no function {BOUNDARY}")))?;
        Ok(Program { entry: file.entry(), boundary, functions, code })
    }

    /// The instructions from an address on; `None` where there are not as many.
    pub(crate) fn words(&self, start: u64, count: u32) -> Option<Vec<u32>> {
        let bytes = u64::from(count) * INSTRUCTION_BYTES;
        self.code.iter().find_map(|(address, code)| {
            let from = usize::try_from(start.checked_sub(*address)?).ok()?;
            let code = code.get(from..from.checked_add(usize::try_from(bytes).ok()?)?)?;
            Some(code.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
        })
    }

    /// The mangled name of the function at an address, where a symbol tells.
    pub(crate) fn function(&self, address: u64) -> Option<&str> {
        let (_, (start, name)) = self.functions.range(address + 1..).next()?;
        (*start <= address).then_some(name.as_str())
    }

    /// Executed instructions by function, most first. What no symbol tells goes by the name `?`.
    pub(crate) fn by_function(&self, blocks: &Blocks) -> Vec<(String, u64)> {
        let mut counts = BTreeMap::<&str, u64>::new();
        for (block, times) in blocks {
            let name = self.function(block.start).unwrap_or("?");
            *counts.entry(name).or_default() += u64::from(block.instructions) * times;
        }
        let mut counts: Vec<(String, u64)> =
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

/// Whether an instruction may go elsewhere than to the next one (Arm Architecture Reference Manual, DDI 0487, section C4.1): B, BL; B.cond;
/// CBZ, CBNZ; TBZ, TBNZ; BR, BLR, RET.
pub(crate) fn is_branch(instruction: u32) -> bool {
    const BRANCHES: [(u32, u32); 5] = [
        (0x7c00_0000, 0x1400_0000),
        (0xff00_0000, 0x5400_0000),
        (0x7e00_0000, 0x3400_0000),
        (0x7e00_0000, 0x3600_0000),
        (0xfe00_0000, 0xd600_0000),
    ];
    BRANCHES.iter().any(|(mask, value)| instruction & mask == *value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench_kernels::trace::Block;

    pub(crate) const NOP: u32 = 0xd503_201f;
    pub(crate) const RET: u32 = 0xd65f_03c0;

    /// Eight instructions from 0x1000 on: the boundary (one), `gemv` (five; its third is a branch), a gap, `memcpy` (one).
    pub(crate) fn program() -> Program {
        let words = [RET, NOP, NOP, 0x5400_0000, NOP, RET, NOP, RET];
        let functions = [
            (0x1004, (0x1000, "kernel_boundary")),
            (0x1018, (0x1004, "gemv_int4_neon")),
            (0x1020, (0x101c, "memcpy")),
        ];
        Program {
            entry: 0x1000,
            boundary: 0x1000..0x1004,
            functions: functions.map(|(end, (start, name))| (end, (start, name.to_owned()))).into(),
            code: vec![(0x1000, words.iter().flat_map(|word| word.to_le_bytes()).collect())],
        }
    }

    #[test]
    fn blocks_belong_to_the_symbol_around_their_address() {
        let program = program();
        assert_eq!(program.function(0x1004), Some("gemv_int4_neon"));
        assert_eq!(program.function(0x1014), Some("gemv_int4_neon"));
        assert_eq!((program.function(0x1018), program.function(0xfff)), (None, None));
        assert_eq!((program.function(0x101c), program.function(0x1020)), (Some("memcpy"), None));
        let block = |start, instructions| Block { start, instructions };
        let blocks =
            [(block(0x1004, 3), 10), (block(0x1010, 2), 9), (block(0x101c, 1), 7), (block(0x1018, 1), 1)];
        assert_eq!(
            program.by_function(&blocks.into()),
            [("gemv_int4_neon".to_owned(), 48), ("memcpy".to_owned(), 7), ("?".to_owned(), 1)]
        );
    }

    #[test]
    fn instructions_are_read_where_there_are_any() {
        let program = program();
        assert_eq!(program.words(0x1010, 2), Some(vec![NOP, RET]));
        assert_eq!((program.words(0x1010, 5), program.words(0xffc, 1)), (None, None));
    }

    #[test]
    fn branches_are_told_from_other_instructions() {
        // Assembled by GNU as.
        for branch in [
            0x1400_0010,
            0x97ff_fffe,
            0x5400_0041,
            0xb400_0060,
            0x3500_0060,
            0x3608_0040,
            0xb708_0040,
            0xd61f_0200,
            0xd63f_0200,
            RET,
        ] {
            assert!(is_branch(branch), "{branch:#010x}");
        }
        for other in
            [NOP, 0x4f82_e020, 0x0e62_c020, 0xb862_6820, 0x9100_03fd, 0xa9b6_7bfd, 0x9000_0000, 0x7100_043f]
        {
            assert!(!is_branch(other), "{other:#010x}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("program");
        assert!(Program::read(&path).expect_err("missing").to_string().contains("cannot read"));
        std::fs::write(&path, "#!/bin/sh\n").expect("writable");
        let error = Program::read(&path).expect_err("no program");
        assert!(error.to_string().contains("program: "), "{error}");
    }
}
