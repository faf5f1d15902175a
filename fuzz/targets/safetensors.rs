//! Weight files of the small model.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| {
    conformance::fuzz::safetensors(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    rescomp_fuzz::mutate_safetensors(data, size, max_size, seed)
});
