//! The bootable image for 64-bit ARM boards: start code, container and everything else in one file, no operating system.
//!
//! It runs what the words of the semihosting command line say, or the check and a short story where there are none or nobody listens, and
//! writes text to the board's serial line. With semihosting it ends with exit code 0, or 1 where a bound is missed or something failed.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod program;
#[cfg(target_os = "none")]
mod serial;

/// On a host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "this is an image for bare boards: `cargo xtask pack --target aarch64-bare` builds and runs it"
    );
    std::process::ExitCode::from(2)
}
