//! What is accepted of a `config.json`, and what is refused by name.

use proptest::prelude::*;
use serde_json::json;

use super::super::rope::{Llama3Scaling, Scaling};
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

/// A config of another family, with the fields that all of them share.
fn of_family(model_type: &str, class: &str, fields: Value) -> Value {
    let mut config = config();
    config["model_type"] = json!(model_type);
    config["architectures"] = json!([class]);
    for (name, value) in fields.as_object().unwrap() {
        config[name.as_str()] = value.clone();
    }
    config
}

fn llama3() -> Value {
    json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    })
}

#[test]
fn absent_fields_get_the_defaults_of_transformers() {
    let HfConfig { spec, rope, .. } = parse(&with(json!({ "rms_norm_eps": null }))).unwrap();
    assert_eq!((spec.vocabulary, spec.hidden, spec.intermediate, spec.layers), (1000, 96, 256, 3));
    assert_eq!((spec.heads, spec.kv_heads, spec.head_dim, spec.context), (6, 6, 16, 2048));
    assert_eq!((spec.norm_epsilon, spec.tied_head), (1e-6, false));
    assert_eq!((spec.begin_token, spec.end_tokens.len()), (None, 0));
    assert_eq!(rope, Rope::plain(10_000.0));
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
    let plain = Rope::plain(5e5);
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
    let scaled = Rope::scaled(5e5, Scaling::Llama3(scaling));
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
    for name in ["dynamic", "proportional", "su"] {
        let settings = json!({ "rope_type": name, "factor": 2.0 });
        let parts = [".rope_type is ", name, "supported: default, linear, llama3, yarn, longrope"];
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
    let mut sections = llama3();
    sections["mrope_section"] = json!([1, 2]);
    assert_refused(json!({ "rope_scaling": sections }), &["rope_scaling.mrope_section is given"]);
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
        ("original_max_position_embeddings", json!(0)),
    ] {
        let mut settings = llama3();
        settings[name] = value;
        assert_refused(json!({ "rope_scaling": settings }), &[&format!("rope_scaling.{name}: expected ")]);
    }
}

#[test]
fn what_would_compute_something_else_is_refused_by_name() {
    assert_refused(json!({ "model_type": "bloom" }), &["model_type is bloom", "supported: llama, mistral"]);
    let other = json!({ "model_type": "mistral" });
    assert_refused(other, &["LlamaForCausalLM", "supported: MistralForCausalLM"]);
    let classifier = json!({ "architectures": ["LlamaForSequenceClassification"] });
    assert_refused(classifier, &["LlamaForSequenceClassification", "supported: LlamaForCausalLM"]);
    assert_refused(json!({ "architectures": "Llama" }), &["architectures: expected a list"]);
    assert_refused(json!({ "architectures": null, "model_type": null }), &["model_type", "found nothing"]);
    assert_refused(json!({ "architectures": [], "model_type": null }), &["model_type", "found nothing"]);
    assert!(parse(&with(json!({ "model_type": null }))).is_ok());
    assert!(parse(&with(json!({ "architectures": null }))).is_ok());
    assert_refused(json!({ "attention_bias": true }), &["attention_bias is true"]);
    assert_refused(json!({ "mlp_bias": true }), &["mlp_bias is true"]);
    assert_refused(json!({ "mlp_bias": 1 }), &["mlp_bias", "true or false", "found 1"]);
    assert_refused(json!({ "hidden_act": "gelu" }), &["hidden_act is gelu", "supported: silu"]);
    assert_refused(json!({ "is_causal": false }), &["is_causal is false"]);
    assert_refused(json!({ "use_bidirectional_attention": true }), &["use_bidirectional_attention is true"]);
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
        for value in [json!(0), json!(-1), json!(cap + 1), json!(1.5), json!("8"), json!(u64::MAX), json!([])]
        {
            assert_refused(json!({ name: value }), &[&expected]);
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
        let error = HfConfig::parse(Path::new("config.json"), text.as_bytes()).expect_err(text).to_string();
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
        if let Ok(HfConfig { spec, rope, .. }) = parse(&config) {
            prop_assert!(spec.heads % spec.kv_heads == 0 && spec.head_dim % 2 == 0 && spec.head_dim > 0);
            prop_assert!(spec.layers > 0 && spec.context > 0 && spec.norm_epsilon > 0.0);
            prop_assert!(spec.end_tokens.iter().chain(&spec.begin_token).all(|&token| token < spec.vocabulary));
            let turns = rope.turns_per_position(spec.head_dim);
            // No pair turns faster than a radian a position, and none faster than the one before.
            prop_assert!(turns[0] <= 2_935_890_503_282_001_792 && turns.is_sorted_by(|a, b| a >= b));
        }
    }
}

