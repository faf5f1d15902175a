//! A classifier of images from its folder to a checked container, and what is refused of it.
#![cfg(unix)]

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use program::{assert_refused, report, xtask};
use serde_json::json;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder of images: those of the tests of rescomp-pixels, twice.
fn images(folder: &Path) -> PathBuf {
    let images = folder.join("images");
    for part in ["a", "b"] {
        fs::create_dir_all(images.join(part)).expect("writable");
        for entry in fs::read_dir(root().join("pixels/tests/data")).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "png" || extension == "jpg") {
                fs::copy(&path, images.join(part).join(path.file_name().expect("a name"))).expect("a file");
            }
        }
    }
    images
}

#[test]
fn a_classifier_is_packed_checked_and_measured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let images = images(folder.path());
    let few = folder.path().join("few");
    fs::create_dir(&few).expect("writable");
    fs::copy(images.join("a/wide.png"), few.join("wide.png")).expect("a file");
    let broken = folder.path().join("broken");
    fs::create_dir(&broken).expect("writable");
    (0..5).for_each(|at| fs::write(broken.join(format!("{at}.png")), b"no image").expect("writable"));
    let model = root().join("quantizer/tests/architectures/deit-with-teacher");
    let out = folder.path().join("out");
    let [model, images, few, broken, out] =
        [&model, &images, &few, &broken, &out].map(|path| path.to_str().expect("UTF-8"));
    let target = format!("{}-linux", std::env::consts::ARCH.replace('_', "-"));
    let target = if target.starts_with("x86") { target.as_str() } else { "aarch64" };
    let pack = ["pack", "--target", target, "--model", model, "--output", out, "--no-install"];
    let small = ["--method", "rtn", "--bits", "8", "--group-size", "32"];
    let found = report(&[&pack[..], &small, &["--calibration-images", images]].concat());
    let check = &found["pack"]["check"];
    // Of twelve images every fourth.
    assert_eq!((&check["images"], &found["pack"]["held_out_images"]["images"]), (&json!(3), &json!(3)));
    let kl = check["mean_kl"].as_f64().expect("a divergence");
    assert!(kl > 0.0 && kl < 0.01, "{kl}");
    let places = found["check"]["places"].as_array().expect("places");
    assert!(places.len() > 1 && places.iter().all(|place| place["passed"] == true), "{found}");
    assert!(places.iter().all(|place| place["device"]["logits_sha256"] == check["logits_sha256"]));
    let readme = fs::read_to_string(Path::new(out).join("README.md")).expect("a file");
    assert!(readme.contains("classify model.rescomp") && !readme.contains("generate"), "{readme}");
    let recipe = fs::read_to_string(Path::new(out).join("recipe.toml")).expect("a file");
    assert!(recipe.contains("[matrices.patches]") && !recipe.contains("embedding"), "{recipe}");
    let again = Path::new(out).join("recipe.toml");
    let again = ["--recipe", again.to_str().expect("UTF-8"), "--method", "rtn", "--no-check"];
    let repeated = report(&[&pack[..], &again, &["--calibration-images", images]].concat());
    assert_eq!(repeated["pack"]["check"], *check);

    let container = Path::new(out).join("model.rescomp");
    let container = container.to_str().expect("UTF-8");
    let eval = ["eval", "--container", container];
    let found = report(&[&eval[..], &["--images", images, "--reference", model]].concat());
    assert_eq!((&found["images"], &found["activations"]), (&json!(12), &json!("int8")));
    assert!(found["mean_kl"].as_f64().expect("a divergence") < 0.01, "{found}");
    assert!(found["same_top1"].as_f64().expect("a share") > 0.8, "{found}");
    let found =
        report(&[&eval[..], &["--images", images, "--reference", model, "--activations", "f32"]].concat());
    assert_eq!(found["activations"], "f32");

    let classifier = "vit is a classifier";
    assert_refused(
        &[&eval[..], &["--images", images]].concat(),
        2,
        &[classifier, "expected --images and --reference"],
    );
    assert_refused(&[&eval[..], &["--text", "t"]].concat(), 2, &[classifier, "expected --images"]);
    assert_refused(&["eval", "--model", model, "--text", "t"], 2, &[classifier, "no tokenizer"]);
    assert_refused(
        &["estimate", "--target", "rpi5", "--container", container],
        2,
        &[classifier, "no decoding"],
    );
    let export = folder.path().join("model.gguf");
    let export =
        ["export", "--container", container, "--format", "gguf", "--output", export.to_str().expect("UTF-8")];
    assert_ne!(xtask(&export).status.code(), Some(0));
    let packed = |more: &[&str]| -> Vec<String> {
        [&pack[..], &["--no-check"], more].concat().into_iter().map(str::to_owned).collect()
    };
    for (more, code, part) in [
        (&[][..], 2, "expected --calibration-images"),
        (&["--calibration-images", few], 2, "expected at least 4 PNG or JPEG files, found 1"),
        (&["--calibration-images", "/no/such/folder"], 4, "/no/such/folder"),
        (&["--calibration-images", broken], 2, "0.png: expected a PNG or JPEG image"),
        (
            &["--calibration-images", images, "--calibration-offset", "9"],
            2,
            "behind --calibration-offset, found 3",
        ),
        (&["--calibration-images", images, "--calibration", "t"], 2, "--calibration: vit is a classifier"),
        (&["--calibration-images", images, "--context", "8"], 2, "--context: vit is a classifier"),
        (&["--calibration-images", images, "--kv-cache", "int8"], 2, "--kv-cache: vit is no decoder"),
        (&["--calibration-images", images, "--joiner", "none"], 2, "--joiner: vit is a classifier"),
        (&["--calibration-images", images, "--target-bpw", "4"], 2, "--target-bpw: vit is a classifier"),
    ] {
        let arguments = packed(more);
        assert_refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), code, &[part]);
    }
    let texts = ["pack", "--target", target, "--no-install", "--no-check", "--calibration-images", images];
    assert_refused(&texts, 2, &["--calibration-images: llama reads texts"]);
}
