//! What a request asks for: each parameter is understood, or refused by name where it would change the answer.

use std::hash::{BuildHasher, RandomState};

use rescomp_runtime::sample::{SampleOptions, Sampler};
use serde_json::{Value, json};

use super::fields::{Fields, wrong};
use super::job::{Failure, Input, Messages, Sampling, Task};
use crate::conversation::OwnedTurn;

/// Tokens of a completion where nobody says, as in OpenAI's API. Chats go on as long as there is room.
const COMPLETION_TOKENS: usize = 16;
/// Most stop texts.
const MOST_STOPS: usize = 16;
/// Most prompts or inputs of a request.
const MOST_INPUTS: usize = 2048;

/// How the answer goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// In pieces, as they come.
    pub(super) streams: bool,
    /// With the tokens' numbers behind the last piece.
    pub(super) includes_usage: bool,
    /// Vectors as base64 of little-endian f32.
    pub(super) base64: bool,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) model: Option<String>,
    pub(super) task: Task,
    pub(super) delivery: Delivery,
}

/// `POST /v1/completions`.
pub(super) fn completion(body: &[u8]) -> Result<Request, Failure> {
    let mut fields = Fields::parse(body)?;
    let prompts = match fields.take("prompt") {
        None => vec![Input::Text(String::new())],
        Some(prompt) => inputs("prompt", prompt)?,
    };
    for (name, nothing) in
        [("best_of", json!(1)), ("echo", json!(false)), ("suffix", json!("")), ("logprobs", json!(false))]
    {
        fields.refuse_unless(name, &nothing)?;
    }
    let mut sampling = sampling(&mut fields)?;
    sampling.max_tokens.get_or_insert(COMPLETION_TOKENS);
    let task = Task::Complete { prompts, sampling };
    Ok(Request { model: fields.text("model")?, task, delivery: delivery(&mut fields)? })
}

/// `POST /v1/chat/completions`.
pub(super) fn chat(body: &[u8]) -> Result<Request, Failure> {
    let mut fields = Fields::parse(body)?;
    let messages = match fields.take("messages") {
        Some(Value::Array(messages)) => self::messages(messages)?,
        Some(other) => return Err(wrong("messages", "a list", &other)),
        None => return Err(Failure::parameter("messages", "expected a list, found nothing")),
    };
    for (name, nothing) in [
        ("tools", json!([])),
        ("functions", json!([])),
        ("tool_choice", json!("none")),
        ("function_call", json!("none")),
        ("logprobs", json!(false)),
        ("top_logprobs", json!(0)),
        ("response_format", json!({"type": "text"})),
        ("modalities", json!(["text"])),
        ("audio", Value::Null),
        ("prediction", Value::Null),
    ] {
        fields.refuse_unless(name, &nothing)?;
    }
    let task = Task::Chat { messages, sampling: sampling(&mut fields)? };
    Ok(Request { model: fields.text("model")?, task, delivery: delivery(&mut fields)? })
}

/// `POST /v1/embeddings`.
pub(super) fn embeddings(body: &[u8]) -> Result<Request, Failure> {
    let mut fields = Fields::parse(body)?;
    let inputs = match fields.take("input") {
        None => return Err(Failure::parameter("input", "expected a text or a list, found nothing")),
        Some(input) => self::inputs("input", input)?,
    };
    fields.refuse_unless("dimensions", &Value::Null)?;
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(Failure::parameter(
                "encoding_format",
                "expected \"float\" or \"base64\", found another text",
            ));
        }
    };
    let delivery = Delivery { base64, ..Delivery::default() };
    Ok(Request { model: fields.text("model")?, task: Task::Embed { inputs }, delivery })
}

fn delivery(fields: &mut Fields) -> Result<Delivery, Failure> {
    let streams = fields.flag("stream")?;
    let includes_usage = match fields.object("stream_options")? {
        Some(mut options) if streams => options.flag("include_usage")?,
        Some(_) => return Err(Failure::parameter("stream_options", "expected \"stream\": true beside it")),
        None => false,
    };
    Ok(Delivery { streams, includes_usage, base64: false })
}

fn sampling(fields: &mut Fields) -> Result<Sampling, Failure> {
    for (name, nothing) in [
        ("n", json!(1)),
        ("frequency_penalty", json!(0)),
        ("presence_penalty", json!(0)),
        ("logit_bias", json!({})),
    ] {
        fields.refuse_unless(name, &nothing)?;
    }
    let options = SampleOptions {
        temperature: fields.number("temperature")?.unwrap_or(1.0),
        top_k: fields.count("top_k")?.unwrap_or(0),
        top_p: fields.number("top_p")?.unwrap_or(1.0),
        // Nobody asked for the same text again.
        seed: fields.seed("seed")?.unwrap_or_else(|| RandomState::new().hash_one(0)),
    };
    Sampler::new(options).map_err(|error| {
        Failure::parameter(error.option, format_args!("expected {}, found {}", error.expected, error.found))
    })?;
    let old = fields.count("max_tokens")?;
    let max_tokens = fields.count("max_completion_tokens")?.or(old);
    Ok(Sampling { options, max_tokens, stops: stops(fields.take("stop"))? })
}

