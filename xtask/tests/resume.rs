//! `pack --resume` after SIGKILL at random moments: the same container, byte for byte.
#![cfg(unix)]

mod case;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use case::{Case, ended, text};
use serde_json::{Value, json};

/// Layers that are kept of the embedded model's six: enough to stop between.
const LAYERS: usize = 4;
/// One test at a time, so that the moments of the kills are moments of the work.
static ALONE: Mutex<()> = Mutex::new(());
/// The default method, which chooses and refines, on few tokens.
const OPTIONS: [&str; 9] = [
    "--target=x86-64-linux",
    "--no-install",
    "--no-check",
    "--bits=3",
    "--context=40",
    "--calibration-windows=3",
    "--clip=plain",
    "--head-bits=4",
    "--json",
];
/// Files of the output that must be the same.
const FILES: [&str; 5] = ["model.rescomp", "expected.json", "README.md", "SHA256SUMS", "rescomp"];
const JOURNAL: &str = "out/model.rescomp.partial";

fn model() -> Case {
    let kept = |name: &str| {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        layer.is_none_or(|layer| layer.parse::<usize>().expect("a number") < LAYERS)
    };
    Case::new()
        .json("config.json", |config| config["num_hidden_layers"] = json!(LAYERS))
        .weights(|file| file.0.retain(|tensor| kept(&tensor.0)))
        .compiler()
}

fn pack(case: &Case, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    case.surround(&mut command);
    command.args(["pack", "--model"]).arg(case.path("model")).arg("--output").arg(case.path("out"));
    command.args(OPTIONS).args(more);
    command
}

fn started(case: &Case, more: &[&str]) -> Child {
    let mut command = pack(case, more);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Runs to the end; returns the report and standard error.
#[track_caller]
fn finished(case: &Case, more: &[&str]) -> (Value, String) {
    let output: Output = pack(case, more).output().expect("the program starts");
    let stderr = ended(&output, 0);
    (serde_json::from_str(&text(&output.stdout)).expect("JSON"), stderr)
}

/// The files that must be the same. The journal is gone.
#[track_caller]
fn files(case: &Case) -> Vec<Vec<u8>> {
    assert!(!case.path(JOURNAL).exists(), "the finished layers are removed");
    FILES.iter().map(|name| fs::read(case.path("out").join(name)).expect("written")).collect()
}

/// Waits until the run has come so far; whether it did before its end.
fn reaches(child: &mut Child, condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "it never came so far");
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    true
}

/// Waits until the run has finished this layer.
fn wait_for(path: &Path, child: &mut Child) {
    assert!(reaches(child, || path.exists()), "ended before {}", path.display());
}

/// Temporary files beside the output: one that is being written, and those that kills left.
fn temporary(case: &Case) -> Vec<String> {
    case.written().into_iter().filter(|name| name.starts_with('.')).collect()
}

/// Random moments, from a seed that is printed.
struct Moments(u64);

impl Moments {
    fn new() -> Moments {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let seed = now.as_nanos() as u64 | 1;
        println!("seed {seed}");
        Moments(seed)
    }

    fn within(&mut self, whole: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        whole.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// How often a test kills: a few times, or as often as the variable says.
fn turns(few: usize) -> usize {
    std::env::var("RESCOMP_TEST_TURNS").ok().and_then(|turns| turns.parse().ok()).unwrap_or(few)
}

/// SIGKILL: nothing of the program runs any more. Whether it ran until then.
fn kill(mut child: Child) -> bool {
    let ran = child.try_wait().expect("a child").is_none();
    child.kill().expect("killable");
    child.wait().expect("ended");
    ran
}

#[test]
fn killed_at_random_moments_and_resumed_the_container_is_the_same() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let case = model();
    let start = Instant::now();
    let (report, _) = finished(&case, &[]);
    let whole = start.elapsed();
    assert_eq!(report["restored_layers"], 0);
    let expected = files(&case);

    let mut moments = Moments::new();
    let seed = moments.0;
    let mut moment = || moments.within(whole);
    let (turns, mut running, mut restored) = (turns(3), 0, 0);
    for turn in 0..turns {
        fs::remove_dir_all(case.path("out")).expect("removable");
        // Killed twice: once from the start, once while it resumes.
        let moments = [moment(), moment()];
        for (moment, more) in moments.iter().zip([&[][..], &["--resume"]]) {
            let child = started(&case, more);
            std::thread::sleep(*moment);
            running += usize::from(kill(child));
        }
        let (report, _) = finished(&case, &["--resume"]);
        println!("turn {turn}: killed after {moments:?}, {} layers restored", report["restored_layers"]);
        restored += report["restored_layers"].as_u64().expect("a number");
        assert!(files(&case) == expected, "seed {seed}, turn {turn}, killed after {moments:?}");
    }
    println!("{} kills, {running} of them before the end, {restored} layers restored", 2 * turns);
}

#[test]
fn a_killed_run_is_resumed_replaced_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let case = model();
    let block = |layer: usize| case.path(JOURNAL).join(format!("block-{layer:04}.bin"));
    // An interrupt keeps the finished layers and says how to go on.
    let mut child = started(&case, &[]);
    wait_for(&block(1), &mut child);
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
    let output = child.wait_with_output().expect("the program ends");
    let stderr = ended(&output, 130);
    assert!(
        stderr.contains("error: interrupted\n  remedy: the same command with --resume goes on"),
        "{stderr}"
    );
    assert!(!case.path("out/model.rescomp").exists());

