//! Sizes, constants and rotary positions of a model, from a file's metadata.
//!
//! As with `config.json`: a key that changes the numbers is either understood or refused by name. Of the keys that begin with the
//! architecture's name all others are refused, as they may; other groups of keys describe the file, its origin, or its tokenizer.

use rescomp_formats::spec::{Activation, Architecture, MAX_END_TOKENS, ModelSpec, Output, Variant};

use super::super::folded::Folded;
use super::super::hf_config::{
    MAX_CONTEXT, MAX_HEAD_DIM, MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE, MAX_LAYERS, MAX_VOCABULARY,
};
use super::super::names::{
    GGUF_GEMMA, GGUF_GEMMA2, GGUF_GEMMA3, GGUF_GPT_NEOX, GGUF_GPT2, GGUF_LLAMA, GGUF_PHI3, GGUF_QWEN2,
    GGUF_QWEN3, Names,
};
use super::super::{CheckpointError, TensorStore};
use super::metadata::Fields;
use super::{rotary, tokenizer};

pub(in super::super) const EMBEDDING: &str = "token_embd.weight";
pub(in super::super) const HEAD: &str = "output.weight";

/// The version of the quantized types' layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// A kind of model that is read.
struct Family {
    /// `general.architecture`, and what its keys begin with.
    name: &'static str,
    architecture: Architecture,
    names: &'static Names,
    /// Gemma's: tanh's GELU, embeddings multiplied with the root of their width.
    gemma: bool,
    /// Where there are windows, every so many-th layer has none; 0: all layers have one.
    global_every: u32,
    /// GPT's: LayerNorm.
    layer_norm: bool,
    /// Of the MLP: the model's own. The file doesn't say it.
    activation: Activation,
    /// Every so many-th layer rotates nothing; 0: all rotate.
    unrotated_every: u32,
    /// So many layers has the one model whose scores are scaled by the width of the stream a head, and not by that of a head.
    scaled_by_stream: u32,
}

const LLAMA: Family = Family {
    name: "llama",
    architecture: Architecture::Llama,
    names: &GGUF_LLAMA,
    gemma: false,
    global_every: 0,
    layer_norm: false,
    activation: Activation::Silu,
    unrotated_every: 0,
    scaled_by_stream: 0,
};
const GEMMA: Family =
    Family { name: "gemma", names: &GGUF_GEMMA, gemma: true, activation: Activation::GeluTanh, ..LLAMA };
const GPT_NEOX: Family = Family {
    name: "gptneox",
    architecture: Architecture::GptNeox,
    names: &GGUF_GPT_NEOX,
    layer_norm: true,
    activation: Activation::Gelu,
    ..LLAMA
};
const FAMILIES: [Family; 11] = [
    LLAMA,
    Family { name: "smollm3", unrotated_every: 4, ..LLAMA },
    Family { name: "granite", ..LLAMA },
    GPT_NEOX,
    Family {
        name: "gpt2",
        architecture: Architecture::Gpt2,
        names: &GGUF_GPT2,
        activation: Activation::GeluTanh,
        ..GPT_NEOX
    },
    Family { name: "qwen2", architecture: Architecture::Qwen2, names: &GGUF_QWEN2, ..LLAMA },
    Family { name: "qwen3", architecture: Architecture::Qwen3, names: &GGUF_QWEN3, ..LLAMA },
    Family { name: "phi3", names: &GGUF_PHI3, ..LLAMA },
    GEMMA,
    Family {
        name: "gemma2",
        architecture: Architecture::Gemma2,
        names: &GGUF_GEMMA2,
        global_every: 2,
        scaled_by_stream: 46,
        ..GEMMA
    },
    Family {
        name: "gemma3",
        architecture: Architecture::Gemma3,
        names: &GGUF_GEMMA3,
        global_every: 6,
        scaled_by_stream: 62,
        ..GEMMA
    },
];
const SUPPORTED: &str = "\"llama\", \"smollm3\", \"granite\", \"gptneox\", \"gpt2\", \"qwen2\", \"qwen3\", \"phi3\", \"gemma\", \"gemma2\", \"gemma3\"";

