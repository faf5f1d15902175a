//! Where things are: the project's root, its target directory, the folder of target descriptions.
//!
//! Commands never change the working directory: paths on the command line are relative to where the user stands.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// The project's root: the parent of this crate's folder.
///
/// Cargo tells the crate's folder at run time; where the program is started by itself, the folder that holds
/// `xtask/Cargo.toml` is looked for from the working directory upwards.
///
/// # Errors
/// `Exit::Missing` when neither leads to a checkout of the project.
pub(crate) fn root() -> Result<PathBuf, Error> {
    let from_cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let from_cargo = from_cargo.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let here = std::env::current_dir().ok();
    let above = here.iter().flat_map(|here| here.ancestors()).map(Path::to_path_buf);
    from_cargo.into_iter().chain(above).find(|folder| is_root(folder)).ok_or_else(|| {
        Error::missing("the project's root was not found from the working directory upwards")
            .remedy("run `cargo xtask` inside a checkout of the project")
    })
}

fn is_root(folder: &Path) -> bool {
    folder.join("xtask/Cargo.toml").is_file() && folder.join("targets").is_dir()
}

/// Cargo's target directory: `CARGO_TARGET_DIR` where it is set, otherwise `target` in the root.
pub(crate) fn target_directory(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => root.join(folder),
        _ => root.join("target"),
    }
}

/// The folder of the target descriptions.
pub(crate) fn targets_directory(root: &Path) -> PathBuf {
    root.join("targets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_this_crate() {
        let root = root().expect("tests run inside the checkout");
        assert!(root.join("xtask/src/root.rs").is_file());
    }
}
