//! The state of learning on disk, so that a run that was killed goes on where it was last written down.
//!
//! | offset | type | what |
//! |---|---|---|
//! | 0 | 8 bytes | `RESCSPN` and 0x1a |
//! | 8 | u32 | version: 1 |
//! | 12 | | the identity's settings, then the state, as one postcard message |
//! | end - 32 | 32 bytes | SHA-256 of all bytes before |
//!
//! Everything that decides the result is in the identity by name, so that a state of another model, other windows or settings is refused with
//! what differs.

use super::cayley::{self, Iterate};
use super::{SpinQuantError, StepReport};
use crate::files;
use crate::journal::Identity;
use faer::Mat;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

const MAGIC: [u8; 8] = *b"RESCSPN\x1a";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 12;
const DIGEST_BYTES: usize = 32;
/// How far from orthogonal a rotation in a state may be.
const ORTHOGONALITY: f64 = 1e-6;

/// R1 (the first) and each layer's R2 with their momentum, and what was found so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// Steps that were taken.
    pub(super) step: usize,
    pub(super) iterates: Vec<Iterate>,
    /// The rotations with the least held-out loss.
    pub(super) best: Vec<Mat<f64>>,
    pub(super) best_step: usize,
    pub(super) best_loss: f64,
    /// Of training windows, at the start.
    pub(super) training_start: f64,
    pub(super) steps: Vec<StepReport>,
}

/// A state as it is written down: matrices by columns.
#[derive(Serialize, Deserialize)]
struct Written {
    settings: Identity,
    step: u64,
    sizes: Vec<u32>,
    rotations: Vec<Vec<f64>>,
    momenta: Vec<Vec<f64>>,
    best: Vec<Vec<f64>>,
    best_step: u64,
    best_loss: f64,
    training_start: f64,
    steps: Vec<StepReport>,
}

fn columns(matrix: &Mat<f64>) -> Vec<f64> {
    (0..matrix.ncols()).flat_map(|col| (0..matrix.nrows()).map(move |row| matrix[(row, col)])).collect()
}

/// Writes the state in the place of the file at `path`.
///
/// # Errors
/// [`SpinQuantError::Disk`].
pub(super) fn write(path: &Path, identity: &Identity, state: &State) -> Result<(), SpinQuantError> {
    let written = Written {
        settings: identity.clone(),
        step: state.step as u64,
        sizes: state.best.iter().map(|rotation| rotation.nrows() as u32).collect(),
        rotations: state.iterates.iter().map(|iterate| columns(&iterate.rotation)).collect(),
        momenta: state.iterates.iter().map(|iterate| columns(&iterate.momentum)).collect(),
        best: state.best.iter().map(columns).collect(),
        best_step: state.best_step as u64,
        best_loss: state.best_loss,
        training_start: state.training_start,
        steps: state.steps.clone(),
    };
    let failed = |cause| SpinQuantError::Disk { doing: "write", path: path.to_owned(), cause };
    let payload = postcard::to_allocvec(&written).map_err(|error| failed(io::Error::other(error)))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&payload);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    files::replace(path, &bytes, files::FILE, |_| ()).map_err(failed)
}

/// The state in the file at `path`, with rotations of these sizes; `None` where there is no file.
///
/// # Errors
/// [`SpinQuantError::Disk`]; [`SpinQuantError::State`] for a file that is damaged or none of these; [`SpinQuantError::OtherRun`] for one of
/// another model, other windows or settings.
pub(super) fn read(
    path: &Path,
    identity: &Identity,
    sizes: &[usize],
) -> Result<Option<State>, SpinQuantError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(SpinQuantError::Disk { doing: "read", path: path.to_owned(), cause }),
    };
    let refused = |why: String| SpinQuantError::State { path: path.to_owned(), why };
    let written = decode(&bytes).map_err(refused)?;
    let differences = written.settings.differences(identity);
    if !differences.is_empty() {
        return Err(SpinQuantError::OtherRun { path: path.to_owned(), differences });
    }
    state(written, sizes).map(Some).map_err(refused)
}

