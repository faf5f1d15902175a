//! `cargo xtask fuzz`: mutated inputs for everything that reads files, one target after the other.
//!
//! ```text
//! fuzz/Cargo.toml        the targets: a program each
//! fuzz/seeds/TARGET      small sound inputs, in git (the example `fuzz_seeds` of the conformance crate writes them)
//! fuzz/corpus/TARGET     what was found to reach new code, kept from run to run, not in git
//! fuzz/artifacts/TARGET  what broke the target
//! ```
//! What breaks a target goes to `fuzz/regressions/TARGET` with the repair: from then on every `cargo test` runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::command;
use crate::error::Error;
use crate::output;
use crate::root;

/// Most bytes of an input.
const MAX_INPUT_BYTES: u32 = 65_536;
/// An input that takes longer than this is a finding.
const INPUT_LIMIT_SECONDS: u32 = 10;
/// A target that takes more memory than this is one.
const MEMORY_LIMIT_MIB: u32 = 2_048;
/// Targets of text formats, which are given words of these.
const OF_TEXT: [&str; 5] = ["safetensors", "config", "tokenizer_json", "recipe", "journal_head"];
const DICTIONARY: &str = "fuzz/dictionaries/text.dict";

/// Options of `fuzz`.
#[derive(Debug, Args)]
pub(crate) struct FuzzFlags {
    /// Seconds for all targets together, in equal parts.
    #[arg(long, value_name = "N", default_value_t = 180)]
    seconds: u64,
    /// Targets by name [default: all].
    #[arg(long = "target", value_name = "NAME", num_args = 1..)]
    targets: Vec<String>,
    /// A missing tool is an error; without this, nothing is fuzzed then, and that is said.
    #[arg(long)]
    required: bool,
    /// Print the figures as one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// The part of the manifest that is read.
#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Program>,
}

#[derive(Deserialize)]
struct Program {
    name: String,
}

/// What a target did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Figures {
    target: String,
    seconds: u64,
    executions: u64,
    /// Edges of the program that were run.
    edges: u64,
    /// Inputs that reach something that no smaller one does.
    corpus: u64,
    /// Files of inputs that broke it.
    crashes: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    targets: Vec<Figures>,
    executions: u64,
    crashes: usize,
}

/// Fuzzes every target.
///
/// # Errors
/// `Exit::Failed` where an input breaks a target, or a target does not build or start; with `--required`, `Exit::Missing` without the tools.
pub(crate) fn run(flags: &FuzzFlags) -> Result<(), Error> {
    let root = root::root()?;
    let targets = targets(&root, &flags.targets)?;
    let missing = missing_tools();
    if !missing.is_empty() {
        if flags.required {
            let error = Error::missing("fuzzing needs a nightly compiler and cargo-fuzz");
            return Err(missing.into_iter().fold(error, Error::remedy));
        }
        output::note("SKIPPED: nothing was fuzzed, for want of tools; these commands install them:");
        missing.iter().for_each(|command| output::note(&format!("  {command}")));
        return Ok(());
    }
    let status = command::run(&mut cargo_fuzz(&root, "build", &[]), None)?;
    if !status.success() {
        return Err(Error::failed(format!("the fuzz targets do not build ({status})")));
    }
    let seconds = (flags.seconds / targets.len() as u64).max(1);
    let mut figures = Vec::new();
    for target in targets {
        let found = fuzz(&root, &target, seconds)?;
        // At once: an hour's figures must not wait for the end.
        match flags.json {
            true => output::note(&shown(&found)),
            false => output::line(&shown(&found)),
        }
        figures.push(found);
    }
    let executions = figures.iter().map(|figures| figures.executions).sum();
    let crashes = figures.iter().map(|figures| figures.crashes.len()).sum();
    let report = Report { targets: figures, executions, crashes };
    match flags.json {
        true => output::line(&output::json(&report)?),
        false => output::line(&format!("{executions} executions, {crashes} crashes")),
    }
    if crashes > 0 {
        let error = Error::failed(format!("{crashes} inputs broke a target"));
        let files = report.targets.iter().flat_map(|figures| &figures.crashes);
        return Err(files.fold(error, |error, file| error.because(file.display().to_string())));
    }
    Ok(())
}

/// The commands that install what is not there.
fn missing_tools() -> Vec<&'static str> {
    let answers = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        command::clean(&mut cargo);
        command::ask(cargo.args(arguments)).is_some()
    };
    let tools: [(&[&str], &str); 2] = [
        (&["+nightly", "--version"], "rustup toolchain install nightly"),
        (&["fuzz", "--version"], "cargo install cargo-fuzz --locked"),
    ];
    tools.into_iter().filter(|(arguments, _)| !answers(arguments)).map(|(_, install)| install).collect()
}

