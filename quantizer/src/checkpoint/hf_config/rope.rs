//! Rotary settings, in both of their spellings.

use rescomp_formats::spec::ModelSpec;
use serde_json::Value;

use super::super::CheckpointError;
use super::super::rope::{Llama3Scaling, Rope, Scaling, YarnScaling};
use super::MAX_CONTEXT;
use super::fields::{Fields, brief};

const SUPPORTED: &str = "default, linear, llama3, yarn, longrope";
const SHARE: &str = "partial_rotary_factor";

/// What any rotary type has among its settings. Those of another type than the file's say nothing, as in transformers.
const KNOWN: [&str; 17] = [
    "rope_theta",
    "rope_type",
    "type",
    SHARE,
    ORIGINAL_CONTEXT,
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
    // Of llama.cpp's converters.
    "finetuned",
];
const ORIGINAL_CONTEXT: &str = "original_max_position_embeddings";

/// Both spellings: `rope_parameters` holds everything (transformers 5), or `rope_theta` stands at the top and
/// `rope_scaling` holds the rest (before). Where a value is given twice, the two must agree.
///
/// `spec` has its sizes and its `rotary_dim`. Where frequencies depend on a text's length (LongRoPE), its context becomes the one that was trained.
pub(super) fn rope(
    top: &Fields<'_>,
    theta_key: &str,
    default_theta: f64,
    spec: &mut ModelSpec,
) -> Result<Rope, CheckpointError> {
    let settings = settings(top)?;
    let inner_theta = settings.as_ref().map_or(Ok(None), |settings| settings.theta("rope_theta"))?;
    let theta = match (inner_theta, top.theta(theta_key)?) {
        (Some(inner), Some(outer)) if inner != outer => {
            return Err(top.wrong(theta_key, format!("{inner}, as in the nested settings"), outer));
        }
        (inner, outer) => inner.or(outer).unwrap_or(default_theta),
    };
    match settings {
        None => Ok(Rope::plain(theta)),
        Some(settings) => scaled(top, &settings, theta, spec),
    }
}

/// Gemma 3's: of layers that see all positions, and of those with a window. Before transformers 5 the latter are `rope_local_base_freq`
/// alone, and `rope_scaling` is the former's.
pub(super) fn layered_rope(top: &Fields<'_>, spec: &mut ModelSpec) -> Result<(Rope, Rope), CheckpointError> {
    let (full, sliding) = ("full_attention", "sliding_attention");
    if let Some(layered) = top.nested("rope_parameters")?
        && (layered.get(full).is_some() || layered.get(sliding).is_some())
    {
        let mut of = |name, prefix, default| {
            let settings = layered.inner(name, prefix)?;
            share_of_one(&settings)?;
            let theta = settings.theta("rope_theta")?.unwrap_or(default);
            scaled(top, &settings, theta, spec)
        };
        let all = of(full, "rope_parameters.full_attention", 1e6)?;
        return Ok((all, of(sliding, "rope_parameters.sliding_attention", 1e4)?));
    }
    whole_head(top)?;
    let all = rope(top, "rope_theta", 1e6, spec)?;
    let local = top.theta("rope_local_base_freq")?.unwrap_or(1e4);
    Ok((all, Rope::plain(local)))
}

/// Elements of a head that are rotated: a share of it, in the nested settings or, under the name `key`, at the top.
pub(super) fn rotary_dim(
    top: &Fields<'_>,
    head_dim: u32,
    key: &str,
    default: f64,
) -> Result<u32, CheckpointError> {
    let inner = settings(top)?.map_or(Ok(None), |settings| settings.number(SHARE))?;
    let outer = match top.number(key)? {
        None => top.number(SHARE)?,
        given => given,
    };
    let share = match (inner, outer) {
        (Some(inner), Some(outer)) if inner != outer => {
            return Err(top.wrong(key, format!("{inner}, as in the nested settings"), outer));
        }
        (inner, outer) => inner.or(outer).unwrap_or(default),
    };
    // As transformers does: cut to a whole number.
    let rotated = (f64::from(head_dim) * share) as u32;
    if !(0.0..=1.0).contains(&share) || rotated == 0 || !rotated.is_multiple_of(2) {
        let expected = format!("a share of head_dim = {head_dim} that is an even number of elements");
        return Err(top.wrong(key, expected, share));
    }
    Ok(rotated)
}

/// Refuses a rotation of a part of each head.
pub(super) fn whole_head(top: &Fields<'_>) -> Result<(), CheckpointError> {
    settings(top)?.iter().chain([top]).try_for_each(share_of_one)
}

