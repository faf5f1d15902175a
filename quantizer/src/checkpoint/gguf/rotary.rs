//! Rotary positions of a file: a base, a scaling by name, and tensors of divisors that a converter worked out.

use rescomp_formats::spec::ModelSpec;

use super::super::hf_config::MAX_CONTEXT;
use super::super::rope::{Rope, Scaling, YarnScaling};
use super::super::{CheckpointError, TensorStore};
use super::sizes::Keys;

/// What the frequencies of the rotary pairs are divided by, one number a pair: Llama 3.1's scaling, worked out.
pub(in super::super) const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// LongRoPE's divisors for texts within the context that was trained, and for longer ones.
pub(in super::super) const SHORT_DIVISORS: &str = "rope_factors_short.weight";
pub(in super::super) const LONG_DIVISORS: &str = "rope_factors_long.weight";

const LEAST_DIVISOR: f32 = 1.0;
const MOST_DIVISOR: f32 = 1e6;
/// The frequencies' base of Gemma 3's layers with a window, where the file doesn't say it.
const LOCAL_BASE: f64 = 1e4;
const TYPE: &str = "rope.scaling.type";
const FACTOR: &str = "rope.scaling.factor";
const ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";
/// The turns of the pairs between which YaRN interpolates: the published ones, which no key says.
const YARN_TURNS: [f64; 2] = [32.0, 1.0];

/// Turns a position of each rotary pair, and what rotated elements are multiplied with. Where frequencies depend on a text's length, the
/// context becomes the one that was trained.
pub(super) fn turns(
    keys: &Keys<'_, '_>,
    store: &TensorStore,
    spec: &mut ModelSpec,
) -> Result<(Vec<u64>, f64), CheckpointError> {
    let rotary_dim = spec.variant.rotary_dim;
    let theta = base(keys, "rope.freq_base", 10_000.0)?;
    let rope = match keys.fields.text(&keys.of(TYPE))? {
        Some("yarn") => yarn(keys, spec, theta)?,
        // Where there is a factor without a type, it is this one.
        Some("linear") | None => Rope::scaled(theta, Scaling::Linear(linear_divisor(keys)?)),
        Some("none") => Rope::plain(theta),
        // With a type of its own or without: the divisors say it.
        Some("longrope") if store.shape(SHORT_DIVISORS).is_some() => Rope::plain(theta),
        Some(_) => {
            return Err(
                keys.unsupported(TYPE, "\"none\", \"linear\", \"yarn\", \"longrope\" with its divisors")
            );
        }
    };
    let tensor = match store.shape(SHORT_DIVISORS) {
        Some(_) => SHORT_DIVISORS,
        None => ROPE_DIVISORS,
    };
    let factor = "rope.scaling.attn_factor";
    let given = match keys.number(factor)? {
        None => 1.0,
        Some(given) if given > 0.0 && given <= 1e3 => given,
        Some(_) => return Err(keys.wrong(factor, "a number above 0, at most 1000")),
    };
    let amplitude = rope.amplitude * given;
    if store.shape(tensor).is_none() {
        return Ok((rope.turns_per_position(rotary_dim), amplitude));
    }
    let evenly = match &rope.scaling {
        None => 1.0,
        Some(Scaling::Linear(factor)) => *factor,
        Some(_) => return Err(keys.unsupported(TYPE, "no divisors in a tensor beside those of \"yarn\"")),
    };
    let stored = store.tensor_f32(tensor, &[rotary_dim as usize / 2])?;
    if let Some(pair) = stored.iter().position(|of| !(LEAST_DIVISOR..=MOST_DIVISOR).contains(of)) {
        return Err(CheckpointError::RopeDivisor {
            path: keys.fields.path.to_owned(),
            tensor,
            pair,
            least: LEAST_DIVISOR,
            most: MOST_DIVISOR,
            found: stored[pair],
        });
    }
    if tensor == SHORT_DIVISORS
        && let Some(original) = keys.whole(ORIGINAL_CONTEXT, 1, MAX_CONTEXT)?
    {
        spec.context = spec.context.min(original);
    }
    let divisors: Vec<f64> = stored.into_iter().map(|divisor| evenly * f64::from(divisor)).collect();
    Ok((Rope::scaled(theta, Scaling::Pairs(divisors)).turns_per_position(rotary_dim), amplitude))
}

/// Those of layers with a window, where they have their own; else none.
pub(super) fn local_turns(keys: &Keys<'_, '_>, spec: &ModelSpec) -> Result<Vec<u64>, CheckpointError> {
    if !spec.architecture.has_local_frequencies() {
        return Ok(Vec::new());
    }
    let rope = Rope::plain(base(keys, "rope.freq_base_swa", LOCAL_BASE)?);
    Ok(rope.turns_per_position(spec.variant.rotary_dim))
}

fn yarn(keys: &Keys<'_, '_>, spec: &ModelSpec, theta: f64) -> Result<Rope, CheckpointError> {
    let factor = keys.number(FACTOR)?.filter(|factor| (1.0..=1e6).contains(factor));
    let factor =
        factor.ok_or_else(|| keys.wrong(FACTOR, "a number from 1 to 1e6, as the type is \"yarn\""))?;
    let original = keys.whole(ORIGINAL_CONTEXT, 1, MAX_CONTEXT)?.unwrap_or(spec.context);
    let rotary_dim = spec.variant.rotary_dim;
    let scaling = YarnScaling::between(theta, rotary_dim, factor, original, YARN_TURNS, true);
    let expected = "a context within which some pair turns less than once";
    let scaling = scaling.ok_or_else(|| keys.wrong(ORIGINAL_CONTEXT, expected))?;
    Ok(Rope { theta, scaling: Some(Scaling::Yarn(scaling)), amplitude: YarnScaling::amplitude(factor) })
}

/// A base of rotary frequencies.
fn base(keys: &Keys<'_, '_>, key: &str, default: f64) -> Result<f64, CheckpointError> {
    let theta = keys.number(key)?.unwrap_or(default);
    // As in `config.json`: below 1 the frequencies would grow from pair to pair, beyond one turn a position.
    match (1.0..=1e12).contains(&theta) {
        true => Ok(theta),
        false => Err(keys.wrong(key, "a number from 1 to 1e12")),
    }
}

/// What all frequencies are divided by: positions of a context that was stretched evenly.
fn linear_divisor(keys: &Keys<'_, '_>) -> Result<f64, CheckpointError> {
    for key in [FACTOR, "rope.scale_linear"] {
        match keys.number(key)? {
            // Not scaled: how some writers spell it.
            Some(0.0) => return Ok(1.0),
            Some(factor) if (1.0..=1e6).contains(&factor) => return Ok(factor),
            Some(_) => return Err(keys.wrong(key, "0, or a number from 1 to 1e6")),
            None => {}
        }
    }
    Ok(1.0)
}
