//! A small random model in a container, what the runtime makes of it, and the program to try on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use half::f16;
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::chat_template::{ChatTemplate, SystemTexts, Trimmed};
use rescomp_formats::check_windows::{self, CheckSizes};
use rescomp_formats::container::write::{Contents, write};
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::error::ContainerError;
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::{
    Check, CheckRecord, EmbeddingRecord, ImageRecord, Manifest, Provenance, Text,
};
use rescomp_formats::matrix::{self, CodebookMatrix, MatrixShape};
use rescomp_formats::section::SectionKind;
use rescomp_formats::spec::{self, Architecture, ModelSpec, Variant};
use rescomp_formats::tokenizer::{
    AddedFlags, PreTokenizer, TokenizerExtension, TokenizerParts, write_extended_tokenizer,
};
use rescomp_formats::{check_embeddings, check_images, kept_classes, labels};
use rescomp_runtime::Machine;
use rescomp_runtime::eval::{self, argmax};
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use rescomp_runtime::session::{Limits, Session, SessionPlan};

/// The token that begins a text.
pub(crate) const BEGIN: u32 = 257;
/// Positions of the check window.
pub(crate) const WINDOW: usize = 20;

/// Set where this test program itself runs under QEMU: the program it starts then does, too.
const CPU_VARIABLE: &str = "RESCOMP_EMULATED_CPU";

/// The texts around messages, where a spec says that there are some.
pub(crate) const TEMPLATE: ChatTemplate<'_> = ChatTemplate {
    system: Some(SystemTexts { before: "<begin>s:", after: "<end>u:" }),
    first: "<begin>u:",
    open: "<end>a:",
    answered: "<end>a:",
    next: "<end>u:",
    trimmed: Trimmed { system: false, user: true, answer: false },
    drops_thoughts: false,
    drops_line_breaks: false,
    system_last: false,
    names_date: false,
};

/// The model's shape. No token ends a text, so that its length is known.
pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Llama,
        vocabulary: 260,
        hidden: 64,
        intermediate: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        context: 64,
        norm_epsilon: 1e-5,
        variant: Variant::plain(16),
        tied_head: true,
        embedding_bands: 1,
        begin_token: Some(BEGIN),
        end_tokens: heapless_vec(&[]),
        chat_template: false,
        online: Default::default(),
        output: spec::Output::NextToken,
    }
}

/// End tokens of a spec.
pub(crate) fn heapless_vec<const N: usize>(tokens: &[u32]) -> heapless::Vec<u32, N> {
    heapless::Vec::from_slice(tokens).expect("few enough")
}

/// A container whose record is right.
pub(crate) fn container(spec: &ModelSpec, layout: Layout) -> Vec<u8> {
    container_with(spec, layout, |_| ())
}

/// A container whose record is right but for what `change` does to it.
pub(crate) fn container_with(
    spec: &ModelSpec,
    layout: Layout,
    change: impl FnOnce(&mut CheckRecord),
) -> Vec<u8> {
    let empty = CheckRecord {
        reference_nll: 5.5,
        nll: 0.0,
        mean_kl: 0.0,
        same_top1: 0,
        positions: WINDOW as u32,
        logits_sha256: [0; 32],
    };
    let file = AlignedBytes::new(&written(spec, layout, empty));
    let measured = with_session(&file, WINDOW, |container, session| {
        eval::measure(session, &container.check_windows().expect("windows"), |_| ()).expect("runs")
    });
    let mut record = CheckRecord {
        reference_nll: 5.5,
        nll: measured.nll,
        mean_kl: measured.mean_kl,
        same_top1: measured.same_top1,
        positions: measured.positions,
        logits_sha256: measured.logits_sha256,
    };
    change(&mut record);
    written(spec, layout, record)
}

/// A container with this record.
pub(crate) fn written(spec: &ModelSpec, layout: Layout, check: CheckRecord) -> Vec<u8> {
    written_with(spec, layout, check, 1.0, &TEMPLATE)
}

