//! Models of the hub by name, from a server on this machine: fetched once, complete, and then without the hub.
#![cfg(unix)]

mod case;
mod hub_server;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use case::{embedded_model, ended, text};
use hub_server::{COMMIT, Server};
use tempfile::TempDir;

const NAME: &str = "hub:some-one/stories";

fn files(names: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let read =
        |name: &&str| (name.to_string(), fs::read(embedded_model().join(name)).expect("the embedded model"));
    names.iter().map(read).collect()
}

/// A server with the embedded model, and an empty cache.
struct Hub {
    server: Server,
    home: TempDir,
}

impl Hub {
    fn new() -> Hub {
        let mut files = files(&["config.json", "model.safetensors", "tokenizer.json"]);
        // Nothing asks for these.
        files.insert("pytorch_model.bin".into(), vec![1]);
        files.insert("README.md".into(), b"# A model".to_vec());
        Hub { server: Server::new(files), home: tempfile::tempdir().expect("a temporary folder") }
    }

    fn eval(&self, model: &str, set: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for variable in [
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(variable);
        }
        command
            .env("HF_HOME", self.home.path())
            .env("HF_ENDPOINT", &self.server.endpoint)
            .envs(set.iter().copied());
        command.args(["eval", "--windows=1", "--context=16", "--threads=1", "--model", model, "--text"]);
        command.arg(embedded_model().join("held_out.txt")).stdin(Stdio::null());
        command.output().expect("the program starts")
    }

    fn asked(&self) -> Vec<String> {
        self.server.state().asked.drain(..).map(|(name, _)| name).collect()
    }

    fn snapshot(&self, file: &str) -> PathBuf {
        self.home.path().join("hub/models--some-one--stories/snapshots").join(COMMIT).join(file)
    }
}

#[test]
fn a_model_is_fetched_once_and_then_read_from_the_cache_also_offline() {
    let hub = Hub::new();
    let folder = embedded_model();
    let expected = hub.eval(folder.to_str().expect("UTF-8"), &[]);
    let fetched = hub.eval(NAME, &[("HF_TOKEN", "secret")]);
    let stderr = ended(&fetched, 0);
    assert!(stderr.contains("downloading some-one/stories: model.safetensors, 2.51 MiB"), "{stderr}");
    assert_eq!(text(&fetched.stdout), text(&expected.stdout));
    let mut asked = hub.asked();
    asked.dedup();
    assert_eq!(asked, ["config.json", "tokenizer.json", "model.safetensors"]);
    assert_eq!(hub.server.state().token.as_deref(), Some("Bearer secret"));
    assert_eq!(fs::read(hub.snapshot("config.json")).ok(), fs::read(folder.join("config.json")).ok());

    // All of it is there: by the branch, by the commit, with the hub and without.
    for (name, set) in [
        (NAME.to_owned(), &[][..]),
        (NAME.to_owned(), &[("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", "http://127.0.0.1:1")]),
        (format!("{NAME}@{COMMIT}"), &[("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", "http://127.0.0.1:1")]),
    ] {
        let again = hub.eval(&name, set);
        assert_eq!(ended(&again, 0), "");
        assert_eq!(text(&again.stdout), text(&expected.stdout));
        assert_eq!(hub.asked(), Vec::<String>::new());
    }
    // The hub's own library writes no name for a commit.
    fs::remove_dir_all(hub.home.path().join("hub/models--some-one--stories/refs")).expect("removable");
    ended(&hub.eval(&format!("{NAME}@{COMMIT}"), &[("HF_HUB_OFFLINE", "1")]), 0);
}

#[test]
fn what_is_not_there_is_named() {
    let hub = Hub::new();
    let stderr = ended(&hub.eval(NAME, &[("HF_HUB_OFFLINE", "1")]), 3);
    assert!(
        stderr.contains("some-one/stories: offline, and the cache ") && stderr.contains("the revision main"),
        "{stderr}"
    );
    let stderr = ended(&hub.eval("hub:some-one/else", &[]), 2);
    assert!(stderr.contains("some-one/else: its list of files: request error: http status: 404"), "{stderr}");
    let stderr = ended(&hub.eval(&format!("{NAME}@v9"), &[]), 2);
    assert!(stderr.contains("some-one/stories@v9: its list of files"), "{stderr}");
    let stderr = ended(&hub.eval(&format!("{NAME}:none.gguf"), &[]), 2);
    assert!(stderr.contains("some-one/stories: none.gguf: expected a file of the model"), "{stderr}");
    let stderr = ended(&hub.eval("hub:some-one", &[]), 2);
    assert!(stderr.contains("expected hub:OWNER/NAME"), "{stderr}");
    let stderr = ended(&hub.eval(NAME, &[("HF_ENDPOINT", "http://127.0.0.1:1")]), 3);
    assert!(stderr.contains("some-one/stories: its list of files: request error"), "{stderr}");

    hub.server.state().files.remove("model.safetensors");
    hub.server.state().files.insert("q8/model-Q8_0.gguf".into(), vec![0; 64]);
    let stderr = ended(&hub.eval(NAME, &[]), 2);
    assert!(stderr.contains("model.safetensors: expected a file of the model"), "{stderr}");
    assert!(stderr.contains("name one: hub:some-one/stories:q8/model-Q8_0.gguf"), "{stderr}");
    // One that is fetched alone.
    hub.asked();
    let stderr = ended(&hub.eval(&format!("{NAME}:q8/model-Q8_0.gguf"), &[]), 2);
    assert!(stderr.contains("magic number"), "{stderr}");
    assert!(hub.asked().iter().all(|name| name == "q8/model-Q8_0.gguf"));
}

