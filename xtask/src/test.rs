//! `cargo xtask test`: every test on the host, then those of the device's crates on emulated 64-bit ARM processors.
//!
//! ```text
//! host:      cargo test --workspace
//! emulated:  build the tests of formats, runtime, conformance and the runner once for aarch64
//!            look for SDOT where it must be, and nowhere else, in the runtime's tests and in the runner
//!            run them below qemu-aarch64 -cpu PROCESSOR: on the first processor all, on the others what has kernels in it
//! at the end, alone on its line: N passed, N failed
//! ```
//!
//! Emulated programs find the processor's name in the variable `RESCOMP_EMULATED_CPU`, so that a test can insist that the
//! kernels of that processor, and no slower ones, were taken.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use rayon::prelude::*;
use serde::Deserialize;

use crate::command;
use crate::error::Error;
use crate::instructions::{self, Place};
use crate::output;
use crate::qemu::Emulator;
use crate::root;
use crate::system::Install;
use crate::target::Target;
use crate::toolchain::{self, Toolchain};

/// The target whose toolchain and processors are taken.
const TARGET: &str = "aarch64";

/// A crate whose tests run on emulated processors.
struct Emulated {
    package: &'static str,
    /// Its folder in the project.
    folder: &'static str,
    /// Whether it computes with the kernels of each processor. What does not has the same instructions on all of them, and one is enough.
    has_kernels: bool,
}

/// These crates. (The runner's kernels are run on each processor by `pack`.)
const EMULATED: [Emulated; 4] = [
    Emulated { package: "rescomp-formats", folder: "formats", has_kernels: false },
    Emulated { package: "rescomp-runtime", folder: "runtime", has_kernels: true },
    Emulated { package: "conformance", folder: "tests", has_kernels: true },
    Emulated { package: "rescomp", folder: "targets/linux", has_kernels: false },
];

/// The crate, by its library's name, whose test program has every kernel.
const KERNELS_CRATE: &str = "rescomp_runtime";

/// Their features; the default ones need the host.
const FEATURES: &str = "rescomp-runtime/std,rescomp-runtime/every-part";

/// Variable that tells a test on which processor it is emulated.
const CPU_VARIABLE: &str = "RESCOMP_EMULATED_CPU";

/// Time limit of one emulated test program; emulation is some twenty times slower than the host.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

/// Test programs that start others. They run one test at a time: where a thread forks while another one runs, QEMU's user mode may leave
/// the child waiting for a lock that no thread of it holds.
const STARTS_OTHERS: [&str; 1] = ["cli"];

/// Options of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestFlags {
    /// Install nothing: a missing tool is an error that names the commands.
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Run the host's tests only.
    #[arg(long, conflicts_with = "cpus")]
    pub(crate) host_only: bool,
    /// Emulated processors, by their names in QEMU [default: test_cpus of targets/aarch64.toml].
    #[arg(long = "cpu", value_name = "NAME", num_args = 1..)]
    pub(crate) cpus: Vec<String>,
}

/// Tests by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    ignored: u64,
    /// What failed, by name, for the end of a long log.
    pub(crate) failures: Vec<String>,
}

impl Counts {
    /// Adds a line of the test harness: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, or `test NAME ... FAILED`, whose
    /// name is remembered as run in `place`. Other lines add nothing.
    pub(crate) fn add_line(&mut self, line: &str, place: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("{place}: {name}"));
        }
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let Some((_, counts)) = rest.split_once(". ") else { return };
        for part in counts.split("; ") {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                _ => {}
            }
        }
    }

    /// Adds another run.
    pub(crate) fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
    }

    /// The counts of a program: one that fails without a failed test (a crash, an abort) counts as one failure.
    pub(crate) fn of_program(mut self, succeeded: bool, place: &str) -> Counts {
        if !succeeded && self.failed == 0 {
            self.failed = 1;
            self.failures.push(format!("{place}: ended with an error and without a failed test"));
        }
        self
    }

    /// For a heading of one run.
    pub(crate) fn shown(&self) -> String {
        format!("{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)
    }
}

