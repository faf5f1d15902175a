//! What `pack` wrote, as it is copied: the files of `SHA256SUMS`, each with the digest that is written there.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::check::{CONTAINER_FILE, RUNNER_FILE};
use crate::error::Error;

/// Lists the digests of the others.
pub(super) const SUMS_FILE: &str = "SHA256SUMS";

/// A file of a bundle.
#[derive(Clone, Debug)]
pub(super) struct BundleFile {
    /// Name in the folder.
    pub(super) name: String,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
}

/// A complete folder, whose digests are right.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    /// Sixteen hexadecimal digits that follow from the contents of all files.
    pub(super) id: String,
    /// All files, the sums last.
    pub(super) files: Vec<BundleFile>,
}

impl Bundle {
    /// Reads a folder.
    ///
    /// # Errors
    /// `Exit::Disk` for a file that cannot be read, `Exit::Input` for sums that are none or are another file's.
    pub(super) fn read(folder: &Path) -> Result<Bundle, Error> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| {
                Error::disk("read", &path, &error)
                    .remedy("`cargo xtask pack` writes the folder; --from names another")
            })
        };
        let sums = read(SUMS_FILE)?;
        let wrong = |line: &str, why: &str| {
            let path = folder.join(SUMS_FILE);
            Error::input(format!("{}: line {line:?}: {why}", path.display()))
        };
        let mut files = Vec::new();
        for line in String::from_utf8_lossy(&sums).lines() {
            let expected = "expected 64 hexadecimal digits, two spaces and a file's name";
            let (digest, name) = line.split_once("  ").ok_or_else(|| wrong(line, expected))?;
            if digest.len() != 64 || !is_plain(name) {
                return Err(wrong(line, expected));
            }
            let bytes = read(name)?;
            let found = digest_of(&bytes);
            if found != digest {
                return Err(
                    wrong(line, &format!("the file has digest {found}")).remedy("pack the model again")
                );
            }
            files.push(BundleFile { name: name.to_owned(), bytes });
        }
        for needed in [CONTAINER_FILE, RUNNER_FILE] {
            if !files.iter().any(|file| file.name == needed) {
                return Err(Error::input(format!("{}: no {needed} in it", folder.join(SUMS_FILE).display())));
            }
        }
        let id = digest_of(&sums)[..16].to_owned();
        files.push(BundleFile { name: SUMS_FILE.to_owned(), bytes: sums });
        Ok(Bundle { id, files })
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a name stays in its folder and is no option.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with(['.', '-']) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_what_its_sums_say() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writable");
        let line = |name: &str, text: &str| format!("{}  {name}\n", digest_of(text.as_bytes()));
        write(CONTAINER_FILE, "model");
        write(RUNNER_FILE, "program");
        write(SUMS_FILE, &(line(CONTAINER_FILE, "model") + &line(RUNNER_FILE, "program")));
        let bundle = Bundle::read(folder.path()).expect("complete");
        assert_eq!(bundle.files.len(), 3);
        assert_eq!(
            bundle.bytes(),
            12 + 2 * (64 + 3) + CONTAINER_FILE.len() as u64 + RUNNER_FILE.len() as u64
        );

        let refused = |sums: &str| {
            write(SUMS_FILE, sums);
            Bundle::read(folder.path()).expect_err("refused").to_string()
        };
        assert!(refused(&line(CONTAINER_FILE, "other")).contains("the file has digest"));
        assert!(refused(&line(CONTAINER_FILE, "model")).contains("no rescomp in it"));
        assert!(refused(&line("../model.rescomp", "model")).contains("a file's name"));
        assert!(refused(&line("-rf", "model")).contains("a file's name"));
        assert!(refused("model.rescomp\n").contains("expected 64 hexadecimal digits"));
        assert!(refused(&line("gone", "model")).contains("gone"));
    }
}
