//! Tells the linker where the memory is, and the compiler where the image's container is.
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `RESCOMP_CONTAINER` | the container to put in the image | an image that says it has none |
//! | `RESCOMP_STACK` | bytes of the stack, a multiple of 16 | 512 KiB |
//! | `RESCOMP_MEMORY` | where the image's memory is once it runs, and its bytes, separated by a comma: multiples of 1 GiB and 2 MiB | 512 MiB at 1 GiB |

use std::path::PathBuf;
use std::{env, fs};

/// Bytes of the stack.
const DEFAULT_STACK: &str = "524288";
const DEFAULT_MEMORY: &str = "0x40000000,0x20000000";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=RESCOMP_CONTAINER");
    println!("cargo::rerun-if-env-changed=RESCOMP_MEMORY");
    println!("cargo::rerun-if-env-changed=RESCOMP_STACK");
    println!("cargo::rerun-if-changed=link.ld");
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
    let memory = env::var("RESCOMP_MEMORY").unwrap_or_else(|_| DEFAULT_MEMORY.to_owned());
    let Some((origin, bytes)) = memory.split_once(',') else {
        return Err(format!("RESCOMP_MEMORY: expected two numbers, found `{memory}`").into());
    };
    let script = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("link.ld");
    let stack = env::var("RESCOMP_STACK").unwrap_or_else(|_| DEFAULT_STACK.to_owned());
    println!("cargo::rustc-link-arg-bins=--defsym=__stack_bytes={stack}");
    println!("cargo::rustc-link-arg-bins=--defsym=RAM_ORIGIN={origin}");
    println!("cargo::rustc-link-arg-bins=--defsym=RAM_BYTES={bytes}");
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    Ok(())
}
