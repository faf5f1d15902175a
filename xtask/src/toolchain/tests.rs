//! Machines as values: what is decided on each, step by step to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Toolchain;
use super::facts::{Compiler, Facts, Linker};
use super::plan::{Choice, Decision, Kind, Link, Step, Wanted, decide};
use crate::error::Exit;
use crate::system::{Install, Packages, Privilege, System};

const GNU: &str = "aarch64-unknown-linux-gnu";
const MUSL: &str = "aarch64-unknown-linux-musl";
const BARE: &str = "thumbv7em-none-eabihf";
const PC: &str = "x86_64-unknown-linux-gnu";

fn linux() -> Wanted {
    Wanted {
        name: "aarch64".to_owned(),
        triples: vec![GNU.to_owned(), MUSL.to_owned()],
        minimum: (1, 95),
        kind: Kind::Linux,
    }
}

fn bare() -> Wanted {
    Wanted { name: BARE.to_owned(), triples: vec![BARE.to_owned()], minimum: (1, 95), kind: Kind::Bare }
}

fn set(triples: &[&str]) -> BTreeSet<String> {
    triples.iter().map(|&triple| triple.to_owned()).collect()
}

/// A compiler of rustup on a machine of the triple `host`.
fn rustup(host: &str, libraries: &[&str]) -> Compiler {
    let bin = PathBuf::from(format!("/home/u/.rustup/toolchains/stable-{host}/bin"));
    Compiler {
        rustc: bin.join("rustc"),
        cargo: bin.join("cargo"),
        host: host.to_owned(),
        release: "1.95.0".to_owned(),
        version: (1, 95),
        rustup_toolchain: Some(format!("stable-{host}")),
        libraries: set(libraries),
        rust_lld: Some(bin.join("rust-lld")),
        has_source: false,
    }
}

/// Debian's compiler.
fn packaged(libraries: &[&str], has_source: bool) -> Compiler {
    Compiler {
        rustc: "/usr/bin/rustc".into(),
        cargo: "/usr/bin/cargo".into(),
        host: PC.to_owned(),
        release: "1.96.0".to_owned(),
        version: (1, 96),
        rustup_toolchain: None,
        libraries: set(libraries),
        rust_lld: None,
        has_source,
    }
}

fn machine(system: System, compilers: Vec<Compiler>) -> Facts {
    Facts {
        has_rustup: compilers.iter().any(|compiler| compiler.rustup_toolchain.is_some()),
        compilers,
        linkers: BTreeMap::new(),
        lld: None,
        system,
        privilege: Privilege::Root,
    }
}

fn with_gcc(mut facts: Facts, has_static_libc: bool) -> Facts {
    let linker = Linker { path: "/usr/bin/aarch64-linux-gnu-gcc".into(), has_static_libc };
    facts.linkers.insert(GNU.to_owned(), linker);
    facts
}

fn ready(decision: Decision) -> Choice {
    match decision {
        Decision::Ready(choice) => choice,
        other => panic!("expected a toolchain, found {other:?}"),
    }
}

fn step(decision: Decision) -> Step {
    match decision {
        Decision::Install(step) => step,
        other => panic!("expected a step, found {other:?}"),
    }
}

fn missing(decision: Decision) -> String {
    match decision {
        Decision::Missing(error) => {
            assert_eq!(error.exit(), Exit::Missing);
            error.to_string()
        }
        other => panic!("expected an error, found {other:?}"),
    }
}

fn packages(step: &Step) -> &Packages {
    match step {
        Step::Packages(packages) => packages,
        other => panic!("expected packages, found {other:?}"),
    }
}

