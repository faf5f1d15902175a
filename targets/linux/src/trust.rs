//! Whose containers are run, and how new they must be.
//!
//! With a trusted key, built in (`RESCOMP_TRUSTED_KEY` when the program was compiled) or given at start, nothing else is loaded, and
//! nothing that is older than what ran here before: the highest release of each model is kept in a small file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey;
use rescomp_formats::container::{CheckedContainer, Container, Integrity, TrustedKey};
use rescomp_formats::manifest::Manifest;

use crate::error::Error;
use crate::flags::TrustFlags;
use crate::output;

/// The key that this program was built with, 64 hexadecimal digits.
const BUILT_IN: Option<&str> = option_env!("RESCOMP_TRUSTED_KEY");

/// Most bytes of a file of releases: thousands of models.
const MOST_STATE_BYTES: u64 = 1 << 20;

/// Who is trusted.
#[derive(Debug)]
pub(crate) struct Trust {
    /// The one key, where there is one, and the file of releases.
    key: Option<(TrustedKey, PathBuf)>,
}

impl Trust {
    /// As this program was built and the command line says.
    ///
    /// # Errors
    /// `Exit::Input` for what is no key or another one than the built-in one, `Exit::Disk` for a key that cannot be read.
    pub(crate) fn new(flags: &TrustFlags) -> Result<Trust, Error> {
        let key = trusted_key(BUILT_IN, flags.trusted_key.as_deref())?;
        Ok(Trust { key: key.map(|key| state(flags).map(|state| (key, state))).transpose()? })
    }

    /// Opens and checks a container, as far as it is trusted. Looking at a container and checking it changes nothing: what is newer than
    /// all before counts when it is used ([`Trust::remember`]).
    ///
    /// # Errors
    /// `Exit::Input` naming the file and the byte that is wrong, or why it is not trusted; `Exit::Disk` for the file of releases.
    pub(crate) fn open<'a>(
        &self,
        path: &Path,
        file: &'a [u8],
        integrity: Integrity,
    ) -> Result<CheckedContainer<'a>, Error> {
        let wrong = |error| Error::input(path, error);
        let container = match &self.key {
            None => Container::open(file).map_err(wrong)?,
            Some((key, state)) => {
                // Its signature says that the name in its manifest is right; how new it must be depends on that name.
                let container = Container::open_trusted(file, key, 0).map_err(wrong)?;
                let least = releases(state)?.get(&line(key, container.manifest())).copied();
                container.require_release(least.unwrap_or(0)).map_err(wrong)?;
                container
            }
        };
        container.check(integrity).map_err(wrong)
    }

    /// Refuses from now on what is older than this container; of no effect without a trusted key.
    ///
    /// # Errors
    /// `Exit::Disk` and `Exit::Input` for the file of releases.
    pub(crate) fn remember(&self, container: &CheckedContainer<'_>) -> Result<(), Error> {
        let Some((key, state)) = &self.key else { return Ok(()) };
        let _lock = lock(state)?;
        let mut releases = releases(state)?;
        let highest = releases.entry(line(key, container.manifest())).or_default();
        let release = container.container().release();
        if release <= *highest {
            return Ok(());
        }
        *highest = release;
        output::write_whole(state, &output::json(&releases)?)
    }
}

