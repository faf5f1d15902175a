//! The fields of a request's JSON, each taken once and checked.

use serde_json::{Map, Value};

use super::job::Failure;

/// An object whose fields are taken out as they are read. Null is as good as absent, as in OpenAI's API.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Of a body.
    ///
    /// # Errors
    /// 400 where it is no JSON object.
    pub(super) fn parse(body: &[u8]) -> Result<Fields, Failure> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(other) => {
                Err(Failure::request(format!("the body: expected a JSON object, found {}", kind(&other))))
            }
            Err(error) => Err(Failure::request(format!("the body: expected JSON: {error}"))),
        }
    }

    /// The field, where it is there.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a text", &other)),
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Failure> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(name, "true or false", &other)),
        }
    }

    /// A number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f32>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value
                .as_f64()
                .map(|number| Some(number as f32))
                .ok_or_else(|| wrong(name, "a number", &value)),
        }
    }

    /// A whole number, 0 or more.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<usize>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .map(Some)
                .ok_or_else(|| wrong(name, "a whole number, 0 or more", &value)),
        }
    }

    /// A whole number of 64 bits, with or without a sign.
    pub(super) fn seed(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .or_else(|| value.as_i64().map(i64::cast_unsigned))
                .map(Some)
                .ok_or_else(|| wrong(name, "a whole number of 64 bits", &value)),
        }
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Fields>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Fields(fields))),
            Some(other) => Err(wrong(name, "an object", &other)),
        }
    }

    /// Refuses a parameter that would change the answer and is not understood, unless it has the value that changes nothing.
    pub(super) fn refuse_unless(&mut self, name: &str, nothing: &Value) -> Result<(), Failure> {
        let same = |value: &Value| match (value.as_f64(), nothing.as_f64()) {
            (Some(found), Some(nothing)) => found == nothing,
            _ => value == nothing || value.as_array().is_some_and(Vec::is_empty),
        };
        match self.take(name).filter(|value| !same(value)) {
            None => Ok(()),
            Some(value) => Err(Failure::parameter(
                name,
                format_args!("not supported: expected {nothing}, or nothing, found {}", shown(&value)),
            )),
        }
    }
}

/// A value is not what it must be.
pub(super) fn wrong(name: &str, expected: &str, found: &Value) -> Failure {
    Failure::parameter(name, format_args!("expected {expected}, found {}", shown(found)))
}

/// A value in an error: numbers and flags as they are, others by their kind.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        other => kind(other).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