#[test]
fn linear_scaling_divides_all_frequencies() {
    let scaled = parse(&with(json!({ "rope_scaling": { "type": "linear", "factor": 4.0 } }))).unwrap().rope;
    assert_eq!(scaled, Rope::scaled(1e4, Scaling::Linear(4.0)));
    let (plain, scaled) = (Rope::plain(1e4).turns_per_position(16), scaled.turns_per_position(16));
    assert!(plain.iter().zip(&scaled).all(|(plain, scaled)| plain.abs_diff(4 * scaled) <= 4));
    let factor = json!({ "rope_scaling": { "type": "linear", "factor": 0.5 } });
    assert_refused(factor, &["rope_scaling.factor", "from 1 to 1e6", "0.5"]);
}

#[test]
fn windows_of_mistral_and_qwen() {
    let window = |config: &Value| {
        let spec = parse(config).unwrap().spec;
        (spec.variant.sliding_window, spec.variant.global_every)
    };
    let mistral = |fields| of_family("mistral", "MistralForCausalLM", fields);
    // Absent it is 4096, more than the context of 2048; null means none.
    assert_eq!(window(&mistral(json!({ "num_key_value_heads": 3 }))), (0, 0));
    let long = json!({ "num_key_value_heads": 3, "max_position_embeddings": 8192 });
    assert_eq!(window(&mistral(long.clone())), (4096, 0));
    let mut none = mistral(long);
    none["sliding_window"] = json!(null);
    assert_eq!(window(&none), (0, 0));

    let qwen = |fields| of_family("qwen2", "Qwen2ForCausalLM", fields);
    let fields = json!({ "num_key_value_heads": 3, "sliding_window": 100, "max_window_layers": 0 });
    assert_eq!(window(&qwen(fields.clone())), (0, 0));
    let mut used = qwen(fields);
    used["use_sliding_window"] = json!(true);
    assert_eq!(window(&used), (100, 0));
    used["max_window_layers"] = json!(3);
    assert_eq!(window(&used), (0, 0));
    used["max_window_layers"] = json!(1);
    let error = parse(&used).unwrap_err().to_string();
    assert!(error.contains("layer_types is no periodic order"), "{error}");
    used["layer_types"] = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    assert_eq!(window(&used), (100, 2));
    used["layer_types"] = json!(["sliding_attention", "chunked_attention", "sliding_attention"]);
    assert!(parse(&used).unwrap_err().to_string().contains("layer_types is \"chunked_attention\""));
    used["layer_types"] = json!(["sliding_attention"]);
    assert!(parse(&used).unwrap_err().to_string().contains("layer_types: expected a list of 3"));
}

