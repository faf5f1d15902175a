//! Stopped at every block and resumed, the result is the same; what is damaged or of another run is never taken.

use super::*;
use crate::calibrate::{CalibrationError, Progress, Run, quantize_blocks};
use crate::checkpoint::Checkpoint;
use crate::choose::Setting;
use crate::grids::Spacing;
use crate::inputs::Inputs;
use crate::methods::{ClipSearch, GroupSize, Method, SolverOptions};
use crate::plan::{BlockPlan, MatrixFormat};
use rescomp_formats::section::SectionKind;
use rescomp_runtime::Machine;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use std::fs;

const LAYERS: usize = 6;
const POSITIONS: usize = 40;

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")).unwrap()
}

fn windows() -> Vec<Vec<u32>> {
    (0..2).map(|w| (0..POSITIONS as u32 + 1).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect()).collect()
}

fn plan(method: Method) -> BlockPlan {
    BlockPlan::new(method, SolverOptions::for_container(3, GroupSize::elements(64).unwrap()))
}

fn identity(plan: &BlockPlan) -> Identity {
    Identity::new(&checkpoint(), inputs(&windows(), POSITIONS), plan, "this build")
}

fn inputs(windows: &[Vec<u32>], positions: usize) -> Inputs<'_> {
    Inputs::Windows { windows, positions }
}

/// What a run tells: the blocks' matrices, how many blocks were restored, the notes.
struct Outcome {
    matrices: Vec<QuantizedMatrix>,
    restored: usize,
    notes: Vec<String>,
}

/// Quantizes with a journal; "killed" once so many blocks are finished.
fn run(plan: &BlockPlan, folder: &Path, resume: bool, blocks: usize) -> Outcome {
    let (mut journal, _) = Journal::open(folder, identity(plan), resume).unwrap();
    let mut outcome = Outcome { matrices: Vec::new(), restored: 0, notes: Vec::new() };
    let mut progress = |progress: Progress<'_>| match progress {
        Progress::Block { restored: true, .. } => outcome.restored += 1,
        Progress::Note(note) => outcome.notes.push(note.to_owned()),
        _ => {}
    };
    let mut run = Run { journal: Some(&mut journal), progress: &mut progress };
    let machine = Machine { kernels: kernels::best(), executor: &Serial };
    let mut finished = 0;
    let killed = quantize_blocks(
        machine,
        &checkpoint(),
        inputs(&windows(), POSITIONS),
        plan,
        &mut run,
        |_, _, done| {
            outcome.matrices.extend(done);
            finished += 1;
            match finished < blocks {
                true => Ok(()),
                false => Err(CalibrationError::Unmatched { layer: finished, set: "killed" }),
            }
        },
    );
    assert_eq!(killed.is_err(), blocks <= LAYERS);
    outcome
}

