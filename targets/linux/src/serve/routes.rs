//! The routes: who may ask, what is asked for, and the answer on its way.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::job::{Event, Failure, Job, Task, Usage};
use super::parameters;
use super::replies::{self, Envelope, Form};
use super::server::{About, InFlight};

/// Most bytes of a body: more than any context holds as text.
const BODY_BYTES: u64 = 4 << 20;
/// Most bytes of a body that is too large that are still read, and dropped: a client that sends all before it listens hears the refusal.
const DROPPED_BYTES: u64 = 32 << 20;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A body that goes out.
pub(super) struct Outgoing {
    payload: Payload,
    _counted: InFlight,
}

enum Payload {
    Whole(Bytes),
    Stream { first: Option<Event>, events: UnboundedReceiver<Event>, envelope: Envelope, ended: bool },
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.payload {
            Payload::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Payload::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Payload::Stream { first, events, envelope, ended } => loop {
                if *ended {
                    return Poll::Ready(None);
                }
                let event = match first.take() {
                    Some(event) => event,
                    None => match events.poll_recv(context) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(event) => event.unwrap_or(Event::Failed(Failure::ending())),
                    },
                };
                *ended = matches!(event, Event::Done(_) | Event::Failed(_));
                let lines = envelope.lines(&event);
                if !lines.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(lines.into()))));
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Whole(bytes) => bytes.is_empty(),
            Payload::Stream { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Stream { .. } => SizeHint::default(),
        }
    }
}

/// Answers a request, whatever it is.
pub(super) async fn answer(
    request: Request<Incoming>,
    about: Arc<About>,
    counted: InFlight,
) -> Result<Response<Outgoing>, Infallible> {
    let answered = routed(request, &about).await;
    let (status, payload) = match answered {
        Ok(payload) => (200, payload),
        Err(failure) => (failure.status, json_payload(&replies::error(&failure))),
    };
    let streams = matches!(payload, Payload::Stream { .. });
    let mut response = Response::new(Outgoing { payload, _counted: counted });
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content = if streams { "text/event-stream" } else { "application/json" };
    let mut put = |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
    put(header::CONTENT_TYPE, content);
    put(header::CACHE_CONTROL, "no-store");
    match status {
        401 => drop(put(header::WWW_AUTHENTICATE, "Bearer")),
        // The rest of the body is not wanted.
        408 | 413 => drop(put(header::CONNECTION, "close")),
        503 => drop(put(header::RETRY_AFTER, "1")),
        _ => {}
    }
    Ok(response)
}

async fn routed(request: Request<Incoming>, about: &About) -> Result<Payload, Failure> {
    let (head, body) = request.into_parts();
    if head.headers.contains_key(header::ORIGIN) {
        // Only browsers say it, for a page of somebody else's that reaches for this machine.
        return Err(Failure::other(403, None, "requests of web pages (with a header Origin) are not served"));
    }
    let path = head.uri.path();
    if path == "/health" {
        return expect_method(&head.method, &Method::GET).map(|()| json_payload(&json!({"status": "ok"})));
    }
    let shown = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if about.key.as_ref().is_some_and(|key| !key.is_shown(shown)) {
        let code = Some("invalid_api_key");
        return Err(Failure::other(401, code, "expected the key in a header Authorization: Bearer KEY"));
    }
    let model = replies::model(&about.model, about.created);
    if path == "/v1/models" {
        expect_method(&head.method, &Method::GET)?;
        return Ok(json_payload(&json!({"object": "list", "data": [model]})));
    }
    if let Some(name) = path.strip_prefix("/v1/models/") {
        expect_method(&head.method, &Method::GET)?;
        return expect_model(Some(name), about).map(|()| json_payload(&model));
    }
    let parse = match path {
        "/v1/completions" => parameters::completion,
        "/v1/chat/completions" => parameters::chat,
        "/v1/embeddings" => parameters::embeddings,
        _ => return Err(Failure::other(404, Some("unknown_url"), "there is nothing at this path")),
    };
    expect_method(&head.method, &Method::POST)?;
    let parsed = parse(&read(&head.headers, body).await?)?;
    expect_model(parsed.model.as_deref(), about)?;

    let form = if matches!(parsed.task, Task::Chat { .. }) { Form::Chat } else { Form::Completion };
    let envelope = Envelope::new(form, &about.model, parsed.delivery);
    let (sender, mut events) = mpsc::unbounded_channel();
    about.jobs.try_send(Job { task: parsed.task, events: sender }).map_err(|error| match error {
        TrySendError::Full(_) => {
            Failure::other(503, Some("busy"), "too many requests are waiting: try again later")
        }
        TrySendError::Disconnected(_) => Failure::ending(),
    })?;
    // Whether it goes at all is known before the status is sent.
    match events.recv().await.unwrap_or(Event::Failed(Failure::ending())) {
        Event::Failed(failure) => Err(failure),
        Event::Vectors(vectors) => {
            let usage = usage(&mut events).await?;
            let base64 = parsed.delivery.base64;
            Ok(json_payload(&replies::embeddings(&vectors, usage, &about.model, base64)))
        }
        first if parsed.delivery.streams => {
            Ok(Payload::Stream { first: Some(first), events, envelope, ended: false })
        }
        first => whole(first, &mut events, &envelope).await,
    }
}

