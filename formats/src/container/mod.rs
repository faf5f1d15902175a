//! Reading a container in place: `open` for the structure, `check` for the contents.
//!
//! ```text
//! open:   head -> signature, where a key is trusted -> CRC of manifest and table -> manifest -> each entry: kind, order, encoding, shape, offsets that tile the file
//! check:  padding -> each section: CRC-32 (and SHA-256), then what its kind demands
//! ```
//! Only a [`CheckedContainer`] can be run; none of its accessors panics.

mod check;
mod head;
mod signature;
#[cfg(all(test, feature = "signature", feature = "write"))]
mod signature_tests;
#[cfg(test)]
mod tests;
#[cfg(feature = "write")]
pub mod write;

pub use check::{CheckedContainer, Integrity};
pub use head::{ENDIANNESS_MARK, HEAD_BYTES, Head, MAGIC, MAJOR, MAX_MANIFEST_BYTES, MAX_SECTIONS, MINOR};
#[cfg(feature = "signature")]
pub use signature::{BadKey, TrustedKey};
pub use signature::{SIGNATURE_BYTES, SIGNED_MESSAGE_BYTES, SignatureBlock, SignatureError, signed_message};

use crate::encodings::CodeWidth;
use crate::error::ContainerError;
use crate::manifest::Manifest;
use crate::matrix::{LowRankShape, MatrixShape, RANK_UNIT};
use crate::section::{
    NO_LAYER, SECTION_ALIGNMENT_BYTES, SECTION_ENTRY_BYTES, SectionEntry, SectionKind, SectionName, encoding,
    layout, section_count, section_index, sections,
};
use crate::spec::{Architecture, ModelKind, ModelSpec};

/// CRC-32 as IEEE 802.3 and zlib compute it.
pub fn crc32(bytes: &[u8]) -> u32 {
    // Sixteen bytes at once by a table of 16 KiB, or one by a table of 1 KiB, which an image has room for.
    #[cfg(not(target_os = "none"))]
    type Table = crc::Table<16>;
    #[cfg(target_os = "none")]
    type Table = crc::Table<1>;
    static CRC: crc::Crc<u32, Table> = crc::Crc::<u32, Table>::new(&crc::CRC_32_ISO_HDLC);
    CRC.checksum(bytes)
}

/// A container whose structure is sound. Its sections' contents aren't checked yet.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    file: &'a [u8],
    head: Head,
    manifest: Manifest,
    table: &'a [SectionEntry],
    /// Whether a trusted key signed head, manifest and table.
    trusted: bool,
}

impl<'a> Container<'a> {
    /// Reads the structure of a container: head, manifest, section table. `file` is the whole file, at an address that is a multiple of 64.
    ///
    /// # Errors
    /// [`ContainerError`], naming the byte or section that is wrong. Time is constant in the file's size.
    pub fn open(file: &'a [u8]) -> Result<Self, ContainerError> {
        let head = Head::read(file)?;
        Self::open_front(file, head, false)
    }

    /// As [`Container::open`], of a container that `key` signed, in `least_release` or later; what it did not sign is refused when only the
    /// head has been read. [`Container::check`] then proves each section's SHA-256 before it reads the section.
    ///
    /// # Errors
    /// [`ContainerError::Signature`], and as [`Container::open`].
    #[cfg(feature = "signature")]
    pub fn open_trusted(
        file: &'a [u8],
        key: &TrustedKey,
        least_release: u64,
    ) -> Result<Self, ContainerError> {
        let head = Head::read(file)?;
        key.verify(&head, file)?;
        let container = Self::open_front(file, head, true)?;
        container.require_release(least_release)?;
        Ok(container)
    }

