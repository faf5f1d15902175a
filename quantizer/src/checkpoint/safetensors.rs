//! Tensors of one `model.safetensors`, or of the shards that `model.safetensors.index.json` lists.
//!
//! ```text
//! file:  u64 header length, JSON header {name: {dtype, shape, data_offsets}}, tensors without holes to the end
//! index: {"weight_map": {name: file in the same folder}}
//! ```
//!
//! Opening reads headers only. `safetensors::tensor::Metadata` checks that shapes, types and offsets agree and tile the
//! data; here the data's length is checked against the file's, so that every later access is in bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{CheckpointError, mmap, read_capped};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// The length field in front of the header.
const LENGTH_BYTES: usize = 8;
/// The format's own limit.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// Every tensor of a checkpoint by name, memory-mapped.
///
/// The files must not be changed while this lives.
#[derive(Debug)]
pub struct TensorStore {
    dir: PathBuf,
    /// In the order of their names.
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    map: Mmap,
}

/// Where a tensor is and how it is stored. `begin..end` lies within the file and holds exactly the shape's elements.
#[derive(Debug)]
struct Stored {
    file: usize,
    begin: usize,
    end: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorStore {
    /// Opens the weights of a folder: `model.safetensors`, or where that is absent the shards of
    /// `model.safetensors.index.json`. Reads the headers only.
    ///
    /// # Errors
    /// Neither file is there; a file cannot be mapped or read; a header or the index is not what its format demands; a
    /// file is truncated or too long; the index leads out of the folder, names a tensor that its shard lacks, or two
    /// shards hold the same tensor.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let mut store = Self { dir: dir.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        // transformers prefers the single file too.
        if is_listed(&dir.join(SINGLE_FILE)) {
            store.add_file(dir.join(SINGLE_FILE))?;
            return Ok(store);
        }
        let index_path = dir.join(INDEX_FILE);
        if !is_listed(&index_path) {
            return Err(CheckpointError::NoWeights { dir: dir.to_owned() });
        }
        let text = read_capped(&index_path, MAX_INDEX_BYTES)?;
        let json = |cause| CheckpointError::Json { path: index_path.clone(), part: "whole file", cause };
        let index: Index = serde_json::from_slice(&text).map_err(json)?;
        for (tensor, shard) in &index.weight_map {
            if !is_plain_file_name(shard) {
                let (path, tensor, shard) = (index_path.clone(), tensor.clone(), shard.clone());
                return Err(CheckpointError::ShardName { path, tensor, shard });
            }
        }
        for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
            store.add_file(dir.join(shard)).map_err(|error| match error {
                CheckpointError::Read { path, cause } => {
                    CheckpointError::Shard { path, index: INDEX_FILE, cause }
                }
                other => other,
            })?;
        }
        for (tensor, shard) in index.weight_map {
            let path = dir.join(shard);
            if store.tensors.get(&tensor).is_none_or(|stored| store.files[stored.file].path != path) {
                return Err(CheckpointError::NotInShard { path, index: INDEX_FILE, tensor });
            }
        }
        Ok(store)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), CheckpointError> {
        let map = mmap::map(&path).map_err(|cause| CheckpointError::Read { path: path.clone(), cause })?;
        let (data_begin, metadata) = read_header(&path, &map)?;
        let file = self.files.len();
        for (tensor, info) in metadata.tensors() {
            let (begin, end) = info.data_offsets;
            // In bounds: `read_header` found the last tensor's end to be the file's.
            let (begin, end) = (data_begin + begin, data_begin + end);
            let stored = Stored { file, begin, end, dtype: info.dtype, shape: info.shape.clone() };
            if let Some(earlier) = self.tensors.insert(tensor.clone(), stored) {
                let other = self.files[earlier.file].path.clone();
                return Err(CheckpointError::DuplicateTensor { path, tensor, other });
            }
        }
        self.files.push(WeightFile { path, map });
        Ok(())
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, slowest dimension first; `None` where there is no such tensor.
    pub fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.tensors.get(tensor).map(|stored| stored.shape.as_slice())
    }

    /// Bytes of all weight files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.map.len() as u64).sum()
    }

    /// The weight files in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The weight file where there is one, the folder where there are several: what an error about all of them names.
    pub fn path(&self) -> &Path {
        match self.files.as_slice() {
            [only] => &only.path,
            _ => &self.dir,
        }
    }

    /// The file that holds a tensor, or [`path`](Self::path) where none does.
    pub(super) fn path_of(&self, tensor: &str) -> &Path {
        self.tensors.get(tensor).map_or(self.path(), |stored| &self.files[stored.file].path)
    }

    /// Checks that a tensor is there, with this shape and a float type that is read, without touching its elements.
    ///
    /// # Errors
    /// The tensor is missing, or its shape or type is another.
    pub fn check(&self, tensor: &str, expected: &[usize]) -> Result<(), CheckpointError> {
        self.find(tensor, expected).map(|_| ())
    }

    /// All elements of a tensor in row-major order, widened to f32 (exact for all three types).
    ///
    /// # Errors
    /// As [`check`](Self::check); or an element is infinite or not a number.
    pub fn tensor_f32(&self, tensor: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let (stored, float) = self.find(tensor, expected)?;
        let file = &self.files[stored.file];
        let elements = float.widen(&file.map[stored.begin..stored.end]);
        match elements.iter().position(|element| !element.is_finite()) {
            None => Ok(elements),
            Some(at) => {
                // A tensor with elements has no dimension of zero; one without dimensions has a single column.
                let columns = expected.last().copied().unwrap_or(1);
                Err(CheckpointError::NonFinite {
                    path: file.path.clone(),
                    tensor: tensor.to_owned(),
                    row: at / columns,
                    column: at % columns,
                    byte_offset: (stored.begin + at * float.bytes()) as u64,
                    found: elements[at],
                })
            }
        }
    }

    /// Whether two tensors are stored as the same bytes of the same type. A tensor that is missing equals none.
    pub(super) fn stored_alike(&self, one: &str, other: &str) -> bool {
        let stored = |tensor: &str| {
            let stored = self.tensors.get(tensor)?;
            Some((stored.dtype, &stored.shape, &self.files[stored.file].map[stored.begin..stored.end]))
        };
        stored(one).is_some_and(|one| stored(other) == Some(one))
    }

    /// SHA-256 of the weight files, one after another in the order of their names. For a single file it is what
    /// `sha256sum model.safetensors` prints. Streamed from the maps that the weights are read from.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for file in &self.files {
            hasher.update(&file.map[..]);
        }
        hasher.finalize().into()
    }

    fn find(&self, tensor: &str, expected: &[usize]) -> Result<(&Stored, Float), CheckpointError> {
        let Some(stored) = self.tensors.get(tensor) else {
            return Err(CheckpointError::MissingTensor {
                path: self.path().to_owned(),
                tensor: tensor.to_owned(),
                expected: expected.to_owned(),
            });
        };
        let path = || self.files[stored.file].path.clone();
        if stored.shape != expected {
            return Err(CheckpointError::TensorShape {
                path: path(),
                tensor: tensor.to_owned(),
                expected: expected.to_owned(),
                found: stored.shape.clone(),
            });
        }
        let float = Float::of(stored.dtype).ok_or_else(|| CheckpointError::TensorType {
            path: path(),
            tensor: tensor.to_owned(),
            found: stored.dtype.to_string(),
        })?;
        Ok((stored, float))
    }
}