#[test]
fn a_broken_line_is_taken_up_where_it_broke() {
    let hub = Hub::new();
    hub.server.state().breaks_after = Some(100_000);
    ended(&hub.eval(NAME, &[]), 0);
    let ranges: Vec<String> =
        hub.server.state().asked.iter().map(|(name, range)| format!("{name} {range}")).collect();
    assert!(ranges.contains(&"model.safetensors bytes=100000-".to_owned()), "{ranges:?}");

    // Of a run that was killed: a part, and a part that is whole.
    let blob = fs::canonicalize(hub.snapshot("model.safetensors")).expect("a link");
    let whole = fs::read(&blob).expect("readable");
    for kept in [70_000, whole.len(), whole.len() + 1] {
        fs::remove_file(hub.snapshot("model.safetensors")).expect("removable");
        fs::remove_file(&blob).expect("removable");
        let mut part = whole.clone();
        part.resize(kept, 0);
        fs::write(blob.with_extension("part"), part).expect("writable");
        ended(&hub.eval(NAME, &[]), 0);
        assert!(fs::read(&blob).expect("readable") == whole, "{kept}");
    }
}

#[test]
fn damaged_weights_are_removed() {
    let hub = Hub::new();
    hub.server.state().files.retain(|name, _| name == "model.safetensors");
    hub.server.state().files.extend(files(&["config.json", "tokenizer.json"]));
    hub.server.state().damages = false;
    ended(&hub.eval(NAME, &[]), 0);
    fs::remove_dir_all(hub.home.path().join("hub/models--some-one--stories/blobs")).expect("removable");
    fs::remove_file(hub.snapshot("model.safetensors")).expect("removable");
    hub.server.state().damages = true;
    // Small files come damaged, too, and are what they are: only the weights have a digest.
    for name in ["config.json", "tokenizer.json"] {
        fs::remove_file(hub.snapshot(name)).expect("removable");
        fs::copy(embedded_model().join(name), hub.snapshot(name)).expect("writable");
    }
    let stderr = ended(&hub.eval(NAME, &[]), 1);
    assert!(stderr.contains("some-one/stories: model.safetensors: expected the SHA-256"), "{stderr}");
    assert!(!hub.snapshot("model.safetensors").exists());
    hub.server.state().damages = false;
    ended(&hub.eval(NAME, &[]), 0);
}

#[test]
fn shards_are_fetched_by_their_index() {
    let hub = Hub::new();
    let weights = hub.server.state().files.remove("model.safetensors").expect("there");
    let names: Vec<String> = {
        let header = u64::from_le_bytes(weights[..8].try_into().expect("8 bytes")) as usize;
        let header: serde_json::Value = serde_json::from_slice(&weights[8..8 + header]).expect("JSON");
        header
            .as_object()
            .expect("an object")
            .keys()
            .filter(|name| *name != "__metadata__")
            .cloned()
            .collect()
    };
    let map: BTreeMap<&String, &str> = names.iter().map(|name| (name, "part-1.safetensors")).collect();
    let index = |map: &serde_json::Value| serde_json::json!({ "weight_map": map }).to_string().into_bytes();
    let insert = |name: &str, bytes: Vec<u8>| hub.server.state().files.insert(name.to_owned(), bytes);
    insert("part-1.safetensors", weights);
    insert("model.safetensors.index.json", index(&serde_json::json!(map)));
    ended(&hub.eval(NAME, &[]), 0);
    assert!(hub.snapshot("part-1.safetensors").exists());

    let hub = Hub::new();
    hub.server.state().files.remove("model.safetensors");
    let evil = index(&serde_json::json!({ "a": "../../evil" }));
    hub.server.state().files.insert("model.safetensors.index.json".into(), evil);
    let stderr = ended(&hub.eval(NAME, &[]), 2);
    assert!(stderr.contains("weight_map: expected the names of files"), "{stderr}");
}
