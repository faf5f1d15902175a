//! Writing files so that the old one or the new one is there whole, whenever the program is killed or the power fails.
//!
//! ```text
//! a temporary file in the same folder -> its bytes to the disk -> renamed over the old one -> the folder to the disk
//! ```
//! Until the rename there is the old file, afterwards the new one; the last step makes the rename outlive a loss of power. What a kill
//! may leave behind is a temporary file, whose name begins with a dot.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Permissions of a file, of which the system takes the user's mask away.
pub const FILE: u32 = 0o666;
/// Permissions of a program: whoever may read it may run it.
pub const PROGRAM: u32 = 0o777;

/// Permissions of a secret: for its owner alone.
pub const SECRET: u32 = 0o600;

/// Puts `bytes` in the place of the file at `path`, whose folder is made where it is missing. `partial` hears of the temporary file; what
/// it returns is kept until that has its name.
///
/// # Errors
/// What the operating system said. The old file, or none, is there then.
pub fn replace<Kept>(
    path: &Path,
    bytes: &[u8],
    permissions: u32,
    partial: impl FnOnce(&Path) -> Kept,
) -> io::Result<()> {
    place(path, bytes, permissions, partial, |file| file.persist(path).map_err(|error| error.error))
}

/// As [`replace`], where there is no file yet: one that is there stays, and is an error.
///
/// # Errors
/// What the operating system said.
pub fn create<Kept>(
    path: &Path,
    bytes: &[u8],
    permissions: u32,
    partial: impl FnOnce(&Path) -> Kept,
) -> io::Result<()> {
    place(path, bytes, permissions, partial, |file| file.persist_noclobber(path).map_err(|error| error.error))
}

/// As [`replace`], for a file that `write` writes and `check` then reads under its temporary name: what it refuses is removed.
///
/// # Errors
/// What the operating system or `check` said.
pub fn replace_checked<Kept, Refused: From<io::Error>>(
    path: &Path,
    permissions: u32,
    partial: impl FnOnce(&Path) -> Kept,
    write: impl FnOnce(&mut File) -> io::Result<()>,
    check: impl FnOnce(&Path) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let folder = folder_of(path);
    make_folder(folder)?;
    let mut file = temporary(folder, permissions)?;
    let _kept = partial(file.path());
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    check(file.path())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(sync_folder(folder)?)
}

fn temporary(folder: &Path, permissions: u32) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(permissions));
    #[cfg(not(unix))]
    let _ = permissions;
    builder.tempfile_in(folder)
}

fn place<Kept>(
    path: &Path,
    bytes: &[u8],
    permissions: u32,
    partial: impl FnOnce(&Path) -> Kept,
    named: impl FnOnce(NamedTempFile) -> io::Result<File>,
) -> io::Result<()> {
    let folder = folder_of(path);
    make_folder(folder)?;
    let mut file = temporary(folder, permissions)?;
    let _kept = partial(file.path());
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    named(file)?;
    sync_folder(folder)
}

/// Makes a folder and those above it, and brings each to the disk.
///
/// # Errors
/// What the operating system said.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).collect();
    std::fs::create_dir_all(folder)?;
    missing.into_iter().rev().try_for_each(|folder| sync_folder(folder_of(folder)))
}

/// The folder of a file or folder.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Brings the names in a folder to the disk. Some file systems have no such request: they refuse it as invalid or unsupported, and then
/// there is nothing to ask for.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some/deep/file");
        let mut partial = None;
        replace(&path, b"old", FILE, |path| partial = Some(path.to_owned())).unwrap();
        replace(&path, b"new", PROGRAM, |_| ()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder_of(&path)).unwrap().count(), 1);
        let partial = partial.unwrap();
        assert!(partial.parent() == path.parent() && !partial.exists());
    }

    #[test]
    fn what_a_check_refuses_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let write = |text: &'static [u8]| move |file: &mut File| file.write_all(text);
        let check = |path: &Path| match std::fs::read(path)?.as_slice() {
            b"good" => Ok(()),
            _ => Err(io::Error::other("refused")),
        };
        replace_checked(&path, FILE, |_| (), write(b"good"), check).unwrap();
        assert!(replace_checked(&path, FILE, |_| (), write(b"bad"), check).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"good");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "old").unwrap();
        // Below a file there is no folder; a folder is not replaced by a file.
        assert!(replace(&file.join("below"), b"new", FILE, |_| ()).is_err());
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(replace(&folder.path().join("folder"), b"new", FILE, |_| ()).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
