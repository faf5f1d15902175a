//! The built program as a user meets it: exit codes, error lines, and machines made of scripts on a search path.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Variables through which the machine that runs the tests would shine through.
const SURROUNDINGS: [&str; 5] = [
    "RUSTC",
    "CARGO",
    "CARGO_TARGET_DIR",
    "RUSTUP_TOOLCHAIN",
    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
];

fn xtask() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    for variable in SURROUNDINGS {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8 output")
}

/// Checks the exit code, and that nothing for a terminal was printed; returns standard error.
fn ended(output: &Output, code: i32) -> String {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "\nstdout:\n{stdout}\nstderr:\n{stderr}");
    assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "escape codes in a pipe");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn run(arguments: &[&str]) -> Output {
    xtask().args(arguments).output().expect("the program starts")
}

/// A machine: a folder that is the whole search path.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().expect("a temporary folder"))
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("writable");
        path
    }

    /// A rustup toolchain without any ARM target, its proxies, and a rustup that does what `rustup` says. The compiler links
    /// programs where its folder has a file `links`.
    fn rustup(&self, rustup: &str) -> &Machine {
        let toolchain = self.0.path().join("toolchains/stable-x86_64-unknown-linux-gnu");
        let body = format!(
            "case \"$*\" in\n\
             '--print sysroot') echo '{0}';;\n\
             '-vV') echo 'host: x86_64-unknown-linux-gnu'; echo 'release: 1.99.0';;\n\
             '--print target-libdir --target '*) shift 3; echo \"{0}/lib/rustlib/$1/lib\";;\n\
             *--edition*) [ -e '{0}/links' ];;\n\
             *) exit 1;;\nesac",
            toolchain.display()
        );
        self.script("toolchains/stable-x86_64-unknown-linux-gnu/bin/rustc", &body);
        self.script("toolchains/stable-x86_64-unknown-linux-gnu/bin/cargo", "echo built \"$@\"");
        self.script(
            "toolchains/stable-x86_64-unknown-linux-gnu/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld",
            "exit 1",
        );
        self.script("rustc", &body);
        self.script("rustup", &rustup.replace("TOOLCHAIN", &toolchain.display().to_string()));
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        xtask().env("PATH", self.0.path()).args(arguments).output().expect("the program starts")
    }
}

#[test]
fn a_wrong_command_line_or_input_ends_with_2() {
    let stderr = ended(&run(&["pack", "--target", "aarch64", "--bits", "7"]), 2);
    assert!(stderr.starts_with("error: ") && stderr.contains("expected 2, 3, 4, 5, 6 or 8"), "{stderr}");
    ended(&run(&["no-such-command"]), 2);
    let stderr = ended(&run(&["pack", "--target", "armv7"]), 2);
    assert_eq!(stderr, "error: armv7: 32-bit ARM Linux isn't supported; use a 64-bit system (aarch64)\n");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("board.toml");
    fs::write(&file, "name = \"board\"\nspeed = 3\n").expect("writable");
    let stderr = ended(&run(&["pack", "--target", file.to_str().expect("UTF-8")]), 2);
    assert!(stderr.contains("board.toml:2: speed: unknown field `speed`"), "{stderr}");
}

