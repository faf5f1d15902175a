//! What the environment says of the hub, under the names that its own library reads.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::Error;

/// Where models are kept, and how the hub is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// HF_HUB_CACHE, else `hub` in HF_HOME, else in `huggingface` in the user's cache folder.
    pub(super) cache: PathBuf,
    /// HF_ENDPOINT; `None` for the hub itself.
    pub(super) endpoint: Option<String>,
    /// HF_TOKEN, else the file of HF_TOKEN_PATH, else `token` in HF_HOME.
    pub(super) token: Option<String>,
    /// HF_HUB_OFFLINE: nothing is asked of the hub.
    pub(super) offline: bool,
}

impl Settings {
    /// # Errors
    /// `Exit::Input` where nothing says where the user's files are.
    pub(super) fn from_environment() -> Result<Settings, Error> {
        Settings::of(&|name| std::env::var_os(name), std::env::home_dir()).ok_or_else(|| {
            Error::input("where models of the hub are to be kept is unknown: there is no home folder")
                .remedy("set HF_HOME to a folder")
        })
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<Settings> {
        // Empty counts as absent.
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name: &str| {
            let value = variable(name)?.to_string_lossy().trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let hub_home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE").or_else(|| hub_home.as_ref().map(|home| home.join("hub")))?;
        let token = text("HF_TOKEN").or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| hub_home.map(|home| home.join("token")))?;
            let token = std::fs::read_to_string(file).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        });
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()));
        let endpoint = text("HF_ENDPOINT").map(|endpoint| endpoint.trim_end_matches('/').to_owned());
        Some(Settings { cache, endpoint, token, offline })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)], home: Option<&str>) -> Option<Settings> {
        let variable =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        Settings::of(&variable, home.map(PathBuf::from))
    }

    #[test]
    fn the_cache_is_where_the_hub_s_library_has_it() {
        let cache = |set: &[(&str, &str)]| settings(set, Some("/h")).expect("a home").cache;
        assert_eq!(cache(&[]), PathBuf::from("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), PathBuf::from("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "/f"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/f/hub"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")]), PathBuf::from("/c"));
        assert_eq!(settings(&[], None), None);
        assert!(settings(&[("HF_HOME", "/f")], None).is_some());
    }

    #[test]
    fn token_endpoint_and_offline_are_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = folder.path().to_str().expect("UTF-8");
        std::fs::write(folder.path().join("token"), "from-file\n").expect("writable");
        let of = |set: &[(&str, &str)]| {
            let set: Vec<_> = [("HF_HOME", home)].iter().chain(set).copied().collect();
            settings(&set, None).expect("a home")
        };
        assert_eq!(of(&[]).token.as_deref(), Some("from-file"));
        assert_eq!(of(&[("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
        assert_eq!(of(&[("HF_TOKEN_PATH", "/nowhere")]).token, None);
        assert_eq!(
            of(&[("HF_ENDPOINT", "http://localhost:1/")]).endpoint.as_deref(),
            Some("http://localhost:1")
        );
        for (value, offline) in [("1", true), ("true", true), ("0", false), ("", false), ("no", false)] {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }
}
