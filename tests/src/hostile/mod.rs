//! The hostile files of `tests/data/hostile`: each is a small sound file with one attack. Here they are made, the same bytes each time,
//! and read as what they pretend to be. `cargo run --package conformance --example hostile_files` writes them.
//!
//! A folder a kind of file. `manifest.toml` beside them names each file, the attack, the byte that is wrong where there is one, and the
//! error that the file must be refused with.

mod chat_templates;
mod classifiers;
mod configs;
mod containers;
mod corrections;
mod encoders;
mod recipes;
mod safetensors;
mod tokenizer_json;
mod tokenizer_sections;
mod transforms;
mod variants;

use crate::forge::Parts;
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::manifest::{Check, CheckRecord};
use rescomp_formats::spec::ModelSpec;
use rescomp_formats::tokenizer::TokenizerView;
use rescomp_quantizer::checkpoint::{Checkpoint, CheckpointError, HfConfig};
use rescomp_quantizer::recipe::Recipe;
use rescomp_quantizer::tokenizer_json::tokenizer_section;
use rescomp_runtime::memory::AlignedBytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A hostile file.
#[derive(Clone, Debug)]
pub struct HostileFile {
    /// Folder of its kind, and name.
    pub name: &'static str,
    /// What is wrong, in a few words.
    pub attack: &'static str,
    /// The first byte that is wrong, where the error must name it.
    pub offset: Option<u64>,
    /// The file.
    pub bytes: Vec<u8>,
}

impl HostileFile {
    /// A sound container whose manifest was changed, behind checksums that are right; the error names the byte at `offset`.
    fn with_manifest(
        name: &'static str,
        attack: &'static str,
        offset: u64,
        sound: &[u8],
        change: impl Fn(&mut rescomp_formats::manifest::Manifest),
    ) -> HostileFile {
        let mut parts = Parts::of(sound);
        parts.change_manifest(change).expect("a manifest");
        HostileFile { name, attack, offset: Some(offset), bytes: parts.assemble() }
    }
}

/// A decoder's record, for models that have another.
fn record_of_windows() -> Check {
    Check::Windows(CheckRecord {
        reference_nll: 1.0,
        nll: 1.0,
        mean_kl: 0.0,
        same_top1: 0,
        positions: 2,
        logits_sha256: [0; 32],
    })
}

/// An entry of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// As [`HostileFile::attack`].
    pub attack: String,
    /// The error, whole.
    pub error: String,
    /// As [`HostileFile::offset`].
    pub offset: Option<u64>,
}

/// The manifest: entries by the files' names.
pub type Manifest = BTreeMap<String, Entry>;

/// The folder of the files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hostile")
}

/// Every file, by kind.
pub fn files() -> Vec<HostileFile> {
    [
        containers::files(),
        corrections::files(),
        chat_templates::files(),
        variants::files(),
        encoders::files(),
        transforms::files(),
        classifiers::files(),
        tokenizer_sections::files(),
        safetensors::files(),
        configs::files(),
        tokenizer_json::files(),
        recipes::files(),
    ]
    .concat()
}

/// Sound files of each kind, of which the hostile ones are made; they seed the fuzz targets, too.
pub fn sound_files() -> Vec<(&'static str, Vec<u8>)> {
    [
        containers::sound(),
        chat_templates::sound(),
        variants::sound(),
        tokenizer_sections::sound(),
        vec![("safetensors/sound.safetensors", safetensors::sound())],
        configs::sound(),
        tokenizer_json::sound(),
        recipes::sound(),
    ]
    .concat()
}

/// Reads a file as its folder says, as a user's command would; the error's text where it is refused. `scratch` is a folder for what is read by name.
///
/// # Panics
/// Where the folder is none of a kind, or `scratch` is not writable.
pub fn refusal(name: &str, bytes: &[u8], scratch: &Path) -> Option<String> {
    // What the system says of itself, or where the folder lies, is in no manifest.
    let without_folder =
        |error: CheckpointError| error.to_string().replace(&format!("{}/", scratch.display()), "");
    let checkpoint = |config: &[u8], weights: &[u8]| {
        std::fs::write(scratch.join("config.json"), config).expect("writable");
        std::fs::write(scratch.join("model.safetensors"), weights).expect("writable");
        let checkpoint = Checkpoint::open(scratch)?;
        checkpoint.embedding()?;
        checkpoint.final_norm()?;
        (0..checkpoint.spec.layers as usize).try_for_each(|layer| checkpoint.layer(layer).map(|_| ()))
    };
    match name.split('/').next() {
        Some("container") => {
            let file = AlignedBytes::new(bytes);
            let checked = Container::open(&file).and_then(|container| container.check(Integrity::Digest));
            checked.err().map(|error| error.to_string())
        }
        Some("tokenizer-section") => TokenizerView::parse(bytes).err().map(|error| error.to_string()),
        Some("safetensors") => checkpoint(&configs::sound_config(), bytes).err().map(without_folder),
        Some("config") => {
            let path = Path::new("config.json");
            HfConfig::parse(path, bytes).map(|_| ()).err().map(|error| error.to_string())
        }
        Some("tokenizer-json") => {
            let path = Path::new("tokenizer.json");
            tokenizer_section(bytes, path, Some(small_model().vocabulary))
                .err()
                .map(|error| error.to_string())
        }
        Some("recipe") => match std::str::from_utf8(bytes) {
            Ok(text) => Recipe::parse(text, &small_model()).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        },
        _ => panic!("{name} is in no folder of a kind"),
    }
}

/// The model of all these files.
pub fn small_model() -> ModelSpec {
    crate::tiny::small_spec()
}

/// The `config.json` of the small model.
pub fn sound_config() -> Vec<u8> {
    configs::sound_config()
}

/// The `model.safetensors` of the small model.
pub fn sound_weights() -> Vec<u8> {
    safetensors::sound()
}

/// A text with one place replaced.
///
/// # Panics
/// Where `from` does not occur exactly once.
fn replaced(text: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(text).expect("a text");
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to).into_bytes()
}
