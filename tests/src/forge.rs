//! Containers changed after they were written, with every checksum repaired, as an attacker would: so that the checks behind the
//! checksums are reached. Nothing here panics on a file that is no container.

use bytemuck::Zeroable;
use rescomp_formats::container::{HEAD_BYTES, Head, crc32};
use rescomp_formats::manifest::Manifest;
use rescomp_formats::section::{SECTION_ALIGNMENT_BYTES, SECTION_ENTRY_BYTES, SectionEntry};
use sha2::{Digest, Sha256};

/// The head, unchecked; zeros where the file is shorter.
pub fn head(file: &[u8]) -> Head {
    file.get(..HEAD_BYTES).map_or(Head::zeroed(), bytemuck::pod_read_unaligned)
}

/// Puts a head in the place of the file's, with its checksum.
pub fn put_head(file: &mut [u8], head: Head) {
    if let Some(place) = file.get_mut(..HEAD_BYTES) {
        place.copy_from_slice(bytemuck::bytes_of(&head.sealed()));
    }
}

/// Where an entry of the table lies.
pub fn entry_at(file: &[u8], index: usize) -> usize {
    (head(file).table_offset as usize).saturating_add(index.saturating_mul(SECTION_ENTRY_BYTES))
}

/// An entry of the table; zeros where the file is shorter.
pub fn entry(file: &[u8], index: usize) -> SectionEntry {
    let at = entry_at(file, index);
    let bytes = file.get(at..).and_then(|rest| rest.get(..SECTION_ENTRY_BYTES));
    bytes.map_or(SectionEntry::zeroed(), bytemuck::pod_read_unaligned)
}

/// Puts an entry in the place of the table's.
pub fn put_entry(file: &mut [u8], index: usize, entry: &SectionEntry) {
    let at = entry_at(file, index);
    if let Some(place) = file.get_mut(at..).and_then(|rest| rest.get_mut(..SECTION_ENTRY_BYTES)) {
        place.copy_from_slice(bytemuck::bytes_of(entry));
    }
}

/// The bytes of a section, as far as its entry names some.
pub fn section(file: &[u8], index: usize) -> &[u8] {
    let entry = entry(file, index);
    let start = usize::try_from(entry.offset_bytes).unwrap_or(usize::MAX);
    let length = usize::try_from(entry.length_bytes).unwrap_or(usize::MAX);
    file.get(start..).and_then(|rest| rest.get(..length)).unwrap_or_default()
}

/// How many entries of the table there is room for.
pub fn sections(file: &[u8]) -> usize {
    let room = file.len().saturating_sub(entry_at(file, 0)) / SECTION_ENTRY_BYTES;
    room.min(head(file).section_count as usize)
}

/// Repairs the checksums of the sections, the table and the head, as far as the fields allow.
pub fn repair(file: &mut [u8]) {
    for index in 0..sections(file) {
        let mut entry = entry(file, index);
        let bytes = section(file, index);
        entry.crc32 = crc32(bytes);
        entry.sha256.copy_from_slice(&Sha256::digest(bytes));
        put_entry(file, index, &entry);
    }
    repair_front(file);
}

/// Repairs the checksums of the table and the head.
pub fn repair_front(file: &mut [u8]) {
    let head = head(file);
    let end = entry_at(file, head.section_count as usize);
    if let Some(front) = file.get(HEAD_BYTES..end) {
        let table_crc32 = crc32(front);
        put_head(file, Head { table_crc32, ..head });
    }
}

/// The parts of a container, which may be changed in number and length and put together again.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The head; offsets, counts and checksums follow from the rest.
    pub head: Head,
    /// The manifest's message.
    pub manifest: Vec<u8>,
    /// The table; offsets, lengths and checksums follow from the sections.
    pub entries: Vec<SectionEntry>,
    /// A section an entry.
    pub sections: Vec<Vec<u8>>,
}

impl Parts {
    /// The parts of a file, as far as its fields name some.
    pub fn of(file: &[u8]) -> Parts {
        let head = head(file);
        let manifest = file.get(HEAD_BYTES..).and_then(|rest| rest.get(..head.manifest_bytes as usize));
        let all = 0..sections(file);
        Parts {
            head,
            manifest: manifest.unwrap_or_default().to_vec(),
            entries: all.clone().map(|index| entry(file, index)).collect(),
            sections: all.map(|index| section(file, index).to_vec()).collect(),
        }
    }

    /// Changes what the manifest says; `None` where it is not one.
    pub fn change_manifest(&mut self, change: impl FnOnce(&mut Manifest)) -> Option<()> {
        let mut manifest: Manifest = postcard::from_bytes(&self.manifest).ok()?;
        change(&mut manifest);
        self.manifest = postcard::to_allocvec(&manifest).ok()?;
        Some(())
    }

    /// A file whose sections tile it and whose checksums are right.
    pub fn assemble(&self) -> Vec<u8> {
        let table_offset = (HEAD_BYTES + self.manifest.len()).next_multiple_of(SECTION_ALIGNMENT_BYTES);
        let mut file = vec![0; HEAD_BYTES];
        file.extend(&self.manifest);
        file.resize(table_offset + self.entries.len() * SECTION_ENTRY_BYTES, 0);
        let mut entries = self.entries.clone();
        for (entry, section) in entries.iter_mut().zip(&self.sections) {
            file.resize(file.len().next_multiple_of(SECTION_ALIGNMENT_BYTES), 0);
            (entry.offset_bytes, entry.length_bytes) = (file.len() as u64, section.len() as u64);
            file.extend(section);
        }
        let head = Head {
            manifest_offset: HEAD_BYTES as u32,
            manifest_bytes: self.manifest.len() as u32,
            table_offset: table_offset as u32,
            section_count: entries.len() as u32,
            file_bytes: file.len() as u64,
            ..self.head
        };
        put_head(&mut file, head);
        entries.iter().enumerate().for_each(|(index, entry)| put_entry(&mut file, index, entry));
        repair(&mut file);
        file
    }
}
