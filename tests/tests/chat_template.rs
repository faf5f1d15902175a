//! A checkpoint with a chat template becomes a container with one; sessions go back as conversations do.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::host::{embedded_folder, packed};
use conformance::tiny::{self, Widths};
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_runtime::chat::{Conversation, Turn, fill};
use rescomp_runtime::linear::ActivationFormat;
use serde_json::json;
use std::path::Path;

/// The embedded model, with what a tokenizer's configuration says beside it.
fn model_with(folder: &Path, config: &serde_json::Value) -> Checkpoint {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(embedded_folder().join(name), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    Checkpoint::open(folder).unwrap()
}

#[test]
fn a_container_has_the_checkpoint_s_template() {
    let folder = tempfile::tempdir().unwrap();
    let template = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content | trim ~ eos_token }}{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}";
    let config = json!({"eos_token": "<|endoftext|>", "chat_template": template});
    let checkpoint = model_with(folder.path(), &config);
    let packed = packed(&checkpoint, "rtn", 4);
    assert_eq!(packed.report.warnings, Vec::<String>::new());
    let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
    let template = container.chat_template().unwrap();
    let turns = [Turn { user: "a ", answer: "b" }];
    let conversation = Conversation { system: Some("s"), turns: &turns, user: "c", date: None };
    let mut text = String::new();
    fill(&template, &conversation, |part| text.push_str(part.text())).unwrap();
    let end = "<|endoftext|>";
    assert_eq!(text, format!("system: s{end}user: a{end}assistant: b{end}user: c{end}assistant:"));
}

#[test]
fn a_template_that_cannot_be_filled_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"chat_template": "{{ strftime_now('%H:%M') }}"});
    let packed = packed(&model_with(folder.path(), &config), "rtn", 4);
    let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
    assert!(container.chat_template().is_none());
    assert_eq!(packed.report.warnings.len(), 1);
    assert!(
        packed.report.warnings[0].contains("asks for \"%H:%M\" of the clock"),
        "{:?}",
        packed.report.warnings
    );
}

#[test]
fn a_session_that_went_back_gives_the_same_bits() {
    let spec = tiny::odd_spec();
    let file = tiny::container(&spec, Widths::Mixed, Layout::Nr8k4);
    let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
    let machine = conformance::serial_machine();
    let tokens = tiny::tokens(&spec, 20);
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<u32>>();
    let mut memory = conformance::memory(&container, 20, 3);
    let mut session = conformance::session(&container, machine, 20, 3, ActivationFormat::Int8, &mut memory);
    let expected = bits(session.run(&tokens).unwrap());
    session.rewind(7);
    session.run(&[1, 2, 3]).unwrap();
    session.rewind(7);
    // Not forwards.
    session.rewind(15);
    assert_eq!(session.position(), 7);
    assert_eq!(bits(session.run(&tokens[7..]).unwrap()), expected);

    // The head's inputs do not depend on how many tokens run at once, and each token has one.
    let mut hidden = |parts: &[usize]| {
        session.reset();
        let (mut all, mut start) = (Vec::new(), 0);
        for part in parts {
            let tokens = &tokens[start..start + part];
            session.run_hidden(tokens, |index, hidden| all.push((start + index, bits(hidden)))).unwrap();
            start += part;
        }
        all
    };
    let together = hidden(&[20]);
    assert_eq!(hidden(&[1, 2, 17]), together);
    assert!(together.iter().enumerate().all(|(index, (at, bits))| index == *at && bits.len() == 48));
    assert!(session.run_hidden(&tokens[..1], |_, _| ()).is_err(), "it is full");
}
