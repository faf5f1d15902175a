//! Which sections a model has: those of the model, then those of each layer. One loop serves every caller: adapters of iterators took
//! kilobytes of an image.

use super::{SectionKind, SectionName, layer_sections};
use crate::spec::{Architecture, ModelKind, ModelSpec};
use SectionKind as K;

/// Kinds of sections before the layers, in order; `count_of` says how many there are of each.
const MODEL_SECTIONS: [SectionKind; 19] = [
    K::Tokenizer,
    K::Labels,
    K::RopeFrequencies,
    K::LocalRopeFrequencies,
    K::CheckWindows,
    K::CheckEmbeddings,
    K::CheckImages,
    K::TokenBands,
    K::Embedding,
    K::Patches,
    K::Positions,
    K::EmbeddingNorm,
    K::EmbeddingNormBias,
    K::HeadInput,
    K::Head,
    K::HeadBias,
    K::FinalNorm,
    K::FinalNormBias,
    K::ChatTemplate,
];

/// The sections of a model in the order of the file.
#[derive(Clone, Debug)]
pub struct Sections {
    architecture: Architecture,
    layers: u16,
    bands: u16,
    tied_head: bool,
    head_input: bool,
    chat_template: bool,
    /// The layer that is looked at; `None` before the layers.
    layer: Option<u16>,
    /// The kind that is looked at, of the model's or of the layer's.
    place: usize,
    /// Sections of that kind that have been.
    before: u16,
}

impl Sections {
    /// Those of the model, and of so many layers.
    pub(super) fn new(spec: &ModelSpec, layers: u16) -> Sections {
        Sections {
            architecture: spec.architecture,
            layers,
            bands: spec.embedding_bands.into(),
            tied_head: spec.tied_head,
            head_input: spec.online.head_input,
            chat_template: spec.chat_template,
            layer: None,
            place: 0,
            before: 0,
        }
    }

    /// How many sections come before the layers. Every lookup of a layer's section asks, so it makes none of their names.
    pub(super) fn before_layers(&self) -> usize {
        MODEL_SECTIONS.into_iter().map(|kind| usize::from(self.count_of(kind))).sum()
    }

    /// How many sections of a kind the model has.
    fn count_of(&self, kind: SectionKind) -> u16 {
        let architecture = self.architecture;
        let model = architecture.kind();
        let (encodes, classifies) = (model == ModelKind::Encoder, model == ModelKind::Classifier);
        u16::from(match kind {
            K::Embedding if !classifies => return self.bands,
            K::Tokenizer => !classifies,
            K::Head => !self.tied_head && !encodes,
            K::HeadInput => self.head_input,
            K::TokenBands => self.bands > 1,
            K::RopeFrequencies => !architecture.has_learned_positions(),
            K::LocalRopeFrequencies => architecture.has_local_frequencies(),
            K::Positions => architecture.has_learned_positions(),
            K::FinalNorm => !encodes,
            K::CheckWindows => model == ModelKind::Decoder,
            K::Labels | K::CheckImages | K::Patches | K::HeadBias => classifies,
            K::FinalNormBias => architecture.has_layer_norm() && !encodes,
            K::EmbeddingNorm | K::EmbeddingNormBias | K::CheckEmbeddings => encodes,
            K::ChatTemplate => self.chat_template,
            _ => false,
        })
    }
}

impl Iterator for Sections {
    type Item = SectionName;

    #[inline(never)]
    fn next(&mut self) -> Option<SectionName> {
        while self.layer.is_none() {
            let Some(&kind) = MODEL_SECTIONS.get(self.place) else {
                (self.layer, self.place) = (Some(0), 0);
                break;
            };
            let band = self.before;
            if band < self.count_of(kind) {
                self.before += 1;
                let banded = self.bands > 1 && kind == K::Embedding;
                return Some(SectionName { kind, layer: banded.then_some(band) });
            }
            (self.place, self.before) = (self.place + 1, 0);
        }
        let layer = self.layer.filter(|&layer| layer < self.layers)?;
        let in_layer = layer_sections(self.architecture);
        let &kind = in_layer.get(self.place)?;
        self.place += 1;
        if self.place == in_layer.len() {
            (self.layer, self.place) = (Some(layer + 1), 0);
        }
        Some(SectionName { kind, layer: Some(layer) })
    }
}
