//! `tokenizer.json`: what is accepted makes a section that reads and encodes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    conformance::fuzz::tokenizer_json(data);
});
