//! Which board this is, its memory, and what the start code calls.
#![allow(unsafe_code, reason = "linker symbols and processor registers")]

use core::arch::{asm, global_asm};
use core::fmt::Write;
use core::ptr::addr_of_mut;
use core::slice;

use rescomp_runtime::memory::MemoryBlock;
use semihosting::process::ExitCode;

use crate::program;
use crate::serial::Serial;

global_asm!(include_str!("start.s"));

/// PL011 of QEMU's `virt` (hw/arm/virt.c, its memory map).
const VIRT_SERIAL: usize = 0x0900_0000;
/// PL011 of a Raspberry Pi 2 and 3 (Broadcom, "BCM2835 ARM Peripherals", section 13.4, moved to 0x3f00_0000).
const PI3_SERIAL: usize = 0x3f20_1000;
/// Of a Raspberry Pi 4 (Raspberry Pi, "BCM2711 ARM Peripherals", section 11.5, low peripheral mode). Not tried on a board.
const PI4_SERIAL: usize = 0xfe20_1000;
/// Part number of a Cortex-A72 in MIDR_EL1.
const CORTEX_A72: u64 = 0xd08;

unsafe extern "C" {
    /// First byte behind the stack.
    static mut __free: u8;
    /// First byte behind the memory.
    static mut __ram_end: u8;
}

/// The board's serial line. Raspberry Pis have their memory at 0, QEMU's `virt` at 1 GiB.
fn serial(memory_begins: u64) -> Serial {
    let base = match (memory_begins, part()) {
        (0, CORTEX_A72) => PI4_SERIAL,
        (0, _) => PI3_SERIAL,
        _ => VIRT_SERIAL,
    };
    // SAFETY: these boards have one there, and the start code maps the first and the fourth GiB as devices.
    unsafe { Serial::new(base) }
}

/// The processor's part number.
fn part() -> u64 {
    let id: u64;
    // SAFETY: reads a register that every level from 1 on may read.
    unsafe { asm!("mrs {}, midr_el1", out(reg) id, options(nomem, nostack, preserves_flags)) };
    (id >> 4) & 0xfff
}

/// Where the memory begins, for the message of a fault.
static mut MEMORY_BEGINS: u64 = 0;

/// From the start code, once: address translation is on, the stack and the variables are ready.
#[unsafe(no_mangle)]
extern "C" fn main(memory_begins: u64) -> ! {
    // SAFETY: one core, no interrupts: nobody reads it now.
    unsafe { MEMORY_BEGINS = memory_begins };
    let first = (addr_of_mut!(__free) as usize).next_multiple_of(size_of::<MemoryBlock>());
    let blocks = (addr_of_mut!(__ram_end) as usize).saturating_sub(first) / size_of::<MemoryBlock>();
    // SAFETY: mapped memory that the linker leaves to nobody else, taken once, aligned; any bytes are a MemoryBlock.
    let memory = unsafe { slice::from_raw_parts_mut(first as *mut MemoryBlock, blocks) };
    match program::run(memory, &mut serial(memory_begins)) {
        true => ExitCode::SUCCESS.exit_process(),
        false => ExitCode::FAILURE.exit_process(),
    }
}

/// From the exception vectors: an access that can't be, an instruction that the processor doesn't have.
#[unsafe(no_mangle)]
extern "C" fn fault(syndrome: u64, instruction: u64, address: u64) -> ! {
    // SAFETY: nobody writes it any more.
    let mut serial = serial(unsafe { MEMORY_BEGINS });
    // Where nothing can be written there is nothing else to do either.
    let _ = writeln!(
        serial,
        "error: exception: syndrome {syndrome:#x}, instruction at {instruction:#x}, address {address:#x}"
    );
    ExitCode::FAILURE.exit_process()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: as in `fault`.
    let mut serial = serial(unsafe { MEMORY_BEGINS });
    let _ = writeln!(serial, "error: {info}");
    ExitCode::FAILURE.exit_process()
}
