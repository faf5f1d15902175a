//! What a folder of sentence-transformers says beside `config.json`: how an encoder's vectors are made.
//!
//! ```text
//! modules.json                        the steps: Transformer, Pooling, and Normalize where vectors are divided by their length
//! 1_Pooling/config.json               the mean, or the first token's state
//! sentence_bert_config.json           tokens of a text at most
//! config_sentence_transformers.json   no text in front of every text
//! ```
//! Without `modules.json` a folder is a plain encoder, whose vectors are means, as sentence-transformers makes them then.

use std::path::Path;

use rescomp_formats::spec::{ModelSpec, Output, Pooling};
use serde_json::{Map, Value};

use super::super::{CheckpointError, read_capped};
use super::fields::{Fields, brief};
use super::{MAX_CONFIG_BYTES, MAX_CONTEXT, MAX_HIDDEN};

/// How tokens become one vector, as the files call it.
const POOLINGS: &str = "mean, cls";

/// Completes the spec of an encoder by the files beside its `config.json`: the pooling, and the longest text.
///
/// # Errors
/// A file that is there cannot be read, or asks for a step, a pooling or a setting that this crate does not do.
pub(in super::super) fn complete(folder: &Path, spec: &mut ModelSpec) -> Result<(), CheckpointError> {
    let Output::Vector(embedding) = &mut spec.output else { return Ok(()) };
    let modules = folder.join("modules.json");
    if modules.is_file() {
        let list: Vec<Map<String, Value>> = json(&modules)?;
        let mut pooled = None;
        embedding.normalized = false;
        for (index, module) in list.iter().enumerate() {
            let fields = Fields { path: &modules, prefix: "", object: module };
            let kind = fields.text("type")?.unwrap_or_default();
            let path = fields.text("path")?.unwrap_or_default();
            match (index, kind.rsplit('.').next().unwrap_or_default()) {
                (0, "Transformer") if path.is_empty() => {}
                (0, "Transformer") => {
                    return Err(fields.unsupported("path", path, "weights in the folder itself"));
                }
                (1, "Pooling") if is_plain_name(path) => {
                    pooled = Some(pooling(&folder.join(path).join("config.json"), spec.hidden)?);
                }
                (1, "Pooling") => {
                    return Err(fields.wrong("path", "the name of a folder in this one".into(), path));
                }
                (2, "Normalize") => embedding.normalized = true,
                _ => {
                    let supported = "Transformer, Pooling and, where there is a third, Normalize";
                    return Err(fields.unsupported("type", kind, supported));
                }
            }
        }
        let Some(pooled) = pooled else {
            let empty = Map::new();
            let fields = Fields { path: &modules, prefix: "", object: &empty };
            return Err(fields.wrong("type", "Transformer, then Pooling".into(), "no Pooling"));
        };
        embedding.pooling = pooled;
    }
    let settings = folder.join("sentence_bert_config.json");
    if settings.is_file() {
        let object: Map<String, Value> = json(&settings)?;
        let fields = Fields { path: &settings, prefix: "", object: &object };
        super::only(&fields, &[("do_lower_case", false)])?;
        if let Some(longest) = fields.optional_size("max_seq_length", MAX_CONTEXT)? {
            spec.context = spec.context.min(longest);
        }
    }
    let prompts = folder.join("config_sentence_transformers.json");
    if prompts.is_file() {
        let object: Map<String, Value> = json(&prompts)?;
        let fields = Fields { path: &prompts, prefix: "", object: &object };
        if let Some(name) = fields.get("default_prompt_name") {
            return Err(fields.unsupported("default_prompt_name", &brief(name), "null"));
        }
    }
    Ok(())
}

/// How the tokens' states become one vector.
fn pooling(path: &Path, hidden: u32) -> Result<Pooling, CheckpointError> {
    let object: Map<String, Value> = json(path)?;
    let fields = Fields { path, prefix: "", object: &object };
    for key in ["word_embedding_dimension", "embedding_dimension"] {
        if let Some(width) = fields.optional_size(key, MAX_HIDDEN)?.filter(|width| *width != hidden) {
            return Err(fields.wrong(key, format!("hidden_size = {hidden}"), width));
        }
    }
    if let Some(name) = fields.text("pooling_mode")? {
        return match name {
            "mean" => Ok(Pooling::Mean),
            "cls" => Ok(Pooling::Cls),
            other => Err(fields.unsupported("pooling_mode", other, POOLINGS)),
        };
    }
    let mut chosen = None;
    for key in object.keys().filter(|key| key.starts_with("pooling_mode_")) {
        if !fields.flag_or(key, false)? {
            continue;
        }
        let pooling = match key.as_str() {
            "pooling_mode_mean_tokens" => Pooling::Mean,
            "pooling_mode_cls_token" => Pooling::Cls,
            _ => return Err(fields.unsupported(key, "true", POOLINGS)),
        };
        // Several are several vectors, one behind the other.
        if chosen.replace(pooling).is_some() {
            return Err(fields.unsupported(key, "true beside another", "one way to pool"));
        }
    }
    chosen.ok_or_else(|| fields.wrong("pooling_mode", format!("one of {POOLINGS}"), "nothing"))
}

