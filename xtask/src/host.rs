//! The host as a machine: its kernels, its threads, and progress on its terminal.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rescomp_runtime::kernels;
use rescomp_runtime::threads::ThreadPool;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// A pool of `threads` threads, or of one for each processor; rayon's pool is made the same size.
///
/// # Errors
/// `Exit::Failed` when the system refuses the threads.
pub(crate) fn thread_pool(threads: Option<usize>) -> Result<ThreadPool, Error> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let refused = |source: &dyn std::error::Error| {
        Error::failed(format!("cannot start {threads} threads")).caused_by(source)
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|source| refused(&source))?;
    ThreadPool::new(threads).map_err(|source| refused(&source))
}

/// The machine on a pool.
pub(crate) fn machine(pool: &ThreadPool) -> rescomp_runtime::Machine<'_> {
    rescomp_runtime::Machine { kernels: kernels::best(), executor: pool }
}

/// SHA-256 of this program's file, in hexadecimal digits: another build may compute other bits.
///
/// # Errors
/// `Exit::Disk` when the file cannot be read.
pub(crate) fn program_digest() -> Result<String, Error> {
    // Linux keeps a running program readable here, even where a newer build has taken its place.
    let running = Path::new("/proc/self/exe");
    let path = match running.exists() {
        true => running.to_owned(),
        false => std::env::current_exe()
            .map_err(|source| Error::disk("find", Path::new("this program"), &source))?,
    };
    let bytes = std::fs::read(&path).map_err(|source| Error::disk("read", &path, &source))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A bar on standard error; nothing where that is no terminal.
pub(crate) fn progress(task: &'static str, steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    // The template is a constant; should it be wrong, the default style shows as much.
    if let Ok(style) =
        ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {msg} {elapsed} (left {eta})")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(task);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