#[test]
fn a_missing_target_ends_with_3_and_an_unreadable_one_with_4() {
    let stderr = ended(&run(&["pack", "--target", "no-such-board"]), 3);
    assert!(stderr.starts_with("error: no target is called `no-such-board`"), "{stderr}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("folder.toml");
    fs::create_dir(&file).expect("writable");
    ended(&run(&["pack", "--target", file.to_str().expect("UTF-8")]), 4);
}

#[test]
fn help_version_and_targets_end_with_0() {
    for arguments in
        [&["--help"][..], &["--version"], &["pack", "--help"], &["targets"], &["targets", "--json"]]
    {
        ended(&run(arguments), 0);
    }
    let json = text(&run(&["targets", "--json"]).stdout);
    let targets: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(targets[0]["name"], "aarch64");
}

#[test]
fn a_machine_without_tools_says_what_is_missing() {
    let stderr = ended(&Machine::new().run(&["pack", "--target", "aarch64"]), 3);
    assert!(stderr.contains("no rustc with its cargo is on the search path"), "{stderr}");
    assert!(stderr.contains("remedy: "), "{stderr}");
}

#[test]
fn no_install_changes_nothing_and_names_the_commands() {
    let machine = Machine::new();
    machine.rustup("echo changed > 'TOOLCHAIN/changed'");
    let stderr = ended(&machine.run(&["pack", "--target", "aarch64", "--no-install"]), 3);
    let remedy =
        "remedy: rustup target add --toolchain stable-x86_64-unknown-linux-gnu aarch64-unknown-linux-musl";
    assert!(stderr.contains("--no-install was given") && stderr.contains(remedy), "{stderr}");
    assert!(!machine.0.path().join("toolchains/stable-x86_64-unknown-linux-gnu/changed").exists());
}

#[test]
fn a_rustup_that_cannot_add_is_printed_and_named() {
    let machine = Machine::new();
    machine.rustup("echo 'error: no network' >&2; exit 1");
    let stderr = ended(&machine.run(&["pack", "--target", "aarch64"]), 3);
    assert!(stderr.contains("$ rustup target add --toolchain"), "{stderr}");
    assert!(stderr.contains("did not help: rustup target add"), "{stderr}");
}

/// A rustup that adds a target's library.
const ADDING_RUSTUP: &str = "[ \"$1 $2 $3\" = 'target add --toolchain' ] || exit 1\n\
     library='TOOLCHAIN/lib/rustlib/aarch64-unknown-linux-musl/lib'\n\
     PATH=/usr/bin:/bin\n\
     mkdir -p \"$library\" && : > \"$library/libcore-1.rlib\"";

#[test]
fn a_library_that_does_not_link_is_passed_over() {
    let machine = Machine::new();
    machine.rustup(ADDING_RUSTUP);
    let stderr = ended(&machine.run(&["pack", "--target", "aarch64"]), 3);
    assert!(stderr.contains("cannot link a program for aarch64-unknown-linux-musl"), "{stderr}");
    assert!(stderr.contains("error: no toolchain builds for `aarch64`"), "{stderr}");
}

#[test]
fn a_rustup_that_can_add_leads_to_a_build_with_its_own_linker() {
    let machine = Machine::new();
    machine.rustup(ADDING_RUSTUP);
    machine.script("toolchains/stable-x86_64-unknown-linux-gnu/links", "");
    // It packs, too: not into the repository.
    let folder = machine.0.path().join("out");
    let output = machine.run(&["pack", "--target", "aarch64", "--output", folder.to_str().expect("UTF-8")]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("-Clinker-flavor=ld.lld -Ctarget-feature=+crt-static"), "{stderr}");
    assert!(text(&output.stdout).contains("built build --target aarch64-unknown-linux-musl"), "{stderr}");
}

#[test]
fn tests_are_counted_and_a_failure_ends_with_1() {
    let machine = Machine::new();
    let test = |body: &str| {
        let cargo = machine.script("cargo", body);
        xtask().env("CARGO", cargo).args(["test", "--host-only"]).output().expect("the program starts")
    };
    let last = |output: &Output| text(&output.stdout).lines().last().unwrap_or_default().to_owned();

    let output = test("echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured'");
    ended(&output, 0);
    assert_eq!(last(&output), "3 passed, 0 failed");

    let output = test("echo 'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured'; exit 101");
    assert!(ended(&output, 1).contains("error: 2 tests failed"));
    assert_eq!(last(&output), "3 passed, 2 failed");

    let output = test("echo 'error: could not compile' >&2; exit 101");
    ended(&output, 1);
    assert_eq!(last(&output), "0 passed, 1 failed");

    ended(&test("exit 0"), 1);
}

#[test]
fn missing_emulation_is_named_after_the_hosts_tests() {
    let machine = Machine::new();
    let cargo = machine.script("cargo", "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'");
    let mut command = xtask();
    command.env("PATH", machine.0.path()).env("CARGO", cargo).args(["test", "--no-install"]);
    let output = command.output().expect("the program starts");
    let stderr = ended(&output, 3);
    assert!(stderr.contains("no qemu-aarch64 is on the search path"), "{stderr}");
    assert!(text(&output.stdout).ends_with("\n3 passed, 0 failed\n"));
}

#[test]
fn the_quality_table_and_its_report() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let markdown = folder.path().join("deep/quality.md");
    let output = run(&[
        "bench",
        "quality",
        "--methods",
        "rtn,gptq,rtn",
        "--bits",
        "8,2",
        "--group-size",
        "64",
        "--samples",
        "2",
        "--calibration-windows",
        "1",
        "--windows",
        "2",
        "--context",
        "24",
        "--activations",
        "int8",
        "--output",
        markdown.to_str().expect("UTF-8"),
        "--json",
    ]);
    let progress = ended(&output, 0);
    assert!(progress.contains("gptq, 2 bits, group 64, sample 2"), "{progress}");
    let json = text(&output.stdout);
    assert_eq!(json.trim_end(), fs::read_to_string(markdown.with_extension("json")).expect("the report"));
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");

    // Once rtn, twice gptq, for each width.
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 6);
    for run in runs {
        for key in ["perplexity", "reference_perplexity", "mean_kl", "median_kl", "p99_kl", "same_top1"] {
            assert!(run[key].is_f64(), "{key} in {run}");
        }
        assert!(
            run["sample"].is_u64() && run["bits_per_weight"].is_f64() && run["file_bytes"].is_u64(),
            "{run}"
        );
        assert_eq!(
            (&run["group"], &run["tokens"], &run["activations"]),
            (&"64".into(), &48.into(), &"int8".into())
        );
    }
    let rows = report["rows"].as_array().expect("rows");
    let row = |method: &str, bits: u8| {
        rows.iter().find(|row| row["method"] == method && row["bits"] == bits).expect("a row for each method")
    };
    assert_eq!(rows.len(), 4);
    assert_eq!(
        (&row("rtn", 2)["samples"], &row("rtn", 2)["mean_kl_standard_error"]),
        (&1.into(), &0.0.into())
    );
    assert!(row("gptq", 2)["mean_kl_standard_error"].as_f64().expect("two samples") > 0.0);
    for method in ["rtn", "gptq"] {
        let kl = |bits| row(method, bits)["mean_kl"].as_f64().expect("a number");
        assert!(kl(8) > 0.0 && kl(8) < kl(2) / 10.0, "{method}: {} {}", kl(8), kl(2));
    }

    let table = fs::read_to_string(&markdown).expect("the table");
    assert!(
        table.contains("| `rtn` | none | 8 | 64 | ") && table.contains("| `gptq` | none | 2 | 64 | "),
        "{table}"
    );
    let plot = fs::read_to_string(markdown.with_extension("svg")).expect("the plot");
    assert!(
        plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>") && plot.contains("gptq"),
        "{plot}"
    );
    assert_eq!(fs::read_dir(folder.path().join("deep")).expect("a folder").count(), 3);
}

