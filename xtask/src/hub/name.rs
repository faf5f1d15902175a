//! How a model of the hub is named on the command line.

use std::fmt;
use std::path::Path;

use crate::error::Error;

const PREFIX: &str = "hub:";
const EXPECTED: &str = "hub:OWNER/NAME, hub:OWNER/NAME@REVISION, or either with :FILE.gguf";
/// The revision where none is named.
const DEFAULT_REVISION: &str = "main";

/// A model of the hub, or a file of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubName {
    /// `OWNER/NAME`.
    pub(super) repository: String,
    /// A branch, a tag or a commit.
    pub(super) revision: String,
    /// The GGUF file that is meant, with folders in front where it is in some.
    pub(super) file: Option<String>,
}

impl HubName {
    /// `None` for what does not begin with `hub:`.
    ///
    /// # Errors
    /// `Exit::Input` for what does, and names no model.
    pub(super) fn parse(named: &Path) -> Result<Option<HubName>, Error> {
        let Some(rest) = named.to_str().and_then(|text| text.strip_prefix(PREFIX)) else { return Ok(None) };
        let wrong = || Error::input(format!("{PREFIX}{rest}: expected {EXPECTED}"));
        let (model, file) = match rest.split_once(':') {
            Some((model, file)) => (model, Some(file.to_owned())),
            None => (rest, None),
        };
        let (repository, revision) = model.split_once('@').unwrap_or((model, DEFAULT_REVISION));
        let (owner, name) = repository.split_once('/').ok_or_else(wrong)?;
        let valid_file = file.as_deref().is_none_or(|file| is_file(file) && file.ends_with(".gguf"));
        if !is_plain(owner) || !is_plain(name) || !is_file(revision) || !valid_file {
            return Err(wrong());
        }
        Ok(Some(HubName { repository: repository.to_owned(), revision: revision.to_owned(), file }))
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// Whether a text is a name that cannot lead anywhere else.
fn is_plain(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && !text.starts_with('.') && !text.starts_with('-') && text.chars().all(known)
}

/// Whether a text is a file of a model: plain names with slashes between.
pub(super) fn is_file(text: &str) -> bool {
    text.split('/').all(is_plain)
}

/// Whether a text is a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<HubName>, Error> {
        HubName::parse(Path::new(text))
    }

    #[test]
    fn names_are_taken_apart() {
        let name = |repository: &str, revision: &str, file: Option<&str>| HubName {
            repository: repository.into(),
            revision: revision.into(),
            file: file.map(str::to_owned),
        };
        for (text, expected) in [
            ("hub:a/b", name("a/b", "main", None)),
            ("hub:a/b.c-D_1@v1", name("a/b.c-D_1", "v1", None)),
            ("hub:a/b@refs/pr/1", name("a/b", "refs/pr/1", None)),
            ("hub:a/b:x/y-Q8_0.gguf", name("a/b", "main", Some("x/y-Q8_0.gguf"))),
            ("hub:a/b@c:d.gguf", name("a/b", "c", Some("d.gguf"))),
        ] {
            assert_eq!(parse(text), Ok(Some(expected)));
        }
        for text in ["a/b", "./hub:a/b", "models/stories-1m"] {
            assert_eq!(parse(text), Ok(None));
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for text in [
            "hub:",
            "hub:a",
            "hub:a/",
            "hub:/b",
            "hub:a/b/c",
            "hub:../b",
            "hub:a/..",
            "hub:a/b@",
            "hub:a/b@../c",
            "hub:a/b:",
            "hub:a/b:x.bin",
            "hub:a/b:../x.gguf",
            "hub:a/b:/x.gguf",
            "hub:a b/c",
            "hub:a/b?c",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.to_string().contains(EXPECTED), "{error}");
        }
    }
}
