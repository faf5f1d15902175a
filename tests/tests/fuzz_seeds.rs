//! Seeds of the fuzz targets are accepted, all the way; inputs that once broke a target do not break it any more.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::fuzz::{self, Outcome};
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_seed_reaches_the_end_of_its_target() {
    for (target, function) in fuzz::TARGETS {
        let files = files(&folder("seeds").join(target));
        assert!(!files.is_empty(), "{target} has seeds");
        for file in files {
            let mut bytes = std::fs::read(&file).unwrap();
            if target == "journal_block" {
                // Whose block it is depends on the machine.
                fuzz::repair_block(&mut bytes);
            }
            assert_eq!(function(&bytes), Outcome::Accepted, "{}", file.display());
        }
    }
}

/// A seed is an input that the code of today accepts: where a format changes, the example `fuzz_seeds` writes them anew.
#[test]
fn seeds_are_those_that_are_generated() {
    for (target, _) in fuzz::TARGETS.iter().filter(|(target, _)| !target.starts_with("journal")) {
        for (name, bytes) in fuzz::seeds(target) {
            assert!(
                std::fs::read(folder("seeds").join(target).join(&name)).unwrap() == bytes,
                "{target}/{name}"
            );
        }
    }
}

#[test]
fn inputs_that_once_broke_a_target_do_not() {
    for (target, function) in fuzz::TARGETS {
        for file in files(&folder("regressions").join(target)) {
            let mut bytes = std::fs::read(&file).unwrap();
            if target == "journal_block" {
                fuzz::repair_block(&mut bytes);
            }
            println!("{}", file.display());
            function(&bytes);
        }
    }
}
