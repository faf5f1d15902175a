//! Reads the written weights, unpacks them and compares every value's bits with the container's.

use std::fs;
use std::path::Path;

use half::f16;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::section::{SectionKind, SectionName};
use safetensors::SafeTensors;

use super::super::{ExportError, differs};
use super::{Packing, module_name, whole_sections};

/// The values of a section, as the container decodes them; of an embedding in bands, named without one, those of all tokens.
pub(super) fn values(container: &CheckedContainer<'_>, section: SectionName) -> Vec<f32> {
    if let Some(values) = container.floats(section) {
        return values.to_vec();
    }
    let bands = container.token_bands().filter(|_| section.kind == SectionKind::Embedding);
    let Some(bands) = bands else {
        let Some(view) = container.matrix(section) else { return Vec::new() };
        let mut values = vec![0.0; view.shape().rows() * view.shape().cols()];
        for (row, values) in values.chunks_mut(view.shape().cols()).enumerate() {
            view.decode_row(row, values);
        }
        return values;
    };
    let hidden = container.manifest().spec.hidden as usize;
    let mut values = vec![0.0; bands.len() * hidden];
    let mut next = [0; 256];
    for (values, &band) in values.chunks_mut(hidden).zip(bands) {
        let of_band = SectionName { layer: Some(band.into()), ..section };
        if let Some(view) = container.matrix(of_band) {
            view.decode_row(next[usize::from(band)], values);
        }
        next[usize::from(band)] += 1;
    }
    values
}

/// Compares; returns the number of weights.
///
/// # Errors
/// [`ExportError::Differs`], and where the file cannot be read.
pub(super) fn compare(
    container: &CheckedContainer<'_>,
    packing: Packing,
    path: &Path,
) -> Result<u64, ExportError> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| differs("file", "tensors", error))?;
    let tensor = |name: &str| file.tensor(name).map_err(|error| differs(name, "a tensor", error));
    let mut compared = 0;
    let mut tensors = 0;
    for whole in whole_sections(container) {
        let Some(module) = module_name(whole) else { continue };
        let expected = values(container, whole);
        let found: Vec<f32> = match tensor(&format!("{module}.weight")) {
            Ok(plain) => {
                tensors += 1;
                plain.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Err(_) => {
                tensors += 3;
                let shape = tensor(&format!("{module}.weight_shape"))?;
                let words = tensor(&format!("{module}.weight_packed"))?;
                let scales = tensor(&format!("{module}.weight_scale"))?;
                unpacked(packing, shape.data(), words.data(), scales.data())
            }
        };
        let same = |(expected, found): (&f32, &f32)| expected.to_bits() == found.to_bits();
        if expected.len() != found.len() {
            return Err(differs(module, expected.len(), found.len()));
        }
        if let Some(at) = expected.iter().zip(&found).position(|pair| !same(pair)) {
            return Err(differs(format_args!("{module}, weight {at}"), expected[at], found[at]));
        }
        compared += found.len() as u64;
    }
    match file.len() == tensors {
        true => Ok(compared),
        false => Err(differs("tensors", tensors, file.len())),
    }
}

fn unpacked(packing: Packing, shape: &[u8], words: &[u8], scales: &[u8]) -> Vec<f32> {
    let sizes: Vec<i64> = shape.as_chunks().0.iter().map(|size| i64::from_le_bytes(*size)).collect();
    let columns = sizes.get(1).copied().unwrap_or(1).max(1) as usize;
    let group = packing.group.unwrap_or(columns);
    let scales: Vec<f32> =
        scales.as_chunks().0.iter().map(|scale| f16::from_le_bytes(*scale).to_f32()).collect();
    let half = if packing.bits == 4 { 8.0 } else { 128.0 };
    let codes = words.iter().flat_map(|&byte| match packing.bits {
        4 => vec![byte & 15, byte >> 4],
        _ => vec![byte],
    });
    let value = |(at, code): (usize, u8)| {
        let group = at / columns * columns.div_ceil(group) + at % columns / group;
        (f32::from(code) - half) * scales.get(group).copied().unwrap_or(f32::NAN)
    };
    codes.enumerate().map(value).collect()
}
