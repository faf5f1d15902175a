//! The head: 64 bytes that say what the file is and where manifest and table lie.

use super::{SIGNATURE_BYTES, crc32, expect_field};
use crate::error::ContainerError;
use crate::section::{SECTION_ALIGNMENT_BYTES, SECTION_ENTRY_BYTES};
use bytemuck::{Pod, Zeroable};

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"RESCOMP\x1a";
/// Major version that this reader reads.
pub const MAJOR: u16 = 8;
/// Newest minor version that this reader reads.
pub const MINOR: u16 = 0;
/// Bytes of the head.
pub const HEAD_BYTES: usize = core::mem::size_of::<Head>();
/// Most bytes of the manifest.
pub const MAX_MANIFEST_BYTES: u32 = 65_536;
/// Most sections.
pub const MAX_SECTIONS: u32 = 16_384;
/// Says that the file is little-endian.
pub const ENDIANNESS_MARK: u32 = 0x0a0b_0c0d;

/// The head as it lies in the file (docs/container.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`MAJOR`].
    pub major: u16,
    /// At most [`MINOR`].
    pub minor: u16,
    /// [`ENDIANNESS_MARK`].
    pub endianness: u32,
    /// 64.
    pub manifest_offset: u32,
    /// At most [`MAX_MANIFEST_BYTES`].
    pub manifest_bytes: u32,
    /// The first multiple of 64 after the manifest.
    pub table_offset: u32,
    /// At most [`MAX_SECTIONS`].
    pub section_count: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// CRC-32 from byte 64 to the end of the table.
    pub table_crc32: u32,
    /// Bytes of the signature: 0 or [`SIGNATURE_BYTES`](super::SIGNATURE_BYTES).
    pub signature_bytes: u32,
    /// Rises from one release of a signed container to the next; 0 without a signature.
    pub release: u64,
    /// Zero.
    pub reserved: u32,
    /// CRC-32 of bytes 0 to 59.
    pub head_crc32: u32,
}
const _: () = assert!(HEAD_BYTES == 64);

impl Head {
    /// The head with its CRC-32 set.
    pub fn sealed(mut self) -> Head {
        self.head_crc32 = crc32(&bytemuck::bytes_of(&self)[..HEAD_BYTES - 4]);
        self
    }

    /// Bytes of the file from its start to the end of the section table.
    pub fn front_bytes(&self) -> usize {
        self.table_offset as usize + self.section_count as usize * SECTION_ENTRY_BYTES
    }

    /// Where the first section begins: behind the table and the signature.
    pub fn first_section_offset(&self) -> usize {
        self.front_bytes().next_multiple_of(SECTION_ALIGNMENT_BYTES) + self.signature_bytes as usize
    }

    /// Reads and checks the head of a file.
    ///
    /// # Errors
    /// The first field that this reader cannot accept.
    #[inline(never)]
    pub fn read(file: &[u8]) -> Result<Head, ContainerError> {
        let found = file.len() as u64;
        let Some(bytes) = file.get(..HEAD_BYTES) else {
            return Err(ContainerError::Length { what: "head", expected: HEAD_BYTES as u64, found });
        };
        let head: Head = bytemuck::pod_read_unaligned(bytes);
        if head.magic != MAGIC {
            return Err(ContainerError::Magic { found: head.magic });
        }
        if head.major != MAJOR || head.minor > MINOR {
            return Err(ContainerError::Version { major: head.major, minor: head.minor });
        }
        let crc = crc32(&bytes[..HEAD_BYTES - 4]);
        if crc != head.head_crc32 {
            let (expected, found) = (head.head_crc32, crc);
            return Err(ContainerError::Checksum { part: "head", section: None, offset: 0, expected, found });
        }
        let field = |name, offset, expected, found| expect_field(None, name, offset, expected, found);
        let limit = |field, offset, limit: u32, found: u32| {
            let (bound, value) = (u64::from(limit), u64::from(found));
            if value <= bound {
                Ok(())
            } else {
                Err(ContainerError::Limit { section: None, field, offset, limit: bound, found: value })
            }
        };
        field("endianness mark", 12, ENDIANNESS_MARK.into(), head.endianness.into())?;
        field("manifest offset", 16, HEAD_BYTES as u64, head.manifest_offset.into())?;
        limit("manifest bytes", 20, MAX_MANIFEST_BYTES, head.manifest_bytes)?;
        let after_manifest = (HEAD_BYTES as u64 + u64::from(head.manifest_bytes)).next_multiple_of(64);
        field("section table offset", 24, after_manifest, head.table_offset.into())?;
        limit("number of sections", 28, MAX_SECTIONS, head.section_count)?;
        match head.signature_bytes {
            0 => field("release of an unsigned file", 48, 0, head.release)?,
            found => field("bytes of the signature", 44, SIGNATURE_BYTES as u64, found.into())?,
        }
        field("reserved", 56, 0, head.reserved.into())?;
        if head.file_bytes != found {
            return Err(ContainerError::Length { what: "file", expected: head.file_bytes, found });
        }
        Ok(head)
    }
}
