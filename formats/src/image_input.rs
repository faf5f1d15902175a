//! What a classifier reads: an image's size, how it becomes tokens, and how its pixels become numbers.

use crate::spec::SpecError;
use serde::{Deserialize, Serialize};

/// Numbers of a pixel: red, green, blue.
pub const CHANNELS: u32 = 3;
/// Most pixels of an edge.
const MAX_EDGE: u32 = 4096;
/// Most pixels of a patch's edge.
const MAX_PATCH: u32 = 128;

/// How values between pixels are found, with a filter that widens as an image shrinks, as PIL has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = -1/2 ("Cubic convolution interpolation for digital image processing", 1981).
    Bicubic,
}

impl Filter {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
        }
    }
}

/// The size that an image gets before its middle is cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Resize {
    /// Pixels.
    pub height: u32,
    /// Pixels.
    pub width: u32,
    /// How.
    pub filter: Filter,
}

/// What a classifier reads of an image: patches of pixels, a token each, behind one or two tokens that stand for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ImageInput {
    /// Pixels.
    pub height: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels of a patch's edge; divides both.
    pub patch: u32,
    /// Tokens before the patches': 1 of the class, 2 with that of distillation.
    pub tokens_before: u32,
    /// Of how many of these the head reads the states, one behind the other.
    pub head_tokens: u32,
    /// A pixel's byte is multiplied with this, ...
    pub rescale: f32,
    /// ... is less this, by channel, ...
    pub mean: [f32; CHANNELS as usize],
    /// ... and is divided by this.
    pub deviation: [f32; CHANNELS as usize],
    /// How a file's image gets its size; the rest around the middle is cut off. None: it has to have the size.
    pub resize: Option<Resize>,
}

impl ImageInput {
    /// Patches in a row and in a column of the image.
    pub const fn patches(&self) -> (u32, u32) {
        (self.width / self.patch, self.height / self.patch)
    }

    /// Tokens of an image, those before the patches' included.
    pub const fn tokens(&self) -> u32 {
        let (columns, rows) = self.patches();
        columns * rows + self.tokens_before
    }

    /// Numbers of a patch.
    pub const fn patch_elems(&self) -> u32 {
        self.patch * self.patch * CHANNELS
    }

    /// Numbers of an image, bytes of it in a file.
    pub const fn elems(&self) -> usize {
        self.height as usize * self.width as usize * CHANNELS as usize
    }

    /// Checks everything against its bounds.
    ///
    /// # Errors
    /// The first field out of its bounds.
    #[inline(never)]
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        let refused = |field, found, expected| Err(SpecError { field, found, expected });
        for (field, edge) in [("image height", self.height), ("image width", self.width)] {
            if !(1..=MAX_EDGE).contains(&edge) {
                return refused(field, edge, "1 to 4096");
            }
        }
        if !(1..=MAX_PATCH).contains(&self.patch) {
            return refused("patch", self.patch, "1 to 128");
        }
        if !self.height.is_multiple_of(self.patch) || !self.width.is_multiple_of(self.patch) {
            return refused("patch", self.patch, "a divisor of the image's height and width");
        }
        if !(1..=2).contains(&self.tokens_before) {
            return refused("tokens_before", self.tokens_before, "1 or 2");
        }
        if !(1..=self.tokens_before).contains(&self.head_tokens) {
            return refused("head_tokens", self.head_tokens, "1 to tokens_before");
        }
        // Bounds that keep every pixel's number finite.
        let near = 1e-6..=1e6;
        for (field, number) in [("rescale (its bits)", self.rescale)]
            .into_iter()
            .chain(self.deviation.map(|number| ("deviation (its bits)", number)))
        {
            if !near.contains(&number) {
                return refused(field, number.to_bits(), "a number from 1e-6 to 1e6");
            }
        }
        if let Some(number) = self.mean.into_iter().find(|number| !(-1e6..=1e6).contains(number)) {
            return refused("mean (its bits)", number.to_bits(), "a number from -1e6 to 1e6");
        }
        if let Some(Resize { height, width, .. }) = self.resize {
            for (field, edge, least) in
                [("resize height", height, self.height), ("resize width", width, self.width)]
            {
                if !(least..=MAX_EDGE).contains(&edge) {
                    return refused(field, edge, "the image's size or more, at most 4096");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn input() -> ImageInput {
        ImageInput {
            height: 28,
            width: 36,
            patch: 4,
            tokens_before: 1,
            head_tokens: 1,
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            deviation: [0.5; 3],
            resize: Some(Resize { height: 30, width: 36, filter: Filter::Bilinear }),
        }
    }

    #[test]
    fn sizes_follow_from_the_patch() {
        let input = input();
        assert_eq!(input.check(), Ok(()));
        assert_eq!(
            (input.patches(), input.tokens(), input.patch_elems(), input.elems()),
            ((9, 7), 64, 48, 3024)
        );
        assert_eq!(ImageInput { tokens_before: 2, ..input }.tokens(), 65);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let field = |input: ImageInput| input.check().unwrap_err().field;
        let base = input();
        assert_eq!(field(ImageInput { height: 0, ..base }), "image height");
        assert_eq!(field(ImageInput { width: 4100, ..base }), "image width");
        for patch in [0, 5, 129] {
            assert_eq!(field(ImageInput { patch, ..base }), "patch");
        }
        assert_eq!(field(ImageInput { tokens_before: 3, ..base }), "tokens_before");
        for head_tokens in [0, 2] {
            assert_eq!(field(ImageInput { head_tokens, ..base }), "head_tokens");
        }
        assert_eq!(field(ImageInput { rescale: f32::NAN, ..base }), "rescale (its bits)");
        assert_eq!(field(ImageInput { deviation: [1.0, 0.0, 1.0], ..base }), "deviation (its bits)");
        assert_eq!(field(ImageInput { mean: [0.0, f32::INFINITY, 0.0], ..base }), "mean (its bits)");
        let resize = |height, width| Some(Resize { height, width, filter: Filter::Bicubic });
        assert_eq!(field(ImageInput { resize: resize(27, 36), ..base }), "resize height");
        assert_eq!(field(ImageInput { resize: resize(28, 5000), ..base }), "resize width");
    }
}