fn decode(bytes: &[u8]) -> Result<Written, String> {
    let least = HEAD_BYTES + DIGEST_BYTES;
    if bytes.len() < least {
        return Err(format!("expected at least {least} bytes, found {}", bytes.len()));
    }
    let (content, digest) = bytes.split_at(bytes.len() - DIGEST_BYTES);
    if content[..8] != MAGIC {
        return Err("not the state of learned rotations".to_owned());
    }
    let version = u32::from_le_bytes([content[8], content[9], content[10], content[11]]);
    if version != VERSION {
        return Err(format!("expected version {VERSION}, found {version}"));
    }
    if Sha256::digest(content)[..] != *digest {
        return Err("the checksum is wrong".to_owned());
    }
    let (written, left) = postcard::take_from_bytes::<Written>(&content[HEAD_BYTES..])
        .map_err(|error| format!("it cannot be read: {error}"))?;
    match left.len() {
        0 => Ok(written),
        more => Err(format!("{more} bytes follow the state")),
    }
}

/// Checks sizes and numbers: the checksum says that they were written, not by whom.
fn state(written: Written, sizes: &[usize]) -> Result<State, String> {
    let found: Vec<usize> = written.sizes.iter().map(|&size| size as usize).collect();
    if found != sizes {
        return Err(format!("expected rotations of {sizes:?} rows, found {found:?}"));
    }
    let matrices = |what: &str, all: &[Vec<f64>]| -> Result<Vec<Mat<f64>>, String> {
        let fits = all.len() == sizes.len()
            && all.iter().zip(sizes).all(|(values, size)| values.len() == size * size);
        if !fits || all.iter().flatten().any(|value| !value.is_finite()) {
            return Err(format!("{what}: expected a square of finite numbers for each rotation"));
        }
        let matrix = |(values, &size): (&Vec<f64>, &usize)| {
            Mat::from_fn(size, size, |row, col| values[col * size + row])
        };
        Ok(all.iter().zip(sizes).map(matrix).collect())
    };
    let rotations = matrices("rotations", &written.rotations)?;
    let momenta = matrices("momentum", &written.momenta)?;
    let best = matrices("best rotations", &written.best)?;
    for rotation in rotations.iter().chain(&best) {
        let distance = cayley::distance_from_orthogonal(rotation);
        if distance > ORTHOGONALITY {
            return Err(format!("a rotation is {distance:e} from orthogonal"));
        }
    }
    let iterates =
        rotations.into_iter().zip(momenta).map(|(rotation, momentum)| Iterate { rotation, momentum });
    Ok(State {
        step: written.step as usize,
        iterates: iterates.collect(),
        best,
        best_step: written.best_step as usize,
        best_loss: written.best_loss,
        training_start: written.training_start,
        steps: written.steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::Rotation;
    use std::collections::BTreeMap;

    fn identity(model: &str) -> Identity {
        Identity::of_settings(BTreeMap::from([("model".to_owned(), model.to_owned())]))
    }

    fn state() -> State {
        let iterates: Vec<Iterate> =
            [6, 4].map(|size| Iterate::new(Rotation::random(size, 5).dense())).into();
        let best = iterates.iter().map(|iterate| iterate.rotation.clone()).collect();
        let steps = vec![StepReport { step: 0, loss: None, held_out: Some(0.5) }];
        State { step: 3, iterates, best, best_step: 2, best_loss: 0.25, training_start: 0.125, steps }
    }

    #[test]
    fn a_state_is_read_back_and_anything_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(read(&path, &identity("a"), &[6, 4]).unwrap().is_none());
        write(&path, &identity("a"), &state()).unwrap();
        assert_eq!(read(&path, &identity("a"), &[6, 4]).unwrap().unwrap(), state());

        let refused =
            |identity: &Identity, sizes: &[usize]| read(&path, identity, sizes).unwrap_err().to_string();
        let error = refused(&identity("b"), &[6, 4]);
        assert!(error.contains("model was a, is b"), "{error}");
        assert!(refused(&identity("a"), &[6, 4, 4]).contains("expected rotations of [6, 4, 4] rows"));

        let mut off = state();
        off.best[1][(0, 0)] += 0.5;
        write(&path, &identity("a"), &off).unwrap();
        assert!(refused(&identity("a"), &[6, 4]).contains("from orthogonal"));
        off.best[1][(0, 0)] = f64::NAN;
        write(&path, &identity("a"), &off).unwrap();
        assert!(refused(&identity("a"), &[6, 4]).contains("finite numbers"));
    }

    #[test]
    fn torn_and_changed_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        write(&path, &identity("a"), &state()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut to {length} bytes");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(decode(&changed).is_err(), "byte {at}");
        }
        // Where the state should be is a folder.
        let error = read(folder.path(), &identity("a"), &[6, 4]).unwrap_err().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
    }
}
