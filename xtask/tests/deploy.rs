//! `cargo xtask deploy` against a real sshd on this machine: what goes live is whole and checked, whatever happens on the way.
//! Skipped, with a line that says so, where there is no sshd.
#![cfg(unix)]

mod sshd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sshd::Sshd;

/// How many times a deployment is killed; `RESCOMP_KILLS` says otherwise.
const KILLS: u64 = 12;

/// A program that stands for the runner: it passes where the model says so.
const PROGRAM: &str = r#"#!/bin/sh
[ "$1 $2 $3" = "check model.rescomp --json" ] || { echo "unexpected $*" >&2; exit 2; }
passed=false; code=1
if grep -q good model.rescomp; then passed=true; code=0; fi
echo '{"kernels":"scalar","threads":1,"device":{"nll":1.5,"mean_kl":0.1,"same_top1":1,"positions":2,"logits_sha256":"abc"},"prefill_logits_sha256":null,"passed":'$passed',"seconds":0.1}'
exit $code
"#;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder as `pack` writes it.
fn bundle(folder: &Path, model: &[u8], program: &str) -> PathBuf {
    fs::create_dir_all(folder).expect("writable");
    let mut sums = String::new();
    for (name, bytes) in [("model.rescomp", model), ("rescomp", program.as_bytes())] {
        fs::write(folder.join(name), bytes).expect("writable");
        sums += &format!("{}  {name}\n", digest(bytes));
    }
    fs::write(folder.join("SHA256SUMS"), sums).expect("writable");
    folder.to_owned()
}

/// A model that passes, of many bytes.
fn good(text: &str) -> Vec<u8> {
    let mut model = format!("good {text} ").into_bytes();
    model.extend((0..400_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()));
    model
}

fn deploy(sshd: &Sshd, from: &Path, more: &[&str]) -> Output {
    let from = from.to_str().expect("UTF-8");
    sshd.xtask(&["deploy", "--target", "x86-64-linux", "--json", "--from", from], more)
        .output()
        .expect("runs")
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The folder of the live release, if any; it must be complete.
fn live(device: &Path) -> Option<PathBuf> {
    let link = fs::read_link(device.join("current")).ok()?;
    let folder = device.join(link);
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).expect("a live release has its sums");
    for line in sums.lines() {
        let (expected, name) = line.split_once("  ").expect("digest and name");
        assert_eq!(
            digest(&fs::read(folder.join(name)).expect("there")),
            expected,
            "{name} of the live release"
        );
    }
    Some(folder)
}

