//! `rescomp serve`: what it says over HTTP is what `generate` says, and nobody can break it from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::conversations::{answer, conversation};
use crate::fixture::{BEGIN, Folder, container, continuation, program, spec, text_of};
use rescomp_formats::layouts::Layout;
use rescomp_formats::spec::ModelSpec;
use serde_json::{Value, json};

fn chatting(context: u32) -> Vec<u8> {
    container(&ModelSpec { chat_template: true, context, ..spec() }, Layout::Nr8k4)
}

/// A running server; dropped, it is ended.
pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    pub(crate) fn start(container: &Path, options: &[&str]) -> Server {
        let all = [&["--port", "0", "--threads", "1"], options].concat();
        let mut child =
            program("serve", container, &all).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = loop {
            let line = lines.next().expect("it says where").expect("readable");
            if let Some((_, address)) = line.split_once(" on http://") {
                break address.trim_end_matches("/v1").to_owned();
            }
        };
        // Nobody else reads, and the pipe must not fill.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        stream
    }

    /// Sends a request, whole.
    fn send(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("writable");
        stream
    }

    fn ask(&self, head: &str, body: &[u8]) -> (u16, String) {
        received(self.send(head, body))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
        let (status, text) = self.ask(&head, body.to_string().as_bytes());
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON: {text}")))
    }

    /// The chunks of a stream, whose end is marked.
    fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
        let (status, text) = self.ask(&head, body.to_string().as_bytes());
        assert_eq!(status, 200, "{text}");
        let lines = text.strip_suffix("data: [DONE]\n\n").expect("the mark of the end");
        let chunk =
            |line: &str| serde_json::from_str(line.strip_prefix("data: ").expect("data")).expect("JSON");
        lines.split_terminator("\n\n").map(chunk).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of a response.
fn received(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("readable");
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("a head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, body.to_owned());
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        whole.push_str(&after[..length]);
        rest = after[length..].strip_prefix("\r\n").expect("an end of line");
    }
    (status, whole)
}

fn joined(chunks: &[Value], path: &str) -> String {
    chunks.iter().filter_map(|chunk| chunk.pointer(path)?.as_str()).collect()
}

#[test]
fn a_completion_is_what_generate_says() {
    let folder = Folder::new();
    let bytes = chatting(256);
    let server = Server::start(&folder.file("model", &bytes), &[]);
    let expected = text_of(&continuation(&bytes, &[BEGIN, 116, 256], 40));
    let body = json!({"model": "random", "prompt": "the", "max_tokens": 40, "temperature": 0});
    let (status, reply) = server.post("/v1/completions", &body);
    assert_eq!(status, 200, "{reply}");
    let text = reply["choices"][0]["text"].as_str().expect("a text");
    assert_eq!(text, expected.strip_suffix('\n').filter(|_| !text.ends_with('\n')).unwrap_or(&expected));
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    assert_eq!(reply["object"], "text_completion");
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 40, "total_tokens": 43});
    assert_eq!(reply["usage"], usage);

    // In pieces, with the numbers of tokens behind them.
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = server.stream("/v1/completions", &streamed);
    assert_eq!(joined(&chunks, "/choices/0/text"), text);
    assert!(chunks.len() > 5, "{chunks:?}");
    let last = chunks.last().expect("some");
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage));
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "length");

    // Tokens are as good as a text, and several prompts are answered in turn.
    let several = json!({"prompt": ["the", "x"], "max_tokens": 40, "temperature": 0});
    let (_, several) = server.post("/v1/completions", &several);
    assert_eq!(several["choices"][0]["text"], text);
    assert_eq!(several["choices"][1]["index"], 1);
    let tokens = json!({"prompt": [BEGIN, 116, 256], "max_tokens": 40, "temperature": 0});
    assert_eq!(server.post("/v1/completions", &tokens).1["choices"][0]["text"], text);

    // It ends before a stop text.
    let stop: String = text.chars().skip(5).take(2).collect();
    let before = &text[..text.find(&stop).expect("it was taken from there")];
    let stopped = json!({"prompt": "the", "max_tokens": 40, "temperature": 0, "stop": [stop, "never"]});
    let (_, stopped) = server.post("/v1/completions", &stopped);
    assert_eq!(
        (&stopped["choices"][0]["text"], &stopped["choices"][0]["finish_reason"]),
        (&json!(before), &json!("stop"))
    );

    // A seed says the same, also in a session that has run something else.
    let seeded = json!({"prompt": "the", "temperature": 1.5, "seed": 7, "top_p": 0.9});
    let said = || server.post("/v1/completions", &seeded).1["choices"][0]["text"].clone();
    assert_eq!(said(), said());
}

