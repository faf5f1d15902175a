//! Target descriptions: what one kind of device is, as `targets/NAME.toml` or any `FILE.toml` says it.
//!
//! A description is data only. It says which compiler triples serve the device, which kernel layout its containers have,
//! which program runs them, and how far a device's numbers may be from the host's. Unknown fields are refused, so that a
//! misspelt bound is an error and not a bound that is never applied.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::board::Board;
use crate::error::Error;
use crate::image::description::ImageDescription;
use crate::root;

/// One kind of device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// Short name, lower case with digits and hyphens; the file's name without `.toml` in `targets/`.
    pub(crate) name: String,
    /// One sentence for people.
    pub(crate) description: String,
    /// Instruction set.
    pub(crate) architecture: Architecture,
    /// Compiler triples in the order they are tried; the first that a toolchain can build is taken.
    pub(crate) triples: Vec<String>,
    /// `-C target-cpu`: the oldest processor the program must run on. `generic` is the architecture's baseline.
    pub(crate) cpu: String,
    /// Layout of the weights in the container.
    pub(crate) layout: Layout,
    /// Memory that a model may take in all, in bytes; no limit where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    /// The program that runs the container.
    pub(crate) runner: Runner,
    /// Processors emulated for the table that `pack` prints. Empty: the program is run without emulation.
    #[serde(default)]
    pub(crate) qemu_cpus: Vec<String>,
    /// Processors emulated by `cargo xtask test`.
    #[serde(default)]
    pub(crate) test_cpus: Vec<String>,
    /// How far the device's numbers may be from the host's.
    pub(crate) bounds: Bounds,
    /// Where the image of a device without an operating system lies, and what emulates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<ImageDescription>,
    /// How fast the device is, where it is one board and not a kind of boards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) board: Option<Board>,
}

/// Instruction sets with kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Architecture {
    /// 64-bit ARM.
    #[serde(rename = "aarch64")]
    Aarch64,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// Microcontrollers: Cortex-M4 and M7.
    #[serde(rename = "thumbv7em")]
    ThumbV7em,
}

impl Architecture {
    /// The name, as triples spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Architecture::Aarch64 => "aarch64",
            Architecture::X86_64 => "x86_64",
            Architecture::ThumbV7em => "thumbv7em",
        }
    }
}

/// Layouts of the weights in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Layout {
    /// Row after row: the portable reference.
    #[serde(rename = "rows")]
    #[value(name = "rows")]
    Rows,
    /// Tiles of eight rows, four columns at a time.
    #[serde(rename = "nr8k4")]
    #[value(name = "nr8k4")]
    Nr8k4,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Rows => "rows",
            Layout::Nr8k4 => "nr8k4",
        })
    }
}

impl From<Layout> for rescomp_formats::layouts::Layout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Rows => rescomp_formats::layouts::Layout::Rows,
            Layout::Nr8k4 => rescomp_formats::layouts::Layout::Nr8k4,
        }
    }
}

/// Programs that run a container on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Runner {
    /// The crate `targets/linux`: program `rescomp`.
    #[serde(rename = "linux")]
    Linux,
    /// The crate `targets/cortex-m`: an image with the container in it.
    #[serde(rename = "cortex-m")]
    CortexM,
    /// The crate `targets/bare-aarch64`: likewise.
    #[serde(rename = "bare-aarch64")]
    BareAarch64,
}

impl Runner {
    /// Package and program, as cargo names them.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Runner::Linux => "rescomp",
            Runner::CortexM => "rescomp-cortex-m",
            Runner::BareAarch64 => "rescomp-bare-aarch64",
        }
    }

    /// The name in a description.
    fn name(self) -> &'static str {
        match self {
            Runner::Linux => "linux",
            Runner::CortexM => "cortex-m",
            Runner::BareAarch64 => "bare-aarch64",
        }
    }
}

/// How far a device's numbers may be from those the host measured; all per token, over the embedded check windows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bounds {
    /// Mean negative log-likelihood: absolute difference in nats a token.
    pub(crate) nll_difference: f64,
    /// Mean Kullback-Leibler divergence from the full-precision model: absolute difference in nats a token.
    pub(crate) kl_difference: f64,
    /// Share of tokens with the same most likely next token: absolute difference, between 0 and 1.
    pub(crate) same_top1_difference: f64,
    /// The digest of the logits.
    pub(crate) digest: Digest,
}

