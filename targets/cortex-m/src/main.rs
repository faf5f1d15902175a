//! The image for Cortex-M microcontrollers: vector table, code and container in code memory; fixed memory, no heap.
//!
//! It runs what the words of the semihosting command line say, or the check and a short story where there are none, logs with defmt over
//! semihosting, and ends with exit code 0, or 1 where a bound is missed or something failed.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod memory;

/// On a host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!("this is the image for Cortex-M: `cargo xtask pack --target cortex-m7` builds and runs it");
    std::process::ExitCode::from(2)
}
