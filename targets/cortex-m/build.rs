//! Tells the linker where the microcontroller's memory is, and the compiler where the image's container is.
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `RESCOMP_CONTAINER` | the container to put in the image | an image that says it has none |
//! | `RESCOMP_STACK` | bytes of the stack, a multiple of 8 | 96 KiB |
//! | `RESCOMP_MEMORY` | origin and bytes of code memory, then of data memory, separated by commas | those of QEMU's `mps2-an500` |

use std::path::{Path, PathBuf};
use std::{env, fs};

/// 4 MiB of code memory and 4 MiB of data memory (Arm, "Application Note AN500", table 3-1; QEMU maps no more of its SSRAM).
const AN500: &str = "0,4194304,0x20000000,4194304";

const DEFAULT_STACK: &str = "98304";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=RESCOMP_CONTAINER");
    println!("cargo::rerun-if-env-changed=RESCOMP_MEMORY");
    println!("cargo::rerun-if-env-changed=RESCOMP_STACK");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let container = match env::var("RESCOMP_CONTAINER") {
        Ok(path) => {
            println!("cargo::rerun-if-changed={path}");
            fs::read(&path).map_err(|error| format!("RESCOMP_CONTAINER: {path}: {error}"))?
        }
        Err(_) => Vec::new(),
    };
    fs::write(out.join("container.bin"), container)?;
    if env::var("CARGO_CFG_TARGET_OS")? != "none" {
        return Ok(());
    }
    write_memory(&out, &env::var("RESCOMP_MEMORY").unwrap_or_else(|_| AN500.to_owned()))?;
    println!("cargo::rustc-link-search={}", out.display());
    let stack = env::var("RESCOMP_STACK").unwrap_or_else(|_| DEFAULT_STACK.to_owned());
    println!("cargo::rustc-link-arg-bins=--defsym=__stack_bytes={stack}");
    for argument in ["-Tlink.x", "-Tdefmt.x", "--nmagic"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    Ok(())
}

/// cortex-m-rt's `memory.x`.
fn write_memory(out: &Path, memory: &str) -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<&str> = memory.split(',').collect();
    let [code, code_bytes, data, data_bytes] = numbers[..] else {
        return Err(format!("RESCOMP_MEMORY: expected four numbers, found `{memory}`").into());
    };
    let text = format!(
        "MEMORY\n{{\n  FLASH : ORIGIN = {code}, LENGTH = {code_bytes}\n  RAM : ORIGIN = {data}, LENGTH = {data_bytes}\n}}\n"
    );
    Ok(fs::write(out.join("memory.x"), text)?)
}