fn share_of_one(fields: &Fields<'_>) -> Result<(), CheckpointError> {
    match fields.number(SHARE)? {
        Some(share) if share != 1.0 => Err(fields.unsupported(SHARE, &share.to_string(), "1")),
        _ => Ok(()),
    }
}

/// The nested settings.
fn settings<'a>(top: &Fields<'a>) -> Result<Option<Fields<'a>>, CheckpointError> {
    match (top.nested("rope_parameters")?, top.nested("rope_scaling")?) {
        (Some(new), Some(old)) if new.object != old.object => {
            let expected = "the same settings as in rope_parameters".into();
            Err(top.wrong("rope_scaling", expected, brief(&Value::Object(old.object.clone()))))
        }
        (new, old) => Ok(new.or(old)),
    }
}

/// Rotary positions of nested settings.
fn scaled(
    top: &Fields<'_>,
    settings: &Fields<'_>,
    theta: f64,
    spec: &mut ModelSpec,
) -> Result<Rope, CheckpointError> {
    // "type" is the older name of "rope_type".
    let rope_type = match (settings.text("rope_type")?, settings.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            return Err(settings.wrong("type", format!("{new:?}, as in rope_type"), format!("{old:?}")));
        }
        (new, old) => new.or(old),
    };
    if let Some(key) =
        settings.object.keys().find(|key| !KNOWN.contains(&key.as_str()) && settings.get(key).is_some())
    {
        return Err(settings.unsupported(key, "given", "no such setting: it may change the frequencies"));
    }
    let Some(rope_type) = rope_type else {
        // Settings per kind of layer, or a scaling without its name, would be misread as none.
        let other = settings.object.keys().find(|key| !["rope_theta", SHARE].contains(&key.as_str()));
        return match other {
            None => Ok(Rope::plain(theta)),
            Some(key) => Err(settings.unsupported(key, "given without rope_type", SUPPORTED)),
        };
    };
    match rope_type {
        "default" => Ok(Rope::plain(theta)),
        "linear" => Ok(Rope::scaled(theta, Scaling::Linear(factor(settings)?))),
        "llama3" => Ok(Rope::scaled(theta, Scaling::Llama3(llama3_scaling(top, settings, spec)?))),
        // What the first files of Phi-3 say for LongRoPE.
        "su" | "yarn" if settings.get("short_factor").is_some() => longrope(top, settings, theta, spec),
        "longrope" => longrope(top, settings, theta, spec),
        "yarn" => yarn(top, settings, theta, spec),
        other => Err(settings.unsupported("rope_type", other, SUPPORTED)),
    }
}

/// Positions of the context before it was stretched: at the top, or in the nested settings; where neither says it, the context.
fn original_context(
    top: &Fields<'_>,
    settings: &Fields<'_>,
    spec: &ModelSpec,
) -> Result<u32, CheckpointError> {
    let inner = settings.optional_size(ORIGINAL_CONTEXT, MAX_CONTEXT)?;
    match (inner, top.optional_size(ORIGINAL_CONTEXT, MAX_CONTEXT)?) {
        (Some(inner), Some(outer)) if inner != outer => {
            Err(top.wrong(ORIGINAL_CONTEXT, format!("{inner}, as in the nested settings"), outer))
        }
        (inner, outer) => Ok(outer.or(inner).unwrap_or(spec.context)),
    }
}

/// How much longer the context became: given, or the quotient of both.
fn stretch(settings: &Fields<'_>, spec: &ModelSpec, original: u32) -> Result<f64, CheckpointError> {
    match settings.get("factor") {
        Some(_) => factor(settings),
        None => Ok(f64::from(spec.context) / f64::from(original)),
    }
}

fn attention_factor(settings: &Fields<'_>, default: f64) -> Result<f64, CheckpointError> {
    let name = "attention_factor";
    let value = settings.number(name)?.unwrap_or(default);
    match value > 0.0 && value <= 1e3 {
        true => Ok(value),
        false => Err(settings.wrong(name, "a number above 0, at most 1000".into(), value)),
    }
}

