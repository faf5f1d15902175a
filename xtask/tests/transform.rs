//! `pack --transform`: what is folded into the weights changes neither the model nor how a container is checked.
#![cfg(unix)]

mod case;

use std::fs;
use std::process::Output;

use case::{Case, ended, report};
use serde_json::{Value, json};

/// One layer of the embedded model, on few tokens.
const OPTIONS: [&str; 6] =
    ["--target=x86-64-linux", "--no-install", "--no-check", "--context=40", "--method=gptq", "--json"];

fn pack(case: &Case, output: &str, more: &[&str]) -> Output {
    pack_on(case, output, 9, more)
}

fn pack_on(case: &Case, output: &str, windows: usize, more: &[&str]) -> Output {
    let windows = format!("--calibration-windows={windows}");
    case.pack_into(output, &[&OPTIONS, &[&windows], more])
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn a_rotated_model_is_the_same_model_and_its_tied_head_stays_tied() {
    let case = Case::one_layer();
    let plain = report(&pack(&case, "none", &["--bits=8"]));
    assert_eq!((&plain["pack"]["transform"], &plain["transform_choice"]), (&json!("none"), &Value::Null));
    let bytes = |report: &Value| number(&report["pack"]["file_bytes"]);
    for transform in ["quarot", "quarot-online", "smooth"] {
        let found = report(&pack(&case, transform, &["--bits=8", "--transform", transform]));
        assert_eq!(found["pack"]["transform"], transform);
        // What 8 bits lose, and no more.
        let kl = number(&found["pack"]["check"]["mean_kl"]);
        assert!(kl < 1e-3, "{transform}: {kl}");
        let kinds: Vec<&str> = found["pack"]["vocabulary"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|matrix| matrix["kind"].as_str().expect("a name"))
            .collect();
        // 128 x 128 at 8 bits with a scale of 2 bytes for 64.
        let (expected, more) = match transform {
            "smooth" => (vec!["embedding"], 0.0),
            _ => (vec!["embedding", "head_input"], 128.0 * 128.0 * (1.0 + 2.0 / 64.0)),
        };
        assert_eq!(kinds, expected, "{transform}");
        let grown = bytes(&found) - bytes(&plain);
        assert!((grown - more).abs() < 512.0, "{transform}: {grown} bytes more");
    }
}

#[test]
fn a_transform_is_chosen_by_what_it_gives() {
    let case = Case::one_layer();
    let found = report(&pack(&case, "auto", &["--bits=2", "--transform=auto"]));
    let candidates = found["transform_choice"]["candidates"].as_array().expect("a list").clone();
    let names: Vec<&Value> = candidates.iter().map(|candidate| &candidate["transform"]).collect();
    assert_eq!(names, [&json!("none"), &json!("smooth"), &json!("quarot"), &json!("spinquant")]);
    let kl = |candidate: &Value| number(&candidate["mean_kl"]);
    let least = candidates.iter().map(kl).fold(f64::INFINITY, f64::min);
    let chosen = &found["transform_choice"]["chosen"];
    let of_chosen = candidates.iter().find(|candidate| candidate["transform"] == *chosen).map(kl);
    // Another one is within a hundredth at best.
    assert!(of_chosen.expect("one of them") <= least / 0.99, "{found}");
    assert_eq!(found["pack"]["transform"], *chosen);
    // The same container as where it is named.
    let name = chosen.as_str().expect("a name");
    report(&pack(&case, "named", &["--bits=2", "--transform", name]));
    let file = |folder: &str| fs::read(case.path(folder).join("model.rescomp")).expect("readable");
    assert!(file("auto") == file("named"));
}

#[test]
fn what_is_no_transform_is_refused() {
    let case = Case::one_layer();
    let error = ended(&pack(&case, "refused", &["--transform=spin"]), 2);
    assert!(error.contains("expected auto, none, smooth, quarot, quarot-online, spinquant"), "{error}");
    let error = ended(&pack_on(&case, "refused", 1, &["--transform=auto"]), 2);
    assert!(error.contains("choosing a transform"), "{error}");
    assert!(!case.path("refused/model.rescomp").exists());
}
