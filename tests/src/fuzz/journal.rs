//! The journal of a run: finished blocks, and the head that says whose they are.

use super::Outcome;
use super::checkpoint::{in_folder, write_small_checkpoint};
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::calibrate::{CalibrationError, Run, quantize_blocks};
use rescomp_quantizer::checkpoint::{Checkpoint, LayerWeights};
use rescomp_quantizer::encode::encode;
use rescomp_quantizer::inputs::Inputs;
use rescomp_quantizer::journal::{Found, Identity, Journal, Restored};
use rescomp_quantizer::methods::{GroupSize, Method, SolverOptions};
use rescomp_quantizer::plan::BlockPlan;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Bytes of a block's file before the matrices.
pub const HEAD_BYTES: usize = 56;
const DIGEST_BYTES: usize = 32;
const BLOCK: &str = "block-0000.bin";
const HEAD: &str = "head.json";

thread_local! {
    /// This run's identity and head, and the weights that its block stands for.
    static WHOSE: (Identity, Vec<u8>, LayerWeights) = in_folder(|folder| {
        let checkpoint = small(folder);
        (identity(&checkpoint), small_head(), checkpoint.layer(0).expect("a sound checkpoint"))
    });
}

fn small(folder: &Path) -> Checkpoint {
    write_small_checkpoint(folder);
    Checkpoint::open(folder).expect("a sound checkpoint")
}

fn windows() -> Vec<Vec<u32>> {
    vec![(0..9).map(|token| token * 17).collect(); 2]
}

fn plan() -> BlockPlan {
    let method: Method = "gptq".parse().expect("a method");
    BlockPlan::new(method, SolverOptions::for_container(3, GroupSize::elements(32).expect("not zero")))
}

fn identity(checkpoint: &Checkpoint) -> Identity {
    Identity::new(checkpoint, Inputs::Windows { windows: &windows(), positions: 8 }, &plan(), "fuzzing")
}

/// The small model's only block as a journal has it, and the head beside it.
fn small_run() -> (Vec<u8>, Vec<u8>) {
    in_folder(|folder| {
        let checkpoint = small(folder);
        let journal_folder = folder.join("seed");
        let (mut journal, _) =
            Journal::open(&journal_folder, identity(&checkpoint), false).expect("a folder");
        let mut run = Run { journal: Some(&mut journal), progress: &mut |_| () };
        let done = |_, _: &LayerWeights, _| -> Result<(), CalibrationError> { Ok(()) };
        let windows = windows();
        let inputs = Inputs::Windows { windows: &windows, positions: 8 };
        quantize_blocks(crate::serial_machine(), &checkpoint, inputs, &plan(), &mut run, done)
            .expect("quantizes");
        let read = |name: &str| std::fs::read(journal_folder.join(name)).expect("kept");
        (read(BLOCK), read(HEAD))
    })
}

/// The file of a finished block.
pub fn small_block() -> Vec<u8> {
    small_run().0
}

/// The head of a journal.
pub(super) fn small_head() -> Vec<u8> {
    small_run().1
}

/// Puts this run's identity, the length and the digest into a block's file.
pub fn repair_block(bytes: &mut [u8]) {
    let identity = WHOSE.with(|(identity, ..)| identity.digest());
    let Some(payload) = bytes.len().checked_sub(HEAD_BYTES + DIGEST_BYTES) else { return };
    bytes[16..48].copy_from_slice(&identity);
    bytes[48..56].copy_from_slice(&(payload as u64).to_le_bytes());
    let (content, digest) = bytes.split_at_mut(HEAD_BYTES + payload);
    digest.copy_from_slice(&Sha256::digest(content));
}

/// Restores a block of the small model from this file.
///
/// # Panics
/// Where the folder is not writable, or what is restored does not fit the weights.
pub fn block(bytes: &[u8]) -> Outcome {
    in_folder(|folder| {
        WHOSE.with(|(identity, head, weights)| {
            let folder = folder.join("journal");
            std::fs::create_dir_all(&folder).expect("writable");
            if !folder.join(HEAD).exists() {
                std::fs::write(folder.join(HEAD), head).expect("writable");
            }
            std::fs::write(folder.join(BLOCK), bytes).expect("writable");
            let (mut journal, found) = Journal::open(&folder, identity.clone(), true).expect("this run's");
            assert_eq!(found, Found::Blocks(1));
            match journal.restore(0, weights).expect("a folder") {
                Restored::Matrices(matrices) => {
                    assert_eq!(matrices.len(), 7);
                    // What the run does next with them.
                    for matrix in matrices {
                        let dense = matrix.solution.values();
                        assert!(dense.iter().all(|value| value.is_finite()));
                        let _ = encode(&matrix.solution, matrix.format, Layout::Nr8k4);
                    }
                    Outcome::Accepted
                }
                Restored::Damaged(_) => Outcome::Refused,
                Restored::Nothing => panic!("the block is not looked for"),
            }
        })
    })
}

/// Opens a journal with this head.
///
/// # Panics
/// Where the folder is not writable.
pub fn head(bytes: &[u8]) -> Outcome {
    in_folder(|folder| {
        WHOSE.with(|(identity, ..)| {
            let folder = folder.join("journal-head");
            std::fs::create_dir_all(&folder).expect("writable");
            std::fs::write(folder.join(HEAD), bytes).expect("writable");
            match Journal::open(&folder, identity.clone(), false) {
                Ok((_, Found::Blocks(_) | Found::OtherRun)) => {
                    // Asked to go on with another run, it says what differs.
                    if let Err(error) = Journal::open(&folder, identity.clone(), true) {
                        assert!(!error.to_string().is_empty());
                    }
                    Outcome::Accepted
                }
                Ok(_) | Err(_) => Outcome::Refused,
            }
        })
    })
}
