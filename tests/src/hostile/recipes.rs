//! Hostile recipes.

use super::{HostileFile, replaced};

const SOUND: &str = r#"[default]
bits = 3
group = "64"

[matrices]
"embedding" = { bits = 4, group = "row" }
"layer 0 query" = { bits = 2, group = "32" }
"#;

const BANDED: &str = r#"[default]
bits = 4
group = "64"

[matrices]
"embedding band 0" = { bits = 8, group = "32" }
"embedding band 3" = { bits = 2, group = "row" }
"layer 0 down" = { bits = 6, group = "128" }
"#;

pub(super) fn sound() -> Vec<(&'static str, Vec<u8>)> {
    vec![("recipe/sound.toml", SOUND.into()), ("recipe/sound-banded.toml", BANDED.into())]
}

pub(super) fn files() -> Vec<HostileFile> {
    let file = |name, attack, from: &str, to: &str| HostileFile {
        name,
        attack,
        offset: None,
        bytes: replaced(SOUND.as_bytes(), from, to),
    };
    let nested = format!("x = {}{}\n[default]", "[".repeat(20_000), "]".repeat(20_000));
    vec![
        file("recipe/bits-without-encoding.toml", "a width that no encoding has", "bits = 2", "bits = 7"),
        file("recipe/bits-negative.toml", "a negative width", "bits = 2", "bits = -2"),
        file(
            "recipe/bits-beyond-64.toml",
            "a width that no integer holds",
            "bits = 2",
            "bits = 99999999999999999999",
        ),
        file("recipe/group-zero.toml", "groups of nothing", "\"32\"", "\"0\""),
        file("recipe/group-without-layout.toml", "groups of a size that no kernel knows", "\"32\"", "\"48\""),
        file(
            "recipe/matrix-beyond-the-model.toml",
            "a matrix that the model does not have",
            "layer 0 query",
            "layer 1 query",
        ),
        file(
            "recipe/matrix-twice.toml",
            "a matrix named twice",
            "\"embedding\" =",
            "\"layer 0 query\" = { bits = 8, group = \"32\" }\n\"embedding\" =",
        ),
        file(
            "recipe/bands-beside-the-whole.toml",
            "an embedding whole and in bands",
            "\"embedding\" =",
            "\"embedding band 0\" = { bits = 8, group = \"32\" }\n\"embedding\" =",
        ),
        file(
            "recipe/field-unknown.toml",
            "a field that would be passed over",
            "bits = 3",
            "bits = 3\nbit = 4",
        ),
        file("recipe/nested-deeply.toml", "nesting that would exhaust the stack", "[default]", &nested),
        HostileFile { name: "recipe/empty.toml", attack: "nothing", offset: None, bytes: Vec::new() },
        HostileFile {
            name: "recipe/not-utf8.toml",
            attack: "bytes that are no text",
            offset: None,
            bytes: vec![0xff, 0xfe, 0x5b],
        },
    ]
}
