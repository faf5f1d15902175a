//! Seeds of the fuzz targets are accepted, all the way; inputs that once broke a target do not break it any more.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::forge::Parts;
use conformance::fuzz::{self, Outcome};
use conformance::tiny::Random;
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

/// One to four changes of some bytes: a bit, a byte, a number at its ends, a stretch removed, repeated, or taken from elsewhere.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let length = bytes.len() as u64;
        if length == 0 {
            return;
        }
        let at = random.below(length) as usize;
        let end = (at + 1 + random.below(16) as usize).min(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.bits() as u8,
            2 => bytes[at..end].fill([0, 0x7f, 0x80, 0xff][random.below(4) as usize]),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.extend_from_within(at..end),
            5 => {
                let from = random.below(length) as usize;
                bytes[at] = bytes[from];
            }
            _ => {
                let stretch = bytes[at..end].to_vec();
                let to = random.below(length) as usize;
                drop(bytes.splice(to..to, stretch));
            }
        }
    }
}

/// What the fuzz targets do at length, briefly and without their tools. The variable sets how many inputs each target gets.
#[test]
fn mutated_seeds_break_nothing() {
    let mutations =
        std::env::var("RESCOMP_TEST_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    let mut random = Random::new(20);
    for (target, function) in fuzz::TARGETS {
        let seeds = fuzz::seeds(target);
        let mut accepted = 0;
        for _ in 0..mutations {
            let mut bytes = seeds[random.below(seeds.len() as u64) as usize].1.clone();
            match target {
                "container" | "decode" => {
                    let mut parts = Parts::of(&bytes);
                    let section = random.below(parts.sections.len() as u64 + 1) as usize;
                    change(parts.sections.get_mut(section).unwrap_or(&mut parts.manifest), &mut random);
                    bytes = parts.assemble();
                }
                "journal_block" => {
                    let mut payload = bytes.split_off(fuzz::BLOCK_HEAD_BYTES);
                    change(&mut payload, &mut random);
                    bytes.extend(payload);
                    fuzz::repair_block(&mut bytes);
                }
                _ => change(&mut bytes, &mut random),
            }
            accepted += usize::from(function(&bytes) == Outcome::Accepted);
        }
        println!("{target}: {accepted} of {mutations} accepted");
        assert!(accepted > 0 && accepted < mutations, "{target}: {accepted} of {mutations} accepted");
    }
}