    /// Reads the structure behind the head.
    #[inline(never)]
    fn open_front(file: &'a [u8], head: Head, trusted: bool) -> Result<Self, ContainerError> {
        if file.as_ptr().align_offset(SECTION_ALIGNMENT_BYTES) != 0 {
            return Err(ContainerError::Unaligned);
        }
        let table_start = head.table_offset as usize;
        let table_end = head.front_bytes();
        let Some(front) = file.get(HEAD_BYTES..table_end) else {
            let (expected, found) = (table_end as u64, file.len() as u64);
            return Err(ContainerError::Length { what: "section table", expected, found });
        };
        let crc = crc32(front);
        if crc != head.table_crc32 {
            let (part, offset) = ("manifest and section table", HEAD_BYTES as u64);
            return Err(ContainerError::Checksum {
                part,
                section: None,
                offset,
                expected: head.table_crc32,
                found: crc,
            });
        }
        let offset = HEAD_BYTES as u64;
        let (manifest_bytes, rest) = front.split_at(head.manifest_bytes as usize);
        let manifest = read_manifest(manifest_bytes)?;
        if let Some(part) = missing_part(&manifest.spec) {
            return Err(ContainerError::NotBuilt { part });
        }
        manifest.spec.check().map_err(ContainerError::Spec)?;
        manifest.check_record().map_err(|error| ContainerError::Record { offset, error })?;
        let (padding, table) = rest.split_at(table_start - HEAD_BYTES - manifest_bytes.len());
        expect_zero(padding, HEAD_BYTES + manifest_bytes.len())?;
        let table = bytemuck::try_cast_slice(table).map_err(|_| ContainerError::Unaligned)?;
        signature::read(&head, file)?;
        let container = Container { file, head, manifest, table, trusted };
        container.check_table(table_start)?;
        Ok(container)
    }

    /// Checks every entry, and that the sections tile the rest of the file.
    #[inline(never)]
    fn check_table(&self, table_start: usize) -> Result<(), ContainerError> {
        let spec = &self.manifest.spec;
        let in_head = |name, offset, expected, found| expect_field(None, name, offset, expected, found);
        in_head("number of sections", 28, section_count(spec) as u64, self.table.len() as u64)?;
        let mut end = self.head.first_section_offset() as u64;
        for ((index, expected), entry) in sections(spec).enumerate().zip(self.table) {
            let at = (table_start + index * SECTION_ENTRY_BYTES) as u64;
            if entry.kind != expected.kind as u16 || entry.layer != expected.layer.unwrap_or(NO_LAYER) {
                let (kind, layer) = (entry.kind, entry.layer);
                return Err(ContainerError::Order { index: index as u32, offset: at, expected, kind, layer });
            }
            let field = |name, offset, value, found| expect_field(Some(expected), name, offset, value, found);
            field("tier", at + 6, 0, entry.tier.into())?;
            if !expected.kind.is_block_matrix() {
                field("rank of a correction", at + 7, 0, entry.rank_units.into())?;
            }
            for (word, value) in entry.reserved_tail.into_iter().enumerate() {
                field("reserved", at + 40 + 8 * word as u64, 0, value)?;
            }
            if let Some((rows, cols)) = expected.kind.shape(spec) {
                field("rows", at + 8, rows.into(), entry.rows.into())?;
                field("columns", at + 12, cols.into(), entry.cols.into())?;
            } else if expected.kind == SectionKind::Embedding {
                // How many rows a band has is known when the tokens' bands are read, by `check`.
                field("columns", at + 12, spec.hidden.into(), entry.cols.into())?;
            }
            let length = expected_length(spec, expected, entry, at)?;
            field(
                "offset",
                at + 24,
                end.next_multiple_of(SECTION_ALIGNMENT_BYTES as u64),
                entry.offset_bytes,
            )?;
            field("length", at + 32, length, entry.length_bytes)?;
            let file_bytes = self.file.len() as u64;
            end = match entry.offset_bytes.checked_add(length) {
                Some(end) if end <= file_bytes => end,
                _ => {
                    return Err(ContainerError::Limit {
                        section: Some(expected),
                        field: "length",
                        offset: at + 32,
                        limit: file_bytes,
                        found: length,
                    });
                }
            };
        }
        in_head("end of the last section", 32, end, self.file.len() as u64)
    }

    /// Which release of a signed container it is; 0 of an unsigned one.
    pub fn release(&self) -> u64 {
        self.head.release
    }