/// What is asked of the digest of a device's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Digest {
    /// The same as the host's: every logit is equal bit for bit.
    #[serde(rename = "equal")]
    Equal,
}

impl Target {
    /// The target that the command line means: a path where it ends in `.toml` or has a slash, otherwise a name in
    /// `targets/`.
    ///
    /// # Errors
    /// `Exit::Missing` when there is no such file (the message lists the names there are), `Exit::Input` when it is not a
    /// valid description (the message names file, line and field) or asks for 32-bit ARM.
    pub(crate) fn load(argument: &str) -> Result<Target, Error> {
        if argument.ends_with(".toml") || argument.contains(['/', '\\']) {
            return Target::read(Path::new(argument));
        }
        let folder = root::targets_directory(&root::root()?);
        let file = folder.join(format!("{argument}.toml"));
        if file.is_file() {
            return Target::read(&file);
        }
        refuse_32_bit_arm(argument)?;
        let names: Vec<String> = names(&folder)?;
        Err(Error::missing(format!("no target is called `{argument}`; there are {}", names.join(", ")))
            .remedy(
                "give one of these names, or the path of a file that ends in .toml (see targets/README.md)",
            ))
    }

    /// Reads one description.
    ///
    /// # Errors
    /// As [`Target::load`].
    pub(crate) fn read(file: &Path) -> Result<Target, Error> {
        let text = std::fs::read_to_string(file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                Error::missing(format!("no target description {}", file.display())).caused_by(&source)
            }
            std::io::ErrorKind::InvalidData => {
                Error::input(format!("{} is not UTF-8 text", file.display())).caused_by(&source)
            }
            _ => Error::disk("read", file, &source),
        })?;
        Target::parse(&text, &file.display().to_string())
    }

    /// Parses a description; `file` is its name for messages.
    ///
    /// # Errors
    /// `Exit::Input` naming file, line and field.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Target, Error> {
        // First the architecture alone: 32-bit ARM is a question with an answer, not a misspelt word.
        if let Ok(table) = text.parse::<toml::Table>() {
            let architecture = table.get("architecture").and_then(toml::Value::as_str).into_iter();
            let triples = table.get("triples").and_then(toml::Value::as_array).into_iter().flatten();
            // A microcontroller's architecture is a word of 32-bit ARM too; its triple tells that it has no Linux.
            let triples: Vec<&str> = triples.filter_map(toml::Value::as_str).collect();
            let bare = !triples.is_empty() && triples.iter().all(|triple| triple.contains("-none"));
            for word in architecture.filter(|_| !bare).chain(triples) {
                refuse_32_bit_arm(word).map_err(|error| error.because(format!("asked for by {file}")))?;
            }
        }
        let target: Target =
            toml::from_str(text).map_err(|error| Error::input(place_of(&error, text, file)))?;
        target.validate().map_err(|(field, problem)| Error::input(format!("{file}: {field}: {problem}")))?;
        Ok(target)
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err((
                "name",
                format!("expected lower-case letters, digits and hyphens, found `{}`", self.name),
            ));
        }
        if self.triples.is_empty() {
            return Err(("triples", "expected at least one compiler triple, found none".to_owned()));
        }
        for triple in &self.triples {
            let (first, rest) = triple.split_once('-').unwrap_or((triple, ""));
            if first != self.architecture.name() {
                let expected = self.architecture.name();
                return Err((
                    "triples",
                    format!("expected one that begins with `{expected}-`, found `{triple}`"),
                ));
            }
            let (system, kind) = match self.runner {
                Runner::Linux => ("linux", "a Linux triple"),
                Runner::CortexM | Runner::BareAarch64 => ("none", "a triple without an operating system"),
            };
            if !rest.contains(system) {
                let name = self.runner.name();
                return Err(("triples", format!("the runner `{name}` needs {kind}, found `{triple}`")));
            }
        }
        match (&self.image, self.runner) {
            (None, Runner::Linux) => {}
            (Some(_), Runner::Linux) => {
                return Err(("image", "the runner `linux` has a program, not an image".to_owned()));
            }
            (None, _) => {
                return Err(("image", format!("the runner `{}` needs one, found none", self.runner.name())));
            }
            (Some(image), _) => image.validate()?,
        }
        if self.cpu.is_empty() {
            return Err(("cpu", "expected a processor's name or `generic`, found nothing".to_owned()));
        }
        if let Some(board) = &self.board {
            board.validate()?;
        }
        if self.memory_bytes == Some(0) {
            return Err(("memory_bytes", "expected a number of bytes above 0, found 0".to_owned()));
        }
        for (field, bound, largest) in [
            ("bounds.nll_difference", self.bounds.nll_difference, f64::MAX),
            ("bounds.kl_difference", self.bounds.kl_difference, f64::MAX),
            ("bounds.same_top1_difference", self.bounds.same_top1_difference, 1.0),
        ] {
            if !(0.0..=largest).contains(&bound) {
                return Err((field, format!("expected a finite number of at least 0, found {bound}")));
            }
        }
        Ok(())
    }
}

