//! For the build scripts of images: the container that goes into one, and where variables say its memory is.
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `RESCOMP_CONTAINER` | the container to put in the image | an image that says it has none |
//! | `RESCOMP_MEMORY` | where the memory is: numbers separated by commas | the script's default |
//! | `RESCOMP_STACK` | bytes of the stack, a multiple of 16 | likewise |

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Writes the container to where the program includes it from; returns that folder, or nothing where no image is built.
pub(crate) fn container() -> Result<Option<PathBuf>, Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=RESCOMP_CONTAINER");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let container = match env::var("RESCOMP_CONTAINER") {
        Ok(path) => {
            println!("cargo::rerun-if-changed={path}");
            fs::read(&path).map_err(|error| format!("RESCOMP_CONTAINER: {path}: {error}"))?
        }
        Err(_) => Vec::new(),
    };
    fs::write(Path::new(&out).join("container.bin"), container)?;
    Ok((env::var("CARGO_CFG_TARGET_OS")? == "none").then_some(out))
}

/// A variable, or its default.
pub(crate) fn variable(name: &str, default: &str) -> String {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
