//! Making a container: quantize, encode, record the full-precision model, run the result, write down what it gave.

mod check;
mod error;
mod head_input;
mod manifest;
mod report;
mod size;

pub use error::PackFailure;
pub use report::{CheckFigures, EmbeddingFigures, ImageFigures, PackReport, Packed, WindowFigures};
pub use size::{OtherBytes, bytes_without_matrices, container_bytes};

use crate::calibrate::{MatrixReport, Progress, Run, quantize_blocks};
use crate::chat_template::Imported;
use crate::checkpoint::Checkpoint;
use crate::encode::{encode, encode_corrected};
use crate::evaluate_images::evaluate_images;
use crate::inputs::Inputs;
use crate::plan::BlockPlan;
use crate::vocabulary::VocabularyMatrix;
use check::{Recording, measure};
use head_input::head_input;
use manifest::{bands, calibration_tokens, group_elems, head_bits, manifest, transform_name};
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::write::{Contents, write};
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::labels;
use rescomp_formats::layouts::Layout;
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_runtime::Machine;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::AlignedBytes;
use size::contents_bytes;
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
    /// What keys and values are kept as; of decoders alone.
    pub cache: CacheFormat,
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
    let recording = Recording { machine, checkpoint, options, container_bytes: bytes };
    let (kind, section, unmeasured) = recording.run()?;
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
        kv_cache: checkpoint.spec.architecture.is_decoder().then(|| options.cache.name()),
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
