//! The section table: what a section holds, where, and in which order sections come.

use crate::spec::{Architecture, ModelSpec};
use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

/// Sections start at multiples of this many bytes.
pub const SECTION_ALIGNMENT_BYTES: usize = 64;
/// The layer field of a section that belongs to no layer.
pub const NO_LAYER: u16 = u16::MAX;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum SectionKind {
    /// The tokenizer (docs/tokenizer-section.md).
    Tokenizer = 1,
    /// Rotary frequencies, in turns a position times 2^64.
    RopeFrequencies = 2,
    /// Token windows and the full-precision model's probabilities on them.
    CheckWindows = 3,
    /// Token embedding, and the head where it is tied.
    Embedding = 4,
    /// The head, where it is a matrix of its own.
    Head = 5,
    /// Gain of the last RMSNorm.
    FinalNorm = 6,
    /// Gain of the RMSNorm before attention.
    AttentionNorm = 16,
    /// Query projection.
    Query = 17,
    /// Key projection.
    Key = 18,
    /// Value projection.
    Value = 19,
    /// Output projection of attention.
    Output = 20,
    /// Gain of the RMSNorm before the MLP.
    MlpNorm = 21,
    /// Gate projection of the MLP.
    Gate = 22,
    /// Up projection of the MLP.
    Up = 23,
    /// Down projection of the MLP.
    Down = 24,
}

use SectionKind as K;

/// Sections before the layers; the head is left out where it is tied.
const MODEL_SECTIONS: [SectionKind; 6] =
    [K::Tokenizer, K::RopeFrequencies, K::CheckWindows, K::Embedding, K::Head, K::FinalNorm];
/// Sections of a Llama layer.
const LLAMA_LAYER_SECTIONS: [SectionKind; 9] =
    [K::AttentionNorm, K::Query, K::Key, K::Value, K::Output, K::MlpNorm, K::Gate, K::Up, K::Down];

impl SectionKind {
    /// Every kind.
    pub const ALL: [SectionKind; 15] = [
        K::Tokenizer,
        K::RopeFrequencies,
        K::CheckWindows,
        K::Embedding,
        K::Head,
        K::FinalNorm,
        K::AttentionNorm,
        K::Query,
        K::Key,
        K::Value,
        K::Output,
        K::MlpNorm,
        K::Gate,
        K::Up,
        K::Down,
    ];

    /// The name in reports and errors.
    pub const fn name(self) -> &'static str {
        match self {
            K::Tokenizer => "tokenizer",
            K::RopeFrequencies => "rope_frequencies",
            K::CheckWindows => "check_windows",
            K::Embedding => "embedding",
            K::Head => "head",
            K::FinalNorm => "final_norm",
            K::AttentionNorm => "attention_norm",
            K::Query => "query",
            K::Key => "key",
            K::Value => "value",
            K::Output => "output",
            K::MlpNorm => "mlp_norm",
            K::Gate => "gate",
            K::Up => "up",
            K::Down => "down",
        }
    }

    /// The kind of this number, where there is one.
    pub fn from_number(number: u16) -> Option<SectionKind> {
        SectionKind::ALL.into_iter().find(|&kind| kind as u16 == number)
    }

    /// Whether the section is a quantized matrix.
    pub const fn is_matrix(self) -> bool {
        matches!(
            self,
            K::Embedding | K::Head | K::Query | K::Key | K::Value | K::Output | K::Gate | K::Up | K::Down
        )
    }

    /// The shape that the model gives it, `(rows, columns)`; `None` for bytes of any length.
    pub fn shape(self, spec: &ModelSpec) -> Option<(u32, u32)> {
        let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        match self {
            K::Tokenizer | K::CheckWindows => None,
            K::RopeFrequencies => Some((1, spec.head_dim / 2)),
            K::Embedding | K::Head => Some((spec.vocabulary, spec.hidden)),
            K::FinalNorm | K::AttentionNorm | K::MlpNorm => Some((1, spec.hidden)),
            K::Query => Some((queries, spec.hidden)),
            K::Key | K::Value => Some((keys, spec.hidden)),
            K::Output => Some((spec.hidden, queries)),
            K::Gate | K::Up => Some((spec.intermediate, spec.hidden)),
            K::Down => Some((spec.hidden, spec.intermediate)),
        }
    }
}

/// Which section: a kind, and a layer where the kind has layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SectionName {
    /// What it holds.
    pub kind: SectionKind,
    /// The layer, from 0.
    pub layer: Option<u16>,
}

impl core::fmt::Display for SectionName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "layer {layer} {}", self.kind.name()),
            None => f.write_str(self.kind.name()),
        }
    }
}

fn model_sections(spec: &ModelSpec) -> impl Iterator<Item = SectionKind> + use<> {
    let tied = spec.tied_head;
    MODEL_SECTIONS.into_iter().filter(move |&kind| !(tied && kind == K::Head))
}

