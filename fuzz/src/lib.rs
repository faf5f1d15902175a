//! Mutations that know the structure of their input, so that a length, a checksum or a digest does not stop the fuzzer at the door.
//!
//! The corpus holds files as users have them: what a target refuses or accepts, `cargo xtask check` or `pack` would. A few mutations
//! leave everything broken, so that the checks at the door are tested, too.

use conformance::forge::{Parts, entry_at, repair_front};
use conformance::fuzz::TokenizerInput;
#[cfg(feature = "import")]
use conformance::fuzz::{BLOCK_HEAD_BYTES, repair_block};
use conformance::tiny::Random;
use libfuzzer_sys::fuzzer_mutate;
use rescomp_formats::manifest::Manifest;
use rescomp_formats::section::{SECTION_ENTRY_BYTES, SectionKind};

/// Bytes that a mutation may add to a part.
const GROWTH_BYTES: usize = 64;

/// One of libFuzzer's own mutations of some bytes, which may grow by so many.
fn mutated(bytes: &[u8], growth: usize) -> Vec<u8> {
    let mut buffer = bytes.to_vec();
    buffer.resize(bytes.len() + growth, 0);
    let most = buffer.len();
    // libFuzzer refuses to change nothing into nothing.
    if most == 0 {
        return buffer;
    }
    let size = fuzzer_mutate(&mut buffer, bytes.len(), most);
    buffer.truncate(size);
    buffer
}

/// Puts the result in the place of the input, where it fits.
fn put(data: &mut [u8], size: usize, max_size: usize, made: &[u8]) -> usize {
    match data.get_mut(..made.len()) {
        Some(place) if made.len() <= max_size => {
            place.copy_from_slice(made);
            made.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
}

/// A change to a container: of a section, the manifest, an entry of the table, the order of sections, or of any byte.
pub fn mutate_container(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed.into());
    let file = data[..size].to_vec();
    let mut parts = Parts::of(&file);
    let count = parts.sections.len();
    if count == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let index = random.below(count as u64) as usize;
    match random.below(20) {
        0 => return fuzzer_mutate(data, size, max_size),
        1 | 2 => parts.manifest = mutated(&parts.manifest, GROWTH_BYTES),
        3 | 4 => {
            // Offsets and lengths as the mutation leaves them.
            let mut file = parts.assemble();
            let at = entry_at(&file, index);
            let entry = mutated(&file[at..at + SECTION_ENTRY_BYTES], 0);
            file[at..at + entry.len()].copy_from_slice(&entry);
            repair_front(&mut file);
            return put(data, size, max_size, &file);
        }
        5 => {
            let other = random.below(count as u64) as usize;
            parts.sections.swap(index, other);
            if random.below(2) == 0 {
                parts.entries.swap(index, other);
            }
        }
        6 => {
            // Another encoding, layout or group of a matrix, with as many bytes as it has.
            let entry = &mut parts.entries[index];
            match random.below(3) {
                0 => entry.encoding = 16 + random.below(9) as u8,
                1 => entry.layout = random.below(3) as u8,
                _ => entry.group_elems = 32 << random.below(4),
            }
        }
        choice => {
            // Sections with a structure of their own deserve more than the share of their number.
            let structured: Vec<usize> =
                (0..count).filter(|&index| parts.entries[index].encoding == 0).collect();
            let index = match structured.len() {
                length if length > 0 && choice % 2 == 0 => structured[random.below(length as u64) as usize],
                _ => index,
            };
            let growth = if parts.entries[index].encoding == 0 { GROWTH_BYTES } else { 0 };
            let before = parts.sections[index].len();
            parts.sections[index] = mutated(&parts.sections[index], growth);
            if growth == 0 {
                parts.sections[index].resize(before, 0);
            }
            repair_structure(&mut parts, index);
        }
    }
    put(data, size, max_size, &parts.assemble())
}

/// Lengths and counts that follow from a changed section.
fn repair_structure(parts: &mut Parts, index: usize) {
    let section = &mut parts.sections[index];
    let kind = SectionKind::from_number(parts.entries[index].kind);
    let number = |section: &[u8], at: usize| {
        section.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    };
    match kind {
        Some(SectionKind::Tokenizer) => repair_length(section),
        Some(SectionKind::CheckWindows) => {
            if let (Some(windows), Some(positions)) = (number(section, 0), number(section, 4)) {
                let change =
                    |manifest: &mut Manifest| manifest.check.positions = windows.wrapping_mul(positions);
                let _ = parts.change_manifest(change);
            }
        }
        _ => {}
    }
}

/// The tokenizer section's own length.
fn repair_length(section: &mut [u8]) {
    let length = (section.len() as u32).to_le_bytes();
    if let Some(place) = section.get_mut(4..8) {
        place.copy_from_slice(&length);
    }
}

/// A change to a tokenizer section, whose length is repaired, or to the text.
pub fn mutate_tokenizer(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed.into());
    let input = data[..size].to_vec();
    let TokenizerInput { section, text } = TokenizerInput::of(&input);
    let (mut section, mut text) = (section.to_vec(), text.to_vec());
    match random.below(20) {
        0 => return fuzzer_mutate(data, size, max_size),
        1 => section = mutated(&section, GROWTH_BYTES),
        2..=9 => text = mutated(&text, GROWTH_BYTES),
        10 => {
            // A stretch of a token's bytes in the text.
            let at = random.below(section.len() as u64 + 1) as usize;
            let length = random.below(9) as usize;
            text.extend_from_slice(&section[at..section.len().min(at + length)]);
        }
        _ => {
            section = mutated(&section, GROWTH_BYTES);
            repair_length(&mut section);
        }
    }
    put(data, size, max_size, &TokenizerInput { section: &section, text: &text }.bytes())
}

/// A change to a safetensors header or to the data behind it; the length in front is repaired.
pub fn mutate_safetensors(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed.into());
    let file = data[..size].to_vec();
    let Some((length, rest)) = file.split_first_chunk() else { return fuzzer_mutate(data, size, max_size) };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX).min(rest.len());
    let (header, tensors) = rest.split_at(length);
    let (header, tensors) = match random.below(20) {
        0 => return fuzzer_mutate(data, size, max_size),
        1..=5 => (header.to_vec(), mutated(tensors, 8)),
        _ => (mutated(header, GROWTH_BYTES), tensors.to_vec()),
    };
    let made = [&(header.len() as u64).to_le_bytes()[..], &header, &tensors].concat();
    put(data, size, max_size, &made)
}

/// A change to a finished block of a journal; identity, length and digest are repaired.
#[cfg(feature = "import")]
pub fn mutate_block(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed.into());
    if random.below(20) == 0 || size < BLOCK_HEAD_BYTES {
        return fuzzer_mutate(data, size, max_size);
    }
    let (head, payload) = data[..size].split_at(BLOCK_HEAD_BYTES);
    let mut made = [head, &mutated(payload, GROWTH_BYTES)].concat();
    repair_block(&mut made);
    put(data, size, max_size, &made)
}
