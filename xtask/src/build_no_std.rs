//! `cargo xtask build-no-std`: the device's crates build where there is no standard library and no allocator.
//!
//! Two bare-metal targets stand for the rest: a 64-bit one, and a 32-bit microcontroller on which `usize` holds fewer bits
//! than a file has bytes.

use std::time::Instant;

use clap::Args;

use crate::command;
use crate::error::Error;
use crate::output;
use crate::root;
use crate::system::Install;
use crate::toolchain::{self, Profile};

/// Bare-metal triples.
const TRIPLES: [&str; 2] = ["aarch64-unknown-none", "thumbv7em-none-eabihf"];

/// Crates that must build on them, with the features that firmware may want.
const PACKAGES: [(&str, &[&str]); 2] = [("rescomp-formats", &["signature"]), ("rescomp-runtime", &[])];

/// Options of `build-no-std`.
#[derive(Debug, Args)]
pub(crate) struct BuildNoStdFlags {
    /// Install nothing: a missing tool is an error that names the commands.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Builds every crate for every triple.
///
/// # Errors
/// `Exit::Missing` without a toolchain, `Exit::Failed` when a crate does not build.
pub(crate) fn run(flags: &BuildNoStdFlags) -> Result<(), Error> {
    let root = root::root()?;
    for triple in TRIPLES {
        let start = Instant::now();
        let toolchain = toolchain::find_bare(triple, Install::unless(flags.no_install))?;
        output::line(&format!("== {}", toolchain.how));
        for (package, features) in PACKAGES {
            let status = command::run(&mut toolchain.build(&root, package, features, Profile::Dev), None)?;
            if !status.success() {
                return Err(Error::failed(format!("{package} does not build for {triple} ({status})")));
            }
        }
        output::line(&format!("== {triple}: built ({} s)", start.elapsed().as_secs()));
    }
    Ok(())
}
