//! Tokenizer sections with a text: encoded whole and in pieces, decoded, compared.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| {
    conformance::fuzz::tokenizer(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    rescomp_fuzz::mutate_tokenizer(data, size, max_size, seed)
});
