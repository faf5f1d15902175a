//! The key that clients must show.

use std::hint::black_box;

use sha2::{Digest, Sha256};

use crate::error::Error;

/// Most bytes of a key.
const MOST_BYTES: usize = 1024;

/// A key, as its digest: keys of any length compare in the same time.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// A key that is shown in a header.
    ///
    /// # Errors
    /// `Exit::Input` where no header could hold it.
    pub(super) fn new(key: &str) -> Result<Key, Error> {
        let printable = key.bytes().all(|byte| byte.is_ascii_graphic());
        if key.is_empty() || key.len() > MOST_BYTES || !printable {
            return Err(Error::usage(format!(
                "--api-key (RESCOMP_API_KEY): expected 1 to {MOST_BYTES} characters of ASCII without spaces, found something else"
            )));
        }
        Ok(Key(Sha256::digest(key).into()))
    }

    /// Whether the value of a header `Authorization` shows it. The time that this takes says nothing of the key.
    pub(super) fn is_shown(&self, header: Option<&[u8]>) -> bool {
        let shown = header.and_then(|header| header.split_at_checked(7));
        let Some((scheme, shown)) = shown else { return false };
        let digest: [u8; 32] = Sha256::digest(shown).into();
        let differing = self.0.iter().zip(digest).fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
        scheme.eq_ignore_ascii_case(b"bearer ") && differing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_is_the_key() {
        let key = Key::new("sk-1").expect("a key");
        let shown = |text: &str| key.is_shown(Some(text.as_bytes()));
        assert!(shown("Bearer sk-1") && shown("bearer sk-1"));
        for wrong in ["", "Bearer", "Bearer ", "Bearer sk-", "Bearer sk-12", "Basic: sk-1", "sk-1"] {
            assert!(!shown(wrong), "{wrong}");
        }
        assert!(!key.is_shown(None));
        for wrong in ["", "a b", "\u{e9}", &"x".repeat(1025)] {
            assert!(Key::new(wrong).is_err(), "{wrong}");
        }
    }
}