/// The names of the targets in `folder`, sorted.
///
/// # Errors
/// `Exit::Disk` when the folder cannot be listed.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let files = files(folder)?;
    Ok(files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect())
}

/// The descriptions in `folder`, sorted by name.
///
/// # Errors
/// `Exit::Disk` when the folder cannot be listed.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source: &std::io::Error| Error::disk("list", folder, source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|source| failed(&source))? {
        let path = entry.map_err(|source| failed(&source))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    // By name: a hyphen sorts before the dot of `.toml`.
    files.sort_by_key(|file| file.file_stem().map(std::ffi::OsStr::to_owned));
    Ok(files)
}

/// Refuses 32-bit ARM Linux by name; other words pass. Bare-metal triples (`thumbv7em-none-eabihf`) are no Linux.
fn refuse_32_bit_arm(word: &str) -> Result<(), Error> {
    let architecture = word.split('-').next().unwrap_or(word);
    let arm = architecture.starts_with("arm") && !architecture.starts_with("arm64");
    let thumb = architecture.starts_with("thumb") && (word == architecture || word.contains("linux"));
    if (arm && !word.contains("-none")) || thumb {
        return Err(Error::input(format!(
            "{word}: 32-bit ARM Linux isn't supported; use a 64-bit system (aarch64)"
        )));
    }
    Ok(())
}

/// File, line, field and problem, in one line.
fn place_of(error: &toml::de::Error, text: &str, file: &str) -> String {
    let message = error.message().replace('\n', "; ");
    let Some(span) = error.span() else { return format!("{file}: {message}") };
    let before = text.get(..span.start).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    match line.split_once('=') {
        Some((field, _)) if !line.starts_with('#') => format!("{file}:{number}: {}: {message}", field.trim()),
        _ => format!("{file}:{number}: {message}"),
    }
}

