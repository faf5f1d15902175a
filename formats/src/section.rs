//! The section table: what a section holds, where, and in which order sections come.

mod order;

pub use order::Sections;

use crate::image_input::ImageInput;
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
    /// Gain of the last norm.
    FinalNorm = 6,
    /// The band of each token's row, a byte a token, where the embedding is divided into bands.
    TokenBands = 7,
    /// The texts around the messages of a conversation, where the model has a chat template.
    ChatTemplate = 8,
    /// Rotary frequencies of layers with a window, where they have their own, in turns a position times 2^64.
    LocalRopeFrequencies = 9,
    /// A vector for each position that is added to a token's embedding, where positions are learned.
    Positions = 10,
    /// Bias of the last LayerNorm.
    FinalNormBias = 11,
    /// Gain of the norm before attention; in BERT behind it, of the sum.
    AttentionNorm = 16,
    /// Query projection.
    Query = 17,
    /// Key projection.
    Key = 18,
    /// Value projection.
    Value = 19,
    /// Output projection of attention.
    Output = 20,
    /// Gain of the norm before the MLP; in BERT behind it, of the sum.
    MlpNorm = 21,
    /// Gate projection of the MLP.
    Gate = 22,
    /// Up projection of the MLP.
    Up = 23,
    /// Down projection of the MLP.
    Down = 24,
    /// Bias of attention's LayerNorm.
    AttentionNormBias = 32,
    /// Bias of the queries.
    QueryBias = 33,
    /// Bias of the keys.
    KeyBias = 34,
    /// Bias of the values.
    ValueBias = 35,
    /// Bias of attention's output.
    OutputBias = 36,
    /// Bias of the MLP's LayerNorm.
    MlpNormBias = 37,
    /// Bias of the up projection.
    UpBias = 38,
    /// Bias of the down projection.
    DownBias = 39,
    /// Gain of the RMSNorm of each head's queries, of OLMo 2 of all of them.
    QueryNorm = 40,
    /// Gain of the RMSNorm of each head's keys, of OLMo 2 of all of them.
    KeyNorm = 41,
    /// Gain of the RMSNorm behind attention.
    AttentionPostNorm = 42,
    /// Gain of the RMSNorm behind the MLP.
    MlpPostNorm = 43,
    /// Gain of the LayerNorm of the embeddings, in front of an encoder's first block.
    EmbeddingNorm = 12,
    /// Its bias.
    EmbeddingNormBias = 13,
    /// Of an encoder, texts and the full-precision model's vectors of them.
    CheckEmbeddings = 14,
    /// What the input of a tied head passes, where the stream was rotated.
    HeadInput = 28,
    /// Names of an image's classes, a line each.
    Labels = 15,
    /// Of a classifier, images and the full-precision model's probabilities of their classes.
    CheckImages = 25,
    /// What makes a token of a patch's pixels.
    Patches = 26,
    /// Bias of a classifier's head.
    HeadBias = 27,
}

use SectionKind as K;

/// Sections of a layer of Llama.
const LLAMA: [SectionKind; 9] =
    [K::AttentionNorm, K::Query, K::Key, K::Value, K::Output, K::MlpNorm, K::Gate, K::Up, K::Down];
