//! `config.json` of a Hugging Face folder: sizes, constants and position settings.
//!
//! A field that changes the numbers is either understood or refused by name. Absent fields get the defaults of
//! transformers' `LlamaConfig` where they have one that saved files rely on; sizes have none. Sizes are capped, so that
//! products of two or three of them fit 64 bits everywhere later.

use std::path::{Path, PathBuf};

use rescomp_formats::spec::{Architecture, MAX_END_TOKENS, ModelSpec};
use serde_json::{Map, Value};

use super::rope::{Llama3Scaling, Rope};
use super::{CheckpointError, read_capped};

const MAX_CONFIG_BYTES: u64 = 16 << 20;

const MAX_VOCABULARY: u32 = 1 << 20;
const MAX_HIDDEN: u32 = 1 << 16;
const MAX_INTERMEDIATE: u32 = 1 << 18;
const MAX_LAYERS: u32 = 512;
const MAX_HEADS: u32 = 1 << 10;
const MAX_HEAD_DIM: u32 = 1 << 10;
const MAX_CONTEXT: u32 = 1 << 24;

/// What `config.json` says of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// Sizes and constants.
    pub spec: ModelSpec,
    /// Rotary positions.
    pub rope: Rope,
}

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

    /// `path` only names the file in errors.
    fn parse(path: &Path, text: &[u8]) -> Result<Self, CheckpointError> {
        let json = |cause| CheckpointError::Json { path: path.to_owned(), part: "whole file", cause };
        let object: Map<String, Value> = serde_json::from_slice(text).map_err(json)?;
        let fields = Fields { path, prefix: "", object: &object };

        let architecture = architecture(&fields)?;
        refuse_variants(&fields)?;

        let vocabulary = fields.size("vocab_size", MAX_VOCABULARY)?;
        let hidden = fields.size("hidden_size", MAX_HIDDEN)?;
        let heads = fields.size("num_attention_heads", MAX_HEADS)?;
        let kv_heads = fields.optional_size("num_key_value_heads", MAX_HEADS)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(fields.wrong("num_key_value_heads", expected, kv_heads));
        }
        let head_dim = match fields.optional_size("head_dim", MAX_HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None if !hidden.is_multiple_of(heads) => {
                let expected = format!("a multiple of num_attention_heads = {heads} as head_dim is absent");
                return Err(fields.wrong("hidden_size", expected, hidden));
            }
            // Without `head_dim` the quotient has not met its cap yet.
            None => hidden / heads,
        };
        if head_dim % 2 != 0 || head_dim > MAX_HEAD_DIM {
            let expected = format!("an even number of at most {MAX_HEAD_DIM}");
            return Err(fields.wrong("head_dim", expected, head_dim));
        }
        let context = fields.size("max_position_embeddings", MAX_CONTEXT)?;

        let mut spec = ModelSpec {
            architecture,
            vocabulary,
            hidden,
            intermediate: fields.size("intermediate_size", MAX_INTERMEDIATE)?,
            layers: fields.size("num_hidden_layers", MAX_LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            context,
            norm_epsilon: norm_epsilon(&fields)?,
            tied_head: fields.flag("tie_word_embeddings")?,
            begin_token: None,
            end_tokens: Default::default(),
        };
        // A text starts with one token; a list of several would have no meaning.
        spec.begin_token = match fields.tokens("bos_token_id", vocabulary)?.as_slice() {
            [] => None,
            [token] => Some(*token),
            several => {
                return Err(fields.wrong("bos_token_id", "one token".into(), format!("{several:?}")));
            }
        };
        for token in fields.tokens("eos_token_id", vocabulary)? {
            if !spec.end_tokens.contains(&token) && spec.end_tokens.push(token).is_err() {
                let expected = format!("at most {MAX_END_TOKENS} different tokens");
                return Err(fields.wrong("eos_token_id", expected, "more"));
            }
        }
        Ok(Self { spec, rope: rope(&fields)? })
    }
}

