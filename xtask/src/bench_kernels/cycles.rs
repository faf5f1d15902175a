//! Cycles that a processor's pipelines need for a block of instructions, modelled by llvm-mca.
//!
//! A block's cycles are those of a hundred runs of it in a row over a hundred: its steady state, in which runs overlap as a processor's
//! window lets them. The model knows decoders, pipelines and latencies; caches and mispredicted branches it does not.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::command;
use crate::error::Error;

/// Runs of a block in a row.
const ITERATIONS: u32 = 100;

/// Versions that distributions put behind the programs' names, newest first.
const VERSIONS: std::ops::RangeInclusive<u32> = 14..=30;

/// Every extension, since the emulated processor decides what is run and not these tools.
const EXTENSIONS: &str = "--mattr=+all";

/// llvm-mc and llvm-mca, with what they answered before.
#[derive(Debug)]
pub(crate) struct Modeller {
    assembler: PathBuf,
    analyzer: PathBuf,
    known: HashMap<(String, Vec<u32>), f64>,
}

impl Modeller {
    /// Finds both tools of one version on the search path: of LLVM `version`, or the newest.
    ///
    /// # Errors
    /// `Exit::Missing` where there are none.
    pub(crate) fn find(version: Option<u32>) -> Result<Modeller, Error> {
        let named = |version| format!("-{version}");
        let suffixes: Vec<String> = match version {
            Some(version) => vec![named(version)],
            None => VERSIONS.rev().map(named).chain([String::new()]).collect(),
        };
        let both = |suffix: &String| {
            let tool = |name: &str| command::in_path(&format!("{name}{suffix}"));
            tool("llvm-mc").zip(tool("llvm-mca"))
        };
        let (assembler, analyzer) = suffixes.iter().find_map(both).ok_or_else(|| {
            Error::missing(
                "no llvm-mc and llvm-mca are on the search path: cycles are modelled by LLVM's tools",
            )
            .remedy("install LLVM's tools (often the package `llvm`)")
        })?;
        Ok(Modeller { assembler, analyzer, known: HashMap::new() })
    }

    /// The tool's name and version.
    pub(crate) fn version(&self) -> String {
        let answer = command::ask(Command::new(&self.analyzer).arg("--version")).unwrap_or_default();
        let line = answer.lines().map(str::trim).find(|line| line.contains("version"));
        format!("llvm-mca ({})", line.unwrap_or("version unknown"))
    }

    /// Cycles of each block on `model`, a processor's name as LLVM has it.
    ///
    /// # Errors
    /// `Exit::Failed` with the tool's own words where it can't read a block or does not know the model.
    pub(crate) fn cycles(&mut self, model: &str, blocks: &[Vec<u32>]) -> Result<Vec<f64>, Error> {
        let key = |block: &Vec<u32>| (model.to_owned(), block.clone());
        let mut new: Vec<&Vec<u32>> =
            blocks.iter().filter(|block| !self.known.contains_key(&key(block))).collect();
        new.sort();
        new.dedup();
        if !new.is_empty() {
            let all: Vec<u32> = new.iter().flat_map(|block| block.iter().copied()).collect();
            let lines = self.disassemble(&all)?;
            let lengths: Vec<usize> = new.iter().map(|block| block.len()).collect();
            let source = source(&lines, &lengths);
            let mut analyzer = Command::new(&self.analyzer);
            analyzer
                .args(["--mtriple=aarch64", EXTENSIONS])
                .arg(format!("--mcpu={model}"))
                .arg(format!("--iterations={ITERATIONS}"));
            let answer = filter(&self.analyzer, analyzer.arg("--json"), &source)?;
            let cycles = parse(&answer, &lengths)
                .map_err(|why| Error::failed(format!("{}: {why}", self.analyzer.display())))?;
            let keys: Vec<_> = new.iter().map(|block| key(block)).collect();
            self.known.extend(keys.into_iter().zip(cycles));
        }
        Ok(blocks.iter().filter_map(|block| self.known.get(&key(block)).copied()).collect())
    }

    /// Assembly of each instruction.
    fn disassemble(&self, words: &[u32]) -> Result<Vec<String>, Error> {
        let bytes = |word: &u32| word.to_le_bytes().map(|byte| format!("{byte:#04x}")).join(" ");
        let source: String = words.iter().map(|word| bytes(word) + "\n").collect();
        let mut assembler = Command::new(&self.assembler);
        let text = filter(
            &self.assembler,
            assembler.args(["--triple=aarch64", EXTENSIONS, "--disassemble"]),
            &source,
        )?;
        let is_code = |line: &&str| !line.is_empty() && !line.starts_with('.');
        let lines: Vec<String> = text.lines().map(str::trim).filter(is_code).map(str::to_owned).collect();
        if lines.len() != words.len() {
            let (found, wanted) = (lines.len(), words.len());
            return Err(Error::failed(format!(
                "{}: {found} lines of assembly for {wanted} instructions",
                self.assembler.display()
            )));
        }
        Ok(lines)
    }
}

