//! `cargo xtask sanitize`: the tests of what reads files and of the kernels, below tools that see what a test does not.
//!
//! ```text
//! AddressSanitizer  formats and runtime, with the standard library instrumented as well: every access, on the processor's own kernels
//! valgrind          the same tests as they are: reads of what was never written, too; on AVX2 kernels at most
//! Miri              formats, interpreted: undefined behaviour of any kind; few cases, as it is a thousand times slower
//! ```

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::command;
use crate::error::Error;
use crate::output;
use crate::root;
use crate::test::{Counts, TestProgram, program_of};

/// The host's triple: instrumented code is built as for another target, so that build scripts are not.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const CRATES: [&str; 4] = ["--package", "rescomp-formats", "--package", "rescomp-runtime"];
const FEATURES: &str = "rescomp-formats/write,rescomp-formats/signature,rescomp-runtime/std";

/// Options of `sanitize`.
#[derive(Debug, Args)]
pub(crate) struct SanitizeFlags {
    /// The tools [default: all].
    #[arg(long = "tool", value_enum, num_args = 1..)]
    tools: Vec<Tool>,
    /// A missing tool is an error; without this, it is said.
    #[arg(long)]
    required: bool,
}

/// The tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tool {
    Address,
    Valgrind,
    Miri,
}

impl Tool {
    const ALL: [Tool; 3] = [Tool::Address, Tool::Valgrind, Tool::Miri];

    fn name(self) -> &'static str {
        match self {
            Tool::Address => "AddressSanitizer",
            Tool::Valgrind => "valgrind",
            Tool::Miri => "Miri",
        }
    }

    /// The commands that install it.
    fn install(self) -> &'static str {
        match self {
            Tool::Address => "rustup toolchain install nightly --component rust-src",
            Tool::Valgrind => "apt-get install --yes valgrind",
            Tool::Miri => "rustup toolchain install nightly --component miri --component rust-src",
        }
    }

    fn is_there(self) -> bool {
        let nightly = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command::clean(&mut command);
            command::ask(command.args(arguments))
        };
        let source = || {
            let folder = nightly("rustc", &["+nightly", "--print", "sysroot"])?;
            Some(Path::new(folder.trim()).join("lib/rustlib/src/rust/library/std").is_dir())
        };
        match self {
            Tool::Address => source() == Some(true),
            Tool::Valgrind => command::in_path("valgrind").is_some(),
            Tool::Miri => {
                nightly("cargo", &["+nightly", "miri", "--version"]).is_some() && source() == Some(true)
            }
        }
    }

    fn run(self, root: &Path) -> Result<Counts, Error> {
        match self {
            Tool::Address => address(root),
            Tool::Valgrind => valgrind(root),
            Tool::Miri => miri(root),
        }
    }
}

/// Runs the tests below each tool.
///
/// # Errors
/// `Exit::Failed` where a test fails or a tool finds something; with `--required`, `Exit::Missing` without a tool.
pub(crate) fn run(flags: &SanitizeFlags) -> Result<(), Error> {
    let root = root::root()?;
    let tools = if flags.tools.is_empty() { &Tool::ALL[..] } else { &flags.tools };
    let mut sum = Counts::default();
    let mut skipped = 0;
    for &tool in tools {
        if !tool.is_there() {
            if flags.required {
                return Err(Error::missing(format!("{} is missing", tool.name())).remedy(tool.install()));
            }
            output::note(&format!(
                "SKIPPED: nothing was run below {}; this installs it: {}",
                tool.name(),
                tool.install()
            ));
            skipped += 1;
            continue;
        }
        let start = Instant::now();
        let counts = tool.run(&root)?;
        if counts.passed + counts.failed == 0 {
            return Err(Error::failed(format!("no test was run below {}", tool.name())));
        }
        output::line(&format!("== {}: {} ({} s)", tool.name(), counts.shown(), start.elapsed().as_secs()));
        sum.add(counts);
    }
    output::line(&format!("{} tools, {skipped} missing: {}", tools.len(), sum.shown()));
    match sum.failed {
        0 => Ok(()),
        failed => {
            let error = Error::failed(format!("{failed} tests failed below a tool"));
            Err(sum.failures.into_iter().fold(error, Error::because))
        }
    }
}

/// Cargo of the nightly toolchain, whose output is counted as run in `place`.
fn nightly(
    root: &Path,
    arguments: &[&str],
    place: &str,
    change: impl FnOnce(&mut Command),
) -> Result<Counts, Error> {
    let mut cargo = Command::new("cargo");
    command::clean(&mut cargo);
    cargo.arg("+nightly").args(arguments).current_dir(root);
    change(&mut cargo);
    let mut counts = Counts::default();
    let status = command::stream(&mut cargo, None, |line| {
        output::line(line);
        counts.add_line(line, place);
    })?;
    Ok(counts.of_program(status.success(), place))
}

fn address(root: &Path) -> Result<Counts, Error> {
    let arguments = ["test", "-Zbuild-std", "--target", TRIPLE, "--lib", "--tests", "--features", FEATURES];
    nightly(root, &[&arguments[..], &CRATES].concat(), Tool::Address.name(), |cargo| {
        cargo.args(["--target-dir", "target/sanitize"]).env("RUSTFLAGS", "-Zsanitizer=address");
    })
}

fn miri(root: &Path) -> Result<Counts, Error> {
    let arguments =
        ["miri", "test", "--lib", "--tests", "--package", "rescomp-formats", "--features", "write"];
    nightly(root, &arguments, Tool::Miri.name(), |cargo| {
        // proptest looks for a file of earlier failures.
        cargo.args(["--target-dir", "target/sanitize"]).env("MIRIFLAGS", "-Zmiri-disable-isolation");
        cargo.env("PROPTEST_CASES", "2");
    })
}

fn valgrind(root: &Path) -> Result<Counts, Error> {
    let mut cargo = Command::new("cargo");
    command::clean(&mut cargo);
    cargo.current_dir(root).args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
        "--lib",
        "--tests",
    ]);
    cargo.args(["--features", FEATURES]).args(CRATES);
    let mut programs: Vec<TestProgram> = Vec::new();
    let status = command::stream(&mut cargo, None, |line| programs.extend(program_of(line)))?;
    if !status.success() {
        return Err(Error::failed(format!("the tests do not build ({status})")));
    }
    let mut sum = Counts::default();
    for program in programs {
        let place = format!("valgrind: {}", program.name);
        output::line(&format!("== {place}"));
        let mut valgrind = Command::new("valgrind");
        command::clean(&mut valgrind);
        // A finding ends a program with this code, and so counts as a failure.
        valgrind.args(["--quiet", "--error-exitcode=99", "--fair-sched=yes"]).arg(&program.executable);
        valgrind
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .env("PROPTEST_CASES", "4");
        let mut counts = Counts::default();
        let status = command::stream(&mut valgrind, None, |line| {
            output::line(line);
            counts.add_line(line, &place);
        })?;
        sum.add(counts.of_program(status.success(), &place));
    }
    Ok(sum)
}
