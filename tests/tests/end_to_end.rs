//! From a checkpoint's folder to logits: every method and width packs, checks and measures sanely, the full-precision models have
//! their known perplexity, and the forward is an independent one's.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::host::{embedded_folder, embedded_model, pack_options};
use conformance::naive;
use conformance::tiny::{self, Random};
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::layouts::Layout;
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::dense::DenseLogits;
use rescomp_quantizer::evaluate::{Evaluation, Positions, Reference, Subject, evaluate};
use rescomp_quantizer::methods::Method;
use rescomp_quantizer::pack::{PackOptions, Packed, pack};
use rescomp_quantizer::texts;
use rescomp_runtime::Machine;
use rescomp_runtime::eval::measure;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::threads::ThreadPool;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

fn packed(checkpoint: &Checkpoint, method: &str, bits: u8, layout: Layout) -> Packed {
    let mut options = pack_options(checkpoint, method, bits);
    options.layout = layout;
    pack(conformance::serial_machine(), checkpoint, &options, &mut |_| ()).unwrap()
}

/// Windows of the held-out text.
fn held_out(checkpoint: &Checkpoint, positions: usize, count: usize) -> Vec<Vec<u32>> {
    let section = texts::tokenizer_section(checkpoint).unwrap();
    let tokenizer = texts::tokenizer(&section).unwrap();
    let joiner = texts::model_joiner(&checkpoint.spec);
    texts::windows(&tokenizer, &embedded_folder().join("held_out.txt"), joiner, positions, 0, count).unwrap()
}

/// What a device does: the container's own windows must give the recorded bits, with these kernels.
fn assert_check_passes(container: &CheckedContainer<'_>, machine: Machine<'_>, what: &str) {
    let windows = container.check_windows().unwrap();
    let positions = windows.sizes().positions;
    let mut memory = conformance::memory(container, positions, 1);
    let mut session =
        conformance::session(container, machine, positions, 1, ActivationFormat::Int8, &mut memory);
    let measured = measure(&mut session, &windows, |_| ()).unwrap();
    let record = conformance::record(container.manifest());
    let what = format!("{what}, kernels {}", machine.kernels.name);
    assert_eq!(measured.logits_sha256, record.logits_sha256, "{what}");
    assert_eq!((measured.nll, measured.mean_kl), (record.nll, record.mean_kl), "{what}");
    assert_eq!((measured.same_top1, measured.positions), (record.same_top1, record.positions), "{what}");
}

#[test]
fn every_method_and_width_packs_checks_and_measures_sanely() {
    let checkpoint = embedded_model();
    let windows = held_out(&checkpoint, 64, 4);
    let machine = conformance::serial_machine();
    let reference = Reference::new(machine, &checkpoint, &windows, 64, &|| ()).unwrap();
    let measured = |subject: Subject<'_>| {
        evaluate(machine, subject, Some(&reference), &windows, Positions::all(64), &|| ()).unwrap()
    };
    for (index, method) in Method::ALL.into_iter().enumerate() {
        let mut at_8_bits: Option<Evaluation> = None;
        for (bits, most_kl, least_same_top1) in [(8, 0.005, 0.93), (4, 0.25, 0.7)] {
            // Each layout with each width and with each method.
            let layout = Layout::ALL[(index + usize::from(bits == 4)) % 2];
            let what = format!("{} at {bits} bits, layout {}", method.name(), layout.name());
            let packed = packed(&checkpoint, method.name(), bits, layout);
            let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
            assert_check_passes(&container, machine, &what);
            let result = measured(Subject::Container(&container, ActivationFormat::Int8));
            let (kl, same) = (result.mean_kl.unwrap(), result.same_top1.unwrap());
            let (found, reference) = (result.perplexity, result.reference_perplexity.unwrap());
            println!(
                "{what}: perplexity {found:.4} (full precision {reference:.4}), KL {kl:.5}, same {same:.3}"
            );
            assert!(kl >= 0.0 && kl < most_kl, "{what}: KL {kl}");
            assert!(same >= least_same_top1, "{what}: same top token {same}");
            assert!((found / reference).ln().abs() <= kl.sqrt(), "{what}: perplexity {found}");
            assert_eq!(result.tokens, 4 * 64);
            if let Some(at_8_bits) = at_8_bits.replace(result) {
                assert!(kl > at_8_bits.mean_kl.unwrap(), "{what}: more bits must be better");
            }
        }
    }
}

