//! Weight files.

use super::Outcome;
use rescomp_quantizer::checkpoint::Checkpoint;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

thread_local! {
    /// A folder in memory where there is one.
    static FOLDER: TempDir = {
        let memory = PathBuf::from("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.expect("a temporary folder")
    };
}

/// Runs `work` in this thread's folder.
pub(super) fn in_folder<T>(work: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| work(folder.path()))
}

/// The small model's folder.
///
/// # Panics
/// Where it cannot be written.
pub fn write_small_checkpoint(folder: &Path) {
    std::fs::write(folder.join("config.json"), crate::hostile::sound_config()).expect("writable");
    std::fs::write(folder.join("model.safetensors"), crate::hostile::sound_weights()).expect("writable");
}

/// Opens the weights as the small model's, and reads all of them.
///
/// # Panics
/// Where an accepted weight is not finite.
pub fn safetensors(bytes: &[u8]) -> Outcome {
    in_folder(|folder| {
        std::fs::write(folder.join("config.json"), crate::hostile::sound_config()).expect("writable");
        std::fs::write(folder.join("model.safetensors"), bytes).expect("writable");
        let Ok(checkpoint) = Checkpoint::open(folder) else { return Outcome::Refused };
        let Ok(embedding) = checkpoint.embedding() else { return Outcome::Refused };
        assert_eq!(embedding.data.len(), 258 * 8);
        assert!(embedding.data.iter().all(|weight| weight.is_finite()));
        let layers = (0..checkpoint.spec.layers as usize).map(|layer| checkpoint.layer(layer));
        let all: Result<Vec<_>, _> = layers.collect();
        if all.is_ok() && checkpoint.final_norm().is_ok() { Outcome::Accepted } else { Outcome::Refused }
    })
}