/// A container with this record, and with the gains of all its norms multiplied.
pub(crate) fn written_with_gain(spec: &ModelSpec, layout: Layout, check: CheckRecord, gain: f32) -> Vec<u8> {
    written_with(spec, layout, check, gain, &TEMPLATE)
}

/// A container with this record, gain and chat template.
pub(crate) fn written_with(
    spec: &ModelSpec,
    layout: Layout,
    check: CheckRecord,
    gain: f32,
    template: &ChatTemplate<'_>,
) -> Vec<u8> {
    written_as(spec, layout, Check::Windows(check), gain, template)
}

/// An encoder's container with this record.
pub(crate) fn written_encoder(spec: &ModelSpec, layout: Layout, check: EmbeddingRecord) -> Vec<u8> {
    written_as(spec, layout, Check::Embeddings(check), 1.0, &TEMPLATE)
}

/// A classifier's container with this record.
pub(crate) fn written_classifier(spec: &ModelSpec, layout: Layout, check: ImageRecord) -> Vec<u8> {
    written_as(spec, layout, Check::Images(check), 1.0, &TEMPLATE)
}

fn written_as(
    spec: &ModelSpec,
    layout: Layout,
    check: Check,
    gain: f32,
    template: &ChatTemplate<'_>,
) -> Vec<u8> {
    let text = |text: &str| Text::try_from(text).expect("short enough");
    let provenance = Provenance {
        checkpoint: text("random"),
        checkpoint_sha256: [0xab; 32],
        method: text("rtn"),
        transform: text("none"),
        bits: 4,
        group_elems: 32,
        head_bits: 8,
        calibration_sha256: [0; 32],
        calibration_tokens: 0,
        target: text("test"),
        tool_version: text("0"),
    };
    let manifest = Manifest { spec: spec.clone(), provenance, check, cache: CacheFormat::default() };
    let mut next = random_numbers();
    write::<ContainerError>(&manifest, |name| {
        Ok(match name.kind {
            SectionKind::Tokenizer => Contents::Bytes(tokenizer_section(spec.architecture.is_encoder())),
            SectionKind::RopeFrequencies => Contents::U64(
                (1..=u64::from(spec.head_dim / 2)).map(|pair| u64::MAX / (7 * pair * pair)).collect(),
            ),
            SectionKind::CheckWindows => Contents::Bytes(check_section(spec)),
            SectionKind::CheckEmbeddings => Contents::Bytes(check_texts_section(spec)),
            SectionKind::CheckImages => Contents::Bytes(check_images_section(spec)),
            SectionKind::Labels => {
                let names = (0..spec.vocabulary).map(|class| format!("class {class}"));
                Contents::Bytes(labels::write(&names.collect::<Vec<String>>()))
            }
            SectionKind::TokenBands => Contents::Bytes(token_bands(spec)),
            SectionKind::ChatTemplate => Contents::Bytes(template.section().expect("short")),
            kind if kind.is_matrix() => {
                let (rows, cols) = kind.shape(spec).unwrap_or_else(|| {
                    let bands = token_bands(spec).into_iter().map(|band| Some(band.into()));
                    (bands.filter(|band| *band == name.layer).count() as u32, spec.hidden)
                });
                // Of an embedding in bands, the first at 8 bits and the others at 4.
                let width = match (kind, name.layer) {
                    (_, None) | (SectionKind::Embedding, Some(0)) => CodeWidth::Int8,
                    _ => CodeWidth::Int4,
                };
                let shape = MatrixShape::new(rows, cols, 32, width, layout).expect("a shape");
                let mut section = vec![0; shape.section_bytes()];
                let (rows, places) = (shape.rows(), shape.rows() * shape.cols());
                let mut scale = |size: f32| f16::from_f32(size * (0.02 + next() as f32 / 65536.0 * 0.05));
                if shape.has_codebook() {
                    let groups = if shape.has_scale_codes() { shape.groups() } else { 0 };
                    let row_scales: Vec<f16> = (0..rows)
                        .map(|_| scale(if groups > 0 { 1.0 / 64.0 } else { 0.5 } / shape.row_scale_unit()))
                        .collect();
                    let codebook = CodebookMatrix {
                        levels: &std::array::from_fn::<i8, 16, _>(|index| 2 * index as i8 - 15),
                        multipliers: std::array::from_fn(|index| u8::from(groups > 0) * (24 + index as u8)),
                        codes: &(0..places).map(|_| (next() % 16) as u8).collect::<Vec<u8>>(),
                        scale_codes: &(0..rows * groups).map(|_| (next() % 16) as u8).collect::<Vec<u8>>(),
                        row_scales: &row_scales,
                    };
                    matrix::pack_codebook(&shape, &codebook, &mut section).expect("packs");
                } else {
                    let scales: Vec<f16> = (0..rows * shape.groups()).map(|_| scale(1.0)).collect();
                    let codes: Vec<i8> = (0..places).map(|_| (next() % 15) as i8 - 7).collect();
                    matrix::pack_scaled(&shape, &codes, &scales, &mut section).expect("packs");
                }
                Contents::Matrix(shape, section)
            }
            kind => {
                let (rows, cols) = kind.shape(spec).expect("rows of numbers");
                let all = 0..rows * cols;
                Contents::F32(all.map(|_| gain * (0.5 + next() as f32 / 65536.0)).collect())
            }
        })
    })
    .expect("a container")
}