/// A test program that cargo built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestProgram {
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    /// The package's folder, where cargo would run it.
    pub(crate) folder: PathBuf,
}

impl TestProgram {
    fn starts_others(&self) -> bool {
        STARTS_OTHERS.contains(&self.name.as_str())
    }
}

/// The parts of cargo's messages that are read here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    target: Option<MessageTarget>,
    #[serde(default)]
    profile: Option<MessageProfile>,
}

#[derive(Deserialize)]
struct MessageTarget {
    name: String,
}

#[derive(Deserialize)]
struct MessageProfile {
    test: bool,
}

/// Runs the tests.
///
/// # Errors
/// `Exit::Failed` when a test failed or nothing was tested, `Exit::Missing` when the emulated tests lack a tool that may not
/// or cannot be installed (after the host's tests have run).
pub(crate) fn run(flags: &TestFlags) -> Result<(), Error> {
    let root = root::root()?;
    let mut counts = test_host(&root)?;
    let missing = if flags.host_only {
        output::line("emulated tests: left out (--host-only)");
        None
    } else {
        match test_emulated(&root, flags) {
            Ok(emulated) => {
                counts.add(emulated);
                None
            }
            Err(error) => Some(error),
        }
    };
    if counts.ignored > 0 {
        output::line(&format!("ignored tests: {}", counts.ignored));
    }
    for failure in &counts.failures {
        output::line(&format!("failed: {failure}"));
    }
    output::line(&closing_line(&counts));
    match missing {
        _ if counts.failed > 0 => {
            if let Some(error) = missing {
                output::note(&format!("error: {error}"));
            }
            Err(Error::failed(format!("{} tests failed", counts.failed)))
        }
        Some(error) => Err(error),
        None if counts.passed == 0 => Err(Error::failed("no test was run")),
        None => Ok(()),
    }
}

/// The plain last line: sums over everything.
fn closing_line(counts: &Counts) -> String {
    format!("{} passed, {} failed", counts.passed, counts.failed)
}

fn test_host(root: &Path) -> Result<Counts, Error> {
    output::line("== host");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo.current_dir(root).args(["test", "--workspace", "--no-fail-fast"]);
    let start = Instant::now();
    let mut counts = Counts::default();
    let status = command::stream(&mut cargo, None, |line| {
        output::line(line);
        counts.add_line(line, "host");
    })?;
    let counts = counts.of_program(status.success(), "host");
    output::line(&format!("== host: {} ({} s)", counts.shown(), start.elapsed().as_secs()));
    Ok(counts)
}

fn test_emulated(root: &Path, flags: &TestFlags) -> Result<Counts, Error> {
    let install = Install::unless(flags.no_install);
    let target = Target::load(TARGET)?;
    let cpus = if flags.cpus.is_empty() { &target.test_cpus } else { &flags.cpus };
    let emulator = Emulator::find(install)?;
    emulator.knows(cpus)?;
    let toolchain = toolchain::find(&target, install)?;
    output::line(&format!("== emulated: {}; {}", toolchain.how, emulator.version()));
    let programs = build(root, &toolchain)?;
    let mut sum = test_instructions(root, &target, &toolchain, &programs)?;
    let mut runs = runs(cpus, &programs);
    // Side by side, and that first which runs a test at a time and so takes longest.
    runs.sort_by_key(|(_, program)| !program.starts_others());
    let start = Instant::now();
    let counted: Vec<_> = runs
        .par_iter()
        .with_max_len(1)
        .map(|(cpu, program)| Ok((*cpu, run_program(&emulator, cpu, program)?)))
        .collect::<Result<_, Error>>()?;
    for cpu in cpus {
        let mut of_cpu = Counts::default();
        let of_programs = counted.iter().filter(|(other, _)| *other == cpu);
        of_programs.for_each(|(_, counts)| of_cpu.add(counts.clone()));
        output::line(&format!("== {cpu}: {}", of_cpu.shown()));
        if of_cpu.passed + of_cpu.failed == 0 {
            return Err(Error::failed(format!("no test was run on {cpu}")));
        }
        sum.add(of_cpu);
    }
    output::line(&format!("== emulated: {} ({} s)", sum.shown(), start.elapsed().as_secs()));
    Ok(sum)
}

