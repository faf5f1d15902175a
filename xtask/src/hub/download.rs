//! Asks the hub and downloads from it, through hf-hub.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::name::{self, HubName};
use super::settings::Settings;
use super::{repository, say};
use crate::error::{Error, Exit};

/// Times that a file is tried once more where the line breaks, after so long; what has come stays. (The crate's own retries are not used: where
/// nothing came between two of them it goes on at the file's beginning, behind what is there.)
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// How many bytes of a file are digested at once.
const PIECE: usize = 1 << 20;

/// What the hub says of a revision.
pub(super) struct Found {
    /// The commit that it means.
    pub(super) sha: String,
    /// The files of the commit.
    pub(super) files: BTreeSet<String>,
}

/// A line to the hub for one model.
pub(super) struct Download<'a> {
    name: &'a HubName,
    api: Api,
    /// The model's folder in the cache.
    folder: PathBuf,
}

impl<'a> Download<'a> {
    /// # Errors
    /// `Exit::Missing` where the client cannot be made.
    pub(super) fn new(settings: &Settings, name: &'a HubName) -> Result<Download<'a>, Error> {
        let mut builder = ApiBuilder::from_cache(hf_hub::Cache::new(settings.cache.clone()))
            .with_token(settings.token.clone())
            .with_user_agent("rescomp", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|error| failed(name, "client", &error))?;
        let folder = settings.cache.join(repository(name, &name.revision).folder_name());
        Ok(Download { name, api, folder })
    }

    /// Which commit the revision means, and its files.
    ///
    /// # Errors
    /// `Exit::Input` where there is no such model or revision, or it may not be read; `Exit::Missing` where the hub cannot be reached.
    pub(super) fn commit(&self) -> Result<Found, Error> {
        let repo = self.api.repo(repository(self.name, &self.name.revision));
        let info = repo.info().map_err(|error| failed(self.name, "its list of files", &error))?;
        // It becomes a folder of the cache.
        if !name::is_commit(&info.sha) {
            let found = format!("expected a commit of 40 hexadecimal digits, found {:?}", info.sha);
            return Err(Error::missing(format!("{}: the hub's answer: {found}", self.name)));
        }
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Found { sha: info.sha, files })
    }

    /// Downloads a file of a commit into the cache, with a bar; a part that an earlier run left is completed.
    ///
    /// # Errors
    /// As [`Download::commit`]; `Exit::Disk` where the cache cannot be written, `Exit::Failed` for a file that is not what the hub says.
    pub(super) fn file(&self, commit: &str, file: &str) -> Result<(), Error> {
        let repo = self.api.repo(repository(self.name, commit));
        let mut tries = 0..RETRIES;
        let path = loop {
            match (repo.download_with_progress(file, Bar::new(self.name, file)), tries.next()) {
                (Ok(path), _) => break path,
                // A part that is whole, or longer than the file, cannot be completed: it is downloaded anew.
                (Err(error), Some(_)) if is_bad_part(&error) => {
                    self.remove_part(&repo.url(file)).map_err(|error| failed(self.name, file, &error))?;
                }
                (Err(error), Some(count)) if is_broken_line(&error) => {
                    say(&format!("note: {}: {file}: {error}; once more", self.name));
                    std::thread::sleep(PAUSE * (count + 1));
                }
                (Err(error), _) => return Err(failed(self.name, file, &error)),
            }
        };
        self.check_digest(file, &path)
    }

    fn remove_part(&self, url: &str) -> Result<(), ApiError> {
        let etag = self.api.metadata(url)?.etag().to_owned();
        let part = self.folder.join("blobs").join(etag).with_extension("part");
        Ok(std::fs::remove_file(part)?)
    }

    /// Large files are named in the cache by their SHA-256: what came must have it.
    fn check_digest(&self, file: &str, path: &Path) -> Result<(), Error> {
        let disk = |error| Error::disk("read", path, &error);
        let blob = path.canonicalize().map_err(disk)?;
        let name = blob.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        let mut digest = Sha256::new();
        let mut opened = std::fs::File::open(&blob).map_err(disk)?;
        let mut piece = vec![0; PIECE];
        loop {
            match std::io::Read::read(&mut opened, &mut piece).map_err(disk)? {
                0 => break,
                count => digest.update(&piece[..count]),
            }
        }
        let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == name {
            return Ok(());
        }
        for damaged in [path, &blob] {
            std::fs::remove_file(damaged).map_err(|error| Error::disk("remove", damaged, &error))?;
        }
        let message =
            format!("{}: {file}: expected the SHA-256 {name}, found {found}; it was removed", self.name);
        Err(Error::failed(message).remedy("the same command downloads it again"))
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the same request may go well another time.
fn is_broken_line(error: &ApiError) -> bool {
    match error {
        ApiError::RequestError(_) => status(error).is_none_or(|status| status >= 500),
        ApiError::IoError(error) => matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::TimedOut
                | ErrorKind::BrokenPipe
                | ErrorKind::Other
        ),
        _ => false,
    }
}

/// Whether what an earlier run left cannot be completed: there is nothing behind its end.
fn is_bad_part(error: &ApiError) -> bool {
    matches!(error, ApiError::InvalidResume) || status(error) == Some(416)
}

fn failed(name: &HubName, what: &str, error: &ApiError) -> Error {
    let message = format!("{name}: {what}: {error}");
    match (status(error), error) {
        (Some(401 | 403), _) => Error::input(message)
            .remedy("there is no such model, or it needs a token that may read it: set HF_TOKEN"),
        (Some(404), _) => {
            Error::input(message).remedy("see that owner, name, revision and file are spelled right")
        }
        (_, ApiError::IoError(_) | ApiError::LockAcquisition(_)) => Error::new(Exit::Disk, message),
        _ => Error::missing(message),
    }
}

/// A bar on standard error, or a line where that is no terminal.
struct Bar {
    bar: ProgressBar,
    model: String,
    /// The line was written.
    said: bool,
}

impl Bar {
    fn new(name: &HubName, file: &str) -> Bar {
        let bar = ProgressBar::new(0);
        // The template is a constant; should it be wrong, the default style shows as much.
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix:>12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} (left {eta}) {msg}",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix("downloading");
        bar.set_message(file.to_owned());
        Bar { bar, model: name.to_string(), said: false }
    }
}

impl Progress for Bar {
    // Also heard where a broken line is taken up again.
    fn init(&mut self, size: usize, filename: &str) {
        self.bar.set_length(size as u64);
        self.bar.set_position(0);
        if self.bar.is_hidden() && !self.said {
            say(&format!("downloading {}: {filename}, {}", self.model, HumanBytes(size as u64)));
            self.said = true;
        }
    }

    fn update(&mut self, size: usize) {
        self.bar.inc(size as u64);
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}