#[test]
fn the_layout_changes_no_bit_of_the_logits() {
    let checkpoint = embedded_model();
    let digests: Vec<String> = Layout::ALL
        .into_iter()
        .map(|layout| packed(&checkpoint, "rtn", 4, layout).report.check.digest().to_owned())
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn containers_of_2_and_3_bits_run_with_every_kernel_table() {
    let checkpoint = embedded_model();
    for (bits, layout) in [(2, Layout::Rows), (3, Layout::Nr8k4)] {
        let packed = packed(&checkpoint, "rtn", bits, layout);
        let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
        for kernels in kernels::available() {
            let what = format!("{bits} bits, layout {}", layout.name());
            assert_check_passes(&container, Machine { kernels, executor: &Serial }, &what);
        }
    }
}

/// Weights and what they were calibrated on are the same: the difference is the cache's.
#[test]
fn a_cache_of_int8_costs_next_to_nothing_and_runs_with_every_kernel_table() {
    let checkpoint = embedded_model();
    let [binary16, int8] = [CacheFormat::Binary16, CacheFormat::Int8].map(|cache| {
        let options = PackOptions { cache, ..pack_options(&checkpoint, "rtn", 8) };
        pack(conformance::serial_machine(), &checkpoint, &options, &mut |_| ()).unwrap()
    });
    assert_eq!((binary16.report.kv_cache, int8.report.kv_cache), (Some("f16"), Some("int8")));
    assert_eq!(binary16.file.len(), int8.file.len());
    let container = Container::open(&int8.file).unwrap().check(Integrity::Digest).unwrap();
    for kernels in kernels::available() {
        assert_check_passes(&container, Machine { kernels, executor: &Serial }, "int8 cache");
    }
    let kl = |packed: &Packed| {
        let container = Container::open(&packed.file).unwrap();
        conformance::record(container.manifest()).mean_kl
    };
    // At 8 bits all else loses about 0.001.
    assert!((kl(&int8) - kl(&binary16)).abs() < 0.001, "{} for {}", kl(&int8), kl(&binary16));
}

/// Perplexities that `reference/model_ref.py`, another implementation, measured on the same 24 windows.
#[track_caller]
fn check_perplexity(folder: &Path, expected: f64) {
    if !folder.is_dir() {
        eprintln!("SKIPPED: there is no {}", folder.display());
        return;
    }
    let checkpoint = Checkpoint::open(folder).unwrap();
    let windows = held_out(&checkpoint, 512, 24);
    let pool = ThreadPool::new(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let machine = Machine { kernels: kernels::best(), executor: &pool };
    let found =
        evaluate(machine, Subject::Checkpoint(&checkpoint), None, &windows, Positions::all(512), &|| ())
            .unwrap();
    assert!((found.perplexity - expected).abs() <= 0.01, "expected {expected}, found {}", found.perplexity);
}

#[test]
fn perplexity_of_stories_1m_is_the_known_one() {
    check_perplexity(&embedded_folder(), 4.308);
}

#[test]
fn perplexity_of_stories_7m_is_the_known_one() {
    check_perplexity(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models/stories-7m"), 5.703);
}

/// Two layers, an untied head, two query heads a key head, and Llama 3's stretched positions: of the four pairs of a head, one
/// is left alone, two are interpolated and one is slowed.
fn random_checkpoint(folder: &Path) -> (Checkpoint, BTreeMap<String, Vec<Vec<f64>>>) {
    let (vocabulary, hidden, intermediate, queries, keys) = (29, 20, 28, 32, 16);
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": false,
    });
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vocabulary, hidden),
        ("lm_head.weight".to_owned(), vocabulary, hidden),
        ("model.norm.weight".to_owned(), 1, hidden),
    ];
    for layer in 0..2 {
        for (name, rows, cols) in [
            ("input_layernorm", 1, hidden),
            ("self_attn.q_proj", queries, hidden),
            ("self_attn.k_proj", keys, hidden),
            ("self_attn.v_proj", keys, hidden),
            ("self_attn.o_proj", hidden, queries),
            ("post_attention_layernorm", 1, hidden),
            ("mlp.gate_proj", intermediate, hidden),
            ("mlp.up_proj", intermediate, hidden),
            ("mlp.down_proj", hidden, intermediate),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), rows, cols));
        }
    }
    let mut random = Random::new(5);
    let mut tensors = BTreeMap::new();
    let mut bytes = Vec::new();
    for (name, rows, cols) in shapes {
        let size = 2.5 / (cols as f32).sqrt();
        let value = |random: &mut Random| match rows {
            1 => 1.0 + 0.5 * random.unit(),
            _ => size * random.unit(),
        };
        let values: Vec<f32> = (0..rows * cols).map(|_| value(&mut random)).collect();
        let wide = values.chunks(cols).map(|row| row.iter().copied().map(f64::from).collect()).collect();
        let shape = if rows == 1 { vec![cols] } else { vec![rows, cols] };
        bytes.push((name.clone(), shape, bytemuck::cast_slice::<f32, u8>(&values).to_vec()));
        tensors.insert(name, wide);
    }
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    (Checkpoint::open(folder).unwrap(), tensors)
}

