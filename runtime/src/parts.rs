//! Parts of the runtime that a program may be built without: an image has room for what its container needs, and no more.
//!
//! Each part is a feature of this crate, and all are there by default. A container that needs a part that isn't there is refused before
//! anything of it runs ([`expect`]), with the part's name. [`Parts::needed`] says which parts a container needs, so a program that makes
//! images asks the same function.

use core::fmt;

use crate::error::RuntimeError;
use crate::tokenizer::fits_narrow;
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::{LowRankView, MatrixShape};
use rescomp_formats::spec::{Activation, Architecture, ModelSpec};
use rescomp_formats::tokenizer::{Model, Normalizer, PreTokenizer, TokenizerView};

/// Defines [`Part`]: each with its feature and what it is.
macro_rules! parts {
    ($($part:ident = $feature:literal, $what:literal;)*) => {
        /// A part, in the order of the features.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Part {
            $(#[doc = $what] $part,)*
        }

        impl Part {
            /// Every part.
            pub const ALL: &[Part] = &[$(Part::$part),*];

            /// The feature's name.
            pub const fn feature(self) -> &'static str {
                match self {
                    $(Part::$part => $feature,)*
                }
            }

            /// Whether this program has it.
            pub const fn is_built(self) -> bool {
                match self {
                    $(Part::$part => cfg!(feature = $feature),)*
                }
            }
        }
    };
}

parts! {
    Int2 = "int2", "Products with matrices of 2 bits.";
    Int3 = "int3", "Of 3 bits.";
    Int4 = "int4", "Of 4 bits.";
    Int5 = "int5", "Of 5 bits.";
    Int6 = "int6", "Of 6 bits.";
    Int8 = "int8", "Of 8 bits.";
    Groups32 = "groups-32", "Groups of 32 columns.";
    Groups64 = "groups-64", "Groups of 64 columns.";
    OtherGroups = "other-groups", "Groups of 128 columns, and whole rows.";
    RowsLayout = "rows-layout", "Matrices in the portable layout `rows`.";
    F32 = "f32", "Activations of f32 for accuracy work, and keys and values of f32, which encoders and classifiers have.";
    Head32 = "head-32", "Attention unrolled for heads of 32; without it the general code computes the same.";
    Head64 = "head-64", "Likewise for heads of 64.";
    Head128 = "head-128", "Likewise for heads of 128.";
    Llama = "llama", "Blocks of Llama, Qwen 2 and Qwen 3.";
    Gemma = "gemma", "Blocks of Gemma 2 and 3, and of OLMo 2.";
    GptNeox = "gpt-neox", "Blocks of GPT-NeoX and StableLM.";
    Gpt2 = "gpt2", "Blocks of GPT-2, GPT-Neo and OPT.";
    Bert = "bert", "Blocks of BERT.";
    LayerNorm = "layer-norm", "LayerNorm.";
    Gelu = "gelu", "GELU and GELU by tanh.";
    SoftCap = "soft-cap", "Bounds of scores and logits.";
    BytePair = "byte-pair", "Byte-pair encoding of text.";
    WordPiece = "word-piece", "WordPiece.";
    Unigram = "unigram", "Unigram.";
    Gpt2Pattern = "gpt2-pattern", "Pre-tokens by the patterns of GPT-2 and of SmolLM.";
    Llama3Pattern = "llama3-pattern", "By those of Llama 3 and of Qwen 2.";
    Nfc = "nfc", "Canonical composition of text.";
    BertText = "bert-text", "BERT's normalizer and pre-tokens.";
    Vit = "vit", "Blocks of ViT and DeiT.";
    Hadamard = "hadamard", "Hadamard transforms in front of the output and down projections.";
    LowRank = "low-rank", "Low-rank corrections of products.";
    CacheF16 = "cache-f16", "Keys and values that are kept as binary16, by decoders.";
    CacheInt8 = "cache-int8", "Keys and values that are kept as int8 codes, likewise.";
    Bands = "bands", "Embeddings in bands.";
    Chat = "chat", "Chat templates.";
    WideMerges = "wide-merges", "Byte-pair encoding with more than 65,536 tokens, or 65,534 merges.";
    CharacterBpe = "character-bpe", "Byte-pair encoding that starts from characters.";
}

/// A set of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts(u64);

impl Parts {
    /// Those that this program has.
    pub const BUILT: Parts = {
        let (mut bits, mut index) = (0, 0);
        while index < Part::ALL.len() {
            if Part::ALL[index].is_built() {
                bits |= 1 << index;
            }
            index += 1;
        }
        Parts(bits)
    };

    /// None.
    pub const NONE: Parts = Parts(0);

