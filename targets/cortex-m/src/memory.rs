//! The data memory: the stack at its beginning, so that one that overflows leaves the memory and faults, then the program's variables, then the
//! model's state to the end.
#![allow(unsafe_code, reason = "memory named by linker symbols")]

use core::ptr::{addr_of, addr_of_mut};
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use rescomp_runtime::memory::MemoryBlock;

unsafe extern "C" {
    /// First byte behind the variables.
    static mut __sheap: u8;
    /// First byte behind the data memory.
    static __data_end: u8;
    /// First byte behind the stack's beginning: it grows down from here.
    static _stack_start: u8;
    /// Its address is the number of bytes of the stack.
    static __stack_bytes: u8;
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// What unused stack holds.
const UNUSED: u32 = 0x5ac4_0ed5;
/// Bytes of the largest frame of an exception: with the registers of the floating-point unit.
const FRAME_BYTES: usize = 104;
/// Bytes below the stack's end of now that are in use, or will be before the first is looked at.
const IN_USE: usize = 512;

/// Bytes of the stack.
pub(crate) fn stack_bytes() -> usize {
    addr_of!(__stack_bytes) as usize
}

/// The first byte of the stack.
fn stack_end() -> usize {
    (addr_of!(_stack_start) as usize).saturating_sub(stack_bytes())
}

/// Whether a stack pointer is that of a stack that has grown beyond its end, or is about to: an exception's frame has no room below it.
pub(crate) fn is_overflow(stack_pointer: usize) -> bool {
    stack_pointer < stack_end() + FRAME_BYTES
}

/// All memory that nothing else has, once.
pub(crate) fn take() -> Option<&'static mut [MemoryBlock]> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    let first = (addr_of_mut!(__sheap) as usize).next_multiple_of(size_of::<MemoryBlock>());
    let blocks = (addr_of!(__data_end) as usize).checked_sub(first)? / size_of::<MemoryBlock>();
    // SAFETY: the linker leaves this memory to nobody else; it is taken once. Any bytes are a MemoryBlock, and `first` is aligned for one.
    Some(unsafe { slice::from_raw_parts_mut(first as *mut MemoryBlock, blocks) })
}

/// Marks the stack as unused, but for what is in use now.
pub(crate) fn mark_stack() {
    let here = cortex_m::register::msp::read() as usize - IN_USE;
    for address in (stack_end().next_multiple_of(4)..here).step_by(4) {
        // SAFETY: an aligned word between the stack's end and what is in use of it.
        unsafe { (address as *mut u32).write_volatile(UNUSED) };
    }
}

/// Bytes of the stack that have been used since [`mark_stack`].
pub(crate) fn used_stack_bytes() -> usize {
    let top = addr_of!(_stack_start) as usize;
    let words = (stack_end().next_multiple_of(4)..top).step_by(4);
    // SAFETY: aligned words of the stack, read only.
    let unused = words.take_while(|&address| unsafe { (address as *const u32).read_volatile() } == UNUSED);
    stack_bytes().saturating_sub(4 * unused.count())
}