#[test]
fn what_gemma_says_in_older_files() {
    let fields = json!({ "num_key_value_heads": 3, "head_dim": 16, "hidden_act": "gelu", "max_position_embeddings": 8192 });
    let gemma = parse(&of_family("gemma", "GemmaForCausalLM", fields.clone())).unwrap();
    assert_eq!(gemma.spec.architecture, Architecture::Llama);
    assert_eq!((gemma.spec.tied_head, gemma.spec.variant.activation), (true, Activation::GeluTanh));
    assert_eq!(gemma.spec.variant.embedding_scale, 96_f32.sqrt());

    let gemma2 = parse(&of_family("gemma2", "Gemma2ForCausalLM", fields.clone())).unwrap().spec.variant;
    assert_eq!((gemma2.score_cap, gemma2.logit_cap, gemma2.score_scale), (50.0, 30.0, 0.0625));
    assert_eq!((gemma2.sliding_window, gemma2.global_every), (4096, 2));

    let mut gemma3 = of_family("gemma3_text", "Gemma3ForCausalLM", fields);
    gemma3["sliding_window_pattern"] = json!(3);
    gemma3["sliding_window"] = json!(512);
    gemma3["rope_local_base_freq"] = json!(2e4);
    gemma3["rope_scaling"] = json!({ "rope_type": "linear", "factor": 8.0 });
    let config = parse(&gemma3).unwrap();
    assert_eq!((config.spec.variant.sliding_window, config.spec.variant.global_every), (512, 3));
    assert_eq!(config.rope, Rope::scaled(1e6, Scaling::Linear(8.0)));
    assert_eq!(config.local_rope, Some(Rope::plain(2e4)));
    gemma3["rope_theta"] = json!(5e5);
    assert_eq!(parse(&gemma3).unwrap().rope.theta, 5e5);
    // A window longer than the context bounds nothing, but its layers keep their frequencies.
    gemma3["sliding_window"] = json!(10_000);
    assert_eq!(parse(&gemma3).unwrap().spec.variant.sliding_window, 10_000);
    for (key, value) in [("use_bidirectional_attention", json!(true)), ("hidden_act", json!("silu"))] {
        let mut refused = gemma3.clone();
        refused[key] = value;
        assert!(parse(&refused).unwrap_err().to_string().contains(key));
    }
    gemma3["query_pre_attn_scalar"] = json!(0);
    assert!(
        parse(&gemma3).unwrap_err().to_string().contains("query_pre_attn_scalar: expected a number above 0")
    );
}

#[test]
fn what_older_gpts_say() {
    let pythia = json!({
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 300, "hidden_size": 64,
        "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
        "rotary_pct": 0.25, "rotary_emb_base": 10000, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "use_parallel_residual": true, "tie_word_embeddings": false,
    });
    let HfConfig { spec, rope, .. } = parse(&pythia).unwrap();
    assert_eq!((spec.head_dim, spec.variant.rotary_dim, spec.variant.parallel_residual), (16, 4, true));
    assert_eq!((spec.variant.activation, spec.tied_head, rope), (Activation::Gelu, false, Rope::plain(1e4)));
    let changed = |key: &str, value| {
        let mut config = pythia.clone();
        config[key] = value;
        parse(&config)
    };
    assert_eq!(changed("rotary_emb_base", json!(500)).unwrap().rope, Rope::plain(500.0));
    for (key, value, part) in [
        ("rotary_pct", json!(0.2), "rotary_pct: expected a share of head_dim = 16"),
        ("rotary_pct", json!(1.5), "rotary_pct"),
        ("rotary_pct", json!(0), "rotary_pct"),
        ("attention_bias", json!(false), "attention_bias is false"),
        ("hidden_act", json!("silu"), "hidden_act is silu"),
        ("layer_norm_eps", json!(2), "layer_norm_eps"),
    ] {
        let error = changed(key, value).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4,
        "n_positions": 128, "n_ctx": 128, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    });
    let spec = parse(&gpt2).unwrap().spec;
    assert_eq!((spec.intermediate, spec.context, spec.tied_head), (256, 128, true));
    assert_eq!((spec.variant.activation, spec.variant.rotary_dim), (Activation::GeluTanh, 0));
    let mut scaled = gpt2;
    scaled["scale_attn_by_inverse_layer_idx"] = json!(true);
    assert!(parse(&scaled).unwrap().folded.scores_by_layer);
    scaled["scale_attn_weights"] = json!(false);
    assert_eq!(parse(&scaled).unwrap().spec.variant.score_scale, 1.0);

    let mut opt = json!({
        "architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": 300, "hidden_size": 64, "ffn_dim": 100,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128, "word_embed_proj_dim": 64,
        "activation_function": "relu", "do_layer_norm_before": true,
    });
    assert_eq!(parse(&opt).unwrap().spec.variant.activation, Activation::Relu);
    opt["word_embed_proj_dim"] = json!(32);
    assert!(parse(&opt).unwrap_err().to_string().contains("word_embed_proj_dim"));
    opt["do_layer_norm_before"] = json!(false);
    assert!(parse(&opt).unwrap_err().to_string().contains("do_layer_norm_before is false"));
}