/// All blocks without a stop.
fn whole(plan: &BlockPlan, folder: &Path) -> Vec<QuantizedMatrix> {
    let outcome = run(plan, folder, false, LAYERS + 1);
    assert_eq!((outcome.matrices.len(), outcome.restored), (7 * LAYERS, 0));
    outcome.matrices
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn stopped_after_any_block_and_resumed_the_result_is_the_same() {
    let plan = plan(Method::Rescomp);
    let folder = tempfile::tempdir().unwrap();
    let expected = whole(&plan, &folder.path().join("whole"));
    for blocks in 1..=LAYERS {
        let journal = folder.path().join(blocks.to_string());
        run(&plan, &journal, false, blocks);
        assert_eq!(names(&journal).len(), 1 + blocks);
        // What a kill in the middle of writing leaves.
        fs::write(journal.join(".tmpAb3"), "half a block").unwrap();
        let outcome = run(&plan, &journal, true, LAYERS + 1);
        assert!(outcome.matrices == expected, "after {blocks} blocks");
        assert_eq!((outcome.restored, outcome.notes.len()), (blocks, 0));
        assert_eq!(names(&journal), names(&folder.path().join("whole")));
    }
    // Resumed after the first block, and stopped and resumed again.
    let journal = folder.path().join("again");
    run(&plan, &journal, true, 1);
    assert_eq!(run(&plan, &journal, true, 3).restored, 1);
    let outcome = run(&plan, &journal, true, LAYERS + 1);
    assert!(outcome.restored == 3 && outcome.matrices == expected);
}

#[test]
fn the_default_method_resumes_to_the_same_result() {
    let plan = plan(Method::RescompExact);
    let folder = tempfile::tempdir().unwrap();
    let expected = whole(&plan, &folder.path().join("whole"));
    assert!(expected.iter().all(|matrix| matrix.report.held_out.is_some()), "something was chosen");
    run(&plan, &folder.path().join("stopped"), false, 4);
    let outcome = run(&plan, &folder.path().join("stopped"), true, LAYERS + 1);
    assert!(outcome.restored == 4 && outcome.matrices == expected);
}

#[test]
fn damaged_and_missing_blocks_are_solved_again_and_those_after_them() {
    let plan = plan(Method::Gptq);
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let expected = whole(&plan, &journal);
    let files = names(&journal);
    let path = |layer: usize| journal.join(block_name(layer));
    let damages: [(&str, &dyn Fn()); 4] = [
        ("checksum", &|| {
            let mut bytes = fs::read(path(4)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(path(4), bytes).unwrap();
        }),
        ("expected matrices of", &|| {
            let bytes = fs::read(path(4)).unwrap();
            fs::write(path(4), &bytes[..bytes.len() - 1000]).unwrap();
        }),
        ("expected at least", &|| fs::write(path(4), []).unwrap()),
        ("expected block 4, found block 3", &|| {
            fs::copy(path(3), path(4)).unwrap();
        }),
    ];
    for (reason, damage) in damages {
        damage();
        let outcome = run(&plan, &journal, true, LAYERS + 1);
        assert_eq!(outcome.restored, 4, "{reason}");
        let [note] = &outcome.notes[..] else { panic!("{:?}", outcome.notes) };
        assert!(note.contains("block-0004.bin") && note.contains(reason), "{note}");
        assert!(note.ends_with("this block and the later ones are solved again"), "{note}");
        assert!(outcome.matrices == expected, "{reason}");
        assert_eq!(names(&journal), files);
    }
    fs::remove_file(path(2)).unwrap();
    let outcome = run(&plan, &journal, true, 3);
    assert_eq!((outcome.restored, names(&journal).len()), (2, 4), "later blocks are removed before the work");
}

#[test]
fn blocks_of_another_run_are_never_taken() {
    let (plan, other) = (plan(Method::Rtn), plan(Method::Gptq));
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    run(&plan, &journal, false, 2);
    let error = Journal::open(&journal, identity(&other), true).unwrap_err();
    let JournalError::Settings { differences, .. } = &error else { panic!("{error}") };
    assert_eq!(differences, &["method was rtn, is gptq"]);
    assert!(error.to_string().ends_with("was begun with other settings: method was rtn, is gptq"), "{error}");

    // The same without resuming replaces them, but not before it begins.
    let (mut replaced, found) = Journal::open(&journal, identity(&other), false).unwrap();
    assert_eq!((found, names(&journal).len()), (Found::OtherRun, 3));
    replaced.begin().unwrap();
    assert!(!journal.exists());

    // A block's file that is brought from another run.
    let foreign = folder.path().join("foreign");
    run(&other, &foreign, false, 2);
    run(&plan, &journal, false, 2);
    fs::copy(foreign.join(block_name(1)), journal.join(block_name(1))).unwrap();
    let outcome = run(&plan, &journal, true, LAYERS + 1);
    assert_eq!(outcome.restored, 1);
    assert!(outcome.notes[0].contains("it is of another run"), "{:?}", outcome.notes);
}

#[test]
fn without_resume_everything_is_done_again() {
    let plan = plan(Method::Rtn);
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("deep/journal");
    assert_eq!(Journal::open(&journal, identity(&plan), true).unwrap().1, Found::Nothing);
    run(&plan, &journal, false, 3);
    assert_eq!(Journal::open(&journal, identity(&plan), false).unwrap().1, Found::Blocks(3));
    assert_eq!(run(&plan, &journal, false, 1).restored, 0);
    assert_eq!(names(&journal), [&block_name(0), HEAD_FILE]);
    // A head that is no head: whose blocks these are is unknown.
    fs::write(journal.join(HEAD_FILE), "{").unwrap();
    assert_eq!(Journal::open(&journal, identity(&plan), true).unwrap().1, Found::DamagedHead);
    assert_eq!(run(&plan, &journal, true, 1).restored, 0);
    let (open, _) = Journal::open(&journal, identity(&plan), true).unwrap();
    assert!(open.has_blocks());
    open.remove().unwrap();
    assert!(!journal.exists() && !open.has_blocks());
    open.remove().unwrap();
}

#[test]
fn a_run_whose_folder_was_taken_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let open = |method| Journal::open(&journal, identity(&plan(method)), false).unwrap().0;
    let (mut first, mut second) = (open(Method::Rtn), open(Method::Gptq));
    first.keep(0, &[]).unwrap();
    second.keep(0, &[]).unwrap();
    first.keep(1, &[]).unwrap();
    assert_eq!(names(&journal), [&block_name(1), HEAD_FILE], "the first one's");
    second.remove().unwrap();
    first.keep(2, &[]).unwrap();
    assert_eq!(names(&journal), [&block_name(2), HEAD_FILE]);
    // Without the first block, there is nothing to resume.
    assert_eq!(Journal::open(&journal, identity(&plan(Method::Rtn)), true).unwrap().1, Found::Blocks(0));
}

#[test]
fn files_that_cannot_be_used_are_errors_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Journal::open(&file, identity(&plan(Method::Rtn)), true).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("file/head.json"), "{error}");
    let below = folder.path().join("journal");
    let (mut journal, _) = Journal::open(&below, identity(&plan(Method::Rtn)), false).unwrap();
    fs::write(&below, "").unwrap();
    let error = journal.keep(0, &[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot write ") && error.contains("journal"), "{error}");
}

/// The matrices of block 1, rounded to 3 bits, and the weights that they stand for.
fn block() -> (Vec<QuantizedMatrix>, LayerWeights) {
    let folder = tempfile::tempdir().unwrap();
    let matrices = run(&plan(Method::Rtn), folder.path(), false, 2).matrices;
    (matrices[7..].to_vec(), checkpoint().layer(1).unwrap())
}

#[test]
fn torn_and_changed_files_are_refused_whatever_is_changed() {
    let (matrices, weights) = block();
    let identity = [7; 32];
    let bytes = block::encode(1, &identity, &matrices).unwrap();
    let decoded = |bytes: &[u8]| block::decode(bytes, 1, &identity, &weights);
    assert!(decoded(&bytes).unwrap() == matrices);
    let steps = bytes.len() / 400;
    for length in (0..300).chain((0..bytes.len()).step_by(steps)) {
        assert!(decoded(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    assert!(decoded(&[&bytes[..], &[0]].concat()).is_err());
    for at in (0..100).chain((0..bytes.len()).step_by(steps)).chain(bytes.len() - 40..bytes.len()) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(decoded(&changed).is_err(), "byte {at}");
    }
    assert!(block::decode(&bytes, 2, &identity, &weights).unwrap_err().contains("expected block 2"));
    assert!(block::decode(&bytes, 1, &[8; 32], &weights).unwrap_err().contains("another run"));
}

#[test]
fn matrices_that_are_not_the_blocks_are_refused_though_the_checksum_is_right() {
    let (matrices, weights) = block();
    let refused = |change: &dyn Fn(&mut Vec<QuantizedMatrix>), part: &str| {
        let mut matrices = matrices.clone();
        change(&mut matrices);
        let bytes = block::encode(1, &[7; 32], &matrices).unwrap();
        let why = block::decode(&bytes, 1, &[7; 32], &weights).unwrap_err();
        assert!(why.contains(part), "expected `{part}`, found `{why}`");
    };
    refused(&|all| drop(all.pop()), "expected 7 matrices, found 6");
    refused(&|all| all.swap(0, 1), "expected query of block 1, found key of block 1");
    refused(&|all| all[2].kind = SectionKind::Down, "expected value of block 1, found down");
    refused(&|all| all[4].report.layer = 2, "found gate of block 2");
    refused(&|all| all[1].solution.rows += 1, "key: expected (64, 128) rows and columns, found (65, 128)");
    refused(&|all| all[6].solution.group_elems = 0, "down: expected groups of 64 columns, found 0");
    refused(&|all| all[6].format.group = GroupSize::Row, "down: expected groups of 384 columns, found 64");
    refused(&|all| all[0].solution.codes.truncate(9), "query: expected (16384, 256) levels and scales");
    refused(&|all| all[0].solution.codes[9] = 4, "query: 4 is not a level of its grid");
    refused(&|all| all[3].solution.scales[9] = f64::NAN, "output: a scale is NaN");
    refused(&|all| all[3].solution.scales[9] = f64::INFINITY, "output: a scale is inf");
    refused(&|all| all[3].solution.scales[9] = 0.0, "output: a scale is 0");
    refused(
        &|all| all[5].solution.coding.as_mut().expect("coded").row_scales[3] = f64::NEG_INFINITY,
        "up: a scale is -inf",
    );
    refused(
        &|all| all[5].solution.coding.as_mut().expect("coded").row_scales.truncate(383),
        "up: expected 384 scales of rows, found 383",
    );
}

#[test]
fn every_setting_that_changes_blocks_is_named() {
    let (checkpoint, windows) = (checkpoint(), windows());
    let base = plan(Method::RescompExact);
    let of = |plan: &BlockPlan| Identity::new(&checkpoint, inputs(&windows, POSITIONS), plan, "this build");
    let named = |other: Identity, names: &[&str]| {
        let differences = of(&base).differences(&other);
        let found: Vec<&str> =
            differences.iter().map(|line| line.split(" was ").next().unwrap_or_default()).collect();
        assert_eq!(found, names, "{differences:?}");
        assert_ne!(of(&base).digest(), other.digest());
    };
    let changed = |change: &dyn Fn(&mut BlockPlan), names: &[&str]| {
        let mut plan = base.clone();
        change(&mut plan);
        named(of(&plan), names);
    };
    changed(&|plan| plan.options.bits = 4, &["bits"]);
    changed(&|plan| plan.options.group = GroupSize::Row, &["group size"]);
    changed(&|plan| plan.options.spacing = Spacing::Uniform, &["levels"]);
    changed(&|plan| plan.options.damping = f64::from_bits(plan.options.damping.to_bits() + 1), &["damping"]);
    changed(&|plan| plan.clip = Some(ClipSearch::Off), &["clip search"]);
    let down = MatrixFormat::plain(4, GroupSize::Row);
    changed(&|plan| plan.formats.extend([((3, "down"), down)]), &["formats of matrices"]);
    changed(
        &|plan| {
            plan.tuning.refine = Setting::Fixed(8);
            plan.tuning.ridge = Setting::Fixed(0.1);
        },
        &["refine", "ridge"],
    );
    let shorter = Identity::new(&checkpoint, inputs(&windows, POSITIONS - 1), &base, "this build");
    named(shorter, &["calibration positions", "calibration tokens"]);
    let mut other = windows.clone();
    other[1][0] += 1;
    named(
        Identity::new(&checkpoint, inputs(&other, POSITIONS), &base, "this build"),
        &["calibration tokens"],
    );
    named(Identity::new(&checkpoint, inputs(&windows, POSITIONS), &base, "another build"), &["program"]);
    // The last token of a window is predicted, not read.
    other = windows.clone();
    other[1][POSITIONS] += 1;
    assert_eq!(Identity::new(&checkpoint, inputs(&other, POSITIONS), &base, "this build"), of(&base));
}

#[test]
fn a_head_is_read_back_and_a_damaged_one_is_none() {
    let identity = identity(&plan(Method::RescompExact));
    let json = identity.to_json();
    assert_eq!(Identity::from_json(json.as_bytes()), Some(identity.clone()));
    assert!(identity.differences(&identity).is_empty());
    for damaged in ["", "{}", "[]", &json[..json.len() / 2], &json.replace("\"3\"", "\"4\"")] {
        assert_eq!(Identity::from_json(damaged.as_bytes()), None, "{damaged}");
    }
}

#[test]
fn this_machine_is_described_the_same_each_time() {
    let settings = machine::settings();
    assert_eq!(settings, machine::settings());
    assert!(settings.iter().any(|(name, value)| *name == "bits of matrix products" && value.len() == 64));
}
