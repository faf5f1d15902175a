//! SIGKILL while a file is being replaced, at random moments: the old file or a new one is there, whole.
//!
//! The writer is this test program itself, started with a variable that names the file.
#![cfg(all(unix, feature = "host"))]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use rescomp_quantizer::files::{FILE, replace};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const VARIABLE: &str = "RESCOMP_TEST_WRITES_TO";
const KILLS: usize = 200;
/// Enough to be killed while it is written.
const MOST_BYTES: usize = 400_000;

/// Contents that show where they are cut or mixed: all words are the same number, as many as the number says.
fn contents(number: u32) -> Vec<u8> {
    let words = 1 + number as usize * 7919 % (MOST_BYTES / 4);
    number.to_le_bytes().repeat(words)
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|first| contents(u32::from_le_bytes(*first)) == bytes)
}

/// Not a test by itself: writes until it is killed.
#[test]
fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    for number in 1.. {
        replace(Path::new(&path), &contents(number), FILE, |_| ()).unwrap();
    }
}

#[test]
fn a_killed_writer_leaves_the_old_file_or_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, contents(0)).unwrap();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut state = seed | 1;
    let (mut changed, mut cut) = (0, 0);
    for kill in 0..KILLS {
        let before = std::fs::read(&path).unwrap();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed"])
            .env(VARIABLE, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::thread::sleep(Duration::from_micros(3_000 + state % 30_000));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let after = std::fs::read(&path).unwrap();
        assert!(is_whole(&after), "seed {seed}, kill {kill}");
        changed += usize::from(before != after);
        // What was being written is beside the file, under another name, and hinders nobody.
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap().path();
            if entry != path {
                cut += 1;
                std::fs::remove_file(entry).unwrap();
            }
        }
    }
    println!("{KILLS} kills: {changed} with new files, {cut} while one was written");
    assert!(changed > 0 && cut > 0, "killed before or between writes alone: {changed}, {cut}");
}
