//! Looks for instructions in a built 64-bit ARM program: the fast path is in it, and in nothing that every processor runs.
//!
//! ```text
//! each gemv/gemm of neon_dotprod, and  has SDOT      (or the fast kernels are slow ones with a fast name), itself in what devices
//! its attention over int8:                           get; it or what it calls in tests, where less is inlined
//! each gemm of neon_i8mm:              has SMMLA     likewise
//! every other function of ours:        has neither   (a Cortex-A72 would die of SIGILL)
//! every function of ours:              no atomics of ARMv8.1 (a Cortex-A72 lacks them, too)
//! ```
//! Only functions of the project's crates are looked at: the standard library chooses its atomics at run time. Instructions are
//! four bytes each, so a mask and a value tell an encoding (Arm Architecture Reference Manual, DDI 0487, section C4.1).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use crate::error::Error;

/// Products that must be made of SDOT, and attention over int8 codes, whose functions are told apart by their module.
const DOTPROD_FUNCTIONS: [&str; 14] = [
    "gemv_int2_neon_dotprod",
    "gemm_int2_neon_dotprod",
    "gemv_int3_neon_dotprod",
    "gemm_int3_neon_dotprod",
    "gemv_int4_neon_dotprod",
    "gemm_int4_neon_dotprod",
    "gemv_int5_neon_dotprod",
    "gemm_int5_neon_dotprod",
    "gemv_int6_neon_dotprod",
    "gemm_int6_neon_dotprod",
    "gemv_int8_neon_dotprod",
    "gemm_int8_neon_dotprod",
    "neon_dotprod14attention_int811scores_int8",
    "neon_dotprod14attention_int818weighted_sums_int8",
];

/// Products that must be made of SMMLA.
const I8MM_FUNCTIONS: [&str; 6] = [
    "gemm_int2_neon_i8mm",
    "gemm_int3_neon_i8mm",
    "gemm_int4_neon_i8mm",
    "gemm_int5_neon_i8mm",
    "gemm_int6_neon_i8mm",
    "gemm_int8_neon_i8mm",
];

/// A family of instructions that one module may use, and must in its kernels.
struct Extension {
    family: Family,
    name: &'static str,
    module: &'static str,
    kernels: &'static [&'static str],
}

const EXTENSIONS: [Extension; 2] = [
    Extension {
        family: Family::DotProduct,
        name: "SDOT",
        module: "neon_dotprod",
        kernels: &DOTPROD_FUNCTIONS,
    },
    Extension { family: Family::MatrixProduct, name: "SMMLA", module: "neon_i8mm", kernels: &I8MM_FUNCTIONS },
];

/// Part of the mangled name of every function of the project's crates.
const OURS: &str = "rescomp";

/// A family of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// SDOT and UDOT.
    DotProduct,
    /// SMMLA, UMMLA and USMMLA.
    MatrixProduct,
    /// Atomics of ARMv8.1 (LDADD, SWP, CAS, CASP and their kin).
    Atomics,
}

/// Mask, value and family of an encoding.
const ENCODINGS: [(u32, u32, Family); 6] = [
    // Dot products by vector and by element; bit 30 is the width of the registers, bit 29 tells unsigned ones.
    (0x9fe0_fc00, 0x0e80_9400, Family::DotProduct),
    (0x9fc0_f400, 0x0f80_e000, Family::DotProduct),
    // Products of matrices of bytes: bits 29 and 11 tell the signs.
    (0xdfe0_f400, 0x4e80_a400, Family::MatrixProduct),
    // Read-modify-write and swap, compare and swap, the same of a pair.
    (0x3f20_0c00, 0x3820_0000, Family::Atomics),
    (0x3fa0_7c00, 0x08a0_7c00, Family::Atomics),
    (0xbfa0_7c00, 0x0820_7c00, Family::Atomics),
];

fn family(instruction: u32) -> Option<Family> {
    ENCODINGS.iter().find(|(mask, value, _)| instruction & mask == *value).map(|(_, _, family)| *family)
}

/// Where the instructions of a kernel may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the kernel's own function, under the symbol that profilers count.
    Inlined,
    /// There, or in a function that is called from there.
    Called,
}

/// A function of a program: its mangled name, its code and where that is.
struct Function<'a> {
    name: &'a str,
    address: u64,
    code: &'a [u8],
}

impl Function<'_> {
    fn instructions(&self) -> impl Iterator<Item = u32> {
        self.code.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn count(&self, wanted: Family) -> usize {
        self.instructions().filter(|instruction| family(*instruction) == Some(wanted)).count()
    }

    /// Addresses that it branches to with a link (BL: a signed count of instructions in the low 26 bits).
    fn calls(&self) -> impl Iterator<Item = u64> {
        let from_here = |(index, instruction): (usize, u32)| {
            let offset = i64::from((instruction << 6).cast_signed() >> 6) * 4;
            (instruction >> 26 == 0b10_0101)
                .then(|| (self.address + 4 * index as u64).wrapping_add_signed(offset))
        };
        self.instructions().enumerate().filter_map(from_here)
    }
}

