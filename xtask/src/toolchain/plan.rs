//! The decision: with what to build, or what to install first. Pure: facts in, one step out.
//!
//! ```text
//! loop: facts -> decide(wanted, facts, install, tried) -> Ready: build
//!                                                      -> Install(step): run it, note it as tried, look again
//!                                                      -> Missing: an error that names the remedies
//! ```
//!
//! What is there comes before what can be installed, rustup before the distribution's packages, and in each the triples in
//! the order the target names them. A step is tried once, so the loop ends.

use std::path::PathBuf;

use super::facts::{Compiler, Facts};
use crate::error::Error;
use crate::system::{Install, Packages, Privilege, System};

/// What is to be built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The target's name, for messages.
    pub(crate) name: String,
    /// Triples in the order they are tried.
    pub(crate) triples: Vec<String>,
    /// Oldest compiler that builds the project, major and minor.
    pub(crate) minimum: (u32, u32),
    /// Programs for Linux, or libraries for bare metal.
    pub(crate) kind: Kind,
}

/// What a triple runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Linux: the standard library, a linker and a C library are needed.
    Linux,
    /// No system: `core` is needed, and can be built from its sources.
    Bare,
}

/// How programs are linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// As the compiler does it by itself.
    Default,
    /// By a C compiler.
    C(PathBuf),
    /// By LLVM's linker, which needs no C compiler where the compiler brings the C library along (musl) or none is used.
    Lld(PathBuf),
}

/// A toolchain that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// The triple it builds for.
    pub(crate) triple: String,
    /// The linker.
    pub(crate) link: Link,
    /// Whether programs are linked statically. Programs linked dynamically hang under QEMU's user emulation when they start
    /// threads, and need the board to have the build machine's C library.
    pub(crate) is_static: bool,
    /// `core` is built from its sources.
    pub(crate) builds_core: bool,
}

/// Something to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `rustup target add`.
    RustupTarget {
        /// The toolchain it is added to.
        toolchain: String,
        /// The triple.
        triple: String,
    },
    /// Packages of the distribution.
    Packages(Packages),
}

