//! Events as OpenAI's JSON: whole, or a chunk each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::job::{Event, Failure, Usage};
use super::parameters::Delivery;

/// Which of the two forms of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Completion,
    Chat,
}

/// What all parts of an answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    form: Form,
    id: String,
    created: u64,
    model: String,
    includes_usage: bool,
}

/// Numbers of answers.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

impl Envelope {
    /// Of a new answer.
    pub(super) fn new(form: Form, model: &str, delivery: Delivery) -> Envelope {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let prefix = match form {
            Form::Completion => "cmpl",
            Form::Chat => "chatcmpl",
        };
        let number = ANSWERS.fetch_add(1, Ordering::Relaxed);
        Envelope {
            form,
            id: format!("{prefix}-{created:x}-{number:x}"),
            created,
            model: model.to_owned(),
            includes_usage: delivery.includes_usage,
        }
    }

    /// An answer in one piece.
    pub(super) fn whole(&self, texts: &[(String, &str)], usage: Usage) -> Value {
        let choice = |(index, (text, finish)): (usize, &(String, &str))| match self.form {
            Form::Completion => {
                json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish})
            }
            Form::Chat => {
                let message = json!({"role": "assistant", "content": text, "refusal": null});
                json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish})
            }
        };
        let choices = texts.iter().enumerate().map(choice).collect();
        let object = match self.form {
            Form::Completion => "text_completion",
            Form::Chat => "chat.completion",
        };
        self.part(object, choices, Some(self::usage(usage)))
    }

    /// The lines of a stream for an event; none where it says nothing.
    pub(super) fn lines(&self, event: &Event) -> String {
        let choice = match (event, self.form) {
            (Event::Begins(_), Form::Completion) | (Event::Vectors(_), _) => return String::new(),
            (Event::Begins(_), Form::Chat) => {
                let delta = json!({"role": "assistant", "content": ""});
                json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null})
            }
            (Event::Piece(index, text), Form::Completion) => {
                json!({"index": index, "text": text, "logprobs": null, "finish_reason": null})
            }
            (Event::Piece(index, text), Form::Chat) => {
                let delta = json!({"content": text});
                json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null})
            }
            (Event::Ends(index, finish), Form::Completion) => {
                json!({"index": index, "text": "", "logprobs": null, "finish_reason": finish.name()})
            }
            (Event::Ends(index, finish), Form::Chat) => {
                json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish.name()})
            }
            (Event::Done(usage), _) => {
                let last = self.part(self.chunk(), Vec::new(), Some(self::usage(*usage)));
                let last = if self.includes_usage { line(&last) } else { String::new() };
                return format!("{last}data: [DONE]\n\n");
            }
            // Without the mark of the end: what came before is not all.
            (Event::Failed(failure), _) => return line(&error(failure)),
        };
        line(&self.part(self.chunk(), vec![choice], self.includes_usage.then_some(Value::Null)))
    }

    fn chunk(&self) -> &'static str {
        match self.form {
            Form::Completion => "text_completion",
            Form::Chat => "chat.completion.chunk",
        }
    }

    fn part(&self, object: &str, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let mut part = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            part["usage"] = usage;
        }
        part
    }
}

fn line(part: &Value) -> String {
    format!("data: {part}\n\n")
}

fn usage(usage: Usage) -> Value {
    let Usage { prompt, completion } = usage;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt.saturating_add(completion),
    })
}

/// The vectors of texts.
pub(super) fn embeddings(vectors: &[Vec<f32>], usage: Usage, model: &str, as_base64: bool) -> Value {
    let data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = match as_base64 {
                true => {
                    json!(base64(&vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()))
                }
                false => json!(vector),
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens = usage.prompt;
    json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}

/// The one model.
pub(super) fn model(name: &str, created: u64) -> Value {
    json!({"id": name, "object": "model", "created": created, "owned_by": "rescomp"})
}

/// A failure.
pub(super) fn error(failure: &Failure) -> Value {
    let kind = match failure.status {
        401 => "authentication_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    json!({
        "error": {
            "message": failure.message,
            "type": kind,
            "param": failure.parameter,
            "code": failure.code,
        },
    })
}

/// Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { digit.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::job::Finish;

    #[test]
    fn base64_is_the_standard_s() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0xfb]), "//79+w==");
    }

    #[test]
    fn a_stream_ends_with_its_mark_and_with_usage_where_asked() {
        for includes_usage in [false, true] {
            let delivery = Delivery { streams: true, includes_usage, base64: false };
            let envelope = Envelope::new(Form::Chat, "m", delivery);
            let usage = Usage { prompt: 2, completion: 3 };
            let lines = envelope.lines(&Event::Done(usage));
            assert!(lines.ends_with("data: [DONE]\n\n"));
            assert_eq!(lines.contains(r#""total_tokens":5"#), includes_usage);
            let lines = envelope.lines(&Event::Ends(0, Finish::Length));
            assert!(lines.starts_with("data: {") && lines.ends_with("}\n\n"));
            assert!(lines.contains(r#""finish_reason":"length""#));
            assert_eq!(lines.contains(r#""usage":null"#), includes_usage);
        }
        let envelope = Envelope::new(Form::Completion, "m", Delivery::default());
        assert_eq!(envelope.lines(&Event::Begins(1)), "");
        let failed = envelope.lines(&Event::Failed(Failure::ending()));
        assert!(failed.contains(r#""type":"server_error""#) && !failed.contains("DONE"), "{failed}");
    }
}