#[test]
fn a_release_goes_live_whole_and_checked_or_not_at_all() {
    let Some(sshd) = Sshd::start() else { return };
    let place = tempfile::tempdir().expect("a temporary folder");
    let device = sshd.device();
    let (one, two) = (bundle(&place.path().join("one"), &good("one"), PROGRAM), place.path().join("two"));
    let two = bundle(&two, &good("two"), PROGRAM);

    let first = report(&deploy(&sshd, &one, &[]));
    assert_eq!((&first["previous"], &first["bytes"]), (&Value::Null, &first["bytes_sent"]));
    assert_eq!(fs::read(device.join("current/model.rescomp")).expect("live"), good("one"));
    let second = report(&deploy(&sshd, &two, &[]));
    assert_eq!(second["previous"], first["release"]);
    assert_eq!(fs::read(device.join("current/model.rescomp")).expect("live"), good("two"));

    // A release that misses its check: everything stays.
    let bad = bundle(&place.path().join("bad"), b"worse", PROGRAM);
    let refused = deploy(&sshd, &bad, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("the check failed; the live release stays"), "{said}");
    // And one whose program does not start.
    let broken = bundle(&place.path().join("broken"), &good("three"), "#!/no/such/shell\n");
    let refused = deploy(&sshd, &broken, &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    // And a folder whose digests are wrong.
    fs::write(bad.join("model.rescomp"), "good").expect("writable");
    assert_eq!(deploy(&sshd, &bad, &[]).status.code(), Some(2));
    assert_eq!(live(&device).expect("live"), device.join("releases").join(text(&second["release"])));

    // Back, and back again to what there was before nothing.
    let back = report(
        &sshd
            .xtask(&["deploy", "--target", "x86-64-linux", "--json"], &["--rollback"])
            .output()
            .expect("runs"),
    );
    assert_eq!((&back["release"], &back["previous"]), (&first["release"], &second["release"]));
    assert_eq!(fs::read(device.join("current/model.rescomp")).expect("live"), good("one"));
    let nothing =
        sshd.xtask(&["deploy", "--target", "x86-64-linux"], &["--rollback"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no release was live before"), "{nothing:?}");
    // Forward to a release that is there already: nothing is sent.
    let again = report(&deploy(&sshd, &two, &[]));
    assert_eq!((&again["release"], &again["bytes_sent"]), (&second["release"], &Value::from(0)));
    assert_eq!(again["previous"], first["release"]);
}

#[test]
fn a_broken_copy_goes_on_where_it_ended() {
    let Some(sshd) = Sshd::start() else { return };
    let place = tempfile::tempdir().expect("a temporary folder");
    let device = sshd.device();
    let model = good("one");
    let one = bundle(place.path(), &model, PROGRAM);
    let id = &digest(&fs::read(one.join("SHA256SUMS")).expect("there"))[..16];
    let partial = device.join("releases").join(format!("{id}.partial"));
    fs::create_dir_all(&partial).expect("writable");
    fs::write(partial.join("model.rescomp"), &model[..1_000_000]).expect("writable");
    let report_of = report(&deploy(&sshd, &one, &[]));
    let (all, sent) =
        (report_of["bytes"].as_u64().expect("a number"), report_of["bytes_sent"].as_u64().expect("a number"));
    assert_eq!(all - sent, 1_000_000);
    live(&device).expect("live");

    // What is there is no beginning of the file: it is sent whole.
    let (other, model) = (place.path().join("other"), good("other"));
    let other = bundle(&other, &model, PROGRAM);
    let id = &digest(&fs::read(other.join("SHA256SUMS")).expect("there"))[..16];
    let partial = device.join("releases").join(format!("{id}.partial"));
    fs::create_dir_all(&partial).expect("writable");
    fs::write(partial.join("model.rescomp"), b"something else").expect("writable");
    let report = report(&deploy(&sshd, &other, &[]));
    assert_eq!(report["bytes"], report["bytes_sent"]);
}

#[test]
fn who_cannot_be_reached_is_named() {
    let Some(sshd) = Sshd::start() else { return };
    let place = tempfile::tempdir().expect("a temporary folder");
    let one = bundle(place.path(), &good("one"), PROGRAM);
    let output = deploy(&sshd, &one, &["--ssh-option", "Port=1"]);
    // The first value of an option counts: the fixture's own port must not hide this one.
    assert!(output.status.success());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args([
        "deploy",
        "--host",
        "nobody@127.0.0.1",
        "--ssh-option",
        "Port=1",
        "--ssh-option",
        "BatchMode=yes",
    ]);
    let output = command.arg("--from").arg(&one).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("nobody@127.0.0.1 cannot be reached by ssh"), "{said}");
}

#[test]
fn killed_at_any_moment_the_live_release_is_whole() {
    let Some(sshd) = Sshd::start() else { return };
    let kills = std::env::var("RESCOMP_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let place = tempfile::tempdir().expect("a temporary folder");
    let device = sshd.device();
    let bundles = ["one", "two"].map(|name| bundle(&place.path().join(name), &good(name), PROGRAM));
    let start = std::time::Instant::now();
    report(&deploy(&sshd, &bundles[0], &[]));
    let whole = start.elapsed();
    let mut finished = 0;
    for kill in 0..kills {
        let from = bundles[(kill % 2) as usize].to_str().expect("UTF-8");
        let mut child = sshd
            .xtask(&["deploy", "--target", "x86-64-linux", "--json", "--from", from], &[])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("runs");
        // Spread over a deployment: multiples of the golden ratio.
        let share = (kill as f64 * 0.618_033_988_75).fract();
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * share));
        finished += u64::from(child.try_wait().expect("waits").is_some());
        child.kill().expect("killed");
        child.wait().expect("ended");
        // What it started on the device may go on for a moment.
        live(&device).expect("a release is live after every kill");
    }
    eprintln!("{kills} kills, {finished} of them after the end");
    let last = report(&deploy(&sshd, &bundles[0], &[]));
    assert_eq!(fs::read(device.join("current/model.rescomp")).expect("live"), good("one"));
    assert!(last["check"]["passed"].as_bool().expect("a verdict"));
}

/// The real program, built for 64-bit ARM and emulated on the "device", with the container that `pack` wrote.
#[test]
fn the_packed_model_goes_live_on_an_emulated_arm_processor() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/aarch64");
    let emulator = std::process::Command::new("qemu-aarch64").arg("--version").output().is_ok();
    if !emulator || !from.join("SHA256SUMS").is_file() {
        eprintln!("SKIPPED: needs qemu-aarch64 and dist/aarch64 (cargo xtask pack --target aarch64)");
        return;
    }
    let Some(sshd) = Sshd::start() else { return };
    let from = from.to_str().expect("UTF-8");
    let run_with = ["--run-with", "qemu-aarch64 -cpu cortex-a72"];
    let output = sshd.xtask(&["deploy", "--json", "--from", from], &run_with).output().expect("runs");
    let report = report(&output);
    assert_eq!(report["check"]["kernels"], "neon");
    assert_eq!(report["check"]["passed"], true);
    live(&sshd.device()).expect("live");

    // What is live can be checked again, beside this machine.
    let container = format!("{from}/model.rescomp");
    let output =
        sshd.xtask(&["check", "--json", "--container", &container], &run_with).output().expect("runs");
    let checked = self::report(&output);
    let places = checked["places"].as_array().expect("places");
    let device = places.last().expect("the device");
    assert_eq!((&device["kernels"], &device["passed"]), (&Value::from("neon"), &Value::from(true)));
    assert_eq!(device["device"]["logits_sha256"], checked["host"]["logits_sha256"]);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