#[test]
fn rustup_with_the_target_and_a_cross_compiler_is_used_as_it_is() {
    let facts = with_gcc(machine(System::Debian, vec![rustup(PC, &[GNU]), packaged(&[GNU], true)]), true);
    let choice = ready(decide(&linux(), &facts, Install::Allowed, &[]));
    assert!(choice.compiler.rustup_toolchain.is_some() && choice.is_static && !choice.builds_core);
    assert_eq!(
        (choice.triple.as_str(), choice.link),
        (GNU, Link::C("/usr/bin/aarch64-linux-gnu-gcc".into()))
    );
}

#[test]
fn rustup_with_musl_needs_no_cross_compiler() {
    let facts = machine(System::OtherLinux("fedora".to_owned()), vec![rustup(PC, &[MUSL])]);
    let choice = ready(decide(&linux(), &facts, Install::No, &[]));
    assert!(matches!(&choice.link, Link::Lld(path) if path.ends_with("rust-lld")), "{:?}", choice.link);
    assert_eq!(choice.triple, MUSL);
}

#[test]
fn rustup_without_the_target_adds_it_and_then_builds() {
    let mut facts = machine(System::OtherLinux("fedora".to_owned()), vec![rustup(PC, &[])]);
    let first = step(decide(&linux(), &facts, Install::Allowed, &[]));
    // No cross compiler, so the glibc library could not be linked: musl it is.
    let expected = Step::RustupTarget { toolchain: format!("stable-{PC}"), triple: MUSL.to_owned() };
    assert_eq!(first, expected);
    facts.compilers[0].libraries = set(&[MUSL]);
    assert_eq!(ready(decide(&linux(), &facts, Install::Allowed, &[first])).triple, MUSL);

    let facts = with_gcc(machine(System::Debian, vec![rustup(PC, &[])]), true);
    let first = step(decide(&linux(), &facts, Install::Allowed, &[]));
    assert!(matches!(first, Step::RustupTarget { triple, .. } if triple == GNU));
}

