//! Folders of the Hugging Face hub's cache: `models--OWNER--NAME/snapshots/COMMIT`, named by a commit where a model's folder has its name.

use std::path::Path;

/// The NAME of a model whose folder is a commit in the hub's cache; `None` of every other folder.
pub(super) fn model_name(folder: &Path) -> Option<&str> {
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?.file_name()?.to_str()?;
    let (_, name) = repository.strip_prefix("models--")?.split_once("--")?;
    (snapshots.file_name()? == "snapshots" && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_have_their_model_s_name() {
        let name = |path: &'static str| model_name(Path::new(path));
        assert_eq!(name("/c/hub/models--a--SmolLM2-135M/snapshots/0123"), Some("SmolLM2-135M"));
        assert_eq!(name("models--a--b--c/snapshots/0123"), Some("b--c"));
        for other in
            ["models--a--b/blobs/0123", "a--b/snapshots/0123", "models--a/snapshots/1", "stories-1m", ""]
        {
            assert_eq!(name(other), None);
        }
    }
}
