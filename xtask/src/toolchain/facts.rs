//! What this machine has to build with, as plain data.
//!
//! [`Facts::probe`] asks the tools and changes nothing. Decisions are made from the data alone (see [`super::plan`]), so
//! machines nobody has at hand are tested as values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::system::{Privilege, System};

/// One Rust compiler with its cargo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The compiler itself, not rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// The cargo beside it.
    pub(crate) cargo: PathBuf,
    /// Triple of the machine it runs on.
    pub(crate) host: String,
    /// Its version, for messages: `1.95.0`.
    pub(crate) release: String,
    /// Major and minor version, for comparisons.
    pub(crate) version: (u32, u32),
    /// Name of the rustup toolchain it belongs to.
    pub(crate) rustup_toolchain: Option<String>,
    /// The triples asked about for which it has a compiled standard library (or `core`, for bare metal).
    pub(crate) libraries: BTreeSet<String>,
    /// Its own copy of LLVM's linker.
    pub(crate) rust_lld: Option<PathBuf>,
    /// It has the sources of the standard library, so that `core` can be built.
    pub(crate) has_source: bool,
}

/// A C compiler that links for a triple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    /// The program.
    pub(crate) path: PathBuf,
    /// It finds a static C library (`libc.a`).
    pub(crate) has_static_libc: bool,
}

/// Everything decisions are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Compilers, the active one first.
    pub(crate) compilers: Vec<Compiler>,
    /// C compilers by the triple they link for.
    pub(crate) linkers: BTreeMap<String, Linker>,
    /// LLVM's linker on the search path.
    pub(crate) lld: Option<PathBuf>,
    /// rustup is on the search path.
    pub(crate) has_rustup: bool,
    /// The operating system.
    pub(crate) system: System,
    /// The right to install packages.
    pub(crate) privilege: Privilege,
}

impl Facts {
    /// Asks the tools on the search path about `triples`.
    pub(crate) fn probe(triples: &[String]) -> Facts {
        let mut compilers: Vec<Compiler> = Vec::new();
        for rustc in rustc_candidates() {
            let Some(compiler) = probe_compiler(&rustc, triples) else { continue };
            if compilers.iter().all(|known| known.rustc != compiler.rustc) {
                compilers.push(compiler);
            }
        }
        let is_host = |triple: &str| compilers.iter().any(|compiler| compiler.host == triple);
        let linkers = triples
            .iter()
            .filter_map(|triple| Some((triple.clone(), probe_linker(triple, is_host(triple))?)));
        let linkers = linkers.collect();
        Facts {
            linkers,
            compilers,
            lld: ["ld.lld", "ld.lld-20", "ld.lld-19", "ld.lld-18", "ld.lld-17", "ld.lld-16"]
                .into_iter()
                .find_map(command::in_path),
            has_rustup: command::in_path("rustup").is_some(),
            system: System::probe(),
            privilege: Privilege::probe(),
        }
    }
}

/// Compilers in the order of preference: the one the user names, the one that built this program, those on the path.
fn rustc_candidates() -> Vec<PathBuf> {
    let named = std::env::var_os("RUSTC").map(PathBuf::from);
    let beside_cargo =
        std::env::var_os("CARGO").map(PathBuf::from).and_then(|cargo| sibling(&cargo, "rustc"));
    named.into_iter().chain(beside_cargo).chain(command::all_in_path("rustc")).collect()
}

/// The program `name` in the folder of `program`.
fn sibling(program: &Path, name: &str) -> Option<PathBuf> {
    let path = program.parent()?.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    path.is_file().then_some(path)
}

