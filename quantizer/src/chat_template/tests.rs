//! Templates in the shapes of well-known ones, written for these tests.

use super::derive::{Derived, derive};
use super::jinja::{Jinja, Message};
use super::source::{Source, of_folder};
use super::{Imported, import_source};
use rescomp_formats::chat_template::{ChatTemplate, SystemTexts, Trimmed};
use serde_json::json;
use std::path::Path;

/// ChatML with a default system message.
const CHATML: &str =
    "{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{%- endif -%}
{%- for turn in messages -%}
{{ '<|im_start|>' ~ turn['role'] ~ '\n' ~ turn['content'] ~ '<|im_end|>' ~ '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}";

/// Brackets around the user's messages, the system message inside the first; contents are stripped, as Python says it.
const BRACKETS: &str = "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}
{% else %}{% set rest = messages %}{% set system = false %}{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant take turns') }}{% endif %}
{% if loop.first and system != false %}{% set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + message['content'].strip() %}
{% else %}{% set text = message['content'].strip() %}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + text + ' [/INST]' }}
{%- else %}{{ ' ' + text + ' ' + eos_token }}{% endif %}
{% endfor %}";

/// Headers of role names, contents trimmed.
const HEADERS: &str = "{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}";

/// A line with the role, the end token behind each message.
const LINES: &str = "{% for message in messages %}
{% if message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
{% endfor %}";

/// No system message, and another name for the assistant.
const TURNS: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{%- for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

fn source(text: &str) -> Source {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let owned = |(name, token): (&str, &str)| (name.to_owned(), token.to_owned());
    Source {
        name: "chat_template.jinja".to_owned(),
        text: text.to_owned(),
        special_tokens: tokens.map(owned).to_vec(),
    }
}

fn derived(text: &str) -> Derived {
    derive(&Jinja::new(&source(text)).unwrap()).unwrap()
}

#[track_caller]
fn assert_refused(text: &str, parts: &[&str]) {
    let Imported { section, warnings } = import_source(&source(text));
    assert_eq!((section, warnings.len()), (None, 1));
    for part in parts.iter().chain(&["the container has no chat template", "chat_template.jinja"]) {
        assert!(warnings[0].contains(part), "{part:?} in {}", warnings[0]);
    }
}

const NOBODY: Trimmed = Trimmed { system: false, user: false, answer: false };

#[test]
fn chatml_has_a_default_system_message() {
    let open = "<|im_end|>\n<|im_start|>assistant\n";
    let expected = ChatTemplate {
        system: Some(SystemTexts { before: "<|im_start|>system\n", after: "<|im_end|>\n<|im_start|>user\n" }),
        first: "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n",
        open,
        answered: open,
        next: "<|im_end|>\n<|im_start|>user\n",
        trimmed: NOBODY,
        drops_thoughts: false,
        drops_line_breaks: false,
        system_last: false,
        names_date: false,
    };
    assert_eq!(derived(CHATML).template(), expected);
}

#[test]
fn brackets_hold_the_system_message_in_the_first_ones() {
    let expected = ChatTemplate {
        system: Some(SystemTexts { before: "<s>[INST] <<SYS>>\n", after: "\n<</SYS>>\n\n" }),
        first: "<s>[INST] ",
        open: " [/INST]",
        answered: " [/INST] ",
        next: " </s><s>[INST] ",
        trimmed: Trimmed { system: false, user: true, answer: true },
        drops_thoughts: false,
        drops_line_breaks: false,
        system_last: false,
        names_date: false,
    };
    assert_eq!(derived(BRACKETS).template(), expected);
}

#[test]
fn headers_begin_with_a_token_and_trim() {
    let open = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    let user = "<|start_header_id|>user<|end_header_id|>\n\n";
    let expected = ChatTemplate {
        system: Some(SystemTexts {
            before: "<s><|start_header_id|>system<|end_header_id|>\n\n",
            after: &format!("<|eot_id|>{user}"),
        }),
        first: &format!("<s>{user}"),
        open,
        answered: open,
        next: &format!("<|eot_id|>{user}"),
        trimmed: Trimmed { system: true, user: true, answer: true },
        drops_thoughts: false,
        drops_line_breaks: false,
        system_last: false,
        names_date: false,
    };
    assert_eq!(derived(HEADERS).template(), expected);
}

#[test]
fn what_opens_an_answer_may_differ_from_what_stands_before_one() {
    let template = derived(LINES);
    let template = template.template();
    assert_eq!((template.open, template.answered), ("</s>\n<|assistant|>", "</s>\n<|assistant|>\n"));
    assert_eq!((template.first, template.next), ("<|user|>\n", "</s>\n<|user|>\n"));
    assert_eq!(template.system, Some(SystemTexts { before: "<|system|>\n", after: "</s>\n<|user|>\n" }));
}

#[test]
fn a_template_without_system_messages_serves_other_conversations() {
    let derived = derived(TURNS);
    assert!(derived.no_system.as_ref().is_some_and(|why| why.contains("no system role")), "{derived:?}");
    let template = derived.template();
    assert_eq!((template.system, template.first), (None, "<s><start_of_turn>user\n"));
    assert_eq!(template.open, "<end_of_turn>\n<start_of_turn>model\n");
    assert_eq!(template.trimmed, Trimmed { system: false, user: true, answer: true });
    let Imported { section, warnings } = import_source(&source(TURNS));
    assert!(section.is_some());
    assert!(warnings[0].contains("a system message cannot be given"), "{warnings:?}");
}

#[test]
fn thoughts_of_earlier_answers_are_dropped() {
    let text = CHATML.replace(
        "turn['content']",
        "(turn.content.split('</think>')[-1].lstrip('\n') if turn.role == 'assistant' and '</think>' in turn.content \
         else turn.content)",
    );
    assert!(derived(&text).drops_thoughts);
    // Cut in another way, they are refused.
    assert_refused(&text.replace(".lstrip('\n')", ".strip()"), &["expected", "found"]);
}

#[test]
fn what_the_texts_cannot_say_is_refused_with_its_reason() {
    assert_refused("{% for m in messages %}", &["unexpected end"]);
    assert_refused(
        "{{ strftime_now('%H:%M') }}{{ messages[0].content }}",
        &["asks for \"%H:%M\" of the clock"],
    );
    assert_refused(
        "{% if strftime_now('%Y') > '3' %}x{% endif %}{% for m in messages %}{{ m.content ~ '.' }}{% endfor %}",
        &["something else than the date"],
    );
    let upper = "{{ strftime_now('%B')|upper }}{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}";
    assert_refused(upper, &["behind "]);
    assert_refused("{{ messages[0].content }}{{ messages[0].content }}", &["expected one", "found 2"]);
    assert_refused("nothing", &["found 0"]);
    assert_refused("{{ messages[-1].content }}{{ messages[0].content }}", &["found 2"]);
    assert_refused(
        "{% for m in messages %}{{ m.role ~ m.content|upper }}{% endfor %}",
        &["expected one", "found 0"],
    );
    // The same for markers, and not for what people write.
    assert_refused(
        "{% for m in messages %}{{ m.role ~ ':' ~ m.content|replace('\"', '') }}{% endfor %}",
        &["behind ", "expected ", "found "],
    );
    assert_refused("{% for m in messages %}{{ m.role ~ m.content.lstrip() }}{% endfor %}", &["behind "]);
    // A conversation of three turns is counted.
    assert_refused("{% for m in messages %}{{ m.role ~ loop.index ~ m.content }}{% endfor %}", &["behind "]);
    assert_refused("{{ bos_token.no_such_method() }}", &["method"]);
    assert_refused(
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
        &["fuel"],
    );
    // Too long for a device.
    let long = format!("{}{CHATML}", "x".repeat(70_000));
    assert_refused(&long, &["at most 65,536 bytes"]);
}

#[test]
fn templates_are_found_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(of_folder(path), Ok(None));
    let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
    write("tokenizer_config.json", "[]");
    assert!(of_folder(path).is_err_and(|why| why.contains("tokenizer_config.json: expected an object")));
    write("tokenizer_config.json", "{");
    assert!(of_folder(path).is_err_and(|why| why.contains("expected JSON")));
    write("tokenizer_config.json", r#"{"chat_template": 3}"#);
    assert!(of_folder(path).is_err_and(|why| why.contains("expected a text or a list")));
    let tokens = json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}});
    let with = |template: serde_json::Value| {
        let mut config = tokens.clone();
        config["chat_template"] = template;
        write("tokenizer_config.json", &config.to_string());
        of_folder(path)
    };
    let expected = |text: &str, name: &str| Ok(Some(Source { name: name.to_owned(), ..source(text) }));
    let field = format!("{}: chat_template", path.join("tokenizer_config.json").display());
    assert_eq!(with(json!("one")), expected("one", &field));
    let several = json!([{"name": "tools", "template": "a"}, {"name": "default", "template": "b"}]);
    assert_eq!(with(several), expected("b", &field));
    assert!(with(json!([{"name": "tools", "template": "a"}])).is_err_and(|why| why.contains("default")));
    // A file of its own comes first.
    write("chat_template.jinja", "own");
    assert_eq!(with(json!("one")), expected("own", &path.join("chat_template.jinja").display().to_string()));
    write("chat_template.jinja", "\u{e9}");
    std::fs::write(path.join("chat_template.jinja"), [b'a', 0xff]).unwrap();
    assert!(of_folder(path).is_err_and(|why| why.contains("byte 1: expected UTF-8")));
    assert_eq!(of_folder(Path::new("/no/such/folder")), Ok(None));
}

#[test]
fn a_rendering_is_as_transformers_makes_it() {
    // Blocks take their line with them, and the last line break is none.
    let template = source("{% if true %}\n  a\n{% endif %}\n{{ messages[0].content }}\n");
    let rendered = Jinja::new(&template).unwrap().render(&[Message { role: "user", content: "b" }], None);
    assert_eq!(rendered.as_deref(), Ok("  a\nb"));
}