/// Keys of an architecture that are read below, or that say nothing about the numbers.
const KNOWN: [&str; 32] = [
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.scale",
    "attention.sliding_window",
    "attention.value_length",
    "attn_logit_softcapping",
    "block_count",
    "context_length",
    "embedding_length",
    "embedding_scale",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    // Whether the model was trained with the scaling.
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    // Where the weights came from: in the file they are laid out alike.
    "tensor_data_layout",
    "use_parallel_residual",
    "vocab_size",
];

/// What the metadata says of a model.
pub(in super::super) struct Sizes {
    pub(in super::super) spec: ModelSpec,
    /// Turns a position of each rotary pair (see [`Rope::turns_per_position`](super::super::Rope::turns_per_position)).
    pub(in super::super) turns: Vec<u64>,
    /// Those of layers with a window, where they have their own; else none.
    pub(in super::super) local_turns: Vec<u64>,
    /// What the weights take in.
    pub(in super::super) folded: Folded,
    /// The names of its tensors.
    pub(in super::super) names: &'static Names,
}

/// The metadata under the keys of one architecture.
pub(super) struct Keys<'f, 'a> {
    pub(super) fields: &'f Fields<'a>,
    family: &'static Family,
}

impl Keys<'_, '_> {
    /// The whole key.
    pub(super) fn of(&self, key: &str) -> String {
        format!("{}.{key}", self.family.name)
    }

    fn size(&self, key: &str, cap: u32) -> Result<u32, CheckpointError> {
        self.fields.size(&self.of(key), cap)
    }

    pub(super) fn whole(&self, key: &str, least: u32, most: u32) -> Result<Option<u32>, CheckpointError> {
        self.fields.whole(&self.of(key), least, most)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.fields.number(&self.of(key))
    }

    pub(super) fn wrong(&self, key: &str, expected: impl ToString) -> CheckpointError {
        self.fields.wrong(&self.of(key), expected)
    }

    pub(super) fn unsupported(&self, key: &str, supported: &'static str) -> CheckpointError {
        self.fields.unsupported(&self.of(key), supported)
    }
}