/// Tokens in turn.
fn token_bands(spec: &ModelSpec) -> Vec<u8> {
    (0..spec.embedding_bands).cycle().take(spec.vocabulary as usize).collect()
}

/// 16-bit numbers.
fn random_numbers() -> impl FnMut() -> u32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    }
}

/// A tokenizer of the 256 bytes, one merge and two special tokens, which an encoder has around every text.
fn tokenizer_section(around: bool) -> Vec<u8> {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    tokens.extend([b"he".to_vec(), b"<begin>".to_vec(), b"<end>".to_vec()]);
    let parts = TokenizerParts {
        tokens,
        byte_tokens: core::array::from_fn(|byte| byte as u32),
        merges: vec![[104, 101, 256]],
        added_tokens: vec![AddedFlags::plain(257, true, false), AddedFlags::plain(258, true, false)],
        pre_tokenizer: PreTokenizer::Gpt2,
        add_prefix_space: false,
        ignore_merges: false,
    };
    let mut extension = TokenizerExtension::default();
    if around {
        (extension.tokens_before, extension.tokens_after) = (vec![BEGIN], vec![258]);
    }
    write_extended_tokenizer(&parts, &extension).expect("a tokenizer")
}

/// Two texts, and made-up vectors of a full-precision model.
fn check_texts_section(spec: &ModelSpec) -> Vec<u8> {
    let texts = [vec![BEGIN, 97, 98, 258], vec![BEGIN, 99, 258]];
    let vector = |text: u32| (0..spec.hidden).map(|at| ((at + text) % 7) as f32 - 3.0).collect();
    check_embeddings::write(&texts, &[vector(0), vector(1)]).expect("a section")
}

/// Two images of the model's size, and made-up probabilities of a full-precision model.
fn check_images_section(spec: &ModelSpec) -> Vec<u8> {
    let elems = spec.image().expect("a classifier").elems();
    let image = |seed: usize| (0..elems).map(|at| (at * seed % 251) as u8).collect::<Vec<u8>>();
    let (classes, _) = kept_classes::sizes(spec.vocabulary);
    let kept: Vec<(u32, f64)> =
        (0..2 * classes as u32).map(|index| (index % spec.vocabulary, -2.0)).collect();
    check_images::write(&[image(7), image(11)], 1, &[0.25; 2], &kept, spec.vocabulary).expect("a section")
}

