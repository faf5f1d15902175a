//! Hostile `config.json`.

use super::{HostileFile, replaced};

/// The config of the small model.
pub(super) fn sound_config() -> Vec<u8> {
    br#"{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "vocab_size": 258,
  "hidden_size": 8,
  "intermediate_size": 12,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "head_dim": 4,
  "max_position_embeddings": 8,
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "bos_token_id": 0,
  "eos_token_id": [0, 1],
  "tie_word_embeddings": true
}
"#
    .to_vec()
}

/// Windows, bounds, and frequencies by kind of layer.
const GEMMA3: &str = r#"{"model_type": "gemma3_text", "vocab_size": 258, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 8, "sliding_window": 4,
  "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "query_pre_attn_scalar": 4, "final_logit_softcapping": 30.0,
  "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}
"#;
const GPT_NEOX: &str = r#"{"model_type": "gpt_neox", "vocab_size": 258, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 1,
  "num_attention_heads": 2, "max_position_embeddings": 8, "rotary_pct": 0.25, "rotary_emb_base": 10000, "hidden_act": "gelu",
  "use_parallel_residual": true}
"#;
const GPT2: &str = r#"{"model_type": "gpt2", "vocab_size": 258, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8, "n_inner": null,
  "activation_function": "gelu_new"}
"#;
const GPT_NEO: &str = r#"{"model_type": "gpt_neo", "vocab_size": 258, "hidden_size": 8, "num_layers": 2, "num_heads": 2,
  "max_position_embeddings": 8, "intermediate_size": null, "attention_types": [[["global", "local"], 1]], "window_size": 4,
  "activation_function": "gelu_new"}
"#;
const OLMO: &str = r#"{"model_type": "olmo", "vocab_size": 258, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
  "num_attention_heads": 2, "max_position_embeddings": 8, "clip_qkv": null}
"#;
const STABLE_LM: &str = r#"{"model_type": "stablelm", "vocab_size": 258, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 1,
  "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8, "partial_rotary_factor": 0.25, "use_qkv_bias": true,
  "use_parallel_residual": false, "qk_layernorm": false, "layer_norm_eps": 1e-5}
"#;

const BERT: &str = r#"{"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 258, "hidden_size": 8, "intermediate_size": 12,
  "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_act": "gelu",
  "layer_norm_eps": 1e-12, "pad_token_id": 0, "position_embedding_type": "absolute"}
"#;
const ROBERTA: &str = r#"{"model_type": "roberta", "vocab_size": 258, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
  "num_attention_heads": 2, "max_position_embeddings": 10, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
"#;
const DISTILBERT: &str = r#"{"model_type": "distilbert", "vocab_size": 258, "dim": 8, "hidden_dim": 12, "n_layers": 1, "n_heads": 2,
  "max_position_embeddings": 8, "activation": "gelu"}
"#;

const VIT: &str = r#"{"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 8, "intermediate_size": 12,
  "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": [8, 12], "patch_size": 4, "num_channels": 3, "qkv_bias": true,
  "hidden_act": "gelu", "layer_norm_eps": 1e-12, "id2label": {"0": "cat", "1": "dog, hound", "2": ""}}
"#;
const DEIT: &str = r#"{"model_type": "deit", "architectures": ["DeiTForImageClassificationWithTeacher"], "hidden_size": 8,
  "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
"#;

pub(super) fn sound() -> Vec<(&'static str, Vec<u8>)> {
    let llama3 = "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, \
                  \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8}, \"rope_theta\"";
    vec![
        ("config/sound.json", sound_config()),
        ("config/sound-llama3.json", replaced(&sound_config(), "\"rope_theta\"", llama3)),
        ("config/sound-gemma3.json", GEMMA3.into()),
        ("config/sound-gpt-neox.json", GPT_NEOX.into()),
        ("config/sound-gpt2.json", GPT2.into()),
        ("config/sound-gpt-neo.json", GPT_NEO.into()),
        ("config/sound-olmo.json", OLMO.into()),
        ("config/sound-stablelm.json", STABLE_LM.into()),
        ("config/sound-bert.json", BERT.into()),
        ("config/sound-roberta.json", ROBERTA.into()),
        ("config/sound-distilbert.json", DISTILBERT.into()),
        ("config/sound-vit.json", VIT.into()),
        ("config/sound-deit.json", DEIT.into()),
    ]
}

