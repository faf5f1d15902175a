//! `cargo xtask build-no-std`: the device's crates, and the images made of them, build where there is no standard library and no allocator.
//!
//! Two targets stand for the rest: a 64-bit one, and a 32-bit microcontroller on which `usize` holds fewer bits than a file has
//! bytes. They are built as `pack` builds them, which then has little left to do.

use std::time::Instant;

use clap::Args;

use rescomp_runtime::parts::Parts;

use crate::command;
use crate::error::Error;
use crate::image::{self, Contents};
use crate::output;
use crate::root;
use crate::system::Install;
use crate::target::Target;
use crate::toolchain;

/// Targets without an operating system.
const TARGETS: [&str; 2] = ["aarch64-bare", "cortex-m7"];

/// Crates that must build on them alone, with the features that firmware may want.
const PACKAGES: [(&str, &[&str]); 2] = [("rescomp-formats", &["signature"]), ("rescomp-runtime", &[])];

/// Options of `build-no-std`.
#[derive(Debug, Args)]
pub(crate) struct BuildNoStdFlags {
    /// Install nothing: a missing tool is an error that names the commands.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Builds every crate, and an image without a container, for every target, and says how large the images are.
///
/// # Errors
/// `Exit::Missing` without a toolchain, `Exit::Failed` when a crate does not build.
pub(crate) fn run(flags: &BuildNoStdFlags) -> Result<(), Error> {
    let root = root::root()?;
    let install = Install::unless(flags.no_install);
    for name in TARGETS {
        let start = Instant::now();
        let target = Target::load(name)?;
        let Some(description) = &target.image else {
            return Err(Error::input(format!("targets/{name}.toml: image: expected one, found none")));
        };
        let toolchain = toolchain::find_image(&target, install)?;
        output::line(&format!("== {}", toolchain.how));
        for (package, features) in PACKAGES {
            let mut check = toolchain.cargo(&root, "check");
            check.args(["--package", package, "--no-default-features", "--profile", "release"]);
            if !features.is_empty() {
                check.args(["--features", &features.join(",")]);
            }
            let status = command::run(&mut check, None)?;
            if !status.success() {
                return Err(Error::failed(format!("{package} does not build for {name} ({status})")));
            }
        }
        let image = image::build(&root, &target, description, install, Contents::Parts(Parts::BUILT))?;
        let sizes = image::Sizes::of(&image.elf)?;
        output::line(&format!(
            "== {name}: built ({} s); the image without a container has {} bytes of instructions and {} of constants",
            start.elapsed().as_secs(),
            sizes.text_bytes,
            sizes.constant_bytes
        ));
    }
    Ok(())
}
