//! ViT and DeiT: classifiers of images.

use rescomp_formats::image_input::{CHANNELS, ImageInput};
use rescomp_formats::manifest::is_printable;
use rescomp_formats::spec::{Activation, Architecture, Output};
use serde_json::Value;

use super::super::CheckpointError;
use super::super::names::{DEIT, DEIT_WITH_TEACHER, Names, VIT};
use super::super::rope::Rope;
use super::fields::{Fields, brief};
use super::gpt_neox::{GELU_NAMES, GELUS};
use super::llama::KEYS;
use super::{Defaults, HfConfig, Keys, MAX_VOCABULARY, Sizes, activation, only, spec};

/// Most pixels of an image's edge, and of a patch's.
const MAX_EDGE: u32 = 4096;
const MAX_PATCH: u32 = 128;
/// Most tokens of an image.
const MAX_TOKENS: u32 = 1 << 20;
/// Most characters of a class's name.
const MAX_LABEL_CHARACTERS: usize = 1024;

const DEFAULTS: Defaults = Defaults {
    sizes: Sizes { vocabulary: 1, hidden: 768, intermediate: |_| 3072, layers: 12, heads: 12, context: 1 },
    kv_heads: None,
    head_dim: None,
    epsilon: 1e-12,
    tied_head: false,
    tokens: None,
};

pub(super) fn vit(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    classifier(fields, &VIT)
}

pub(super) fn deit(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    // Both classes have one configuration: which heads there are, the class says.
    let first = fields.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    match first {
        Some("DeiTForImageClassificationWithTeacher") => classifier(fields, &DEIT_WITH_TEACHER),
        Some(_) => classifier(fields, &DEIT),
        None => {
            let expected = "DeiTForImageClassification or DeiTForImageClassificationWithTeacher";
            Err(fields.wrong("architectures", expected.into(), "nothing"))
        }
    }
}

fn classifier(fields: &Fields<'_>, names: &'static Names) -> Result<HfConfig, CheckpointError> {
    only(fields, &[("qkv_bias", true)])?;
    let channels = fields.optional_size("num_channels", 1 << 16)?.unwrap_or(CHANNELS);
    if channels != CHANNELS {
        return Err(fields.unsupported("num_channels", &channels.to_string(), "3"));
    }
    if let Some(kind) = fields.text("problem_type")?.filter(|kind| *kind != "single_label_classification") {
        return Err(fields.unsupported("problem_type", kind, "single_label_classification"));
    }
    let keys =
        Keys { kv_heads: None, head_dim: None, epsilon: "layer_norm_eps", context: "image_tokens", ..KEYS };
    let mut spec = spec(fields, Architecture::Vit, &keys, &DEFAULTS)?;
    let [height, width] = edges(fields, "image_size", MAX_EDGE)?.unwrap_or([224, 224]);
    let [patch, patch_width] = edges(fields, "patch_size", MAX_PATCH)?.unwrap_or([16, 16]);
    if patch != patch_width {
        return Err(fields.unsupported("patch_size", &format!("{patch} x {patch_width}"), "square patches"));
    }
    if !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
        let expected = format!("multiples of patch_size = {patch}");
        return Err(fields.wrong("image_size", expected, format!("{height} x {width}")));
    }
    let labels = labels(fields)?;
    let image = ImageInput {
        height,
        width,
        patch,
        tokens_before: names.image.map_or(1, |image| image.tokens.len() as u32),
        head_tokens: names.image.map_or(1, |image| image.heads.len() as u32),
        // Until preprocessor_config.json says otherwise.
        rescale: 1.0,
        mean: [0.0; CHANNELS as usize],
        deviation: [1.0; CHANNELS as usize],
        resize: None,
    };
    if image.tokens() > MAX_TOKENS {
        let expected = format!("at most {MAX_TOKENS} tokens of patches of patch_size = {patch}");
        return Err(fields.wrong("image_size", expected, image.tokens()));
    }
    spec.vocabulary = labels.len() as u32;
    spec.context = image.tokens();
    let act = activation(fields, "hidden_act", &GELUS, GELU_NAMES)?;
    spec.variant.activation = act.unwrap_or(Activation::Gelu);
    spec.variant.rotary_dim = 0;
    spec.tied_head = false;
    spec.begin_token = None;
    spec.end_tokens.clear();
    spec.output = Output::Classes(image);
    let config = HfConfig::new(spec, Rope::plain(1e4), None, names);
    Ok(HfConfig { labels, ..config })
}

/// Two edges, as one number where they are the same, or as a list.
fn edges(fields: &Fields<'_>, name: &str, cap: u32) -> Result<Option<[u32; 2]>, CheckpointError> {
    let Some(Value::Array(list)) = fields.get(name) else {
        return Ok(fields.optional_size(name, cap)?.map(|edge| [edge; 2]));
    };
    let edge = |value: &Value| value.as_u64().and_then(|edge| u32::try_from(edge).ok());
    match list.iter().map(edge).collect::<Vec<_>>()[..] {
        [Some(height), Some(width)] if (1..=cap).contains(&height) && (1..=cap).contains(&width) => {
            Ok(Some([height, width]))
        }
        _ => {
            let expected = format!("one or two whole numbers from 1 to {cap}");
            Err(fields.wrong(name, expected, brief(&Value::Array(list.clone()))))
        }
    }
}

/// The names of the classes; two without names, where nothing is said of them, as transformers has it.
fn labels(fields: &Fields<'_>) -> Result<Vec<String>, CheckpointError> {
    let count = fields.optional_size("num_labels", MAX_VOCABULARY)?;
    let named = match fields.get("id2label") {
        None => return Ok((0..count.unwrap_or(2)).map(|id| format!("LABEL_{id}")).collect()),
        Some(Value::Object(named)) if !named.is_empty() && named.len() <= MAX_VOCABULARY as usize => named,
        Some(other) => {
            let expected = format!("an object with 1 to {MAX_VOCABULARY} names");
            return Err(fields.wrong("id2label", expected, brief(other)));
        }
    };
    if let Some(count) = count.filter(|count| *count as usize != named.len()) {
        let expected = format!("as many as id2label has, {}", named.len());
        return Err(fields.wrong("num_labels", expected, count));
    }
    (0..named.len())
        .map(|id| {
            let field = format!("id2label.{id}");
            match named.get(&id.to_string()) {
                Some(Value::String(label))
                    if label.chars().count() <= MAX_LABEL_CHARACTERS && label.chars().all(is_printable) =>
                {
                    Ok(label.clone())
                }
                found => {
                    let expected = format!(
                        "a name for each number below {}, of at most {MAX_LABEL_CHARACTERS} characters that can be printed",
                        named.len()
                    );
                    Err(fields.wrong(&field, expected, found.map_or_else(|| "nothing".to_owned(), brief)))
                }
            }
        })
        .collect()
}
