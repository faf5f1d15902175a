//! Absent fields by family, and the fields of YaRN, LongRoPE, SmolLM3, Granite and models with images.

use serde_json::json;

use super::super::rope::{Scaling, YarnScaling};
use super::*;

fn parse(config: &Value) -> Result<HfConfig, CheckpointError> {
    HfConfig::parse(Path::new("config.json"), config.to_string().as_bytes())
}

fn refusal(config: &Value) -> String {
    parse(config).expect_err("accepted").to_string()
}

/// A config with these fields, and the model's others where they are absent.
fn with(model_type: &str, fields: Value) -> Value {
    let mut config = json!({ "model_type": model_type });
    for (name, value) in fields.as_object().unwrap() {
        config[name.as_str()] = value.clone();
    }
    config
}

/// The numbers are those of transformers' configuration classes.
#[test]
fn a_config_without_sizes_is_that_of_its_class() {
    for (model_type, sizes, others) in [
        ("llama", [32_000, 4096, 11_008, 32, 32, 32, 128], (2048, false, None)),
        ("mistral", [32_000, 4096, 14_336, 32, 32, 8, 128], (131_072, false, None)),
        ("qwen2", [151_936, 4096, 22_016, 32, 32, 32, 128], (32_768, false, None)),
        ("qwen3", [151_936, 4096, 22_016, 32, 32, 32, 128], (32_768, false, None)),
        ("phi3", [32_064, 3072, 8192, 32, 32, 32, 96], (4096, false, None)),
        ("smollm3", [128_256, 2048, 11_008, 36, 16, 4, 128], (32_768, true, None)),
        ("granite", [32_000, 4096, 11_008, 32, 32, 32, 128], (2048, false, None)),
        ("olmo", [50_304, 4096, 11_008, 32, 32, 32, 128], (2048, false, None)),
        ("olmo2", [50_304, 4096, 11_008, 32, 32, 32, 128], (2048, false, None)),
        ("stablelm", [50_304, 2560, 6912, 32, 32, 32, 80], (4096, false, None)),
        ("gemma", [256_000, 3072, 24_576, 28, 16, 16, 256], (8192, true, Some(2))),
        ("gemma2", [256_000, 2304, 9216, 26, 8, 4, 256], (8192, true, Some(2))),
        ("gemma3_text", [262_208, 2304, 9216, 26, 8, 4, 256], (131_072, true, Some(2))),
        ("gpt_neox", [50_432, 6144, 24_576, 44, 64, 64, 96], (2048, false, None)),
        ("gpt2", [50_257, 768, 3072, 12, 12, 12, 64], (1024, true, None)),
        ("gpt_neo", [50_257, 2048, 8192, 24, 16, 16, 128], (2048, true, None)),
        ("opt", [50_272, 768, 3072, 12, 12, 12, 64], (2048, true, None)),
    ] {
        let spec = parse(&json!({ "model_type": model_type })).unwrap().spec;
        let ModelSpec { vocabulary, hidden, intermediate, layers, heads, kv_heads, head_dim, .. } = spec;
        let found = [vocabulary, hidden, intermediate, layers, heads, kv_heads, head_dim];
        assert_eq!(found, sizes, "{model_type}");
        assert_eq!((spec.context, spec.tied_head, spec.begin_token), others, "{model_type}");
    }
    // Null means as many as heads, also where absent means a number.
    let heads = json!({ "num_attention_heads": 16, "num_key_value_heads": null });
    assert_eq!(parse(&with("qwen2", heads)).unwrap().spec.kv_heads, 16);
}

