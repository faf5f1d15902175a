//! A flat image: an ELF file's loadable bytes in the order of their addresses, as boot loaders take them (`kernel8.img`).

use object::{Object, ObjectSegment};

/// The bytes from the lowest address on that is loaded; gaps are zeros.
///
/// # Errors
/// Says what is wrong with the file.
pub(crate) fn flat(elf: &[u8]) -> Result<Vec<u8>, String> {
    let file = object::File::parse(elf).map_err(|error| error.to_string())?;
    let mut parts = Vec::new();
    for segment in file.segments() {
        let data = segment.data().map_err(|error| error.to_string())?;
        if !data.is_empty() {
            parts.push((segment.address(), data));
        }
    }
    parts.sort_by_key(|(address, _)| *address);
    let first = parts.first().map(|(address, _)| *address).ok_or("nothing in it is loaded")?;
    let mut image = Vec::new();
    for (address, data) in parts {
        let at = usize::try_from(address - first).map_err(|_| "its addresses are too far apart")?;
        if at < image.len() {
            return Err(format!("two segments overlap at address {address:#x}"));
        }
        image.resize(at, 0);
        image.extend_from_slice(data);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of 64 bits with these segments: address and bytes.
    fn elf(segments: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        file.resize(16, 0);
        let header: [(u64, usize); 13] = [
            (2, 2),
            (183, 2),
            (1, 4),
            (0, 8),
            (64, 8),
            (0, 8),
            (0, 4),
            (64, 2),
            (56, 2),
            (segments.len() as u64, 2),
            (0, 2),
            (0, 2),
            (0, 2),
        ];
        let put = |file: &mut Vec<u8>, fields: &[(u64, usize)]| {
            for (value, bytes) in fields {
                file.extend_from_slice(&value.to_le_bytes()[..*bytes]);
            }
        };
        put(&mut file, &header);
        let mut at = 64 + 56 * segments.len() as u64;
        for (address, data) in segments {
            let size = data.len() as u64;
            put(
                &mut file,
                &[(1, 4), (4, 4), (at, 8), (*address, 8), (*address, 8), (size, 8), (size, 8), (1, 8)],
            );
            at += size;
        }
        segments.iter().for_each(|(_, data)| file.extend_from_slice(data));
        file
    }

    #[test]
    fn segments_lie_at_their_addresses() {
        assert_eq!(flat(&elf(&[(0x1008, b"cd"), (0x1000, b"ab")])), Ok(b"ab\0\0\0\0\0\0cd".to_vec()));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(flat(b"text").is_err());
        assert_eq!(flat(&elf(&[])), Err("nothing in it is loaded".to_owned()));
        let overlap = flat(&elf(&[(0x1000, b"abcd"), (0x1002, b"x")]));
        assert!(overlap.is_err_and(|error| error.contains("overlap at address 0x1002")));
    }
}
