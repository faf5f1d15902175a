//! Sizes, constants and rotary positions of a model of the architecture `llama`, from a file's metadata.
//!
//! As with `config.json`: a key that changes the numbers is either understood or refused by name. Of the keys `llama.*` all
//! others are refused, as they may; other groups of keys describe the file, its origin, or its tokenizer.

use rescomp_formats::spec::{Architecture, MAX_END_TOKENS, ModelSpec};

use super::super::hf_config::{
    MAX_CONTEXT, MAX_HEAD_DIM, MAX_HEADS, MAX_HIDDEN, MAX_INTERMEDIATE, MAX_LAYERS, MAX_VOCABULARY,
};
use super::super::rope::Rope;
use super::super::{CheckpointError, TensorStore};
use super::metadata::Fields;
use super::tokenizer;

pub(in super::super) const EMBEDDING: &str = "token_embd.weight";
pub(in super::super) const HEAD: &str = "output.weight";
/// What the frequencies of the rotary pairs are divided by, one number a pair: Llama 3.1's scaling, worked out.
pub(in super::super) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The version of the quantized types' layouts.
const QUANTIZATION_VERSION: u32 = 2;
const LEAST_DIVISOR: f32 = 1.0;
const MOST_DIVISOR: f32 = 1e6;

/// Keys of the group `llama.` that are read below, or that say nothing about the numbers.
const KNOWN: [&str; 22] = [
    "llama.attention.causal",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.value_length",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.expert_count",
    "llama.expert_used_count",
    "llama.feed_forward_length",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.rope.scale_linear",
    "llama.rope.scaling.factor",
    // Only the type "yarn" computes with these two.
    "llama.rope.scaling.finetuned",
    "llama.rope.scaling.original_context_length",
    "llama.rope.scaling.type",
    // Where the weights came from: in the file they are laid out alike.
    "llama.tensor_data_layout",
    "llama.use_parallel_residual",
    "llama.vocab_size",
];

/// What the metadata says of a model.
pub(in super::super) struct Sizes {
    pub(in super::super) spec: ModelSpec,
    /// Turns a position of each rotary pair (see [`Rope::turns_per_position`]).
    pub(in super::super) turns: Vec<u64>,
}

/// Reads the metadata; the embedding's rows are the vocabulary, and the head is the embedding where the file has none.
///
/// # Errors
/// Another architecture, a part of a split file, a missing size or one that cannot be, a key or value that asks for something that
/// this crate does not do, rotary divisors that are none.
pub(in super::super) fn sizes(fields: &Fields<'_>, store: &TensorStore) -> Result<Sizes, CheckpointError> {
    refuse_others(fields)?;
    let hidden = fields.size("llama.embedding_length", MAX_HIDDEN)?;
    let heads = fields.size("llama.attention.head_count", MAX_HEADS)?;
    let kv_heads = fields.whole("llama.attention.head_count_kv", 1, MAX_HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of llama.attention.head_count = {heads}");
        return Err(fields.wrong("llama.attention.head_count_kv", expected));
    }
    let head_dim = head_dim(fields, hidden, heads)?;
    let vocabulary = vocabulary(fields, store, hidden)?;
    let mut spec = ModelSpec {
        architecture: Architecture::Llama,
        vocabulary,
        hidden,
        intermediate: fields.size("llama.feed_forward_length", MAX_INTERMEDIATE)?,
        layers: fields.size("llama.block_count", MAX_LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        context: fields.size("llama.context_length", MAX_CONTEXT)?,
        norm_epsilon: norm_epsilon(fields)?,
        // A head that is the embedding again is stored once in a container too.
        tied_head: store.shape(HEAD).is_none() || store.stored_alike(EMBEDDING, HEAD),
        embedding_bands: 1,
        begin_token: tokenizer::begin_token(fields, vocabulary)?,
        end_tokens: Default::default(),
        chat_template: false,
    };
    for key in tokenizer::END_TOKENS {
        if let Some(token) = fields.whole(key, 0, vocabulary - 1)?
            && !spec.end_tokens.contains(&token)
            && spec.end_tokens.push(token).is_err()
        {
            return Err(fields.wrong(key, format!("at most {MAX_END_TOKENS} different end tokens")));
        }
    }
    Ok(Sizes { turns: turns(fields, store, head_dim)?, spec })
}

fn refuse_others(fields: &Fields<'_>) -> Result<(), CheckpointError> {
    let architecture = "general.architecture";
    match fields.text(architecture)? {
        Some("llama") => {}
        Some(_) => return Err(fields.unsupported(architecture, "\"llama\"")),
        None => return Err(fields.wrong(architecture, "\"llama\"")),
    }
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
    for (key, neutral) in [("llama.attention.causal", true), ("llama.use_parallel_residual", false)] {
        if fields.flag(key)?.is_some_and(|flag| flag != neutral) {
            return Err(fields.unsupported(key, if neutral { "true" } else { "false" }));
        }
    }
    for key in ["llama.expert_count", "llama.expert_used_count"] {
        if fields.whole(key, 0, u32::MAX)?.is_some_and(|experts| experts > 0) {
            return Err(fields.unsupported(key, "0"));
        }
    }
    match fields.keys().find(|key| key.starts_with("llama.") && !KNOWN.contains(key)) {
        Some(key) => Err(fields.unsupported(key, "no such key: it may change what the model computes")),
        None => Ok(()),
    }
}

fn head_dim(fields: &Fields<'_>, hidden: u32, heads: u32) -> Result<u32, CheckpointError> {
    let key_length = "llama.attention.key_length";
    let head_dim = match fields.whole(key_length, 1, MAX_HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if !hidden.is_multiple_of(heads) => {
            let expected =
                format!("a multiple of llama.attention.head_count = {heads} as {key_length} is absent");
            return Err(fields.wrong("llama.embedding_length", expected));
        }
        None => hidden / heads,
    };
    if head_dim % 2 != 0 || head_dim > MAX_HEAD_DIM {
        let expected = format!("heads of an even size of at most {MAX_HEAD_DIM}");
        return Err(fields.wrong(key_length, expected));
    }
    // Values as wide as keys, and the whole head rotated.
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if fields.whole(key, 0, u32::MAX)?.is_some_and(|size| size != head_dim) {
            return Err(fields.unsupported(key, "the size of a head"));
        }
    }
    Ok(head_dim)
}

