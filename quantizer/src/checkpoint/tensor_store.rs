//! Tensors of a checkpoint by name, in memory-mapped files of any format.
//!
//! Whoever fills a store (`safetensors`, `gguf`) has checked that every tensor lies within its file and has the bytes that its
//! shape and type ask for; so every later access is in bounds, and no tensor takes more memory than a small multiple of its bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::{CheckpointError, ElementType};

/// Every tensor of a checkpoint by name, memory-mapped.
///
/// The files must not be changed while this lives.
#[derive(Debug)]
pub struct TensorStore {
    /// The folder of the files, or the only file.
    location: PathBuf,
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
pub(super) struct Stored {
    /// Index of the file.
    pub(super) file: usize,
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) elements: Elements,
    /// Slowest dimension first. The fastest is a multiple of the elements of a block.
    pub(super) shape: Vec<usize>,
}

/// What a tensor's elements are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Elements {
    /// A type that is read.
    Known(ElementType),
    /// Another type of the file format: an error only where the architecture has this tensor.
    Other(String),
}

impl TensorStore {
    /// A store without tensors, of files in a folder or of one file.
    pub(super) fn new(location: &Path) -> Self {
        Self { location: location.to_owned(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    /// Adds a file; its tensors name it by the index that is returned.
    pub(super) fn add_file(&mut self, path: PathBuf, map: Mmap) -> usize {
        self.files.push(WeightFile { path, map });
        self.files.len() - 1
    }

    /// Adds a tensor of a file that was added.
    ///
    /// # Errors
    /// There is a tensor of that name.
    pub(super) fn add_tensor(&mut self, tensor: String, stored: Stored) -> Result<(), CheckpointError> {
        use std::collections::btree_map::Entry;
        match self.tensors.entry(tensor) {
            Entry::Vacant(vacant) => {
                vacant.insert(stored);
                Ok(())
            }
            Entry::Occupied(earlier) => Err(CheckpointError::DuplicateTensor {
                path: self.files[stored.file].path.clone(),
                tensor: earlier.key().clone(),
                other: self.files[earlier.get().file].path.clone(),
            }),
        }
    }

    /// The bytes of a file that was added.
    pub(super) fn file_bytes(&self, file: usize) -> &[u8] {
        &self.files[file].map
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
            _ => &self.location,
        }
    }

    /// The file that holds a tensor, or [`path`](Self::path) where none does.
    pub(super) fn path_of(&self, tensor: &str) -> &Path {
        self.tensors.get(tensor).map_or(self.path(), |stored| &self.files[stored.file].path)
    }

    /// Whether this file holds a tensor of that name.
    pub(super) fn holds(&self, tensor: &str, path: &Path) -> bool {
        self.tensors.get(tensor).is_some_and(|stored| self.files[stored.file].path == path)
    }

    /// Checks that a tensor is there, with this shape and a type that is read, without touching its elements.
    ///
    /// # Errors
    /// The tensor is missing, or its shape or type is another.
    pub fn check(&self, tensor: &str, expected: &[usize]) -> Result<(), CheckpointError> {
        self.find(tensor, expected).map(|_| ())
    }

    /// All elements of a tensor in row-major order, widened to f32 ([`ElementType::widen`]).
    ///
    /// # Errors
    /// As [`check`](Self::check); or an element is infinite or not a number.
    pub fn tensor_f32(&self, tensor: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let (file, stored, element) = self.find(tensor, expected)?;
        let elements = element.widen(&file.map[stored.begin..stored.end]);
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
                    byte_offset: (stored.begin + at / element.block_elements() * element.block_bytes())
                        as u64,
                    found: elements[at],
                })
            }
        }
    }

    /// Whether two tensors are stored as the same bytes of the same type. A tensor that is missing equals none.
    pub(super) fn stored_alike(&self, one: &str, other: &str) -> bool {
        let stored = |tensor: &str| {
            let stored = self.tensors.get(tensor)?;
            Some((&stored.elements, &stored.shape, &self.files[stored.file].map[stored.begin..stored.end]))
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

    fn find(
        &self,
        tensor: &str,
        expected: &[usize],
    ) -> Result<(&WeightFile, &Stored, ElementType), CheckpointError> {
        let Some(stored) = self.tensors.get(tensor) else {
            return Err(CheckpointError::MissingTensor {
                path: self.path().to_owned(),
                tensor: tensor.to_owned(),
                expected: expected.to_owned(),
            });
        };
        let file = &self.files[stored.file];
        if stored.shape != expected {
            return Err(CheckpointError::TensorShape {
                path: file.path.clone(),
                tensor: tensor.to_owned(),
                expected: expected.to_owned(),
                found: stored.shape.clone(),
            });
        }
        match &stored.elements {
            Elements::Known(element) => Ok((file, stored, *element)),
            Elements::Other(found) => Err(CheckpointError::TensorType {
                path: file.path.clone(),
                tensor: tensor.to_owned(),
                expected: "F32, F16 or BF16",
                found: found.clone(),
            }),
        }
    }
}
