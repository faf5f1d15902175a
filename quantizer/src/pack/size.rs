//! How large a container gets, before anything is quantized.

use super::check::{NO_IMAGES, NO_TEXTS, NO_WINDOWS, check_images_of, check_texts};
use super::head_input::head_input_format;
use super::manifest::manifest;
use super::{PackFailure, PackOptions};
use crate::checkpoint::Checkpoint;
use crate::encode;
use crate::plan::MatrixFormat;
use crate::record;
use rescomp_formats::container::write::{Contents, write};
use rescomp_formats::manifest::{Check, CheckRecord, EmbeddingRecord, ImageRecord};
use rescomp_formats::section::{SECTION_ALIGNMENT_BYTES, SectionKind, SectionName, sections};
use rescomp_formats::spec::ModelKind;
use rescomp_formats::{check_embeddings, check_images, labels};

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

pub(super) fn contents_bytes(contents: &Contents) -> usize {
    match contents {
        Contents::Bytes(bytes) | Contents::Matrix(_, bytes) | Contents::Corrected(_, bytes) => bytes.len(),
        Contents::U64(numbers) => 8 * numbers.len(),
        Contents::F32(numbers) => 4 * numbers.len(),
    }
}