/// Of Qwen 2: biases of queries, keys and values.
const QWEN2: [SectionKind; 12] = [
    K::AttentionNorm,
    K::Query,
    K::Key,
    K::Value,
    K::QueryBias,
    K::KeyBias,
    K::ValueBias,
    K::Output,
    K::MlpNorm,
    K::Gate,
    K::Up,
    K::Down,
];
/// Of Qwen 3: norms of each head.
const QWEN3: [SectionKind; 11] = [
    K::AttentionNorm,
    K::Query,
    K::Key,
    K::Value,
    K::QueryNorm,
    K::KeyNorm,
    K::Output,
    K::MlpNorm,
    K::Gate,
    K::Up,
    K::Down,
];
/// Of Gemma 2: norms behind attention and behind the MLP.
const GEMMA2: [SectionKind; 11] = [
    K::AttentionNorm,
    K::Query,
    K::Key,
    K::Value,
    K::Output,
    K::AttentionPostNorm,
    K::MlpNorm,
    K::Gate,
    K::Up,
    K::Down,
    K::MlpPostNorm,
];
/// Of Gemma 3: norms of each head, too.
const GEMMA3: [SectionKind; 13] = [
    K::AttentionNorm,
    K::Query,
    K::Key,
    K::Value,
    K::QueryNorm,
    K::KeyNorm,
    K::Output,
    K::AttentionPostNorm,
    K::MlpNorm,
    K::Gate,
    K::Up,
    K::Down,
    K::MlpPostNorm,
];
/// Of GPT-2, GPT-NeoX and ViT: no gate, and a bias everywhere.
const GPT: [SectionKind; 16] = [
    K::AttentionNorm,
    K::AttentionNormBias,
    K::Query,
    K::Key,
    K::Value,
    K::QueryBias,
    K::KeyBias,
    K::ValueBias,
    K::Output,
    K::OutputBias,
    K::MlpNorm,
    K::MlpNormBias,
    K::Up,
    K::UpBias,
    K::Down,
    K::DownBias,
];
/// Of GPT-Neo: the same without biases of queries, keys and values.
const GPT_NEO: [SectionKind; 13] = [
    K::AttentionNorm,
    K::AttentionNormBias,
    K::Query,
    K::Key,
    K::Value,
    K::Output,
    K::OutputBias,
    K::MlpNorm,
    K::MlpNormBias,
    K::Up,
    K::UpBias,
    K::Down,
    K::DownBias,
];
/// Of OLMo 2: norms behind attention and MLP alone, and of all queries and all keys.
const OLMO2: [SectionKind; 11] = [
    K::Query,
    K::Key,
    K::Value,
    K::QueryNorm,
    K::KeyNorm,
    K::Output,
    K::AttentionPostNorm,
    K::Gate,
    K::Up,
    K::Down,
    K::MlpPostNorm,
];
/// Of StableLM: Qwen 2's with biases of the norms.
const STABLE_LM: [SectionKind; 14] = [
    K::AttentionNorm,
    K::AttentionNormBias,
    K::Query,
    K::Key,
    K::Value,
    K::QueryBias,
    K::KeyBias,
    K::ValueBias,
    K::Output,
    K::MlpNorm,
    K::MlpNormBias,
    K::Gate,
    K::Up,
    K::Down,
];
/// Of BERT: GPT's with the norms behind attention and MLP.
const BERT: [SectionKind; 16] = [
    K::Query,
    K::Key,
    K::Value,
    K::QueryBias,
    K::KeyBias,
    K::ValueBias,
    K::Output,
    K::OutputBias,
    K::AttentionNorm,
    K::AttentionNormBias,
    K::Up,
    K::UpBias,
    K::Down,
    K::DownBias,
    K::MlpNorm,
    K::MlpNormBias,
];

