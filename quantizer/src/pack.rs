//! Making a container: quantize, encode, record the full-precision model, run the result, write down what it gave.

use crate::bands::{BANDS, Bands};
use crate::calibrate::{CalibrationError, MatrixReport, Progress, Run, quantize_blocks};
use crate::chat_template::Imported;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::dense::{DenseError, DenseLogits};
use crate::encode::{self, EncodeError, encode};
use crate::methods::GroupSize;
use crate::plan::{BlockPlan, MatrixFormat};
use crate::record::{self, Record};
use crate::vocabulary::{VocabularyMatrix, VocabularyReport};
use bytemuck::Zeroable;
use rescomp_formats::check_windows::CheckWindowsError;
use rescomp_formats::container::write::{Contents, write};
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::error::ContainerError;
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::{CheckRecord, Manifest, Provenance, Text, is_printable};
use rescomp_formats::section::{SECTION_ALIGNMENT_BYTES, SectionKind, SectionName, sections};
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What to pack, and how.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// How the blocks' matrices are quantized.
    pub plan: BlockPlan,
    /// Layout of every matrix.
    pub layout: Layout,
    /// Calibration windows of `calibration_positions + 1` tokens or more.
    pub calibration: Vec<Vec<u32>>,
    /// Tokens of each calibration window that are used.
    pub calibration_positions: usize,
    /// A text's tokens for the check windows, apart from the calibration.
    pub check_tokens: Vec<u32>,
    /// The tokenizer section.
    pub tokenizer: Vec<u8>,
    /// The chat template, where the checkpoint has one.
    pub chat_template: Imported,
    /// Name of the target.
    pub target: String,
}

/// A container and how it came about.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The file.
    pub file: AlignedBytes,
    /// The report.
    pub report: PackReport,
}

/// How a container came about.
#[derive(Clone, Debug, Serialize)]
pub struct PackReport {
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Quantization method.
    pub method: &'static str,
    /// Bits of the blocks' matrices.
    pub bits: u8,
    /// Columns a group; 0 for whole rows.
    pub group_elems: u32,
    /// Bits of the head, which may be the embedding.
    pub head_bits: u8,
    /// Layout of every matrix.
    pub layout: &'static str,
    /// Parameters, a tied head counted once.
    pub parameters: u64,
    /// Bits that the weights take on average, everything counted.
    pub bits_per_weight: f64,
    /// Bytes of the container.
    pub file_bytes: u64,
    /// Tokens used for calibration.
    pub calibration_tokens: u64,
    /// What is doubtful about the calibration, each said once, and what of the chat template is missing.
    pub warnings: Vec<String>,
    /// The embedding, and the head where it is not the same.
    pub vocabulary: Vec<VocabularyReport>,
    /// The blocks' matrices.
    pub matrices: Vec<MatrixReport>,
    /// What the host measured on the check windows.
    pub check: CheckFigures,
}

/// A [`CheckRecord`] for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckFigures {
    /// Mean negative log-likelihood of the full-precision model, nats a token.
    pub reference_nll: f64,
    /// Mean negative log-likelihood of the quantized model, nats a token.
    pub nll: f64,
    /// Mean KL divergence from the full-precision model, nats a token.
    pub mean_kl: f64,
    /// Positions whose most likely token is the full-precision model's.
    pub same_top1: u32,
    /// Positions.
    pub positions: u32,
    /// SHA-256 of the logits, in hexadecimal digits.
    pub logits_sha256: String,
}