#[test]
fn linear_layers_alone_are_measured_in_full_precision() {
    let arguments = "bench quality --linears-only --levels uniform --methods rtn --bits 4 --group-size 32,row --windows 2 --context 24 \
                     --calibration-windows 1 --samples 1 --score-from 20 --json";
    let output = run(&arguments.split_whitespace().collect::<Vec<_>>());
    ended(&output, 0);
    let report: serde_json::Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    assert_eq!((&report["linears_only"], &report["score_from"]), (&true.into(), &20.into()));
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!((&row["activations"], &row["head_bits"]), (&"f32".into(), &serde_json::Value::Null));
        assert!(row["mean_kl"].as_f64().expect("a number") > 0.0, "{row}");
    }
    assert_eq!((&rows[0]["bits_per_weight"], &rows[0]["bytes"]), (&4.5.into(), &663_552.0.into()));
    // Two windows, the positions 20 to 23.
    assert_eq!(report["runs"][0]["tokens"], 8);
}

#[test]
fn levels_can_be_evenly_spaced() {
    let kl = |levels: &str| {
        let arguments = format!(
            "bench quality --linears-only --levels {levels} --methods rtn --bits 2 --windows 2 --context 24 --calibration-windows 1 --samples 1 --json"
        );
        let output = run(&arguments.split_whitespace().collect::<Vec<_>>());
        ended(&output, 0);
        let report: serde_json::Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
        assert_eq!(report["levels"], levels);
        let row = &report["rows"][0];
        (row["bytes"].as_f64().expect("bytes"), row["mean_kl"].as_f64().expect("a number"))
    };
    // Codes and coded scales of the same size, other values.
    let ((bytes, even), (normal_bytes, normal)) = (kl("even"), kl("normal"));
    assert_eq!(bytes, normal_bytes);
    assert!(even > 0.0 && even != normal, "{even} and {normal}");
}

#[test]
fn a_quality_table_of_what_cannot_be_is_refused() {
    let refused = |arguments: &[&str], code| {
        ended(&run(&[&["bench", "quality", "--context", "24"][..], arguments].concat()), code)
    };
    assert!(refused(&["--bits", "4,7"], 2).contains("expected 2, 3, 4, 5, 6 or 8"));
    assert!(refused(&["--methods", "gptq,awq"], 2).contains("rescomp-exact"));
    assert!(refused(&["--group-size", "64,48"], 2).contains("expected 32, 64, 128 or row"));
    assert!(refused(&["--activations", "int4"], 2).contains("int8"));
    assert!(refused(&["--score-from", "24"], 2).contains("expected less than the 24 of --context"));
    assert!(refused(&["--linears-only", "--head-bits", "4"], 2).contains("cannot be used with"));
    assert!(refused(&["--output", "quality.json"], 2).contains("the name of a Markdown file"));
    assert!(
        refused(&["--samples", "18446744073709551615"], 2).contains("calibration.txt: expected at least")
    );
    assert!(refused(&["--context", "513"], 2).contains("cannot be used multiple times"));
    ended(&run(&["bench", "quality", "--context", "513"]), 2);
    assert!(refused(&["--text", "no-such-text"], 4).contains("no-such-text"));
    ended(&run(&["bench"]), 2);
}

