//! The fields of a JSON object, and the errors that name them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::CheckpointError;

/// A JSON object with what errors need to name its fields. A field that is null counts as absent.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) prefix: &'static str,
    pub(super) object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn nested(&self, name: &'static str) -> Result<Option<Fields<'a>>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields { path: self.path, prefix: name, object })),
            Some(other) => Err(self.wrong(name, "an object or null".into(), brief(other))),
        }
    }

    /// An object in this one; `prefix` is its whole name.
    pub(super) fn inner(&self, name: &str, prefix: &'static str) -> Result<Fields<'a>, CheckpointError> {
        match self.get(name) {
            Some(Value::Object(object)) => Ok(Fields { path: self.path, prefix, object }),
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), brief);
                Err(self.wrong(name, "an object".into(), found))
            }
        }
    }

    pub(super) fn optional_size(&self, name: &str, cap: u32) -> Result<Option<u32>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().and_then(|size| u32::try_from(size).ok()) {
            Some(size) if (1..=cap).contains(&size) => Ok(Some(size)),
            _ => Err(self.wrong(name, format!("a whole number from 1 to {cap}"), brief(value))),
        }
    }

    /// A whole number from 0 on.
    pub(super) fn whole(&self, name: &str, cap: u32) -> Result<Option<u32>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if number <= cap => Ok(Some(number)),
            _ => Err(self.wrong(name, format!("a whole number from 0 to {cap}"), brief(value))),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, "a number".into(), brief(value))),
        }
    }

    pub(super) fn flag_or(&self, name: &str, default: bool) -> Result<bool, CheckpointError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(name, "true or false".into(), brief(other))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, CheckpointError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string".into(), brief(other))),
        }
    }

    /// Zero, one or several tokens.
    pub(super) fn tokens(&self, name: &str, vocabulary: u32) -> Result<Vec<u32>, CheckpointError> {
        let values = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let token = |value: &Value| {
            let token = value.as_u64().and_then(|token| u32::try_from(token).ok());
            token.filter(|&token| token < vocabulary).ok_or_else(|| {
                self.wrong(name, format!("tokens below vocab_size = {vocabulary}"), brief(value))
            })
        };
        values.iter().map(token).collect()
    }

    pub(super) fn theta(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        // Below 1 the frequencies would grow from pair to pair, beyond one turn a position.
        match self.number(name)? {
            Some(theta) if !(1.0..=1e12).contains(&theta) => {
                Err(self.wrong(name, "a number from 1 to 1e12".into(), theta))
            }
            theta => Ok(theta),
        }
    }

    pub(super) fn name(&self, field: &str) -> String {
        if self.prefix.is_empty() { field.to_owned() } else { format!("{}.{field}", self.prefix) }
    }

    pub(super) fn wrong(&self, field: &str, expected: String, found: impl ToString) -> CheckpointError {
        let (path, field) = (PathBuf::from(self.path), self.name(field));
        CheckpointError::Field { path, field, expected, found: found.to_string() }
    }

    pub(super) fn unsupported(&self, field: &str, found: &str, supported: &'static str) -> CheckpointError {
        let (path, field) = (PathBuf::from(self.path), self.name(field));
        CheckpointError::Unsupported { path, field, found: found.to_owned(), supported }
    }
}

/// A JSON value for an error message, cut where it gets long.
pub(super) fn brief(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
