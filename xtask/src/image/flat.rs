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
