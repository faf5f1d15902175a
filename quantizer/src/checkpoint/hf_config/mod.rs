//! `config.json` of a Hugging Face folder: sizes, constants and position settings.
//!
//! A field that changes the numbers is either understood or refused by name. Absent fields get the defaults of
//! transformers' configuration classes, on which saved files rely: the configs inside those of models with images leave them out. Sizes are
//! capped, so that products of two or three of them fit 64 bits everywhere later. Each family of models has a file.

mod bert;
mod fields;
mod gemma;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod granite;
mod llama;
mod olmo;
mod preprocessor;
mod rope;
mod sentence_transformers;
mod stablelm;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod variant_tests;
mod vit;
mod windows;

use std::path::Path;
use std::sync::LazyLock;

use rescomp_formats::spec::{Activation, Architecture, MAX_END_TOKENS, ModelSpec, Output, Variant};
use serde_json::{Map, Value};

use super::folded::Folded;
use super::names::Names;
use super::rope::Rope;
use super::{CheckpointError, read_capped};
use fields::{Fields, brief};
pub(super) use preprocessor::complete as complete_classifier;
pub(super) use sentence_transformers::complete as complete_encoder;

const MAX_CONFIG_BYTES: u64 = 16 << 20;

pub(super) const MAX_VOCABULARY: u32 = 1 << 20;
pub(super) const MAX_HIDDEN: u32 = 1 << 16;
pub(super) const MAX_INTERMEDIATE: u32 = 1 << 18;
pub(super) const MAX_LAYERS: u32 = 512;
pub(super) const MAX_HEADS: u32 = 1 << 10;
pub(super) const MAX_HEAD_DIM: u32 = 1 << 10;
pub(super) const MAX_CONTEXT: u32 = 1 << 24;

/// What `config.json` says of a model.
#[derive(Clone, Debug)]
pub struct HfConfig {
    /// Sizes and constants.
    pub spec: ModelSpec,
    /// Rotary positions; of models with learned ones, what no one uses.
    pub rope: Rope,
    /// Those of layers with a window, where they have their own.
    pub local_rope: Option<Rope>,
    /// What its weights take in.
    pub(super) folded: Folded,
    /// The names of its tensors.
    pub(super) names: &'static Names,
    /// Rows of the positions' tensor, where they are not those that the names count in front and the context.
    pub(super) position_rows: Option<u32>,
    /// Rows of the token types' tensor, where the names have one.
    pub(super) token_types: u32,
    /// The names of an image's classes, of a classifier.
    pub(super) labels: Vec<String>,
}

impl HfConfig {
    /// A model whose weights take in what its frequencies ask for, and nothing else.
    fn new(spec: ModelSpec, rope: Rope, local_rope: Option<Rope>, names: &'static Names) -> HfConfig {
        let amplitude = rope.amplitude as f32;
        let local_amplitude = local_rope.as_ref().map_or(1.0, |rope| rope.amplitude as f32);
        let folded = Folded { amplitude, local_amplitude, ..Folded::NOTHING };
        HfConfig {
            spec,
            rope,
            local_rope,
            folded,
            names,
            position_rows: None,
            token_types: 0,
            labels: Vec::new(),
        }
    }
}

/// A kind of model that is read.
struct Family {
    /// `model_type`.
    model_type: &'static str,
    /// The classes of `architectures`, of which a folder names one: the body alone or with another head is another set of tensors.
    classes: &'static [&'static str],
    read: fn(&Fields<'_>) -> Result<HfConfig, CheckpointError>,
}

