//! Where the tensors are: name, sizes, type and offset of each.

use super::super::tensor_store::{Elements, Stored};
use super::super::{CheckpointError, ElementType};
use super::cursor::Cursor;

/// Most tensors: the largest models have some thousands.
const MAX_TENSORS: u64 = 1 << 16;
const MAX_DIMENSIONS: u32 = 4;
const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K";

/// An entry of the file, before the place where the tensors begin is known.
struct Listed<'a> {
    name: &'a str,
    /// Fastest dimension first, as the file has them.
    sizes: Vec<usize>,
    element: ElementType,
    bytes: u64,
    offset: u64,
    /// Where the offset is in the file.
    offset_at: usize,
}

/// Reads so many entries, and finds every tensor's bytes in the file.
///
/// # Errors
/// There are more than 65,536 tensors; a name is empty or there twice; a tensor has no or more than four dimensions, an empty one, rows that are not whole
/// blocks, or a type that is not read; its offset is not aligned, its bytes lead out of the file or overlap another's.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    count: u64,
    alignment: u64,
) -> Result<Vec<(String, Stored)>, CheckpointError> {
    if count > MAX_TENSORS {
        // The number is behind magic and version.
        return Err(cursor.wrong(8, "number of tensors", format!("at most {MAX_TENSORS}"), count));
    }
    let mut listed: Vec<Listed<'_>> =
        (0..count).map(|index| entry(cursor, index)).collect::<Result<_, _>>()?;
    // Not beyond the end of the file by more than an alignment.
    let data_begin = (cursor.at() as u64).next_multiple_of(alignment);
    listed.sort_by_key(|tensor| tensor.offset);
    let mut directory = Vec::with_capacity(listed.len());
    let mut end_before = 0;
    for tensor in listed {
        let part = format!("tensor {}: offset", tensor.name);
        if !tensor.offset.is_multiple_of(alignment) {
            let expected = format!("a multiple of {alignment}");
            return Err(cursor.wrong(tensor.offset_at, part, expected, tensor.offset));
        }
        if tensor.offset < end_before {
            let expected = format!("at least {end_before}, the end of the tensor before it");
            return Err(cursor.wrong(tensor.offset_at, part, expected, tensor.offset));
        }
        let end = tensor.offset.checked_add(tensor.bytes);
        let within = |end: u64| usize::try_from(end.checked_add(data_begin)?).ok();
        let found = end.and_then(within).filter(|&end| end <= cursor.file_bytes());
        let (Some(end), Some(end_in_file)) = (end, found) else {
            let (begin, bytes) = (u128::from(data_begin) + u128::from(tensor.offset), tensor.bytes);
            let expected = format!("{bytes} bytes from byte {begin} on");
            let found = format!("a file of {} bytes", cursor.file_bytes());
            return Err(cursor.wrong(tensor.offset_at, format!("tensor {}", tensor.name), expected, found));
        };
        end_before = end;
        let stored = Stored {
            file: 0,
            // `bytes` fits, as the end does.
            begin: end_in_file - tensor.bytes as usize,
            end: end_in_file,
            elements: Elements::Known(tensor.element),
            shape: tensor.sizes.into_iter().rev().collect(),
        };
        directory.push((tensor.name.to_owned(), stored));
    }
    let mut names: Vec<&str> = directory.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(cursor.wrong(cursor.at(), format!("tensor {}", pair[0]), "a name once", "it twice"))
        }
        None => Ok(directory),
    }
}

fn entry<'a>(cursor: &mut Cursor<'a>, index: u64) -> Result<Listed<'a>, CheckpointError> {
    let name = cursor.name(format_args!("name of tensor {index}"))?;
    let at = cursor.at();
    let dimensions = cursor.u32(format_args!("tensor {name}: number of dimensions"))?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        let (part, expected) = (format!("tensor {name}: number of dimensions"), "1 to 4");
        return Err(cursor.wrong(at, part, expected, dimensions));
    }
    let sizes_at = cursor.at();
    let mut sizes = Vec::new();
    let mut count: u64 = 1;
    for dimension in 0..dimensions {
        let at = cursor.at();
        let part = format_args!("tensor {name}: size {dimension}");
        let size = cursor.u64(part)?;
        let product = count.checked_mul(size).filter(|&product| product > 0);
        let (Some(product), Ok(size)) = (product, usize::try_from(size)) else {
            return Err(cursor.wrong(at, part, "a size of at least 1, with a product below 2^64", size));
        };
        count = product;
        sizes.push(size);
    }
    let at = cursor.at();
    let code = cursor.u32(format_args!("tensor {name}: type"))?;
    let Some(element) = element_type(code) else {
        return Err(cursor.wrong(at, format_args!("tensor {name}: type"), SUPPORTED, type_name(code)));
    };
    let row = sizes[0];
    if !row.is_multiple_of(element.block_elements()) {
        let expected = format!("a multiple of {}, for {}", element.block_elements(), element.name());
        return Err(cursor.wrong(sizes_at, format_args!("tensor {name}: size 0"), expected, row));
    }
    let bytes = (count / element.block_elements() as u64).checked_mul(element.block_bytes() as u64);
    let Some(bytes) = bytes else {
        let part = format!("tensor {name}: sizes");
        return Err(cursor.wrong(sizes_at, part, "fewer than 2^64 bytes", format!("{count} elements")));
    };
    let offset_at = cursor.at();
    let offset = cursor.u64(format_args!("tensor {name}: offset"))?;
    Ok(Listed { name, sizes, element, bytes, offset, offset_at })
}

/// By the codes in the file.
fn element_type(code: u32) -> Option<ElementType> {
    Some(match code {
        0 => ElementType::F32,
        1 => ElementType::F16,
        2 => ElementType::Q4_0,
        3 => ElementType::Q4_1,
        6 => ElementType::Q5_0,
        7 => ElementType::Q5_1,
        8 => ElementType::Q8_0,
        12 => ElementType::Q4K,
        13 => ElementType::Q5K,
        14 => ElementType::Q6K,
        30 => ElementType::Bf16,
        _ => return None,
    })
}

/// What a type that is not read is called.
fn type_name(code: u32) -> String {
    let name = match code {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("the unknown code {code}"),
    };
    name.to_owned()
}
