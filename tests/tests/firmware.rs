//! What images do, on the host: the check passes where the record is the container's and fails where it isn't, in exactly the planned memory;
//! stories are those of a plain loop.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::host::{embedded_model, packed};
use conformance::tiny::{self, Widths};
use rescomp_firmware::{Ending, Failure, Generated, TILE, check, generate, open};
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::argmax;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use rescomp_runtime::session::{Limits, SessionPlan};
use rescomp_runtime::tokenizer::Tokenizer;
use std::sync::LazyLock;

const PROMPT: &str = "Once upon a time";

static EMBEDDED: LazyLock<AlignedBytes> =
    LazyLock::new(|| AlignedBytes::new(&packed(&embedded_model(), "rtn", 4).file));

fn blocks(container: &CheckedContainer<'_>, context: usize) -> usize {
    SessionPlan::new(container, Limits { context, tile: TILE }).unwrap().blocks() as usize
}

fn memory(blocks: usize) -> Vec<MemoryBlock> {
    // Memory of a device holds anything.
    vec![MemoryBlock([0xa5; 64]); blocks]
}

#[test]
fn the_check_passes_in_the_planned_memory_and_not_in_a_block_less() {
    let container = open(&EMBEDDED).unwrap();
    let needed = blocks(&container, container.check_windows().unwrap().sizes().positions);
    for kernels in kernels::available() {
        let mut heard = Vec::new();
        let report =
            check(&container, kernels, &mut memory(needed), |done, of| heard.push((done, of))).unwrap();
        assert!(report.passed(), "{report}");
        assert_eq!(report.kernels, kernels.name);
        let last = heard.len();
        assert_eq!(heard.last(), Some(&(last, last)));
    }
    let less = check(&container, kernels::best(), &mut memory(needed - 1), |_, _| ());
    assert!(matches!(less, Err(Failure::Runtime(RuntimeError::Memory { .. }))), "{less:?}");
}

#[test]
fn a_record_of_other_logits_fails_the_check() {
    let file = tiny::container(&tiny::odd_spec(), Widths::Mixed, Layout::Nr8k4);
    let container = open(&file).unwrap();
    let mut memory = memory(blocks(&container, container.check_windows().unwrap().sizes().positions));
    let report = check(&container, kernels::best(), &mut memory, |_, _| ()).unwrap();
    assert_eq!(report.device.logits_sha256, report.prefill_logits_sha256);
    assert!(!report.passed());
    assert!(report.to_string().ends_with("passed=false"));
}

#[test]
fn an_image_without_a_container_or_with_a_damaged_one_says_so() {
    assert_eq!(open(&[]).unwrap_err(), Failure::NoContainer);
    let mut bytes = EMBEDDED.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = AlignedBytes::new(&bytes);
    assert!(matches!(open(&damaged), Err(Failure::Container(_))));
}

#[test]
fn a_story_is_that_of_a_plain_loop() {
    let container = open(&EMBEDDED).unwrap();
    let machine = conformance::serial_machine();
    let mut room = conformance::memory(&container, 64, 1);
    let mut session = conformance::session(&container, machine, 64, 1, ActivationFormat::Int8, &mut room);
    let tokenizer = Tokenizer::new(container.tokenizer().unwrap());
    let mut tokens = [0; 64];
    let begin = container.manifest().spec.begin_token.into_iter().inspect(|&token| tokens[0] = token).count();
    let count = begin + tokenizer.encode(PROMPT, false, &mut tokens[begin..]).unwrap();
    let mut next = argmax(session.run(&tokens[..count]).unwrap());
    let mut expected = Vec::new();
    while expected.len() < 20 && !container.manifest().spec.end_tokens.contains(&next) {
        expected.push(next);
        next = argmax(session.run(&[next]).unwrap());
    }
    let mut expected_text = String::new();
    tokenizer
        .decode(&[&tokens[..count], expected.as_slice()].concat(), true, |text| expected_text.push_str(text));

    let mut story = PROMPT.to_owned();
    let mut room = memory(blocks(&container, 64));
    let told =
        generate(&container, kernels::best(), &mut room, PROMPT, 20, |text| story.push_str(text)).unwrap();
    assert_eq!(story, expected_text);
    assert_eq!(told, Generated { prompt_tokens: count, tokens: 20, ending: Ending::MaxTokens });
}

#[test]
fn a_story_ends_where_the_memory_does() {
    let container = open(&EMBEDDED).unwrap();
    let mut room = memory(blocks(&container, 9));
    let told = generate(&container, kernels::best(), &mut room, PROMPT, 100, |_| ()).unwrap();
    assert_eq!(told.ending, Ending::ContextFull);
    // The last token needs no position of its own.
    assert_eq!(told.prompt_tokens + told.tokens, 10);
    let long = "a story of many words ".repeat(20);
    let refused = generate(&container, kernels::best(), &mut room, &long, 1, |_| ());
    assert!(matches!(refused, Err(Failure::LongPrompt { context: 9, .. })), "{refused:?}");
    // The begin token alone.
    let told = generate(&container, kernels::best(), &mut room, "", 1, |_| ()).unwrap();
    assert_eq!(told, Generated { prompt_tokens: 1, tokens: 1, ending: Ending::MaxTokens });
    let without = ModelSpec { begin_token: None, ..tiny::odd_spec() };
    let without = tiny::container(&without, Widths::Mixed, Layout::Nr8k4);
    let without = open(&without).unwrap();
    assert_eq!(generate(&without, kernels::best(), &mut room, "", 1, |_| ()), Err(Failure::EmptyPrompt));
}

#[test]
fn the_largest_context_is_the_largest_that_fits() {
    let container = open(&EMBEDDED).unwrap();
    let most = container.manifest().spec.context as usize;
    for context in [1, 2, 3, 100, most - 1, most] {
        let needed = blocks(&container, context) as u64;
        assert_eq!(SessionPlan::largest_context(&container, TILE, most, needed), Ok(context));
        if context > 1 {
            assert_eq!(SessionPlan::largest_context(&container, TILE, most, needed - 1), Ok(context - 1));
        }
    }
    let all = blocks(&container, most) as u64;
    assert_eq!(SessionPlan::largest_context(&container, TILE, 7, all), Ok(7));
    assert_eq!(SessionPlan::largest_context(&container, TILE, usize::MAX - 1, u64::MAX), Ok(most));
    let none = SessionPlan::largest_context(&container, TILE, most, 10);
    assert!(matches!(none, Err(RuntimeError::Memory { given_bytes: 640, .. })), "{none:?}");
}