    // Other settings: refused by name, and nothing is lost.
    let refused = ended(&pack(&case, &["--resume", "--ridge=0.5"]).output().expect("starts"), 2);
    assert!(
        refused
            .contains("model.rescomp.partial was begun with other settings: ridge was Auto, is Fixed(0.5)")
    );
    assert!(refused.contains("remedy: give the options of that run, or leave out --resume"), "{refused}");
    assert!(block(1).exists());

    // What changes no layer may be another.
    let (resumed, stderr) = finished(&case, &["--resume", "--layout=rows", "--threads=1"]);
    assert!(
        stderr.contains("resuming: ") && stderr.contains("layer 2 of 4, from the earlier run"),
        "{stderr}"
    );
    let restored = resumed["restored_layers"].as_u64().expect("a number");
    assert!((2..=4).contains(&restored), "{restored}");
    let resumed_files = files(&case);

    // A damaged file: that layer and the later ones are solved again.
    let mut child = started(&case, &["--layout=rows"]);
    wait_for(&block(2), &mut child);
    kill(child);
    let mut bytes = fs::read(block(1)).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(block(1), bytes).expect("writable");
    let (report, stderr) = finished(&case, &["--resume", "--layout=rows"]);
    assert!(
        stderr.contains("block-0001.bin: the checksum is wrong; this block and the later ones"),
        "{stderr}"
    );
    assert_eq!(report["restored_layers"], 1);
    assert!(files(&case) == resumed_files);
    assert_eq!(report["pack"], resumed["pack"]);

    // Without --resume a killed run is replaced, and says so; with it and nothing there, it starts at the first layer. (A run that rounds
    // alone would be over before it can be killed.)
    let mut child = started(&case, &[]);
    wait_for(&block(0), &mut child);
    kill(child);
    let (report, stderr) = finished(&case, &[]);
    assert!(stderr.contains("--resume would go on after them, this run replaces them"), "{stderr}");
    assert_eq!(report["restored_layers"], 0);
    let (_, stderr) = finished(&case, &["--method=rtn", "--resume"]);
    assert!(stderr.contains("note: no finished layer in "), "{stderr}");
}

/// Files are replaced one by one: after a kill each is the old one or the new one, and the sums, which come last, tell a mixture.
#[test]
fn killed_over_an_older_output_each_file_is_the_old_one_or_the_new_one() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let case = model();
    let names = ["model.rescomp", "rescomp", "expected.json", "recipe.toml", "README.md", "SHA256SUMS"];
    let read = || names.map(|name| fs::read(case.path("out").join(name)).expect("there"));
    finished(&case, &["--method=rtn"]);
    let old = read();
    let options = ["--method=rtn", "--layout=rows"];
    let start = Instant::now();
    let mut child = started(&case, &options);
    assert!(reaches(&mut child, || !temporary(&case).is_empty()), "nothing was written");
    let written_from = start.elapsed();
    ended(&child.wait_with_output().expect("the program ends"), 0);
    let (new, whole) = (read(), start.elapsed());
    assert!(old[0] != new[0] && old[5] != new[5]);
    let (mut moments, turns) = (Moments::new(), turns(6));
    let (mut kinds, mut running) = ([0; 3], 0);
    for turn in 0..turns {
        for (name, bytes) in names.iter().zip(&old) {
            fs::write(case.path("out").join(name), bytes).expect("writable");
        }
        // What earlier kills left stays where it is: no later run may stumble over it.
        let left = temporary(&case);
        let mut child = started(&case, &options);
        if turn % 2 == 0 {
            std::thread::sleep(moments.within(whole));
        } else {
            // Most of the time nothing is written: half of the kills wait until something is.
            reaches(&mut child, || temporary(&case).iter().any(|name| !left.contains(name)));
            std::thread::sleep(moments.within(whole - written_from));
        }
        running += usize::from(kill(child));
        let found = read();
        for ((name, found), (old, new)) in names.iter().zip(&found).zip(old.iter().zip(&new)) {
            assert!(
                found == old || found == new,
                "turn {turn}: {name} is neither the old one nor the new one"
            );
        }
        let report = fs::read(case.path("out/report.json")).expect("there");
        assert!(serde_json::from_slice::<Value>(&report).is_ok(), "turn {turn}: report.json is cut");
        kinds[if found == old {
            0
        } else if found == new {
            1
        } else {
            2
        }] += 1;
    }
    let left = temporary(&case);
    println!(
        "{turns} kills, {running} of them before the end: {} left the old files, {} the new ones, {} some of both; \
         {} while a file was written",
        kinds[0],
        kinds[1],
        kinds[2],
        left.len()
    );
    finished(&case, &options);
    assert!(read() == new && !case.path(JOURNAL).exists());
    assert_eq!(temporary(&case), left, "a run leaves nothing behind and takes nothing away");
}
