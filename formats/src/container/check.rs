//! Checking the contents of a container, and the view that only a checked one gives.

use super::{Container, crc32, expect_zero, low_rank_shape, matrix_shape};
use crate::chat_template::ChatTemplate;
use crate::check_embeddings::CheckEmbeddings;
use crate::check_images::CheckImages;
use crate::check_windows::CheckWindows;
use crate::error::ContainerError;
use crate::labels::Labels;
use crate::manifest::{Check, Manifest};
use crate::matrix::{LowRankView, MatrixShape, MatrixView};
use crate::section::{SECTION_ALIGNMENT_BYTES, SectionEntry, SectionKind, SectionName, section_index};
use crate::spec::MAX_EMBEDDING_BANDS;
use crate::tokenizer::TokenizerView;
use sha2::{Digest, Sha256};

/// How much of a section's bytes is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// CRC-32: finds every accident of up to 32 neighbouring bits. For every start.
    Crc,
    /// CRC-32 and SHA-256: finds what was made to deceive, where the table is trusted. Always of a container that was opened with a
    /// trusted key.
    Digest,
}

/// A container whose every byte was checked: the only thing that can be run.
#[derive(Clone, Debug)]
pub struct CheckedContainer<'a> {
    container: Container<'a>,
    tokenizer: Option<TokenizerView<'a>>,
    labels: Option<Labels<'a>>,
    checks: Checks<'a>,
    chat_template: Option<ChatTemplate<'a>>,
}

