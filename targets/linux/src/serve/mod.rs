//! `rescomp serve`: an HTTP server that speaks as OpenAI's does (docs/serve.md).
//!
//! ```text
//! a thread:     server (connections) -> routes (what is asked for) -> parameters (its JSON, checked) -> a job in the queue
//! main thread:  worker takes one job after the other, runs it on the one session, sends events (of an encoder: embedding)
//! the thread:   replies (events to JSON, whole or streamed)
//! ```
//! The connections' thread computes nothing and the main thread knows nothing of HTTP. A client that goes away drops the receiver of its
//! events, which ends its job after the next token.

mod embedding;
mod fields;
mod job;
mod key;
mod parameters;
mod replies;
mod routes;
mod server;
mod worker;

use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rescomp_formats::container::Integrity;

use crate::answer::Answerer;
use crate::embedder;
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::ServeFlags;
use crate::interrupt;
use crate::machine::{self, Engine};
use crate::mapped;
use crate::output;
use crate::trust::Trust;
use embedding::EmbeddingWorker;
use job::Job;
use key::Key;
use server::About;
use worker::Worker;

/// How often the main thread looks for Ctrl-C where there is nothing to do.
const IDLE: Duration = Duration::from_millis(50);
/// How long answers that Ctrl-C cut short may take to reach their clients.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// Where the container or the command line is wrong, or the address is not to be had.
pub(crate) fn run(flags: &ServeFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let key = flags.api_key.as_deref().map(Key::new).transpose()?;
    let file = mapped::open(path, flags.machine.load)?;
    let trust = Trust::new(&flags.machine.trust)?;
    let container = trust.open(path, &file, Integrity::Crc)?;
    embedder::expect_texts(path, &container)?;
    let engine = Engine::new(&flags.machine, &container)?;
    let encodes = container.manifest().spec.architecture.is_encoder();
    let limits = machine::conversation_limits(&container, flags.context);
    let mut memory = match encodes {
        true => embedder::memory(path, &container, limits.context)?,
        false => machine::session_memory(path, &container, limits)?,
    };
    let mut run: Box<dyn FnMut(Job)> = match encodes {
        true => {
            let encoder = embedder::encoder(path, &container, &engine, limits.context, &mut memory)?;
            let mut worker = EmbeddingWorker::new(path, &container, encoder);
            Box::new(move |job| worker.run(job))
        }
        false => {
            let session = machine::session(path, &container, &engine, limits, memory.blocks())?;
            let mut worker = Worker::new(Answerer::new(path, &container, session), flags.date);
            Box::new(move |job| worker.run(job))
        }
    };
    trust.remember(&container)?;

    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let model = flags
        .model_name
        .clone()
        .unwrap_or_else(|| container.manifest().provenance.checkpoint.as_str().to_owned());
    let (sender, jobs) = mpsc::sync_channel(flags.queue);
    let about = About { model: model.clone(), created, key, jobs: sender };
    let address = SocketAddr::new(flags.host, flags.port);
    let (server, address) = server::start(address, about)?;
    if !flags.host.is_loopback() && flags.api_key.is_none() {
        output::note("warning: whoever reaches this address can use the model: give --api-key");
    }
    interrupt::end_by_itself();
    output::note(&format!("kernels: {}, threads: {}", engine.kernels().name, engine.threads()));
    output::note(&format!("serving {model:?} on http://{address}/v1"));

    while !interrupt::requested() {
        match jobs.recv_timeout(IDLE) {
            Ok(job) => run(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // Jobs that wait are answered with an error as their senders are dropped.
    drop(jobs);
    server.end(LAST_WORDS);
    match interrupt::requested() {
        true => Ok(Exit::Interrupted),
        false => Err(Error::failed(path, "the server's thread ended")),
    }
}