#[test]
fn methods_are_compared_matrix_by_matrix() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let markdown = folder.path().join("methods.md");
    let compare = |arguments: &str| {
        let head =
            ["bench", "methods", "--context", "48", "--calibration-windows", "2", "--held-out-windows", "1"];
        run(&[&head[..], &arguments.split_whitespace().collect::<Vec<_>>()].concat())
    };
    let output = compare(&format!("--bits 3 --methods rtn,gptq,gptq --json --output {}", markdown.display()));
    ended(&output, 0);
    let json = text(&output.stdout);
    assert_eq!(json.trim_end(), fs::read_to_string(markdown.with_extension("json")).expect("the report"));
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["continued_with"], "gptq");
    let matrices = report["matrices"].as_array().expect("matrices");
    assert_eq!(matrices.len(), 6 * 7);
    let wins: u64 = report["summary"]
        .as_array()
        .expect("a line a method")
        .iter()
        .map(|method| method["wins"].as_u64().expect("a number"))
        .sum();
    assert_eq!((report["summary"].as_array().map(Vec::len), wins), (Some(2), 42));
    // On its own calibration tokens, compensation is better in the mean than rounding.
    let mean = |at: usize| report["summary"][at]["calibration"].as_f64().expect("a mean");
    assert!(mean(1) < mean(0), "{json}");
    let table = fs::read_to_string(&markdown).expect("the table");
    assert_eq!(table.lines().filter(|line| line.starts_with('|')).count(), 2 + 42 + 2, "{table}");
    assert!(table.contains("WARNING: 96 calibration tokens for 128 inputs"), "{table}");

    assert!(ended(&compare("--output x.json"), 2).contains("the name of a Markdown file"));
    assert!(ended(&compare("--bits 7"), 2).contains("expected 2, 3, 4, 5, 6 or 8"));
    assert!(ended(&compare("--calibration no-such-text"), 4).contains("no-such-text"));
    let many = compare("--calibration-offset 18446744073709551615");
    assert!(ended(&many, 2).contains("calibration.txt: expected at least"));
}

#[test]
fn calibration_is_timed_and_its_operations_counted() {
    let arguments = "bench calibration --bits 3 --calibration-windows 2 --context 24";
    let timed = |more: &str| run(&format!("{arguments} {more}").split_whitespace().collect::<Vec<_>>());
    let output = timed("--json");
    ended(&output, 0);
    let report: serde_json::Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    let number = |name: &str| report[name].as_f64().expect("a number");
    // Two streams of 48 tokens through 1,179,648 weights.
    assert_eq!(report["operations"]["forward"], 4.0 * 48.0 * 1_179_648.0);
    assert!(number("seconds") > 0.0 && number("speed") > 0.0 && number("peak") > number("speed"), "{report}");
    assert!(number("peak_memory_bytes") > 1e6, "{report}");
    let output = timed("--method rtn");
    ended(&output, 0);
    assert!(
        text(&output.stdout).contains("the peak of f32 matrix products here"),
        "{}",
        text(&output.stdout)
    );
    assert!(ended(&timed("--context 0"), 2).contains("--context"));
}

#[test]
fn decoding_a_container_that_is_not_there_says_how_to_make_one() {
    let output = run(&["bench", "decode", "--container", "no-such-container"]);
    let stderr = ended(&output, 4);
    assert!(stderr.contains("no-such-container") && stderr.contains("cargo xtask pack --target"), "{stderr}");
    assert!(ended(&run(&["bench", "decode", "--threads", "0"]), 2).contains("--threads"));
}

#[test]
fn an_estimate_needs_a_board_and_a_container() {
    let refused =
        |arguments: &str, exit| ended(&run(&arguments.split_whitespace().collect::<Vec<_>>()), exit);
    let without_board = refused("estimate --target aarch64", 2);
    assert!(without_board.contains("`aarch64` has no table [board]"), "{without_board}");
    let missing = refused("estimate --target rpi5 --container no-such-container", 4);
    assert!(missing.contains("no-such-container") && missing.contains("pack --target rpi5"), "{missing}");
    assert!(
        refused("estimate --target rpi6", 3)
            .contains("there are aarch64, aarch64-bare, cortex-m7, jetson-nano")
    );
}

#[test]
fn an_interrupt_ends_with_130() {
    let machine = Machine::new();
    let started = machine.0.path().join("started");
    // Ends by itself: the signal goes to the program alone here, while a terminal sends it to its children as well.
    let cargo = machine.script("cargo", &format!(": > '{}'; exec sleep 10", started.display()));
    let mut command = xtask();
    command.env("CARGO", cargo).args(["test", "--host-only"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    wait_for(&started);
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
    assert_eq!(child.wait().expect("the program ends").code(), Some(130));
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} never appeared", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}