#[test]
fn fresh_debian_falls_back_to_its_packages_when_rustup_cannot_add() {
    let mut facts = machine(System::Debian, vec![rustup(PC, &[])]);
    let first = step(decide(&linux(), &facts, Install::Allowed, &[]));
    assert!(matches!(first, Step::RustupTarget { .. }));
    let second = step(decide(&linux(), &facts, Install::Allowed, std::slice::from_ref(&first)));
    assert_eq!(
        packages(&second),
        &Packages {
            architecture: Some("arm64".to_owned()),
            names: [
                "rustc-web",
                "cargo-web",
                "libstd-rust-web-dev:arm64",
                "gcc-aarch64-linux-gnu",
                "libc6-dev-arm64-cross"
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    );
    facts.compilers.push(packaged(&[GNU], false));
    let facts = with_gcc(facts, true);
    let choice = ready(decide(&linux(), &facts, Install::Allowed, &[first, second]));
    assert_eq!(choice.compiler.rustc, PathBuf::from("/usr/bin/rustc"));
}

#[test]
fn steps_that_did_not_help_end_in_an_error_that_names_them() {
    let facts = machine(System::Debian, vec![rustup(PC, &[])]);
    let mut tried = Vec::new();
    let error = loop {
        match decide(&linux(), &facts, Install::Allowed, &tried) {
            Decision::Install(step) => {
                assert!(!tried.contains(&step), "a step is tried once");
                tried.push(step);
            }
            other => break missing(other),
        }
    };
    assert_eq!(tried.len(), 2, "one triple by rustup, then the packages: {tried:?}");
    assert!(
        error.contains("did not help: rustup target add") && error.contains("did not help: dpkg"),
        "{error}"
    );
    assert!(error.contains("remedy: Debian: install rustup"), "{error}");
}

#[test]
fn debian_with_its_packages_builds_at_once_also_without_permission_to_install() {
    let facts = with_gcc(machine(System::Debian, vec![rustup(PC, &[]), packaged(&[GNU], true)]), true);
    let choice = ready(decide(&linux(), &facts, Install::No, &[]));
    assert_eq!(choice.compiler.rustc, PathBuf::from("/usr/bin/rustc"));
}

#[test]
fn a_target_without_its_linker_asks_for_the_linker_alone() {
    for system in [System::Debian, System::DebianRelative("ubuntu".to_owned())] {
        let mut compiler = rustup(PC, &[GNU]);
        compiler.rust_lld = None;
        let facts = with_gcc(machine(system, vec![compiler]), false);
        let first = step(decide(&linux(), &facts, Install::Allowed, &[]));
        assert_eq!(packages(&first), &Packages::own(&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]));
        let error = missing(decide(&linux(), &facts, Install::No, &[]));
        assert!(error.contains("has the target, but no linker"), "{error}");
    }
}

#[test]
fn no_install_names_every_remedy() {
    let facts = machine(System::Debian, vec![rustup(PC, &[])]);
    let error = missing(decide(&linux(), &facts, Install::No, &[]));
    assert!(error.starts_with("no toolchain builds for `aarch64` (aarch64-unknown-linux-gnu or "), "{error}");
    assert!(error.contains("--no-install was given"), "{error}");
    assert!(error.contains(&format!("remedy: rustup target add --toolchain stable-{PC} {MUSL}")), "{error}");
    assert!(error.contains("remedy: dpkg --add-architecture arm64 && apt-get update"), "{error}");
}

#[test]
fn macos_adds_the_musl_target_and_has_no_packages() {
    let host = "aarch64-apple-darwin";
    let mut facts = machine(System::MacOs, vec![rustup(host, &[])]);
    facts.privilege = Privilege::None;
    let first = step(decide(&linux(), &facts, Install::Allowed, &[]));
    assert_eq!(first, Step::RustupTarget { toolchain: format!("stable-{host}"), triple: MUSL.to_owned() });
    let error = missing(decide(&linux(), &facts, Install::Allowed, &[first]));
    assert!(error.contains("remedy: macOS: install rustup") && !error.contains("apt-get"), "{error}");
}

#[test]
fn a_64_bit_arm_machine_builds_for_itself() {
    let facts = machine(System::OtherLinux("arch".to_owned()), vec![rustup(GNU, &[GNU])]);
    let choice = ready(decide(&linux(), &facts, Install::No, &[]));
    assert_eq!((choice.link.clone(), choice.is_static), (Link::Default, false));
    let choice = ready(decide(&linux(), &with_gcc(facts, true), Install::No, &[]));
    assert_eq!((choice.link, choice.is_static), (Link::Default, true));
}

#[test]
fn without_root_or_sudo_packages_are_named_and_not_tried() {
    let mut facts = machine(System::Debian, vec![packaged(&[], false)]);
    facts.privilege = Privilege::None;
    let error = missing(decide(&linux(), &facts, Install::Allowed, &[]));
    assert!(error.contains("packages need root or a sudo"), "{error}");
    assert!(error.contains("remedy: sudo dpkg --add-architecture arm64 && sudo apt-get update"), "{error}");
    facts.privilege = Privilege::Sudo;
    assert!(matches!(step(decide(&linux(), &facts, Install::Allowed, &[])), Step::Packages(_)));
}

#[test]
fn a_compiler_that_is_too_old_is_not_used_and_named() {
    let mut old = packaged(&[GNU, BARE], true);
    (old.release, old.version) = ("1.85.0".to_owned(), (1, 85));
    let facts = with_gcc(machine(System::OtherLinux("devuan".to_owned()), vec![old]), true);
    let error = missing(decide(&linux(), &facts, Install::Allowed, &[]));
    assert!(error.contains("/usr/bin/rustc is 1.85.0; 1.95 or newer is needed"), "{error}");
    missing(decide(&bare(), &facts, Install::Allowed, &[]));
}

#[test]
fn without_any_compiler_that_is_said() {
    let error = missing(decide(&linux(), &machine(System::MacOs, Vec::new()), Install::Allowed, &[]));
    assert!(error.contains("no rustc with its cargo is on the search path"), "{error}");
}

#[test]
fn bare_metal_takes_a_library_then_the_sources_then_installs() {
    let facts = machine(System::Debian, vec![rustup(PC, &[BARE]), packaged(&[], true)]);
    let choice = ready(decide(&bare(), &facts, Install::No, &[]));
    assert!(choice.compiler.rustup_toolchain.is_some() && !choice.builds_core);

    let mut facts = machine(System::Debian, vec![rustup(PC, &[]), packaged(&[], true)]);
    facts.lld = Some("/usr/bin/ld.lld-19".into());
    let choice = ready(decide(&bare(), &facts, Install::No, &[]));
    assert!(choice.builds_core && choice.compiler.rustup_toolchain.is_none());
    assert_eq!(choice.link, Link::Lld("/usr/bin/ld.lld-19".into()));

    let facts = machine(System::Debian, vec![rustup(PC, &[])]);
    let first = step(decide(&bare(), &facts, Install::Allowed, &[]));
    assert!(matches!(&first, Step::RustupTarget { triple, .. } if triple == BARE));
    let second = step(decide(&bare(), &facts, Install::Allowed, &[first]));
    assert_eq!(packages(&second), &Packages::own(&["rustc-web", "cargo-web", "rust-web-src", "lld-19"]));
}

fn variable<'a>(toolchain: &'a Toolchain, name: &str) -> Option<&'a str> {
    let found = toolchain.environment.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

