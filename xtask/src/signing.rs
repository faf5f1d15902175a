//! Keys that sign containers: `cargo xtask keygen`, `cargo xtask sign`, and what `pack --sign` needs of them.
//!
//! Files are the standard ones of Ed25519 (RFC 8410), so that other tools make and read them too: `openssl genpkey -algorithm ed25519`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signer, SigningKey};
use rescomp_formats::container::write::signed;

use crate::error::Error;
use crate::flags::{KeygenFlags, SignFlags};
use crate::interrupt::{write_secret, write_whole};
use crate::{model, output};

/// Seconds since 1970 that reproducible builds take for the time (reproducible-builds.org).
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// A key and the release that it signs.
#[derive(Debug)]
pub(crate) struct Signature {
    key: SigningKey,
    /// Which release the container will be.
    pub(crate) release: u64,
}

/// Runs `keygen`.
///
/// # Errors
/// `Exit::Disk` where a file cannot be written, or is there already.
pub(crate) fn keygen(flags: &KeygenFlags) -> Result<(), Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::failed("the system gives no random numbers").because(error.to_string()))?;
    let key = SigningKey::from_bytes(&seed);
    let failed = |why: &dyn std::fmt::Display| Error::failed(format!("the key has no PEM form: {why}"));
    // Without the public key beside it, as OpenSSL reads it.
    let secret = KeypairBytes { secret_key: seed, public_key: None };
    let secret = secret.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(&error))?;
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|error| failed(&error))?;
    let public_file = flags.output.with_added_extension("pub");
    if public_file.exists() {
        return Err(Error::input(format!("{}: there is such a key already", public_file.display())));
    }
    write_secret(&flags.output, secret.as_bytes())?;
    write_whole(&public_file, public.as_bytes())?;
    output::line(&format!(
        "secret key  {} (keep it: without it no device takes an update)",
        flags.output.display()
    ));
    output::line(&format!("public key  {}: {}", public_file.display(), hex(&key)));
    Ok(())
}

/// Runs `sign`.
///
/// # Errors
/// `Exit::Input` for a key or container that is none, `Exit::Disk` for files.
pub(crate) fn sign(flags: &SignFlags) -> Result<(), Error> {
    let signature = Signature::new(&flags.key, flags.release)?;
    let bytes = model::container_bytes(&flags.container)?;
    model::container(&flags.container, &bytes)?;
    let file = signature.sign(&flags.container, &bytes)?;
    let output = flags.output.as_ref().unwrap_or(&flags.container);
    write_whole(output, &file)?;
    output::line(&format!(
        "signed {} as release {} with key {}",
        output.display(),
        signature.release,
        signature.public_hex()
    ));
    Ok(())
}

impl Signature {
    /// With the secret key of a file. Without a number, the release is the time, which rises by itself.
    ///
    /// # Errors
    /// `Exit::Disk` and `Exit::Input` for the file and the time.
    pub(crate) fn new(key: &Path, release: Option<u64>) -> Result<Signature, Error> {
        let text = std::fs::read_to_string(key).map_err(|error| Error::disk("read the key", key, &error))?;
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|error| {
            Error::input(format!("{}: expected an Ed25519 secret key (PKCS #8, PEM): {error}", key.display()))
                .remedy("`cargo xtask keygen` makes one")
        })?;
        let release = match release {
            Some(release) => release,
            None => now()?,
        };
        Ok(Signature { key, release })
    }

    /// A checked container with this signature.
    ///
    /// # Errors
    /// `Exit::Input` for a container that is none.
    pub(crate) fn sign(&self, path: &Path, container: &[u8]) -> Result<Vec<u8>, Error> {
        let sign = |message: &[u8]| self.key.sign(message).to_bytes();
        signed(container, self.key.verifying_key().to_bytes(), self.release, sign)
            .map_err(|error| Error::input(format!("{}: {error}", path.display())))
    }

    /// The public key, in hexadecimal digits.
    pub(crate) fn public_hex(&self) -> String {
        hex(&self.key)
    }
}

fn hex(key: &SigningKey) -> String {
    key.verifying_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> Result<u64, Error> {
    if let Some(text) = std::env::var_os(EPOCH_VARIABLE) {
        return text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
            Error::input(format!("{EPOCH_VARIABLE}={}: expected seconds since 1970", text.display()))
        });
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|_| {
        Error::input("the clock is before 1970").remedy("set it, or give the release's number with --release")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_once_and_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let flags = KeygenFlags { output: folder.path().join("release.key") };
        keygen(&flags).expect("a new key");
        let signature = Signature::new(&flags.output, Some(3)).expect("the key");
        let public = std::fs::read_to_string(folder.path().join("release.key.pub")).expect("the public key");
        assert_eq!(public, signature.key.verifying_key().to_public_key_pem(LineEnding::LF).expect("PEM"));
        assert!(keygen(&flags).is_err(), "a key is never overwritten");
        std::fs::remove_file(folder.path().join("release.key.pub")).expect("there");
        assert!(keygen(&flags).is_err(), "nor is a secret one alone");
        assert_eq!(
            signature.public_hex(),
            Signature::new(&flags.output, None).expect("the same").public_hex()
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&flags.output).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_openssl_makes_is_a_key_and_other_text_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("key");
        // RFC 8410, section 10.3.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        std::fs::write(&path, pem).expect("writable");
        let signature = Signature::new(&path, Some(1)).expect("a key");
        assert_eq!(
            signature.public_hex(),
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
        std::fs::write(&path, "no key").expect("writable");
        let error = Signature::new(&path, Some(1)).expect_err("no key").to_string();
        assert!(error.contains("expected an Ed25519 secret key") && error.contains("keygen"), "{error}");
    }
}