impl SectionKind {
    /// Every kind.
    pub const ALL: [SectionKind; 40] = [
        K::Tokenizer,
        K::RopeFrequencies,
        K::CheckWindows,
        K::Embedding,
        K::Head,
        K::FinalNorm,
        K::TokenBands,
        K::AttentionNorm,
        K::Query,
        K::Key,
        K::Value,
        K::Output,
        K::MlpNorm,
        K::Gate,
        K::Up,
        K::Down,
        K::ChatTemplate,
        K::LocalRopeFrequencies,
        K::Positions,
        K::FinalNormBias,
        K::AttentionNormBias,
        K::QueryBias,
        K::KeyBias,
        K::ValueBias,
        K::OutputBias,
        K::MlpNormBias,
        K::UpBias,
        K::DownBias,
        K::QueryNorm,
        K::KeyNorm,
        K::AttentionPostNorm,
        K::MlpPostNorm,
        K::EmbeddingNorm,
        K::EmbeddingNormBias,
        K::CheckEmbeddings,
        K::HeadInput,
        K::Labels,
        K::CheckImages,
        K::Patches,
        K::HeadBias,
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
            K::TokenBands => "token_bands",
            K::AttentionNorm => "attention_norm",
            K::Query => "query",
            K::Key => "key",
            K::Value => "value",
            K::Output => "output",
            K::MlpNorm => "mlp_norm",
            K::Gate => "gate",
            K::Up => "up",
            K::Down => "down",
            K::ChatTemplate => "chat_template",
            K::LocalRopeFrequencies => "local_rope_frequencies",
            K::Positions => "positions",
            K::FinalNormBias => "final_norm_bias",
            K::AttentionNormBias => "attention_norm_bias",
            K::QueryBias => "query_bias",
            K::KeyBias => "key_bias",
            K::ValueBias => "value_bias",
            K::OutputBias => "output_bias",
            K::MlpNormBias => "mlp_norm_bias",
            K::UpBias => "up_bias",
            K::DownBias => "down_bias",
            K::QueryNorm => "query_norm",
            K::KeyNorm => "key_norm",
            K::AttentionPostNorm => "attention_post_norm",
            K::MlpPostNorm => "mlp_post_norm",
            K::EmbeddingNorm => "embedding_norm",
            K::EmbeddingNormBias => "embedding_norm_bias",
            K::CheckEmbeddings => "check_embeddings",
            K::HeadInput => "head_input",
            K::Labels => "labels",
            K::CheckImages => "check_images",
            K::Patches => "patches",
            K::HeadBias => "head_bias",
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
            K::Embedding
                | K::HeadInput
                | K::Patches
                | K::Head
                | K::Query
                | K::Key
                | K::Value
                | K::Output
                | K::Gate
                | K::Up
                | K::Down
        )
    }

    /// Whether the section is a matrix of a block: one that may have a low-rank correction.
    pub const fn is_block_matrix(self) -> bool {
        self.is_matrix() && !matches!(self, K::Embedding | K::Head)
    }

    /// Whether the section is rows of f32 numbers: norms, biases, learned positions.
    pub const fn is_floats(self) -> bool {
        let frequencies = matches!(self, K::RopeFrequencies | K::LocalRopeFrequencies);
        !(self.is_bytes() || frequencies || self.is_matrix())
    }

    /// Whether the section is bytes with a structure of their own.
    pub const fn is_bytes(self) -> bool {
        matches!(
            self,
            K::Tokenizer
                | K::Labels
                | K::CheckWindows
                | K::CheckEmbeddings
                | K::CheckImages
                | K::TokenBands
                | K::ChatTemplate
        )
    }

    /// Whether the section is the gain of a norm.
    pub const fn is_gain(self) -> bool {
        matches!(
            self,
            K::FinalNorm
                | K::EmbeddingNorm
                | K::AttentionNorm
                | K::AttentionPostNorm
                | K::MlpNorm
                | K::MlpPostNorm
                | K::QueryNorm
                | K::KeyNorm
        )
    }

    /// The shape that the model gives it, `(rows, columns)`; `None` for bytes, and for an embedding in bands: how many rows a band
    /// has is for [`K::TokenBands`] to say.
    pub fn shape(self, spec: &ModelSpec) -> Option<(u32, u32)> {
        let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        match self {
            K::Tokenizer
            | K::Labels
            | K::CheckWindows
            | K::CheckEmbeddings
            | K::CheckImages
            | K::TokenBands
            | K::ChatTemplate => None,
            K::RopeFrequencies | K::LocalRopeFrequencies => Some((1, spec.variant.rotary_dim / 2)),
            K::Embedding if spec.embedding_bands > 1 => None,
            K::Embedding => Some((spec.vocabulary, spec.hidden)),
            K::Head => {
                Some((spec.vocabulary, spec.hidden * spec.image().map_or(1, |image| image.head_tokens)))
            }
            K::HeadInput => Some((spec.hidden, spec.hidden)),
            K::HeadBias => Some((1, spec.vocabulary)),
            K::Patches => Some((spec.hidden, spec.image().map_or(0, ImageInput::patch_elems))),
            K::Positions => Some((spec.context, spec.hidden)),
            K::FinalNorm
            | K::FinalNormBias
            | K::EmbeddingNorm
            | K::EmbeddingNormBias
            | K::AttentionNorm
            | K::AttentionNormBias
            | K::AttentionPostNorm
            | K::MlpNorm
            | K::MlpNormBias
            | K::MlpPostNorm
            | K::OutputBias
            | K::DownBias => Some((1, spec.hidden)),
            K::QueryBias => Some((1, queries)),
            K::KeyBias | K::ValueBias => Some((1, keys)),
            K::QueryNorm if spec.architecture == Architecture::Olmo2 => Some((1, queries)),
            K::KeyNorm if spec.architecture == Architecture::Olmo2 => Some((1, keys)),
            K::QueryNorm | K::KeyNorm => Some((1, spec.head_dim)),
            K::UpBias => Some((1, spec.intermediate)),
            K::Query => Some((queries, spec.hidden)),
            K::Key | K::Value => Some((keys, spec.hidden)),
            K::Output => Some((spec.hidden, queries)),
            K::Gate | K::Up => Some((spec.intermediate, spec.hidden)),
            K::Down => Some((spec.hidden, spec.intermediate)),
        }
    }
}