    /// These and one more.
    #[must_use]
    pub const fn with(self, part: Part) -> Parts {
        Parts(self.0 | 1 << part as u64)
    }

    /// Whether a part is in the set.
    pub const fn has(self, part: Part) -> bool {
        self.0 & 1 << part as u64 != 0
    }

    /// The parts, in order.
    pub fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.iter().copied().filter(move |&part| self.has(part))
    }

    /// The parts that a decoder's session needs to run this container, and its tokenizer; of an encoder those of its encoder.
    pub fn needed(container: &CheckedContainer<'_>) -> Parts {
        let mut parts = Parts::of_model(&container.manifest().spec, container.manifest().cache);
        if let Some(tokenizer) = container.tokenizer() {
            parts = parts.union(Parts::of_tokenizer(&tokenizer));
        }
        for (name, _) in container.container().entries() {
            let Some(matrix) = container.matrix(name) else { continue };
            parts = parts.union(Parts::of_matrix(matrix.shape()));
            if let Some(LowRankView { right, left }) = container.low_rank(name) {
                let factors = Parts::of_matrix(right.shape()).union(Parts::of_matrix(left.shape()));
                parts = parts.union(factors).with(Part::LowRank);
            }
        }
        parts
    }

    fn of_matrix(shape: &MatrixShape) -> Parts {
        let parts = Parts(0).with(width_part(shape.width())).with(
            match (shape.has_codebook(), shape.has_scale_codes(), shape.group_elems()) {
                (true, true, 32) | (false, _, 32) => Part::Groups32,
                (_, _, 64) if shape.groups() > 1 => Part::Groups64,
                _ => Part::OtherGroups,
            },
        );
        if shape.layout() == Layout::Rows { parts.with(Part::RowsLayout) } else { parts }
    }

    /// The parts of an image for containers of a model whose matrices have these widths and columns a group, those of [`Parts::faster`] with
    /// them. It is known before there is a container; a matrix with short rows may need one more.
    pub fn of_formats(
        spec: &ModelSpec,
        tokenizer: &TokenizerView<'_>,
        layout: Layout,
        cache: CacheFormat,
        formats: impl IntoIterator<Item = (CodeWidth, Option<usize>)>,
    ) -> Parts {
        let mut parts =
            Parts::of_model(spec, cache).union(Parts::of_tokenizer(tokenizer)).union(Parts::faster(spec));
        for (width, group) in formats {
            parts = parts.with(width_part(width)).with(match group {
                Some(32) => Part::Groups32,
                Some(64) => Part::Groups64,
                _ => Part::OtherGroups,
            });
        }
        if layout == Layout::Rows { parts.with(Part::RowsLayout) } else { parts }
    }

    /// Parts that [`Parts::needed`] can do without, at a loss of speed.
    pub fn faster(spec: &ModelSpec) -> Parts {
        match spec.head_dim {
            32 => Parts(0).with(Part::Head32),
            64 => Parts(0).with(Part::Head64),
            128 => Parts(0).with(Part::Head128),
            _ => Parts(0),
        }
    }

    /// The parts of both.
    pub const fn union(self, other: Parts) -> Parts {
        Parts(self.0 | other.0)
    }

    fn of_model(spec: &ModelSpec, cache: CacheFormat) -> Parts {
        let mut parts = Parts(0).with(block_part(spec.architecture));
        parts = parts.with(match cache {
            _ if !spec.architecture.is_decoder() => Part::F32,
            format => cache_part(format),
        });
        if spec.architecture.has_layer_norm() {
            parts = parts.with(Part::LayerNorm);
        }
        if matches!(spec.variant.activation, Activation::Gelu | Activation::GeluTanh) {
            parts = parts.with(Part::Gelu);
        }
        if spec.online.output || spec.online.down {
            parts = parts.with(Part::Hadamard);
        }
        if spec.variant.score_cap > 0.0 || spec.variant.logit_cap > 0.0 {
            parts = parts.with(Part::SoftCap);
        }
        if spec.embedding_bands > 1 {
            parts = parts.with(Part::Bands);
        }
        if spec.chat_template {
            parts = parts.with(Part::Chat);
        }
        parts
    }

    fn of_tokenizer(view: &TokenizerView<'_>) -> Parts {
        let mut parts = Parts(0).with(model_part(view.model()));
        if parts.has(Part::BytePair) && !fits_narrow(view) {
            parts = parts.with(Part::WideMerges);
        }
        if view.model() == Model::CharacterBpe {
            parts = parts.with(Part::CharacterBpe);
        }
        match view.pre_tokenizer() {
            PreTokenizer::Gpt2 | PreTokenizer::DigitsGpt2 => parts = parts.with(Part::Gpt2Pattern),
            PreTokenizer::Llama3 | PreTokenizer::Qwen2 => parts = parts.with(Part::Llama3Pattern),
            PreTokenizer::Bert => parts = parts.with(Part::BertText),
            PreTokenizer::ByteLevel | PreTokenizer::Spaces => {}
        }
        match view.normalizer() {
            Normalizer::Nfc => parts = parts.with(Part::Nfc),
            Normalizer::Bert(_) => parts = parts.with(Part::BertText),
            Normalizer::None | Normalizer::Spaces(_) => {}
        }
        parts
    }

    /// The first part that isn't in this program.
    pub fn missing(self) -> Option<Part> {
        self.iter().find(|part| !part.is_built())
    }
}