fn architecture(fields: &Fields<'_>) -> Result<Architecture, CheckpointError> {
    let model_type = fields.text("model_type")?;
    if let Some(name) = model_type
        && name != Architecture::Llama.name()
    {
        return Err(fields.unsupported("model_type", name, "llama"));
    }
    let listed = match fields.get("architectures") {
        None => None,
        Some(Value::Array(list)) => Some(list.as_slice()),
        Some(other) => return Err(fields.wrong("architectures", "a list".into(), brief(other))),
    };
    match listed {
        // The body alone or with another head is another set of tensors.
        Some(list) if list.iter().any(|name| name.as_str() != Some("LlamaForCausalLM")) => {
            Err(fields.unsupported("architectures", &brief(&Value::Array(list.to_vec())), "LlamaForCausalLM"))
        }
        Some([_, ..]) => Ok(Architecture::Llama),
        _ if model_type.is_some() => Ok(Architecture::Llama),
        _ => Err(fields.wrong("model_type", "\"llama\"".into(), "nothing")),
    }
}

/// Variants of the architecture that load as the same tensors but compute something else.
fn refuse_variants(fields: &Fields<'_>) -> Result<(), CheckpointError> {
    for bias in ["attention_bias", "mlp_bias"] {
        if fields.flag(bias)? {
            return Err(fields.unsupported(bias, "true", "false"));
        }
    }
    match fields.text("hidden_act")? {
        None | Some("silu") => {}
        Some(other) => return Err(fields.unsupported("hidden_act", other, "silu")),
    }
    if let Some(settings) = fields.get("quantization_config") {
        let supported = "weights that are not quantized yet";
        return Err(fields.unsupported("quantization_config", &brief(settings), supported));
    }
    Ok(())
}

fn norm_epsilon(fields: &Fields<'_>) -> Result<f32, CheckpointError> {
    let value = fields.number("rms_norm_eps")?.unwrap_or(1e-6);
    let narrowed = value as f32;
    if narrowed > 0.0 && narrowed < 1.0 {
        return Ok(narrowed);
    }
    Err(fields.wrong("rms_norm_eps", "a number above 0 (in single precision) and below 1".into(), value))
}

/// Both spellings: `rope_parameters` holds everything (transformers 5), or `rope_theta` stands at the top and
/// `rope_scaling` holds the rest (before). Where a value is given twice, the two must agree.
fn rope(top: &Fields<'_>) -> Result<Rope, CheckpointError> {
    let settings = match (top.nested("rope_parameters")?, top.nested("rope_scaling")?) {
        (Some(new), Some(old)) if new.object != old.object => {
            let expected = "the same settings as in rope_parameters".into();
            return Err(top.wrong("rope_scaling", expected, brief(&Value::Object(old.object.clone()))));
        }
        (new, old) => new.or(old),
    };
    let inner_theta = settings.as_ref().map_or(Ok(None), |settings| settings.theta())?;
    let theta = match (inner_theta, top.theta()?) {
        (Some(inner), Some(outer)) if inner != outer => {
            return Err(top.wrong("rope_theta", format!("{inner}, as in the nested settings"), outer));
        }
        (inner, outer) => inner.or(outer).unwrap_or(10_000.0),
    };
    for fields in settings.iter().chain([top]) {
        // Rotating only a part of each head.
        if let Some(share) = fields.number("partial_rotary_factor")?
            && share != 1.0
        {
            return Err(fields.unsupported("partial_rotary_factor", &share.to_string(), "1"));
        }
    }
    let Some(settings) = settings else {
        return Ok(Rope { theta, scaling: None });
    };
    // "type" is the older name of "rope_type".
    let rope_type = match (settings.text("rope_type")?, settings.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            return Err(settings.wrong("type", format!("{new:?}, as in rope_type"), format!("{old:?}")));
        }
        (new, old) => new.or(old),
    };
    let scaling = match rope_type {
        Some("default") => None,
        Some("llama3") => Some(llama3_scaling(&settings)?),
        Some(other) => return Err(settings.unsupported("rope_type", other, "default, llama3")),
        // Settings per kind of layer, or a scaling without its name, would be misread as none.
        None => match settings
            .object
            .keys()
            .find(|key| !["rope_theta", "partial_rotary_factor"].contains(&key.as_str()))
        {
            None => None,
            Some(key) => return Err(settings.unsupported(key, "given without rope_type", "default, llama3")),
        },
    };
    Ok(Rope { theta, scaling })
}