/// Whether a name leads nowhere but into the folder.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none()
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let text = read_capped(path, MAX_CONFIG_BYTES)?;
    let failed = |cause| CheckpointError::Json { path: path.to_owned(), part: "whole file", cause };
    serde_json::from_slice(&text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_formats::spec::TextEmbedding;
    use serde_json::json;
    use std::fs;

    fn spec() -> ModelSpec {
        let config = json!({
            "model_type": "bert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 64,
        });
        super::super::HfConfig::parse(Path::new("config.json"), config.to_string().as_bytes()).unwrap().spec
    }

    /// The spec, completed by these files.
    fn completed(files: &[(&str, Value)]) -> Result<ModelSpec, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents.to_string()).unwrap();
        }
        let mut spec = spec();
        complete(folder.path(), &mut spec).map(|()| spec).map_err(|error| error.to_string())
    }

    fn modules(types: &[(&str, &str)]) -> (&'static str, Value) {
        let of = |(path, kind): &(&str, &str)| json!({ "path": path, "type": format!("sentence_transformers.models.{kind}") });
        ("modules.json", types.iter().map(of).collect())
    }

    const ALL: [(&str, &str); 3] =
        [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")];

    fn pooled(fields: Value) -> (&'static str, Value) {
        ("1_Pooling/config.json", fields)
    }

    #[test]
    fn poolings_and_lengths_are_what_the_files_say() {
        let embedding = |pooling, normalized| Some(TextEmbedding { pooling, normalized });
        assert_eq!(completed(&[]).unwrap().embedding(), embedding(Pooling::Mean, false));
        let mean = pooled(
            json!({ "word_embedding_dimension": 8, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true }),
        );
        let found = completed(&[modules(&ALL), mean.clone()]).unwrap();
        assert_eq!((found.embedding(), found.context), (embedding(Pooling::Mean, true), 64));
        let cls = pooled(json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }));
        let settings = ("sentence_bert_config.json", json!({ "max_seq_length": 20, "do_lower_case": false }));
        let found = completed(&[modules(&ALL[..2]), cls, settings]).unwrap();
        assert_eq!((found.embedding(), found.context), (embedding(Pooling::Cls, false), 20));
        let newer =
            pooled(json!({ "embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": true }));
        assert_eq!(completed(&[modules(&ALL), newer]).unwrap().embedding(), embedding(Pooling::Cls, true));
        let longer = ("sentence_bert_config.json", json!({ "max_seq_length": null }));
        assert_eq!(completed(&[modules(&ALL), mean, longer]).unwrap().context, 64);
    }

    #[test]
    fn what_would_change_the_vectors_is_refused_by_name() {
        let mean = || pooled(json!({ "pooling_mode_mean_tokens": true }));
        let refused = |files: &[(&str, Value)], parts: &[&str]| {
            let error = completed(files).expect_err("refused");
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        let dense = [ALL[0], ALL[1], ("2_Dense", "Dense")];
        refused(
            &[modules(&dense), mean()],
            &["modules.json: type is sentence_transformers.models.Dense", "Normalize"],
        );
        refused(&[modules(&ALL[..1])], &["modules.json: type: expected Transformer, then Pooling"]);
        refused(&[modules(&[("0_BERT", "Transformer"), ALL[1]]), mean()], &["path is 0_BERT"]);
        for path in ["../1_Pooling", "/tmp", "a/b", ""] {
            refused(
                &[modules(&[ALL[0], (path, "Pooling")]), mean()],
                &["path: expected the name of a folder"],
            );
        }
        refused(&[modules(&ALL)], &["1_Pooling/config.json"]);
        let of = |fields| [modules(&ALL), pooled(fields)];
        refused(&of(json!({})), &["pooling_mode: expected one of mean, cls, found nothing"]);
        refused(&of(json!({ "pooling_mode": "lasttoken" })), &["pooling_mode is lasttoken"]);
        refused(&of(json!({ "pooling_mode_max_tokens": true })), &["pooling_mode_max_tokens is true"]);
        let both = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true });
        refused(&of(both), &["true beside another"]);
        let other = json!({ "word_embedding_dimension": 16, "pooling_mode_mean_tokens": true });
        refused(&of(other), &["word_embedding_dimension: expected hidden_size = 8, found 16"]);
        refused(
            &of(json!({ "pooling_mode_mean_tokens": 1 })),
            &["pooling_mode_mean_tokens: expected true or false"],
        );
        let settings = |fields| [("sentence_bert_config.json", fields)];
        refused(&settings(json!({ "do_lower_case": true })), &["do_lower_case is true"]);
        refused(
            &settings(json!({ "max_seq_length": 0 })),
            &["max_seq_length: expected a whole number from 1"],
        );
        let prompt = json!({ "prompts": { "query": "query: " }, "default_prompt_name": "query" });
        refused(&[("config_sentence_transformers.json", prompt)], &["default_prompt_name is \"query\""]);
        refused(&[("modules.json", json!({}))], &["modules.json: whole file"]);
    }
}
