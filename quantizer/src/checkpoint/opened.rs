//! An opened checkpoint: names and shapes are checked, weights are read a layer at a time.
//!
//! Which tensors an architecture has, and under which names and in which order files hold them, is in `names/`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rescomp_formats::section::SectionKind;
use rescomp_formats::spec::{ModelSpec, OnlineTransforms};

use super::bare_norms;
use super::folded::Folded;
use super::gguf::{self, Gguf, GgufChatTemplate, GgufTokenizer};
use super::hf_config::{complete_classifier, complete_encoder};
use super::layer::{LayerWeights, Matrix, StreamNorm};
use super::names::{Names, neighbours_to_halves};
use super::{CheckpointError, HfConfig, TensorStore};
use crate::transforms::{NotFolded, Transform};

/// An opened checkpoint: everything about it is known and checked but the weights' values, which are read on demand.
///
/// The files must not be changed while this lives.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Sizes and constants.
    pub spec: ModelSpec,
    /// Turns a position of each rotary pair, in units of 2^-64 turns: `rotary_dim / 2` values
    /// (see [`Rope::turns_per_position`](super::Rope::turns_per_position)).
    pub rope: Vec<u64>,
    /// Those of layers with a window, where they have their own; else none.
    pub local_rope: Vec<u64>,
    path: PathBuf,
    contents: Arc<Contents>,
    folded: Folded,
    /// What the weights are given out with.
    transform: Option<Arc<Transform>>,
    /// The files hold no head, or the embedding a second time.
    stored_tied: bool,
    names: &'static Names,
    /// The one of the names' prefixes that the files have.
    prefix: &'static str,
    /// Rows of the positions' tensor, where positions are learned.
    position_rows: usize,
    /// Rows of the token types' tensor, where there is one.
    token_types: usize,
    /// The names of an image's classes, of a classifier.
    labels: Vec<String>,
}

/// What a checkpoint was opened from.
#[derive(Debug)]
enum Contents {
    Folder(TensorStore),
    Gguf(Gguf),
}

impl Contents {
    fn store(&self) -> &TensorStore {
        match self {
            Contents::Folder(store) => store,
            Contents::Gguf(gguf) => &gguf.store,
        }
    }
}

/// Where a checkpoint's tokenizer is. Whether it is one that is supported shows when it is read.
#[derive(Clone)]
pub enum TokenizerSource<'a> {
    /// A `tokenizer.json`, which may not be there.
    Json(PathBuf),
    /// The metadata of a GGUF file.
    Gguf(GgufTokenizer<'a>),
}