/// What a model proves itself with, by what it computes.
#[derive(Clone, Copy, Debug)]
enum Checks<'a> {
    Windows(CheckWindows<'a>),
    Embeddings(CheckEmbeddings<'a>),
    Images(CheckImages<'a>),
}

impl<'a> Container<'a> {
    /// Checks everything that [`Container::open`] has not: padding, checksums, and each section's contents. Time is linear in the
    /// file's bytes, memory constant.
    ///
    /// # Errors
    /// The first [`ContainerError`], in the order of the file.
    #[inline(never)]
    pub fn check(self, integrity: Integrity) -> Result<CheckedContainer<'a>, ContainerError> {
        let table_end = self.head.front_bytes();
        let aligned = table_end.next_multiple_of(SECTION_ALIGNMENT_BYTES);
        expect_zero(&self.file[table_end..aligned], table_end)?;
        let mut end = self.head.first_section_offset();
        let (mut tokenizer, mut labels) = (None, None);
        let mut checks = None;
        let mut chat_template = None;
        for (name, entry) in self.entries() {
            let offset = entry.offset_bytes as usize;
            expect_zero(&self.file[end..offset], end)?;
            let bytes = self.bytes_of(entry);
            end = offset + bytes.len();
            let found = crc32(bytes);
            if found != entry.crc32 {
                let (section, offset, expected) = (Some(name), entry.offset_bytes, entry.crc32);
                return Err(ContainerError::Checksum { part: "section", section, offset, expected, found });
            }
            if integrity == Integrity::Digest || self.trusted {
                let (offset, expected, found) =
                    (entry.offset_bytes, entry.sha256, <[u8; 32]>::from(Sha256::digest(bytes)));
                if found != expected {
                    return Err(ContainerError::Digest { section: name, offset, expected, found });
                }
            }
            match name.kind {
                SectionKind::Tokenizer => tokenizer = Some(self.parse_tokenizer(name, entry, bytes)?),
                SectionKind::CheckWindows => {
                    checks = Some(Checks::Windows(self.parse_check_windows(name, entry, bytes)?));
                }
                SectionKind::CheckEmbeddings if cfg!(feature = "encoders") => {
                    checks = Some(Checks::Embeddings(self.parse_check_embeddings(name, entry, bytes)?));
                }
                SectionKind::CheckImages if cfg!(feature = "classifiers") => {
                    checks = Some(Checks::Images(self.parse_check_images(name, entry, bytes)?));
                }
                SectionKind::Labels if cfg!(feature = "classifiers") => {
                    let error = structure_error(name, entry);
                    let parsed = Labels::parse(bytes, self.manifest.spec.vocabulary)
                        .map_err(|refused| error(refused.offset_bytes, refused.expected, refused.found))?;
                    labels = Some(parsed);
                }
                SectionKind::RopeFrequencies | SectionKind::LocalRopeFrequencies => {}
                SectionKind::TokenBands if cfg!(feature = "bands") => {
                    self.check_token_bands(name, entry, bytes)?
                }
                SectionKind::ChatTemplate if cfg!(feature = "chat") => {
                    chat_template = Some(parse_chat_template(name, entry, bytes)?);
                }
                // `open` refuses models that have one where it isn't built.
                kind if kind.is_bytes() => {}
                kind if kind.is_matrix() => {
                    self.check_matrix(name, entry, bytes)?;
                }
                _ => check_finite(name, entry, bytes)?,
            }
        }
        let missing = |kind| ContainerError::Order {
            index: 0,
            offset: self.table.first().map_or(0, |entry| self.offset_of(entry)),
            expected: SectionName { kind, layer: None },
            kind: 0,
            layer: 0,
        };
        Ok(CheckedContainer {
            tokenizer,
            labels,
            checks: checks.ok_or(missing(SectionKind::CheckWindows))?,
            chat_template,
            container: self,
        })
    }

    /// Checks a matrix, and the factors of its correction where it has one.
    #[inline(never)]
    fn check_matrix(
        &self,
        section: SectionName,
        entry: &SectionEntry,
        bytes: &[u8],
    ) -> Result<(), ContainerError> {
        let at = self.offset_of(entry);
        let shape = matrix_shape(section, entry, at)?;
        let refused = |(offset_bytes, error)| {
            let offset = entry.offset_bytes + offset_bytes as u64;
            ContainerError::Matrix { section, offset, error }
        };
        let corrected = low_rank_shape(section, entry, at)?;
        // All of it is the matrix's, but for the factors.
        let matrix = corrected.map_or(bytes, |_| bytes.get(..shape.section_bytes()).unwrap_or(bytes));
        MatrixView::new(shape, matrix)
            .and_then(|view| view.check(matrix))
            .map_err(|error| refused((error.offset_bytes(&shape), error)))?;
        match corrected {
            None => Ok(()),
            Some(corrected) => LowRankView::new(&corrected, bytes)
                .map_err(|error| (0, error))
                .and_then(|view| view.check(&corrected, bytes))
                .map_err(refused),
        }
    }

    /// Checks that each token has a band, and that each band has a row for each of its tokens.
    fn check_token_bands(
        &self,
        section: SectionName,
        entry: &SectionEntry,
        bytes: &[u8],
    ) -> Result<(), ContainerError> {
        let mut tokens = [0_u32; MAX_EMBEDDING_BANDS as usize];
        let tokens = &mut tokens[..self.manifest.spec.embedding_bands.into()];
        for (offset, &band) in (entry.offset_bytes..).zip(bytes) {
            let Some(tokens) = tokens.get_mut(usize::from(band)) else {
                let expected = "a band below the model's embedding_bands";
                return Err(ContainerError::Structure { section, offset, expected, found: band.into() });
            };
            *tokens += 1;
        }
        let bands = self.entries().filter(|(name, _)| name.kind == SectionKind::Embedding);
        for (&expected, (section, entry)) in tokens.iter().zip(bands) {
            if entry.rows != expected {
                let (offset, found) = (self.offset_of(entry) + 8, entry.rows);
                return Err(ContainerError::BandRows { section, offset, expected, found });
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn parse_tokenizer(
        &self,
        section: SectionName,
        entry: &SectionEntry,
        bytes: &'a [u8],
    ) -> Result<TokenizerView<'a>, ContainerError> {
        let offset = entry.offset_bytes;
        if !cfg!(feature = "ordered-tokens") && bytes.get(3).is_some_and(|&model| model != 0) {
            return Err(ContainerError::NotBuilt { part: "ordered-tokens" });
        }
        let view = TokenizerView::parse(bytes).map_err(|error| {
            let offset = offset + error.offset_bytes as u64;
            ContainerError::Tokenizer { offset, error }
        })?;
        // A token that the embedding lacks would be read out of its bounds.
        if view.vocabulary() > self.manifest().spec.vocabulary {
            let expected = "no more tokens than the model's vocabulary";
            return Err(ContainerError::Structure {
                section,
                offset: offset + TokenizerView::VOCABULARY_OFFSET_BYTES as u64,
                expected,
                found: view.vocabulary().into(),
            });
        }
        Ok(view)
    }

    /// Parses the windows, and checks that they fit the model's context and the manifest's record.
    #[inline(never)]
    fn parse_check_windows(
        &self,
        section: SectionName,
        entry: &SectionEntry,
        bytes: &'a [u8],
    ) -> Result<CheckWindows<'a>, ContainerError> {
        let error = structure_error(section, entry);
        let Manifest { spec, check, .. } = self.manifest();
        let windows = CheckWindows::parse(bytes, spec.vocabulary)
            .map_err(|refused| error(refused.offset_bytes, refused.expected, refused.found))?;
        let sizes = windows.sizes();
        if sizes.positions as u64 > u64::from(spec.context) {
            return Err(error(4, "no more positions than the model's context", sizes.positions as u64));
        }
        let all = sizes.all_positions().map_or(u64::MAX, |positions| positions as u64);
        let Check::Windows(record) = check else {
            return Err(error(0, "no windows with a record of embeddings or images", all));
        };
        if all != u64::from(record.positions) {
            return Err(error(0, "as many positions in all windows as the manifest's record has", all));
        }
        Ok(windows)
    }

    /// Parses an encoder's texts and vectors, and checks that they are as many as the manifest's record has.
    fn parse_check_embeddings(
        &self,
        section: SectionName,
        entry: &SectionEntry,
        bytes: &'a [u8],
    ) -> Result<CheckEmbeddings<'a>, ContainerError> {
        let error = structure_error(section, entry);
        let Manifest { spec, check, .. } = self.manifest();
        let texts = CheckEmbeddings::parse(bytes, spec)
            .map_err(|refused| error(refused.offset_bytes, refused.expected, refused.found))?;
        let recorded = match check {
            Check::Embeddings(record) => record.texts,
            Check::Windows(_) | Check::Images(_) => 0,
        };
        if texts.texts() as u64 != u64::from(recorded) {
            return Err(error(0, "as many texts as the manifest's record has", texts.texts() as u64));
        }
        Ok(texts)
    }

    /// Parses a classifier's images, and checks that they are as many as the manifest's record has.
    fn parse_check_images(
        &self,
        section: SectionName,
        entry: &SectionEntry,
        bytes: &'a [u8],
    ) -> Result<CheckImages<'a>, ContainerError> {
        let error = structure_error(section, entry);
        let Manifest { spec, check, .. } = self.manifest();
        let images = CheckImages::parse(bytes, spec)
            .map_err(|refused| error(refused.offset_bytes, refused.expected, refused.found))?;
        let recorded = match check {
            Check::Images(record) => record.images,
            Check::Windows(_) | Check::Embeddings(_) => 0,
        };
        if images.images() as u64 != u64::from(recorded) {
            return Err(error(0, "as many images as the manifest's record has", images.images() as u64));
        }
        Ok(images)
    }

    /// Where an entry of the table lies in the file.
    fn offset_of(&self, entry: &SectionEntry) -> u64 {
        (core::ptr::from_ref(entry).addr() - self.file.as_ptr().addr()) as u64
    }
}

