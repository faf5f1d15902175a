//! Models of the Hugging Face hub by name: `hub:OWNER/NAME[@REVISION]`, or one GGUF file of such, `hub:OWNER/NAME[@REVISION]:FILE.gguf`.
//!
//! ```text
//! name -> which commit, and which files it has           (asked of the hub; offline: what the cache says)
//!      -> the files that a model needs and the cache lacks (downloaded by hf-hub: resumed, then renamed)
//!      -> the folder of that commit in the cache, which is an ordinary checkpoint
//! ```
//!
//! Cache and environment are those of the hub's own library: HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN.
//! All files of a model come from one commit, also where somebody pushes another meanwhile.

mod download;
mod name;
mod settings;

use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::output;
use download::Download;
use name::HubName;
use settings::Settings;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What else is fetched where the model has it.
const OPTIONAL: [&str; 9] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    // What sentence-transformers says of an encoder, and what a classifier does with images.
    "modules.json",
    "1_Pooling/config.json",
    "preprocessor_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// The path of what a command line names, in the cache, where it names a model of the hub; `None` where it names something else.
///
/// # Errors
/// `Exit::Input` for a name that is none and for a model that is not there or has no weights that are read, `Exit::Missing` where the hub cannot be
/// reached or the cache lacks a file offline, `Exit::Disk`.
pub(crate) fn resolve(named: &Path) -> Result<Option<PathBuf>, Error> {
    match HubName::parse(named)? {
        Some(name) => fetch(&name, &Settings::from_environment()?).map(Some),
        None => Ok(None),
    }
}

/// A commit of a model, and where its files are or will be.
struct Commit<'a> {
    name: &'a HubName,
    /// 40 hexadecimal digits.
    sha: String,
    /// Its folder in the cache.
    folder: PathBuf,
}

impl Commit<'_> {
    fn has(&self, file: &str) -> bool {
        self.folder.join(file).is_file()
    }
}

fn repository(name: &HubName, revision: &str) -> Repo {
    Repo::with_revision(name.repository.clone(), RepoType::Model, revision.to_owned())
}

fn fetch(name: &HubName, settings: &Settings) -> Result<PathBuf, Error> {
    let cache = Cache::new(settings.cache.clone());
    let named = cache.repo(repository(name, &name.revision));
    if settings.offline {
        let sha = cached_sha(&cache, &named, name)
            .ok_or_else(|| not_cached(name, &settings.cache, &format!("the revision {}", name.revision)))?;
        let commit = Commit { name, folder: named.pointer_path(&sha), sha };
        return complete(&commit, &mut |file, optional| match commit.has(file) || optional {
            true => Ok(()),
            false => Err(not_cached(name, &settings.cache, file)),
        });
    }
    let download = Download::new(settings, name)?;
    let found = download.commit().map_err(|error| {
        // What was fetched once serves without the hub, but not behind the user's back.
        match cached_sha(&cache, &named, name).is_some_and(|sha| named.pointer_path(&sha).is_dir()) {
            true => error.remedy("HF_HUB_OFFLINE=1 uses what the cache has of it"),
            false => error,
        }
    })?;
    let commit = Commit { name, folder: named.pointer_path(&found.sha), sha: found.sha };
    let path = complete(&commit, &mut |file, optional| {
        if commit.has(file) || (optional && !found.files.contains(file)) {
            return Ok(());
        }
        if !found.files.contains(file) {
            return Err(not_there(name, file, &found.files));
        }
        download.file(&commit.sha, file)
    })?;
    // Offline, the revision's name leads to this commit.
    named.create_ref(&commit.sha).map_err(|error| Error::disk("write", &settings.cache, &error))?;
    Ok(path)
}

/// Whether a `config.json` is a classifier's. What else is wrong with it, whoever reads it says.
fn reads_images(config: &Path) -> bool {
    let Ok(text) = std::fs::read(config) else { return false };
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    config
        .get("model_type")
        .and_then(serde_json::Value::as_str)
        .is_some_and(|kind| ["vit", "deit"].contains(&kind))
}

/// Gets every file that is needed; `get` hears its name and whether the model may lack it. Returns the path of the checkpoint.
fn complete(
    commit: &Commit<'_>,
    get: &mut dyn FnMut(&str, bool) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    if let Some(file) = &commit.name.file {
        get(file, false)?;
        return Ok(commit.folder.join(file));
    }
    get(CONFIG, false)?;
    // A classifier of images has none.
    get(TOKENIZER, reads_images(&commit.folder.join(CONFIG)))?;
    OPTIONAL.iter().try_for_each(|file| get(file, true))?;
    get(WEIGHTS, true)?;
    if !commit.has(WEIGHTS) {
        get(INDEX, true)?;
        if !commit.has(INDEX) {
            // Neither: the error says what there is.
            get(WEIGHTS, false)?;
        }
        shards(commit)?.iter().try_for_each(|shard| get(shard, false))?;
    }
    Ok(commit.folder.clone())
}

/// The files that the index lists, each once.
fn shards(commit: &Commit<'_>) -> Result<Vec<String>, Error> {
    let path = commit.folder.join(INDEX);
    let text = std::fs::read(&path).map_err(|error| Error::disk("read", &path, &error))?;
    let wrong = |found: String| {
        let expected = "expected the names of files in the same folder";
        Error::input(format!("{}: weight_map: {expected}, found {found}", path.display()))
    };
    let index: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|error| Error::input(format!("{}: {error}", path.display())))?;
    let Some(Value::Object(map)) = index.get("weight_map") else { return Err(wrong("none".into())) };
    let mut shards = Vec::new();
    for shard in map.values() {
        match shard.as_str().filter(|shard| name::is_file(shard) && !shard.contains('/')) {
            Some(shard) if !shards.iter().any(|known| known == shard) => shards.push(shard.to_owned()),
            Some(_) => {}
            None => return Err(wrong(shard.to_string())),
        }
    }
    Ok(shards)
}

/// The commit that a revision means, as far as the cache knows.
fn cached_sha(cache: &Cache, named: &CacheRepo, name: &HubName) -> Option<String> {
    let reference = cache.path().join(repository(name, &name.revision).folder_name()).join("refs");
    let sha = std::fs::read_to_string(reference.join(&name.revision)).ok().map(|sha| sha.trim().to_owned());
    // A commit needs no name.
    sha.filter(|sha| name::is_commit(sha))
        .or_else(|| Some(name.revision.clone()).filter(|sha| name::is_commit(sha)))
        .filter(|sha| named.pointer_path(sha).is_dir())
}

fn not_cached(name: &HubName, cache: &Path, what: &str) -> Error {
    Error::missing(format!("{name}: offline, and the cache {} lacks {what}", cache.display()))
        .remedy("fetch it once without HF_HUB_OFFLINE")
}

fn not_there(name: &HubName, file: &str, files: &std::collections::BTreeSet<String>) -> Error {
    let ggufs: Vec<&str> = files.iter().map(String::as_str).filter(|file| file.ends_with(".gguf")).collect();
    let error =
        Error::input(format!("{name}: {file}: expected a file of the model, found none of this name"));
    match ggufs.as_slice() {
        [] => error,
        [first, ..] => error.remedy(format!(
            "it has GGUF files; name one: hub:{}:{first}{}",
            name.repository,
            if ggufs.len() > 1 { format!(" (or {} others)", ggufs.len() - 1) } else { String::new() }
        )),
    }
}

/// Says that something is being fetched, where no bar does.
fn say(line: &str) {
    output::note(line);
}