/// This function and all that it reaches by calls, of `functions`.
fn reached<'f, 'a>(
    from: &'f Function<'a>,
    functions: &'f BTreeMap<u64, &'f Function<'a>>,
) -> Vec<&'f Function<'a>> {
    let (mut known, mut found) = (BTreeSet::from([from.address]), vec![from]);
    let mut at = 0;
    while let Some(function) = found.get(at) {
        let called = function.calls().filter(|address| known.insert(*address));
        let called: Vec<_> = called.filter_map(|address| functions.get(&address).copied()).collect();
        found.extend(called);
        at += 1;
    }
    found
}

/// Checks a program; returns one line about what was found.
///
/// # Errors
/// `Exit::Disk` when the program can't be read, `Exit::Failed` naming the functions that break a rule, or when there is no
/// function to look at.
pub(crate) fn check(program: &Path, place: Place) -> Result<String, Error> {
    let bytes = std::fs::read(program).map_err(|error| Error::disk("read", program, &error))?;
    let failed = |why: String| Error::failed(format!("{}: {why}", program.display()));
    let file = object::File::parse(bytes.as_slice()).map_err(|error| failed(error.to_string()))?;
    let functions: Vec<Function<'_>> = file.symbols().filter_map(|symbol| function(&file, &symbol)).collect();
    judge(&functions, place).map_err(failed)
}

fn function<'a>(file: &object::File<'a>, symbol: &object::Symbol<'a, '_>) -> Option<Function<'a>> {
    let name = symbol.name().ok().filter(|name| name.contains(OURS))?;
    if symbol.kind() != SymbolKind::Text {
        return None;
    }
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let code = section.data_range(symbol.address(), symbol.size()).ok()??;
    Some(Function { name, address: symbol.address(), code })
}

