//! Models that no forward runs, in manifests whose checksums are right.

use super::HostileFile;
use super::containers::container;
use crate::forge::Parts;
use crate::tiny::{self, Widths};
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::{Activation, Architecture, ModelSpec, Output};

fn spec(architecture: Architecture) -> ModelSpec {
    ModelSpec {
        vocabulary: 258,
        hidden: 8,
        intermediate: 12,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        context: 8,
        tied_head: architecture.is_decoder(),
        ..tiny::architecture_spec(architecture)
    }
}

/// A small classifier: 8 x 8 pixels in four patches, of 5 classes.
pub(super) fn small_classifier() -> Vec<u8> {
    let architecture = Architecture::Vit;
    let image = ImageInput { height: 8, width: 8, resize: None, ..tiny::image_input() };
    let spec = ModelSpec { vocabulary: 5, context: 6, output: Output::Classes(image), ..spec(architecture) };
    tiny::container(&spec, Widths::Mixed, Layout::Nr8k4).to_vec()
}

/// A small model of this architecture.
pub(super) fn small(architecture: Architecture) -> Vec<u8> {
    tiny::container(&spec(architecture), Widths::Mixed, Layout::Nr8k4).to_vec()
}

/// A small model of each other architecture.
pub(super) fn sound() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("container/sound-qwen2.rescomp", small(Architecture::Qwen2)),
        ("container/sound-qwen3.rescomp", small(Architecture::Qwen3)),
        ("container/sound-gemma2.rescomp", small(Architecture::Gemma2)),
        ("container/sound-gemma3.rescomp", small(Architecture::Gemma3)),
        ("container/sound-gpt-neox.rescomp", small(Architecture::GptNeox)),
        ("container/sound-gpt2.rescomp", small(Architecture::Gpt2)),
        ("container/sound-gpt-neo.rescomp", small(Architecture::GptNeo)),
        ("container/sound-olmo2.rescomp", small(Architecture::Olmo2)),
        ("container/sound-stablelm.rescomp", small(Architecture::StableLm)),
        ("container/sound-bert.rescomp", small(Architecture::Bert)),
        ("container/sound-vit.rescomp", small_classifier()),
    ]
}

pub(super) fn files() -> Vec<HostileFile> {
    let file = |name, attack, offset, change: &dyn Fn(&mut ModelSpec)| {
        let mut parts = Parts::of(&container());
        parts.change_manifest(|manifest| change(&mut manifest.spec)).expect("a manifest");
        HostileFile { name, attack, offset: Some(offset), bytes: parts.assemble() }
    };
    vec![
        file(
            "container/rotated-beyond-the-head.rescomp",
            "more of a head rotated than there is",
            64,
            &|spec| spec.variant.rotary_dim = 4096,
        ),
        file("container/rotated-without-pairs.rescomp", "a part of a head that has no pairs", 64, &|spec| {
            spec.variant.rotary_dim = 3
        }),
        file("container/window-huge.rescomp", "a window that no memory holds", 64, &|spec| {
            spec.variant.sliding_window = u32::MAX
        }),
        file("container/bound-not-a-number.rescomp", "scores that are bent into NaN", 64, &|spec| {
            spec.variant.score_cap = f32::NAN
        }),
        file(
            "container/embeddings-vanish.rescomp",
            "embeddings that are multiplied with nothing",
            64,
            &|spec| spec.variant.embedding_scale = 0.0,
        ),
        file(
            "container/activation-of-another.rescomp",
            "an activation that the architecture's forward does not have",
            64,
            &|spec| spec.variant.activation = Activation::Relu,
        ),
        // Sections are counted before they are looked at.
        file(
            "container/parts-of-another-architecture.rescomp",
            "an architecture whose sections the file does not have",
            28,
            &|spec| spec.architecture = Architecture::Qwen2,
        ),
    ]
}
