//! What decides the result of every block: a run may be resumed where all of it is the same.
//!
//! Not here, since it changes no block: the number of threads, the layout, the text of the check, the target.

use super::machine;
use crate::checkpoint::Checkpoint;
use crate::choose::Tuning;
use crate::inputs::Inputs;
use crate::methods::SolverOptions;
use crate::plan::BlockPlan;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

/// Part of every identity; another number where files of the journal change their meaning.
const FORMAT: &str = "1";
/// Characters of a value in the list of differences.
const SHOWN_CHARACTERS: usize = 60;

/// Named settings and what they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    settings: BTreeMap<String, String>,
}

/// The head file.
#[derive(Deserialize)]
struct Head {
    settings: BTreeMap<String, String>,
    /// Of the settings, in hexadecimal digits.
    sha256: String,
}

impl Identity {
    /// Of a run on `checkpoint`, calibrated on `inputs`. `program` tells one build of the tool
    /// from another (a digest of its file): other code may compute other bits.
    pub fn new(checkpoint: &Checkpoint, inputs: Inputs<'_>, plan: &BlockPlan, program: &str) -> Identity {
        let mut settings = settings_of(checkpoint, inputs, program);
        let mut put = |name: &str, value: String| {
            settings.insert(name.to_owned(), value);
        };
        put("journal format", FORMAT.to_owned());

        // Taken apart by name, so that a setting that is added cannot be forgotten here.
        let BlockPlan { method, variant, clip: clip_of_plan, options, rank, tuning, vocabulary, formats } =
            plan;
        put("method", method.name().to_owned());
        put("lazy variant", text(variant));
        put("clip search", text(clip_of_plan));
        put("format of embedding and head", text(vocabulary));
        put("formats of matrices", text(formats));
        let SolverOptions {
            bits,
            spacing,
            group,
            damping,
            activation_order,
            static_groups,
            clip,
            block,
            scale_format,
        } = options;
        put("rank of corrections", rank.to_string());
        put("bits", bits.to_string());
        put("levels", spacing.name().to_owned());
        put("group size", group.to_string());
        put("damping", damping.to_string());
        put("activation order", activation_order.to_string());
        put("static groups", static_groups.to_string());
        put("default clip search", clip.name().to_owned());
        put("lazy block", block.to_string());
        put("scale format", text(scale_format));
        let Tuning { strength, ridge, refine } = tuning;
        put("strength", text(strength));
        put("ridge", text(ridge));
        put("refine", text(refine));

        Identity { settings }
    }

    /// Of another run on the same things, with settings of its own.
    pub(crate) fn with_settings(
        checkpoint: &Checkpoint,
        inputs: Inputs<'_>,
        program: &str,
        own: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Identity {
        let mut settings = settings_of(checkpoint, inputs, program);
        settings.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Identity { settings }
    }

    /// Of settings alone.
    #[cfg(test)]
    pub(crate) fn of_settings(settings: BTreeMap<String, String>) -> Identity {
        Identity { settings }
    }

    /// SHA-256 of all names and values.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in self.settings.iter().flat_map(|(name, value)| [name, value]) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// What differs in `other`, a line for each setting: the value here, then the value there.
    pub fn differences(&self, other: &Identity) -> Vec<String> {
        let mut names: Vec<&String> = self.settings.keys().chain(other.settings.keys()).collect();
        names.sort();
        names.dedup();
        let shown = |identity: &Identity, name: &String| match identity.settings.get(name) {
            None => "unknown".to_owned(),
            Some(value) if value.chars().count() > SHOWN_CHARACTERS => {
                let start: String = value.chars().take(SHOWN_CHARACTERS).collect();
                format!("{start}...")
            }
            Some(value) => value.clone(),
        };
        names
            .into_iter()
            .filter(|name| self.settings.get(*name) != other.settings.get(*name))
            .map(|name| format!("{name} was {}, is {}", shown(self, name), shown(other, name)))
            .collect()
    }

    /// The head file.
    pub(super) fn to_json(&self) -> String {
        format!("{:#}\n", json!({ "settings": self.settings, "sha256": hexadecimal(&self.digest()) }))
    }

    /// What a head file says; `None` where it is damaged.
    pub(super) fn from_json(json: &[u8]) -> Option<Identity> {
        let Head { settings, sha256 } = serde_json::from_slice(json).ok()?;
        let identity = Identity { settings };
        (hexadecimal(&identity.digest()) == sha256).then_some(identity)
    }
}

/// The program, the model, the tokens and the machine.
fn settings_of(checkpoint: &Checkpoint, inputs: Inputs<'_>, program: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut put = |name: &str, value: String| {
        settings.insert(name.to_owned(), value);
    };
    put("tool version", env!("CARGO_PKG_VERSION").to_owned());
    put("program", program.to_owned());
    put("checkpoint", hexadecimal(&checkpoint.digest()));
    put("model", text(&checkpoint.spec));
    put("rotary frequencies", digest_of(checkpoint.rope.iter().map(|turns| turns.to_le_bytes())));
    let local = checkpoint.local_rope.iter().map(|turns| turns.to_le_bytes());
    put("rotary frequencies of windows", digest_of(local));
    put("constants in the weights", checkpoint.folded());
    if let Some(transform) = checkpoint.transform() {
        put("transform", format!("{} {}", transform.kind, hexadecimal(&transform.digest())));
    }
    put("calibration windows", inputs.count().to_string());
    put("calibration positions", inputs.tokens(&checkpoint.spec).to_string());
    put("calibration tokens", hexadecimal(&inputs.digest()));
    for (name, value) in machine::settings() {
        put(name, value);
    }
    settings
}

/// A value as the code spells it; floats with all their digits.
fn text(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn digest_of<const N: usize>(parts: impl Iterator<Item = [u8; N]>) -> String {
    let mut digest = Sha256::new();
    parts.for_each(|part| digest.update(part));
    hexadecimal(&digest.finalize())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
