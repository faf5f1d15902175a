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

pub(super) const MAX_VOCABULARY: u32 = 1 << 20;
pub(super) const MAX_HIDDEN: u32 = 1 << 16;
pub(super) const MAX_INTERMEDIATE: u32 = 1 << 18;
pub(super) const MAX_LAYERS: u32 = 512;
pub(super) const MAX_HEADS: u32 = 1 << 10;
pub(super) const MAX_HEAD_DIM: u32 = 1 << 10;
pub(super) const MAX_CONTEXT: u32 = 1 << 24;

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

    /// As [`HfConfig::read`], from the text of the file; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`HfConfig::read`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, CheckpointError> {
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
            embedding_bands: 1,
            begin_token: None,
            end_tokens: Default::default(),
            chat_template: false,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 1000,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
        })
    }

    /// The config with fields set; null takes one away.
    fn with(changes: Value) -> Value {
        let mut config = config();
        for (name, value) in changes.as_object().unwrap() {
            config[name.as_str()] = value.clone();
        }
        config
    }

    fn parse(config: &Value) -> Result<HfConfig, CheckpointError> {
        HfConfig::parse(Path::new("folder/config.json"), config.to_string().as_bytes())
    }

    fn refusal(changes: Value) -> String {
        parse(&with(changes)).expect_err("accepted").to_string()
    }

    fn assert_refused(changes: Value, parts: &[&str]) {
        let message = refusal(changes.clone());
        assert!(message.starts_with("folder/config.json: "), "{message}");
        for part in parts {
            assert!(message.contains(part), "{changes}: expected {part:?} in: {message}");
        }
    }

    fn llama3() -> Value {
        json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        })
    }

    #[test]
    fn absent_fields_get_the_defaults_of_transformers() {
        let HfConfig { spec, rope } = parse(&with(json!({ "rms_norm_eps": null }))).unwrap();
        assert_eq!((spec.vocabulary, spec.hidden, spec.intermediate, spec.layers), (1000, 96, 256, 3));
        assert_eq!((spec.heads, spec.kv_heads, spec.head_dim, spec.context), (6, 6, 16, 2048));
        assert_eq!((spec.norm_epsilon, spec.tied_head), (1e-6, false));
        assert_eq!((spec.begin_token, spec.end_tokens.len()), (None, 0));
        assert_eq!(rope, Rope { theta: 10_000.0, scaling: None });
    }

    #[test]
    fn given_fields_are_taken() {
        let given = json!({
            "num_key_value_heads": 2, "head_dim": 20, "tie_word_embeddings": true, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "pretraining_tp": 1,
        });
        let spec = parse(&with(given)).unwrap().spec;
        assert_eq!((spec.kv_heads, spec.head_dim, spec.tied_head, spec.norm_epsilon), (2, 20, true, 1e-5));
        assert_eq!((spec.query_width(), spec.kv_width()), (120, 40));
    }

    #[test]
    fn tokens_are_one_several_or_none() {
        let tokens = |bos: Value, eos: Value| {
            let spec = parse(&with(json!({ "bos_token_id": bos, "eos_token_id": eos }))).unwrap().spec;
            (spec.begin_token, spec.end_tokens.to_vec())
        };
        assert_eq!(tokens(json!(1), json!(2)), (Some(1), vec![2]));
        assert_eq!(tokens(json!(null), json!([5, 6, 5])), (None, vec![5, 6]));
        assert_eq!(tokens(json!([999]), json!([])), (Some(999), vec![]));
        assert_refused(json!({ "bos_token_id": [1, 2] }), &["bos_token_id", "one token", "[1, 2]"]);
        assert_refused(json!({ "eos_token_id": 1000 }), &["eos_token_id", "below vocab_size = 1000", "1000"]);
        assert_refused(json!({ "eos_token_id": [1, -1] }), &["eos_token_id", "found -1"]);
        assert_refused(json!({ "bos_token_id": "<s>" }), &["bos_token_id", "<s>"]);
        let nine: Vec<u32> = (0..9).collect();
        assert_refused(json!({ "eos_token_id": nine }), &["eos_token_id", "at most 8"]);
    }

    #[test]
    fn both_spellings_of_rotary_settings_mean_the_same() {
        let rope = |changes| parse(&with(changes)).unwrap().rope;
        let plain = Rope { theta: 5e5, scaling: None };
        assert_eq!(rope(json!({ "rope_theta": 500000 })), plain);
        assert_eq!(rope(json!({ "rope_theta": 5e5, "rope_scaling": null })), plain);
        assert_eq!(rope(json!({ "rope_theta": 5e5, "rope_scaling": { "type": "default" } })), plain);
        assert_eq!(rope(json!({ "rope_parameters": { "rope_theta": 5e5, "rope_type": "default" } })), plain);
        assert_eq!(rope(json!({ "rope_parameters": { "rope_theta": 5e5 }, "rope_theta": 5e5 })), plain);

        let scaling = Llama3Scaling {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192,
        };
        let scaled = Rope { theta: 5e5, scaling: Some(scaling) };
        assert_eq!(rope(json!({ "rope_theta": 5e5, "rope_scaling": llama3() })), scaled);
        let mut nested = llama3();
        nested["rope_theta"] = json!(5e5);
        assert_eq!(rope(json!({ "rope_parameters": nested })), scaled);
        let mut old = llama3();
        old["rope_type"] = json!(null);
        old["type"] = json!("llama3");
        assert_eq!(rope(json!({ "rope_theta": 5e5, "rope_scaling": old })), scaled);
    }

    #[test]
    fn rotary_settings_that_cannot_be_are_refused() {
        for name in ["linear", "dynamic", "yarn", "longrope", "su"] {
            let settings = json!({ "rope_type": name, "factor": 2.0 });
            let parts = [".rope_type is ", name, "supported: default, llama3"];
            assert_refused(json!({ "rope_scaling": settings }), &parts);
            assert_refused(json!({ "rope_parameters": settings }), &parts);
        }
        assert_refused(
            json!({ "rope_scaling": { "factor": 2.0 } }),
            &["rope_scaling.factor", "without rope_type"],
        );
        let layered = json!({ "full_attention": { "rope_type": "default" } });
        assert_refused(json!({ "rope_parameters": layered }), &["rope_parameters.full_attention"]);
        assert_refused(json!({ "rope_scaling": "linear" }), &["rope_scaling", "an object or null"]);
        let both = json!({ "rope_scaling": { "rope_type": "default", "type": "linear" } });
        assert_refused(both, &["rope_scaling.type", "linear"]);
        let theta = json!({ "rope_parameters": { "rope_theta": 1e4 }, "rope_theta": 5e5 });
        assert_refused(theta, &["rope_theta", "10000", "500000"]);
        let settings = json!({ "rope_parameters": { "rope_type": "default" }, "rope_scaling": llama3() });
        assert_refused(settings, &["rope_scaling", "the same settings"]);
        assert_refused(json!({ "partial_rotary_factor": 0.5 }), &["partial_rotary_factor is 0.5"]);
        for theta in [json!(0), json!(0.5), json!(-1e4), json!(1e300), json!("1e4"), json!([])] {
            assert_refused(json!({ "rope_theta": theta }), &["rope_theta: expected a number"]);
        }
        for (name, value) in [
            ("factor", json!(0.5)),
            ("factor", json!(null)),
            ("low_freq_factor", json!(0)),
            ("low_freq_factor", json!("1")),
            ("high_freq_factor", json!(1.0)),
            ("high_freq_factor", json!(null)),
            ("original_max_position_embeddings", json!(null)),
            ("original_max_position_embeddings", json!(0)),
        ] {
            let mut settings = llama3();
            settings[name] = value;
            assert_refused(
                json!({ "rope_scaling": settings }),
                &[&format!("rope_scaling.{name}: expected ")],
            );
        }
    }

    #[test]
    fn what_would_compute_something_else_is_refused_by_name() {
        assert_refused(json!({ "model_type": "mistral" }), &["model_type is mistral", "supported: llama"]);
        let classifier = json!({ "architectures": ["LlamaForSequenceClassification"] });
        assert_refused(classifier, &["LlamaForSequenceClassification", "supported: LlamaForCausalLM"]);
        assert_refused(json!({ "architectures": "Llama" }), &["architectures: expected a list"]);
        assert_refused(
            json!({ "architectures": null, "model_type": null }),
            &["model_type", "found nothing"],
        );
        assert_refused(json!({ "architectures": [], "model_type": null }), &["model_type", "found nothing"]);
        assert!(parse(&with(json!({ "model_type": null }))).is_ok());
        assert!(parse(&with(json!({ "architectures": null }))).is_ok());
        assert_refused(json!({ "attention_bias": true }), &["attention_bias is true"]);
        assert_refused(json!({ "mlp_bias": true }), &["mlp_bias is true"]);
        assert_refused(json!({ "mlp_bias": 1 }), &["mlp_bias", "true or false", "found 1"]);
        assert_refused(json!({ "hidden_act": "gelu" }), &["hidden_act is gelu", "supported: silu"]);
        let method = json!({ "quantization_config": { "quant_method": "gptq" } });
        assert_refused(method, &["quantization_config is", "gptq", "not quantized yet"]);
    }

    #[test]
    fn sizes_are_checked() {
        for (name, cap) in [
            ("vocab_size", 1_048_576),
            ("hidden_size", 65_536),
            ("intermediate_size", 262_144),
            ("num_hidden_layers", 512),
            ("num_attention_heads", 1024),
            ("num_key_value_heads", 1024),
            ("head_dim", 1024),
            ("max_position_embeddings", 16_777_216),
        ] {
            let expected = format!("{name}: expected a whole number from 1 to {cap}, found ");
            for value in
                [json!(0), json!(-1), json!(cap + 1), json!(1.5), json!("8"), json!(u64::MAX), json!([])]
            {
                assert_refused(json!({ name: value }), &[&expected]);
            }
            if !["num_key_value_heads", "head_dim"].contains(&name) {
                assert_refused(json!({ name: null }), &[&format!("{expected}nothing")]);
            }
        }
        assert_refused(json!({ "num_key_value_heads": 4 }), &["num_key_value_heads", "a divisor of", "6"]);
        assert_refused(json!({ "num_key_value_heads": 12 }), &["num_key_value_heads", "a divisor of", "6"]);
        assert_refused(json!({ "hidden_size": 100 }), &["hidden_size", "a multiple of"]);
        assert_refused(json!({ "head_dim": 15 }), &["head_dim", "even", "15"]);
        assert_refused(json!({ "hidden_size": 6 * 15 }), &["head_dim", "even", "15"]);
        let wide = json!({ "hidden_size": 4096, "num_attention_heads": 2 });
        assert_refused(wide, &["head_dim", "at most 1024", "2048"]);
        for epsilon in [json!(0), json!(-1e-5), json!(1), json!(1e-60), json!("1e-5"), json!(true)] {
            assert_refused(json!({ "rms_norm_eps": epsilon }), &["rms_norm_eps: expected a number"]);
        }
    }

    #[test]
    fn broken_json_names_the_file_and_place() {
        for text in ["", "{", "[]", "3", "null", "{\"a\": NaN}", "{\"hidden_size\": 1e999}"] {
            let error =
                HfConfig::parse(Path::new("config.json"), text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with("config.json: whole file: ") && error.contains("line 1"), "{error}");
        }
        let long = refusal(json!({ "hidden_size": "\u{e9}".repeat(1000) }));
        assert!(long.len() < 400 && long.ends_with("..."), "{long}");
        let nested = format!("{{\"a\": {}", "[".repeat(100_000));
        assert!(HfConfig::parse(Path::new("config.json"), nested.as_bytes()).is_err());
    }

    #[test]
    fn a_file_of_another_kind_is_not_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::File::create(&path).unwrap().set_len(MAX_CONFIG_BYTES + 1).unwrap();
        assert!(matches!(HfConfig::read(&path), Err(CheckpointError::TooLarge { .. })));
    }

    fn hostile_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(|number| json!(number)),
            any::<u64>().prop_map(|number| json!(number)),
            (-4..40_i64).prop_map(|number| json!(number)),
            any::<f64>().prop_map(|number| json!(number)),
            any::<bool>().prop_map(|flag| json!(flag)),
            ".{0,6}".prop_map(|text| json!(text)),
            proptest::collection::vec(0..2000_i64, 0..12).prop_map(|list| json!(list)),
            Just(json!({ "rope_type": "llama3" })),
            Just(llama3()),
            Just(json!(null)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_accepted_holds_every_promise(
            changes in proptest::collection::vec((0..20_usize, hostile_value()), 1..4),
        ) {
            const NAMES: [&str; 20] = [
                "architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps",
                "rope_theta", "rope_scaling", "rope_parameters", "bos_token_id", "eos_token_id",
                "tie_word_embeddings", "attention_bias", "hidden_act", "quantization_config",
            ];
            let mut config = config();
            for (at, value) in changes {
                config[NAMES[at]] = value;
            }
            if let Ok(HfConfig { spec, rope }) = parse(&config) {
                prop_assert!(spec.heads % spec.kv_heads == 0 && spec.head_dim % 2 == 0 && spec.head_dim > 0);
                prop_assert!(spec.layers > 0 && spec.context > 0 && spec.norm_epsilon > 0.0);
                prop_assert!(spec.end_tokens.iter().chain(&spec.begin_token).all(|&token| token < spec.vocabulary));
                let turns = rope.turns_per_position(spec.head_dim);
                // No pair turns faster than a radian a position, and none faster than the one before.
                prop_assert!(turns[0] <= 2_935_890_503_282_001_792 && turns.is_sorted_by(|a, b| a >= b));
            }
        }
    }
}