/// Makes the error of a byte inside a section, counted from its beginning.
fn structure_error(
    section: SectionName,
    entry: &SectionEntry,
) -> impl Fn(usize, &'static str, u64) -> ContainerError + use<> {
    let start = entry.offset_bytes;
    move |offset_bytes, expected, found| ContainerError::Structure {
        section,
        offset: start + offset_bytes as u64,
        expected,
        found,
    }
}

fn parse_chat_template<'a>(
    section: SectionName,
    entry: &SectionEntry,
    bytes: &'a [u8],
) -> Result<ChatTemplate<'a>, ContainerError> {
    ChatTemplate::parse(bytes).map_err(|error| {
        let offset = entry.offset_bytes + error.offset_bytes as u64;
        ContainerError::Structure { section, offset, expected: error.expected, found: error.found }
    })
}

#[inline(never)]
fn check_finite(section: SectionName, entry: &SectionEntry, bytes: &[u8]) -> Result<(), ContainerError> {
    for (index, word) in bytes.as_chunks::<4>().0.iter().enumerate() {
        if !f32::from_le_bytes(*word).is_finite() {
            let offset = entry.offset_bytes + 4 * index as u64;
            return Err(ContainerError::NotFinite { section, offset, bits: u32::from_le_bytes(*word) });
        }
    }
    Ok(())
}

