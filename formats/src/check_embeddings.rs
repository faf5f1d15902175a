//! The check texts of an encoder: their tokens, and the full-precision model's vectors of them (docs/container.md).

use crate::check_windows::CheckWindowsError;
use crate::spec::ModelSpec;

/// Most texts: the check is to take seconds, and each is counted before its bytes are looked at.
pub const MAX_TEXTS: usize = 4096;
/// Bytes before the lengths.
const PREFIX_BYTES: usize = 8;

/// A view of the section. After [`CheckEmbeddings::parse`] no accessor panics for texts below [`CheckEmbeddings::texts`].
#[derive(Clone, Copy, Debug)]
pub struct CheckEmbeddings<'a> {
    width: usize,
    /// Tokens of each text, u32 each.
    lengths: &'a [u8],
    /// The tokens of all texts, u32 each.
    tokens: &'a [u8],
    /// The vectors of all texts, f32 each.
    vectors: &'a [u8],
}

impl<'a> CheckEmbeddings<'a> {
    /// Views and checks a section: as many bytes as the lengths say, texts that fit the model, tokens of its vocabulary, finite vectors.
    ///
    /// # Errors
    /// [`CheckWindowsError`] with the byte that can't be.
    pub fn parse(section: &'a [u8], spec: &ModelSpec) -> Result<Self, CheckWindowsError> {
        let error = |offset_bytes, expected, found| Err(CheckWindowsError { offset_bytes, expected, found });
        let Some((prefix, rest)) = section.split_at_checked(PREFIX_BYTES) else {
            return error(0, "8 bytes of sizes", section.len() as u64);
        };
        let (texts, width) = (u32_at(prefix, 0) as usize, u32_at(prefix, 1));
        if !(1..=MAX_TEXTS).contains(&texts) {
            return error(0, "1 to 4096 texts", texts as u64);
        }
        if width != spec.hidden {
            return error(4, "vectors as wide as the model's hidden states", width.into());
        }
        let Some((lengths, rest)) = rest.split_at_checked(4 * texts) else {
            return error(PREFIX_BYTES, "the length of every text", rest.len() as u64);
        };
        // At most 4096 times the longest context: no overflow.
        let mut all = 0_u64;
        for text in 0..texts {
            let length = u32_at(lengths, text);
            if !(1..=spec.context).contains(&length) {
                return error(PREFIX_BYTES + 4 * text, "1 token or more, within the context", length.into());
            }
            all += u64::from(length);
        }
        let vectors_bytes = 4 * texts as u64 * u64::from(width);
        if rest.len() as u64 != 4 * all + vectors_bytes {
            return error(section.len(), "as many bytes as the lengths say", section.len() as u64);
        }
        let (tokens, vectors) = rest.split_at(4 * all as usize);
        let tokens_start = PREFIX_BYTES + lengths.len();
        for index in 0..tokens.len() / 4 {
            let token = u32_at(tokens, index);
            if token >= spec.vocabulary {
                return error(tokens_start + 4 * index, "a token of the vocabulary", token.into());
            }
        }
        let vectors_start = tokens_start + tokens.len();
        for index in 0..vectors.len() / 4 {
            let bits = u32_at(vectors, index);
            if !f32::from_bits(bits).is_finite() {
                return error(vectors_start + 4 * index, "a finite number (the bits of an f32)", bits.into());
            }
        }
        Ok(CheckEmbeddings { width: width as usize, lengths, tokens, vectors })
    }

    /// How many texts there are.
    pub fn texts(&self) -> usize {
        self.lengths.len() / 4
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        (0..self.texts()).map(|text| self.length(text)).max().unwrap_or(0)
    }

    /// The tokens of a text.
    pub fn tokens(&self, text: usize) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        // Few texts: a table of their starts would be memory that a device lacks.
        let start: usize = (0..text).map(|earlier| self.length(earlier)).sum();
        let tokens = self.tokens;
        (start..start + self.length(text)).map(move |index| u32_at(tokens, index))
    }

    /// The full-precision model's vector of a text.
    pub fn vector(&self, text: usize) -> impl ExactSizeIterator<Item = f32> + use<'a> {
        let (vectors, width) = (self.vectors, self.width);
        (text * width..(text + 1) * width).map(move |index| f32::from_bits(u32_at(vectors, index)))
    }

    fn length(&self, text: usize) -> usize {
        u32_at(self.lengths, text) as usize
    }
}