/// The name of this machine's target.
///
/// # Errors
/// `Exit::Missing` on other machines than 64-bit Linux ones.
pub(crate) fn of_host() -> Result<&'static str, Error> {
    match (std::env::consts::ARCH, std::env::consts::OS) {
        ("x86_64", "linux") => Ok("x86-64-linux"),
        ("aarch64", "linux") => Ok("aarch64"),
        (architecture, system) => {
            Err(Error::missing(format!("no target runs on this machine ({architecture}, {system})")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    const GOOD: &str = r#"
name = "board"
description = "A board."
architecture = "aarch64"
triples = ["aarch64-unknown-linux-gnu"]
cpu = "generic"
layout = "nr8k4"
runner = "linux"
[bounds]
nll_difference = 1e-6
kl_difference = 1e-6
same_top1_difference = 0.0
digest = "equal"
"#;

    fn refused(from: &str, to: &str) -> String {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "the replacement found nothing");
        let error = Target::parse(&text, "t.toml").expect_err("refused");
        assert_eq!(error.exit(), Exit::Input);
        error.to_string()
    }

    #[test]
    fn a_description_is_read_and_survives_being_written() {
        let target = Target::parse(GOOD, "t.toml").expect("valid");
        assert_eq!((target.layout, target.memory_bytes), (Layout::Nr8k4, None));
        let written = toml::to_string(&target).expect("serializable");
        assert_eq!(Target::parse(&written, "written").expect("valid"), target);
    }

    #[test]
    fn errors_name_file_line_and_field() {
        assert!(refused("cpu = \"generic\"", "cpu = 7").starts_with("t.toml:6: cpu: "));
        assert!(refused("layout = \"nr8k4\"", "layout = \"nr9\"").starts_with("t.toml:7: layout: "));
        assert!(refused("cpu", "cpus").contains("unknown field `cpus`"));
        assert!(refused("runner = \"linux\"\n", "").contains("missing field `runner`"));
        assert!(refused("nll_difference = 1e-6\n", "").contains("missing field `nll_difference`"));
        assert!(refused("nll_difference = 1e-6", "nll_difference = -1.0").contains("bounds.nll_difference"));
        assert!(refused("nll_difference = 1e-6", "nll_difference = nan").contains("bounds.nll_difference"));
        assert!(refused("= 0.0", "= 1.5").contains("bounds.same_top1_difference"));
        assert!(refused("[\"aarch64-unknown-linux-gnu\"]", "[]").contains("triples"));
        assert!(refused("aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu").contains("`aarch64-`"));
        assert!(refused("aarch64-unknown-linux-gnu", "aarch64-unknown-none").contains("Linux triple"));
        assert!(refused("name = \"board\"", "name = \"../x\"").contains("name: "));
        assert!(refused("cpu =", "memory_bytes = 0\ncpu =").contains("memory_bytes"));
        assert!(refused("[bounds]", "[bounds").starts_with("t.toml:9"));
    }

    #[test]
    fn an_image_is_for_what_has_no_operating_system() {
        let bare = GOOD
            .replace("aarch64-unknown-linux-gnu", "aarch64-unknown-none")
            .replace("runner = \"linux\"", "runner = \"bare-aarch64\"");
        let error = |text: &str| Target::parse(text, "t.toml").expect_err("refused").to_string();
        assert!(error(&bare).contains("image: the runner `bare-aarch64` needs one"));
        let image = "[image]\ncode = { origin = 0, bytes = 1024 }\nstack_bytes = 64\n[bounds]";
        let whole = bare.replace("[bounds]", image);
        assert!(Target::parse(&whole, "t.toml").expect("valid").image.is_some());
        assert!(error(&GOOD.replace("[bounds]", image)).contains("`linux` has a program, not an image"));
        assert!(error(&whole.replace("bytes = 1024", "bytes = 0")).contains("image.code"));
        let beyond = whole.replace("origin = 0", "origin = 9_223_372_036_854_775_807");
        assert!(Target::parse(&beyond, "t.toml").is_ok());
        assert!(error(&whole.replace("stack_bytes = 64", "")).contains("stack_bytes"));
        let linux = whole.replace("aarch64-unknown-none", "aarch64-unknown-linux-gnu");
        assert!(error(&linux).contains("needs a triple without an operating system"));
    }

    #[test]
    fn arm_of_32_bits_is_refused_by_name_and_nothing_else_is() {
        for word in
            ["armv7", "arm", "armhf", "armv7-unknown-linux-gnueabihf", "thumbv7neon-unknown-linux-gnueabihf"]
        {
            let error = refuse_32_bit_arm(word).expect_err("refused");
            assert_eq!(error.exit(), Exit::Input);
            assert_eq!(
                error.to_string(),
                format!("{word}: 32-bit ARM Linux isn't supported; use a 64-bit system (aarch64)")
            );
        }
        for word in
            ["aarch64", "arm64", "thumbv7em-none-eabihf", "armv7r-none-eabihf", "x86_64-unknown-linux-gnu"]
        {
            assert_eq!(refuse_32_bit_arm(word), Ok(()), "{word}");
        }
        assert!(refused("\"aarch64\"", "\"armv7\"").starts_with("armv7: 32-bit ARM Linux isn't supported"));
        assert!(Target::load("armv7").expect_err("refused").to_string().starts_with("armv7: 32-bit"));
    }

    #[test]
    fn a_missing_target_is_named_with_those_there_are() {
        let error = Target::load("no-such-board").expect_err("missing");
        assert_eq!(error.exit(), Exit::Missing);
        let text = error.to_string();
        assert!(
            text.contains("`no-such-board`")
                && text.contains("aarch64, aarch64-bare, cortex-m7, jetson-nano")
                && text.contains("x86-64-linux"),
            "{text}"
        );
        assert_eq!(Target::load("./none.toml").expect_err("missing").exit(), Exit::Missing);
    }

    #[test]
    fn the_descriptions_in_the_repository_are_valid_and_named_like_their_files() {
        let folder = root::targets_directory(&root::root().expect("in the checkout"));
        let files = files(&folder).expect("listable");
        assert!(files.len() >= 2);
        for file in files {
            let target = Target::read(&file).expect("valid");
            assert_eq!(file.file_stem().and_then(|stem| stem.to_str()), Some(target.name.as_str()));
        }
    }
}