fn layer_sections(architecture: Architecture) -> &'static [SectionKind] {
    match architecture {
        Architecture::Llama => &LLAMA_LAYER_SECTIONS,
    }
}

/// The sections of a model in the order of the file.
pub fn sections(spec: &ModelSpec) -> impl Iterator<Item = SectionName> + use<> {
    let layers = 0..spec.layers as u16;
    let in_layer = layer_sections(spec.architecture);
    model_sections(spec).map(|kind| SectionName { kind, layer: None }).chain(
        layers.flat_map(move |layer| {
            in_layer.iter().map(move |&kind| SectionName { kind, layer: Some(layer) })
        }),
    )
}

/// How many sections a model has.
pub fn section_count(spec: &ModelSpec) -> usize {
    model_sections(spec).count() + spec.layers as usize * layer_sections(spec.architecture).len()
}

/// Where a section stands in the table; `None` where this model has none of that name.
pub fn section_index(spec: &ModelSpec, name: SectionName) -> Option<usize> {
    match name.layer {
        None => model_sections(spec).position(|kind| kind == name.kind),
        Some(layer) if u32::from(layer) < spec.layers => {
            let in_layer = layer_sections(spec.architecture);
            let place = in_layer.iter().position(|&kind| kind == name.kind)?;
            Some(model_sections(spec).count() + usize::from(layer) * in_layer.len() + place)
        }
        Some(_) => None,
    }
}

/// An entry of the section table, as it lies in the file (docs/container.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SectionEntry {
    /// Number of the [`SectionKind`].
    pub kind: u16,
    /// Layer, or [`NO_LAYER`].
    pub layer: u16,
    /// Encoding number.
    pub encoding: u8,
    /// Layout number.
    pub layout: u8,
    /// Tier for progressive loading: 0.
    pub tier: u8,
    /// Zero.
    pub reserved: u8,
    /// Rows, `n`.
    pub rows: u32,
    /// Columns, `k`.
    pub cols: u32,
    /// Columns a group, or 0.
    pub group_elems: u32,
    /// CRC-32 of the section.
    pub crc32: u32,
    /// Where it begins in the file.
    pub offset_bytes: u64,
    /// Its length.
    pub length_bytes: u64,
    /// Zero.
    pub reserved_tail: [u64; 3],
    /// SHA-256 of the section.
    pub sha256: [u8; 32],
}

/// Bytes of an entry.
pub const SECTION_ENTRY_BYTES: usize = core::mem::size_of::<SectionEntry>();
const _: () = assert!(SECTION_ENTRY_BYTES == 96);

/// Encoding numbers of [`SectionEntry::encoding`].
pub mod encoding {
    /// Bytes with a structure of their own.
    pub const BYTES: u8 = 0;
    /// u64.
    pub const U64: u8 = 1;
    /// f32.
    pub const F32: u8 = 2;
    /// Added to the bits of a code: 18 to 22, and 24.
    pub const INT: u8 = 16;
}

/// Layout numbers of [`SectionEntry::layout`].
pub mod layout {
    use crate::layouts::Layout;

    /// No layout: the section isn't a matrix.
    pub const NONE: u8 = 0;

    /// The number of a layout.
    pub const fn number(layout: Layout) -> u8 {
        match layout {
            Layout::Rows => 1,
            Layout::Nr8k4 => 2,
        }
    }

    /// The layout of a number, where there is one.
    pub fn from_number(number: u8) -> Option<Layout> {
        Layout::ALL.into_iter().find(|&layout| self::number(layout) == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(tied_head: bool, layers: u32) -> ModelSpec {
        ModelSpec { tied_head, layers, ..crate::spec::tests::spec() }
    }

    #[test]
    fn every_section_is_found_where_it_stands() {
        for (tied, layers) in [(true, 1), (false, 3)] {
            let spec = spec(tied, layers);
            assert_eq!(sections(&spec).count(), section_count(&spec));
            for (index, name) in sections(&spec).enumerate() {
                assert_eq!(section_index(&spec, name), Some(index), "{name}");
            }
            assert_eq!(
                section_index(&spec, SectionName { kind: K::Query, layer: Some(layers as u16) }),
                None
            );
            assert_eq!(section_index(&spec, SectionName { kind: K::Query, layer: None }), None);
            assert_eq!(section_index(&spec, SectionName { kind: K::Head, layer: None }).is_none(), tied);
        }
    }

    #[test]
    fn kinds_and_layouts_are_found_by_number() {
        for kind in SectionKind::ALL {
            assert_eq!(SectionKind::from_number(kind as u16), Some(kind));
        }
        assert_eq!(SectionKind::from_number(0), None);
        assert_eq!(layout::from_number(layout::NONE), None);
    }
}