fn llama3_scaling(settings: &Fields<'_>) -> Result<Llama3Scaling, CheckpointError> {
    let required = |name: &str, accepted: fn(f64) -> bool, expected: &str| {
        let value = settings.number(name)?;
        value.filter(|&value| accepted(value)).ok_or_else(|| {
            let found = value.map_or("nothing".into(), |value| value.to_string());
            settings.wrong(name, expected.into(), found)
        })
    };
    let factor = required("factor", |value| (1.0..=1e6).contains(&value), "a number from 1 to 1e6")?;
    let in_range = |value| value > 0.0 && value <= 1e6;
    let low_frequency_factor = required("low_freq_factor", in_range, "a number above 0, at most 1e6")?;
    let high_frequency_factor = required("high_freq_factor", in_range, "a number above 0, at most 1e6")?;
    if high_frequency_factor <= low_frequency_factor {
        let expected = format!("more than low_freq_factor = {low_frequency_factor}");
        return Err(settings.wrong("high_freq_factor", expected, high_frequency_factor));
    }
    let original_context = settings.size("original_max_position_embeddings", MAX_CONTEXT)?;
    Ok(Llama3Scaling { factor, low_frequency_factor, high_frequency_factor, original_context })
}

/// A JSON object with what errors need to name its fields. A field that is null counts as absent.
struct Fields<'a> {
    path: &'a Path,
    prefix: &'static str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn nested(&self, name: &'static str) -> Result<Option<Fields<'a>>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields { path: self.path, prefix: name, object })),
            Some(other) => Err(self.wrong(name, "an object or null".into(), brief(other))),
        }
    }

    fn size(&self, name: &str, cap: u32) -> Result<u32, CheckpointError> {
        self.optional_size(name, cap)?
            .ok_or_else(|| self.wrong(name, format!("a whole number from 1 to {cap}"), "nothing"))
    }

    fn optional_size(&self, name: &str, cap: u32) -> Result<Option<u32>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().and_then(|size| u32::try_from(size).ok()) {
            Some(size) if (1..=cap).contains(&size) => Ok(Some(size)),
            _ => Err(self.wrong(name, format!("a whole number from 1 to {cap}"), brief(value))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, "a number".into(), brief(value))),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, CheckpointError> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(name, "true or false".into(), brief(other))),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string".into(), brief(other))),
        }
    }

    /// Zero, one or several tokens.
    fn tokens(&self, name: &str, vocabulary: u32) -> Result<Vec<u32>, CheckpointError> {
        let values = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let token = |value: &Value| {
            let token = value.as_u64().and_then(|token| u32::try_from(token).ok());
            token.filter(|&token| token < vocabulary).ok_or_else(|| {
                self.wrong(name, format!("tokens below vocab_size = {vocabulary}"), brief(value))
            })
        };
        values.iter().map(token).collect()
    }

    fn theta(&self) -> Result<Option<f64>, CheckpointError> {
        // Below 1 the frequencies would grow from pair to pair, beyond one turn a position.
        match self.number("rope_theta")? {
            Some(theta) if !(1.0..=1e12).contains(&theta) => {
                Err(self.wrong("rope_theta", "a number from 1 to 1e12".into(), theta))
            }
            theta => Ok(theta),
        }
    }

    fn name(&self, field: &str) -> String {
        if self.prefix.is_empty() { field.to_owned() } else { format!("{}.{field}", self.prefix) }
    }

    fn wrong(&self, field: &str, expected: String, found: impl ToString) -> CheckpointError {
        let (path, field) = (PathBuf::from(self.path), self.name(field));
        CheckpointError::Field { path, field, expected, found: found.to_string() }
    }

    fn unsupported(&self, field: &str, found: &str, supported: &'static str) -> CheckpointError {
        let (path, field) = (PathBuf::from(self.path), self.name(field));
        CheckpointError::Unsupported { path, field, found: found.to_owned(), supported }
    }
}

/// A JSON value for an error message, cut where it gets long.
fn brief(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
