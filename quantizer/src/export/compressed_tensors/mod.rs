//! A Hugging Face folder with quantized weights, as the package compressed-tensors lays them out ("pack-quantized"): for vLLM and transformers.
//!
//! Of each matrix of the blocks there are three tensors: `weight_packed`, i32 words of 4- or 8-bit codes; `weight_scale`, an f16 number a group;
//! `weight_shape`. Embedding, head and norms are 32-bit floats, which hold a container's values exactly. `config.json` is the
//! checkpoint's with `quantization_config`; the tokenizer's files are copied.

mod pack;
mod verify;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::encodings::UNIT_ELEMS;
use rescomp_formats::section::{SectionKind, SectionName};
use safetensors::tensor::{Dtype, View};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ExportError, ScaledIntegers, require_plain_llama};
use crate::checkpoint::Checkpoint;
use crate::files;
use pack::Packing;

/// What this format is called in errors.
const FORMAT: &str = "compressed-tensors";
const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// What else of the checkpoint's folder is copied where it is there.
const COPIED: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja"];

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompressedTensorsReport {
    /// Bytes of the weights' file.
    pub file_bytes: u64,
    /// Bits of the blocks' codes.
    pub bits: usize,
    /// Weights that share a scale; `None` for whole rows.
    pub group_size: Option<usize>,
    /// Weights that were compared with the container's, bit for bit, after reading the file.
    pub compared: u64,
}

/// Writes the folder, which must be new or empty. `source` is the checkpoint's own folder, of which it needs config and tokenizer.
/// `partial` hears of the temporary folder.
///
/// # Errors
/// [`ExportError`].
pub fn export<Kept>(
    container: &CheckedContainer<'_>,
    source: &Path,
    folder: &Path,
    partial: impl FnOnce(&Path) -> Kept,
) -> Result<CompressedTensorsReport, ExportError> {
    check_source(container, source)?;
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        let there = format!("{}: expected a new or an empty folder", folder.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, there).into());
    }
    let matrices = matrices(container)?;
    let packing = Packing::of(&matrices)?;
    let config = config(&source.join(CONFIG), packing)?;

    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::make_folder(parent)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(files::PROGRAM));
    let temporary = builder.tempdir_in(parent)?;
    let _kept = partial(temporary.path());
    let weights = temporary.path().join(WEIGHTS);
    // What transformers asks of a file: whose tensors these are.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let tensors = tensors(container, &matrices, packing);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(io::Error::other)?;
    files::replace(&weights, &bytes, files::FILE, |_| ())?;
    let compared = verify::compare(container, packing, &weights)?;
    let file_bytes = bytes.len() as u64;
    files::replace(&temporary.path().join(CONFIG), config.as_bytes(), files::FILE, |_| ())?;
    for name in [TOKENIZER].into_iter().chain(COPIED) {
        let from = source.join(name);
        if name == TOKENIZER || from.is_file() {
            let bytes = fs::read(&from).map_err(|error| wrong(&from, error))?;
            files::replace(&temporary.path().join(name), &bytes, files::FILE, |_| ())?;
        }
    }
    fs::rename(temporary.path(), folder)?;
    // Under its name it is not temporary any more.
    let _ = temporary.keep();
    let Packing { bits, group } = packing;
    Ok(CompressedTensorsReport { file_bytes, bits, group_size: group, compared })
}

fn wrong(path: &Path, cause: impl ToString) -> ExportError {
    ExportError::Source { path: path.to_owned(), cause: cause.to_string() }
}

/// The folder must hold the weights that the container was packed from: its sizes and its tokenizer are theirs.
fn check_source(container: &CheckedContainer<'_>, source: &Path) -> Result<(), ExportError> {
    require_plain_llama(&container.manifest().spec, FORMAT)?;
    let checkpoint = Checkpoint::open_folder(source).map_err(|error| wrong(source, error))?;
    let provenance = &container.manifest().provenance;
    if checkpoint.digest() != provenance.checkpoint_sha256 {
        let expected = provenance.checkpoint.to_string();
        return Err(ExportError::OtherCheckpoint { path: source.to_owned(), expected });
    }
    Ok(())
}

