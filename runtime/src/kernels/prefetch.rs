//! Asking for memory before it is needed.
#![allow(unsafe_code, reason = "a processor instruction")]

/// Bytes that are on their way at least, while memory answers: about 200 ns of what one core can read.
const LEAST_AHEAD: usize = 8 << 10;

/// How far ahead to ask, where some tiles of `bytes` together are read side by side: whole ones of these.
#[inline(always)]
pub(super) fn distance(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => LEAST_AHEAD.div_ceil(bytes) * bytes,
    }
}

/// Asks for as many bytes as `block` has, `bytes` after it. A matrix lies in memory in the order in which it is read, but where its rows
/// are short, no processor foresees that the next tiles follow: its guesses begin anew with every tile.
///
/// Only x86-64 has an instruction for it that stable Rust knows.
#[inline(always)]
pub(super) fn prefetch<T>(block: &T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let ahead = core::ptr::from_ref(block).cast::<i8>().wrapping_add(bytes);
        for line in 0..size_of::<T>() / LINE_BYTES {
            // SAFETY: every x86-64 has the instruction, and whatever the address, it never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * LINE_BYTES)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (block, bytes);
}
