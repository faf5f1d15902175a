//! Ctrl-C: ends the process with `Exit::Interrupted` and leaves no partial file. `generate` asks to end by itself instead, so
//! that it can finish its line and say what it did; so does `chat` as long as it answers, and `serve`. A second Ctrl-C ends them at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::exit::Exit;
use crate::output;

/// The file being written; there is one at most.
static PARTIAL: Mutex<Option<PathBuf>> = Mutex::new(None);
static ENDS_BY_ITSELF: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

fn partial() -> MutexGuard<'static, Option<PathBuf>> {
    PARTIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the handler.
///
/// # Errors
/// `Exit::Failed` when the system refuses it.
pub(crate) fn install() -> Result<(), Error> {
    ctrlc::set_handler(|| {
        if !REQUESTED.swap(true, Ordering::Relaxed) && ENDS_BY_ITSELF.load(Ordering::Relaxed) {
            return;
        }
        // The lock is kept until the process ends, so that no file appears after the sweep.
        let path = partial();
        if let Some(path) = path.as_deref() {
            let _ = std::fs::remove_file(path);
        }
        output::note("error: interrupted");
        std::process::exit(i32::from(Exit::Interrupted.code()));
    })
    .map_err(|error| Error::system("install the handler of Ctrl-C", &error))
}

/// From now on the command looks at [`requested`] and ends by itself.
pub(crate) fn end_by_itself() {
    ENDS_BY_ITSELF.store(true, Ordering::Relaxed);
}

/// From now on Ctrl-C ends the process, as at first; one that was pressed is forgotten.
pub(crate) fn end_at_once() {
    ENDS_BY_ITSELF.store(false, Ordering::Relaxed);
    REQUESTED.store(false, Ordering::Relaxed);
}

/// Whether Ctrl-C was pressed.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// A file that is removed when this value is dropped (there is nothing to remove once it was renamed) and on Ctrl-C.
pub(crate) struct Partial(PathBuf);

impl Partial {
    /// Registers the path; the file need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Partial {
        *partial() = Some(path.clone());
        Partial(path)
    }

    /// The path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let mut registered = partial();
        let _ = std::fs::remove_file(&self.0);
        *registered = None;
    }
}