/// Which program runs on which processor.
fn runs<'a>(cpus: &'a [String], programs: &'a [TestProgram]) -> Vec<(&'a str, &'a TestProgram)> {
    let has_kernels = |program: &TestProgram| {
        EMULATED.iter().any(|emulated| emulated.has_kernels && program.folder.ends_with(emulated.folder))
    };
    let on = |(at, cpu): (usize, &'a String)| {
        let taken = programs.iter().filter(move |program| at == 0 || has_kernels(program));
        taken.map(move |program| (cpu.as_str(), program))
    };
    cpus.iter().enumerate().flat_map(on).collect()
}

/// Looks for the fast path in the programs that have all kernels: the runtime's tests, and the runner as devices get it.
fn test_instructions(
    root: &Path,
    target: &Target,
    toolchain: &Toolchain,
    programs: &[TestProgram],
) -> Result<Counts, Error> {
    let package = target.runner.package();
    let status = command::run(&mut toolchain.build(root, package, &[]), None)?;
    if !status.success() {
        return Err(Error::failed(format!("{package} does not build for {} ({status})", toolchain.triple)));
    }
    let tests = programs.iter().filter(|program| program.name == KERNELS_CRATE);
    let runner = toolchain.program(package);
    let mut counts = Counts::default();
    let tests = tests.map(|program| (&program.executable, Place::Called));
    for (program, place) in tests.chain([(&runner, Place::Inlined)]) {
        match instructions::check(program, place) {
            Ok(found) => {
                output::line(&format!("== instructions of {}: {found}", program.display()));
                counts.passed += 1;
            }
            Err(error) => {
                output::note(&format!("error: {error}"));
                counts.failed += 1;
                counts.failures.push(format!("instructions of {}", program.display()));
            }
        }
    }
    // One of the tests, one of the runner: a renamed crate must not pass unseen.
    if counts.passed + counts.failed < 2 {
        return Err(Error::failed(format!("cargo built no test program called {KERNELS_CRATE}")));
    }
    Ok(counts)
}

/// Builds the tests for the device and returns the programs.
fn build(root: &Path, toolchain: &Toolchain) -> Result<Vec<TestProgram>, Error> {
    let mut cargo = toolchain.cargo(root, "test");
    // Problems are printed as they are; standard output carries the messages for programs.
    cargo.args(["--no-run", "--message-format=json-render-diagnostics"]);
    cargo.args(["--no-default-features", "--features", FEATURES]);
    cargo.args(EMULATED.iter().flat_map(|emulated| ["--package", emulated.package]));
    let mut programs = Vec::new();
    let status = command::stream(&mut cargo, None, |line| programs.extend(program_of(line)))?;
    if !status.success() {
        return Err(Error::failed(format!("the tests do not build for {} ({status})", toolchain.triple)));
    }
    if programs.is_empty() {
        return Err(Error::failed(format!("cargo built no test program for {}", toolchain.triple)));
    }
    programs.sort_by(|a, b| (&a.folder, &a.name).cmp(&(&b.folder, &b.name)));
    Ok(programs)
}

/// The test program of one of cargo's messages, if it is about one.
pub(crate) fn program_of(line: &str) -> Option<TestProgram> {
    let message: Message = serde_json::from_str(line).ok()?;
    if message.reason != "compiler-artifact" || !message.profile?.test {
        return None;
    }
    Some(TestProgram {
        name: message.target?.name,
        executable: message.executable?,
        folder: message.manifest_path?.parent()?.to_path_buf(),
    })
}