    /// Refuses a release that is older than `least`.
    ///
    /// # Errors
    /// [`SignatureError::Release`].
    pub fn require_release(&self, least: u64) -> Result<(), ContainerError> {
        let found = self.release();
        match found < least {
            true => Err(ContainerError::Signature(SignatureError::Release { least, found })),
            false => Ok(()),
        }
    }

    /// The key that signed it, or so it says: trust is [`Container::open_trusted`]'s.
    pub fn signer(&self) -> Option<[u8; 32]> {
        signature::read(&self.head, self.file).ok().flatten().map(|block| block.public_key)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> usize {
        self.file.len()
    }

    /// Every section's name and entry, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = (SectionName, &'a SectionEntry)> + use<'a> {
        sections(&self.manifest.spec).zip(self.table)
    }

    /// The entry and the bytes of a section; `None` where the model has none of that name.
    pub fn section(&self, name: SectionName) -> Option<(&'a SectionEntry, &'a [u8])> {
        let entry = self.table.get(section_index(&self.manifest.spec, name)?)?;
        Some((entry, self.bytes_of(entry)))
    }

    /// The bytes of an entry's section: within the file, by `check_table`.
    fn bytes_of(&self, entry: &SectionEntry) -> &'a [u8] {
        &self.file[entry.offset_bytes as usize..][..entry.length_bytes as usize]
    }

    /// Parameters of the model: elements of all its matrices, norms, biases and learned positions, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        self.weight_entries().map(|entry| u64::from(entry.rows) * u64::from(entry.cols)).sum()
    }

    /// Bits that the container spends on a parameter, on average: codes, scales, norms, biases, positions, tokens' bands and padding inside sections, over
    /// [`Container::parameters`].
    pub fn bits_per_weight(&self) -> f64 {
        let bits: u64 = self.weight_entries().map(|entry| 8 * entry.length_bytes).sum();
        bits as f64 / self.parameters() as f64
    }

    fn weight_entries(&self) -> impl Iterator<Item = &'a SectionEntry> + use<'a> {
        use SectionKind as K;
        let weights = |kind: SectionKind| {
            // A token's band is no parameter (its section has no rows), but a cost of the embedding's rows.
            kind.is_matrix() || kind.is_floats() || kind == K::TokenBands
        };
        self.entries().filter(move |(name, _)| weights(name.kind)).map(|(_, entry)| entry)
    }
}

/// Reads the manifest's message, which is all of `bytes`.
#[inline(never)]
fn read_manifest(bytes: &[u8]) -> Result<Manifest, ContainerError> {
    let offset = HEAD_BYTES as u64;
    // The first of the manifest, and the rest can only be read where it is known.
    if let Ok((architecture, _)) = postcard::take_from_bytes(bytes)
        && let Some(part) = missing_kind(architecture)
    {
        return Err(ContainerError::NotBuilt { part });
    }
    match postcard::take_from_bytes(bytes) {
        Ok((manifest, [])) => Ok(manifest),
        Ok((_, after)) => {
            let offset = offset + (bytes.len() - after.len()) as u64;
            Err(ContainerError::Manifest { offset, found: "bytes after its end" })
        }
        Err(_) => Err(ContainerError::Manifest { offset, found: "none" }),
    }
}

/// The part with models of an architecture's kind, where the program was built without it.
fn missing_kind(architecture: Architecture) -> Option<&'static str> {
    match architecture.kind() {
        ModelKind::Encoder if !cfg!(feature = "encoders") => Some("encoders"),
        ModelKind::Classifier if !cfg!(feature = "classifiers") => Some("classifiers"),
        _ => None,
    }
}

/// Another part that a model needs, and that the program was built without.
fn missing_part(spec: &ModelSpec) -> Option<&'static str> {
    if !cfg!(feature = "bands") && spec.embedding_bands > 1 {
        return Some("bands");
    }
    if !cfg!(feature = "hadamard") && (spec.online.output || spec.online.down) {
        return Some("hadamard");
    }
    (!cfg!(feature = "chat") && spec.chat_template).then_some("chat")
}

