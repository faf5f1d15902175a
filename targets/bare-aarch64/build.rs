//! Tells the linker where the memory is, and the compiler where the image's container is (targets/firmware/embedded.rs).

#[path = "../firmware/embedded.rs"]
mod embedded;

use std::path::PathBuf;

/// Where the image's memory is once it runs, and its bytes: multiples of 1 GiB and 2 MiB.
const MEMORY: &str = "0x40000000,0x20000000";
const STACK_BYTES: &str = "524288";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=link.ld");
    if embedded::container()?.is_none() {
        return Ok(());
    }
    let memory = embedded::variable("RESCOMP_MEMORY", MEMORY);
    let Some((origin, bytes)) = memory.split_once(',') else {
        return Err(format!("RESCOMP_MEMORY: expected two numbers, found `{memory}`").into());
    };
    let stack = embedded::variable("RESCOMP_STACK", STACK_BYTES);
    let script = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("link.ld");
    println!("cargo::rustc-link-arg-bins=--defsym=RAM_ORIGIN={origin}");
    println!("cargo::rustc-link-arg-bins=--defsym=RAM_BYTES={bytes}");
    println!("cargo::rustc-link-arg-bins=--defsym=__stack_bytes={stack}");
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    Ok(())
}
