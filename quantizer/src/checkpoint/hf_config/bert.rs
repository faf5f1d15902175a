//! BERT, RoBERTa and DistilBERT: encoders with learned positions, LayerNorm behind attention and MLP, biases.

use rescomp_formats::spec::{Activation, Architecture, Output, Pooling, TextEmbedding};

use super::super::CheckpointError;
use super::super::names::{BERT, DISTILBERT, Names, ROBERTA};
use super::super::rope::Rope;
use super::fields::Fields;
use super::gpt_neox::{GELU_NAMES, GELUS};
use super::llama::KEYS;
use super::{Defaults, HfConfig, Keys, Sizes, activation, only, spec};

/// Most token types: more than any model has.
const MAX_TOKEN_TYPES: u32 = 1 << 10;

const DEFAULTS: Defaults = Defaults {
    sizes: Sizes {
        vocabulary: 30_522,
        hidden: 768,
        intermediate: |_| 3072,
        layers: 12,
        heads: 12,
        context: 512,
    },
    kv_heads: None,
    head_dim: None,
    epsilon: 1e-12,
    tied_head: false,
    tokens: None,
};
const ROBERTA_DEFAULTS: Defaults =
    Defaults { sizes: Sizes { vocabulary: 50_265, ..DEFAULTS.sizes }, ..DEFAULTS };
const DISTILBERT_DEFAULTS: Defaults = Defaults { sizes: Sizes { layers: 6, ..DEFAULTS.sizes }, ..DEFAULTS };

pub(super) fn bert(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    bert_like(fields, &BERT, &DEFAULTS, 2)
}

pub(super) fn roberta(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    // Where positions begin follows from it.
    let padding = fields.whole("pad_token_id", u32::MAX)?.unwrap_or(1);
    if padding != 1 {
        return Err(fields.unsupported("pad_token_id", &padding.to_string(), "1"));
    }
    bert_like(fields, &ROBERTA, &ROBERTA_DEFAULTS, 2)
}

fn bert_like(
    fields: &Fields<'_>,
    names: &'static Names,
    defaults: &Defaults,
    token_types: u32,
) -> Result<HfConfig, CheckpointError> {
    only(fields, &[("is_decoder", false), ("add_cross_attention", false)])?;
    if let Some(kind) = fields.text("position_embedding_type")?.filter(|kind| *kind != "absolute") {
        return Err(fields.unsupported("position_embedding_type", kind, "absolute"));
    }
    let keys = Keys { kv_heads: None, head_dim: None, epsilon: "layer_norm_eps", ..KEYS };
    let mut config = encoder(fields, &keys, names, defaults, "hidden_act")?;
    config.token_types = fields.optional_size("type_vocab_size", MAX_TOKEN_TYPES)?.unwrap_or(token_types);
    Ok(config)
}

pub(super) fn distilbert(fields: &Fields<'_>) -> Result<HfConfig, CheckpointError> {
    let keys = Keys {
        hidden: "dim",
        intermediate: "hidden_dim",
        layers: "n_layers",
        heads: "n_heads",
        kv_heads: None,
        head_dim: None,
        context: "max_position_embeddings",
        // The class has no such field: it is 1e-12 always.
        epsilon: "layer_norm_eps",
    };
    if fields.get("layer_norm_eps").is_some() {
        return Err(fields.unsupported("layer_norm_eps", "given", "nothing, as the class has none"));
    }
    encoder(fields, &keys, &DISTILBERT, &DISTILBERT_DEFAULTS, "activation")
}

/// What the families here have in common. The vector of a text is the mean over its tokens, until the folder says otherwise.
fn encoder(
    fields: &Fields<'_>,
    keys: &Keys,
    names: &'static Names,
    defaults: &Defaults,
    activation_key: &str,
) -> Result<HfConfig, CheckpointError> {
    let mut spec = spec(fields, Architecture::Bert, keys, defaults)?;
    let position_rows = spec.context;
    let Some(context) = position_rows.checked_sub(names.unused_positions as u32).filter(|rows| *rows > 0)
    else {
        let expected = format!("more than the {} rows that no position has", names.unused_positions);
        return Err(fields.wrong(keys.context, expected, position_rows));
    };
    spec.context = context;
    let act = activation(fields, activation_key, &GELUS, GELU_NAMES)?;
    spec.variant.activation = act.unwrap_or(Activation::Gelu);
    spec.variant.rotary_dim = 0;
    // There is no next token: no head, and nothing that begins or ends a text but what its tokenizer puts around it.
    spec.tied_head = false;
    spec.begin_token = None;
    spec.end_tokens.clear();
    spec.output = Output::Vector(TextEmbedding { pooling: Pooling::Mean, normalized: false });
    let config = HfConfig::new(spec, Rope::plain(1e4), None, names);
    Ok(HfConfig { position_rows: Some(position_rows), ..config })
}
