//! A server that answers as the Hugging Face hub does where models are downloaded: a commit's list of files, and parts of these.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use sha2::{Digest, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has and what it was asked.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Path and range of every request for a file.
    pub(crate) asked: Vec<(String, String)>,
    /// The token of the last request.
    pub(crate) token: Option<String>,
    /// The line breaks once after so many bytes of a file that has more.
    pub(crate) breaks_after: Option<usize>,
    /// Bytes are changed on their way.
    pub(crate) damages: bool,
}

/// Listens until the test ends.
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    pub(crate) endpoint: String,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// For the model `some-one/stories`.
    pub(crate) fn new(files: BTreeMap<String, Vec<u8>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own business.
                let _ = answer(&stream, &shared);
            }
        });
        Server { state, endpoint }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn answer(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut headers = BTreeMap::new();
    for line in lines {
        match line?.split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut state = lock(state);
    state.token = headers.get("authorization").cloned();
    let listing = [
        format!("/api/models/some-one/stories/revision/{COMMIT}"),
        "/api/models/some-one/stories/revision/main".into(),
    ];
    if listing.contains(&path) {
        let siblings: Vec<_> = state.files.keys().map(|name| json!({ "rfilename": name })).collect();
        let body = json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let name =
        path.strip_prefix(&format!("/some-one/stories/resolve/{COMMIT}/")).unwrap_or_default().to_owned();
    let range = headers.get("range").cloned().unwrap_or_default();
    state.asked.push((name.clone(), range.clone()));
    let Some(file) = state.files.get(&name).cloned() else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (start, end) =
        range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let start: usize = start.parse().expect("a number");
    let end = end.parse().map_or(file.len(), |end: usize| (end + 1).min(file.len()));
    if start >= file.len() {
        return write!(
            stream,
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let etag: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    // Small files are named by git, large ones by their digest.
    let etag = if name.ends_with(".json") { &etag[..40] } else { &etag };
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nETag: \"{etag}\"\r\n\
         x-repo-commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        end - start,
        end - 1,
        file.len()
    )?;
    let mut body = file[start..end].to_vec();
    if state.damages && body.len() > 1 {
        body[0] ^= 1;
    }
    if let Some(most) = state.breaks_after.filter(|most| body.len() > *most) {
        state.breaks_after = None;
        body.truncate(most);
    }
    stream.write_all(&body)
}