/// Which section: a kind, and a layer where the kind has layers, or a band where the embedding has bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SectionName {
    /// What it holds.
    pub kind: SectionKind,
    /// The layer, from 0. Of an embedding in bands, the band.
    pub layer: Option<u16>,
}

impl core::fmt::Display for SectionName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.layer {
            Some(band) if self.kind == K::Embedding => write!(f, "{} band {band}", self.kind.name()),
            Some(layer) => write!(f, "layer {layer} {}", self.kind.name()),
            None => f.write_str(self.kind.name()),
        }
    }
}

fn model_sections(spec: &ModelSpec) -> Sections {
    Sections::new(spec, 0)
}

/// The sections of a layer, in the order of the file.
pub const fn layer_sections(architecture: Architecture) -> &'static [SectionKind] {
    match architecture {
        Architecture::Llama => &LLAMA,
        Architecture::Qwen2 => &QWEN2,
        Architecture::Qwen3 => &QWEN3,
        Architecture::Gemma2 => &GEMMA2,
        Architecture::Gemma3 => &GEMMA3,
        Architecture::GptNeox | Architecture::Gpt2 | Architecture::Vit => &GPT,
        Architecture::GptNeo => &GPT_NEO,
        Architecture::Olmo2 => &OLMO2,
        Architecture::StableLm => &STABLE_LM,
        Architecture::Bert => &BERT,
    }
}

/// The sections of a model in the order of the file.
pub fn sections(spec: &ModelSpec) -> Sections {
    Sections::new(spec, spec.layers as u16)
}

/// How many sections a model has.
pub fn section_count(spec: &ModelSpec) -> usize {
    model_sections(spec).before_layers() + spec.layers as usize * layer_sections(spec.architecture).len()
}