/// The key to trust: the built-in one, which the command line cannot change, or the command line's.
fn trusted_key(built_in: Option<&str>, given: Option<&str>) -> Result<Option<TrustedKey>, Error> {
    let bad = |what: &str, why: &dyn std::fmt::Display| Error::usage(format!("{what}: {why}"));
    let built_in = built_in
        .filter(|text| !text.is_empty())
        .map(|text| {
            let what = "the key that this program was built with (RESCOMP_TRUSTED_KEY)";
            let bytes = from_hex(text).ok_or_else(|| bad(what, &"expected 64 hexadecimal digits"))?;
            TrustedKey::new(&bytes).map_err(|error| bad(what, &error))
        })
        .transpose()?;
    let given = given
        .map(|text| {
            let what = format!("--trusted-key {text}");
            let bytes = match from_hex(text) {
                Some(bytes) => bytes,
                None => key_file(Path::new(text))?,
            };
            TrustedKey::new(&bytes).map_err(|error| bad(&what, &error))
        })
        .transpose()?;
    match (built_in, given) {
        (Some(built_in), Some(given)) if built_in != given => Err(Error::usage(format!(
            "--trusted-key: this program was built to trust {} alone",
            output::hex(&built_in.bytes())
        ))),
        (built_in, given) => Ok(built_in.or(given)),
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A public key as PEM (RFC 8410).
fn key_file(path: &Path) -> Result<[u8; 32], Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::disk(path, format_args!("cannot read the trusted key: {error}")))?;
    let key = VerifyingKey::from_public_key_pem(&text).map_err(|error| {
        Error::input(
            path,
            format_args!("expected an Ed25519 public key, as PEM or 64 hexadecimal digits: {error}"),
        )
    })?;
    Ok(key.to_bytes())
}

/// Where releases are kept.
fn state(flags: &TrustFlags) -> Result<PathBuf, Error> {
    let folder =
        |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let default = || {
        Some(
            folder("XDG_STATE_HOME")
                .or_else(|| Some(folder("HOME")?.join(".local/state")))?
                .join("rescomp/releases.json"),
        )
    };
    flags.release_state.clone().or_else(default).ok_or_else(|| {
        Error::usage("neither XDG_STATE_HOME nor HOME names a folder: give --release-state FILE")
    })
}

/// A model in the file of releases.
fn line(key: &TrustedKey, manifest: &Manifest) -> String {
    format!("{}/{}", output::hex(&key.bytes()), manifest.provenance.checkpoint)
}

/// The highest release that was used of each model.
fn releases(path: &Path) -> Result<BTreeMap<String, u64>, Error> {
    let failed =
        |error: io::Error| Error::disk(path, format_args!("cannot read the file of releases: {error}"));
    let mut text = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
        Ok(file) => file.take(MOST_STATE_BYTES + 1).read_to_end(&mut text).map_err(failed)?,
    };
    if text.len() as u64 > MOST_STATE_BYTES {
        return Err(Error::input(
            path,
            format_args!("expected a file of releases of at most {MOST_STATE_BYTES} bytes, found more"),
        ));
    }
    // Forgetting what was used would let an older release in.
    serde_json::from_slice(&text).map_err(|error| {
        let expected = "expected the highest release of each model as JSON";
        Error::input(
            path,
            format_args!("{expected}: {error}; restore the file, or remove it to accept older releases"),
        )
    })
}

/// Keeps other runners from changing the file of releases, as long as the lock lives.
fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let lock = folder.and_then(|()| File::options().create(true).append(true).open(&name));
    lock.and_then(|lock| lock.lock().map(|()| lock)).map_err(|error| {
        Error::disk(Path::new(&name), format_args!("cannot lock the file of releases: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const OTHER: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
    const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn the_built_in_key_cannot_be_changed_and_bad_keys_are_errors() {
        let hex = |key: Option<TrustedKey>| key.map(|key| output::hex(&key.bytes()));
        assert_eq!(hex(trusted_key(None, None).expect("none")), None);
        assert_eq!(hex(trusted_key(Some(""), None).expect("none")), None);
        assert_eq!(hex(trusted_key(None, Some(KEY)).expect("a key")).as_deref(), Some(KEY));
        assert_eq!(hex(trusted_key(Some(KEY), None).expect("a key")).as_deref(), Some(KEY));
        assert_eq!(
            hex(trusted_key(Some(KEY), Some(&KEY.to_uppercase())).expect("the same")).as_deref(),
            Some(KEY)
        );
        let refused = |built_in, given| trusted_key(built_in, given).expect_err("refused").to_string();
        assert!(refused(Some(KEY), Some(OTHER)).contains(&format!("built to trust {KEY} alone")));
        assert!(refused(Some("12"), None).contains("expected 64 hexadecimal digits"));
        assert!(refused(None, Some(ZERO)).contains("small order"));
        assert!(
            refused(None, Some("no/such/key.pem")).contains("no/such/key.pem: cannot read the trusted key")
        );
    }
}
