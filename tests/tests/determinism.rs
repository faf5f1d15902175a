//! The default method, with everything chosen and refined, gives the same container, byte for byte, from run to run and with any number
//! of threads.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::host::{embedded_model, pack_options};
use rescomp_quantizer::pack::{Packed, pack};
use rescomp_runtime::Machine;
use rescomp_runtime::kernels;
use rescomp_runtime::threads::ThreadPool;

/// With so many threads in the forward and in the solvers.
fn packed(threads: usize) -> Packed {
    let checkpoint = embedded_model();
    let mut options = pack_options(&checkpoint, "rescomp-exact", 3);
    options.calibration.truncate(3);
    options.calibration_positions = 50;
    let executor = ThreadPool::new(threads).unwrap();
    let machine = Machine { kernels: kernels::best(), executor: &executor };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| pack(machine, &checkpoint, &options, &mut |_| ())).unwrap()
}

#[test]
fn the_container_does_not_depend_on_threads_or_on_the_run() {
    let first = packed(1);
    assert!(first.report.matrices.iter().all(|matrix| matrix.held_out.is_some()), "everything was chosen");
    assert!(first.report.matrices.iter().any(|matrix| matrix.refine_sweeps > 0), "something was refined");
    for threads in [1, 2, 3] {
        let other = packed(threads);
        assert!(other.file[..] == first.file[..], "{threads} threads");
        assert_eq!(other.report.matrices, first.report.matrices, "{threads} threads");
    }
}