#[test]
fn what_encoders_say() {
    use rescomp_formats::spec::{Pooling, TextEmbedding};
    let fields = |more: Value| {
        let mut all =
            json!({ "layer_norm_eps": 1e-12, "hidden_act": "gelu", "bos_token_id": 0, "eos_token_id": 2 });
        for (name, value) in more.as_object().unwrap() {
            all[name.as_str()] = value.clone();
        }
        all
    };
    let bert = parse(&of_family("bert", "BertModel", fields(json!({})))).unwrap();
    let spec = &bert.spec;
    assert_eq!((spec.architecture, spec.context, spec.tied_head), (Architecture::Bert, 2048, false));
    assert_eq!((spec.begin_token, spec.end_tokens.len(), spec.norm_epsilon), (None, 0, 1e-12));
    assert_eq!((spec.variant.activation, spec.variant.rotary_dim), (Activation::Gelu, 0));
    assert_eq!(spec.embedding(), Some(TextEmbedding { pooling: Pooling::Mean, normalized: false }));
    assert_eq!((bert.position_rows, bert.token_types), (Some(2048), 2));
    spec.check().unwrap();
    let masked = of_family("bert", "BertForMaskedLM", fields(json!({ "type_vocab_size": 3 })));
    assert_eq!(parse(&masked).unwrap().token_types, 3);

    let roberta = of_family("roberta", "RobertaModel", fields(json!({ "pad_token_id": 1 })));
    let found = parse(&roberta).unwrap();
    assert_eq!((found.spec.context, found.position_rows), (2046, Some(2048)));
    let distil = json!({
        "model_type": "distilbert", "architectures": ["DistilBertModel"], "vocab_size": 1000, "dim": 96, "hidden_dim": 200,
        "n_layers": 2, "n_heads": 6, "max_position_embeddings": 64, "activation": "relu",
    });
    let spec = parse(&distil).unwrap().spec;
    assert_eq!((spec.intermediate, spec.norm_epsilon), (200, 1e-12));
    assert_eq!(spec.variant.activation, Activation::Relu);

    let refused = |family: (&str, &str), more: Value, parts: &[&str]| {
        let error = parse(&of_family(family.0, family.1, fields(more))).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let bert = ("bert", "BertModel");
    refused(bert, json!({ "is_decoder": true }), &["is_decoder is true"]);
    refused(bert, json!({ "add_cross_attention": true }), &["add_cross_attention is true"]);
    refused(bert, json!({ "position_embedding_type": "relative_key" }), &["relative_key", "absolute"]);
    refused(bert, json!({ "hidden_act": "silu" }), &["hidden_act is silu"]);
    refused(bert, json!({ "type_vocab_size": 0 }), &["type_vocab_size"]);
    refused(("bert", "BertForSequenceClassification"), json!({}), &["architectures is", "BertModel"]);
    let roberta = ("roberta", "RobertaModel");
    refused(roberta, json!({ "pad_token_id": 3 }), &["pad_token_id is 3"]);
    refused(
        roberta,
        json!({ "max_position_embeddings": 2 }),
        &["max_position_embeddings", "more than the 2 rows"],
    );
}
