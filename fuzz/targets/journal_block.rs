//! Finished blocks of a journal.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| {
    conformance::fuzz::block(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    rescomp_fuzz::mutate_block(data, size, max_size, seed)
});
