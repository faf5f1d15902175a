//! Reads a written file as a checkpoint, and compares it with the container: sizes, rotary frequencies, tokenizer, and every weight's bits.

use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::section::{SectionKind, SectionName, layer_sections};
use rescomp_formats::spec::ModelSpec;
use rescomp_formats::tokenizer::TokenizerView;

use super::super::{ExportError, differs};
use super::rotary::Rotary;
use super::tokenizer;
use crate::checkpoint::{Checkpoint, Matrix};
use crate::texts;

/// Compares; returns the number of weights.
///
/// # Errors
/// [`ExportError::Differs`], and where the file cannot be read.
pub(super) fn compare(
    container: &CheckedContainer<'_>,
    rotary: &Rotary,
    path: &Path,
) -> Result<u64, ExportError> {
    let checkpoint = Checkpoint::open_gguf(path)?;
    let spec = &container.manifest().spec;
    // A file has one matrix for the embedding, and names three end tokens.
    let end_tokens = spec.end_tokens.iter().take(3).copied().collect();
    let expected = ModelSpec { embedding_bands: 1, end_tokens, ..spec.clone() };
    if checkpoint.spec != expected {
        return Err(differs("sizes", expected, &checkpoint.spec));
    }
    if !rotary.agrees(container.rope_frequencies(), &checkpoint.rope) {
        return Err(differs("rotary frequencies", container.rope_frequencies(), &checkpoint.rope));
    }
    let section = texts::tokenizer_section(&checkpoint)?;
    let read_back = TokenizerView::parse(&section).map_err(|error| differs("tokenizer", "one", error))?;
    let tokenizer = container.tokenizer().ok_or(ExportError::NoTokenizer)?;
    tokenizer::compare(&tokenizer, &read_back, spec.vocabulary)?;

    let mut compared = 0;
    let mut compare = |kind, layer: Option<u16>, found: &Matrix| {
        compared += found.data.len() as u64;
        compare_matrix(container, SectionName { kind, layer }, found)
    };
    let row = |values: &[f32]| Matrix { rows: 1, cols: values.len(), data: values.to_vec() };
    compare(SectionKind::Embedding, None, &checkpoint.embedding()?)?;
    if let Some(head) = checkpoint.head()? {
        compare(SectionKind::Head, None, &head)?;
    }
    compare(SectionKind::FinalNorm, None, &row(&checkpoint.final_norm()?.gain))?;
    for layer in 0..spec.layers {
        let weights = checkpoint.layer(layer as usize)?;
        for &kind in layer_sections(spec.architecture) {
            let found = weights.matrix(kind).cloned().or_else(|| weights.vector(kind).map(row));
            let missing = || differs(SectionName { kind, layer: Some(layer as u16) }, "a tensor", "none");
            compare(kind, Some(layer as u16), &found.ok_or_else(missing)?)?;
        }
    }
    Ok(compared)
}

fn compare_matrix(
    container: &CheckedContainer<'_>,
    section: SectionName,
    found: &Matrix,
) -> Result<(), ExportError> {
    let mut expected = vec![0.0; found.cols];
    let mut next_of_band = [0; 256];
    for row in 0..found.rows {
        let (name, stored_row) = match container.token_bands() {
            Some(bands) if section.kind == SectionKind::Embedding => {
                let band = bands.get(row).copied().unwrap_or(0);
                let next: &mut usize = &mut next_of_band[usize::from(band)];
                *next += 1;
                (SectionName { layer: Some(band.into()), ..section }, *next - 1)
            }
            _ => (section, row),
        };
        match (container.matrix(name), container.floats(name)) {
            (Some(view), _) if view.shape().cols() == found.cols => {
                view.decode_row(stored_row, &mut expected)
            }
            (None, Some(values)) if values.len() == found.cols => expected.copy_from_slice(values),
            _ => return Err(differs(name, "its shape", (found.rows, found.cols))),
        }
        let same = |(expected, found): (&f32, &f32)| expected.to_bits() == found.to_bits();
        if let Some(column) = expected.iter().zip(found.row(row)).position(|pair| !same(pair)) {
            let part = format!("{name}, row {row}, column {column}");
            return Err(differs(part, expected[column], found.row(row)[column]));
        }
    }
    Ok(())
}