/// Blocks as llvm-mca reads them, each a region named by its number.
fn source(lines: &[String], lengths: &[usize]) -> String {
    let mut rest = lines.iter();
    let mut source = String::new();
    for (number, &length) in lengths.iter().enumerate() {
        source.push_str(&format!("# LLVM-MCA-BEGIN {number}\n"));
        rest.by_ref().take(length).for_each(|line| source.push_str(&format!("{line}\n")));
        source.push_str(&format!("# LLVM-MCA-END {number}\n"));
    }
    source
}

/// The parts of llvm-mca's answer that are read.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "CodeRegions")]
    regions: Vec<Region>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Region {
    name: String,
    summary_view: Summary,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    iterations: u64,
    instructions: u64,
    total_cycles: u64,
}

/// Cycles of a run of each block, in the order of their numbers.
fn parse(answer: &str, lengths: &[usize]) -> Result<Vec<f64>, String> {
    let answer: Answer =
        serde_json::from_str(answer).map_err(|error| format!("its answer cannot be read: {error}"))?;
    let cycles = |(number, length): (usize, &usize)| {
        let name = number.to_string();
        let region = answer.regions.iter().find(|region| region.name == name);
        let summary = &region.ok_or_else(|| format!("no answer for block {number}"))?.summary_view;
        if summary.instructions != summary.iterations * *length as u64 || summary.iterations == 0 {
            return Err(format!(
                "block {number} has {length} instructions, and it took {} in {} runs",
                summary.instructions, summary.iterations
            ));
        }
        Ok(summary.total_cycles as f64 / summary.iterations as f64)
    };
    lengths.iter().enumerate().map(cycles).collect()
}

/// Runs a tool over `input`; what it prints.
fn filter(program: &Path, command: &mut Command, input: &str) -> Result<String, Error> {
    let failed = |why: &str| Error::failed(format!("{} failed", program.display())).because(why);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error.to_string()))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // A tool that ends before it has read everything says why; that its input was closed is of no interest.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    let output = output.map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(said.lines().next().unwrap_or("it did not say why")));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, iterations: u64, instructions: u64, cycles: u64) -> String {
        format!(
            "{{\"Instructions\": [\"sdot\"], \"Name\": \"{name}\", \"SummaryView\": {{\"BlockRThroughput\": 1.5, \
             \"DispatchWidth\": 4, \"IPC\": 1.9, \"Instructions\": {instructions}, \"Iterations\": {iterations}, \
             \"TotalCycles\": {cycles}, \"TotaluOps\": 600}}}}"
        )
    }

    fn answer(regions: &[String]) -> String {
        format!("{{\"CodeRegions\": [{}], \"TargetInfo\": {{\"CPUName\": \"x\"}}}}", regions.join(", "))
    }

    #[test]
    fn cycles_are_read_by_the_number_of_the_block() {
        let regions = [region("1", 100, 200, 150), region("0", 100, 300, 407)];
        assert_eq!(parse(&answer(&regions), &[3, 2]), Ok(vec![4.07, 1.5]));
        let missing = parse(&answer(&regions), &[3, 2, 1]).expect_err("missing");
        assert_eq!(missing, "no answer for block 2");
        let skipped = parse(&answer(&regions), &[3, 4]).expect_err("an instruction is missing");
        assert!(skipped.contains("block 1 has 4 instructions, and it took 200 in 100 runs"), "{skipped}");
        assert!(parse("no JSON", &[1]).expect_err("refused").contains("cannot be read"));
    }

    #[test]
    fn blocks_become_regions() {
        let lines = ["nop", "ret", "b.ne #-4"].map(str::to_owned);
        let expected = "# LLVM-MCA-BEGIN 0\nnop\n# LLVM-MCA-END 0\n# LLVM-MCA-BEGIN 1\nret\nb.ne #-4\n# LLVM-MCA-END 1\n";
        assert_eq!(source(&lines, &[1, 2]), expected);
    }

    #[test]
    fn the_tools_model_a_chain_of_additions() {
        let Ok(mut modeller) = Modeller::find(None) else {
            eprintln!("skipped: no llvm-mc and llvm-mca on the search path");
            return;
        };
        // add x0, x0, #1 eight times: each waits for the one before, a cycle each on every processor.
        let chain = vec![0x9100_0400; 8];
        // sdot v0.4s, v1.16b, v2.4b[0] and b.ne to itself.
        let product = vec![0x4f82_e020, 0x5400_0001];
        for model in ["cortex-a72", "neoverse-n1", "neoverse-n2"] {
            let blocks = [chain.clone(), product.clone(), chain.clone()];
            let cycles = modeller.cycles(model, &blocks).expect("modelled");
            assert!((8.0..8.2).contains(&cycles[0]), "{model}: {cycles:?}");
            assert!(cycles[1] >= 1.0 && cycles[2] == cycles[0], "{model}: {cycles:?}");
        }
        let error = modeller.cycles("neoverse-n1", &[vec![0xffff_ffff]]).expect_err("no instruction");
        assert!(error.to_string().contains("llvm-mc"), "{error}");
    }

    #[test]
    fn a_failing_tool_is_named_with_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'error: unknown target' >&2; exit 1"]);
        let error = filter(Path::new("tool"), &mut command, &"nop\n".repeat(100_000)).expect_err("fails");
        assert_eq!(error.to_string(), "tool failed\n  cause: error: unknown target");
    }
}