impl From<&CheckRecord> for CheckFigures {
    fn from(record: &CheckRecord) -> Self {
        CheckFigures {
            reference_nll: record.reference_nll,
            nll: record.nll,
            mean_kl: record.mean_kl,
            same_top1: record.same_top1,
            positions: record.positions,
            logits_sha256: record.logits_sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Why packing stopped.
#[derive(Debug, thiserror::Error)]
pub enum PackFailure {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Calibration stopped.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A quantized matrix has no encoding.
    #[error("{section}: {cause}")]
    Encode {
        /// The matrix.
        section: SectionName,
        /// Why.
        cause: EncodeError,
    },
    /// The full-precision model could not run.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// The check text is too short.
    #[error("the check needs {needed} tokens after the calibration windows, found {found}")]
    CheckTokens {
        /// Tokens needed.
        needed: usize,
        /// Tokens there.
        found: usize,
    },
    /// The check windows could not be written.
    #[error("check windows: expected {}, found {}", .0.expected, .0.found)]
    CheckWindows(CheckWindowsError),
    /// The container could not be written, or what was written is refused.
    #[error("container: {0}")]
    Container(#[from] ContainerError),
    /// The container could not run.
    #[error("the packed container does not run: {0}")]
    Run(#[from] RuntimeError),
    /// A section was asked for that nothing made.
    #[error("nothing made the section {0}")]
    Section(SectionName),
}

/// Packs a checkpoint. `progress` hears of each step.
///
/// # Errors
/// [`PackFailure`].
pub fn pack(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Packed, PackFailure> {
    pack_run(machine, checkpoint, options, &mut Run { journal: None, progress })
}

/// [`pack`] that keeps finished blocks, or goes on after those of an earlier run.
///
/// # Errors
/// [`PackFailure`].
pub fn pack_run(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    run: &mut Run<'_>,
) -> Result<Packed, PackFailure> {
    let mut sections = BTreeMap::new();
    let mut put = |kind: SectionKind, layer: Option<usize>, contents| {
        sections.insert((kind as u16, layer.map(|layer| layer as u16)), contents);
    };
    let solver = &options.plan.options;
    let mut matrices = Vec::new();
    let vocabulary = quantize_blocks(
        machine,
        checkpoint,
        &options.calibration,
        options.calibration_positions,
        &options.plan,
        run,
        |layer, weights, quantized| -> Result<(), PackFailure> {
            for (kind, values) in weights.vectors() {
                put(kind, Some(layer), Contents::F32(values.to_vec()));
            }
            for matrix in quantized {
                let section = SectionName { kind: matrix.kind, layer: Some(layer as u16) };
                let contents = encode(&matrix.solution, matrix.format, options.layout)
                    .map_err(|cause| PackFailure::Encode { section, cause })?;
                put(matrix.kind, Some(layer), contents);
                matrices.push(matrix.report);
            }
            Ok(())
        },
    )?;
    for matrix in &vocabulary {
        let section = matrix.name();
        let contents = encode(&matrix.solution, matrix.format, options.layout)
            .map_err(|cause| PackFailure::Encode { section, cause })?;
        put(matrix.kind, matrix.band.map(usize::from), contents);
    }
    if let Some(bands) = bands(options) {
        put(SectionKind::TokenBands, None, Contents::Bytes(bands.of_token().to_vec()));
    }
    let norm = checkpoint.final_norm()?;
    put(SectionKind::FinalNorm, None, Contents::F32(norm.gain));
    put(SectionKind::FinalNormBias, None, Contents::F32(norm.bias));
    put(SectionKind::RopeFrequencies, None, Contents::U64(checkpoint.rope.clone()));
    put(SectionKind::LocalRopeFrequencies, None, Contents::U64(checkpoint.local_rope.clone()));
    if let Some(positions) = checkpoint.positions()? {
        put(SectionKind::Positions, None, Contents::F32(positions.data));
    }
    put(SectionKind::Tokenizer, None, Contents::Bytes(options.tokenizer.clone()));
    if let Some(section) = &options.chat_template.section {
        put(SectionKind::ChatTemplate, None, Contents::Bytes(section.clone()));
    }

    (run.progress)(Progress::Phase("check windows, full precision"));
    let bytes: usize = sections.values().map(contents_bytes).sum();
    let Record { section, reference_nll, positions } = record_check(machine, checkpoint, options, bytes)?;
    sections.insert((SectionKind::CheckWindows as u16, None), Contents::Bytes(section));

    let unmeasured = CheckRecord {
        reference_nll,
        nll: 0.0,
        mean_kl: 0.0,
        same_top1: 0,
        positions,
        logits_sha256: [0; 32],
    };
    let file = |check| {
        let manifest = manifest(checkpoint, options, head_bits(&vocabulary), check);
        let contents = |name: SectionName| {
            sections.get(&(name.kind as u16, name.layer)).cloned().ok_or(PackFailure::Section(name))
        };
        write(&manifest, contents).map(|bytes| AlignedBytes::new(&bytes))
    };
    (run.progress)(Progress::Phase("check windows, quantized"));
    // What the model gives is known once it has run, and it runs from a container: written twice, it is measured once.
    let check = measure(machine, &file(unmeasured)?, reference_nll)?;
    let file = file(check)?;
    let container = Container::open(&file)?;
    let report = PackReport {
        checkpoint: checkpoint.name(),
        method: options.plan.method.name(),
        bits: solver.bits,
        group_elems: group_elems(solver.group),
        head_bits: head_bits(&vocabulary),
        layout: options.layout.name(),
        parameters: container.parameters(),
        bits_per_weight: container.bits_per_weight(),
        file_bytes: file.len() as u64,
        calibration_tokens: calibration_tokens(options),
        warnings: [warnings(&vocabulary, &matrices), options.chat_template.warnings.clone()].concat(),
        vocabulary: vocabulary.into_iter().map(|matrix| matrix.report).collect(),
        matrices,
        check: CheckFigures::from(&check),
    };
    container.check(Integrity::Digest)?;
    Ok(Packed { file, report })
}

/// Bytes of a container besides its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherBytes {
    /// What counts as weights: norms, biases, learned positions, and the bands of the embedding's rows.
    pub weights: u64,
    /// Everything: norms, biases, learned positions, head, manifest, table of sections, rotary frequencies, tokenizer, check windows, alignment.
    pub all: u64,
}

/// What a container of at most `container_bytes` needs besides its matrices, at most.
///
/// # Errors
/// [`PackFailure`].
pub fn bytes_without_matrices(
    checkpoint: &Checkpoint,
    options: &PackOptions,
    container_bytes: usize,
) -> Result<OtherBytes, PackFailure> {
    let spec = &checkpoint.spec;
    let check = record::sizes(container_bytes, spec.vocabulary, spec.context as usize);
    // As many digits as any record has.
    let longest = CheckRecord {
        reference_nll: 0.0,
        nll: 0.0,
        mean_kl: 0.0,
        same_top1: u32::MAX,
        positions: u32::MAX,
        logits_sha256: [0; 32],
    };
    let manifest = manifest(checkpoint, options, u8::MAX, longest);
    let mut weights = 0;
    let file = write(&manifest, |name| -> Result<Contents, PackFailure> {
        Ok(match name.kind {
            kind if kind.is_floats() => {
                let (rows, cols) = kind.shape(spec).unwrap_or_default();
                let elems = rows as usize * cols as usize;
                weights += 4 * elems as u64;
                Contents::F32(vec![0.0; elems])
            }
            SectionKind::RopeFrequencies => Contents::U64(checkpoint.rope.clone()),
            SectionKind::LocalRopeFrequencies => Contents::U64(checkpoint.local_rope.clone()),
            SectionKind::Tokenizer => Contents::Bytes(options.tokenizer.clone()),
            SectionKind::ChatTemplate => {
                Contents::Bytes(options.chat_template.section.clone().unwrap_or_default())
            }
            SectionKind::TokenBands => {
                weights += u64::from(spec.vocabulary);
                Contents::Bytes(vec![0; spec.vocabulary as usize])
            }
            SectionKind::CheckWindows => Contents::Bytes(vec![0; check.section_bytes().unwrap_or(0)]),
            _ => Contents::Bytes(Vec::new()),
        })
    })?;
    Ok(OtherBytes { weights, all: file.len() as u64 })
}

/// Bytes of a container whose blocks' matrices have one format and whose embedding and head another, at most.
///
/// # Errors
/// [`PackFailure`].
pub fn container_bytes(
    checkpoint: &Checkpoint,
    options: &PackOptions,
    blocks: MatrixFormat,
    vocabulary: MatrixFormat,
) -> Result<u64, PackFailure> {
    let spec = &checkpoint.spec;
    let mut matrices = 0;
    for name in sections(spec).filter(|name| name.kind.is_matrix()) {
        let (rows, columns) = name.kind.shape(spec).unwrap_or_default();
        let format = if name.layer.is_some() { blocks } else { vocabulary };
        let shape = encode::shape((rows as usize, columns as usize), format, options.layout)
            .map_err(|cause| PackFailure::Encode { section: name, cause })?;
        matrices += shape.section_bytes().next_multiple_of(SECTION_ALIGNMENT_BYTES);
    }
    // The windows are as many as the container's size allows: twice, since they are part of it.
    let others = bytes_without_matrices(checkpoint, options, matrices)?.all;
    let others = bytes_without_matrices(checkpoint, options, matrices + others as usize)?.all.max(others);
    Ok(matrices as u64 + others)
}

fn contents_bytes(contents: &Contents) -> usize {
    match contents {
        Contents::Bytes(bytes) | Contents::Matrix(_, bytes) => bytes.len(),
        Contents::U64(numbers) => 8 * numbers.len(),
        Contents::F32(numbers) => 4 * numbers.len(),
    }
}

/// Runs the full-precision model on the check windows.
fn record_check(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    container_bytes: usize,
) -> Result<Record, PackFailure> {
    let spec = &checkpoint.spec;
    let sizes = record::sizes(container_bytes, spec.vocabulary, spec.context as usize);
    let window = sizes.positions + 1;
    let (needed, found) = (sizes.windows * window, options.check_tokens.len());
    if found < needed {
        return Err(PackFailure::CheckTokens { needed, found });
    }
    let windows: Vec<Vec<u32>> =
        options.check_tokens.chunks_exact(window).take(sizes.windows).map(<[u32]>::to_vec).collect();
    let model = DenseLogits::new(machine, checkpoint, &windows, sizes.positions, |_| ())?;
    record::record(&model, &windows, &sizes).map_err(PackFailure::CheckWindows)
}

/// Runs the container on its own windows.
fn measure(machine: Machine<'_>, file: &[u8], reference_nll: f64) -> Result<CheckRecord, PackFailure> {
    let container = Container::open(file)?.check(Integrity::Crc)?;
    let windows = container.check_windows();
    let limits = Limits { context: windows.sizes().positions, tile: 1 };
    let mut memory = vec![MemoryBlock::zeroed(); SessionPlan::new(&container, limits)?.blocks() as usize];
    let mut session = Session::new(&container, machine, limits, ActivationFormat::Int8, &mut memory)?;
    let measured = eval::measure(&mut session, &windows, |_| ())?;
    Ok(CheckRecord {
        reference_nll,
        nll: measured.nll,
        mean_kl: measured.mean_kl,
        same_top1: measured.same_top1,
        positions: measured.positions,
        logits_sha256: measured.logits_sha256,
    })
}

/// Bits of the head: of the embedding where they are the same, and of its widest band.
fn head_bits(vocabulary: &[VocabularyMatrix]) -> u8 {
    let Some(last) = vocabulary.last() else { return 0 };
    let same_kind = vocabulary.iter().filter(|matrix| matrix.kind == last.kind);
    same_kind.map(|matrix| matrix.format.bits).max().unwrap_or(0)
}

/// The bands of the embedding, where it has several.
fn bands(options: &PackOptions) -> Option<&Bands> {
    options.plan.vocabulary.as_ref()?.bands.as_ref()
}

fn manifest(checkpoint: &Checkpoint, options: &PackOptions, head_bits: u8, check: CheckRecord) -> Manifest {
    let solver = &options.plan.options;
    Manifest {
        spec: ModelSpec {
            chat_template: options.chat_template.section.is_some(),
            embedding_bands: bands(options).map_or(1, |_| BANDS as u8),
            ..checkpoint.spec.clone()
        },
        provenance: Provenance {
            checkpoint: text(&checkpoint.name()),
            checkpoint_sha256: checkpoint.digest(),
            method: text(options.plan.method.name()),
            bits: solver.bits,
            group_elems: group_elems(solver.group),
            head_bits,
            calibration_sha256: calibration_digest(options),
            calibration_tokens: calibration_tokens(options),
            target: text(&options.target),
            tool_version: text(env!("CARGO_PKG_VERSION")),
        },
        check,
    }
}

/// Each warning once, in the order of the forward.
fn warnings(vocabulary: &[VocabularyMatrix], matrices: &[MatrixReport]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let of_vocabulary = vocabulary.iter().flat_map(|matrix| &matrix.report.warnings);
    for warning in of_vocabulary.chain(matrices.iter().flat_map(|matrix| &matrix.warnings)) {
        if !all.contains(warning) {
            all.push(warning.clone());
        }
    }
    all
}

/// Calibration tokens that had a part in the codes: none where the method only rounds.
fn calibration_tokens(options: &PackOptions) -> u64 {
    match options.plan.calibrates() {
        true => (options.calibration.len() * options.calibration_positions) as u64,
        false => 0,
    }
}

/// SHA-256 of the calibration tokens; zeros where they had no part in the codes.
fn calibration_digest(options: &PackOptions) -> [u8; 32] {
    if !options.plan.calibrates() {
        return [0; 32];
    }
    let mut digest = Sha256::new();
    for window in &options.calibration {
        window[..options.calibration_positions].iter().for_each(|token| digest.update(token.to_le_bytes()));
    }
    digest.finalize().into()
}

/// Columns a group, 0 standing for whole rows.
fn group_elems(group: GroupSize) -> u32 {
    match group {
        GroupSize::Elements(elems) => elems.get() as u32,
        GroupSize::Row => 0,
    }
}

/// As much of a name as the manifest holds; what it does not hold becomes U+FFFD.
fn text(name: &str) -> Text {
    let mut text = Text::new();
    for character in name.chars() {
        if text.push(if is_printable(character) { character } else { '\u{fffd}' }).is_err() {
            break;
        }
    }
    text
}