fn vocabulary(fields: &Fields<'_>, store: &TensorStore, hidden: u32) -> Result<u32, CheckpointError> {
    let key = "llama.vocab_size";
    let stated = fields.whole(key, 1, MAX_VOCABULARY)?;
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
        return Err(fields.wrong(key, format!("{rows}, the rows of {EMBEDDING}")));
    }
    Ok(rows)
}

fn norm_epsilon(fields: &Fields<'_>) -> Result<f32, CheckpointError> {
    let key = "llama.attention.layer_norm_rms_epsilon";
    let narrowed = fields.number(key)?.map(|value| value as f32);
    narrowed
        .filter(|&value| value > 0.0 && value < 1.0)
        .ok_or_else(|| fields.wrong(key, "a number above 0 (in single precision) and below 1"))
}

fn turns(fields: &Fields<'_>, store: &TensorStore, head_dim: u32) -> Result<Vec<u64>, CheckpointError> {
    let key = "llama.rope.freq_base";
    let theta = fields.number(key)?.unwrap_or(10_000.0);
    // As in `config.json`: below 1 the frequencies would grow from pair to pair, beyond one turn a position.
    if !(1.0..=1e12).contains(&theta) {
        return Err(fields.wrong(key, "a number from 1 to 1e12"));
    }
    let pairs = head_dim as usize / 2;
    let mut divisors = vec![linear_divisor(fields)?; pairs];
    if store.shape(ROPE_DIVISORS).is_some() {
        let stored = store.tensor_f32(ROPE_DIVISORS, &[pairs])?;
        if let Some(pair) = stored.iter().position(|of| !(LEAST_DIVISOR..=MOST_DIVISOR).contains(of)) {
            return Err(CheckpointError::RopeDivisor {
                path: fields.path.to_owned(),
                tensor: ROPE_DIVISORS,
                pair,
                least: LEAST_DIVISOR,
                most: MOST_DIVISOR,
                found: stored[pair],
            });
        }
        divisors.iter_mut().zip(stored).for_each(|(divisor, stored)| *divisor *= f64::from(stored));
    }
    Ok(Rope { theta, scaling: None }.divided_turns_per_position(head_dim, &divisors))
}

/// What all frequencies are divided by: positions of a context that was stretched evenly.
fn linear_divisor(fields: &Fields<'_>) -> Result<f64, CheckpointError> {
    let kind = "llama.rope.scaling.type";
    match fields.text(kind)? {
        Some("none") => return Ok(1.0),
        // Where there is a factor without a type, it is this one.
        Some("linear") | None => {}
        Some(_) => return Err(fields.unsupported(kind, "\"none\", \"linear\"")),
    }
    let (new, old) = ("llama.rope.scaling.factor", "llama.rope.scale_linear");
    for key in [new, old] {
        match fields.number(key)? {
            // Not scaled: how some writers spell it.
            Some(0.0) => return Ok(1.0),
            Some(factor) if (1.0..=1e6).contains(&factor) => return Ok(factor),
            Some(_) => return Err(fields.wrong(key, "0, or a number from 1 to 1e6")),
            None => {}
        }
    }
    Ok(1.0)
}
