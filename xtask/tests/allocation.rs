//! `pack` with bits distributed over the matrices, and with recipes.
#![cfg(unix)]

mod case;

use std::fs;
use std::process::Output;

use case::{Case, ended, report};
use serde_json::{Value, json};

/// One layer of the embedded model, on few tokens.
const OPTIONS: [&str; 7] = [
    "--target=x86-64-linux",
    "--no-install",
    "--no-check",
    "--context=40",
    "--calibration-windows=3",
    "--sensitivity-windows=1",
    "--json",
];

fn pack(case: &Case, output: &str, more: &[&str]) -> Output {
    case.pack_into(output, &[&OPTIONS, more])
}

#[test]
fn a_budget_is_kept_and_used_and_its_recipe_gives_the_same_file() {
    let case = Case::one_layer();
    let whole = report(&pack(&case, "whole", &["--method=gptq", "--bits=3", "--head-bits=3"]));
    let bytes = whole["pack"]["file_bytes"].as_u64().expect("a number");

    let found = report(&pack(&case, "most", &["--method=gptq", "--max-bytes", &bytes.to_string()]));
    let file = fs::read(case.path("most/model.rescomp")).expect("readable");
    assert_eq!(found["pack"]["file_bytes"], file.len());
    let used = file.len() as u64;
    assert!(used <= bytes && used + bytes / 50 > bytes, "{used} of {bytes}");
    let matrices = found["allocation"]["matrices"].as_array().expect("a list");
    // Four bands of the embedding, and a layer.
    assert_eq!(matrices.len(), 4 + 7);
    assert_eq!(
        (&matrices[3]["matrix"], &matrices[3]["weights"]),
        (&json!("embedding band 3"), &json!(576 * 128))
    );
    let bits: Vec<u64> = matrices.iter().map(|matrix| matrix["bits"].as_u64().expect("a number")).collect();
    assert!(bits.iter().any(|bits| *bits != 3), "{bits:?}");

    let recipe = case.path("most/recipe.toml");
    let again =
        report(&pack(&case, "again", &["--method=gptq", "--recipe", recipe.to_str().expect("UTF-8")]));
    assert_eq!(again["allocation"], Value::Null);
    assert_eq!(fs::read(case.path("again/model.rescomp")).expect("readable"), file);

    let found = report(&pack(&case, "bits", &["--method=gptq", "--target-bpw=3.5"]));
    let bits = found["pack"]["bits_per_weight"].as_f64().expect("a number");
    assert!(bits <= 3.5 && bits > 3.4, "{bits}");
}

#[test]
fn what_cannot_be_distributed_is_refused() {
    let case = Case::one_layer();
    let refused = |more: &[&str]| ended(&pack(&case, "refused", more), 2);
    assert!(refused(&["--max-bytes=20000"]).contains("bytes are not enough: the smallest formats take "));
    assert!(refused(&["--target-bpw=1.5"]).contains("are not enough"));
    assert!(refused(&["--target-bpw=0"]).contains("above 0"));
    assert!(refused(&["--target-bpw=3", "--max-bytes=400000"]).contains("cannot be used with"));
    let recipe = case.path("recipe.toml");
    let name = recipe.to_str().expect("UTF-8");
    fs::write(
        &recipe,
        "[default]\nbits = 3\ngroup = \"64\"\n[matrices]\n\"layer 1 up\" = { bits = 2, group = \"32\" }\n",
    )
    .expect("writable");
    let said = refused(&["--recipe", name]);
    assert!(said.contains(name) && said.contains("no matrix `layer 1 up`"), "{said}");
    assert!(refused(&["--recipe", name, "--bits=3"]).contains("cannot be used with"));
    assert!(!case.path("refused/model.rescomp").exists());
}

#[test]
fn a_head_of_its_own_is_solved_after_the_blocks() {
    let head = |method: &str| {
        let case = Case::one_layer()
            .json("config.json", |config| config["tie_word_embeddings"] = json!(false))
            .weights(|file| {
                let (_, entry, bytes) = file.tensor("model.embed_tokens.weight").clone();
                file.0.push(("lm_head.weight".to_owned(), entry, bytes));
            });
        let found = report(&pack(&case, "out", &[method, "--head-bits=3"]));
        let vocabulary = found["pack"]["vocabulary"].as_array().expect("a list").clone();
        assert_eq!((&vocabulary[0]["kind"], &vocabulary[1]["kind"]), (&"embedding".into(), &"head".into()));
        assert_eq!(found["pack"]["head_bits"], 3);
        vocabulary[1]["relative_error"].as_f64().expect("a number")
    };
    let (rounded, solved) = (head("--method=rtn"), head("--method=gptq"));
    assert!(solved > 0.0 && solved < 0.9 * rounded, "{solved} {rounded}");
}
