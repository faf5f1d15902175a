//! Signed containers: with a trusted key nothing else is loaded, and nothing older than what was used.

use std::path::Path;

use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer, SigningKey};
use rescomp_formats::container::write::signed;
use rescomp_formats::layouts::Layout;
use rescomp_runtime::memory::AlignedBytes;

use crate::fixture::{Folder, assert_refused, container, json, run, spec, succeed};

const COMMANDS: [&str; 4] = ["info", "check", "generate", "bench"];

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn sign(file: &[u8], key: &SigningKey, release: u64) -> Vec<u8> {
    let file = AlignedBytes::new(file);
    let sign = |message: &[u8]| key.sign(message).to_bytes();
    signed(&file, key.verifying_key().to_bytes(), release, sign).expect("a container")
}

fn hex(key: &SigningKey) -> String {
    key.verifying_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn with_a_trusted_key_nothing_else_is_loaded() {
    let folder = Folder::new();
    let state = folder.path().join("state/releases.json");
    let plain = container(&spec(), Layout::Nr8k4);
    let (ours, stranger) = (key(1), key(2));
    let pem = ours.verifying_key().to_public_key_pem(LineEnding::LF).expect("PEM");
    let pem = folder.file("key.pub", pem.as_bytes());
    let good = folder.file("good", &sign(&plain, &ours, 7));
    let unsigned = folder.file("unsigned", &plain);
    let other = folder.file("other", &sign(&plain, &stranger, 7));
    let mut flipped = sign(&plain, &ours, 7);
    flipped[70] ^= 1;
    let flipped = folder.file("flipped", &flipped);
    for command in COMMANDS {
        let options = ["--release-state", text(&state), "--trusted-key", text(&pem)];
        succeed(command, &good, &options);
        assert_refused(&run(command, &unsigned, &options), 2, &["expected a signature, found none"]);
        let found = ["expected the signature of key", &hex(&ours), "found that of", &hex(&stranger)];
        assert_refused(&run(command, &other, &options), 2, &found);
        assert_refused(&run(command, &flipped, &options), 2, &["the signature does not verify"]);
        // The same key by its digits.
        succeed(command, &good, &["--release-state", text(&state), "--trusted-key", &hex(&ours)]);
    }
    // Nobody's key, and no key at all.
    for (bad, why) in [("00".repeat(32), "small order"), ("12".to_owned(), "cannot read the trusted key")] {
        let output = run("info", &good, &["--trusted-key", &bad]);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
    }
    assert_refused(&run("info", &good, &["--trusted-key", text(&good)]), 4, &["good"]);
    // Without a key, a signed container is one like any other, and says who signed it.
    let info = json("info", &good, &[]);
    assert_eq!((info["signed_by"].as_str(), info["release"].as_u64()), (Some(&*hex(&ours)), Some(7)));
    assert!(json("info", &unsigned, &[])["signed_by"].is_null());
}

#[test]
fn older_releases_are_refused_once_a_newer_one_was_used() {
    let folder = Folder::new();
    let state = folder.path().join("releases.json");
    let plain = container(&spec(), Layout::Rows);
    let ours = key(1);
    let digits = hex(&ours);
    let options = ["--release-state", text(&state), "--trusted-key", &digits];
    let release = |number| folder.file(&format!("release-{number}"), &sign(&plain, &ours, number));
    let (old, new) = (release(7), release(8));
    succeed("generate", &old, &options);
    // Looking at a newer one and checking it, before it goes live, leaves the way back open.
    succeed("check", &new, &options);
    succeed("info", &new, &options);
    succeed("generate", &old, &options);
    succeed("generate", &new, &options);
    for command in COMMANDS {
        let refused = ["expected release 8 or a later one, found 7", "downgrade"];
        assert_refused(&run(command, &old, &options), 2, &refused);
    }
    let kept = std::fs::read_to_string(&state).expect("written");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&kept).expect("JSON")[format!("{digits}/random")],
        8
    );
    // What was seen isn't forgotten because the file is damaged.
    std::fs::write(&state, "{").expect("writable");
    assert_refused(&run("generate", &new, &options), 2, &["releases.json", "expected the highest release"]);
}