fn stops(stop: Option<Value>) -> Result<Vec<String>, Failure> {
    let texts = match stop {
        None => Vec::new(),
        Some(Value::Array(texts)) => texts,
        Some(text) => vec![text],
    };
    if texts.len() > MOST_STOPS {
        return Err(Failure::parameter(
            "stop",
            format_args!("expected at most {MOST_STOPS} texts, found {}", texts.len()),
        ));
    }
    texts
        .into_iter()
        .map(|text| match text {
            Value::String(text) if !text.is_empty() => Ok(text),
            Value::String(_) => Err(Failure::parameter("stop", "expected some text, found none")),
            other => Err(wrong("stop", "a text or a list of texts", &other)),
        })
        .collect()
}

/// A text, tokens, or a list of either.
fn inputs(name: &str, value: Value) -> Result<Vec<Input>, Failure> {
    let list = match value {
        Value::String(text) => return Ok(vec![Input::Text(text)]),
        Value::Array(list) => list,
        other => return Err(wrong(name, "a text or a list", &other)),
    };
    if list.first().is_some_and(Value::is_number) {
        return Ok(vec![Input::Tokens(tokens(name, &list)?)]);
    }
    if list.is_empty() || list.len() > MOST_INPUTS {
        return Err(Failure::parameter(
            name,
            format_args!("expected 1 to {MOST_INPUTS} elements, found {}", list.len()),
        ));
    }
    list.into_iter()
        .map(|one| match one {
            Value::String(text) => Ok(Input::Text(text)),
            Value::Array(list) => Ok(Input::Tokens(tokens(name, &list)?)),
            other => Err(wrong(name, "texts, or lists of tokens", &other)),
        })
        .collect()
}

fn tokens(name: &str, list: &[Value]) -> Result<Vec<u32>, Failure> {
    let token = |value: &Value| {
        let token = value.as_u64().and_then(|token| u32::try_from(token).ok());
        token.ok_or_else(|| wrong(name, "tokens, as numbers", value))
    };
    list.iter().map(token).collect()
}

/// A system message, where there is one, then a user's message and an answer in turn, and a user's message last.
fn messages(list: Vec<Value>) -> Result<Messages, Failure> {
    let (mut system, mut turns, mut user) = (None, Vec::new(), None);
    for (index, value) in list.into_iter().enumerate() {
        let name = format!("messages[{index}]");
        let Value::Object(fields) = value else { return Err(wrong(&name, "an object", &value)) };
        for unknown in ["tool_calls", "function_call", "audio"] {
            if fields.get(unknown).is_some_and(|value| !value.is_null() && *value != json!([])) {
                return Err(Failure::parameter(&name, format_args!("{unknown} is not supported")));
            }
        }
        let text = content(&name, fields.get("content"))?;
        let role = fields.get("role").and_then(Value::as_str).unwrap_or_default();
        match (role, index, user.take()) {
            ("system" | "developer", 0, None) => system = Some(text),
            ("user", _, None) => user = Some(text),
            ("assistant", _, Some(asked)) => turns.push(OwnedTurn { user: asked, answer: text }),
            ("system" | "developer" | "user" | "assistant", ..) => {
                return Err(Failure::parameter(
                    &name,
                    format_args!(
                        "expected a system message first, if any, then user and assistant in turn, found {role:?}"
                    ),
                ));
            }
            _ => {
                return Err(Failure::parameter(
                    &name,
                    "role: expected \"system\", \"user\" or \"assistant\", found something else",
                ));
            }
        }
    }
    match user {
        Some(user) => Ok(Messages { system, turns, user }),
        None => Err(Failure::parameter("messages", "expected a user's message last")),
    }
}

