//! Moving kinds of matrices, trials, and distributions of the embedded model.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::methods::{Method, SolverOptions};
use crate::sensitivity::{Measurement, measure};
use proptest::prelude::*;
use rescomp_formats::layouts::Layout;
use rescomp_formats::section::SectionName;
use rescomp_runtime::Machine;
use rescomp_runtime::executor::Executor;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::threads::ThreadPool;
use std::path::Path;

const POSITIONS: usize = 24;

fn format(bits: u8, group: &str) -> MatrixFormat {
    MatrixFormat::plain(bits, group.parse().unwrap())
}

fn embedded() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")).unwrap()
}

/// Windows of arbitrary tokens.
fn windows(count: u32) -> Vec<Vec<u32>> {
    (0..count).map(|w| (0..=POSITIONS as u32).map(|t| (w * 331 + t * t * 7 + t) % 1024).collect()).collect()
}

fn plan() -> BlockPlan {
    BlockPlan::new(Method::Gptq, SolverOptions::for_container(3, "64".parse().unwrap())).with_head_bits(3)
}

fn matrix(kind: SectionKind, layer: u16, formats: &[(MatrixFormat, u64, f64)]) -> Sensitivity {
    let of = |&(format, bytes, loss): &(MatrixFormat, u64, f64)| (format, Candidate { bytes, loss });
    let name = SectionName { kind, layer: Some(layer) };
    Sensitivity { name, weights: 64, mean_kl: 1.0, formats: formats.iter().map(of).collect() }
}

#[test]
fn a_kind_moves_to_the_next_width_and_others_stay() {
    let formats = [
        (format(2, "32"), 1, 4.0),
        (format(2, "row"), 1, 5.0),
        (format(3, "32"), 2, 1.0),
        (format(3, "row"), 2, 2.0),
        (format(8, "128"), 8, 0.1),
    ];
    let measured = [
        matrix(SectionKind::Query, 0, &formats),
        matrix(SectionKind::Query, 1, &formats),
        matrix(SectionKind::Key, 0, &formats),
    ];
    let moved = |chosen: &[usize], more| moved(&measured, chosen, SectionKind::Query, more);
    // Groups are kept where there are such.
    assert_eq!(moved(&[3, 2, 3], false), [1, 0, 3]);
    assert_eq!(moved(&[1, 0, 1], true), [3, 2, 1]);
    assert_eq!(moved(&[4, 1, 4], false), [2, 1, 4]);
    assert_eq!(moved(&[3, 4, 2], true), [4, 4, 2]);
    assert_eq!(moved(&[0, 1, 2], false), [0, 1, 2]);
    assert_eq!(kinds(&measured), [SectionKind::Query, SectionKind::Key]);
}

#[test]
fn trials_see_that_more_bits_lose_less() {
    let checkpoint = embedded();
    let machine = Machine { kernels: kernels::best(), executor: &Serial };
    assert!(Trials::new(machine, &checkpoint, &windows(1), POSITIONS).unwrap().is_none());
    let trials = Trials::new(machine, &checkpoint, &windows(3), POSITIONS).unwrap().unwrap();
    let kl = |bits| {
        let options = SolverOptions::for_container(bits, "64".parse().unwrap());
        trials.mean_kl(&BlockPlan::new(Method::Gptq, options).with_head_bits(bits)).unwrap()
    };
    let (two, four, eight) = (kl(2), kl(4), kl(8));
    assert!(two > 2.0 * four && four > 4.0 * eight && eight > 0.0, "{two} {four} {eight}");
    // An embedding in full precision loses nothing of its own.
    let unquantized = BlockPlan { vocabulary: None, ..plan() };
    assert!(trials.mean_kl(&unquantized).unwrap() < trials.mean_kl(&plan()).unwrap());
}

/// Estimates of the embedded model and what is made of them.
fn distributed(executor: &dyn Executor, budget_bytes: u64) -> (Vec<Sensitivity>, Distribution) {
    let checkpoint = embedded();
    let machine = Machine { kernels: kernels::best(), executor };
    let formats = [format(2, "row"), format(3, "64"), format(4, "64")];
    let windows = windows(3);
    let plan = plan();
    let measurement = Measurement {
        checkpoint: &checkpoint,
        windows: &windows[..2],
        positions: POSITIONS,
        plan: &plan,
        layout: Layout::Nr8k4,
        formats: &formats,
        vocabulary_formats: &formats,
    };
    let measured = measure(machine, &measurement, &mut |_| ()).unwrap();
    let trials = Trials::new(machine, &checkpoint, &windows, POSITIONS).unwrap().unwrap();
    let mut heard = 0;
    let found = distribute(&trials, &plan, &measured, budget_bytes, &mut |_| heard += 1).unwrap();
    assert!(heard <= steps(&measured));
    // What is said to have been measured is what such a plan gives.
    let again = trials.mean_kl(&planned(&plan, &measured, &found.chosen)).unwrap();
    assert_eq!(again, found.trial_kl.1);
    (measured, found)
}

#[test]
fn the_embedded_model_gets_what_fits_and_trials_find_no_worse_than_estimates() {
    const BUDGET_BYTES: u64 = 500_000;
    let pool = ThreadPool::new(2).unwrap();
    let on = |threads: usize, executor: &(dyn Executor + Sync)| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| distributed(executor, BUDGET_BYTES))
    };
    let ((measured, one), (_, two)) = (on(1, &Serial), on(2, &pool));
    assert_eq!((&one.chosen, one.trial_kl), (&two.chosen, two.trial_kl), "threads change nothing");
    let bytes: u64 = measured.iter().zip(&one.chosen).map(|(matrix, &at)| matrix.formats[at].1.bytes).sum();
    assert!(bytes <= BUDGET_BYTES && bytes > BUDGET_BYTES - 16_384, "{bytes}");
    assert!(one.trial_kl.1 <= one.trial_kl.0, "{:?}", one.trial_kl);
    assert_eq!(one.factors.len(), 8);
    assert!(one.factors.values().all(|factor| (FACTORS.0..=FACTORS.1).contains(factor)));
    let error = by_estimates(&measured, 1000).unwrap_err();
    assert!(error.smallest_bytes > error.budget_bytes);
}

proptest! {
    #[test]
    fn a_plan_has_the_formats_that_were_chosen(picks in prop::collection::vec(0..3_usize, 4)) {
        let formats = [(format(2, "row"), 1, 3.0), (format(3, "64"), 2, 2.0), (format(4, "32"), 3, 1.0)];
        let mut measured: Vec<Sensitivity> =
            (0..4).map(|layer| matrix(SectionKind::Up, layer, &formats)).collect();
        measured[0].name = SectionName { kind: SectionKind::Embedding, layer: None };
        let planned = planned(&plan(), &measured, &picks);
        let vocabulary = planned.vocabulary.clone().unwrap();
        prop_assert_eq!(vocabulary.embedding, [formats[picks[0]].0]);
        for layer in 1..4 {
            prop_assert_eq!(planned.format(layer, SectionKind::Up), formats[picks[layer]].0);
        }
        // What was not chosen is as before.
        prop_assert_eq!(planned.format(0, SectionKind::Up), format(3, "64"));
        prop_assert_eq!(vocabulary.head, format(3, "64"));
    }
}
