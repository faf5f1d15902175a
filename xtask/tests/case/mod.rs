//! What tests of `pack` share: a copy of the embedded model to change, an output folder, and scripts that stand for the compiler.
#![allow(dead_code, reason = "each test file is a program of its own, and none uses all of it")]
#![allow(unreachable_pub, reason = "shared by test files, each of which is a program of its own")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

pub fn embedded_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8 output")
}

/// A safetensors file: each tensor's name, header entry and bytes.
pub struct Safetensors(pub Vec<(String, Value, Vec<u8>)>);

impl Safetensors {
    pub fn read(path: &Path) -> Safetensors {
        let file = fs::read(path).expect("readable");
        let (length, rest) = file.split_at(8);
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
        let header: Map<String, Value> = serde_json::from_slice(&rest[..length]).expect("JSON");
        let bound =
            |entry: &Value, index: usize| entry["data_offsets"][index].as_u64().expect("a number") as usize;
        let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, entry)| {
            let bytes = rest[length..][bound(&entry, 0)..bound(&entry, 1)].to_vec();
            (name, entry, bytes)
        });
        Safetensors(tensors.collect())
    }

    fn write(mut self, path: &Path) {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, entry, bytes) in &mut self.0 {
            entry["data_offsets"] = json!([data.len(), data.len() + bytes.len()]);
            data.extend_from_slice(bytes);
            header.insert(name.clone(), entry.clone());
        }
        let header = Value::from(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&data);
        fs::write(path, file).expect("writable");
    }

    pub fn tensor(&mut self, name: &str) -> &mut (String, Value, Vec<u8>) {
        self.0.iter_mut().find(|tensor| tensor.0 == name).expect("the tensor")
    }
}

/// A copy of the embedded model, an output folder, and a compiler made of scripts.
pub struct Case(TempDir);

impl Case {
    pub fn new() -> Case {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = folder.path().join("model");
        fs::create_dir(&model).expect("writable");
        for name in ["config.json", "model.safetensors", "tokenizer.json", "calibration.txt"] {
            fs::copy(embedded_model().join(name), model.join(name)).expect("the embedded model");
        }
        Case(folder)
    }

    /// One layer of the embedded model, with a compiler.
    pub fn one_layer() -> Case {
        let kept = |name: &str| !name.starts_with("model.layers.") || name.starts_with("model.layers.0.");
        Case::new()
            .json("config.json", |config| config["num_hidden_layers"] = json!(1))
            .weights(|file| file.0.retain(|tensor| kept(&tensor.0)))
            .compiler()
    }

    /// `pack` of this model into a folder, with these options alone.
    pub fn pack_into(&self, output: &str, options: &[&[&str]]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        self.surround(&mut command);
        command.args(["pack", "--model"]).arg(self.path("model")).arg("--output").arg(self.path(output));
        command.args(options.concat()).output().expect("the program starts")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn weights(self, change: impl FnOnce(&mut Safetensors)) -> Case {
        let path = self.path("model/model.safetensors");
        let mut tensors = Safetensors::read(&path);
        change(&mut tensors);
        tensors.write(&path);
        self
    }

    pub fn json(self, name: &str, change: impl FnOnce(&mut Value)) -> Case {
        let path = self.path("model").join(name);
        let mut value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
        change(&mut value);
        fs::write(path, value.to_string()).expect("writable");
        self
    }

    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Case {
        fs::write(self.path("model").join(name), contents).expect("writable");
        self
    }

    /// `pack` of this model, where nothing but the scripts of [`Case::compiler`] is on the search path.
    pub fn pack(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        self.surround(&mut command);
        command.arg("pack").args(self.arguments()).args(arguments);
        command
    }

    pub fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).to_str().expect("UTF-8").to_owned();
        let model = ["--model".to_owned(), path("model"), "--output".to_owned(), path("out")];
        // Little work, on the host's own kind of machine.
        let quick =
            "--target x86-64-linux --no-install --no-check --method rtn --context 64 --calibration-windows 2";
        model.into_iter().chain(quick.split(' ').map(str::to_owned)).collect()
    }

    pub fn surround(&self, command: &mut Command) {
        for variable in ["RUSTC", "CARGO", "RUSTUP_TOOLCHAIN"] {
            command.env_remove(variable);
        }
        command
            .env("PATH", self.path("bin"))
            .env("CARGO_TARGET_DIR", self.path("target"))
            .stdin(Stdio::null());
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("writable");
    }

    /// A compiler for 64-bit x86 and a cargo that "builds" a program of one line.
    pub fn compiler(self) -> Case {
        let libraries = self.path("libraries");
        fs::create_dir(&libraries).expect("writable");
        fs::write(libraries.join("libcore-1.rlib"), "").expect("writable");
        self.script(
            "rustc",
            &format!(
                "case \"$*\" in\n\
                 '--print sysroot') echo '{}';;\n\
                 '-vV') echo 'host: x86_64-unknown-linux-gnu'; echo 'release: 1.99.0';;\n\
                 '--print target-libdir'*) echo '{}';;\n\
                 *--edition*) ;;\n\
                 *) exit 1;;\nesac",
                self.path("sysroot").display(),
                libraries.display()
            ),
        );
        let built = self.path("target/cross-x86_64-unknown-linux-gnu/x86_64-unknown-linux-gnu/release");
        self.script(
            "cargo",
            &format!("PATH=/usr/bin:/bin\nmkdir -p '{0}' && echo program > '{0}/rescomp'", built.display()),
        );
        self
    }

    /// Expects this exit code and a message with all of `parts`; nothing may lie in the output folder.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str], code: i32, parts: &[&str]) {
        let output = self.pack(arguments).output().expect("the program starts");
        let stderr = ended(&output, code);
        assert!(stderr.contains("error: "), "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "expected `{part}` in:\n{stderr}");
        }
        assert_eq!(self.written(), Vec::<String>::new(), "partial files");
        assert!(!self.path("target").exists(), "something was built");
    }

    /// Names in the output folder, hidden ones too.
    pub fn written(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("out")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("listable").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

/// The report of a run that must succeed with `--json`.
#[track_caller]
pub fn report(output: &Output) -> Value {
    ended(output, 0);
    serde_json::from_str(&text(&output.stdout)).expect("JSON")
}

/// Checks the exit code, and that nothing for a terminal was printed; returns standard error.
#[track_caller]
pub fn ended(output: &Output, code: i32) -> String {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "\nstdout:\n{stdout}\nstderr:\n{stderr}");
    assert!(
        !stdout.contains(['\u{1b}', '\r']) && !stderr.contains(['\u{1b}', '\r']),
        "escape codes in a pipe"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}