const FAMILIES: [Family; 23] = [
    Family { model_type: "llama", classes: &["LlamaForCausalLM"], read: llama::llama },
    Family { model_type: "mistral", classes: &["MistralForCausalLM"], read: llama::mistral },
    Family { model_type: "qwen2", classes: &["Qwen2ForCausalLM"], read: llama::qwen2 },
    Family { model_type: "qwen3", classes: &["Qwen3ForCausalLM"], read: llama::qwen3 },
    Family { model_type: "phi3", classes: &["Phi3ForCausalLM"], read: llama::phi3 },
    Family { model_type: "smollm3", classes: &["SmolLM3ForCausalLM"], read: llama::smollm3 },
    Family { model_type: "granite", classes: &["GraniteForCausalLM"], read: granite::granite },
    Family { model_type: "olmo", classes: &["OlmoForCausalLM"], read: olmo::olmo },
    Family { model_type: "olmo2", classes: &["Olmo2ForCausalLM"], read: olmo::olmo2 },
    Family { model_type: "stablelm", classes: &["StableLmForCausalLM"], read: stablelm::stablelm },
    Family { model_type: "gemma", classes: &["GemmaForCausalLM"], read: gemma::gemma },
    Family { model_type: "gemma2", classes: &["Gemma2ForCausalLM"], read: gemma::gemma2 },
    Family { model_type: "gemma3_text", classes: &["Gemma3ForCausalLM"], read: gemma::gemma3 },
    Family {
        model_type: "gemma3",
        classes: &["Gemma3ForConditionalGeneration"],
        read: gemma::gemma3_with_images,
    },
    Family { model_type: "gpt_neox", classes: &["GPTNeoXForCausalLM"], read: gpt_neox::gpt_neox },
    Family { model_type: "gpt2", classes: &["GPT2LMHeadModel"], read: gpt2::gpt2 },
    Family { model_type: "gpt_neo", classes: &["GPTNeoForCausalLM"], read: gpt_neo::gpt_neo },
    Family { model_type: "opt", classes: &["OPTForCausalLM"], read: gpt2::opt },
    Family { model_type: "bert", classes: &["BertModel", "BertForMaskedLM"], read: bert::bert },
    Family { model_type: "roberta", classes: &["RobertaModel", "RobertaForMaskedLM"], read: bert::roberta },
    Family {
        model_type: "distilbert",
        classes: &["DistilBertModel", "DistilBertForMaskedLM"],
        read: bert::distilbert,
    },
    Family { model_type: "vit", classes: &["ViTForImageClassification"], read: vit::vit },
    Family {
        model_type: "deit",
        classes: &["DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"],
        read: vit::deit,
    },
];

/// Every `model_type` that is read, for errors.
static MODEL_TYPES: LazyLock<String> = LazyLock::new(|| FAMILIES.map(|family| family.model_type).join(", "));
/// Every class.
static CLASSES: LazyLock<String> = LazyLock::new(|| {
    FAMILIES.iter().flat_map(|family| family.classes).copied().collect::<Vec<_>>().join(", ")
});

impl HfConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// The file cannot be read, is not a JSON object, misses a size, has a size that cannot be (zero, above its cap,
    /// heads not divisible by key and value heads, an odd head), or asks for an architecture, activation, bias,
    /// position scaling or quantized weights that this crate does not read.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        Self::parse(path, &read_capped(path, MAX_CONFIG_BYTES)?)
    }

    /// As [`HfConfig::read`], from the text of the file; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`HfConfig::read`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, CheckpointError> {
        let json = |cause| CheckpointError::Json { path: path.to_owned(), part: "whole file", cause };
        let object: Map<String, Value> = serde_json::from_slice(text).map_err(json)?;
        let fields = Fields { path, prefix: "", object: &object };
        let family = family(&fields)?;
        if let Some(settings) = fields.get("quantization_config") {
            let supported = "weights that are not quantized yet";
            return Err(fields.unsupported("quantization_config", &brief(settings), supported));
        }
        // Of any family: attention that sees what comes later, as models of embeddings have it.
        only(&fields, &[("is_causal", true), ("use_bidirectional_attention", false)])?;
        (family.read)(&fields)
    }
}

