//! `cargo xtask bench kernels` from the command line to the report: what it refuses, and a count of real kernels.
#![cfg(unix)]

mod case;

use std::process::{Command, Output, Stdio};

use case::{Case, ended, text};
use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["bench", "kernels", "--no-install"]).args(arguments).stdin(Stdio::null());
    command.output().expect("the program starts")
}

#[test]
fn wrong_options_are_refused_by_name() {
    for (arguments, expected) in [
        (["--bits", "7"], "2, 3, 4, 5, 6 or 8"),
        (["--shapes", "12x64"], "rows a multiple of 8"),
        (["--shapes", "64"], "ROWSxCOLS"),
        (["--group", "48"], "32, 64, 128 or row"),
        (["--tokens", "0"], "at least 1"),
        (["--cores", "cortex-a999"], "cortex-a76"),
        (["--only", "guessed"], "counted"),
    ] {
        let stderr = ended(&bench(&arguments), 2);
        assert!(stderr.contains(expected), "expected `{expected}` in:\n{stderr}");
    }
}

#[test]
fn what_is_missing_is_named_in_the_report() {
    // Nothing but scripts is on the search path: no QEMU.
    let case = Case::new().compiler();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    case.surround(&mut command);
    command.args(["bench", "kernels", "--no-install", "--only", "counted"]);
    let output = command.output().expect("the program starts");
    ended(&output, 0);
    let stdout = text(&output.stdout);
    assert!(stdout.contains("skipped: counts: no qemu-aarch64 is on the search path"), "{stdout}");
}

/// Instructions of a cost, and those of them that are in functions whose symbols have `name` in them.
fn instructions(cost: &Value, name: &str) -> (u64, u64) {
    let functions = cost["functions"].as_array().expect("a list");
    let inside = functions.iter().filter(|function| function[0].as_str().expect("a name").contains(name));
    let inside = inside.map(|function| function[1].as_u64().expect("a count")).sum();
    (cost["instructions"].as_u64().expect("a count"), inside)
}

#[test]
fn kernels_are_counted_on_an_emulated_processor() {
    let arguments = [
        "--only",
        "counted",
        "--cores",
        "cortex-a76",
        "--shapes",
        "64x256",
        "--bits",
        "4,8",
        "--tokens",
        "1,4",
    ];
    let output = bench(&[&arguments[..], &["--json"]].concat());
    let stderr = ended(&output, 0);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let skipped = report["skipped"].as_array().expect("a list");
    let Some(counted) = report["counted"].get(0) else {
        assert!(!skipped.is_empty(), "nothing was counted, and no reason is given:\n{stderr}");
        eprintln!("skipped: {skipped:?}");
        return;
    };
    let runs = counted["runs"].as_array().expect("a list");
    let names: Vec<&str> = runs.iter().map(|run| run["kernel"].as_str().expect("a name")).collect();
    let expected = [("gemv", 4), ("gemm", 4), ("gemv", 8), ("gemm", 8)];
    assert_eq!(names, expected.map(|(kind, bits)| format!("{kind}_int{bits}_nr8k4_neon_dotprod")));
    for (run, (kind, bits)) in runs.iter().zip(expected) {
        let weights = 64 * 256 * run["tokens"].as_u64().expect("a number");
        let (product, in_kernel) =
            instructions(&run["product_cost"], &format!("{kind}_int{bits}_neon_dotprod"));
        // An SDOT multiplies sixteen weights.
        assert!(product > weights / 16 && product < weights, "{run}");
        assert!(in_kernel * 10 > product * 8, "not in the kernel: {run}");
        let (quantization, in_quantization) = instructions(&run["quantization_cost"], "quantize_activations");
        assert!(in_quantization * 10 > quantization * 5 && quantization < product, "{run}");
        // A processor that starts four instructions a cycle, or a few more with fused ones.
        let cycles = |cost: &str| run[cost]["cycles"].as_f64();
        match cycles("product_cost") {
            Some(cycles) => assert!(cycles > product as f64 / 8.0 && cycles < product as f64, "{run}"),
            None => {
                assert!(skipped.iter().any(|why| why.as_str().is_some_and(|why| why.contains("llvm-mca"))))
            }
        }
    }
    // Counts are exact: the same again.
    let again: Value =
        serde_json::from_slice(&bench(&[&arguments[..], &["--json"]].concat()).stdout).expect("JSON");
    assert_eq!(again["counted"], report["counted"]);
}