/// Gathers an answer.
async fn whole(
    first: Event,
    events: &mut UnboundedReceiver<Event>,
    envelope: &Envelope,
) -> Result<Payload, Failure> {
    let mut texts: Vec<(String, &str)> = Vec::new();
    let mut next = Some(first);
    loop {
        match next {
            Some(Event::Begins(count)) => texts.resize(count, (String::new(), "stop")),
            Some(Event::Piece(index, piece)) => {
                if let Some((text, _)) = texts.get_mut(index) {
                    text.push_str(&piece);
                }
            }
            Some(Event::Ends(index, finish)) => {
                if let Some((_, reason)) = texts.get_mut(index) {
                    *reason = finish.name();
                }
            }
            Some(Event::Vectors(_)) => {}
            Some(Event::Done(usage)) => return Ok(json_payload(&envelope.whole(&texts, usage))),
            Some(Event::Failed(failure)) => return Err(failure),
            None => return Err(Failure::ending()),
        }
        next = events.recv().await;
    }
}

async fn usage(events: &mut UnboundedReceiver<Event>) -> Result<Usage, Failure> {
    match events.recv().await {
        Some(Event::Done(usage)) => Ok(usage),
        Some(Event::Failed(failure)) => Err(failure),
        _ => Err(Failure::ending()),
    }
}

/// Reads a body that says it is JSON.
async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Failure> {
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Failure::other(415, None, "expected a header Content-Type: application/json"));
    }
    match tokio::time::timeout(BODY_TIME, collect(body)).await {
        Ok(collected) => collected,
        Err(_) => {
            let seconds = BODY_TIME.as_secs();
            Err(Failure::other(408, None, format!("the body: expected it within {seconds} s")))
        }
    }
}

/// The bytes of a body that is not too large.
async fn collect(mut body: Incoming) -> Result<Bytes, Failure> {
    let (mut bytes, mut found) = (Vec::new(), 0);
    let said = body.size_hint().lower();
    while said <= DROPPED_BYTES
        && found <= DROPPED_BYTES
        && let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let frame = frame.map_err(|error| Failure::request(format!("the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        found += data.len() as u64;
        if found <= BODY_BYTES {
            bytes.extend_from_slice(&data);
        }
    }
    if said.max(found) > BODY_BYTES {
        let message = format!("the body: expected at most {BODY_BYTES} bytes, found more");
        return Err(Failure::other(413, None, message));
    }
    Ok(bytes.into())
}

fn expect_method(found: &Method, expected: &Method) -> Result<(), Failure> {
    match found == expected {
        true => Ok(()),
        false => Err(Failure::other(405, None, format!("expected {expected}, found {found}"))),
    }
}

/// Only one model is served, under one name; a request may leave it out.
fn expect_model(name: Option<&str>, about: &About) -> Result<(), Failure> {
    match name {
        Some(name) if name != about.model => Err(Failure {
            parameter: Some("model".to_owned()),
            ..Failure::other(
                404,
                Some("model_not_found"),
                format!("model: expected {:?}, found another", about.model),
            )
        }),
        _ => Ok(()),
    }
}

fn json_payload(value: &Value) -> Payload {
    Payload::Whole(value.to_string().into())
}
