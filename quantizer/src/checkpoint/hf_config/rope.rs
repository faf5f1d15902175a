//! Rotary settings, in both of their spellings.

use serde_json::Value;

use super::super::CheckpointError;
use super::super::rope::{Llama3Scaling, Rope, Scaling};
use super::MAX_CONTEXT;
use super::fields::{Fields, brief};

const SUPPORTED: &str = "default, linear, llama3";

/// Both spellings: `rope_parameters` holds everything (transformers 5), or `rope_theta` stands at the top and
/// `rope_scaling` holds the rest (before). Where a value is given twice, the two must agree.
pub(super) fn rope(top: &Fields<'_>, theta_key: &str) -> Result<Rope, CheckpointError> {
    let settings = settings(top)?;
    let inner_theta = settings.as_ref().map_or(Ok(None), |settings| settings.theta("rope_theta"))?;
    let theta = match (inner_theta, top.theta(theta_key)?) {
        (Some(inner), Some(outer)) if inner != outer => {
            return Err(top.wrong(theta_key, format!("{inner}, as in the nested settings"), outer));
        }
        (inner, outer) => inner.or(outer).unwrap_or(10_000.0),
    };
    let scaling = settings.map_or(Ok(None), |settings| scaling(&settings))?;
    Ok(Rope { theta, scaling })
}

/// Gemma 3's: of layers that see all positions, and of those with a window. Before transformers 5 the latter are `rope_local_base_freq`
/// alone, and `rope_scaling` is the former's.
pub(super) fn layered_rope(top: &Fields<'_>) -> Result<(Rope, Rope), CheckpointError> {
    let (full, sliding) = ("full_attention", "sliding_attention");
    if let Some(layered) = top.nested("rope_parameters")?
        && (layered.get(full).is_some() || layered.get(sliding).is_some())
    {
        let of = |name, prefix, default| {
            let settings = layered.inner(name, prefix)?;
            share_of_one(&settings)?;
            let theta = settings.theta("rope_theta")?.unwrap_or(default);
            Ok::<_, CheckpointError>(Rope { theta, scaling: scaling(&settings)? })
        };
        let all = of(full, "rope_parameters.full_attention", 1e6)?;
        return Ok((all, of(sliding, "rope_parameters.sliding_attention", 1e4)?));
    }
    whole_head(top)?;
    let mut all = rope(top, "rope_theta")?;
    let given = settings(top)?.map_or(Ok(None), |settings| settings.theta("rope_theta"))?;
    if given.or(top.theta("rope_theta")?).is_none() {
        all.theta = 1e6;
    }
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
    let name = "partial_rotary_factor";
    let inner = settings(top)?.map_or(Ok(None), |settings| settings.number(name))?;
    let outer = match top.number(key)? {
        None => top.number(name)?,
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
    match fields.number("partial_rotary_factor")? {
        Some(share) if share != 1.0 => {
            Err(fields.unsupported("partial_rotary_factor", &share.to_string(), "1"))
        }
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

/// The scaling of nested settings.
fn scaling(settings: &Fields<'_>) -> Result<Option<Scaling>, CheckpointError> {
    // "type" is the older name of "rope_type".
    let rope_type = match (settings.text("rope_type")?, settings.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            return Err(settings.wrong("type", format!("{new:?}, as in rope_type"), format!("{old:?}")));
        }
        (new, old) => new.or(old),
    };
    match rope_type {
        Some("default") => Ok(None),
        Some("linear") => {
            let factor =
                required(settings, "factor", |value| (1.0..=1e6).contains(&value), "a number from 1 to 1e6")?;
            Ok(Some(Scaling::Linear(factor)))
        }
        Some("llama3") => Ok(Some(Scaling::Llama3(llama3_scaling(settings)?))),
        Some(other) => Err(settings.unsupported("rope_type", other, SUPPORTED)),
        // Settings per kind of layer, or a scaling without its name, would be misread as none.
        None => match settings
            .object
            .keys()
            .find(|key| !["rope_theta", "partial_rotary_factor"].contains(&key.as_str()))
        {
            None => Ok(None),
            Some(key) => Err(settings.unsupported(key, "given without rope_type", SUPPORTED)),
        },
    }
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

fn llama3_scaling(settings: &Fields<'_>) -> Result<Llama3Scaling, CheckpointError> {
    let factor =
        required(settings, "factor", |value| (1.0..=1e6).contains(&value), "a number from 1 to 1e6")?;
    let in_range = |value| value > 0.0 && value <= 1e6;
    let low_frequency_factor =
        required(settings, "low_freq_factor", in_range, "a number above 0, at most 1e6")?;
    let high_frequency_factor =
        required(settings, "high_freq_factor", in_range, "a number above 0, at most 1e6")?;
    if high_frequency_factor <= low_frequency_factor {
        let expected = format!("more than low_freq_factor = {low_frequency_factor}");
        return Err(settings.wrong("high_freq_factor", expected, high_frequency_factor));
    }
    let original_context = settings.size("original_max_position_embeddings", MAX_CONTEXT)?;
    Ok(Llama3Scaling { factor, low_frequency_factor, high_frequency_factor, original_context })
}
