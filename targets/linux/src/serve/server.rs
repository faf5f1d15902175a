//! The connections: a thread of their own, as many at once as there is room for, each read with a limit of time.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

use super::job::Job;
use super::key::Key;
use super::routes;
use crate::error::Error;

/// Most connections at once; more wait until one ends.
const MOST_CONNECTIONS: usize = 64;
/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Most bytes of the head of a request, and of what is read ahead.
const HEAD_BYTES: usize = 64 << 10;
/// What is waited for before the next connection where the system has no more files to give.
const PAUSE: Duration = Duration::from_millis(50);
/// For what is written last to leave the process.
const FLUSH: Duration = Duration::from_millis(20);

/// What the server knows of the model.
pub(super) struct About {
    /// The name that requests may give it.
    pub(super) model: String,
    /// Since when it is served, in seconds of Unix.
    pub(super) created: u64,
    pub(super) key: Option<Key>,
    /// The main thread's queue.
    pub(super) jobs: SyncSender<Job>,
}

/// The running server.
pub(super) struct Server {
    in_flight: Arc<AtomicUsize>,
}

/// Counts a request as long as it lives.
pub(super) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(count: &Arc<AtomicUsize>) -> InFlight {
        count.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Listens, and serves on a thread of its own; returns the address, whose port the system chose where it was 0.
///
/// # Errors
/// `Exit::Failed` where the address is not to be had, or the system refuses a thread.
pub(super) fn start(address: SocketAddr, about: About) -> Result<(Server, SocketAddr), Error> {
    let doing = format!("listen on {address}");
    let failed = |error: io::Error| Error::system(&doing, &error);
    let listener = StdListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let in_flight = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&in_flight);
    thread::Builder::new()
        .name("connections".to_owned())
        .spawn(move || runtime.block_on(accept_all(listener, Arc::new(about), count)))
        .map_err(|error| Error::system("start a thread", &error))?;
    Ok((Server { in_flight }, address))
}

impl Server {
    /// Waits for answers that are under way, but not long.
    pub(super) fn end(self, patience: Duration) {
        let start = Instant::now();
        while self.in_flight.load(Ordering::SeqCst) > 0 && start.elapsed() < patience {
            thread::sleep(FLUSH);
        }
        thread::sleep(FLUSH);
    }
}

async fn accept_all(listener: StdListener, about: Arc<About>, in_flight: Arc<AtomicUsize>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (about, in_flight) = (Arc::clone(&about), Arc::clone(&in_flight));
        tokio::spawn(async move {
            serve(stream, about, in_flight).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, about: Arc<About>, in_flight: Arc<AtomicUsize>) {
    // A token is a small packet that should not wait for the next.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let counted = InFlight::new(&in_flight);
        routes::answer(request, Arc::clone(&about), counted)
    });
    // What goes wrong with a connection is its client's to see.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