/// The rules.
fn judge(functions: &[Function<'_>], place: Place) -> Result<String, String> {
    let mut wrong = Vec::new();
    let mut found = [0; EXTENSIONS.len()];
    let by_address: BTreeMap<u64, &Function<'_>> =
        functions.iter().map(|function| (function.address, function)).collect();
    for (extension, found) in EXTENSIONS.iter().zip(&mut found) {
        for wanted in extension.kernels {
            let kernels = functions.iter().filter(|function| function.name.contains(wanted));
            let count: usize = kernels
                .flat_map(|kernel| match place {
                    Place::Inlined => vec![kernel],
                    Place::Called => reached(kernel, &by_address),
                })
                .map(|function| function.count(extension.family))
                .sum();
            *found += count;
            if count == 0 {
                wrong.push(format!("{wanted} has no {}", extension.name));
            }
        }
    }
    for function in functions {
        for Extension { family, name, module, .. } in &EXTENSIONS {
            if !function.name.contains(module) && function.count(*family) > 0 {
                wrong.push(format!("{} has {name}, which not every processor has", function.name));
            }
        }
        if function.count(Family::Atomics) > 0 {
            wrong.push(format!("{} has atomics of ARMv8.1, which not every processor has", function.name));
        }
    }
    if wrong.is_empty() {
        let in_kernels = |(Extension { name, kernels, .. }, found): (&Extension, usize)| {
            format!("{found} {name} in {} kernels", kernels.len())
        };
        let found: Vec<String> = EXTENSIONS.iter().zip(found).map(in_kernels).collect();
        Ok(format!("{}, none in the rest of {} functions", found.join(", "), functions.len()))
    } else {
        Err(wrong.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_told_apart() {
        // Assembled by GNU as for armv8.2-a+dotprod.
        for (instruction, expected) in [
            (0x4f82_e020_u32, Some(Family::DotProduct)), // sdot v0.4s, v1.16b, v2.4b[0]
            (0x4fa2_e820, Some(Family::DotProduct)),     // sdot v0.4s, v1.16b, v2.4b[3]
            (0x4e82_9420, Some(Family::DotProduct)),     // sdot v0.4s, v1.16b, v2.16b
            (0x6e82_9420, Some(Family::DotProduct)),     // udot v0.4s, v1.16b, v2.16b
            (0x4e82_a420, Some(Family::MatrixProduct)),  // smmla v0.4s, v1.16b, v2.16b
            (0x6e82_a420, Some(Family::MatrixProduct)),  // ummla v0.4s, v1.16b, v2.16b
            (0x4e82_ac20, Some(Family::MatrixProduct)),  // usmmla v0.4s, v1.16b, v2.16b
            (0xb820_0041, Some(Family::Atomics)),        // ldadd w0, w1, [x2]
            (0xf8e0_8041, Some(Family::Atomics)),        // swpal x0, x1, [x2]
            (0x88a0_7c41, Some(Family::Atomics)),        // cas w0, w1, [x2]
            (0x4820_7c82, Some(Family::Atomics)),        // casp x0, x1, x2, x3, [x4]
            (0x0e62_c020, None),                         // smull v0.4s, v1.4h, v2.4h
            (0x4ea2_9420, None),                         // mla v0.4s, v1.4s, v2.4s
            (0xb862_6820, None),                         // ldr w0, [x1, x2]
            (0x885f_7c20, None),                         // ldxr w0, [x1]
            (0xc87f_0440, None),                         // ldxp x0, x1, [x2]
            (0x88df_fc20, None),                         // ldar w0, [x1]
            (0xd65f_03c0, None),                         // ret
        ] {
            assert_eq!(family(instruction), expected, "{instruction:#010x}");
        }
    }

    const SDOT: u32 = 0x4f82_e020;
    const SMMLA: u32 = 0x4e82_a420;
    const LDADD: u32 = 0xb820_0041;
    const RET: u32 = 0xd65f_03c0;

    /// Functions of two instructions, one after another in memory from address 0.
    fn judged_at(place: Place, extra: &[(&str, u32)], without: &str) -> Result<String, String> {
        let dotprod = DOTPROD_FUNCTIONS.iter().map(|name| (*name, SDOT));
        let kernels = dotprod.chain(I8MM_FUNCTIONS.iter().map(|name| (*name, SMMLA)));
        let kernels = kernels.filter(|(name, _)| *name != without);
        let code: Vec<(String, Vec<u8>)> = kernels
            .chain(extra.iter().copied())
            .map(|(name, instruction)| {
                let code = [instruction, RET].iter().flat_map(|word| word.to_le_bytes()).collect();
                (format!("_ZN15rescomp_runtime7kernels{name}E"), code)
            })
            .collect();
        let functions: Vec<Function<'_>> = (0..)
            .step_by(8)
            .zip(&code)
            .map(|(address, (name, code))| Function { name, address, code })
            .collect();
        judge(&functions, place)
    }

    fn judged(extra: &[(&str, u32)], without: &str) -> Result<String, String> {
        judged_at(Place::Inlined, extra, without)
    }

    #[test]
    fn a_fast_path_that_is_called_counts_where_it_may() {
        let kernel = DOTPROD_FUNCTIONS[11];
        // Nineteen kernels, this one at 152, one that it calls at 160, SDOT at 168.
        let called =
            [(kernel, 0x9400_0002), ("12neon_dotprod3add", 0x9400_0002), ("12neon_dotprod4sdot", SDOT)];
        assert_eq!(judged_at(Place::Inlined, &called, kernel), Err(format!("{kernel} has no SDOT")));
        assert!(judged_at(Place::Called, &called, kernel).is_ok());
        let back =
            [(kernel, 0x9400_0002), ("12neon_dotprod3add", 0x97ff_fffe), ("12neon_dotprod4sdot", SDOT)];
        assert_eq!(judged_at(Place::Called, &back, kernel), Err(format!("{kernel} has no SDOT")));
    }

    #[test]
    fn a_missing_fast_path_and_a_leaked_one_are_named() {
        assert_eq!(
            judged(&[("4neon4dot", RET)], ""),
            Ok("14 SDOT in 14 kernels, 6 SMMLA in 6 kernels, none in the rest of 21 functions".to_owned())
        );
        assert_eq!(judged(&[], I8MM_FUNCTIONS[2]), Err("gemm_int4_neon_i8mm has no SMMLA".to_owned()));
        assert_eq!(judged(&[], DOTPROD_FUNCTIONS[5]), Err("gemm_int4_neon_dotprod has no SDOT".to_owned()));
        assert_eq!(
            judged(&[(DOTPROD_FUNCTIONS[10], RET)], DOTPROD_FUNCTIONS[10]),
            Err("gemv_int8_neon_dotprod has no SDOT".to_owned())
        );
        let leaked = judged(&[("14gemv_int4_neon", SDOT)], "").expect_err("refused");
        assert!(leaked.contains("14gemv_int4_neonE has SDOT"), "{leaked}");
        let leaked = judged(&[("23gemm_int4_neon_dotprod", SMMLA)], "").expect_err("refused");
        assert!(leaked.contains("23gemm_int4_neon_dotprodE has SMMLA"), "{leaked}");
        let atomics = judged(&[("7threads", LDADD)], "").expect_err("refused");
        assert!(atomics.contains("7threadsE has atomics of ARMv8.1"), "{atomics}");
    }
}