impl Step {
    /// The command to type.
    pub(crate) fn shown(&self, privilege: Privilege) -> String {
        match self {
            Step::RustupTarget { toolchain, triple } => {
                format!("rustup target add --toolchain {toolchain} {triple}")
            }
            Step::Packages(packages) => packages.shown(privilege),
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Build with this.
    Ready(Choice),
    /// Install this, then look again.
    Install(Step),
    /// It can't be had.
    Missing(Error),
}

/// Decides from the facts; `tried` are the steps already run, whether they worked or not.
pub(crate) fn decide(wanted: &Wanted, facts: &Facts, install: Install, tried: &[Step]) -> Decision {
    if let Some(choice) = ready(wanted, facts) {
        return Decision::Ready(choice);
    }
    let steps = steps(wanted, facts);
    let may_run = |step: &&Step| match step {
        Step::RustupTarget { .. } => true,
        Step::Packages(_) => facts.privilege != Privilege::None,
    };
    if install == Install::Allowed {
        let next = steps.iter().filter(may_run).find(|step| !tried.contains(step));
        if let Some(step) = next {
            return Decision::Install(step.clone());
        }
    }
    Decision::Missing(missing(wanted, facts, install, tried, &steps))
}

/// The first toolchain that is there.
fn ready(wanted: &Wanted, facts: &Facts) -> Option<Choice> {
    let compilers = || facts.compilers.iter().filter(|compiler| compiler.version >= wanted.minimum);
    for triple in &wanted.triples {
        for compiler in compilers().filter(|compiler| compiler.libraries.contains(triple)) {
            let choice = |link, is_static| Choice {
                compiler: compiler.clone(),
                triple: triple.clone(),
                link,
                is_static,
                builds_core: false,
            };
            if wanted.kind == Kind::Bare {
                // Where the compiler has no linker of its own the libraries are built all the same.
                let lld = facts.lld.clone().filter(|_| compiler.rust_lld.is_none());
                return Some(choice(lld.map_or(Link::Default, Link::Lld), true));
            }
            if let Some((link, is_static)) = linux_link(triple, compiler, facts) {
                return Some(choice(link, is_static));
            }
        }
    }
    if wanted.kind == Kind::Linux {
        return None;
    }
    let triple = wanted.triples.first()?;
    let compiler = compilers().find(|compiler| compiler.has_source)?;
    let lld = compiler.rust_lld.clone().or_else(|| facts.lld.clone());
    Some(Choice {
        compiler: compiler.clone(),
        triple: triple.clone(),
        link: lld.map_or(Link::Default, Link::Lld),
        is_static: true,
        builds_core: true,
    })
}

/// The linker for a Linux triple, and whether it links statically.
fn linux_link(triple: &str, compiler: &Compiler, facts: &Facts) -> Option<(Link, bool)> {
    let linker = facts.linkers.get(triple);
    if compiler.host == triple {
        // The machine builds for itself: its C compiler is called `cc` for the compiler's own programs too.
        return Some((Link::Default, linker.is_some_and(|linker| linker.has_static_libc)));
    }
    if triple.ends_with("-musl") {
        let lld = compiler.rust_lld.clone().or_else(|| facts.lld.clone())?;
        return Some((Link::Lld(lld), true));
    }
    // Without a static C library it could link, but not what is needed here.
    let linker = linker.filter(|linker| linker.has_static_libc)?;
    Some((Link::C(linker.path.clone()), true))
}

/// Everything that may help, in the order it is tried.
fn steps(wanted: &Wanted, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    if facts.has_rustup {
        let compilers = facts.compilers.iter().filter(|compiler| compiler.version >= wanted.minimum);
        for compiler in compilers {
            let Some(toolchain) = &compiler.rustup_toolchain else { continue };
            for triple in wanted.triples.iter().filter(|triple| !compiler.libraries.contains(*triple)) {
                // Only a library that could then be linked is worth its download.
                if wanted.kind == Kind::Bare || linux_link(triple, compiler, facts).is_some() {
                    steps.push(Step::RustupTarget { toolchain: toolchain.clone(), triple: triple.clone() });
                }
            }
        }
    }
    steps.extend(packages(wanted, facts).map(Step::Packages));
    steps
}

/// The distribution's packages for what is wanted.
fn packages(wanted: &Wanted, facts: &Facts) -> Option<Packages> {
    if !facts.system.has_apt() {
        return None;
    }
    if wanted.kind == Kind::Bare {
        let names = Packages::own(&["rustc-web", "cargo-web", "rust-web-src", "lld-19"]);
        return (facts.system == System::Debian).then_some(names);
    }
    let triple = wanted.triples.iter().find(|triple| triple.ends_with("-linux-gnu"))?;
    let (architecture, gcc) = match triple.split('-').next()? {
        "aarch64" => ("arm64", "gcc-aarch64-linux-gnu"),
        "x86_64" => ("amd64", "gcc-x86-64-linux-gnu"),
        _ => return None,
    };
    let libc = format!("libc6-dev-{architecture}-cross");
    let usable =
        |compiler: &&Compiler| compiler.version >= wanted.minimum && compiler.libraries.contains(triple);
    if facts.compilers.iter().any(|compiler| usable(&compiler)) {
        // Only the linker is missing.
        return Some(Packages::own(&[gcc, &libc]));
    }
    let library = format!("libstd-rust-web-dev:{architecture}");
    (facts.system == System::Debian).then(|| Packages {
        architecture: Some(architecture.to_owned()),
        names: ["rustc-web", "cargo-web", &library, gcc, &libc].map(str::to_owned).to_vec(),
    })
}

fn missing(wanted: &Wanted, facts: &Facts, install: Install, tried: &[Step], steps: &[Step]) -> Error {
    let triples = wanted.triples.join(" or ");
    let beside = if triples == wanted.name { String::new() } else { format!(" ({triples})") };
    let mut error = Error::missing(format!("no toolchain builds for `{}`{beside}", wanted.name));
    if facts.compilers.is_empty() {
        error = error.because("no rustc with its cargo is on the search path");
    }
    for compiler in &facts.compilers {
        let rustc = compiler.rustc.display();
        let (major, minor) = wanted.minimum;
        error = error.because(if compiler.version < wanted.minimum {
            format!("{rustc} is {}; {major}.{minor} or newer is needed", compiler.release)
        } else if wanted.triples.iter().any(|triple| compiler.libraries.contains(triple)) {
            format!("{rustc} ({}) has the target, but no linker with a static C library", compiler.release)
        } else {
            format!("{rustc} ({}) has none of these targets", compiler.release)
        });
    }
    for step in tried {
        error = error.because(format!("did not help: {}", step.shown(facts.privilege)));
    }
    let open: Vec<&Step> = steps.iter().filter(|step| !tried.contains(step)).collect();
    if install == Install::No && !open.is_empty() {
        error = error.because("--no-install was given, so nothing was installed");
    } else if open.iter().any(|step| matches!(step, Step::Packages(_))) {
        error = error.because("packages need root or a sudo that asks for no password (`sudo -n`)");
    }
    for step in &open {
        error = error.remedy(step.shown(facts.privilege));
    }
    if !open.is_empty() {
        return error;
    }
    // Nothing this program can do: say what a person can.
    let triple = wanted.triples.iter().find(|triple| triple.ends_with("-musl")).or(wanted.triples.first());
    let triple = triple.map_or("", String::as_str);
    let (major, minor) = wanted.minimum;
    error.remedy(format!(
        "{}: install rustup with Rust {major}.{minor} or newer, then `rustup target add {triple}`",
        facts.system.name()
    ))
}