#[test]
fn yarn_is_that_of_transformers() {
    let settings = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768 });
    let config = parse(&with("qwen2", json!({ "rope_theta": 1e6, "rope_scaling": settings }))).unwrap();
    // Pairs of 128 elements that turn 32 times and once in 32,768 positions: 23.6 and 39.7, cut to whole ones.
    let scaling = YarnScaling { factor: 4.0, low: 23.0, high: 40.0 };
    assert_eq!(config.rope.scaling, Some(Scaling::Yarn(scaling)));
    assert!((config.rope.amplitude - 1.138_629_436_111_989).abs() < 1e-12);
    assert_eq!(config.folded.amplitude, config.rope.amplitude as f32);
    let of = |key: &str, value| {
        let mut settings = settings.clone();
        settings[key] = value;
        with("qwen2", json!({ "rope_theta": 1e6, "rope_scaling": settings }))
    };
    assert_eq!(parse(&of("attention_factor", json!(1.5))).unwrap().rope.amplitude, 1.5);
    // Without its factor: the quotient of both contexts.
    let mut unnamed = of("factor", json!(null));
    unnamed["max_position_embeddings"] = json!(131_072);
    assert_eq!(parse(&unnamed).unwrap().rope, config.rope);
    for (key, value) in [
        ("factor", json!(0.5)),
        ("beta_fast", json!(-1)),
        ("beta_fast", json!(0.5)),
        ("attention_factor", json!(0)),
        ("mscale", json!("1")),
        ("truncate", json!(1)),
        ("original_max_position_embeddings", json!(0)),
    ] {
        let error = refusal(&of(key, value));
        assert!(error.contains(&format!("rope_scaling.{key}: expected")), "{error}");
    }
    let mut twice = of("factor", json!(4.0));
    twice["original_max_position_embeddings"] = json!(4096);
    assert!(refusal(&twice).contains("original_max_position_embeddings: expected 32768"));
}

#[test]
fn longrope_is_read_within_the_context_that_was_trained() {
    let fields = json!({
        "hidden_size": 64, "num_attention_heads": 8, "max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4096,
        "rope_scaling": { "type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2, 3, 4, 5] },
    });
    let config = parse(&with("phi3", fields.clone())).unwrap();
    assert_eq!(config.spec.context, 4096);
    assert_eq!(config.rope.scaling, Some(Scaling::Pairs(vec![1.0, 1.5, 2.0, 3.0])));
    assert!((config.rope.amplitude - (17.0_f64 / 12.0).sqrt()).abs() < 1e-12);
    for name in ["su", "yarn"] {
        let mut older = with("phi3", fields.clone());
        older["rope_scaling"]["type"] = json!(name);
        assert_eq!(parse(&older).unwrap().rope, config.rope, "{name}");
    }
    let refused = |value: Value| {
        let mut other = with("phi3", fields.clone());
        other["rope_scaling"]["short_factor"] = value;
        refusal(&other)
    };
    for value in
        [json!(null), json!([1.0, 1.0]), json!([1.0, 1.0, 1.0, 0.5]), json!("1"), json!([1, 1, 1, "1"])]
    {
        let error = refused(value);
        assert!(error.contains("rope_scaling.short_factor: expected a list of 4 numbers from 1"), "{error}");
    }
}

#[test]
fn layers_that_rotate_nothing_are_periodic() {
    let every = |fields: Value| parse(&with("smollm3", fields)).unwrap().spec.variant.unrotated_every;
    assert_eq!(every(json!({})), 4);
    assert_eq!(every(json!({ "no_rope_layer_interval": 2 })), 2);
    assert_eq!(every(json!({ "num_hidden_layers": 5, "no_rope_layers": [1, 1, 0, 1, 1, 1] })), 3);
    assert_eq!(every(json!({ "num_hidden_layers": 2, "no_rope_layers": [1, 1] })), 0);
    let refused = |layers: Value| {
        refusal(&with("smollm3", json!({ "num_hidden_layers": 4, "no_rope_layers": layers })))
    };
    assert!(refused(json!([1, 0, 0, 1])).contains("no_rope_layers is no periodic order"));
    assert!(refused(json!([1, 0])).contains("no_rope_layers: expected a list of 4"));
    assert!(refused(json!([1, 2, 1, 1])).contains("no_rope_layers: expected 0 or 1"));
    assert!(
        refusal(&with("smollm3", json!({ "use_sliding_window": true })))
            .contains("use_sliding_window is true")
    );
}

#[test]
fn the_constants_of_granite() {
    let fields = json!({
        "embedding_multiplier": 12.0, "attention_multiplier": 0.0078125, "residual_multiplier": 0.22, "logits_scaling": 8.0,
    });
    let HfConfig { spec, folded, .. } = parse(&with("granite", fields)).unwrap();
    assert_eq!((spec.variant.embedding_scale, spec.variant.score_scale), (12.0, 0.0078125));
    assert_eq!((folded.residual, folded.logits), (0.22, 0.125));
    for key in ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"] {
        let error = refusal(&with("granite", json!({ key: 0 })));
        assert!(error.contains(&format!("{key}: expected a number from 1e-6")), "{error}");
    }
}

