//! Hostile chat templates, in containers whose checksums are right.

use super::HostileFile;
use super::containers::{container, spec};
use crate::forge::{Parts, entry};
use crate::tiny::{self, Widths};
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::Manifest;
use rescomp_formats::spec::ModelSpec;

/// Place in the table.
const CHAT_TEMPLATE: usize = 5;

/// With a chat template.
fn chats() -> Vec<u8> {
    let spec = ModelSpec { chat_template: true, ..spec() };
    tiny::container(&spec, Widths::Mixed, Layout::Nr8k4).to_vec()
}

pub(super) fn sound() -> Vec<(&'static str, Vec<u8>)> {
    vec![("container/sound-chat.rescomp", chats())]
}

pub(super) fn files() -> Vec<HostileFile> {
    let sound = chats();
    let section = |name, attack, at: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut parts = Parts::of(&sound);
        change(&mut parts.sections[CHAT_TEMPLATE]);
        let bytes = parts.assemble();
        HostileFile { name, attack, offset: Some(entry(&bytes, CHAT_TEMPLATE).offset_bytes + at), bytes }
    };
    let length = crate::forge::section(&sound, CHAT_TEMPLATE).len() as u64;
    // Where the date's format begins.
    let date = crate::forge::section(&sound, CHAT_TEMPLATE).windows(2).position(|two| two == b"%d");
    let first = date.expect("a date") as u64;
    let missing = |name, attack, chat_template, file: &[u8]| {
        let mut parts = Parts::of(file);
        parts.change_manifest(|manifest| manifest.spec.chat_template = chat_template).expect("a manifest");
        HostileFile { name, attack, offset: Some(28), bytes: parts.assemble() }
    };
    let boolean = {
        let mut parts = Parts::of(&sound);
        let last = postcard::to_allocvec(
            &postcard::from_bytes::<Manifest>(&parts.manifest).expect("a manifest").spec,
        )
        .expect("a spec")
        .len()
            // Behind it is a byte that says that there is no embedding.
            - 2;
        parts.manifest[last] = 2;
        parts.assemble()
    };
    vec![
        missing(
            "container/chat-template-missing.rescomp",
            "a chat template that is announced and not there",
            true,
            &container(),
        ),
        missing("container/chat-template-unannounced.rescomp", "a chat template too many", false, &sound),
        HostileFile {
            name: "container/chat-template-neither.rescomp",
            attack: "neither a chat template nor none",
            offset: Some(64),
            bytes: boolean,
        },
        section("container/chat-template-version.rescomp", "a chat template of the future", 0, &|bytes| {
            bytes[0] = 2
        }),
        section("container/chat-template-flags.rescomp", "an unknown flag", 1, &|bytes| bytes[1] |= 0x80),
        section("container/chat-template-reserved.rescomp", "a reserved byte is set", 3, &|bytes| {
            bytes[3] = 1
        }),
        section("container/chat-template-empty.rescomp", "no texts", 0, &Vec::clear),
        section("container/chat-template-cut.rescomp", "a text that ends early", 24, &|bytes| {
            bytes.pop();
        }),
        section("container/chat-template-length.rescomp", "a text of 4 GiB", 12, &|bytes| {
            bytes[12..16].fill(0xff)
        }),
        section("container/chat-template-longer.rescomp", "a byte behind the texts", length, &|bytes| {
            bytes.push(0)
        }),
        section("container/chat-template-huge.rescomp", "texts of more than the cap", 0, &|bytes| {
            bytes.resize((1 << 16) + 1, b' ')
        }),
        section("container/chat-template-text.rescomp", "a text that is not UTF-8", 30, &|bytes| {
            bytes[30] = 0xc0
        }),
        section("container/chat-template-date-open.rescomp", "a date that does not end", first, &|bytes| {
            let mark = bytes.iter().rposition(|&byte| byte == 1).expect("a date");
            bytes[mark] = b'x';
        }),
        section(
            "container/chat-template-date-format.rescomp",
            "a date in a format of anything",
            first,
            &|bytes| {
                let directive = bytes.windows(2).position(|two| two == b"%d").expect("a date");
                bytes[directive + 1] = b'n';
            },
        ),
        section(
            "container/chat-template-date-unsaid.rescomp",
            "no date where one is announced",
            1,
            &|bytes| {
                for byte in bytes[28..].iter_mut().filter(|byte| **byte == 1) {
                    *byte = b'x';
                }
            },
        ),
        section(
            "container/chat-template-no-system.rescomp",
            "texts around a system message that there is not",
            4,
            &|bytes| bytes[1] &= !1,
        ),
    ]
}