fn u32_at(bytes: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Bytes of a section of texts of these lengths and vectors of `width` numbers.
pub fn section_bytes(lengths: impl IntoIterator<Item = usize>, width: usize) -> usize {
    let (count, all) = lengths.into_iter().fold((0, 0), |(count, all), length| (count + 1, all + length));
    PREFIX_BYTES + 4 * (count + all + count * width)
}

/// Makes a section of texts' tokens, and of vectors of the same width, one a text.
///
/// # Errors
/// [`CheckWindowsError`] where there is not a vector for each text, or they differ in width.
#[cfg(feature = "write")]
pub fn write(
    texts: &[alloc::vec::Vec<u32>],
    vectors: &[alloc::vec::Vec<f32>],
) -> Result<alloc::vec::Vec<u8>, CheckWindowsError> {
    let error = |expected, found: usize| CheckWindowsError { offset_bytes: 0, expected, found: found as u64 };
    if texts.len() != vectors.len() {
        return Err(error("a vector for each text", vectors.len()));
    }
    let width = vectors.first().map_or(0, alloc::vec::Vec::len);
    if let Some(other) = vectors.iter().find(|vector| vector.len() != width) {
        return Err(error("vectors of one width", other.len()));
    }
    let mut section = alloc::vec::Vec::new();
    let mut put = |number: u32| section.extend(number.to_le_bytes());
    put(texts.len() as u32);
    put(width as u32);
    texts.iter().for_each(|text| put(text.len() as u32));
    texts.iter().flatten().for_each(|token| put(*token));
    vectors.iter().flatten().for_each(|number| put(number.to_bits()));
    Ok(section)
}

#[cfg(test)]
#[cfg(feature = "write")]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn spec() -> ModelSpec {
        ModelSpec { hidden: 2, context: 4, vocabulary: 9, ..crate::spec::tests::spec() }
    }

    fn section() -> Vec<u8> {
        write(&[vec![1, 2, 3], vec![8]], &[vec![0.5, -1.0], vec![0.0, 2.0]]).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let section = section();
        assert_eq!(section.len(), section_bytes([3, 1], 2));
        let found = CheckEmbeddings::parse(&section, &spec()).unwrap();
        assert_eq!((found.texts(), found.width(), found.longest()), (2, 2, 3));
        assert!(found.tokens(0).eq([1, 2, 3]) && found.tokens(1).eq([8]));
        assert!(found.vector(0).eq([0.5, -1.0]) && found.vector(1).eq([0.0, 2.0]));
        assert!(write(&[vec![1]], &[]).is_err());
        assert!(write(&[vec![1], vec![2]], &[vec![1.0], vec![]]).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_byte() {
        let refuse = |word: usize, value: u32| {
            let mut section = section();
            section[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
            let error = CheckEmbeddings::parse(&section, &spec()).unwrap_err();
            (error.offset_bytes, error.found)
        };
        assert_eq!(refuse(0, 0), (0, 0));
        assert_eq!(refuse(0, u32::MAX), (0, u32::MAX.into()));
        assert_eq!(refuse(0, 4096), (8, 40));
        assert_eq!(refuse(1, 3), (4, 3));
        assert_eq!(refuse(2, 0), (8, 0));
        assert_eq!(refuse(3, 5), (12, 5));
        assert_eq!(refuse(3, 2), (48, 48));
        assert_eq!(refuse(5, 9), (20, 9));
        assert_eq!(refuse(9, f32::NAN.to_bits()), (36, f32::NAN.to_bits().into()));
        let section = section();
        for length in 0..section.len() {
            assert!(CheckEmbeddings::parse(&section[..length], &spec()).is_err(), "{length}");
        }
    }
}