/// A text, or parts that are texts.
fn content(name: &str, content: Option<&Value>) -> Result<String, Failure> {
    let name = format!("{name}.content");
    match content {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => parts
            .iter()
            .map(|part| {
                let kind = part.get("type").and_then(Value::as_str);
                let text = part.get("text").and_then(Value::as_str);
                text.filter(|_| kind == Some("text")).ok_or_else(|| {
                    Failure::parameter(&name, "expected parts of type \"text\", found another")
                })
            })
            .collect(),
        other => Err(wrong(&name, "a text or a list of texts", other.unwrap_or(&Value::Null))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(parse: fn(&[u8]) -> Result<Request, Failure>, body: &str) -> String {
        let failure = parse(body.as_bytes()).expect_err(body);
        assert_eq!(failure.status, 400);
        failure.message
    }

    #[test]
    fn a_completion_has_the_defaults_of_the_api() {
        let request = completion(br#"{"prompt": "a", "temperature": null, "user": "x"}"#).expect("a request");
        let Task::Complete { prompts, sampling } = request.task else { panic!("{request:?}") };
        assert_eq!(prompts, [Input::Text("a".to_owned())]);
        assert_eq!((sampling.max_tokens, sampling.options.temperature), (Some(16), 1.0));
        let request =
            completion(br#"{"prompt": ["a", [1, 2]], "stop": "x", "seed": -1}"#).expect("a request");
        let Task::Complete { prompts, sampling } = request.task else { panic!("{request:?}") };
        assert_eq!(prompts, [Input::Text("a".to_owned()), Input::Tokens(vec![1, 2])]);
        assert_eq!((sampling.stops, sampling.options.seed), (vec!["x".to_owned()], u64::MAX));
        let one = completion(br#"{"prompt": [7, 8]}"#).expect("a request");
        assert!(matches!(one.task, Task::Complete { prompts, .. } if prompts == [Input::Tokens(vec![7, 8])]));
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        for (body, part) in [
            ("", "the body: expected JSON"),
            ("[]", "the body: expected a JSON object, found a list"),
            (r#"{"prompt": 3}"#, "prompt: expected a text or a list, found 3"),
            (r#"{"prompt": []}"#, "prompt: expected 1 to 2048 elements, found 0"),
            (r#"{"prompt": [1, -1]}"#, "prompt: expected tokens, as numbers, found -1"),
            (r#"{"prompt": [[1], {}]}"#, "prompt: expected texts"),
            (r#"{"n": 2}"#, "n: not supported: expected 1, or nothing, found 2"),
            (r#"{"echo": true}"#, "echo: not supported"),
            (r#"{"logprobs": 0}"#, "logprobs: not supported"),
            (r#"{"suffix": "x"}"#, "suffix: not supported"),
            (r#"{"logit_bias": {"1": 2}}"#, "logit_bias: not supported"),
            (r#"{"temperature": -1}"#, "temperature: expected a finite number, 0 or more, found -1"),
            (r#"{"temperature": 1e300}"#, "temperature: expected a finite number"),
            (r#"{"top_p": 0}"#, "top_p: expected more than 0"),
            (r#"{"max_tokens": 1.5}"#, "max_tokens: expected a whole number, 0 or more, found 1.5"),
            (r#"{"seed": "x"}"#, "seed: expected a whole number"),
            (r#"{"stop": ""}"#, "stop: expected some text"),
            (r#"{"stop": [1]}"#, "stop: expected a text or a list of texts, found 1"),
            (r#"{"stream": 1}"#, "stream: expected true or false, found 1"),
            (r#"{"stream_options": {}}"#, "stream_options: expected \"stream\": true beside it"),
        ] {
            assert!(refused(completion, body).contains(part), "{body}: {}", refused(completion, body));
        }
        let body = r#"{"n": 1.0, "echo": false, "logit_bias": {}, "presence_penalty": 0.0, "suffix": null}"#;
        assert!(completion(body.as_bytes()).is_ok());
        assert!(refused(embeddings, "{}").contains("input: expected a text or a list"));
        assert!(refused(embeddings, r#"{"input": "a", "dimensions": 3}"#).contains("dimensions: not supp"));
        assert!(refused(embeddings, r#"{"input": "a", "encoding_format": "f"}"#).contains("encoding_format"));
    }

    #[test]
    fn messages_take_turns() {
        let of = |messages: Value| chat(json!({"messages": messages}).to_string().as_bytes());
        let message = |role: &str, text: &str| json!({"role": role, "content": text});
        let parts = json!([{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]);
        let request = of(json!([
            message("developer", "s"),
            message("user", "a"),
            message("assistant", "b"),
            {"role": "user", "content": parts},
        ]))
        .expect("a request");
        let turns = vec![OwnedTurn { user: "a".to_owned(), answer: "b".to_owned() }];
        let expected = Messages { system: Some("s".to_owned()), turns, user: "cd".to_owned() };
        assert!(matches!(request.task, Task::Chat { messages, .. } if messages == expected));
        for (messages, part) in [
            (json!([]), "messages: expected a user's message last"),
            (json!([message("user", "a"), message("assistant", "b")]), "expected a user's message last"),
            (json!([message("assistant", "b")]), "messages[0]: expected a system message first"),
            (json!([message("user", "a"), message("user", "b")]), "messages[1]: expected"),
            (json!([message("user", "a"), message("system", "b")]), "messages[1]: expected"),
            (json!([message("system", "a"), message("system", "b")]), "messages[1]: expected"),
            (json!([message("tool", "a")]), "messages[0]: role: expected"),
            (json!([{"role": "user"}]), "messages[0].content: expected a text or a list"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "expected parts of type"),
            (json!(["x"]), "messages[0]: expected an object"),
            (
                json!([{"role": "user", "content": "", "tool_calls": [{}]}]),
                "messages[0]: tool_calls is not supported",
            ),
        ] {
            let failure = of(messages.clone()).expect_err("refused");
            assert!(failure.message.contains(part), "{messages}: {}", failure.message);
        }
        assert!(refused(chat, r#"{"messages": "x"}"#).contains("messages: expected a list"));
        let body = r#"{"messages": [{"role": "user", "content": "a"}], "tools": [{}]}"#;
        assert!(refused(chat, body).contains("tools: not supported"));
    }
}
