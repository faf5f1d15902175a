//! The data memory that nothing else has: between the program's variables and the stack.
#![allow(unsafe_code, reason = "memory named by linker symbols")]

use core::ptr::addr_of_mut;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use rescomp_runtime::memory::MemoryBlock;

/// Bytes of the stack, at the top of the memory. docs/footprint.md says what was measured.
pub(crate) const STACK_BYTES: usize = 96 << 10;

unsafe extern "C" {
    /// First byte behind the variables.
    static mut __sheap: u8;
    /// First byte behind the stack's beginning: it grows down from here.
    static mut _stack_start: u8;
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// All of it, once.
pub(crate) fn take() -> Option<&'static mut [MemoryBlock]> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    let first = (addr_of_mut!(__sheap) as usize).next_multiple_of(size_of::<MemoryBlock>());
    let end = (addr_of_mut!(_stack_start) as usize).checked_sub(STACK_BYTES)?;
    let blocks = end.checked_sub(first)? / size_of::<MemoryBlock>();
    // SAFETY: the linker leaves this memory to nobody else, and the stack begins STACK_BYTES above its end; it is taken once. Any bytes are a
    // MemoryBlock, and `first` is aligned for one.
    Some(unsafe { slice::from_raw_parts_mut(first as *mut MemoryBlock, blocks) })
}