/// The family that `model_type` and `architectures` name, of which one may be absent.
fn family(fields: &Fields<'_>) -> Result<&'static Family, CheckpointError> {
    let model_type = fields.text("model_type")?;
    let by_type = match model_type {
        None => None,
        Some(name) => match FAMILIES.iter().find(|family| family.model_type == name) {
            Some(family) => Some(family),
            None => return Err(fields.unsupported("model_type", name, &MODEL_TYPES)),
        },
    };
    let listed = match fields.get("architectures") {
        None => &[][..],
        Some(Value::Array(list)) => list,
        Some(other) => return Err(fields.wrong("architectures", "a list".into(), brief(other))),
    };
    let is_of =
        |name: &Value, family: &Family| name.as_str().is_some_and(|name| family.classes.contains(&name));
    let of_class = |name: &Value| FAMILIES.iter().find(|family| is_of(name, family));
    let by_class = listed.first().and_then(of_class);
    let same = |name: &Value| by_type.or(by_class).is_some_and(|family| is_of(name, family));
    if !listed.iter().all(same) {
        let supported = match by_type.map(|family| family.classes) {
            Some([class]) => *class,
            _ => CLASSES.as_str(),
        };
        return Err(fields.unsupported("architectures", &brief(&Value::Array(listed.to_vec())), supported));
    }
    let missing = || fields.wrong("model_type", format!("one of {}", *MODEL_TYPES), "nothing");
    by_type.or(by_class).ok_or_else(missing)
}

/// How a family calls its sizes. Those that are absent in all of its files have no name.
struct Keys {
    hidden: &'static str,
    intermediate: &'static str,
    layers: &'static str,
    heads: &'static str,
    kv_heads: Option<&'static str>,
    head_dim: Option<&'static str>,
    context: &'static str,
    epsilon: &'static str,
}

/// What absent fields mean.
struct Defaults {
    sizes: Sizes,
    /// Where it isn't as many as heads.
    kv_heads: Option<u32>,
    /// Where it isn't the quotient of hidden width and heads.
    head_dim: Option<u32>,
    epsilon: f64,
    tied_head: bool,
    /// The begin token and the end token, where every model of the family has them.
    tokens: Option<[u32; 2]>,
}

/// Sizes that absent fields mean.
struct Sizes {
    vocabulary: u32,
    hidden: u32,
    intermediate: fn(hidden: u32) -> u32,
    layers: u32,
    heads: u32,
    context: u32,
}

/// Sizes and tokens, and everything else as in a plain model.
fn spec(
    fields: &Fields<'_>,
    architecture: Architecture,
    keys: &Keys,
    defaults: &Defaults,
) -> Result<ModelSpec, CheckpointError> {
    let sizes = &defaults.sizes;
    let size = |key, cap, default| Ok(fields.optional_size(key, cap)?.unwrap_or(default));
    let vocabulary = size("vocab_size", MAX_VOCABULARY, sizes.vocabulary)?;
    let hidden = size(keys.hidden, MAX_HIDDEN, sizes.hidden)?;
    let heads = size(keys.heads, MAX_HEADS, sizes.heads)?;
    let kv_heads = match keys.kv_heads {
        None => heads,
        Some(key) => {
            // Null means as many as heads, also where absent means something else.
            let default = defaults.kv_heads.filter(|_| !fields.object.contains_key(key));
            let kv_heads = size(key, MAX_HEADS, default.unwrap_or(heads))?;
            if !heads.is_multiple_of(kv_heads) {
                let expected = format!("a divisor of {} = {heads}", keys.heads);
                return Err(fields.wrong(key, expected, kv_heads));
            }
            kv_heads
        }
    };
    let given = keys.head_dim.map_or(Ok(None), |key| fields.optional_size(key, MAX_HEAD_DIM))?;
    let head_dim = match given.or(defaults.head_dim) {
        Some(head_dim) => head_dim,
        None if !hidden.is_multiple_of(heads) => {
            let because = if keys.head_dim.is_some() { " as head_dim is absent" } else { "" };
            let expected = format!("a multiple of {} = {heads}{because}", keys.heads);
            return Err(fields.wrong(keys.hidden, expected, hidden));
        }
        // Without `head_dim` the quotient has not met its cap yet.
        None => hidden / heads,
    };
    if head_dim % 2 != 0 || head_dim > MAX_HEAD_DIM {
        let expected = format!("an even number of at most {MAX_HEAD_DIM}");
        return Err(fields.wrong("head_dim", expected, head_dim));
    }
    let intermediate = size(keys.intermediate, MAX_INTERMEDIATE, (sizes.intermediate)(hidden))?;
    let mut spec = ModelSpec {
        architecture,
        vocabulary,
        hidden,
        intermediate,
        layers: size(keys.layers, MAX_LAYERS, sizes.layers)?,
        heads,
        kv_heads,
        head_dim,
        context: size(keys.context, MAX_CONTEXT, sizes.context)?,
        norm_epsilon: norm_epsilon(fields, keys.epsilon, defaults.epsilon)?,
        variant: Variant::plain(head_dim),
        tied_head: fields.flag_or("tie_word_embeddings", defaults.tied_head)?,
        embedding_bands: 1,
        begin_token: None,
        end_tokens: Default::default(),
        chat_template: false,
        online: Default::default(),
        output: Output::NextToken,
    };
    let tokens = |key: &str, default: usize| match defaults.tokens {
        Some(of_family) if !fields.object.contains_key(key) => Ok(vec![of_family[default]]),
        _ => fields.tokens(key, vocabulary),
    };
    // A text starts with one token; a list of several would have no meaning.
    spec.begin_token = match tokens("bos_token_id", 0)?.as_slice() {
        [] => None,
        [token] => Some(*token),
        several => {
            return Err(fields.wrong("bos_token_id", "one token".into(), format!("{several:?}")));
        }
    };
    for token in tokens("eos_token_id", 1)? {
        if !spec.end_tokens.contains(&token) && spec.end_tokens.push(token).is_err() {
            let expected = format!("at most {MAX_END_TOKENS} different tokens");
            return Err(fields.wrong("eos_token_id", expected, "more"));
        }
    }
    Ok(spec)
}

/// Refuses another name of a size, which transformers' class takes for it, where it says something else: heads show in no tensor's shape.
fn same_size(fields: &Fields<'_>, other_name: &str, name: &str, size: u32) -> Result<(), CheckpointError> {
    match fields.optional_size(other_name, MAX_HEADS)? {
        Some(found) if found != size => {
            Err(fields.wrong(other_name, format!("{size}, as {name} says, or its default"), found))
        }
        _ => Ok(()),
    }
}

fn norm_epsilon(fields: &Fields<'_>, key: &str, default: f64) -> Result<f32, CheckpointError> {
    let value = fields.number(key)?.unwrap_or(default);
    let narrowed = value as f32;
    if narrowed > 0.0 && narrowed < 1.0 {
        return Ok(narrowed);
    }
    Err(fields.wrong(key, "a number above 0 (in single precision) and below 1".into(), value))
}

/// The activation of this field, of those that the family may have; `None` where the field is absent.
fn activation(
    fields: &Fields<'_>,
    key: &str,
    known: &[(&str, Activation)],
    supported: &'static str,
) -> Result<Option<Activation>, CheckpointError> {
    let Some(name) = fields.text(key)? else { return Ok(None) };
    match known.iter().find(|(known, _)| *known == name) {
        Some((_, activation)) => Ok(Some(*activation)),
        None => Err(fields.unsupported(key, name, supported)),
    }
}

/// Refuses flags that have another value than the only one that is supported; absent, they are that.
fn only(fields: &Fields<'_>, flags: &[(&str, bool)]) -> Result<(), CheckpointError> {
    for &(flag, supported) in flags {
        let found = fields.flag_or(flag, supported)?;
        if found != supported {
            let supported = if supported { "true" } else { "false" };
            return Err(fields.unsupported(flag, &found.to_string(), supported));
        }
    }
    Ok(())
}
