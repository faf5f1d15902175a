//! Writing a container: sections in, file bytes out.

use super::{
    ENDIANNESS_MARK, HEAD_BYTES, Head, MAGIC, MAJOR, MAX_MANIFEST_BYTES, MINOR, SIGNATURE_BYTES,
    SignatureBlock, crc32, signed_message,
};
use crate::error::ContainerError;
use crate::manifest::Manifest;
use crate::matrix::{LowRankShape, MatrixError, MatrixShape, RANK_UNIT};
use crate::section::{
    NO_LAYER, SECTION_ALIGNMENT_BYTES, SECTION_ENTRY_BYTES, SectionEntry, SectionName, encoding, layout,
    sections,
};
use alloc::vec::Vec;
use bytemuck::Zeroable;
use sha2::{Digest, Sha256};

/// What a section holds, with its bytes.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Bytes with a structure of their own.
    Bytes(Vec<u8>),
    /// u64 numbers.
    U64(Vec<u64>),
    /// f32 numbers, row by row.
    F32(Vec<f32>),
    /// A packed matrix (`matrix::pack_codebook`, `matrix::pack_scaled`).
    Matrix(MatrixShape, Vec<u8>),
    /// A packed matrix with the factors of its correction ([`Contents::corrected`]).
    Corrected(LowRankShape, Vec<u8>),
}

impl Contents {
    /// A packed matrix and the packed factors of its correction as one section.
    ///
    /// # Errors
    /// [`MatrixError::Length`] for a part that is not as long as its shape says.
    pub fn corrected(
        shape: LowRankShape,
        [matrix, right, left]: [&[u8]; 3],
    ) -> Result<Contents, MatrixError> {
        let mut section = alloc::vec![0; shape.section_bytes()];
        let matrix_range = 0..shape.matrix().section_bytes();
        for (range, part) in
            [(matrix_range, matrix), (shape.right_range(), right), (shape.left_range(), left)]
        {
            if range.len() != part.len() {
                return Err(MatrixError::Length { expected: range.len(), found: part.len() });
            }
            section[range].copy_from_slice(part);
        }
        Ok(Contents::Corrected(shape, section))
    }
}

/// Makes a container's bytes. `contents` gives each section by its name; it is asked in the order of the file.
///
/// # Errors
/// What [`super::Container::open`] would refuse, and whatever `contents` fails with.
pub fn write<E: From<ContainerError>>(
    manifest: &Manifest,
    mut contents: impl FnMut(SectionName) -> Result<Contents, E>,
) -> Result<Vec<u8>, E> {
    let offset = HEAD_BYTES as u64;
    manifest.spec.check().map_err(ContainerError::Spec)?;
    manifest.check_record().map_err(|error| ContainerError::Record { offset, error })?;
    let message = postcard::to_extend(manifest, Vec::new())
        .map_err(|_| ContainerError::Manifest { offset, found: "what postcard cannot spell" })?;
    if message.len() > MAX_MANIFEST_BYTES as usize {
        let (limit, found) = (MAX_MANIFEST_BYTES.into(), message.len() as u64);
        return Err(ContainerError::Limit {
            section: None,
            field: "manifest bytes",
            offset: 20,
            limit,
            found,
        }
        .into());
    }
    let table_offset = (HEAD_BYTES + message.len()).next_multiple_of(SECTION_ALIGNMENT_BYTES);
    let names: Vec<SectionName> = sections(&manifest.spec).collect();
    let mut file = alloc::vec![0; HEAD_BYTES];
    file.extend(&message);
    file.resize(table_offset + names.len() * SECTION_ENTRY_BYTES, 0);
    let mut table = Vec::with_capacity(names.len());
    for name in names {
        file.resize(file.len().next_multiple_of(SECTION_ALIGNMENT_BYTES), 0);
        let offset = file.len();
        let mut entry = SectionEntry {
            kind: name.kind as u16,
            layer: name.layer.unwrap_or(NO_LAYER),
            offset_bytes: offset as u64,
            ..SectionEntry::zeroed()
        };
        match contents(name)? {
            Contents::Bytes(bytes) => file.extend(bytes),
            Contents::U64(numbers) => {
                (entry.encoding, entry.rows, entry.cols) = (encoding::U64, 1, numbers.len() as u32);
                numbers.iter().for_each(|number| file.extend(number.to_le_bytes()));
            }
            Contents::F32(numbers) => {
                // Rows are the kind's; where the numbers aren't that many, reading the file refuses it.
                let rows = name.kind.shape(&manifest.spec).map_or(1, |(rows, _)| rows.max(1));
                (entry.encoding, entry.rows) = (encoding::F32, rows);
                entry.cols = numbers.len() as u32 / rows;
                numbers.iter().for_each(|number| file.extend(number.to_le_bytes()));
            }
            Contents::Matrix(shape, bytes) => {
                describe_matrix(&mut entry, &shape);
                file.extend(bytes);
            }
            Contents::Corrected(shape, bytes) => {
                describe_matrix(&mut entry, shape.matrix());
                entry.rank_units = rank_units(name, &shape)?;
                file.extend(bytes);
            }
        }
        let bytes = &file[offset..];
        entry.length_bytes = bytes.len() as u64;
        entry.crc32 = crc32(bytes);
        entry.sha256.copy_from_slice(&Sha256::digest(bytes));
        table.push(entry);
    }
    let table_bytes: &[u8] = bytemuck::cast_slice(&table);
    file[table_offset..table_offset + table_bytes.len()].copy_from_slice(table_bytes);
    let head = Head {
        magic: MAGIC,
        major: MAJOR,
        minor: MINOR,
        endianness: ENDIANNESS_MARK,
        manifest_offset: HEAD_BYTES as u32,
        manifest_bytes: message.len() as u32,
        table_offset: table_offset as u32,
        section_count: table.len() as u32,
        file_bytes: file.len() as u64,
        table_crc32: crc32(&file[HEAD_BYTES..table_offset + table_bytes.len()]),
        signature_bytes: 0,
        release: 0,
        reserved: 0,
        head_crc32: 0,
    };
    file[..HEAD_BYTES].copy_from_slice(bytemuck::bytes_of(&head.sealed()));
    Ok(file)
}

