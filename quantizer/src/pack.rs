//! Making a container: quantize, encode, record the full-precision model, run the result, write down what it gave.

use crate::bands::{BANDS, Bands};
use crate::calibrate::{CalibrationError, MatrixReport, Progress, Run, quantize_blocks, to_f64};
use crate::chat_template::Imported;
use crate::checkpoint::{Checkpoint, CheckpointError, Matrix};
use crate::classes::{dense_classes, enlarged, shrunk};
use crate::dense::{DenseError, DenseLogits};
use crate::embeddings::dense_embeddings;
use crate::encode::{self, EncodeError, encode, encode_corrected};
use crate::evaluate_images::{ImageError, ImageEvaluation, evaluate_images};
use crate::inputs::Inputs;
use crate::methods::{self, GroupSize, MethodError};
use crate::plan::{BlockPlan, MatrixFormat};
use crate::record::{self, Record};
use crate::transforms::TransformKind;
use crate::vocabulary::{VocabularyMatrix, VocabularyReport};
use bytemuck::Zeroable;
use rescomp_formats::check_windows::CheckWindowsError;
use rescomp_formats::container::write::{Contents, write};
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::error::ContainerError;
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::{
    Check, CheckRecord, EmbeddingRecord, ImageRecord, Manifest, Provenance, Text, is_printable,
};
use rescomp_formats::section::{SECTION_ALIGNMENT_BYTES, SectionKind, SectionName, sections};
use rescomp_formats::spec::{ModelKind, ModelSpec};
use rescomp_formats::{check_embeddings, check_images, labels};
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::encoder::{Encoder, EncoderPlan};
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval;
use rescomp_runtime::eval_embeddings::measure_embeddings;
use rescomp_runtime::eval_images::measure_images;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use serde::Serialize;
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
    /// A text's tokens for the check windows of a decoder, apart from the calibration.
    pub check_tokens: Vec<u32>,
    /// The tokens of texts for the check of an encoder, apart from the calibration: as many as fit are used.
    pub check_texts: Vec<Vec<u32>>,
    /// Of a classifier, what is in the place of all these.
    pub images: Option<PackImages>,
    /// The tokenizer section.
    pub tokenizer: Vec<u8>,
    /// The chat template, where the checkpoint has one.
    pub chat_template: Imported,
    /// Name of the target.
    pub target: String,
}

/// The images of a classifier, of the model's size: rows from the top, red, green and blue a byte each.
#[derive(Clone, Debug, Default)]
pub struct PackImages {
    /// For calibration.
    pub calibration: Vec<Vec<u8>>,
    /// For the check and for the report, apart from the calibration.
    pub held_out: Vec<Vec<u8>>,
}

impl PackOptions {
    /// What the blocks are calibrated on.
    pub fn inputs(&self) -> Inputs<'_> {
        match &self.images {
            Some(images) => Inputs::Images(&images.calibration),
            None => Inputs::Windows { windows: &self.calibration, positions: self.calibration_positions },
        }
    }
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
    /// What was folded into the weights before.
    pub transform: &'static str,
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
    /// What the host measured on the check windows, texts or images.
    pub check: CheckFigures,
    /// What a classifier gives on all images that the calibration has not seen.
    pub held_out_images: Option<ImageEvaluation>,
}

/// A [`Check`] for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CheckFigures {
    /// Of a decoder.
    Windows(WindowFigures),
    /// Of an encoder.
    Embeddings(EmbeddingFigures),
    /// Of a classifier.
    Images(ImageFigures),
}

impl CheckFigures {
    /// The SHA-256 of what the model computed, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        match self {
            CheckFigures::Windows(figures) => &figures.logits_sha256,
            CheckFigures::Embeddings(figures) => &figures.embeddings_sha256,
            CheckFigures::Images(figures) => &figures.logits_sha256,
        }
    }

    /// The figures of a decoder.
    pub fn windows(&self) -> Option<&WindowFigures> {
        match self {
            CheckFigures::Windows(figures) => Some(figures),
            CheckFigures::Embeddings(_) | CheckFigures::Images(_) => None,
        }
    }
}

