//! What the tests that cross crates share: a machine, sessions, tiny containers, an independent forward, and (feature `host`) the embedded model.

use bytemuck::Zeroable;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::manifest::{Check, CheckRecord, Manifest};
use rescomp_runtime::Machine;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::session::{Limits, Session, SessionPlan};

pub mod forge;
pub mod fuzz;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod hostile;
pub mod naive;
pub mod naive_bert;
pub mod naive_hadamard;
pub mod naive_vit;
pub mod tiny;

/// The best kernels on one thread.
pub fn serial_machine() -> Machine<'static> {
    Machine { kernels: kernels::best(), executor: &Serial }
}

/// As much memory as a session plans, not a block more.
///
/// # Panics
/// Where the limits are out of the model's bounds.
pub fn memory(container: &CheckedContainer<'_>, context: usize, tile: usize) -> Vec<MemoryBlock> {
    let plan = SessionPlan::new(container, Limits { context, tile }).expect("limits within the model's");
    vec![MemoryBlock::zeroed(); plan.blocks() as usize]
}

/// What the host measured of a decoder.
///
/// # Panics
/// Where the model is an encoder.
pub fn record(manifest: &Manifest) -> &CheckRecord {
    manifest.windows_record().expect("a decoder")
}

/// The same, to be changed.
///
/// # Panics
/// Where the model is no decoder.
pub fn record_mut(manifest: &mut Manifest) -> &mut CheckRecord {
    match &mut manifest.check {
        Check::Windows(record) => record,
        Check::Embeddings(_) | Check::Images(_) => panic!("no decoder"),
    }
}

/// A session in that memory.
///
/// # Panics
/// Where the memory is too small or the limits are out of the model's bounds.
pub fn session<'a>(
    container: &'a CheckedContainer<'a>,
    machine: Machine<'a>,
    context: usize,
    tile: usize,
    activations: ActivationFormat,
    memory: &'a mut [MemoryBlock],
) -> Session<'a> {
    Session::new(container, machine, Limits { context, tile }, activations, memory)
        .expect("the planned memory")
}
