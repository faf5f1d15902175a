//! Recipes: what is accepted is the same when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    conformance::fuzz::recipe(data);
});
