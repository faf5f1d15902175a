//! Image files to pixels as a classifier reads them.
//!
//! ```text
//! decode   PNG or JPEG, turned as its Exif says, to red, green and blue without an alpha channel
//! resize   the whole image to the size that the model says, as PIL does it
//! crop     the middle, of the size that the model reads
//! ```
//! Numbers are made of the bytes by the runtime. On hosts and in the runner for Linux: a device without an operating system is given pixels.
#![forbid(unsafe_code)]

mod resize;

use std::io::{self, BufReader, Cursor};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};
use rescomp_formats::image_input::{CHANNELS, ImageInput};

pub use resize::resize;

/// Bytes of a file at most.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Pixels of an edge at most.
const MAX_EDGE: u32 = 1 << 15;

/// Why a file gave no pixels. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum PixelsError {
    /// It could not be read.
    #[error("{path}: cannot read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// It is larger than any image should be.
    #[error("{path}: expected at most {MAX_FILE_BYTES} bytes, found {found}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
    },
    /// It is no PNG or JPEG file, or a broken one.
    #[error("{path}: expected a PNG or JPEG image: {cause}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: ImageError,
    },
    /// It is a JPEG file that ends early. Its decoder would fill what is missing in grey.
    #[error("{path}: expected a whole JPEG image, found one without its end")]
    Cut {
        /// The file.
        path: PathBuf,
    },
    /// It has another size than the model reads, and the model says that nothing is resized.
    #[error(
        "{path}: expected {expected_width} x {expected_height} pixels, as the model does not resize images, found {width} x {height}"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// The model's.
        expected_width: u32,
        /// The model's.
        expected_height: u32,
        /// The image's.
        width: u32,
        /// The image's.
        height: u32,
    },
}

impl PixelsError {
    /// Whether the file could not be read, as against what is in it.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, PixelsError::Read { .. })
    }
}

/// An image: rows from the top, red, green and blue a byte each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub bytes: Vec<u8>,
}

/// The pixels that a model reads of an image file: [`ImageInput::elems`] bytes.
///
/// # Errors
/// [`PixelsError`].
pub fn read(path: &Path, input: &ImageInput) -> Result<Vec<u8>, PixelsError> {
    let decoded = decode(path)?;
    let (width, height) = (decoded.width, decoded.height);
    fit(&decoded, input).ok_or_else(|| PixelsError::Size {
        path: path.to_owned(),
        expected_width: input.width,
        expected_height: input.height,
        width,
        height,
    })
}

/// Decodes a file. Its kind is told by its first bytes, whatever its name is.
///
/// # Errors
/// [`PixelsError`].
pub fn decode(path: &Path) -> Result<Rgb, PixelsError> {
    let unreadable = |cause| PixelsError::Read { path: path.to_owned(), cause };
    let found = std::fs::metadata(path).map_err(unreadable)?.len();
    if found > MAX_FILE_BYTES {
        return Err(PixelsError::TooLarge { path: path.to_owned(), found });
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let decoded =
        decode_bytes(&bytes).map_err(|cause| PixelsError::Decode { path: path.to_owned(), cause })?;
    match is_cut_jpeg(&bytes) {
        true => Err(PixelsError::Cut { path: path.to_owned() }),
        false => Ok(decoded),
    }
}

/// Whether the file is a JPEG without the mark of its end behind its last scan. In a scan's data no byte 0xff stands before another mark's.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    let mark = |mark: [u8; 2]| bytes.windows(2).rposition(|pair| pair == mark);
    bytes.starts_with(&[0xff, 0xd8]) && mark([0xff, 0xd9]) < mark([0xff, 0xda])
}

fn decode_bytes(bytes: &[u8]) -> Result<Rgb, ImageError> {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_EDGE), Some(MAX_EDGE));
    let mut reader = ImageReader::new(BufReader::new(Cursor::new(bytes))).with_guessed_format()?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    // Cameras store how they were held. An image whose Exif is broken is taken as it is stored, as PIL takes it.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let rgb = image.into_rgb8();
    Ok(Rgb { width: rgb.width(), height: rgb.height(), bytes: rgb.into_raw() })
}

/// Resizes an image and cuts out what the model reads; `None` where it has another size and the model resizes nothing.
pub fn fit(image: &Rgb, input: &ImageInput) -> Option<Vec<u8>> {
    let resized = match input.resize {
        None if (image.width, image.height) != (input.width, input.height) => return None,
        None => image.clone(),
        Some(rule) => resize(image, rule.width, rule.height, rule.filter),
    };
    let channels = CHANNELS as usize;
    // A checked container's model reads no more than it resizes to.
    let top = resized.height.saturating_sub(input.height) as usize / 2;
    let left = resized.width.saturating_sub(input.width) as usize / 2;
    let rows = resized.bytes.chunks_exact(resized.width as usize * channels);
    let middle = rows.skip(top).take(input.height as usize);
    Some(
        middle
            .flat_map(|row| &row[left * channels..(left + input.width as usize) * channels])
            .copied()
            .collect(),
    )
}
