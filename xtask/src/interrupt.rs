//! Ctrl-C: partial files are removed and the process ends with `Exit::Interrupted`.
//!
//! A writer writes to a temporary file in the destination's folder and renames it when it is complete, so a reader never
//! sees half a file. The rename does not help the temporary file itself when a signal ends the process (destructors do not
//! run), so its path is registered here while it exists.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rescomp_quantizer::files;

use crate::error::{Error, Exit};

static PARTIAL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static REMEDY: Mutex<Option<String>> = Mutex::new(None);

fn partial() -> MutexGuard<'static, Vec<PathBuf>> {
    PARTIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the handler of SIGINT (and of Ctrl-C on Windows). Child processes share the terminal and get the signal too.
///
/// # Errors
/// `Exit::Failed` when the system refuses the handler.
pub(crate) fn install() -> Result<(), Error> {
    ctrlc::set_handler(|| {
        // The lock is kept until the process ends, so that no new partial file is registered after the sweep.
        let mut paths = partial();
        remove_all(&mut paths);
        let remedy = REMEDY.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let remedy = remedy.map(|remedy| format!("\n  remedy: {remedy}")).unwrap_or_default();
        crate::output::note(&format!("error: interrupted{remedy}"));
        std::process::exit(i32::from(Exit::Interrupted.code()));
    })
    .map_err(|source| Error::failed("cannot install the handler of Ctrl-C").caused_by(&source))
}

/// What an interrupted user can do; `None` where there is nothing but to start again.
pub(crate) fn set_remedy(remedy: Option<String>) {
    *REMEDY.lock().unwrap_or_else(PoisonError::into_inner) = remedy;
}

fn remove_all(paths: &mut Vec<PathBuf>) {
    for path in paths.drain(..) {
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
}

/// A file or folder that is removed when the process is interrupted while this value lives.
pub(crate) struct Partial(PathBuf);

impl Partial {
    /// Registers `path`; it need not exist yet.
    pub(crate) fn new(path: &Path) -> Partial {
        partial().push(path.to_path_buf());
        Partial(path.to_path_buf())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let mut paths = partial();
        if let Some(position) = paths.iter().position(|path| *path == self.0) {
            paths.swap_remove(position);
        }
    }
}

/// Writes `bytes` to `path` so that either the whole file or the old state is there, also after Ctrl-C.
///
/// # Errors
/// `Exit::Disk` naming the file.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes, files::FILE)
}

/// As [`write_whole`], for a program: whoever may read it may run it.
///
/// # Errors
/// `Exit::Disk` naming the file.
pub(crate) fn write_program(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes, files::PROGRAM)
}

/// As [`write_whole`], for a secret: nobody else may read it, and a file that is there already stays.
///
/// # Errors
/// `Exit::Disk` naming the file.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    files::create(path, bytes, files::SECRET, Partial::new)
        .map_err(|source| Error::disk("write", path, &source))
}

fn replace(path: &Path, bytes: &[u8], permissions: u32) -> Result<(), Error> {
    files::replace(path, bytes, permissions, Partial::new)
        .map_err(|source| Error::disk("write", path, &source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_written_and_nothing_else_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("deep/report.json");
        write_whole(&path, b"{}").expect("writable");
        write_whole(&path, b"{\"a\":1}").expect("writable twice");
        assert_eq!(std::fs::read(&path).expect("readable"), b"{\"a\":1}");
        let names = std::fs::read_dir(folder.path().join("deep")).expect("a folder").count();
        assert_eq!(names, 1);
    }

    #[test]
    fn registered_paths_are_removed_and_released_ones_are_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (kept, gone) = (folder.path().join("kept"), folder.path().join("gone"));
        std::fs::write(&kept, "k").expect("writable");
        std::fs::write(&gone, "g").expect("writable");
        let released = Partial::new(&kept);
        let held = Partial::new(&gone);
        drop(released);
        // Only this test's own paths are swept: other tests register theirs at the same time.
        let mut mine: Vec<PathBuf> =
            partial().iter().filter(|path| path.starts_with(folder.path())).cloned().collect();
        assert_eq!(mine, std::slice::from_ref(&gone));
        remove_all(&mut mine);
        assert!(kept.exists() && !gone.exists());
        drop(held);
    }
}
