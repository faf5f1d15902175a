//! Containers: checked, then four tokens on the scalar kernels and the best ones, bit for bit.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| {
    conformance::fuzz::decode(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    rescomp_fuzz::mutate_container(data, size, max_size, seed)
});
