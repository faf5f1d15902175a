//! Text files: `config.json`, `tokenizer.json`, recipes.

use super::Outcome;
use rescomp_formats::spec::ModelSpec;
use rescomp_formats::tokenizer::TokenizerView;
use rescomp_quantizer::checkpoint::HfConfig;
use rescomp_quantizer::recipe::Recipe;
use rescomp_quantizer::tokenizer_json::tokenizer_section;
use rescomp_runtime::tokenizer::Tokenizer;
use std::path::Path;

/// A `config.json`.
///
/// # Panics
/// Where what is accepted breaks a promise.
pub fn config(bytes: &[u8]) -> Outcome {
    let Ok(HfConfig { spec, rope, local_rope, .. }) = HfConfig::parse(Path::new("config.json"), bytes) else {
        return Outcome::Refused;
    };
    assert!(spec.heads.is_multiple_of(spec.kv_heads) && spec.head_dim.is_multiple_of(2) && spec.layers > 0);
    let rotary_dim = spec.variant.rotary_dim;
    for rope in local_rope.iter().chain([&rope]) {
        assert_eq!(rope.turns_per_position(rotary_dim).len(), rotary_dim as usize / 2);
    }
    // Contexts are read that no container has room for.
    assert_eq!(ModelSpec { context: spec.context.min(1 << 20), ..spec }.check(), Ok(()));
    Outcome::Accepted
}

/// A `tokenizer.json`: what is accepted makes a section that reads, and encodes.
///
/// # Panics
/// Where it does not.
pub fn tokenizer_json(bytes: &[u8]) -> Outcome {
    let Ok(section) = tokenizer_section(bytes, Path::new("tokenizer.json"), Some(512)) else {
        return Outcome::Refused;
    };
    let view = TokenizerView::parse(&section).expect("a section that was written is read");
    assert!(view.vocabulary() <= 512);
    let tokenizer = Tokenizer::new(view);
    let text = "the end, he'll say: \u{e4}\u{1f600} 12";
    let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
    tokenizer.encode(text, true, &mut tokens).expect("room for every text");
    Outcome::Accepted
}

/// A recipe: what is accepted is the same when it is written and read again.
///
/// # Panics
/// Where it is another.
pub fn recipe(bytes: &[u8]) -> Outcome {
    let spec = crate::hostile::small_model();
    let Ok(recipe) = std::str::from_utf8(bytes)
        .map_err(|_| ())
        .and_then(|text| Recipe::parse(text, &spec).map_err(|_| ()))
    else {
        return Outcome::Refused;
    };
    let written = recipe.to_toml().expect("what was read can be written");
    assert_eq!(Recipe::parse(&written, &spec).expect("what was written is read"), recipe);
    Outcome::Accepted
}
