//! rescomp for C: a container is opened in memory that the caller gives, and runs there. Nothing is allocated, nothing is kept elsewhere.
//!
//! ```text
//! rescomp_plan_session(container, context) -> bytes        how much memory
//! rescomp_open(container, context, memory)         a session in it
//! rescomp_check / rescomp_generate / rescomp_run   what it is for
//! ```
//! docs/c.md explains it; `include/rescomp.h` is generated from this crate.
#![cfg_attr(not(feature = "std"), no_std)]
#![allow(unsafe_code, reason = "pointers from C")]

pub mod session;
pub mod status;

/// What a panic does where nothing else is there to decide: no input causes one.
#[cfg(not(feature = "std"))]
#[panic_handler]
fn stop(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