impl<'a> CheckedContainer<'a> {
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.container.manifest
    }

    /// The container without the promise.
    pub fn container(&self) -> &Container<'a> {
        &self.container
    }

    /// The tokenizer; `None` of a classifier.
    pub fn tokenizer(&self) -> Option<TokenizerView<'a>> {
        self.tokenizer
    }

    /// The names of an image's classes; `None` of what is no classifier.
    pub fn labels(&self) -> Option<Labels<'a>> {
        self.labels
    }

    /// The embedded windows; `None` of what is no decoder.
    pub fn check_windows(&self) -> Option<CheckWindows<'a>> {
        match self.checks {
            Checks::Windows(windows) => Some(windows),
            Checks::Embeddings(_) | Checks::Images(_) => None,
        }
    }

    /// The embedded texts and their vectors; `None` of what is no encoder.
    pub fn check_embeddings(&self) -> Option<CheckEmbeddings<'a>> {
        match self.checks {
            Checks::Embeddings(texts) => Some(texts),
            Checks::Windows(_) | Checks::Images(_) => None,
        }
    }

    /// The embedded images; `None` of what is no classifier.
    pub fn check_images(&self) -> Option<CheckImages<'a>> {
        match self.checks {
            Checks::Images(images) => Some(images),
            Checks::Windows(_) | Checks::Embeddings(_) => None,
        }
    }

    /// The chat template; `None` where the model has none.
    pub fn chat_template(&self) -> Option<ChatTemplate<'a>> {
        self.chat_template
    }

    /// The band of each token's row of the embedding; `None` where the embedding is one matrix. Within a band, rows come in the order of
    /// tokens: a token's row in its band is how many earlier tokens have the same band.
    pub fn token_bands(&self) -> Option<&'a [u8]> {
        if !cfg!(feature = "bands") {
            return None;
        }
        let name = SectionName { kind: SectionKind::TokenBands, layer: None };
        self.container.section(name).map(|(_, bytes)| bytes)
    }

    /// A matrix, without its correction where it has one; `None` where the model has none of that name.
    pub fn matrix(&self, name: SectionName) -> Option<MatrixView<'a>> {
        let entry = self.container.table.get(section_index(&self.manifest().spec, name)?)?;
        let shape: MatrixShape = matrix_shape(name, entry, 0).ok()?;
        // Factors of a correction follow the matrix.
        MatrixView::new(shape, self.container.bytes_of(entry).get(..shape.section_bytes())?).ok()
    }

    /// The factors of a matrix's correction: the matrix is multiplied with as `Q + U V`. `None` where it has none, or the model has no
    /// matrix of that name.
    pub fn low_rank(&self, name: SectionName) -> Option<LowRankView<'a>> {
        if !cfg!(feature = "low-rank") {
            return None;
        }
        let entry = self.container.table.get(section_index(&self.manifest().spec, name)?)?;
        let shape = low_rank_shape(name, entry, 0).ok()??;
        LowRankView::new(&shape, self.container.bytes_of(entry)).ok()
    }

    /// The matrices that a token runs through, in the order of the file, with whether they see every token of a prompt: those of the head
    /// see the last one alone. The factors of a matrix's correction follow it, under its name. An embedding that is no head is left out: its
    /// rows are only looked up.
    pub fn products(&self) -> impl Iterator<Item = (SectionName, MatrixShape, bool)> {
        let tied = self.manifest().spec.tied_head;
        self.container.entries().flat_map(move |(name, _)| {
            let of_prompt = !matches!(name.kind, SectionKind::Embedding | SectionKind::Head);
            let looked_up = name.kind == SectionKind::Embedding && !tied;
            let matrix = self.matrix(name).filter(|_| !looked_up).map(|view| *view.shape());
            let low_rank = self.low_rank(name);
            let right = low_rank.map(|factors| *factors.right.shape());
            let left = low_rank.map(|factors| *factors.left.shape());
            [matrix, right, left].into_iter().flatten().map(move |shape| (name, shape, of_prompt))
        })
    }

    /// The numbers of an f32 section; `None` where the model has none of that name, or it holds something else.
    pub fn floats(&self, name: SectionName) -> Option<&'a [f32]> {
        let (entry, bytes) = self.container.section(name)?;
        if entry.encoding != crate::section::encoding::F32 {
            return None;
        }
        bytemuck::try_cast_slice(bytes).ok()
    }

    /// Rotary frequencies, in turns a position times 2^64: `rotary_dim / 2` of them; none where positions are learned.
    pub fn rope_frequencies(&self) -> &'a [u64] {
        self.frequencies(SectionKind::RopeFrequencies)
    }

    /// The rotary frequencies of layers with a window: none where they have no own.
    pub fn local_rope_frequencies(&self) -> &'a [u64] {
        self.frequencies(SectionKind::LocalRopeFrequencies)
    }

    fn frequencies(&self, kind: SectionKind) -> &'a [u64] {
        let name = SectionName { kind, layer: None };
        self.container
            .section(name)
            .and_then(|(_, bytes)| bytemuck::try_cast_slice(bytes).ok())
            .unwrap_or(&[])
    }
}
