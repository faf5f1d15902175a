//! ViT and DeiT: classifiers of images.
//!
//! ```text
//! a token of each patch: x = pixels Wpatch^T + vector of its position      the projection's bias is part of every position's vector
//! in front of them one or two tokens: x = vector of its position           the class's and the distillation's token are part of theirs
//! each block:  h = layer_norm(x);  q, k, v = h Wq^T + bq, h Wk^T + bk, h Wv^T + bv
//!              x = x + attention(q, k, v) Wo^T + bo                        every token sees all
//!              h = layer_norm(x);  x = x + gelu(h Wup^T + bup) Wdown^T + bdown
//! logits = layer_norm(x of the tokens in front, one behind the other) Whead^T + bhead
//! ```
//! The blocks are GPT-2's, but for what a token sees. Where there is a head of the class's and one of the distillation's token, the logits are the
//! mean of theirs: one matrix with half of both side by side. Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929,
//! section 3.1; Touvron et al., "Training data-efficient image transformers", arXiv 2012.12877, section 4.

use super::cache::CacheElem;
use super::gpt2;
use super::run::BlockRun;
use crate::kernels::Kernels;
use crate::linear::BlockWeights;
use rescomp_formats::image_input::{CHANNELS, ImageInput};

pub(super) fn block<W: BlockWeights, S: CacheElem>(
    run: &mut BlockRun<'_, '_, S>,
    weights: &mut W,
) -> Result<(), W::Error> {
    gpt2::block(run, weights)
}

/// An image of the model's size: rows from the top, pixels from the left, red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pixels<'a> {
    /// A byte a number, as files have them.
    Bytes {
        /// The pixels.
        rgb: &'a [u8],
        /// How many pixels, in both directions, each of them stands for: 1 of an image that is stored as large as it is.
        repeat: usize,
    },
    /// Numbers as the model multiplies them.
    Numbers(&'a [f32]),
}

impl Pixels<'_> {
    /// How many numbers there are, and how many there must be; the latter is 0 where pixels do not tile the image.
    pub(crate) fn numbers(&self, image: &ImageInput) -> (usize, usize) {
        match *self {
            Pixels::Numbers(numbers) => (numbers.len(), image.elems()),
            Pixels::Bytes { rgb, repeat } => {
                let (height, width) = (image.height as usize, image.width as usize);
                let tiles = repeat > 0 && height.is_multiple_of(repeat) && width.is_multiple_of(repeat);
                (rgb.len(), if tiles { image.elems() / (repeat * repeat) } else { 0 })
            }
        }
    }
}

/// The numbers of a patch, patches in rows from the top: its pixels in their order. `output` has [`ImageInput::patch_elems`] numbers.
///
/// # Panics
/// Where the image has another size than the model's, or no such patch.
pub fn gather(image: &ImageInput, pixels: Pixels<'_>, patch: usize, output: &mut [f32]) {
    let (edge, channels) = (image.patch as usize, CHANNELS as usize);
    let columns = image.patches().0 as usize;
    let (top, left) = (patch / columns * edge, patch % columns * edge);
    for (row, output) in output.chunks_exact_mut(edge * channels).enumerate() {
        let y = top + row;
        match pixels {
            Pixels::Numbers(numbers) => {
                let start = (y * image.width as usize + left) * channels;
                output.copy_from_slice(&numbers[start..start + edge * channels]);
            }
            Pixels::Bytes { rgb, repeat } => {
                let stored_width = image.width as usize / repeat;
                for (column, output) in output.chunks_exact_mut(channels).enumerate() {
                    let start = (y / repeat * stored_width + (left + column) / repeat) * channels;
                    let pixel = &rgb[start..start + channels];
                    for (channel, (number, byte)) in output.iter_mut().zip(pixel).enumerate() {
                        *number = (f32::from(*byte) * image.rescale - image.mean[channel])
                            / image.deviation[channel];
                    }
                }
            }
        }
    }
}

/// What an image's tokens bring into the first block: `stream` (tokens x hidden) has the patches' products behind room for the tokens in front of
/// them, and becomes that. `positions` are tokens x hidden.
pub fn enter(kernels: &Kernels, image: &ImageInput, positions: &[f32], stream: &mut [f32]) {
    let before = stream.len() / image.tokens() as usize * image.tokens_before as usize;
    stream[..before].copy_from_slice(&positions[..before]);
    (kernels.add)(&mut stream[before..], &positions[before..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn image() -> ImageInput {
        ImageInput {
            height: 4,
            width: 6,
            patch: 2,
            tokens_before: 1,
            head_tokens: 1,
            rescale: 0.5,
            mean: [1.0, 2.0, 3.0],
            deviation: [1.0, 2.0, 0.5],
            resize: None,
        }
    }

    fn patch(pixels: Pixels<'_>, patch: usize) -> Vec<f32> {
        let mut output = std::vec![f32::NAN; 12];
        gather(&image(), pixels, patch, &mut output);
        output
    }

    #[test]
    fn patches_are_gathered_in_the_order_of_pixels() {
        // A number says its row, its column and its channel.
        let numbers: Vec<f32> =
            (0..4 * 6 * 3).map(|i| (i / 18 * 100 + i / 3 % 6 * 10 + i % 3) as f32).collect();
        let found = patch(Pixels::Numbers(&numbers), 4);
        assert_eq!(
            found,
            [220.0, 221.0, 222.0, 230.0, 231.0, 232.0, 320.0, 321.0, 322.0, 330.0, 331.0, 332.0]
        );
    }

    #[test]
    fn bytes_become_numbers_by_channel() {
        let rgb: Vec<u8> = (0..72).map(|i| [10, 20, 30][i % 3]).collect();
        let found = patch(Pixels::Bytes { rgb: &rgb, repeat: 1 }, 5);
        assert!(found.chunks(3).all(|pixel| pixel == [4.0, 4.0, 24.0]), "{found:?}");
    }

    #[test]
    fn a_stored_pixel_stands_for_several() {
        let rgb: Vec<u8> = (0..18).collect();
        let large: Vec<u8> =
            (0..4 * 6 * 3).map(|i| rgb[(i / 18 / 2 * 3 + i / 3 % 6 / 2) * 3 + i % 3]).collect();
        for index in 0..6 {
            let [small, large] =
                [(&rgb, 2), (&large, 1)].map(|(rgb, repeat)| patch(Pixels::Bytes { rgb, repeat }, index));
            assert_eq!(small, large);
        }
        let numbers = |rgb: &[u8], repeat| Pixels::Bytes { rgb, repeat }.numbers(&image());
        assert_eq!((numbers(&rgb, 2), numbers(&rgb, 1)), ((18, 18), (18, 72)));
        assert_eq!((numbers(&rgb, 0), numbers(&rgb, 4)), ((18, 0), (18, 0)));
    }
}