/// One window and made-up probabilities of a full-precision model.
fn check_section(spec: &ModelSpec) -> Vec<u8> {
    let sizes = CheckSizes::new(1, WINDOW, spec.vocabulary);
    let tokens: Vec<u32> = (0..=WINDOW as u32).map(|index| index * 37 % spec.vocabulary).collect();
    let kept: Vec<(u32, f64)> =
        (0..(WINDOW * sizes.classes) as u32).map(|index| (index % spec.vocabulary, -5.0)).collect();
    check_windows::write(&sizes, &tokens, &[0.5; WINDOW], &kept).expect("a section")
}

/// Runs `work` with a session of the reference kernels.
pub(crate) fn with_session<R>(
    file: &[u8],
    context: usize,
    work: impl FnOnce(&CheckedContainer<'_>, &mut Session<'_>) -> R,
) -> R {
    let container = Container::open(file).and_then(|file| file.check(Integrity::Digest)).expect("sound");
    let machine = Machine { kernels: kernels::by_name("scalar").expect("scalar"), executor: &Serial };
    let limits = Limits { context, tile: 1 };
    let blocks = SessionPlan::new(&container, limits).expect("a plan").blocks();
    let mut memory = vec![MemoryBlock([0; 64]); blocks as usize];
    let mut session =
        Session::new(&container, machine, limits, ActivationFormat::Int8, &mut memory).expect("a session");
    work(&container, &mut session)
}

/// The most likely continuation of `prompt`, by the reference kernels.
pub(crate) fn continuation(file: &[u8], prompt: &[u32], count: usize) -> Vec<u32> {
    let file = AlignedBytes::new(file);
    with_session(&file, prompt.len() + count, |_, session| {
        let mut tokens = vec![argmax(session.run(prompt).expect("runs"))];
        while tokens.len() < count {
            let last = tokens[tokens.len() - 1];
            tokens.push(argmax(session.run(&[last]).expect("runs")));
        }
        tokens
    })
}

/// The text of the fixture's tokens, with the line ended as `generate` ends it.
pub(crate) fn text_of(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|&token| match token {
            0..256 => vec![token as u8],
            256 => b"he".to_vec(),
            _ => Vec::new(),
        })
        .collect();
    end_line(&String::from_utf8_lossy(&bytes))
}

/// A text with its last line ended.
pub(crate) fn end_line(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// A folder with containers.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("writable");
        path
    }
}

/// The program, with nothing on its standard input.
pub(crate) fn program(command: &str, container: &Path, options: &[&str]) -> Command {
    let mut program = bare_program(command);
    program.arg(container).args(options);
    program
}

/// The program with a command that takes no container.
pub(crate) fn without_container(command: &str, options: &[&str]) -> Command {
    let mut program = bare_program(command);
    program.args(options);
    program
}

fn bare_program(command: &str) -> Command {
    let exe = env!("CARGO_BIN_EXE_rescomp");
    let mut program = match std::env::var(CPU_VARIABLE) {
        Ok(cpu) => {
            let mut emulator = Command::new("qemu-aarch64");
            emulator.args(["-cpu", &cpu, exe]);
            emulator
        }
        Err(_) => Command::new(exe),
    };
    program.arg(command).stdin(Stdio::null());
    program
}

/// Runs the program to its end.
pub(crate) fn run(command: &str, container: &Path, options: &[&str]) -> Output {
    program(command, container, options).output().expect("the program starts")
}

/// Standard output of a run that must succeed.
pub(crate) fn succeed(command: &str, container: &Path, options: &[&str]) -> String {
    let output = run(command, container, options);
    assert!(output.status.success(), "{command} {options:?}: {}", errors(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Standard output of a run that must succeed, as JSON.
pub(crate) fn json(command: &str, container: &Path, options: &[&str]) -> serde_json::Value {
    let all: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&succeed(command, container, &all)).expect("JSON")
}

/// Standard error of a run.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a run failed with this code and one line that has these parts.
#[track_caller]
pub(crate) fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let errors = errors(output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.starts_with("error: ") && errors.lines().count() == 1, "{errors}");
    for part in parts {
        assert!(errors.contains(part), "expected {part:?} in {errors}");
    }
}