/// Reads the metadata; the embedding's rows are the vocabulary, and the head is the embedding where the file has none.
///
/// # Errors
/// Another architecture, a part of a split file, a missing size or one that cannot be, a key or value that asks for something that
/// this crate does not do, rotary divisors that are none.
pub(in super::super) fn sizes(fields: &Fields<'_>, store: &TensorStore) -> Result<Sizes, CheckpointError> {
    let family = family(fields)?;
    let keys = &Keys { fields, family };
    refuse_others(keys)?;
    let hidden = keys.size("embedding_length", MAX_HIDDEN)?;
    let heads = keys.size("attention.head_count", MAX_HEADS)?;
    let kv_heads = keys.whole("attention.head_count_kv", 1, MAX_HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of {} = {heads}", keys.of("attention.head_count"));
        return Err(keys.wrong("attention.head_count_kv", expected));
    }
    let head_dim = head_dim(keys, hidden, heads)?;
    let vocabulary = vocabulary(keys, store, hidden)?;
    let mut spec = ModelSpec {
        architecture: family.architecture,
        vocabulary,
        hidden,
        intermediate: keys.size("feed_forward_length", MAX_INTERMEDIATE)?,
        layers: keys.size("block_count", MAX_LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        context: keys.size("context_length", MAX_CONTEXT)?,
        norm_epsilon: norm_epsilon(keys)?,
        variant: Variant::plain(head_dim),
        // A head that is the embedding again is stored once in a container too.
        tied_head: store.shape(HEAD).is_none() || store.stored_alike(EMBEDDING, HEAD),
        embedding_bands: 1,
        begin_token: tokenizer::begin_token(fields, vocabulary)?,
        end_tokens: Default::default(),
        chat_template: false,
        online: Default::default(),
        output: Output::NextToken,
    };
    for key in tokenizer::END_TOKENS {
        if let Some(token) = fields.whole(key, 0, vocabulary - 1)?
            && !spec.end_tokens.contains(&token)
            && spec.end_tokens.push(token).is_err()
        {
            return Err(fields.wrong(key, format!("at most {MAX_END_TOKENS} different end tokens")));
        }
    }
    set_variant(keys, &mut spec)?;
    let mut folded = granite_scales(keys, &mut spec)?;
    let (turns, amplitude) = rotary::turns(keys, store, &mut spec)?;
    folded.amplitude = amplitude as f32;
    let local_turns = rotary::local_turns(keys, &spec)?;
    Ok(Sizes { turns, local_turns, spec, folded, names: family.names })
}

fn family(fields: &Fields<'_>) -> Result<&'static Family, CheckpointError> {
    let architecture = "general.architecture";
    let Some(name) = fields.text(architecture)? else {
        return Err(fields.wrong(architecture, format!("one of {SUPPORTED}")));
    };
    let family = FAMILIES.iter().find(|family| family.name == name);
    family.ok_or_else(|| fields.unsupported(architecture, SUPPORTED))
}

fn refuse_others(keys: &Keys<'_, '_>) -> Result<(), CheckpointError> {
    let fields = keys.fields;
    let kind = "general.type";
    if fields.text(kind)?.is_some_and(|kind| kind != "model") {
        return Err(fields.unsupported(kind, "\"model\""));
    }
    let parts = "split.count";
    if fields.whole(parts, 0, u32::MAX)?.is_some_and(|parts| parts > 1) {
        return Err(fields.unsupported(parts, "1: merge the parts, with llama-gguf-split --merge"));
    }
    let version = "general.quantization_version";
    if fields.whole(version, 0, u32::MAX)?.is_some_and(|version| version != QUANTIZATION_VERSION) {
        return Err(fields.unsupported(version, "2"));
    }
    let parallel = "use_parallel_residual";
    for (key, neutral) in [("attention.causal", true), (parallel, false)] {
        let may_have = key == parallel && keys.family.architecture == Architecture::GptNeox;
        if fields.flag(&keys.of(key))?.is_some_and(|flag| flag != neutral) && !may_have {
            return Err(keys.unsupported(key, if neutral { "true" } else { "false" }));
        }
    }
    for key in ["expert_count", "expert_used_count"] {
        if keys.whole(key, 0, u32::MAX)?.is_some_and(|experts| experts > 0) {
            return Err(keys.unsupported(key, "0"));
        }
    }
    let prefix = keys.of("");
    let other = |key: &&str| key.strip_prefix(prefix.as_str()).is_some_and(|key| !KNOWN.contains(&key));
    match fields.keys().find(other) {
        Some(key) => Err(fields.unsupported(key, "no such key: it may change what the model computes")),
        None => Ok(()),
    }
}

/// What is not the same in all models of the architecture.
fn set_variant(keys: &Keys<'_, '_>, spec: &mut ModelSpec) -> Result<(), CheckpointError> {
    let family = keys.family;
    let (hidden, head_dim) = (f64::from(spec.hidden), spec.head_dim);
    let window = keys.whole("attention.sliding_window", 0, MAX_CONTEXT)?.unwrap_or(0);
    // One as long as the context bounds nothing; but where layers with a window have frequencies of their own, they keep these.
    if window < spec.context || family.architecture.has_local_frequencies() {
        spec.variant.sliding_window = window.min(1 << 20);
        spec.variant.global_every = if window > 0 { family.global_every } else { 0 };
    }
    let rotated = keys.whole("rope.dimension_count", 2, MAX_HEAD_DIM)?.unwrap_or(head_dim);
    let may_be_a_part = family.name == "phi3" || family.architecture == Architecture::GptNeox;
    if rotated != head_dim && (!may_be_a_part || rotated > head_dim || !rotated.is_multiple_of(2)) {
        return Err(keys.unsupported("rope.dimension_count", "the size of a head"));
    }
    spec.variant.rotary_dim = if spec.architecture.has_learned_positions() { 0 } else { rotated };
    spec.variant.unrotated_every = family.unrotated_every;
    spec.variant.activation = family.activation;
    if family.architecture == Architecture::GptNeox {
        let key = "use_parallel_residual";
        let parallel = keys.fields.flag(&keys.of(key))?;
        spec.variant.parallel_residual = parallel.ok_or_else(|| keys.wrong(key, "true or false"))?;
    }
    for (key, capped) in [("attn_logit_softcapping", 0), ("final_logit_softcapping", 1)] {
        let Some(cap) = keys.number(key)? else { continue };
        if !family.gemma || !(0.0..=1e6).contains(&cap) {
            return Err(keys.unsupported(key, "a number from 0 to 1e6, of Gemma"));
        }
        let caps = [&mut spec.variant.score_cap, &mut spec.variant.logit_cap];
        *caps[capped] = cap as f32;
    }
    if family.gemma {
        spec.variant.embedding_scale = hidden.sqrt() as f32;
    }
    if spec.layers == family.scaled_by_stream {
        spec.variant.score_scale = (hidden / f64::from(spec.heads)).powf(-0.5) as f32;
    }
    Ok(())
}

/// What Granite multiplies with; nothing of others.
fn granite_scales(keys: &Keys<'_, '_>, spec: &mut ModelSpec) -> Result<Folded, CheckpointError> {
    let scale = |key: &str| {
        let Some(scale) = keys.number(key)? else { return Ok(1.0) };
        if keys.family.name != "granite" {
            return Err(keys.unsupported(key, "no such key: it may change what the model computes"));
        }
        match (1e-6..=1e6).contains(&scale) {
            true => Ok(scale as f32),
            false => Err(keys.wrong(key, "a number from 1e-6 to 1e6")),
        }
    };
    spec.variant.embedding_scale *= scale("embedding_scale")?;
    if keys.number("attention.scale")?.is_some() {
        spec.variant.score_scale = scale("attention.scale")?;
    }
    Ok(Folded { residual: scale("residual_scale")?, logits: 1.0 / scale("logit_scale")?, ..Folded::NOTHING })
}

fn head_dim(keys: &Keys<'_, '_>, hidden: u32, heads: u32) -> Result<u32, CheckpointError> {
    let key_length = "attention.key_length";
    let head_dim = match keys.whole(key_length, 1, MAX_HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if !hidden.is_multiple_of(heads) => {
            let (count, absent) = (keys.of("attention.head_count"), keys.of(key_length));
            let expected = format!("a multiple of {count} = {heads} as {absent} is absent");
            return Err(keys.wrong("embedding_length", expected));
        }
        None => hidden / heads,
    };
    if head_dim % 2 != 0 || head_dim > MAX_HEAD_DIM {
        let expected = format!("heads of an even size of at most {MAX_HEAD_DIM}");
        return Err(keys.wrong(key_length, expected));
    }
    // Values as wide as keys.
    if keys.whole("attention.value_length", 0, u32::MAX)?.is_some_and(|size| size != head_dim) {
        return Err(keys.unsupported("attention.value_length", "the size of a head"));
    }
    Ok(head_dim)
}

fn vocabulary(keys: &Keys<'_, '_>, store: &TensorStore, hidden: u32) -> Result<u32, CheckpointError> {
    let key = "vocab_size";
    let fields = keys.fields;
    let stated = keys.whole(key, 1, MAX_VOCABULARY)?;
    let missing = |expected| CheckpointError::MissingTensor {
        path: fields.path.to_owned(),
        tensor: EMBEDDING.to_owned(),
        expected,
    };
    let stated_rows = stated.unwrap_or(MAX_VOCABULARY) as usize;
    let shape = store.shape(EMBEDDING).ok_or_else(|| missing(vec![stated_rows, hidden as usize]))?;
    let rows = match shape {
        &[rows, _] => u32::try_from(rows).ok().filter(|&rows| rows <= MAX_VOCABULARY),
        _ => None,
    };
    let Some(rows) = rows else {
        return Err(CheckpointError::TensorShape {
            path: fields.path.to_owned(),
            tensor: EMBEDDING.to_owned(),
            expected: vec![stated_rows, hidden as usize],
            found: shape.to_vec(),
        });
    };
    if stated.is_some_and(|stated| stated != rows) {
        return Err(keys.wrong(key, format!("{rows}, the rows of {EMBEDDING}")));
    }
    Ok(rows)
}

fn norm_epsilon(keys: &Keys<'_, '_>) -> Result<f32, CheckpointError> {
    let key = match keys.family.layer_norm {
        true => "attention.layer_norm_epsilon",
        false => "attention.layer_norm_rms_epsilon",
    };
    let narrowed = keys.number(key)?.map(|value| value as f32);
    narrowed
        .filter(|&value| value > 0.0 && value < 1.0)
        .ok_or_else(|| keys.wrong(key, "a number above 0 (in single precision) and below 1"))
}