#[test]
fn a_toolchain_says_everything_cargo_must_know() {
    let facts = with_gcc(machine(System::Debian, vec![packaged(&[GNU], true)]), true);
    let choice = ready(decide(&linux(), &facts, Install::No, &[]));
    let toolchain = Toolchain::new(&choice, "cortex-a72", "/p/target".as_ref());
    assert_eq!(variable(&toolchain, "RUSTC"), Some("/usr/bin/rustc"));
    assert_eq!(
        variable(&toolchain, "CARGO_ENCODED_RUSTFLAGS"),
        Some(
            "-Clinker=/usr/bin/aarch64-linux-gnu-gcc\u{1f}-Ctarget-feature=+crt-static\u{1f}-Ctarget-cpu=cortex-a72"
        )
    );
    assert_eq!(
        toolchain.how,
        format!("{GNU} by /usr/bin/rustc 1.96.0, linked by /usr/bin/aarch64-linux-gnu-gcc")
    );
    let command = toolchain.build("/p".as_ref(), "rescomp", &["a", "b"]);
    let arguments: Vec<_> = command.get_args().filter_map(|argument| argument.to_str()).collect();
    let expected = "build --target aarch64-unknown-linux-gnu --target-dir /p/target/cross-aarch64-unknown-linux-gnu \
                    --package rescomp --no-default-features --profile release --features a,b";
    assert_eq!(arguments.join(" "), expected);
    assert!(command.get_envs().any(|(name, value)| name == "RUSTUP_TOOLCHAIN" && value.is_none()));
    let program = toolchain.program("rescomp");
    assert_eq!(program, PathBuf::from(format!("/p/target/cross-{GNU}/{GNU}/release/rescomp")));

    let mut facts = machine(System::Debian, vec![packaged(&[], true)]);
    facts.lld = Some("/usr/bin/ld.lld-19".into());
    let choice = ready(decide(&bare(), &facts, Install::No, &[]));
    let toolchain = Toolchain::new(&choice, "generic", "/p/target".as_ref());
    assert_eq!(variable(&toolchain, "RUSTC_BOOTSTRAP"), Some("1"));
    assert_eq!(toolchain.arguments, ["-Zbuild-std=core"]);
    assert_eq!(
        variable(&toolchain, "CARGO_ENCODED_RUSTFLAGS"),
        Some("-Clinker=/usr/bin/ld.lld-19\u{1f}-Clinker-flavor=ld.lld")
    );
}