fn describe_matrix(entry: &mut SectionEntry, shape: &MatrixShape) {
    entry.encoding = encoding::INT + shape.width().bits() as u8;
    entry.layout = layout::number(shape.layout());
    (entry.rows, entry.cols) = (shape.rows() as u32, shape.cols() as u32);
    entry.group_elems = shape.group_elems() as u32;
}

/// The rank as an entry spells it.
fn rank_units(section: SectionName, shape: &LowRankShape) -> Result<u8, ContainerError> {
    let units = shape.rank() as u32 / RANK_UNIT;
    u8::try_from(units).map_err(|_| ContainerError::Limit {
        section: Some(section),
        field: "rank of a correction",
        offset: 7,
        limit: u8::MAX.into(),
        found: units.into(),
    })
}

/// Adds a signature to a container, or replaces the one that it has. `sign` makes the Ed25519 signature of a message
/// ([`super::signed_message`]) with the key that `public_key` belongs to.
///
/// # Errors
/// What [`super::Container::open`] refuses of `file`.
pub fn signed(
    file: &[u8],
    public_key: [u8; 32],
    release: u64,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Result<Vec<u8>, ContainerError> {
    let head = super::Container::open(file)?.head;
    let (front_bytes, old_start) = (head.front_bytes(), head.first_section_offset());
    let mut head = Head { signature_bytes: SIGNATURE_BYTES as u32, release, ..head };
    let start = head.first_section_offset();
    head.file_bytes = (file.len() - old_start + start) as u64;
    let mut signed = alloc::vec![0; start];
    signed[HEAD_BYTES..front_bytes].copy_from_slice(&file[HEAD_BYTES..front_bytes]);
    for entry in signed[head.table_offset as usize..front_bytes].as_chunks_mut::<SECTION_ENTRY_BYTES>().0 {
        let mut moved: SectionEntry = bytemuck::pod_read_unaligned(entry);
        moved.offset_bytes = moved.offset_bytes - old_start as u64 + start as u64;
        entry.copy_from_slice(bytemuck::bytes_of(&moved));
    }
    head.table_crc32 = crc32(&signed[HEAD_BYTES..front_bytes]);
    signed[..HEAD_BYTES].copy_from_slice(bytemuck::bytes_of(&head.sealed()));
    let signature = sign(&signed_message(&signed[..front_bytes]));
    let mut block =
        SignatureBlock { public_key, signature: bytemuck::cast(signature), ..SignatureBlock::zeroed() };
    block.crc32 = crc32(&bytemuck::bytes_of(&block)[..SIGNATURE_BYTES - 4]);
    signed[start - SIGNATURE_BYTES..].copy_from_slice(bytemuck::bytes_of(&block));
    signed.extend_from_slice(&file[old_start..]);
    Ok(signed)
}
