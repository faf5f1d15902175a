//! The check images of a classifier: their pixels, and the full-precision model's probabilities of their classes (docs/container.md).

use crate::check_windows::CheckWindowsError;
use crate::image_input::CHANNELS;
use crate::kept_classes::{KeptClasses, u32_at};
use crate::spec::ModelSpec;

/// Most images: the check is to take seconds, and each is counted before its bytes are looked at.
pub const MAX_IMAGES: usize = 4096;
/// Bytes before the probabilities.
const PREFIX_BYTES: usize = 8;

/// A view of the section. After [`CheckImages::parse`] no accessor panics for images below [`CheckImages::images`].
#[derive(Clone, Copy, Debug)]
pub struct CheckImages<'a> {
    images: usize,
    repeat: usize,
    classes: KeptClasses<'a>,
    pixels: &'a [u8],
}

impl<'a> CheckImages<'a> {
    /// Views and checks a section: as many bytes as the sizes say, pixels that tile the model's image, probabilities and ids of classes.
    ///
    /// # Errors
    /// [`CheckWindowsError`] with the byte that can't be.
    pub fn parse(section: &'a [u8], spec: &ModelSpec) -> Result<Self, CheckWindowsError> {
        let error = |offset_bytes, expected, found| Err(CheckWindowsError { offset_bytes, expected, found });
        let Some(prefix) = section.get(..PREFIX_BYTES) else {
            return error(0, "8 bytes of sizes", section.len() as u64);
        };
        let (images, repeat) = (u32_at(prefix, 0) as usize, u32_at(prefix, 1));
        if !(1..=MAX_IMAGES).contains(&images) {
            return error(0, "1 to 4096 images", images as u64);
        }
        // No other model has the section.
        let Some(elems) = spec.image().and_then(|image| stored_elems(image.height, image.width, repeat))
        else {
            return error(4, "a divisor of the image's height and width", repeat.into());
        };
        // At most 4096 times 4096 x 4096 pixels: no overflow on 64 bits, and none that is passed over on 32.
        let kept = KeptClasses::bytes(images, spec.vocabulary);
        let all = images.checked_mul(elems).zip(kept).and_then(|(pixels, kept)| pixels.checked_add(kept));
        let (Some(kept), true) =
            (kept, all.and_then(|all| all.checked_add(PREFIX_BYTES)) == Some(section.len()))
        else {
            return error(section.len(), "as many bytes as the sizes say", section.len() as u64);
        };
        let (classes, pixels) = section[PREFIX_BYTES..].split_at(kept);
        let classes = KeptClasses::parse(classes, images, spec.vocabulary, PREFIX_BYTES)?;
        Ok(CheckImages { images, repeat: repeat as usize, classes, pixels })
    }

    /// How many images there are.
    pub fn images(&self) -> usize {
        self.images
    }

    /// How many pixels of the model's image, in both directions, a stored pixel stands for.
    pub fn repeat(&self) -> usize {
        self.repeat
    }

    /// The stored pixels of an image: rows from the top, red, green and blue a byte each.
    pub fn pixels(&self, image: usize) -> &'a [u8] {
        let elems = self.pixels.len() / self.images;
        &self.pixels[image * elems..(image + 1) * elems]
    }

    /// The full-precision model's probabilities, a place an image.
    pub fn classes(&self) -> KeptClasses<'a> {
        self.classes
    }
}

/// Bytes of a stored image, of which each pixel stands for `repeat` in both directions; `None` where they do not tile it.
pub fn stored_elems(height: u32, width: u32, repeat: u32) -> Option<usize> {
    // A divisor of 0 has no multiples but 0.
    let tiles = height.is_multiple_of(repeat) && width.is_multiple_of(repeat);
    tiles.then(|| (height / repeat) as usize * (width / repeat) as usize * CHANNELS as usize)
}

/// Bytes of a section of so many images; `None` on overflow, or where the pixels do not tile the image.
pub fn section_bytes(images: usize, [height, width]: [u32; 2], repeat: u32, classes: u32) -> Option<usize> {
    let pixels = images.checked_mul(stored_elems(height, width, repeat)?)?;
    pixels.checked_add(KeptClasses::bytes(images, classes)?)?.checked_add(PREFIX_BYTES)
}