fn run_program(emulator: &Emulator, cpu: &str, program: &TestProgram) -> Result<Counts, Error> {
    let mut emulated = emulator.command(cpu, &program.executable);
    if program.starts_others() {
        emulated.arg("--test-threads=1");
    }
    command::clean(&mut emulated);
    emulated.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder).env(CPU_VARIABLE, cpu);
    let place = format!("{cpu}: {}", program.name);
    let mut counts = Counts::default();
    // Printed at once: programs of other processors print as well.
    let mut printed = format!("== {place}");
    let status = command::stream(&mut emulated, Some(PROGRAM_LIMIT), |line| {
        printed.push('\n');
        printed.push_str(line);
        counts.add_line(line, &place);
    });
    output::line(&printed);
    // A hang is one failed test, and the other programs still run.
    let succeeded = match status {
        Ok(status) => {
            if !status.success() {
                output::line(&format!("{place}: {status}"));
            }
            status.success()
        }
        Err(error) if error.exit() == crate::error::Exit::Failed => {
            output::note(&format!("error: {error}"));
            false
        }
        Err(error) => return Err(error),
    };
    Ok(counts.of_program(succeeded, &place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_others_are_not() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test b::c ... FAILED",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "7 passed by hand",
        ] {
            counts.add_line(line, "host");
        }
        assert_eq!(
            counts,
            Counts { passed: 8, failed: 2, ignored: 1, failures: vec!["host: b::c".to_owned()] }
        );
        assert_eq!(closing_line(&counts), "8 passed, 2 failed");
    }

    #[test]
    fn a_crash_counts_as_a_failure_once() {
        let counts = Counts { passed: 4, ..Counts::default() };
        let crashed = counts.clone().of_program(false, "max: forward");
        assert_eq!(crashed.failed, 1);
        assert_eq!(crashed.failures, ["max: forward: ended with an error and without a failed test"]);
        assert_eq!(counts.clone().of_program(true, "host"), counts);
        assert_eq!(Counts { failed: 2, ..counts }.of_program(false, "host").failed, 2);
    }

    #[test]
    fn all_run_on_the_first_processor_and_kernels_on_every_one() {
        let root = root::root().expect("the project");
        let program = |name: &str, folder: &str| TestProgram {
            name: name.to_owned(),
            executable: PathBuf::new(),
            folder: root.join(folder),
        };
        let programs: Vec<TestProgram> =
            EMULATED.iter().map(|emulated| program(emulated.package, emulated.folder)).collect();
        assert!(programs.iter().all(|program| program.folder.join("Cargo.toml").exists()));
        let cpus = ["a53", "max"].map(str::to_owned);
        let names: Vec<_> =
            runs(&cpus, &programs).into_iter().map(|(cpu, program)| (cpu, program.name.as_str())).collect();
        let expected = [
            ("a53", "rescomp-formats"),
            ("a53", "rescomp-runtime"),
            ("a53", "conformance"),
            ("a53", "rescomp"),
            ("max", "rescomp-runtime"),
            ("max", "conformance"),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"x","manifest_path":"/p/formats/Cargo.toml",
            "target":{"kind":["lib"],"name":"rescomp_formats"},"profile":{"opt_level":"3","test":true},
            "features":[],"filenames":[],"executable":"/p/target/deps/rescomp_formats-1","fresh":false}"#;
        let program = program_of(line).expect("a program");
        assert_eq!(
            program,
            TestProgram {
                name: "rescomp_formats".to_owned(),
                executable: "/p/target/deps/rescomp_formats-1".into(),
                folder: "/p/formats".into(),
            }
        );
        assert_eq!(program_of(&line.replace("\"test\":true", "\"test\":false")), None);
        assert_eq!(program_of(&line.replace("\"/p/target/deps/rescomp_formats-1\"", "null")), None);
        assert_eq!(program_of("{\"reason\":\"build-finished\",\"success\":true}"), None);
        assert_eq!(program_of("not json"), None);
    }
}
