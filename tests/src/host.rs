//! The embedded model, and containers made of it.

use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::layouts::Layout;
use rescomp_quantizer::chat_template;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::methods::{GroupSize, Method, SolverOptions};
use rescomp_quantizer::pack::{PackOptions, Packed, pack};
use rescomp_quantizer::plan::BlockPlan;
use rescomp_quantizer::texts;
use std::path::PathBuf;

/// The folder of the embedded model.
pub fn embedded_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")
}

/// The embedded model.
///
/// # Panics
/// Where it does not open.
pub fn embedded_model() -> Checkpoint {
    Checkpoint::open(&embedded_folder()).expect("the embedded model")
}

/// Options that pack a checkpoint with few calibration windows: quick, and good enough to test with.
///
/// # Panics
/// Where the method has no such name, or the texts can't be read.
pub fn pack_options(checkpoint: &Checkpoint, method: &str, bits: u8) -> PackOptions {
    let tokenizer = texts::tokenizer_section(checkpoint).expect("a tokenizer");
    let context = 128.min(checkpoint.spec.context as usize);
    let windows = |skip, count| {
        let tokenizer = texts::tokenizer(&tokenizer).expect("a section");
        let text = embedded_folder().join("calibration.txt");
        let joiner = texts::model_joiner(&checkpoint.spec);
        texts::windows(&tokenizer, &text, joiner, context, skip, count).expect("a long text")
    };
    let method: Method = method.parse().expect("a method");
    let options = SolverOptions::for_container(bits, GroupSize::elements(64).expect("not 0"));
    PackOptions {
        plan: BlockPlan::new(method, options).with_head_bits(8),
        layout: Layout::Nr8k4,
        calibration: windows(0, 8),
        calibration_positions: context,
        check_tokens: windows(8, 4).concat(),
        check_texts: Vec::new(),
        images: None,
        tokenizer,
        chat_template: chat_template::import(checkpoint),
        cache: CacheFormat::default(),
        target: "test".to_owned(),
    }
}

/// A container of a checkpoint.
///
/// # Panics
/// Where it can't be packed.
pub fn packed(checkpoint: &Checkpoint, method: &str, bits: u8) -> Packed {
    let options = pack_options(checkpoint, method, bits);
    pack(crate::serial_machine(), checkpoint, &options, &mut |_| ()).expect("packs")
}
