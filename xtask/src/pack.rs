//! `cargo xtask pack`: quantize a model for a target and check it there.

use std::path::{Path, PathBuf};

use crate::command;
use crate::error::Error;
use crate::flags::PackFlags;
use crate::root;
use crate::system::Install;
use crate::target::Target;
use crate::toolchain::{self, Profile};

/// Runs the command.
///
/// # Errors
/// Always: it is not built yet.
pub(crate) fn run(flags: &PackFlags) -> Result<(), Error> {
    let target = Target::load(&flags.target)?;
    let runner = build_runner(&root::root()?, &target, Install::unless(flags.no_install))?;
    Err(Error::failed("pack: not built yet").because(format!("only its runner is: {}", runner.display())))
}

/// Builds the program that runs containers on the target and returns its path.
fn build_runner(root: &Path, target: &Target, install: Install) -> Result<PathBuf, Error> {
    let toolchain = toolchain::find(target, install)?;
    let package = target.runner.package();
    let status = command::run(&mut toolchain.build(root, package, &[], Profile::Release), None)?;
    if !status.success() {
        return Err(Error::failed(format!("{package} does not build for {} ({status})", toolchain.triple)));
    }
    Ok(toolchain.program(package, Profile::Release))
}