#[test]
fn of_a_model_with_images_the_text_is_read() {
    let text = json!({ "model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34,
        "rope_scaling": { "factor": 8.0, "rope_type": "linear" }, "sliding_window": 1024 });
    let config = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106],
        "text_config": text, "vision_config": { "hidden_size": 1152 },
    });
    let found = parse(&config).unwrap();
    assert_eq!((found.spec.hidden, found.spec.layers, found.spec.vocabulary), (2560, 34, 262_208));
    assert_eq!((found.spec.begin_token, found.spec.end_tokens.as_slice()), (Some(2), &[1, 106][..]));
    assert_eq!(found.rope.scaling, Some(Scaling::Linear(8.0)));
    assert!(refusal(&with("gemma3", json!({}))).contains("text_config: expected an object, found nothing"));
    let mut wrong = config;
    wrong["text_config"]["hidden_size"] = json!(0);
    assert!(refusal(&wrong).contains("text_config.hidden_size: expected a whole number"));
    wrong["text_config"]["hidden_size"] = json!(2560);
    wrong["text_config"]["attn_logit_softcapping"] = json!(50.0);
    assert!(refusal(&wrong).contains("text_config.attn_logit_softcapping is given"));
}

#[test]
fn classifiers_are_read_with_their_heads_and_names() {
    let classes = ["DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"];
    let of = |class: &str, fields: Value| {
        let mut config = with(if class.starts_with("ViT") { "vit" } else { "deit" }, fields);
        config["architectures"] = json!([class]);
        config
    };
    let vit = parse(&of("ViTForImageClassification", json!({}))).unwrap();
    let image = vit.spec.image().unwrap();
    assert_eq!((image.height, image.width, image.patch, vit.spec.context), (224, 224, 16, 197));
    assert_eq!(
        (vit.spec.vocabulary, vit.labels.as_slice()),
        (2, &["LABEL_0".to_owned(), "LABEL_1".to_owned()][..])
    );
    assert_eq!((vit.spec.hidden, vit.spec.layers, vit.spec.norm_epsilon), (768, 12, 1e-12));
    vit.spec.check().unwrap();
    for (class, head_tokens) in classes.into_iter().zip(1..) {
        let deit = parse(&of(class, json!({ "id2label": { "0": "a", "1": "b", "2": "c" } }))).unwrap();
        let image = deit.spec.image().unwrap();
        assert_eq!((image.tokens_before, image.head_tokens, deit.spec.context), (2, head_tokens, 198));
        assert_eq!((deit.spec.vocabulary, deit.labels[2].as_str()), (3, "c"));
    }
    let refused = |fields: Value, parts: &[&str]| {
        let error = refusal(&of("ViTForImageClassification", fields));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(json!({ "num_channels": 1 }), &["num_channels is 1", "3"]);
    refused(json!({ "qkv_bias": false }), &["qkv_bias is false"]);
    refused(json!({ "hidden_act": "silu" }), &["hidden_act is silu"]);
    refused(json!({ "problem_type": "regression" }), &["problem_type is regression"]);
    refused(json!({ "patch_size": [16, 8] }), &["patch_size is 16 x 8", "square"]);
    refused(json!({ "image_size": 225 }), &["image_size: expected multiples of patch_size = 16"]);
    refused(json!({ "image_size": 4096, "patch_size": 2 }), &["image_size: expected at most 1048576 tokens"]);
    refused(json!({ "image_size": [224] }), &["image_size: expected one or two whole numbers"]);
    refused(
        json!({ "id2label": { "0": "a", "2": "b" } }),
        &["id2label.1: expected a name for each number below 2"],
    );
    refused(
        json!({ "id2label": { "0": "a" }, "num_labels": 2 }),
        &["num_labels: expected as many as id2label has, 1"],
    );
    let error = refusal(&of("ViTModel", json!({})));
    assert!(error.contains("architectures is") && error.contains("ViTForImageClassification"), "{error}");
    let error = refusal(&with("deit", json!({})));
    assert!(error.contains("architectures: expected DeiTForImageClassification or"), "{error}");
}

#[test]
fn gpt_neos_layers_are_global_and_local_in_turn() {
    let of = |fields: Value| parse(&with("gpt_neo", fields));
    let windows = |fields: Value| {
        let variant = of(fields).unwrap().spec.variant;
        (variant.sliding_window, variant.global_every)
    };
    assert_eq!(windows(json!({})), (256, 2));
    let one_of = |types: Value| json!({ "num_layers": 4, "attention_types": types });
    assert_eq!(windows(one_of(json!([[["global", "local"], 2]]))), (256, 2));
    assert_eq!(windows(one_of(json!([[["global"], 4]]))), (0, 0));
    assert_eq!(windows(one_of(json!([[["local"], 4]]))), (256, 0));
    assert_eq!(windows(one_of(json!([[["global"], 1], [["local"], 3]]))), (256, 4));
    assert_eq!(windows(json!({ "window_size": 2048 })), (0, 0));
    let listed = json!(["global", "local", "local", "global"]);
    assert_eq!(windows(json!({ "num_layers": 4, "attention_layers": listed, "window_size": 3 })), (3, 3));

    let refused = |fields: Value| of(fields).unwrap_err().to_string();
    let error = refused(one_of(json!([[["local", "global"], 2]])));
    assert!(error.contains("attention_types is no periodic order"), "{error}");
    let error = refused(one_of(json!([[["global", "local"], 3]])));
    assert!(error.contains("attention_types: expected as many layers as num_layers = 4, found 6"), "{error}");
    let error = refused(json!({ "num_layers": 4 }));
    assert!(error.contains("found nothing, which means 24"), "{error}");
    let error = refused(one_of(json!([[["global", "chunked"], 2]])));
    assert!(error.contains("attention_types is \"chunked\""), "{error}");
    let mut both = one_of(json!([[["global", "local"], 2]]));
    both["attention_layers"] = listed;
    assert!(refused(both).contains("attention_layers: expected the layers of attention_types"));
    for types in
        [json!(7), json!([7]), json!([["global", 2]]), json!([[["global"], -1]]), json!([[["global"], 1e9]])]
    {
        let error = refused(one_of(types));
        assert!(error.contains("attention_types: expected a list of [[kinds], times]"), "{error}");
    }
    let many = json!([[["global", "local"], 512]]);
    assert!(refused(one_of(many)).contains("of at most 512 layers"));
    assert!(
        refused(json!({ "attention_layers": ["global"] }))
            .contains("attention_layers: expected a list of 24")
    );
    let error = refused(json!({ "num_attention_heads": 8 }));
    assert!(
        error.contains("num_attention_heads: expected 16, as num_heads says, or its default, found 8"),
        "{error}"
    );
    assert!(refused(json!({ "activation_function": "silu" })).contains("activation_function is silu"));
}

#[test]
fn what_olmo_and_stablelm_ask_for_beyond_the_forward_is_refused() {
    let olmo = parse(&json!({ "model_type": "olmo", "rms_norm_eps": 0.5, "clip_qkv": null })).unwrap();
    assert_eq!((olmo.spec.architecture, olmo.spec.norm_epsilon), (Architecture::Llama, 1e-5));
    let error = refusal(&with("olmo", json!({ "clip_qkv": 8.0 })));
    assert!(error.contains("clip_qkv is 8.0, which is not supported (supported: null"), "{error}");
    for model_type in ["olmo", "olmo2"] {
        let error = refusal(&with(model_type, json!({ "attention_bias": true })));
        assert!(error.contains("attention_bias is true"), "{error}");
    }
    let stablelm = parse(&with("stablelm", json!({ "use_parallel_residual": true }))).unwrap().spec.variant;
    assert_eq!((stablelm.rotary_dim, stablelm.parallel_residual), (20, true));
    let error = refusal(&with("stablelm", json!({ "qk_layernorm": true })));
    assert!(error.contains("qk_layernorm is true"), "{error}");
    let error = refusal(&with("stablelm", json!({ "head_dim": 64 })));
    assert!(error.contains("head_dim: expected 80, the width of a head, found 64"), "{error}");
}