pub(super) fn files() -> Vec<HostileFile> {
    let sound = sound_config();
    let file = |name, attack, from: &str, to: &str| HostileFile {
        name,
        attack,
        offset: None,
        bytes: replaced(&sound, from, to),
    };
    let longrope = "\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1.0], \"factor\": 2.0}, \"rope_theta\"";
    let of_vit = |name, attack, from: &str, to: &str| HostileFile {
        name,
        attack,
        offset: None,
        bytes: replaced(VIT.as_bytes(), from, to),
    };
    let nested = format!("\"x\": {}{}, \"model_type\"", "[".repeat(20_000), "]".repeat(20_000));
    vec![
        file("config/vocabulary-beyond-its-cap.json", "a size above its cap", ": 258", ": 1048577"),
        file("config/vocabulary-beyond-32-bits.json", "a size that would wrap", ": 258", ": 4294967554"),
        file("config/hidden-negative.json", "a negative size", "\"hidden_size\": 8", "\"hidden_size\": -8"),
        file(
            "config/hidden-fraction.json",
            "a size that is no whole number",
            "\"hidden_size\": 8",
            "\"hidden_size\": 8.5",
        ),
        file(
            "config/pairs-without-factors.json",
            "fewer factors than rotary pairs",
            "\"rope_theta\"",
            longrope,
        ),
        file("config/layers-zero.json", "no layers", "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0"),
        file(
            "config/key-heads-no-divisor.json",
            "key heads that do not divide the heads",
            "\"num_key_value_heads\": 1",
            "\"num_key_value_heads\": 3",
        ),
        file("config/head-odd.json", "a head that has no pairs", "\"head_dim\": 4", "\"head_dim\": 5"),
        file("config/end-token-beyond.json", "a token outside the vocabulary", "[0, 1]", "[0, 258]"),
        file(
            "config/end-tokens-too-many.json",
            "more end tokens than a container holds",
            "[0, 1]",
            "[0, 1, 2, 3, 4, 5, 6, 7, 8]",
        ),
        file(
            "config/epsilon-underflows.json",
            "an epsilon that is zero in single precision",
            "1e-05",
            "1e-60",
        ),
        file("config/theta-overflows.json", "a number that no float holds", "10000.0", "1e999"),
        file("config/theta-zero.json", "frequencies beyond one turn", "10000.0", "0.0"),
        file(
            "config/another-architecture.json",
            "tensors of Llama, arithmetic of another",
            "\"llama\"",
            "\"mamba\"",
        ),
        file(
            "config/quantized-already.json",
            "weights that are codes",
            "\"model_type\"",
            "\"quantization_config\": {\"bits\": 4}, \"model_type\"",
        ),
        file("config/nested-deeply.json", "nesting that would exhaust the stack", "\"model_type\"", &nested),
        HostileFile {
            name: "config/encoder-decodes.json",
            attack: "an encoder whose tokens see the earlier ones alone",
            offset: None,
            bytes: replaced(BERT.as_bytes(), "\"pad_token_id\": 0", "\"is_decoder\": true"),
        },
        HostileFile {
            name: "config/positions-without-any.json",
            attack: "as many positions as there are rows that none has",
            offset: None,
            bytes: replaced(
                ROBERTA.as_bytes(),
                "\"max_position_embeddings\": 10",
                "\"max_position_embeddings\": 2",
            ),
        },
        of_vit("config/image-huge.json", "an image that no memory holds", "[8, 12]", "[4096, 4294967300]"),
        of_vit(
            "config/image-of-many-tokens.json",
            "more tokens than a container holds",
            "[8, 12], \"patch_size\": 4",
            "4096, \"patch_size\": 1",
        ),
        of_vit(
            "config/patch-does-not-tile.json",
            "patches that do not tile the image",
            "\"patch_size\": 4",
            "\"patch_size\": 5",
        ),
        of_vit(
            "config/image-gray.json",
            "an image of one channel",
            "\"num_channels\": 3",
            "\"num_channels\": 1",
        ),
        of_vit("config/label-missing.json", "classes of which one has no name", "\"1\":", "\"7\":"),
        of_vit("config/label-steers.json", "a name that clears the terminal", "\"cat\"", "\"\\u001b[2J\""),
        HostileFile {
            name: "config/heads-unknown.json",
            attack: "a model that does not say how many heads it has",
            offset: None,
            bytes: replaced(
                DEIT.as_bytes(),
                "\"architectures\": [\"DeiTForImageClassificationWithTeacher\"], ",
                "",
            ),
        },
        HostileFile {
            name: "config/cut.json",
            attack: "the file ends early",
            offset: None,
            bytes: sound[..sound.len() / 2].to_vec(),
        },
        HostileFile {
            name: "config/not-utf8.json",
            attack: "bytes that are no text",
            offset: None,
            bytes: [b"{\"model_type\": \"".as_slice(), &[0xff, 0xfe], b"\"}"].concat(),
        },
    ]
}
