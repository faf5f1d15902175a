//! The chat template of a checkpoint, made into one that a device can fill.
//!
//! ```text
//! source:  chat_template.jinja, tokenizer_config.json or the metadata of a GGUF file -> a template in Jinja
//! jinja:   a conversation -> its text, as transformers renders it
//! derive:  renders conversations of markers -> what stands between them -> the six texts of the section
//!          renders many other conversations: filling the six texts must give the same, byte for byte, or there is no section
//! ```
//! A template does whatever its author wrote: it may number the turns, move the system message about, list tools. What the six texts do not
//! say is refused with its reason, and packing goes on without a chat template: a model that is asked in a form that it does not
//! know answers badly, and nobody sees why.

mod derive;
#[cfg(test)]
mod family_tests;
mod jinja;
mod source;
#[cfg(test)]
mod tests;

use crate::checkpoint::Checkpoint;
use jinja::Jinja;
use source::Source;

/// What became of a checkpoint's chat template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The section of the container, where there is one.
    pub section: Option<Vec<u8>>,
    /// What of the checkpoint's template is not in it, and why.
    pub warnings: Vec<String>,
}

/// Reads a checkpoint's chat template, if it has one.
pub fn import(checkpoint: &Checkpoint) -> Imported {
    match source::read(checkpoint) {
        Ok(None) => Imported::default(),
        Ok(Some(source)) => import_source(&source),
        Err(why) => refused(&why),
    }
}

fn import_source(source: &Source) -> Imported {
    let name = &source.name;
    let derived = Jinja::new(source).and_then(|jinja| derive::derive(&jinja));
    let derived = match derived {
        Ok(derived) => derived,
        Err(why) => return refused(&format!("{name}: {why}")),
    };
    let Some(section) = derived.template().section() else {
        return refused(&format!("{name}: expected at most 65,536 bytes of text around the messages"));
    };
    let warnings = derived
        .no_system
        .iter()
        .map(|why| {
            format!("{name}: a system message cannot be given on the device, other conversations can: {why}")
        })
        .collect();
    Imported { section: Some(section), warnings }
}

fn refused(why: &str) -> Imported {
    let warning = format!(
        "the container has no chat template, so `chat` and chat requests are refused: the device cannot fill {why}"
    );
    Imported { section: None, warnings: vec![warning] }
}