/// The matrices of the blocks, with transformers' names.
fn matrices(container: &CheckedContainer<'_>) -> Result<Vec<(String, ScaledIntegers)>, ExportError> {
    let mut matrices = Vec::new();
    for (SectionName { kind, layer }, _) in container.container().entries() {
        if matches!(kind, SectionKind::Embedding | SectionKind::Head) || !kind.is_matrix() {
            continue;
        }
        if let Some(name) = module_name(SectionName { kind, layer })
            && let Some(matrix) = ScaledIntegers::read(container, kind, layer)?
        {
            matrices.push((name, matrix));
        }
    }
    Ok(matrices)
}

/// The sections of a container, an embedding in bands as one.
fn whole_sections(container: &CheckedContainer<'_>) -> impl Iterator<Item = SectionName> {
    container.container().entries().filter_map(|(name, _)| match name {
        SectionName { kind: SectionKind::Embedding, layer: Some(band) } if band > 0 => None,
        SectionName { kind: SectionKind::Embedding, .. } => Some(SectionName { layer: None, ..name }),
        other => Some(other),
    })
}

/// What transformers calls the module that has a section's weights; `None` for what is no weight.
fn module_name(SectionName { kind, layer }: SectionName) -> Option<String> {
    let of_block = match kind {
        SectionKind::Embedding => return Some("model.embed_tokens".into()),
        SectionKind::Head => return Some("lm_head".into()),
        SectionKind::FinalNorm => return Some("model.norm".into()),
        SectionKind::AttentionNorm => "input_layernorm",
        SectionKind::Query => "self_attn.q_proj",
        SectionKind::Key => "self_attn.k_proj",
        SectionKind::Value => "self_attn.v_proj",
        SectionKind::Output => "self_attn.o_proj",
        SectionKind::MlpNorm => "post_attention_layernorm",
        SectionKind::Gate => "mlp.gate_proj",
        SectionKind::Up => "mlp.up_proj",
        SectionKind::Down => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{}.{of_block}", layer?))
}

/// A tensor of the file.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// All tensors.
fn tensors(
    container: &CheckedContainer<'_>,
    matrices: &[(String, ScaledIntegers)],
    packing: Packing,
) -> Vec<(String, Stored)> {
    let mut tensors = Vec::new();
    for (module, matrix) in matrices {
        let (words, scales) = (packing.words(matrix), packing.scales(matrix));
        let shape = [matrix.rows as i64, matrix.columns as i64];
        let columns = matrix.columns * packing.bits / 32;
        let groups = scales.len() / matrix.rows;
        tensors.push((
            format!("{module}.weight_packed"),
            Stored {
                dtype: Dtype::I32,
                shape: vec![matrix.rows, columns],
                bytes: words.into_iter().flat_map(u32::to_le_bytes).collect(),
            },
        ));
        tensors.push((
            format!("{module}.weight_scale"),
            Stored {
                dtype: Dtype::F16,
                shape: vec![matrix.rows, groups],
                bytes: scales.into_iter().flat_map(|scale| scale.to_le_bytes()).collect(),
            },
        ));
        let bytes = shape.into_iter().flat_map(i64::to_le_bytes).collect();
        tensors.push((format!("{module}.weight_shape"), Stored { dtype: Dtype::I64, shape: vec![2], bytes }));
    }
    for section in whole_sections(container) {
        let float = !section.kind.is_matrix() || section.kind == SectionKind::Head || section.layer.is_none();
        let Some(module) = module_name(section).filter(|_| float) else { continue };
        let shape = match section.kind {
            SectionKind::Embedding | SectionKind::Head => {
                let spec = &container.manifest().spec;
                vec![spec.vocabulary as usize, spec.hidden as usize]
            }
            _ => vec![container.floats(section).map_or(0, <[f32]>::len)],
        };
        let values = verify::values(container, section);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((format!("{module}.weight"), Stored { dtype: Dtype::F32, shape, bytes }));
    }
    tensors
}

/// The checkpoint's `config.json` with what says how weights are packed.
fn config(path: &Path, packing: Packing) -> Result<String, ExportError> {
    let text = fs::read(path).map_err(|error| wrong(path, error))?;
    let mut config: Map<String, Value> = serde_json::from_slice(&text).map_err(|error| wrong(path, error))?;
    // Models that compute the same under this name may have other names for their tensors.
    if let Some(found) =
        config.get("model_type").filter(|found| !["llama", "mistral"].map(Some).contains(&found.as_str()))
    {
        let (part, found, supported) = ("model_type", found.to_string(), "llama, mistral");
        return Err(ExportError::Unsupported { part, found, format: FORMAT, supported });
    }
    // What these multiply queries and keys with, the container's weights have taken in: a reader would do it again.
    for settings in ["rope_scaling", "rope_parameters"].iter().filter_map(|key| config.get(*key)) {
        let kind = |key: &str| settings.get(key).and_then(Value::as_str);
        if let Some(found) =
            kind("rope_type").or(kind("type")).filter(|kind| ["yarn", "longrope", "su"].contains(kind))
        {
            let (part, found, supported) = ("rope_type", found.to_owned(), "default, linear, llama3");
            return Err(ExportError::Unsupported { part, found, format: FORMAT, supported });
        }
    }
    // Two names of one field: transformers 5, and before. f16 holds the scales exactly.
    let names: Vec<&str> =
        ["dtype", "torch_dtype"].into_iter().filter(|name| config.contains_key(*name)).collect();
    let names = if names.is_empty() { vec!["torch_dtype"] } else { names };
    for name in names {
        config.insert(name.to_owned(), json!("float16"));
    }
    let (strategy, group_size) = match packing.group {
        Some(group) => ("group", json!(group)),
        None => ("channel", Value::Null),
    };
    let weights = json!({
        "num_bits": packing.bits,
        "type": "int",
        "symmetric": true,
        "strategy": strategy,
        "group_size": group_size,
        "dynamic": false,
    });
    let group = json!({ "targets": ["Linear"], "weights": weights, "input_activations": null, "output_activations": null });
    let quantization = json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": { "group_0": group },
        "ignore": ["lm_head"],
    });
    config.insert("quantization_config".to_owned(), quantization);
    Ok(format!("{:#}\n", Value::Object(config)))
}

/// Columns of a row that are whole groups, or refused.
fn check_columns(matrix: &ScaledIntegers, group: usize) -> Result<(), ExportError> {
    match matrix.columns.is_multiple_of(group) && matrix.columns.is_multiple_of(UNIT_ELEMS) {
        true => Ok(()),
        false => Err(ExportError::RowLength {
            tensor: matrix.name,
            kind: FORMAT,
            multiple: group,
            columns: matrix.columns,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_weights_have_taken_in_is_not_written_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG);
        let written = |settings: Value| {
            let text = json!({ "model_type": "llama", "rope_scaling": settings }).to_string();
            std::fs::write(&path, text).unwrap();
            config(&path, Packing { bits: 4, group: Some(32) }).map_err(|error| error.to_string())
        };
        assert!(written(json!({ "rope_type": "linear", "factor": 2.0 })).is_ok());
        assert!(written(json!(null)).is_ok());
        for settings in [json!({ "rope_type": "yarn", "factor": 2.0 }), json!({ "type": "longrope" })] {
            let error = written(settings).unwrap_err();
            assert!(error.contains("rope_type") && error.contains("cannot be exported"), "{error}");
        }
    }
}