/// Checks a field of the head, or of a section's entry.
fn expect_field(
    section: Option<SectionName>,
    field: &'static str,
    offset: u64,
    expected: u64,
    found: u64,
) -> Result<(), ContainerError> {
    match expected == found {
        true => Ok(()),
        false => Err(ContainerError::Field { section, field, offset, expected, found }),
    }
}

/// The length that an entry's section must have, by its kind, encoding and shape; its own where the kind allows any.
#[inline(never)]
fn expected_length(
    spec: &ModelSpec,
    name: SectionName,
    entry: &SectionEntry,
    at: u64,
) -> Result<u64, ContainerError> {
    if name.kind.is_matrix() {
        return Ok(match low_rank_shape(name, entry, at)? {
            Some(corrected) => corrected.section_bytes(),
            None => matrix_shape(name, entry, at)?.section_bytes(),
        } as u64);
    }
    let (encoding, element_bytes, expected) = match name.kind {
        kind if kind.is_bytes() => (encoding::BYTES, 0, "encoding 0 with layout 0"),
        SectionKind::RopeFrequencies | SectionKind::LocalRopeFrequencies => {
            (encoding::U64, 8, "encoding 1 with layout 0")
        }
        _ => (encoding::F32, 4, "encoding 2 with layout 0"),
    };
    if entry.encoding != encoding || entry.layout != layout::NONE {
        return Err(ContainerError::Encoding {
            section: name,
            offset: at + 4,
            expected,
            encoding: entry.encoding,
            layout: entry.layout,
        });
    }
    let zero = |field, offset, found: u32| expect_field(Some(name), field, offset, 0, found.into());
    zero("group", at + 16, entry.group_elems)?;
    if element_bytes == 0 {
        zero("rows", at + 8, entry.rows)?;
        zero("columns", at + 12, entry.cols)?;
        return Ok(match name.kind {
            SectionKind::TokenBands => spec.vocabulary.into(),
            _ => entry.length_bytes,
        });
    }
    Ok(u64::from(entry.rows) * u64::from(entry.cols) * element_bytes)
}

/// The shape of a matrix section, from its entry at this offset of the file.
pub(crate) fn matrix_shape(
    name: SectionName,
    entry: &SectionEntry,
    at: u64,
) -> Result<MatrixShape, ContainerError> {
    let bits = entry.encoding.checked_sub(encoding::INT).and_then(CodeWidth::from_bits);
    let (Some(width), Some(layout)) = (bits, layout::from_number(entry.layout)) else {
        return Err(ContainerError::Encoding {
            section: name,
            offset: at + 4,
            expected: "encoding 18 to 22 or 24 with layout 1 or 2",
            encoding: entry.encoding,
            layout: entry.layout,
        });
    };
    if !width.is_built() {
        return Err(ContainerError::NotBuilt { part: width.feature() });
    }
    MatrixShape::new(entry.rows, entry.cols, entry.group_elems, width, layout)
        .map_err(|error| ContainerError::Shape { section: name, offset: at + 8, error })
}

/// The shape of a matrix section with a low-rank correction, from its entry at this offset of the file; `None` where it has none.
pub(crate) fn low_rank_shape(
    name: SectionName,
    entry: &SectionEntry,
    at: u64,
) -> Result<Option<LowRankShape>, ContainerError> {
    if entry.rank_units == 0 {
        return Ok(None);
    }
    if !cfg!(feature = "low-rank") {
        return Err(ContainerError::NotBuilt { part: "low-rank" });
    }
    let matrix = matrix_shape(name, entry, at)?;
    LowRankShape::new(matrix, u32::from(entry.rank_units) * RANK_UNIT)
        .map(Some)
        .map_err(|error| ContainerError::Shape { section: name, offset: at + 7, error })
}

/// Checks that bytes at `offset` of the file are all zero.
fn expect_zero(bytes: &[u8], offset: usize) -> Result<(), ContainerError> {
    match bytes.iter().position(|&byte| byte != 0) {
        None => Ok(()),
        Some(at) => Err(ContainerError::Padding { offset: (offset + at) as u64, found: bytes[at] }),
    }
}
