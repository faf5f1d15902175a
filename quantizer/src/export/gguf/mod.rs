//! GGUF files of the architecture `llama`, for llama.cpp and its relatives.
//!
//! Matrices become Q4_0 or Q8_0: blocks of 32 weights, each with a binary16 scale. A container's groups are as large or larger, so their
//! scale stands in each of their blocks. Norms are F32.
//!
//! The writer is our own: of the crates that write GGUF, `candle-core` 0.11 comes with a tensor library, `gguf-rs-lib` 0.3 and `ggus` 0.5 bring their
//! own readers, and the format is two tables and padding.

mod blocks;
mod file;
mod rotary;
mod tokenizer;
mod verify;

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::section::{SectionKind, SectionName};

use serde::Serialize;

use super::{ExportError, ScaledIntegers, require_plain_llama};
use crate::files;
use file::{File, Tensor, TensorType, Value};
use rotary::Rotary;

/// Which type the blocks' matrices get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockType {
    /// For each the smallest that holds it.
    Smallest,
    /// 4 bits and a scale for each 32 weights.
    Q4_0,
    /// 8 bits and a scale for each 32 weights.
    Q8_0,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GgufReport {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// How many tensors there are of each type.
    pub tensors: BTreeMap<&'static str, usize>,
    /// Weights that were compared with the container's, bit for bit, after reading the file.
    pub compared: u64,
    /// What the file cannot say.
    pub warnings: Vec<String>,
}

/// Writes a container's model as a GGUF file, and reads it back. `partial` hears of the temporary file.
///
/// # Errors
/// [`ExportError`].
pub fn export<Kept>(
    container: &CheckedContainer<'_>,
    blocks: BlockType,
    path: &Path,
    partial: impl FnOnce(&Path) -> Kept,
) -> Result<GgufReport, ExportError> {
    let spec = &container.manifest().spec;
    let mut warnings = Vec::new();
    let mut file = File::default();
    let rotary = Rotary::of(container.rope_frequencies());
    file.tensors = tensors(container, blocks, &rotary)?;
    put_sizes(&mut file, container, &rotary)?;
    let tokenizer = container.tokenizer().ok_or(ExportError::NoTokenizer)?;
    tokenizer::put(&mut file, &tokenizer, spec, &mut warnings)?;
    let mut tensors = BTreeMap::new();
    file.tensors.iter().for_each(|tensor| *tensors.entry(tensor.kind.name()).or_default() += 1);
    let (mut file_bytes, mut compared) = (0, 0);
    files::replace_checked(
        path,
        files::FILE,
        partial,
        |temporary| {
            let mut buffered = BufWriter::new(&mut *temporary);
            file.write(&mut buffered)?;
            buffered.into_inner().map_err(|error| error.into_error())?;
            file_bytes = temporary.metadata()?.len();
            Ok(())
        },
        |temporary| {
            compared = verify::compare(container, &rotary, temporary)?;
            Ok::<(), ExportError>(())
        },
    )?;
    Ok(GgufReport { file_bytes, tensors, compared, warnings })
}

/// All tensors, under llama.cpp's names.
fn tensors(
    container: &CheckedContainer<'_>,
    blocks: BlockType,
    rotary: &Rotary,
) -> Result<Vec<Tensor>, ExportError> {
    let spec = &container.manifest().spec;
    let mut tensors = Vec::new();
    if !rotary.divisors.is_empty() {
        tensors.push(blocks::floats("rope_freqs.weight".into(), &rotary.divisors));
    }
    for (section, _) in container.container().entries() {
        let SectionName { kind, layer } = section;
        let Some(name) = tensor_name(section) else { continue };
        if let Some(values) = container.floats(section) {
            tensors.push(blocks::floats(name, values));
            continue;
        }
        // Of an embedding in bands, the first band stands for all.
        let layer = match (kind, layer) {
            (SectionKind::Embedding, Some(0)) => None,
            (SectionKind::Embedding, Some(_)) => continue,
            (_, layer) => layer,
        };
        let Some(matrix) = ScaledIntegers::read(container, kind, layer)? else { continue };
        let outside = matches!(kind, SectionKind::Embedding | SectionKind::Head);
        let wanted = if outside { BlockType::Smallest } else { blocks };
        let rotated = matches!(kind, SectionKind::Query | SectionKind::Key);
        let head_dim = spec.head_dim as usize;
        let order = |row| if rotated { blocks::row_of_neighbours(row, head_dim) } else { row };
        tensors.push(blocks::matrix(name, &matrix, wanted, order)?);
    }
    Ok(tensors)
}

/// What llama.cpp calls a section; `None` for what is no tensor.
fn tensor_name(SectionName { kind, layer }: SectionName) -> Option<String> {
    let of_block = match kind {
        SectionKind::Embedding => return Some("token_embd.weight".into()),
        SectionKind::Head => return Some("output.weight".into()),
        SectionKind::FinalNorm => return Some("output_norm.weight".into()),
        SectionKind::AttentionNorm => "attn_norm",
        SectionKind::Query => "attn_q",
        SectionKind::Key => "attn_k",
        SectionKind::Value => "attn_v",
        SectionKind::Output => "attn_output",
        SectionKind::MlpNorm => "ffn_norm",
        SectionKind::Gate => "ffn_gate",
        SectionKind::Up => "ffn_up",
        SectionKind::Down => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{}.{of_block}.weight", layer?))
}

/// Architecture, sizes and constants.
fn put_sizes(file: &mut File, container: &CheckedContainer<'_>, rotary: &Rotary) -> Result<(), ExportError> {
    require_plain_llama(&container.manifest().spec, "GGUF")?;
    let (spec, provenance) = (&container.manifest().spec, &container.manifest().provenance);
    let text = |text: &str| Value::Text(text.to_owned());
    file.put("general.architecture", text("llama"));
    file.put("general.type", text("model"));
    file.put("general.name", text(&provenance.checkpoint));
    let method = format!("Quantized with {} (rescomp {})", provenance.method, provenance.tool_version);
    file.put("general.description", Value::Text(method));
    file.put("general.file_type", Value::U32(file_type(&file.tensors)));
    // Of the layouts of blocks.
    file.put("general.quantization_version", Value::U32(2));
    for (key, size) in [
        ("llama.vocab_size", spec.vocabulary),
        ("llama.context_length", spec.context),
        ("llama.embedding_length", spec.hidden),
        ("llama.block_count", spec.layers),
        ("llama.feed_forward_length", spec.intermediate),
        ("llama.attention.head_count", spec.heads),
        ("llama.attention.head_count_kv", spec.kv_heads),
        ("llama.attention.key_length", spec.head_dim),
        ("llama.attention.value_length", spec.head_dim),
        ("llama.rope.dimension_count", spec.head_dim),
    ] {
        file.put(key, Value::U32(size));
    }
    file.put("llama.attention.layer_norm_rms_epsilon", Value::F32(spec.norm_epsilon));
    file.put("llama.rope.freq_base", Value::F32(rotary.base));
    Ok(())
}

/// The number by which llama.cpp shows what most matrices are.
fn file_type(tensors: &[Tensor]) -> u32 {
    let count = |kind| tensors.iter().filter(|tensor| tensor.kind == kind).count();
    if count(TensorType::Q4_0) >= count(TensorType::Q8_0) { 2 } else { 7 }
}