fn tensor_name(name: SectionName) -> String {
    let part = match name.kind {
        SectionKind::Embedding => "embed_tokens",
        SectionKind::Head => return "lm_head.weight".to_owned(),
        SectionKind::FinalNorm => "norm",
        SectionKind::AttentionNorm => "input_layernorm",
        SectionKind::Query => "self_attn.q_proj",
        SectionKind::Key => "self_attn.k_proj",
        SectionKind::Value => "self_attn.v_proj",
        SectionKind::Output => "self_attn.o_proj",
        SectionKind::MlpNorm => "post_attention_layernorm",
        SectionKind::Gate => "mlp.gate_proj",
        SectionKind::Up => "mlp.up_proj",
        SectionKind::Down => "mlp.down_proj",
        other => panic!("{} is no tensor", other.name()),
    };
    match name.layer {
        Some(layer) => format!("model.layers.{layer}.{part}.weight"),
        None => format!("model.{part}.weight"),
    }
}

/// Llama 3's frequencies by the published cases over wavelengths.
fn llama3_frequencies() -> Vec<f64> {
    let (factor, low, high, original) = (8.0, 1.0, 4.0, 64.0);
    (0..4)
        .map(|pair| {
            let frequency = 100_f64.powf(-f64::from(pair) / 4.0);
            let wavelength = std::f64::consts::TAU / frequency;
            if wavelength < original / high {
                frequency
            } else if wavelength > original / low {
                frequency / factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        })
        .collect()
}

#[test]
fn the_full_precision_forward_is_the_naive_one() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, tensors) = random_checkpoint(folder.path());
    let spec = &checkpoint.spec;
    assert_eq!((spec.tied_head, spec.heads, spec.kv_heads), (false, 4, 2));
    let windows: Vec<Vec<u32>> = tiny::tokens(spec, 100).chunks(50).map(<[u32]>::to_vec).collect();
    let positions = 49;
    let dense =
        DenseLogits::new(conformance::serial_machine(), &checkpoint, &windows, positions, |_| ()).unwrap();
    let frequencies = llama3_frequencies();
    for (index, window) in windows.iter().enumerate() {
        let weights = |name| tensors[&tensor_name(name)].clone();
        let expected = naive::logits(spec, &frequencies, &weights, &window[..positions], naive::Cache::Exact);
        naive::assert_close(&dense.window(index), &expected, 1e-4);
    }
}