/// LongRoPE within the context that was trained: the frequencies of longer texts are others, from their first position on, so that a
/// text that grows would have to be run again. Longer ones are not run.
fn longrope(
    top: &Fields<'_>,
    settings: &Fields<'_>,
    theta: f64,
    spec: &mut ModelSpec,
) -> Result<Rope, CheckpointError> {
    let original = original_context(top, settings, spec)?;
    let stretch = stretch(settings, spec, original)?;
    let pairs = spec.variant.rotary_dim as usize / 2;
    let name = "short_factor";
    let expected = || format!("a list of {pairs} numbers from 1 to 1e6, one a rotated pair");
    let Some(Value::Array(list)) = settings.get(name) else {
        return Err(settings.wrong(name, expected(), settings.get(name).map_or("nothing".into(), brief)));
    };
    let factor = |value: &Value| value.as_f64().filter(|factor| (1.0..=1e6).contains(factor));
    let factors: Option<Vec<f64>> = list.iter().map(factor).collect();
    let Some(factors) = factors.filter(|factors| factors.len() == pairs) else {
        let found = format!("{} numbers, {}", list.len(), brief(&Value::Array(list.clone())));
        return Err(settings.wrong(name, expected(), found));
    };
    let amplitude = match stretch <= 1.0 {
        true => 1.0,
        false => libm::sqrt(1.0 + libm::log(stretch) / libm::log(f64::from(original.max(2)))),
    };
    let amplitude = attention_factor(settings, amplitude)?;
    spec.context = spec.context.min(original);
    Ok(Rope { theta, scaling: Some(Scaling::Pairs(factors)), amplitude })
}

/// YaRN, arXiv:2309.00071: section 3.2 for the frequencies, 3.4 for what scores are multiplied with.
fn yarn(
    top: &Fields<'_>,
    settings: &Fields<'_>,
    theta: f64,
    spec: &ModelSpec,
) -> Result<Rope, CheckpointError> {
    let original = original_context(top, settings, spec)?;
    let factor = stretch(settings, spec, original)?.max(1.0);
    let positive = |name: &str, default: Option<f64>| match settings.number(name)?.or(default) {
        Some(value) if !(value > 0.0 && value <= 1e6) => {
            Err(settings.wrong(name, "a number above 0, at most 1e6".into(), value))
        }
        value => Ok(value),
    };
    let of_log = |scale: f64| 0.1 * scale * libm::log(factor) + 1.0;
    let amplitude = match (positive("mscale", None)?, positive("mscale_all_dim", None)?) {
        (Some(scale), Some(all)) => of_log(scale) / of_log(all),
        _ => YarnScaling::amplitude(factor),
    };
    let fast = positive("beta_fast", Some(32.0))?.unwrap_or(32.0);
    let slow = positive("beta_slow", Some(1.0))?.unwrap_or(1.0);
    if fast < slow {
        return Err(settings.wrong("beta_fast", format!("at least beta_slow = {slow}"), fast));
    }
    let whole = settings.flag_or("truncate", true)?;
    let scaling = YarnScaling::between(theta, spec.variant.rotary_dim, factor, original, [fast, slow], whole);
    let Some(scaling) = scaling else {
        let expected = "a context within which some pair turns less often".into();
        return Err(settings.wrong(ORIGINAL_CONTEXT, expected, original));
    };
    let amplitude = attention_factor(settings, amplitude)?;
    Ok(Rope { theta, scaling: Some(Scaling::Yarn(scaling)), amplitude })
}

fn factor(settings: &Fields<'_>) -> Result<f64, CheckpointError> {
    required(settings, "factor", |value| (1.0..=1e6).contains(&value), "a number from 1 to 1e6")
}

/// A number that must be there and be accepted.
fn required(
    settings: &Fields<'_>,
    name: &str,
    accepted: fn(f64) -> bool,
    expected: &str,
) -> Result<f64, CheckpointError> {
    let value = settings.number(name)?;
    value.filter(|&value| accepted(value)).ok_or_else(|| {
        let found = value.map_or("nothing".into(), |value| value.to_string());
        settings.wrong(name, expected.into(), found)
    })
}

fn llama3_scaling(
    top: &Fields<'_>,
    settings: &Fields<'_>,
    spec: &ModelSpec,
) -> Result<Llama3Scaling, CheckpointError> {
    let factor = factor(settings)?;
    let in_range = |value| value > 0.0 && value <= 1e6;
    let low_frequency_factor =
        required(settings, "low_freq_factor", in_range, "a number above 0, at most 1e6")?;
    let high_frequency_factor =
        required(settings, "high_freq_factor", in_range, "a number above 0, at most 1e6")?;
    if high_frequency_factor <= low_frequency_factor {
        let expected = format!("more than low_freq_factor = {low_frequency_factor}");
        return Err(settings.wrong("high_freq_factor", expected, high_frequency_factor));
    }
    let original_context = original_context(top, settings, spec)?;
    Ok(Llama3Scaling { factor, low_frequency_factor, high_frequency_factor, original_context })
}