/// Makes a section: `rest` is one an image, `kept` as many as [`crate::kept_classes::sizes`] says, with log-probabilities in nats.
///
/// # Errors
/// [`CheckWindowsError`], where there are not as many of everything as images.
#[cfg(feature = "write")]
pub fn write<B: AsRef<[u8]>>(
    images: &[B],
    repeat: u32,
    rest: &[f32],
    kept: &[(u32, f64)],
    vocabulary: u32,
) -> Result<alloc::vec::Vec<u8>, CheckWindowsError> {
    let error = |expected, found: usize| CheckWindowsError { offset_bytes: 0, expected, found: found as u64 };
    let (classes, id_bytes) = crate::kept_classes::sizes(vocabulary);
    if rest.len() != images.len() {
        return Err(error("a rest for each image", rest.len()));
    }
    if kept.len() != images.len() * classes {
        return Err(error("the kept classes of each image", kept.len()));
    }
    let mut section = alloc::vec::Vec::new();
    section.extend((images.len() as u32).to_le_bytes());
    section.extend(repeat.to_le_bytes());
    crate::kept_classes::write(&mut section, rest, kept, id_bytes);
    images.iter().for_each(|image| section.extend_from_slice(image.as_ref()));
    Ok(section)
}

#[cfg(test)]
#[cfg(feature = "write")]
mod tests {
    use super::*;
    use crate::image_input::ImageInput;
    use crate::spec::{Architecture, Output};
    use std::vec::Vec;

    /// Images of 4 x 8 pixels, of 3 classes.
    fn spec() -> ModelSpec {
        let base = crate::spec::tests::of(Architecture::Vit);
        let image = ImageInput { height: 4, width: 8, patch: 2, resize: None, ..*base.image().unwrap() };
        ModelSpec { vocabulary: 3, output: Output::Classes(image), ..base }
    }

    fn section(repeat: u32) -> Vec<u8> {
        let elems = stored_elems(4, 8, repeat).unwrap();
        let images = [std::vec![7; elems], std::vec![9; elems]];
        let kept = [(2, -0.5), (0, -1.0), (1, -3.0), (1, -0.25), (0, -2.0), (2, -4.0)];
        write(&images, repeat, &[0.0, 0.25], &kept, 3).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back() {
        for repeat in [1, 2, 4] {
            let section = section(repeat);
            assert_eq!(section_bytes(2, [4, 8], repeat, 3), Some(section.len()));
            let found = CheckImages::parse(&section, &spec()).unwrap();
            assert_eq!((found.images(), found.repeat()), (2, repeat as usize));
            assert!(found.pixels(0).iter().all(|byte| *byte == 7));
            assert_eq!(found.pixels(1), std::vec![9; 96 / (repeat * repeat) as usize]);
            assert_eq!(found.classes().rest(1), 0.25);
            assert!(found.classes().kept(0).eq([(2, -0.5), (0, -1.0), (1, -3.0)]));
        }
        let pixels = [[0; 96]];
        assert!(write(&pixels, 1, &[], &[(0, -1.0); 3], 3).is_err());
        assert!(write(&pixels, 1, &[0.0], &[(0, -1.0); 2], 3).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_byte() {
        let refuse = |at: usize, value: &[u8]| {
            let mut section = section(2);
            section[at..at + value.len()].copy_from_slice(value);
            let error = CheckImages::parse(&section, &spec()).unwrap_err();
            (error.offset_bytes, error.found)
        };
        let length = section(2).len();
        assert_eq!(refuse(0, &0_u32.to_le_bytes()), (0, 0));
        assert_eq!(refuse(0, &u32::MAX.to_le_bytes()), (0, u32::MAX.into()));
        assert_eq!(refuse(0, &3_u32.to_le_bytes()), (length, length as u64));
        for repeat in [0, 3, 8, u32::MAX] {
            assert_eq!(refuse(4, &repeat.to_le_bytes()), (4, repeat.into()));
        }
        assert_eq!(refuse(4, &1_u32.to_le_bytes()), (length, length as u64));
        assert_eq!(refuse(12, &2.0_f32.to_le_bytes()), (12, 2.0_f32.to_bits().into()));
        // Behind two rests and six log-probabilities.
        assert_eq!(refuse(16 + 12 + 2, &3_u16.to_le_bytes()), (30, 3));
        let section = section(2);
        for length in 0..section.len() {
            assert!(CheckImages::parse(&section[..length], &spec()).is_err(), "{length}");
        }
    }
}
