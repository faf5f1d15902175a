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

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::tensor_store::{Elements, Stored};
use super::{CheckpointError, ElementType, TensorStore, mmap, read_capped};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// The length field in front of the header.
const LENGTH_BYTES: usize = 8;
/// The format's own limit.
const MAX_HEADER_BYTES: usize = 100_000_000;

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
        let mut store = Self::new(dir);
        // transformers prefers the single file too.
        if is_listed(&dir.join(SINGLE_FILE)) {
            store.add_safetensors(dir.join(SINGLE_FILE))?;
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
            store.add_safetensors(dir.join(shard)).map_err(|error| match error {
                CheckpointError::Read { path, cause } => {
                    CheckpointError::Shard { path, index: INDEX_FILE, cause }
                }
                other => other,
            })?;
        }
        for (tensor, shard) in index.weight_map {
            let path = dir.join(shard);
            if !store.holds(&tensor, &path) {
                return Err(CheckpointError::NotInShard { path, index: INDEX_FILE, tensor });
            }
        }
        Ok(store)
    }

    fn add_safetensors(&mut self, path: PathBuf) -> Result<(), CheckpointError> {
        let map = mmap::map(&path).map_err(|cause| CheckpointError::Read { path: path.clone(), cause })?;
        let (data_begin, metadata) = read_header(&path, &map)?;
        let file = self.add_file(path, map);
        for (tensor, info) in metadata.tensors() {
            let (begin, end) = info.data_offsets;
            // In bounds: `read_header` found the last tensor's end to be the file's.
            let (begin, end) = (data_begin + begin, data_begin + end);
            let (elements, shape) = (elements(info.dtype), info.shape.clone());
            self.add_tensor(tensor, Stored { file, begin, end, elements, shape })?;
        }
        Ok(())
    }
}

fn elements(dtype: Dtype) -> Elements {
    match dtype {
        Dtype::F32 => Elements::Known(ElementType::F32),
        Dtype::F16 => Elements::Known(ElementType::F16),
        Dtype::BF16 => Elements::Known(ElementType::Bf16),
        other => Elements::Other(other.to_string()),
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