fn probe_compiler(rustc: &Path, triples: &[String]) -> Option<Compiler> {
    // The surrounding toolchain's variables stay for this one question: a rustup proxy chooses by them.
    let sysroot = command::ask(Command::new(rustc).args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim());
    // Behind a proxy stands the toolchain's own compiler, which needs no variables.
    let own = sysroot.join("bin").join(format!("rustc{}", std::env::consts::EXE_SUFFIX));
    let rustc = if own.is_file() { own } else { rustc.to_path_buf() };
    let cargo = sibling(&rustc, "cargo")?;
    let ask = |arguments: &[&str]| {
        let mut question = Command::new(&rustc);
        command::clean(&mut question);
        command::ask(question.args(arguments))
    };
    let about = ask(&["-vV"])?;
    let field = |name: &str| {
        let line = about.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let (host, release) = (field("host:")?, field("release:")?);
    let version = version_of(&release)?;
    let has_library = |triple: &&String| {
        let folder = ask(&["--print", "target-libdir", "--target", triple]);
        folder.is_some_and(|folder| holds_core(Path::new(folder.trim())))
    };
    let rust_lld = sysroot.join("lib/rustlib").join(&host).join("bin/rust-lld");
    Some(Compiler {
        libraries: triples.iter().filter(has_library).cloned().collect(),
        rustup_toolchain: rustup_toolchain(&sysroot),
        has_source: sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file(),
        rust_lld: rust_lld.is_file().then_some(rust_lld),
        cargo,
        rustc,
        host,
        release,
        version,
    })
}

/// Major and minor of `1.95.0` or `1.97.0-nightly`.
pub(crate) fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A rustup toolchain lies in `toolchains/NAME` of rustup's home.
fn rustup_toolchain(sysroot: &Path) -> Option<String> {
    let parent = sysroot.parent()?.file_name()?;
    (parent == "toolchains").then(|| sysroot.file_name()?.to_str().map(str::to_owned))?
}

/// Whether a library folder holds a compiled `core`; an empty folder stays behind when a target is removed.
fn holds_core(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .into_iter()
        .any(|name| name.to_str().is_some_and(|name| name.starts_with("libcore-") && name.ends_with(".rlib")))
}

/// The C compiler that links for a Linux triple with glibc: cargo's variable for it, or its usual names. The machine's own
/// triple has `cc`.
fn probe_linker(triple: &str, is_host: bool) -> Option<Linker> {
    if !triple.ends_with("-linux-gnu") {
        return None;
    }
    let variable = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
    let named = std::env::var_os(variable).map(PathBuf::from);
    let usual = if is_host {
        command::in_path("cc")
    } else {
        let short = triple.replace("-unknown", "");
        command::in_path(&format!("{short}-gcc")).or_else(|| command::in_path(&format!("{triple}-gcc")))
    };
    let path = named.or(usual)?;
    Some(Linker { has_static_libc: finds_static_libc(&path), path })
}

/// Asks a C compiler where `libc.a` is: the bare name comes back when it has none.
fn finds_static_libc(compiler: &Path) -> bool {
    let answer = command::ask(Command::new(compiler).arg("-print-file-name=libc.a"));
    answer.is_some_and(|path| Path::new(path.trim()).is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_a_suffix() {
        assert_eq!(version_of("1.95.0"), Some((1, 95)));
        assert_eq!(version_of("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(version_of("unknown"), None);
    }

    #[test]
    fn a_rustup_toolchain_is_known_by_its_folder() {
        let name = rustup_toolchain(Path::new("/h/.rustup/toolchains/stable-x86_64-unknown-linux-gnu"));
        assert_eq!(name.as_deref(), Some("stable-x86_64-unknown-linux-gnu"));
        assert_eq!(rustup_toolchain(Path::new("/usr")), None);
    }

    #[test]
    fn an_empty_library_folder_is_no_library() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(!holds_core(folder.path()));
        assert!(!holds_core(&folder.path().join("absent")));
        std::fs::write(folder.path().join("libcore-0123.rlib"), "").expect("writable");
        assert!(holds_core(folder.path()));
    }

    #[test]
    fn this_machine_has_the_compiler_that_built_the_test() {
        let absent = "aarch64-unknown-none-of-this-name".to_owned();
        let facts = Facts::probe(std::slice::from_ref(&absent));
        let compiler = facts.compilers.first().expect("a compiler ran a moment ago");
        assert!(compiler.rustc.is_file() && compiler.cargo.is_file());
        assert!(!compiler.libraries.contains(&absent));
        assert!(compiler.version >= (1, 85), "{compiler:?}");
    }
}