/// The part with a width's products.
pub(crate) const fn width_part(width: CodeWidth) -> Part {
    match width {
        CodeWidth::Int2 => Part::Int2,
        CodeWidth::Int3 => Part::Int3,
        CodeWidth::Int4 => Part::Int4,
        CodeWidth::Int5 => Part::Int5,
        CodeWidth::Int6 => Part::Int6,
        CodeWidth::Int8 => Part::Int8,
    }
}

/// The part with a cache's attention.
pub(crate) const fn cache_part(format: CacheFormat) -> Part {
    match format {
        CacheFormat::Binary16 => Part::CacheF16,
        CacheFormat::Int8 => Part::CacheInt8,
    }
}

/// The part with an architecture's blocks.
pub(crate) const fn block_part(architecture: Architecture) -> Part {
    match architecture {
        Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => Part::Llama,
        Architecture::Gemma2 | Architecture::Gemma3 | Architecture::Olmo2 => Part::Gemma,
        Architecture::GptNeox | Architecture::StableLm => Part::GptNeox,
        Architecture::Gpt2 | Architecture::GptNeo => Part::Gpt2,
        Architecture::Bert => Part::Bert,
        Architecture::Vit => Part::Vit,
    }
}

fn model_part(model: Model) -> Part {
    match model {
        Model::ByteLevelBpe | Model::CharacterBpe => Part::BytePair,
        Model::WordPiece => Part::WordPiece,
        Model::Unigram => Part::Unigram,
    }
}

/// Refuses a container that needs what this program was built without.
///
/// # Errors
/// [`RuntimeError::NotBuilt`].
pub fn expect(container: &CheckedContainer<'_>) -> Result<(), RuntimeError> {
    expect_parts(Parts::needed(container))
}

/// Likewise the parts of a tokenizer alone.
pub(crate) fn missing_for_text(view: &TokenizerView<'_>) -> Option<Part> {
    Parts::of_tokenizer(view).missing()
}

fn expect_parts(parts: Parts) -> Result<(), RuntimeError> {
    match parts.missing() {
        Some(part) => Err(RuntimeError::NotBuilt { part: part.feature() }),
        None => Ok(()),
    }
}

/// Names, separated by commas.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.iter().enumerate() {
            write!(f, "{}{}", if index > 0 { "," } else { "" }, part.feature())?;
        }
        Ok(())
    }
}

/// What a table has in the place of a part that isn't built: plans refuse containers that would call it.
#[cold]
pub(crate) fn not_built(part: Part) -> ! {
    panic!("this program was built without the feature `{}` of rescomp-runtime", part.feature())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_missing_part_is_refused_by_name() {
        // Tests are built with every part, so what isn't there is beyond them.
        assert_eq!(Parts::BUILT.iter().count(), Part::ALL.len());
        assert_eq!(Parts::BUILT.missing(), None);
        let error = RuntimeError::NotBuilt { part: Part::Int3.feature() };
        assert!(error.to_string().contains("`int3`"), "{error}");
    }

    #[test]
    fn parts_are_told_apart() {
        assert!(Part::ALL.len() <= 64);
        for (index, part) in Part::ALL.iter().enumerate() {
            assert_eq!(*part as usize, index);
            assert_eq!(Parts(0).with(*part).to_string(), part.feature());
            assert!(!Parts(0).with(*part).has(Part::ALL[(index + 1) % Part::ALL.len()]));
        }
        assert_eq!(Parts(0).with(Part::Int4).union(Parts(0).with(Part::Llama)).to_string(), "int4,llama");
    }

    #[test]
    fn models_need_their_blocks() {
        for architecture in Architecture::ALL {
            let parts = Parts(0).with(block_part(architecture));
            assert_eq!(parts.iter().count(), 1, "{architecture:?}");
        }
    }
}
