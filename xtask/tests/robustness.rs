//! `pack` of models whose activations break down: an error that names the place, or rounding to nearest with a warning.
#![cfg(unix)]

mod case;

use std::fs;

use case::{Case, ended};
use serde_json::Value;

/// Sets every element of a tensor to a bfloat16 number.
fn fill(case: Case, tensor: &str, bits: u16) -> Case {
    case.weights(|file| {
        file.tensor(tensor)
            .2
            .chunks_exact_mut(2)
            .for_each(|element| element.copy_from_slice(&bits.to_le_bytes()));
    })
}

/// 1.7e38: finite, but sums and products of it are not.
const HUGE: u16 = 0x7f00;

#[test]
fn activations_that_are_not_finite_are_named_by_layer_and_set() {
    let layer = |part: &str| format!("model.layers.2.{part}.weight");
    for (parts, place) in [
        (&["mlp.gate_proj", "mlp.up_proj"][..], "layer 2, input of down"),
        (&["self_attn.v_proj"], "layer 2, input of output"),
        (&["mlp.down_proj"], "layer 3, input of query, key, value"),
    ] {
        let case = Case::new().compiler();
        let case = parts.iter().fold(case, |case, part| fill(case, &layer(part), HUGE));
        let stderr = ended(&case.pack(&[]).output().expect("the program starts"), 2);
        let expected = format!("error: calibration: an activation is infinite or not a number: {place}\n");
        assert!(stderr.contains(&expected), "expected `{expected}` in:\n{stderr}");
        assert_eq!(case.written(), Vec::<String>::new(), "nothing is left to resume");
    }
}

#[test]
fn sets_without_input_are_rounded_with_a_warning() {
    let case = fill(Case::new().compiler(), "model.layers.3.input_layernorm.weight", 0);
    // A later option takes the place of an earlier one of the same name only where clap is told so: the method comes apart.
    let mut arguments = case.arguments();
    let method = arguments.iter().position(|word| word == "rtn").expect("the quick method");
    arguments[method] = "gptq".to_owned();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xtask"));
    case.surround(&mut command);
    let stderr = ended(&command.arg("pack").args(arguments).output().expect("the program starts"), 0);
    let report: Value =
        serde_json::from_slice(&fs::read(case.path("out/report.json")).expect("readable")).expect("JSON");
    let warnings: Vec<&str> =
        report["pack"]["warnings"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let cause = "every diagonal entry of the 128x128 Hessian is 0: the layer saw no input during calibration";
    // Without queries, keys and values, attention gives nothing to the output projection.
    for kind in ["query", "key", "value", "output"] {
        let expected = format!("layer 3 {kind}: rounded to nearest, because {cause}");
        assert!(warnings.contains(&expected.as_str()), "{warnings:?}");
        assert_eq!(stderr.matches(&format!("warning: {expected}\n")).count(), 1, "{stderr}");
    }
    assert!(!warnings.iter().any(|warning| warning.contains("gate")), "{warnings:?}");
    // Too few tokens are said once for each number of inputs.
    let few = "128 calibration tokens for 384 inputs: at least 3072 are needed";
    assert_eq!(warnings.iter().filter(|warning| **warning == few).count(), 1, "{warnings:?}");
    assert_eq!(stderr.matches(few).count(), 1, "{stderr}");
    for matrix in report["pack"]["matrices"].as_array().expect("a list") {
        let rounded = matrix["layer"] == 3
            && ["query", "key", "value", "output"].iter().any(|kind| matrix["kind"] == *kind);
        assert_eq!(matrix["rounded_because"].is_string(), rounded, "{matrix}");
        assert!(matrix["relative_error"].is_f64(), "{matrix}");
    }
}
