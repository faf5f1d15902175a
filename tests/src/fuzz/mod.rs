//! What the fuzz targets do with their input: one function a target. They are here so that seeds and inputs that once broke something run as
//! ordinary tests, too. A function returns how far the input came, and panics where a promise is broken.

#[cfg(feature = "host")]
mod checkpoint;
mod container;
#[cfg(feature = "host")]
mod journal;
#[cfg(feature = "host")]
mod texts;
mod tokenizer;

#[cfg(feature = "host")]
pub use checkpoint::{safetensors, write_small_checkpoint};
pub use container::{check, decode};
#[cfg(feature = "host")]
pub use journal::{HEAD_BYTES as BLOCK_HEAD_BYTES, block, head, repair_block, small_block};
#[cfg(feature = "host")]
pub use texts::{config, recipe, tokenizer_json};
pub use tokenizer::{TokenizerInput, tokenizer};

/// How far an input came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused with an error.
    Refused,
    /// It was accepted, and what it is for was done with it.
    Accepted,
}

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]) -> Outcome);

/// Every target.
#[cfg(feature = "host")]
pub const TARGETS: [Target; 9] = [
    ("container", check),
    ("decode", decode),
    ("tokenizer", tokenizer),
    ("safetensors", safetensors),
    ("config", config),
    ("tokenizer_json", tokenizer_json),
    ("recipe", recipe),
    ("journal_block", block),
    ("journal_head", head),
];

/// Seeds of a target, by name: small sound inputs, and those hostile files that are of its kind.
#[cfg(feature = "host")]
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let sound = |folder: &str| {
        let of = |(name, bytes): (&str, Vec<u8>)| {
            let (kind, file) = name.split_once('/')?;
            (kind == folder).then(|| (file.to_owned(), bytes))
        };
        crate::hostile::sound_files().into_iter().filter_map(of).collect::<Vec<_>>()
    };
    match target {
        "container" | "decode" => sound("container"),
        "tokenizer" => sound("tokenizer-section")
            .into_iter()
            .map(|(name, section)| {
                (name, TokenizerInput { section: &section, text: tokenizer::TEXT }.bytes())
            })
            .collect(),
        "tokenizer_json" => sound("tokenizer-json"),
        "journal_block" => vec![("block.bin".to_owned(), small_block())],
        "journal_head" => vec![("head.json".to_owned(), journal::small_head())],
        other => sound(other),
    }
}
