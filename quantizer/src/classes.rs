//! The full-precision logits of images' classes: what a classifier's container is compared with; and smaller images for its check.

use crate::checkpoint::{Checkpoint, CheckpointError, Matrix, StreamNorm};
use crate::dense::{DenseError, DenseLayer, Streams, head_logits};
use crate::inputs::Inputs;
use rescomp_formats::image_input::{CHANNELS, ImageInput};
use rescomp_runtime::{Machine, kernels};

/// What stands behind the blocks of a classifier.
struct Head {
    norm: StreamNorm,
    matrix: Matrix,
    bias: Vec<f32>,
}

impl Head {
    fn new(checkpoint: &Checkpoint) -> Result<Head, CheckpointError> {
        // Of what is no classifier: an error that says so.
        checkpoint.patches()?;
        let matrix = match checkpoint.head()? {
            Some(head) => head,
            None => Matrix { rows: 0, cols: 0, data: Vec::new() },
        };
        let bias = checkpoint.head_bias()?.unwrap_or_default();
        Ok(Head { norm: checkpoint.final_norm()?, matrix, bias })
    }
}

/// The logits of each image, of which each pixel is three bytes. Images run together, a block at a time; `progress` hears of each block.
///
/// # Errors
/// [`DenseError`]: the model is no classifier, or an image has another size than it reads.
pub fn dense_classes(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    images: &[Vec<u8>],
    mut progress: impl FnMut(usize),
) -> Result<Vec<Vec<f32>>, DenseError> {
    let failed = |cause| DenseError::Forward { model: checkpoint.name(), cause };
    let head = Head::new(checkpoint)?;
    let entry = checkpoint.patches()?;
    let mut streams = Streams::of(machine, checkpoint, &entry, Inputs::Images(images))?;
    for layer in 0..checkpoint.spec.layers as usize {
        let weights = checkpoint.layer(layer)?;
        streams.run_block(&mut DenseLayer { weights: &weights, layer }).map_err(failed)?;
        progress(layer + 1);
    }
    let mut logits = head_logits(&checkpoint.spec, &head.matrix, &streams.head_inputs(&head.norm));
    let classes = checkpoint.spec.vocabulary as usize;
    Ok(logits
        .chunks_exact_mut(classes)
        .map(|logits| {
            (kernels::best().add)(logits, &head.bias);
            logits.to_vec()
        })
        .collect())
}

/// An image in which each pixel is the mean of `repeat` by `repeat`, rounded.
pub fn shrunk(image: &ImageInput, rgb: &[u8], repeat: u32) -> Vec<u8> {
    let (width, channels, repeat) = (image.width as usize, CHANNELS as usize, repeat.max(1) as usize);
    let (rows, columns) = (image.height as usize / repeat, width / repeat);
    let mut smaller = Vec::with_capacity(rows * columns * channels);
    for row in 0..rows {
        for column in 0..columns {
            for channel in 0..channels {
                let at = |y: usize, x: usize| {
                    let (y, x) = (row * repeat + y, column * repeat + x);
                    usize::from(rgb[(y * width + x) * channels + channel])
                };
                let sum: usize = (0..repeat * repeat).map(|pixel| at(pixel / repeat, pixel % repeat)).sum();
                smaller.push(((sum + repeat * repeat / 2) / (repeat * repeat)) as u8);
            }
        }
    }
    smaller
}

/// An image of the model's size that shows what a smaller one does.
pub fn enlarged(image: &ImageInput, smaller: &[u8], repeat: u32) -> Vec<u8> {
    let (width, channels, repeat) = (image.width as usize, CHANNELS as usize, repeat.max(1) as usize);
    let place = |at: usize| {
        let (pixel, channel) = (at / channels, at % channels);
        (pixel / width / repeat * (width / repeat) + pixel % width / repeat) * channels + channel
    };
    (0..image.elems()).map(|at| smaller[place(at)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_means_and_stand_for_several() {
        let image = ImageInput {
            height: 2,
            width: 4,
            patch: 2,
            tokens_before: 1,
            head_tokens: 1,
            rescale: 1.0,
            mean: [0.0; 3],
            deviation: [1.0; 3],
            resize: None,
        };
        let mut rgb = vec![0; 24];
        // Red of the four pixels on the left: 1, 2, 4, 7; of the others 255.
        [(0, 1), (3, 2), (12, 4), (15, 7)].into_iter().for_each(|(at, red)| rgb[at] = red);
        [6, 9, 18, 21].into_iter().for_each(|at| rgb[at] = 255);
        let smaller = shrunk(&image, &rgb, 2);
        assert_eq!(smaller, [4, 0, 0, 255, 0, 0]);
        let larger = enlarged(&image, &smaller, 2);
        assert_eq!(larger.iter().step_by(3).copied().collect::<Vec<_>>(), [4, 4, 255, 255, 4, 4, 255, 255]);
        assert_eq!((shrunk(&image, &rgb, 1), enlarged(&image, &rgb, 1)), (rgb.clone(), rgb));
    }
}