/// All targets, or those of these names.
fn targets(root: &Path, chosen: &[String]) -> Result<Vec<String>, Error> {
    let path = root.join("fuzz/Cargo.toml");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::disk("read", &path, &source))?;
    let manifest: Manifest = toml::from_str(&text)
        .map_err(|source| Error::input(format!("{} is no manifest", path.display())).caused_by(&source))?;
    let names: Vec<String> = manifest.bin.into_iter().map(|program| program.name).collect();
    match chosen.iter().find(|name| !names.contains(name)) {
        Some(name) => Err(Error::input(format!("no fuzz target `{name}`; there are {}", names.join(", ")))),
        None if chosen.is_empty() => Ok(names),
        None => Ok(chosen.to_vec()),
    }
}

fn cargo_fuzz(root: &Path, verb: &str, arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    command::clean(&mut cargo);
    cargo.args(["+nightly", "fuzz", verb, "--fuzz-dir", "fuzz"]).args(arguments).current_dir(root);
    cargo
}

fn fuzz(root: &Path, target: &str, seconds: u64) -> Result<Figures, Error> {
    let folder = |name: &str| format!("fuzz/{name}/{target}");
    let corpus = root.join(folder("corpus"));
    std::fs::create_dir_all(&corpus).map_err(|source| Error::disk("make", &corpus, &source))?;
    let mut cargo = cargo_fuzz(root, "run", &[target, &folder("corpus"), &folder("seeds")]);
    cargo.arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_INPUT_BYTES}"),
        format!("-timeout={INPUT_LIMIT_SECONDS}"),
        format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"),
        "-print_final_stats=1".to_owned(),
    ]);
    if OF_TEXT.contains(&target) {
        cargo.arg(format!("-dict={}", root.join(DICTIONARY).display()));
    }
    output::note(&format!("$ {}", command::show(&cargo)));
    // libFuzzer reports on standard error. It ends at the first finding, so the seconds are measured.
    let start = Instant::now();
    let ended = cargo.stdin(Stdio::null()).output();
    let ended = ended.map_err(|source| Error::missing("cannot run cargo fuzz").caused_by(&source))?;
    let log = String::from_utf8_lossy(&ended.stderr);
    let figures = figures(target, start.elapsed().as_secs(), &log);
    if !ended.status.success() {
        output::note(&log);
        if figures.crashes.is_empty() {
            return Err(Error::failed(format!("{target} ended with {}, without a crash", ended.status)));
        }
    }
    Ok(figures)
}

/// What a log of libFuzzer says.
fn figures(target: &str, seconds: u64, log: &str) -> Figures {
    let mut figures = Figures { target: target.to_owned(), seconds, ..Figures::default() };
    let after = |line: &str, word: &str| -> Option<u64> {
        let mut words = line.split_whitespace().skip_while(|found| *found != word).skip(1);
        words.next()?.split('/').next()?.parse().ok()
    };
    for line in log.lines() {
        if let Some(executions) = after(line, "stat::number_of_executed_units:") {
            figures.executions = executions;
        }
        if let (Some(edges), Some(corpus)) = (after(line, "cov:"), after(line, "corp:")) {
            (figures.edges, figures.corpus) = (edges, corpus);
        }
        if let Some((_, file)) = line.split_once("Test unit written to ") {
            figures.crashes.push(PathBuf::from(file.trim()));
        }
    }
    figures
}

fn shown(figures: &Figures) -> String {
    let Figures { target, seconds, executions, edges, corpus, crashes } = figures;
    format!(
        "{target}: {executions} executions in {seconds} s, {edges} edges, {corpus} inputs in the corpus, {} crashes",
        crashes.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_log() {
        let log = "INFO: seed corpus: files: 6\n\
                   #7\tINITED cov: 1200 ft: 3000 corp: 6/84Kb exec/s: 0 rss: 60Mb\n\
                   #900\tNEW    cov: 1234 ft: 3100 corp: 17/95Kb lim: 65536 exec/s: 450\n\
                   Test unit written to fuzz/artifacts/decode/crash-0123\n\
                   stat::number_of_executed_units: 987\n";
        let found = figures("decode", 5, log);
        let expected = Figures {
            target: "decode".to_owned(),
            seconds: 5,
            executions: 987,
            edges: 1234,
            corpus: 17,
            crashes: vec![PathBuf::from("fuzz/artifacts/decode/crash-0123")],
        };
        assert_eq!(found, expected);
        assert!(shown(&found).starts_with("decode: 987 executions in 5 s, 1234 edges, 17 inputs"));
        assert_eq!(figures("x", 1, ""), Figures { target: "x".to_owned(), seconds: 1, ..Figures::default() });
    }

    #[test]
    fn targets_are_those_of_the_manifest_and_have_seeds() {
        let root = root::root().expect("the project");
        let all = targets(&root, &[]).expect("a manifest");
        assert!(all.len() >= 9 && all.iter().any(|target| target == "decode"), "{all:?}");
        for target in &all {
            let seeds = std::fs::read_dir(root.join("fuzz/seeds").join(target)).expect("seeds");
            assert!(seeds.count() > 0, "{target}");
        }
        assert_eq!(targets(&root, &["recipe".to_owned()]).expect("one"), ["recipe"]);
        let error = targets(&root, &["nothing".to_owned()]).expect_err("unknown").to_string();
        assert!(error.contains("no fuzz target `nothing`; there are container, decode"), "{error}");
    }
}