/// An [`EmbeddingRecord`] for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddingFigures {
    /// Mean of one less the cosine with the full-precision model's vectors.
    pub mean_distance: f64,
    /// The largest of these.
    pub largest_distance: f64,
    /// Texts.
    pub texts: u32,
    /// SHA-256 of the vectors, in hexadecimal digits.
    pub embeddings_sha256: String,
}

/// An [`ImageRecord`] for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageFigures {
    /// Mean KL divergence from the full-precision model, nats an image.
    pub mean_kl: f64,
    /// Images whose most likely class is the full-precision model's.
    pub same_top1: u32,
    /// Images.
    pub images: u32,
    /// SHA-256 of the logits, in hexadecimal digits.
    pub logits_sha256: String,
}

/// A [`CheckRecord`] for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowFigures {
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

impl From<&Check> for CheckFigures {
    fn from(check: &Check) -> Self {
        let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        match check {
            Check::Windows(record) => CheckFigures::Windows(WindowFigures {
                reference_nll: record.reference_nll,
                nll: record.nll,
                mean_kl: record.mean_kl,
                same_top1: record.same_top1,
                positions: record.positions,
                logits_sha256: hex(&record.logits_sha256),
            }),
            Check::Embeddings(record) => CheckFigures::Embeddings(EmbeddingFigures {
                mean_distance: record.mean_distance,
                largest_distance: record.largest_distance,
                texts: record.texts,
                embeddings_sha256: hex(&record.embeddings_sha256),
            }),
            Check::Images(record) => CheckFigures::Images(ImageFigures {
                mean_kl: record.mean_kl,
                same_top1: record.same_top1,
                images: record.images,
                logits_sha256: hex(&record.logits_sha256),
            }),
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
    /// There is no text for the check of an encoder.
    #[error("the check needs one text or more that follows the calibration, found none")]
    CheckTexts,
    /// There are no images for the check of a classifier.
    #[error("the check needs one image or more that the calibration has not seen, found none")]
    CheckImages,
    /// The container could not be held against the full-precision model.
    #[error(transparent)]
    Images(#[from] ImageError),
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
        options.inputs(),
        &options.plan,
        run,
        |layer, weights, quantized| -> Result<(), PackFailure> {
            for (kind, values) in weights.vectors() {
                put(kind, Some(layer), Contents::F32(values.to_vec()));
            }
            for matrix in quantized {
                let section = SectionName { kind: matrix.kind, layer: Some(layer as u16) };
                let (solution, low_rank) = (&matrix.solution, matrix.low_rank.as_ref());
                let contents = encode_corrected(solution, low_rank, matrix.format, options.layout)
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
    let (norm, gain, bias) = match checkpoint.embedding_norm()? {
        Some(norm) => (norm, SectionKind::EmbeddingNorm, SectionKind::EmbeddingNormBias),
        None => (checkpoint.final_norm()?, SectionKind::FinalNorm, SectionKind::FinalNormBias),
    };
    put(gain, None, Contents::F32(norm.gain));
    put(bias, None, Contents::F32(norm.bias));
    let head_input = norm.head_input.as_ref().map(|matrix| head_input(matrix, options)).transpose()?;
    if let Some((contents, _)) = &head_input {
        put(SectionKind::HeadInput, None, contents.clone());
    }
    put(SectionKind::RopeFrequencies, None, Contents::U64(checkpoint.rope.clone()));
    put(SectionKind::LocalRopeFrequencies, None, Contents::U64(checkpoint.local_rope.clone()));
    if let Some(positions) = checkpoint.positions()? {
        put(SectionKind::Positions, None, Contents::F32(positions.data));
    }
    if let Some(bias) = checkpoint.head_bias()? {
        put(SectionKind::HeadBias, None, Contents::F32(bias));
        put(SectionKind::Labels, None, Contents::Bytes(labels::write(checkpoint.labels())));
    }
    put(SectionKind::Tokenizer, None, Contents::Bytes(options.tokenizer.clone()));
    if let Some(section) = &options.chat_template.section {
        put(SectionKind::ChatTemplate, None, Contents::Bytes(section.clone()));
    }

    (run.progress)(Progress::Phase("check windows, full precision"));
    let bytes: usize = sections.values().map(contents_bytes).sum();
    let (kind, section, unmeasured) = match checkpoint.spec.architecture.kind() {
        ModelKind::Decoder => record_check(machine, checkpoint, options, bytes)?,
        ModelKind::Encoder => record_texts(machine, checkpoint, options, bytes)?,
        ModelKind::Classifier => record_images(machine, checkpoint, options, bytes)?,
    };
    sections.insert((kind as u16, None), Contents::Bytes(section));
    let file = |check| {
        let manifest = manifest(checkpoint, options, head_bits(&vocabulary), check);
        let contents = |name: SectionName| {
            sections.get(&(name.kind as u16, name.layer)).cloned().ok_or(PackFailure::Section(name))
        };
        write(&manifest, contents).map(|bytes| AlignedBytes::new(&bytes))
    };
    (run.progress)(Progress::Phase("check windows, quantized"));
    // What the model gives is known once it has run, and it runs from a container: written twice, it is measured once.
    let check = measure(machine, &file(unmeasured)?)?;
    let file = file(check)?;
    let held_out_images = match &options.images {
        None => None,
        Some(images) => {
            (run.progress)(Progress::Phase("held-out images"));
            let container = Container::open(&file)?.check(Integrity::Crc)?;
            let (held_out, int8) = (&images.held_out, ActivationFormat::Int8);
            Some(evaluate_images(machine, &container, int8, checkpoint, held_out, &|| ())?)
        }
    };
    let container = Container::open(&file)?;
    let report = PackReport {
        checkpoint: checkpoint.name(),
        method: options.plan.method.name(),
        transform: transform_name(checkpoint),
        bits: solver.bits,
        group_elems: group_elems(solver.group),
        head_bits: head_bits(&vocabulary),
        layout: options.layout.name(),
        parameters: container.parameters(),
        bits_per_weight: container.bits_per_weight(),
        file_bytes: file.len() as u64,
        calibration_tokens: calibration_tokens(&checkpoint.spec, options),
        warnings: [warnings(&vocabulary, &matrices), options.chat_template.warnings.clone()].concat(),
        vocabulary: vocabulary
            .into_iter()
            .map(|matrix| matrix.report)
            .chain(head_input.map(|(_, report)| report))
            .collect(),
        matrices,
        check: CheckFigures::from(&check),
        held_out_images,
    };
    container.check(Integrity::Digest)?;
    Ok(Packed { file, report })
}

/// Bits and groups of what the input of a tied head passes: its errors reach every logit, and it is small.
const HEAD_INPUT: u8 = 8;

/// The format of the head's input, for a layout that has groups.
fn head_input_format() -> MatrixFormat {
    MatrixFormat::plain(HEAD_INPUT, GroupSize::elements(64).unwrap_or(GroupSize::Row))
}

/// Encodes what the input of a tied head passes, rounded to nearest.
fn head_input(matrix: &Matrix, options: &PackOptions) -> Result<(Contents, VocabularyReport), PackFailure> {
    let (kind, format) = (SectionKind::HeadInput, head_input_format());
    let section = SectionName { kind, layer: None };
    let failed = |cause: MethodError| CalibrationError::Vocabulary { kind: kind.name(), cause };
    let (weights, solver) = (to_f64(matrix), options.plan.solver_for(format));
    let solution = methods::rtn::round_to_nearest(weights.as_ref(), &solver.options).map_err(failed)?;
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let stored = solution.values();
    let lost =
        squares(&mut stored.iter().zip(&matrix.data).map(|(stored, value)| stored - f64::from(*value)));
    let power = squares(&mut matrix.data.iter().map(|value| f64::from(*value)));
    let relative_error = if power > 0.0 { lost / power } else { 0.0 };
    let report =
        VocabularyReport { kind: kind.name(), band: None, format, relative_error, warnings: Vec::new() };
    let contents =
        encode(&solution, format, options.layout).map_err(|cause| PackFailure::Encode { section, cause })?;
    Ok((contents, report))
}

/// Bytes of a container besides the matrices that have formats of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherBytes {
    /// What counts as weights: norms, biases, learned positions, the bands of the embedding's rows, and the matrix of a tied head's input.
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
    let longest = match spec.architecture.kind() {
        ModelKind::Decoder => {
            Check::Windows(CheckRecord { same_top1: u32::MAX, positions: u32::MAX, ..NO_WINDOWS })
        }
        ModelKind::Encoder => Check::Embeddings(EmbeddingRecord { texts: u32::MAX, ..NO_TEXTS }),
        ModelKind::Classifier => {
            Check::Images(ImageRecord { same_top1: u32::MAX, images: u32::MAX, ..NO_IMAGES })
        }
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
            SectionKind::HeadInput => {
                let hidden = spec.hidden as usize;
                let shape = encode::shape((hidden, hidden), head_input_format(), options.layout)
                    .map_err(|cause| PackFailure::Encode { section: name, cause })?;
                weights += shape.section_bytes() as u64;
                Contents::Bytes(vec![0; shape.section_bytes()])
            }
            SectionKind::RopeFrequencies => Contents::U64(checkpoint.rope.clone()),
            SectionKind::LocalRopeFrequencies => Contents::U64(checkpoint.local_rope.clone()),
            SectionKind::Tokenizer => Contents::Bytes(options.tokenizer.clone()),
            SectionKind::Labels => Contents::Bytes(labels::write(checkpoint.labels())),
            SectionKind::CheckImages => {
                let (count, repeat) = check_images_of(options, spec, container_bytes);
                let edges = spec.image().map_or([0, 0], |image| [image.height, image.width]);
                let bytes = check_images::section_bytes(count, edges, repeat, spec.vocabulary);
                Contents::Bytes(vec![0; bytes.unwrap_or(0)])
            }
            SectionKind::ChatTemplate => {
                Contents::Bytes(options.chat_template.section.clone().unwrap_or_default())
            }
            SectionKind::TokenBands => {
                weights += u64::from(spec.vocabulary);
                Contents::Bytes(vec![0; spec.vocabulary as usize])
            }
            SectionKind::CheckWindows => Contents::Bytes(vec![0; check.section_bytes().unwrap_or(0)]),
            SectionKind::CheckEmbeddings => {
                let texts = check_texts(options, spec, container_bytes);
                let lengths = texts.iter().map(Vec::len);
                Contents::Bytes(vec![0; check_embeddings::section_bytes(lengths, spec.hidden as usize)])
            }
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
    let counted = |name: &SectionName| name.kind.is_matrix() && name.kind != SectionKind::HeadInput;
    for name in sections(spec).filter(counted) {
        let (rows, columns) = name.kind.shape(spec).unwrap_or_default();
        let format = if name.layer.is_some() { blocks } else { vocabulary };
        let bytes = encode::section_bytes((rows as usize, columns as usize), format, options.layout)
            .map_err(|cause| PackFailure::Encode { section: name, cause })?;
        matrices += bytes.next_multiple_of(SECTION_ALIGNMENT_BYTES);
    }
    // The windows are as many as the container's size allows: twice, since they are part of it.
    let others = bytes_without_matrices(checkpoint, options, matrices)?.all;
    let others = bytes_without_matrices(checkpoint, options, matrices + others as usize)?.all.max(others);
    Ok(matrices as u64 + others)
}

fn contents_bytes(contents: &Contents) -> usize {
    match contents {
        Contents::Bytes(bytes) | Contents::Matrix(_, bytes) | Contents::Corrected(_, bytes) => bytes.len(),
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
) -> Result<(SectionKind, Vec<u8>, Check), PackFailure> {
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
    let Record { section, reference_nll, positions } =
        record::record(&model, &windows, &sizes).map_err(PackFailure::CheckWindows)?;
    let check = Check::Windows(CheckRecord { reference_nll, positions, ..NO_WINDOWS });
    Ok((SectionKind::CheckWindows, section, check))
}

/// Runs the full-precision encoder on the check texts.
fn record_texts(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    container_bytes: usize,
) -> Result<(SectionKind, Vec<u8>, Check), PackFailure> {
    let texts = check_texts(options, &checkpoint.spec, container_bytes);
    if texts.is_empty() {
        return Err(PackFailure::CheckTexts);
    }
    let vectors = dense_embeddings(machine, checkpoint, texts, |_| ())?;
    let section = check_embeddings::write(texts, &vectors).map_err(PackFailure::CheckWindows)?;
    let check = Check::Embeddings(EmbeddingRecord { texts: texts.len() as u32, ..NO_TEXTS });
    Ok((SectionKind::CheckEmbeddings, section, check))
}

/// Runs the full-precision classifier on the check images.
fn record_images(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    container_bytes: usize,
) -> Result<(SectionKind, Vec<u8>, Check), PackFailure> {
    let spec = &checkpoint.spec;
    let (count, repeat) = check_images_of(options, spec, container_bytes);
    let held_out = options.images.as_ref().map_or(&[][..], |images| &images.held_out);
    let (Some(image), 1..) = (spec.image(), count) else { return Err(PackFailure::CheckImages) };
    let wrong = |rgb: &&Vec<u8>| rgb.len() != image.elems();
    if let Some(rgb) = held_out.iter().find(wrong) {
        let (expected, found) = (image.elems() as u64, rgb.len() as u64);
        return Err(PackFailure::Run(RuntimeError::Pixels { expected, found }));
    }
    // Evenly spaced: files of one class often follow each other.
    let chosen = (0..count).map(|index| &held_out[index * held_out.len() / count]);
    let stored: Vec<Vec<u8>> = chosen.map(|rgb| shrunk(image, rgb, repeat)).collect();
    let shown: Vec<Vec<u8>> = stored.iter().map(|rgb| enlarged(image, rgb, repeat)).collect();
    let logits = dense_classes(machine, checkpoint, &shown, |_| ())?;
    let section = record::record_images(&stored, repeat, &logits).map_err(PackFailure::CheckWindows)?;
    let check = Check::Images(ImageRecord { images: count as u32, ..NO_IMAGES });
    Ok((SectionKind::CheckImages, section, check))
}

/// How many of the held-out images a container of about `container_bytes` can carry, and how many pixels one of theirs stands for.
fn check_images_of(options: &PackOptions, spec: &ModelSpec, container_bytes: usize) -> (usize, u32) {
    let available = options.images.as_ref().map_or(0, |images| images.held_out.len());
    spec.image().map_or((0, 1), |image| record::images(container_bytes, image, spec.vocabulary, available))
}

/// Those of the check texts that a container of about `container_bytes` can carry.
fn check_texts<'o>(options: &'o PackOptions, spec: &ModelSpec, container_bytes: usize) -> &'o [Vec<u32>] {
    let all = &options.check_texts;
    let lengths = all.iter().map(Vec::len);
    &all[..record::texts(container_bytes, lengths, spec.hidden as usize)]
}

/// A record of windows on which nothing was measured yet.
const NO_WINDOWS: CheckRecord = CheckRecord {
    reference_nll: 0.0,
    nll: 0.0,
    mean_kl: 0.0,
    same_top1: 0,
    positions: 0,
    logits_sha256: [0; 32],
};
/// Likewise of texts.
const NO_TEXTS: EmbeddingRecord =
    EmbeddingRecord { mean_distance: 0.0, largest_distance: 0.0, texts: 0, embeddings_sha256: [0; 32] };

/// Likewise of images.
const NO_IMAGES: ImageRecord = ImageRecord { mean_kl: 0.0, same_top1: 0, images: 0, logits_sha256: [0; 32] };

/// Runs the container on its own windows, texts or images.
fn measure(machine: Machine<'_>, file: &[u8]) -> Result<Check, PackFailure> {
    let container = Container::open(file)?.check(Integrity::Crc)?;
    if let Some(images) = container.check_images() {
        let mut memory = vec![MemoryBlock::zeroed(); ClassifierPlan::new(&container)?.blocks() as usize];
        let mut classifier = Classifier::new(&container, machine, ActivationFormat::Int8, &mut memory)?;
        let measured = measure_images(&mut classifier, &images, |_| ())?;
        return Ok(Check::Images(ImageRecord {
            mean_kl: measured.mean_kl,
            same_top1: measured.same_top1,
            images: measured.images,
            logits_sha256: measured.logits_sha256,
        }));
    }
    if let Some(texts) = container.check_embeddings() {
        let plan = EncoderPlan::new(&container, texts.longest())?;
        let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
        let mut encoder =
            Encoder::new(&container, machine, plan.tokens(), ActivationFormat::Int8, &mut memory)?;
        let mut tokens = vec![0; plan.tokens()];
        let measured = measure_embeddings(&mut encoder, &texts, &mut tokens, |_| ())?;
        return Ok(Check::Embeddings(EmbeddingRecord {
            mean_distance: measured.mean_distance,
            largest_distance: measured.largest_distance,
            texts: measured.texts,
            embeddings_sha256: measured.embeddings_sha256,
        }));
    }
    let (manifest, section) = (container.manifest(), SectionKind::CheckWindows);
    let (Some(windows), Some(record)) = (container.check_windows(), manifest.windows_record()) else {
        return Err(PackFailure::Section(SectionName { kind: section, layer: None }));
    };
    let reference_nll = record.reference_nll;
    let limits = Limits { context: windows.sizes().positions, tile: 1 };
    let mut memory = vec![MemoryBlock::zeroed(); SessionPlan::new(&container, limits)?.blocks() as usize];
    let mut session = Session::new(&container, machine, limits, ActivationFormat::Int8, &mut memory)?;
    let measured = eval::measure(&mut session, &windows, |_| ())?;
    Ok(Check::Windows(CheckRecord {
        reference_nll,
        nll: measured.nll,
        mean_kl: measured.mean_kl,
        same_top1: measured.same_top1,
        positions: measured.positions,
        logits_sha256: measured.logits_sha256,
    }))
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

fn manifest(checkpoint: &Checkpoint, options: &PackOptions, head_bits: u8, check: Check) -> Manifest {
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
            transform: text(transform_name(checkpoint)),
            bits: solver.bits,
            group_elems: group_elems(solver.group),
            head_bits,
            calibration_sha256: calibration_digest(options),
            calibration_tokens: calibration_tokens(&checkpoint.spec, options),
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
fn calibration_tokens(spec: &ModelSpec, options: &PackOptions) -> u64 {
    match options.plan.calibrates() {
        true => {
            let inputs = options.inputs();
            (inputs.count() * inputs.tokens(spec)) as u64
        }
        false => 0,
    }
}

/// SHA-256 of the calibration tokens or images; zeros where they had no part in the codes.
fn calibration_digest(options: &PackOptions) -> [u8; 32] {
    match options.plan.calibrates() {
        true => options.inputs().digest(),
        false => [0; 32],
    }
}

/// Name of what is folded into the weights.
fn transform_name(checkpoint: &Checkpoint) -> &'static str {
    checkpoint.transform().map_or(TransformKind::None, |transform| transform.kind).name()
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
