//! Printing that never panics, and writing whole files.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt;

/// Writes text to standard output at once.
///
/// A reader that went away (`rescomp generate model | head -1`) ends the process with `Exit::Disk`, without a message:
/// carrying on would be work that nobody reads, and success would be a lie. So does a full disk, with a message.
pub(crate) fn text(text: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            note(&format!("error: standard output: {error}"));
        }
        std::process::exit(i32::from(Exit::Disk.code()));
    }
}

/// Text on its way to standard output, whose last line is to be ended.
pub(crate) struct Lines {
    /// Whether the next character begins a line.
    at_line_start: bool,
}

impl Lines {
    /// Behind a text that was printed.
    pub(crate) fn after(before: &str) -> Lines {
        Lines { at_line_start: before.is_empty() || before.ends_with('\n') }
    }

    /// Prints some text.
    pub(crate) fn print(&mut self, piece: &str) {
        if !piece.is_empty() {
            text(piece);
            self.at_line_start = piece.ends_with('\n');
        }
    }

    /// Ends the line.
    pub(crate) fn end(self) {
        if !self.at_line_start {
            text("\n");
        }
    }
}

/// Writes one line to standard error; nothing can be done when that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A report as JSON, with a newline at its end.
///
/// # Errors
/// `Exit::Failed`, should the report have no JSON.
pub(crate) fn json(report: &impl serde::Serialize) -> Result<String, Error> {
    let json =
        serde_json::to_string_pretty(report).map_err(|error| Error::system("print the report", &error))?;
    Ok(json + "\n")
}

/// Writes `text` to `path` so that either the whole file or the old state is there: beside its place first, then renamed.
///
/// # Errors
/// `Exit::Disk` naming the file.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |error: io::Error| Error::disk(path, format_args!("cannot write: {error}"));
    let Some(name) = path.file_name() else {
        return Err(failed(io::Error::other("the path names no file")));
    };
    let mut partial_name = name.to_owned();
    partial_name.push(format!(".{}.partial", std::process::id()));
    let partial = interrupt::Partial::new(path.with_file_name(partial_name));
    let mut file = File::create_new(partial.path()).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    std::fs::rename(partial.path(), path).map_err(failed)?;
    // A rename outlives a loss of power once the folder is on the disk, too; file systems that have no such request refuse it as invalid.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced.map_err(failed),
    }
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