/// Where a section stands in the table; `None` where this model has none of that name.
pub fn section_index(spec: &ModelSpec, name: SectionName) -> Option<usize> {
    match name.layer {
        // A band's number is no layer.
        None => model_sections(spec).position(|section| section == name),
        Some(_) if name.kind == K::Embedding => model_sections(spec).position(|section| section == name),
        Some(layer) if u32::from(layer) < spec.layers => {
            let in_layer = layer_sections(spec.architecture);
            let place = in_layer.iter().position(|&kind| kind == name.kind)?;
            Some(model_sections(spec).before_layers() + usize::from(layer) * in_layer.len() + place)
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
    /// Layer, or band of an embedding in bands; or [`NO_LAYER`].
    pub layer: u16,
    /// Encoding number.
    pub encoding: u8,
    /// Layout number.
    pub layout: u8,
    /// Tier for progressive loading: 0.
    pub tier: u8,
    /// Rank of the matrix's low-rank correction, in units of 32; 0 where it has none.
    pub rank_units: u8,
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

    fn spec(tied_head: bool, layers: u32, embedding_bands: u8) -> ModelSpec {
        let chat_template = layers == 3;
        ModelSpec { tied_head, layers, embedding_bands, chat_template, ..crate::spec::tests::spec() }
    }

    #[test]
    fn every_section_is_found_where_it_stands() {
        for (tied, layers, bands) in
            [(true, 1), (false, 3)].into_iter().flat_map(|(t, l)| (1..=8).map(move |b| (t, l, b)))
        {
            let spec = spec(tied, layers, bands);
            let bands = u16::from(bands);
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
            let banded = bands > 1;
            let embedding = |layer| section_index(&spec, SectionName { kind: K::Embedding, layer });
            assert_eq!(embedding(None).is_none(), banded);
            assert_eq!(embedding(Some(0)).is_some(), banded);
            assert_eq!(embedding(Some(bands - 1)).is_some(), banded);
            assert_eq!(embedding(Some(bands)), None);
            let token_bands = SectionName { kind: K::TokenBands, layer: None };
            assert_eq!(section_index(&spec, token_bands).is_some(), banded);
        }
    }

    /// A model of each architecture.
    fn of_each() -> impl Iterator<Item = ModelSpec> {
        use crate::spec::{Activation, Variant};
        Architecture::ALL.into_iter().map(|architecture| {
            let mut variant = Variant::plain(8);
            if !architecture.has_gate() {
                variant.activation = Activation::Gelu;
            }
            if architecture.has_learned_positions() {
                variant.rotary_dim = 0;
            }
            ModelSpec { variant, ..crate::spec::tests::of(architecture) }
        })
    }

    #[test]
    fn every_architecture_has_its_sections_once_and_with_shapes() {
        for spec in of_each() {
            assert_eq!(spec.check(), Ok(()));
            let mut seen = std::vec::Vec::new();
            for (index, name) in sections(&spec).enumerate() {
                assert_eq!(section_index(&spec, name), Some(index), "{:?} {name}", spec.architecture);
                assert!(!seen.contains(&name), "{:?} {name}", spec.architecture);
                assert_eq!(name.kind.shape(&spec).is_none(), name.kind.is_bytes(), "{name}");
                seen.push(name);
            }
            let has = |kind| seen.iter().any(|name| name.kind == kind);
            let architecture = spec.architecture;
            assert_eq!(has(K::Gate), architecture.has_gate());
            assert_eq!(
                (has(K::QueryNorm), has(K::KeyNorm)),
                (architecture.has_head_norms(), architecture.has_head_norms())
            );
            assert_eq!(has(K::QueryBias), architecture.has_query_bias());
            assert_eq!(has(K::AttentionNormBias), architecture.has_layer_norm());
            assert_eq!(has(K::Positions), !has(K::RopeFrequencies));
            let encodes = architecture.is_encoder();
            let (decodes, classifies) = (architecture.is_decoder(), architecture.is_classifier());
            assert_eq!((has(K::FinalNorm), has(K::CheckWindows)), (!encodes, decodes));
            assert_eq!((has(K::EmbeddingNorm), has(K::CheckEmbeddings)), (encodes, encodes));
            assert_eq!((has(K::Tokenizer), has(K::Embedding)), (!classifies, !classifies));
            for kind in [K::Labels, K::CheckImages, K::Patches, K::HeadBias] {
                assert_eq!(has(kind), classifies, "{kind:?}");
            }
            assert!(!(has(K::Head) && encodes));
        }
    }

    #[test]
    fn bands_stand_in_the_place_of_the_embedding() {
        use std::string::{String, ToString};
        let names = |bands| -> std::vec::Vec<String> {
            sections(&spec(false, 1, bands)).map(|name| name.to_string()).collect()
        };
        let (one, three) = (names(1), names(3));
        assert_eq!(one[2..5], ["check_windows", "embedding", "head"]);
        let bands = ["token_bands", "embedding band 0", "embedding band 1", "embedding band 2"];
        assert_eq!(
            (&three[..3], &three[3..7], &three[7..]),
            (&one[..3], &bands.map(String::from)[..], &one[4..])
        );
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
