//! What tests of whole commands share: runs of the program, and what they must print.
#![allow(unreachable_pub, reason = "shared by test files, each of which is a program of its own")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub fn xtask(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

/// Standard output of a run that must succeed, as JSON.
pub fn report(arguments: &[&str]) -> Value {
    let output = xtask(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Expects this exit code and a message with all of `parts`.
pub fn assert_refused(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = xtask(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    for part in parts {
        assert!(errors.contains(part), "{arguments:?}: expected {part:?} in {errors}");
    }
}
