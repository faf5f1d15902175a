//! `cargo xtask build-no-std`: the device's crates, and the images made of them, build where there is no standard library and no allocator.
//!
//! Two targets stand for the rest: a 64-bit one, and a 32-bit microcontroller on which `usize` holds fewer bits than a file has
//! bytes. They are built as `pack` builds them, which then has little left to do. The sizes of images are printed as a table, and
//! none may be above its bound. On the emulated microcontroller the kernels are compared with the portable ones, and a stack overflow must be
//! told as one.

use std::time::Instant;

use clap::Args;
use rescomp_runtime::parts::{Part, Parts};

use crate::command;
use crate::error::Error;
use crate::image::{self, Boards, Contents, Sizes};
use crate::output;
use crate::root;
use crate::system::Install;
use crate::target::{Runner, Target};
use crate::toolchain;

/// Targets without an operating system.
const TARGETS: [&str; 2] = ["aarch64-bare", "cortex-m7"];

/// Crates that must build on them alone, with the features that firmware may want.
const PACKAGES: [(&str, &[&str]); 2] = [("rescomp-formats", &["signature"]), ("rescomp-runtime", &[])];

/// Parts of an image for a Llama of one width, and byte-pair encoding as GPT-2 and Llama have it.
const ONE_MODEL: [Part; 7] = [
    Part::Int4,
    Part::Groups64,
    Part::Llama,
    Part::Head32,
    Part::CacheF16,
    Part::BytePair,
    Part::Gpt2Pattern,
];

/// What an image holds, and the most bytes of instructions that it may have: some more than it had when this was written.
struct Bounded {
    target: &'static str,
    name: &'static str,
    contents: Contents<'static>,
    most_text_bytes: u64,
}

/// Options of `build-no-std`.
#[derive(Debug, Args)]
pub(crate) struct BuildNoStdFlags {
    /// Install nothing: a missing tool is an error that names the commands.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Builds every crate, and images without a container, for every target, and says how large the images are.
///
/// # Errors
/// `Exit::Missing` without a toolchain, `Exit::Failed` when a crate does not build, an image is too large or a kernel differs.
pub(crate) fn run(flags: &BuildNoStdFlags) -> Result<(), Error> {
    let root = root::root()?;
    let install = Install::unless(flags.no_install);
    let one_model = Contents::Parts(ONE_MODEL.into_iter().fold(Parts::NONE, Parts::with));
    let images = [
        Bounded { target: "aarch64-bare", name: "one width", contents: one_model, most_text_bytes: 170_000 },
        Bounded { target: "cortex-m7", name: "one width", contents: one_model, most_text_bytes: 65_536 },
        Bounded {
            target: "cortex-m7",
            name: "all, and words that test",
            contents: Contents::Tests,
            most_text_bytes: 175_000,
        },
    ];
    let mut table = Vec::new();
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
            // With the image's profile: what it shares with the image is compiled once.
            check.args([
                "--package",
                package,
                "--no-default-features",
                "--profile",
                image::profile(target.runner),
            ]);
            if !features.is_empty() {
                check.args(["--features", &features.join(",")]);
            }
            let status = command::run(&mut check, None)?;
            if !status.success() {
                return Err(Error::failed(format!("{package} does not build for {name} ({status})")));
            }
        }
        for bounded in images.iter().filter(|bounded| bounded.target == name) {
            let image = image::build(&root, &target, description, install, bounded.contents)?;
            table.push((bounded, Sizes::of(&image.elf)?));
            if let (Contents::Tests, Runner::CortexM) = (bounded.contents, target.runner) {
                let boards = Boards::find(&target, install)?;
                for board in &description.emulated {
                    boards.test(&image, board)?;
                }
            }
        }
        output::line(&format!("== {name}: built ({} s)", start.elapsed().as_secs()));
    }
    output::line(&format!(
        "{:<14}{:<26}{:>14}{:>12}{:>12}",
        "image", "parts", "instructions", "at most", "constants"
    ));
    for (bounded, sizes) in &table {
        output::line(&format!(
            "{:<14}{:<26}{:>14}{:>12}{:>12}",
            bounded.target, bounded.name, sizes.text_bytes, bounded.most_text_bytes, sizes.constant_bytes
        ));
    }
    match table.iter().find(|(bounded, sizes)| sizes.text_bytes > bounded.most_text_bytes) {
        Some((Bounded { target, name, most_text_bytes, .. }, sizes)) => Err(Error::failed(format!(
            "the image of {target} ({name}) has {} bytes of instructions, and {most_text_bytes} are the most it may have",
            sizes.text_bytes
        ))
        .remedy("docs/footprint.md says what is in it; the bound is in xtask/src/build_no_std.rs")),
        None => Ok(()),
    }
}
