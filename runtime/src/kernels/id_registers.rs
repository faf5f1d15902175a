//! What the processor's ID registers say, for programs without an operating system that run at exception level 1 or above (at level 0
//! without a system that answers for them, reading one is a fault).
#![allow(unsafe_code, reason = "processor registers")]

use core::arch::asm;

/// SDOT and UDOT: `ID_AA64ISAR0_EL1.DP` (Arm DDI 0487, D24.2).
pub(super) fn has_dotprod() -> bool {
    let register: u64;
    // SAFETY: reads a register; the feature `id-registers` promises a level that may.
    unsafe { asm!("mrs {}, id_aa64isar0_el1", out(reg) register, options(nomem, nostack, preserves_flags)) };
    (register >> 44) & 0xf != 0
}

/// SMMLA: `ID_AA64ISAR1_EL1.I8MM`.
pub(super) fn has_i8mm() -> bool {
    let register: u64;
    // SAFETY: likewise.
    unsafe { asm!("mrs {}, id_aa64isar1_el1", out(reg) register, options(nomem, nostack, preserves_flags)) };
    (register >> 52) & 0xf != 0
}