impl Checkpoint {
    /// Opens a Hugging Face folder or a GGUF file and checks it whole, but for the values of the weights.
    ///
    /// # Errors
    /// As [`open_folder`](Self::open_folder) and [`open_gguf`](Self::open_gguf).
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        // A file that is not there is told from a folder by its name.
        let named_gguf = path.extension().is_some_and(|extension| extension == "gguf");
        if path.is_file() || (named_gguf && !path.is_dir()) {
            Self::open_gguf(path)
        } else {
            Self::open_folder(path)
        }
    }

    /// Opens a GGUF file.
    ///
    /// # Errors
    /// The file is not GGUF, or contradicts itself; it is of another architecture, or asks for something that this crate does not
    /// do; a tensor is missing or has another shape; there are tensors beyond the architecture's.
    pub fn open_gguf(path: &Path) -> Result<Self, CheckpointError> {
        let gguf = Gguf::open(path)?;
        let gguf::Sizes { spec, turns: rope, local_turns: local_rope, folded, names } =
            gguf::sizes(&gguf.fields(), &gguf.store)?;
        let checkpoint = Self::new(path, Contents::Gguf(gguf), spec, [rope, local_rope], folded, names);
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// Opens a Hugging Face folder.
    ///
    /// Where `tie_word_embeddings` is true and the weights hold a head all the same, it must equal the embedding: some
    /// versions of transformers ignore such a head and some compute with it, so a different one has no one meaning.
    ///
    /// # Errors
    /// Anything [`HfConfig::read`] or [`TensorStore::open`] refuses; a tensor of the architecture is missing or has
    /// another shape or type; there are tensors beyond the architecture's (rotary buffers are passed over); the tied
    /// head differs.
    pub fn open_folder(dir: &Path) -> Result<Self, CheckpointError> {
        let HfConfig { mut spec, rope, local_rope, folded, names, position_rows, token_types, labels } =
            HfConfig::read(&dir.join("config.json"))?;
        complete_encoder(dir, &mut spec)?;
        complete_classifier(dir, &mut spec)?;
        let turns = |rope: &super::Rope| rope.turns_per_position(spec.variant.rotary_dim);
        let ropes = [turns(&rope), local_rope.as_ref().map_or_else(Vec::new, turns)];
        let contents = Contents::Folder(TensorStore::open(dir)?);
        let mut checkpoint = Self::new(dir, contents, spec, ropes, folded, names);
        if let Some(rows) = position_rows {
            checkpoint.position_rows = rows as usize;
        }
        checkpoint.token_types = token_types as usize;
        checkpoint.labels = labels;
        checkpoint.check_tensors()?;
        if checkpoint.spec.tied_head && checkpoint.tensors().shape(names.head).is_some() {
            checkpoint.check_tied_head()?;
        }
        Ok(checkpoint)
    }

    /// With as many rows of positions as the names and the context say, and no token types. Nothing is checked yet.
    fn new(
        path: &Path,
        contents: Contents,
        spec: ModelSpec,
        [rope, local_rope]: [Vec<u64>; 2],
        folded: Folded,
        names: &'static Names,
    ) -> Self {
        Self {
            prefix: prefix(names, contents.store()),
            position_rows: spec.context as usize + names.unused_positions,
            token_types: 0,
            labels: Vec::new(),
            path: path.to_owned(),
            stored_tied: spec.tied_head,
            spec,
            rope,
            local_rope,
            contents: Arc::new(contents),
            folded,
            transform: None,
            names,
        }
    }

    /// The same checkpoint, of which every weight is given out transformed.
    ///
    /// A rotated stream takes the last norm's gain into the head; a head that is the embedding stays it, and gets its input through a matrix
    /// of its own ([`StreamNorm::head_input`]).
    ///
    /// # Errors
    /// The architecture's stream cannot be rotated, or a width has no Hadamard transform that the forward could run.
    pub fn transformed(&self, transform: Transform) -> Result<Checkpoint, CheckpointError> {
        let architecture = self.spec.architecture;
        if transform.stream.is_some() && !Transform::rotates_stream_of(architecture) {
            let path = self.path.clone();
            return Err(CheckpointError::StreamNotRotated { path, architecture: architecture.name() });
        }
        let mut transformed = self.clone();
        transformed.spec.online = OnlineTransforms {
            output: transform.online,
            down: transform.online,
            head_input: self.stored_tied && transform.stream.is_some(),
        };
        if let Err(cause) = transformed.spec.check() {
            return Err(CheckpointError::NoTransform { path: self.path.clone(), cause });
        }
        transformed.transform = Some(Arc::new(transform));
        Ok(transformed)
    }

    /// Token embeddings, `[vocabulary, hidden]`.
    ///
    /// # Errors
    /// An element is not finite, or the model is a classifier.
    pub fn embedding(&self) -> Result<Matrix, CheckpointError> {
        if self.spec.architecture.is_classifier() {
            return Err(self.wrong_kind("a model of texts"));
        }
        let mut embedding = self.stored_embedding()?;
        if self.names.bare_norms {
            bare_norms::center_rows(&mut embedding);
        }
        self.transform.iter().for_each(|transform| transform.transform_embedding(&mut embedding));
        Ok(embedding)
    }

    fn stored_embedding(&self) -> Result<Matrix, CheckpointError> {
        self.matrix(&self.prefixed(self.names.embedding), self.vocabulary_shape())
    }

    /// The vectors of positions, `[context, hidden]`, with that of token type 0, where tokens have a type; of a classifier what is added to
    /// each token. `None` where positions are rotations.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn positions(&self) -> Result<Option<Matrix>, CheckpointError> {
        let Some(name) = self.names.positions else { return Ok(None) };
        if self.spec.architecture.is_classifier() {
            return self.image_positions().map(Some);
        }
        let (unused, cols) = (self.names.unused_positions, self.spec.hidden as usize);
        let stored = self.matrix(&self.prefixed(name), [self.position_rows, cols])?;
        let rows = self.spec.context as usize;
        let mut data = stored.data[unused * cols..(unused + rows) * cols].to_vec();
        if let Some(name) = self.names.token_types {
            let types = self.matrix(&self.prefixed(name), [self.token_types, cols])?;
            for position in data.chunks_exact_mut(cols) {
                position.iter_mut().zip(types.row(0)).for_each(|(number, of_type)| *number += of_type);
            }
        }
        let mut positions = Matrix { rows, cols, data };
        self.transform.iter().for_each(|transform| transform.transform_embedding(&mut positions));
        Ok(Some(positions))
    }

    /// The output head, `[vocabulary, hidden]` (of a classifier the heads of its tokens side by side); `None` where it is the embedding, and of
    /// encoders.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn head(&self) -> Result<Option<Matrix>, CheckpointError> {
        if self.spec.tied_head || self.spec.architecture.is_encoder() {
            return Ok(None);
        }
        if self.spec.architecture.is_classifier() {
            return self.image_head().map(Some);
        }
        let mut head = self.matrix(self.names.head, self.vocabulary_shape())?;
        if let Some(transform) = &self.transform {
            transform.transform_head(&mut head, &self.stored_norm()?.gain);
        }
        Ok(Some(head))
    }

    /// The norm before the head.
    ///
    /// # Errors
    /// An element is not finite, or the model is an encoder.
    pub fn final_norm(&self) -> Result<StreamNorm, CheckpointError> {
        match self.spec.architecture.is_encoder() {
            false => self.stream_norm(),
            true => Err(self.wrong_kind("a decoder or a classifier")),
        }
    }

    fn wrong_kind(&self, expected: &'static str) -> CheckpointError {
        let (architecture, kind) = (self.spec.architecture.name(), self.spec.architecture.kind());
        CheckpointError::Kind { path: self.path.clone(), architecture, kind, expected }
    }

    /// The names of an image's classes; none of what is no classifier.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    pub(super) fn names(&self) -> &'static Names {
        self.names
    }

    /// The norm of the embeddings, of an encoder; `None` of a decoder.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn embedding_norm(&self) -> Result<Option<StreamNorm>, CheckpointError> {
        self.spec.architecture.is_encoder().then(|| self.stream_norm()).transpose()
    }

    /// The norm outside of the blocks.
    fn stream_norm(&self) -> Result<StreamNorm, CheckpointError> {
        let mut norm = self.stored_norm()?;
        if let Some(transform) = &self.transform {
            let folded = transform.transform_norm(&mut norm, self.stored_tied);
            folded.map_err(|cause| self.not_folded(None, cause))?;
        }
        Ok(norm)
    }

    fn stored_norm(&self) -> Result<StreamNorm, CheckpointError> {
        let read = |name: &str| self.tensors().tensor_f32(&self.prefixed(name), &[self.spec.hidden as usize]);
        let mut gain = match self.names.bare_norms {
            true => vec![1.0; self.spec.hidden as usize],
            false => read(self.names.norm)?,
        };
        self.complete_gain(&mut gain);
        let bias = self.names.norm_bias.map_or(Ok(Vec::new()), read)?;
        let mut norm = StreamNorm { gain, bias, head_input: None };
        self.folded.multiply_stream_norm(&mut norm);
        Ok(norm)
    }

    /// The weights of block `layer`, counted from 0.
    ///
    /// # Errors
    /// An element is not finite; or `layer` is not below the model's layers, which is reported as a missing tensor.
    pub fn layer(&self, layer: usize) -> Result<LayerWeights, CheckpointError> {
        let mut weights = LayerWeights::default();
        for stored in self.names.tensors() {
            let name = self.names.of_layer(self.prefix, layer, stored);
            let data = self.tensors().tensor_f32(&name, &stored.shape(&self.spec))?;
            for (kind, mut part) in stored.split(&self.spec, data) {
                let rotated = matches!(kind, SectionKind::Query | SectionKind::Key);
                if rotated && self.names.neighbour_pairs {
                    part = neighbours_to_halves(&part, self.spec.head_dim as usize);
                }
                if kind.is_gain() {
                    self.complete_gain(&mut part.data);
                }
                weights.insert(kind, part);
            }
        }
        weights.fill_vectors(&self.spec);
        if self.names.bare_norms {
            bare_norms::center_layer(&mut weights);
        }
        self.folded.multiply_layer(&self.spec, layer, &mut weights);
        if let Some(transform) = &self.transform {
            let folded = transform.transform_layer(&self.spec, layer, &mut weights);
            folded.map_err(|cause| self.not_folded(Some(layer), cause))?;
        }
        Ok(weights)
    }

    fn not_folded(&self, layer: Option<usize>, cause: NotFolded) -> CheckpointError {
        let place = layer.map_or_else(String::new, |layer| format!("layer {layer} "));
        CheckpointError::NotFolded { path: self.path.clone(), place, cause }
    }

    /// What the weights are given out with.
    pub fn transform(&self) -> Option<&Transform> {
        self.transform.as_deref()
    }

    /// What the weights took in, as text: part of what a block follows from.
    pub fn folded(&self) -> String {
        format!("{:?}", self.folded)
    }

    /// A gain as the forward multiplies with it.
    fn complete_gain(&self, gain: &mut [f32]) {
        if self.names.gains_less_one {
            gain.iter_mut().for_each(|gain| *gain += 1.0);
        }
    }

    /// The name of the folder (in the hub's cache, the model's), or of the file without its extension, which is the model's wherever it is shown.
    pub fn name(&self) -> String {
        if let Some(name) = super::hub_cache::model_name(&self.path).filter(|_| self.path.is_dir()) {
            return name.to_owned();
        }
        // "." and ".." have no name of their own.
        let resolved =
            || self.path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let named = match &*self.contents {
            Contents::Folder(_) => self.path.file_name(),
            Contents::Gguf(_) => self.path.file_stem(),
        };
        match named {
            Some(name) => name.to_string_lossy().into_owned(),
            None => resolved().unwrap_or_else(|| self.path.to_string_lossy().into_owned()),
        }
    }

    /// Number of weights; a tied head is counted once, as the embedding.
    pub fn parameters(&self) -> u64 {
        self.architecture_tensors()
            .map(|(_, shape)| shape.iter().map(|&size| size as u64).product::<u64>())
            .sum()
    }

    /// Bytes of the weight files.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors().bytes()
    }

    /// SHA-256 of the weight files (see [`TensorStore::digest`]).
    pub fn digest(&self) -> [u8; 32] {
        self.tensors().digest()
    }

    /// Where the tokenizer is.
    pub fn tokenizer(&self) -> TokenizerSource<'_> {
        match &*self.contents {
            Contents::Folder(_) => TokenizerSource::Json(self.path.join("tokenizer.json")),
            Contents::Gguf(gguf) => {
                TokenizerSource::Gguf(GgufTokenizer::new(gguf.fields(), self.spec.vocabulary))
            }
        }
    }

    /// The chat template of a GGUF file, with the texts of its special tokens; `None` where it has none, and of a folder.
    ///
    /// # Errors
    /// The metadata contradict themselves.
    pub fn gguf_chat_template(&self) -> Result<Option<GgufChatTemplate<'_>>, CheckpointError> {
        match &*self.contents {
            Contents::Folder(_) => Ok(None),
            Contents::Gguf(gguf) => gguf::chat_template(&gguf.fields()),
        }
    }

    /// The folder or the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors as stored.
    pub fn tensors(&self) -> &TensorStore {
        self.contents.store()
    }

    /// A name of the model with the prefix that these files have.
    pub(super) fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Name and shape of every tensor that a model of these sizes has.
    fn architecture_tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let (names, spec) = (self.names, &self.spec);
        let [vocabulary, hidden] = self.vocabulary_shape();
        let vector = |name: &str| (self.prefixed(name), vec![hidden]);
        let texts = !spec.architecture.is_classifier();
        let has_head = !self.stored_tied && spec.architecture.is_decoder();
        let head = has_head.then(|| (names.head.to_owned(), vec![vocabulary, hidden]));
        let table = |name: &str, rows| (self.prefixed(name), vec![rows, hidden]);
        let positions = names.positions.filter(|_| texts).map(|name| table(name, self.position_rows));
        let token_types = names.token_types.map(|name| table(name, self.token_types));
        let norm = (!names.bare_norms).then(|| vector(names.norm));
        let outside = texts.then(|| table(names.embedding, vocabulary)).into_iter().chain(norm);
        let layers = (0..spec.layers as usize).flat_map(move |layer| {
            let of = move |stored| (names.of_layer(self.prefix, layer, stored), stored.shape(spec));
            names.tensors().map(of)
        });
        outside
            .chain(self.image_tensors())
            .chain(names.norm_bias.map(vector))
            .chain(positions)
            .chain(token_types)
            .chain(head)
            .chain(layers)
    }

    fn vocabulary_shape(&self) -> [usize; 2] {
        [self.spec.vocabulary as usize, self.spec.hidden as usize]
    }

    fn matrix(&self, tensor: &str, [rows, cols]: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let data = self.tensors().tensor_f32(tensor, &[rows, cols])?;
        Ok(Matrix { rows, cols, data })
    }

    /// Headers only: what must be there is, and nothing else.
    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let mut known = BTreeSet::new();
        let names = self.names;
        for (tensor, shape) in self.architecture_tensors() {
            self.tensors().check(&tensor, &shape)?;
            known.insert(tensor);
        }
        let accepted = |name: &str| {
            known.contains(name)
                || (name == names.head && self.stored_tied)
                || names.passed_over.iter().any(|end| name.ends_with(end))
                || names.parts_passed_over.iter().any(|start| name.starts_with(start))
        };
        let unexpected: Vec<&str> = self.tensors().names().filter(|name| !accepted(name)).collect();
        if unexpected.is_empty() {
            return Ok(());
        }
        const SHOWN: usize = 5;
        let more = if unexpected.len() > SHOWN { ", ..." } else { "" };
        Err(CheckpointError::UnexpectedTensors {
            path: self.tensors().path().to_owned(),
            count: unexpected.len(),
            tensors: unexpected[..unexpected.len().min(SHOWN)].join(", ") + more,
        })
    }

    fn check_tied_head(&self) -> Result<(), CheckpointError> {
        let (store, head) = (self.tensors(), self.names.head);
        store.check(head, &self.vocabulary_shape())?;
        // The usual case costs no memory; only where the stored bytes differ are the values compared.
        if store.stored_alike(&self.prefixed(self.names.embedding), head) {
            return Ok(());
        }
        let embedding = self.stored_embedding()?;
        let stored = store.tensor_f32(head, &self.vocabulary_shape())?;
        let differs = |(ours, theirs): (&f32, &f32)| ours != theirs;
        match embedding.data.iter().zip(&stored).position(differs) {
            None => Ok(()),
            Some(at) => Err(CheckpointError::TiedHeadDiffers {
                path: store.path_of(head).to_owned(),
                row: at / embedding.cols,
                column: at % embedding.cols,
                embedding: embedding.data[at],
                head: stored[at],
            }),
        }
    }
}

/// The prefix under which the embedding is stored; of none, the first.
fn prefix(names: &Names, store: &TensorStore) -> &'static str {
    let stored = |prefix: &&&str| store.shape(&format!("{prefix}{}", names.embedding)).is_some();
    names.prefixes.iter().find(stored).or(names.prefixes.first()).copied().unwrap_or_default()
}