/// The element types that are read.
#[derive(Clone, Copy)]
enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Little-endian elements; maps need not be aligned to them, as headers have any length.
    fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let (fours, twos) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<2>().0);
        match self {
            Self::F32 => fours.iter().map(|&element| f32::from_le_bytes(element)).collect(),
            Self::F16 => twos.iter().map(|&element| f16::from_le_bytes(element).to_f32()).collect(),
            Self::Bf16 => twos.iter().map(|&element| bf16::from_le_bytes(element).to_f32()).collect(),
        }
    }
}

/// Where the tensors' bytes begin, and the header's contents, checked against the file's length.
fn read_header(path: &Path, bytes: &[u8]) -> Result<(usize, Metadata), CheckpointError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(CheckpointError::FileLength {
            path: path.to_owned(),
            expected_bytes: LENGTH_BYTES as u64,
            found_bytes: bytes.len() as u64,
        });
    };
    let header_bytes = u64::from_le_bytes(*length);
    let available = rest.len().min(MAX_HEADER_BYTES);
    let Some(header_len) = usize::try_from(header_bytes).ok().filter(|&length| length <= available) else {
        let (path, available_bytes) = (path.to_owned(), available as u64);
        return Err(CheckpointError::HeaderLength { path, header_bytes, available_bytes });
    };
    let (header, data) = rest.split_at(header_len);
    let json = |cause| CheckpointError::Json { path: path.to_owned(), part: "header", cause };
    let metadata: Metadata = serde_json::from_slice(header).map_err(json)?;
    if metadata.data_len() != data.len() {
        let before = (LENGTH_BYTES + header_len) as u64;
        return Err(CheckpointError::FileLength {
            path: path.to_owned(),
            expected_bytes: before.saturating_add(metadata.data_len() as u64),
            found_bytes: bytes.len() as u64,
        });
    }
    Ok((LENGTH_BYTES + header_len, metadata))
}

/// Whether a folder has such an entry. A link whose target is gone counts: opening it says what is wrong.
fn is_listed(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// One component that names something: not empty, not `..`, not absolute, and no separator of any system.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!(components.next(), Some(Component::Normal(first)) if first == name);
    single && components.next().is_none() && !name.contains(['\\', '\0'])
}