#[test]
fn a_chat_is_the_template_s() {
    let folder = Folder::new();
    let bytes = chatting(256);
    let server = Server::start(&folder.file("model", &bytes), &["--model-name", "tiny"]);
    let tokens = conversation(Some("s"), &[("a", "b")], "<end>c");
    let expected = answer(&bytes, &tokens, 20);
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let messages = json!([
        message("system", "s"),
        message("user", "a"),
        message("assistant", "b"),
        message("user", "<end>c")
    ]);
    let mut body =
        json!({"model": "tiny", "messages": messages, "max_completion_tokens": 20, "temperature": 0});
    let (status, reply) = server.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{reply}");
    assert_eq!(
        reply["choices"][0]["message"],
        json!({"role": "assistant", "content": expected, "refusal": null})
    );
    assert_eq!(reply["object"], "chat.completion");
    assert_eq!(reply["usage"]["prompt_tokens"], tokens.len());
    body["stream"] = json!(true);
    let chunks = server.stream("/v1/chat/completions", &body);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(joined(&chunks, "/choices/0/delta/content"), expected);
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    assert!(chunks.last().is_some_and(|chunk| chunk["choices"][0]["finish_reason"].is_string()));
}

#[test]
fn an_embedding_has_length_one_and_depends_on_its_text_alone() {
    let folder = Folder::new();
    let server = Server::start(&folder.file("model", &chatting(256)), &[]);
    let vectors = |input: Value, format: &str| {
        let (status, reply) =
            server.post("/v1/embeddings", &json!({"input": input, "encoding_format": format}));
        assert_eq!(status, 200, "{reply}");
        reply["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["embedding"].clone())
            .collect::<Vec<_>>()
    };
    let numbers = |vector: &Value| -> Vec<f64> {
        vector.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
    };
    let two = vectors(json!(["the one", "another"]), "float");
    let vector = numbers(&two[0]);
    assert_eq!(vector.len(), spec().hidden as usize);
    assert!((vector.iter().map(|number| number * number).sum::<f64>() - 1.0).abs() < 1e-5);
    server.post("/v1/completions", &json!({"prompt": "the one goes on"}));
    assert_eq!(vectors(json!("the one"), "float")[0], two[0]);
    assert_ne!(two[0], two[1]);
    // A completion behind an embedding is not confused by it.
    let base64 = vectors(json!("the one"), "base64")[0].as_str().expect("a text").to_owned();
    assert_eq!(base64.len(), (4 * vector.len()).div_ceil(3) * 4);
    let first = numbers(&two[0])[0] as f32;
    let digit = |index: usize| {
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        alphabet.find(char::from(base64.as_bytes()[index])).expect("a digit") as u32
    };
    let bits = (0..6).fold(0_u64, |bits, index| bits << 6 | u64::from(digit(index)));
    assert_eq!(((bits >> 4) as u32).swap_bytes(), first.to_bits());
}

#[test]
fn what_is_wrong_is_said_in_the_form_of_the_api() {
    let folder = Folder::new();
    let server = Server::start(&folder.file("model", &container(&spec(), Layout::Nr8k4)), &[]);
    let refused = |head: &str, body: &[u8], status: u16, part: &str| {
        let (found, text) = server.ask(head, body);
        assert_eq!(found, status, "{head}: {text}");
        let reply: Value = serde_json::from_str(&text).expect("JSON");
        let message = reply["error"]["message"].as_str().expect("a message");
        assert!(message.contains(part), "{part:?} in {message}");
        assert!(reply["error"]["type"].is_string() && reply["error"].get("code").is_some());
    };
    let json = "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json; charset=utf-8";
    refused(json, b"{", 400, "the body: expected JSON");
    refused(json, b"\xff", 400, "the body: expected JSON");
    refused(json, &[b"[".repeat(1000), b"]".repeat(1000)].concat(), 400, "recursion");
    refused(json, br#"{"n": 2}"#, 400, "n: not supported");
    refused(json, br#"{"model": "gpt"}"#, 404, "model: expected \"random\"");
    refused(json, format!(r#"{{"prompt": "{}"}}"#, "a".repeat(64)).as_bytes(), 400, "at most 64 tokens");
    refused(json, br#"{"prompt": [260]}"#, 400, "tokens below 260");
    refused(json, &vec![b' '; (4 << 20) + 1], 413, "at most 4194304 bytes");
    refused("POST /v1/completions HTTP/1.1", b"{}", 415, "Content-Type");
    refused(&format!("{json}\r\nOrigin: http://example.org"), b"{}", 403, "Origin");
    refused("GET /v1/completions HTTP/1.1", b"", 405, "expected POST, found GET");
    refused("POST /v1/models HTTP/1.1", b"", 405, "expected GET");
    refused("GET / HTTP/1.1", b"", 404, "nothing at this path");
    refused("GET /v1/models/other HTTP/1.1", b"", 404, "model");
    let chat = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json";
    let body = br#"{"messages": [{"role": "user", "content": "a"}]}"#;
    refused(chat, body, 400, "no chat template");
    refused(chat, b"{}", 400, "messages: expected a list");
    assert_eq!(server.ask("GET /health HTTP/1.1", b""), (200, r#"{"status":"ok"}"#.to_owned()));
    let (status, models) = server.ask("GET /v1/models HTTP/1.1", b"");
    assert!(status == 200 && models.contains(r#""id":"random""#), "{models}");
    assert_eq!(server.ask("GET /v1/models/random HTTP/1.1", b"").0, 200);

    // What is no HTTP, and a body of no end, end their connection alone.
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01 hello\r\n\r\n").expect("writable");
    let _ = stream.read_to_end(&mut Vec::new());
    let mut stream = server.connect();
    let _ = stream.write_all(format!("{json}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let written = (0..2000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(written < 2000, "it took {written} chunks");
    assert_eq!(server.ask("GET /health HTTP/1.1", b"").0, 200);
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let folder = Folder::new();
    let path = folder.file("model", &container(&spec(), Layout::Nr8k4));
    let server = Server::start(&path, &["--api-key", "secret"]);
    let models = |header: &str| server.ask(&format!("GET /v1/models HTTP/1.1{header}"), b"").0;
    assert_eq!(models(""), 401);
    assert_eq!(models("\r\nAuthorization: Bearer secre"), 401);
    assert_eq!(models("\r\nAuthorization: Bearer secret"), 200);
    assert_eq!(server.ask("GET /health HTTP/1.1", b"").0, 200);
    let mut command = program("serve", &path, &["--port", "0"]);
    let output = command.env("RESCOMP_API_KEY", "a b").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn clients_are_answered_in_turn_and_one_too_many_is_refused() {
    let folder = Folder::new();
    let server =
        Server::start(&folder.file("model", &chatting(1 << 14)), &["--queue", "2", "--context", "16384"]);
    let short = json!({"prompt": "the", "max_tokens": 20, "temperature": 0});
    let alone = server.post("/v1/completions", &short).1["choices"][0]["text"].clone();
    let together: Vec<Value> = std::thread::scope(|scope| {
        // Both may wait before the first is taken, so neither is refused.
        let ask = || server.post("/v1/completions", &short).1["choices"][0]["text"].clone();
        let both = [scope.spawn(ask), scope.spawn(ask)];
        both.map(|thread| thread.join().expect("answered")).to_vec()
    });
    assert_eq!(together, [alone.clone(), alone.clone()]);

    let long = json!({"prompt": "the", "max_tokens": 16000, "temperature": 0, "stream": true}).to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json";
    let mut first = server.send(head, long.as_bytes());
    first.read_exact(&mut [0; 200]).expect("it streams");
    let second = server.send(head, short.to_string().as_bytes());
    let _third = server.send(head, short.to_string().as_bytes());
    let start = Instant::now();
    // Both wait as soon as they have been read.
    std::thread::sleep(Duration::from_millis(500));
    let (status, reply) = server.post("/v1/completions", &short);
    assert_eq!((status, &reply["error"]["code"]), (503, &json!("busy")), "{reply}");
    // The first goes away: its generation ends long before its tokens are there, and the second is answered.
    drop(first);
    let (status, reply) = received(second);
    assert_eq!(status, 200, "{reply}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    assert_eq!(reply["choices"][0]["text"], alone);
}

#[test]
fn an_interrupt_ends_the_server_and_says_so_to_its_client() {
    let folder = Folder::new();
    let mut server = Server::start(&folder.file("model", &chatting(1 << 14)), &["--context", "16384"]);
    let long = json!({"prompt": "the", "max_tokens": 16000, "temperature": 0, "stream": true}).to_string();
    let mut stream =
        server.send("POST /v1/completions HTTP/1.1\r\nContent-Type: application/json", long.as_bytes());
    stream.read_exact(&mut [0; 200]).expect("it streams");
    let id = server.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill starts").success());
    assert_eq!(server.child.wait().expect("ends").code(), Some(130));
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the stream ends");
    assert!(rest.contains("the server was stopped") && !rest.contains("[DONE]"), "{rest}");
}

#[test]
fn a_client_that_goes_away_before_its_answer_ends_it() {
    let folder = Folder::new();
    let server = Server::start(&folder.file("model", &chatting(1 << 16)), &["--context", "65536"]);
    // Minutes of work.
    let long = json!({"prompt": "the", "max_tokens": 60000, "temperature": 0}).to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json";
    let gone = server.send(head, long.as_bytes());
    std::thread::sleep(Duration::from_millis(500));
    drop(gone);
    let short = json!({"prompt": "the", "max_tokens": 4, "temperature": 0});
    let start = Instant::now();
    assert_eq!(server.post("/v1/completions", &short).0, 200);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}
