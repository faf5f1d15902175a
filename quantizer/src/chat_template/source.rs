//! Where a checkpoint has its chat template.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;

/// Most bytes of a file that is read here; templates have some thousand.
const MOST_BYTES: u64 = 8 << 20;
/// The names that templates give special tokens.
const SPECIAL: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

/// A template in Jinja, with what it may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// The file, and the field where it is one.
    pub(super) name: String,
    pub(super) text: String,
    /// Names and texts of special tokens.
    pub(super) special_tokens: Vec<(String, String)>,
}

/// A checkpoint's template; an error says why it could not be read.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<Option<Source>, String> {
    if let Some(found) = checkpoint.gguf_chat_template().map_err(|error| error.to_string())? {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        return Ok(Some(Source {
            name: format!("{}: tokenizer.chat_template", checkpoint.path().display()),
            text: found.text.to_owned(),
            special_tokens: found.special_tokens.iter().map(owned).collect(),
        }));
    }
    if checkpoint.path().is_dir() { of_folder(checkpoint.path()) } else { Ok(None) }
}

/// The template of a Hugging Face folder: a file of its own comes before the field of the tokenizer's configuration, as in transformers.
pub(super) fn of_folder(folder: &Path) -> Result<Option<Source>, String> {
    let config = folder.join("tokenizer_config.json");
    let fields = match text_of(&config)? {
        None => Map::new(),
        Some(text) => match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(format!("{}: expected an object, found something else", config.display())),
            Err(error) => return Err(format!("{}: expected JSON: {error}", config.display())),
        },
    };
    let special_tokens = SPECIAL
        .iter()
        .filter_map(|&name| {
            let token = fields.get(name)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.to_owned(), text.to_owned()))
        })
        .collect();
    let own_file = folder.join("chat_template.jinja");
    if let Some(text) = text_of(&own_file)? {
        return Ok(Some(Source { name: own_file.display().to_string(), text, special_tokens }));
    }
    let name = format!("{}: chat_template", config.display());
    let text = match fields.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        // Several by name, of which one is for conversations.
        Some(Value::Array(all)) => all
            .iter()
            .find(|one| one.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|one| one.get("template")?.as_str())
            .ok_or_else(|| format!("{name}: expected one named \"default\" among {}, found none", all.len()))?
            .to_owned(),
        Some(_) => return Err(format!("{name}: expected a text or a list, found something else")),
    };
    Ok(Some(Source { name, text, special_tokens }))
}

/// The text of a file; `None` where there is no such file.
fn text_of(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("{}: cannot read: {error}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("{}: expected at most {MOST_BYTES} bytes, found more", path.display()));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        format!("{}: byte {}: expected UTF-8", path.display(), error.utf8_error().valid_up_to())
    })
}
