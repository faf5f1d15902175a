//! What a classifier of images has outside of its blocks: how patches become tokens, and its heads.
//!
//! Its files hold a convolution whose steps are as wide as its kernel, a bias, tokens in front, and vectors of positions. The convolution is a
//! matrix over a patch's pixels; the bias and the tokens become part of the positions' vectors, which are added to the same tokens anyway.

use super::names::ImageNames;
use super::opened::Checkpoint;
use super::{CheckpointError, Matrix};
use rescomp_formats::image_input::{CHANNELS, ImageInput};

impl Checkpoint {
    /// What makes a token of a patch's pixels, `[hidden, numbers of a patch]`, with columns in the order of pixels.
    ///
    /// # Errors
    /// An element is not finite, or the model is no classifier.
    pub fn patches(&self) -> Result<Matrix, CheckpointError> {
        let (image, _) = self.image()?;
        let (edge, channels, rows) = (image.patch as usize, CHANNELS as usize, self.spec.hidden as usize);
        let stored = self
            .tensors()
            .tensor_f32(&self.prefixed(self.names().embedding), &[rows, channels, edge, edge])?;
        let cols = image.patch_elems() as usize;
        let pixels = edge * edge;
        let reordered = |row: &[f32]| -> Vec<f32> {
            (0..cols).map(|column| row[column % channels * pixels + column / channels]).collect()
        };
        let data = stored.chunks_exact(cols).flat_map(reordered).collect();
        Ok(Matrix { rows, cols, data })
    }

    /// What is added to each token, `[tokens, hidden]`: the vector of its position, and the token in front, or the bias of a patch.
    pub(super) fn image_positions(&self) -> Result<Matrix, CheckpointError> {
        let (image, names) = self.image()?;
        let (rows, cols) = (image.tokens() as usize, self.spec.hidden as usize);
        let read = |name: &str, shape: &[usize]| self.tensors().tensor_f32(&self.prefixed(name), shape);
        let mut data = read(self.names().positions.unwrap_or_default(), &[1, rows, cols])?;
        let bias = read(names.patch_bias, &[cols])?;
        let tokens: Vec<Vec<f32>> =
            names.tokens.iter().map(|name| read(name, &[1, 1, cols])).collect::<Result<_, _>>()?;
        for (row, position) in data.chunks_exact_mut(cols).enumerate() {
            let added = tokens.get(row).unwrap_or(&bias);
            position.iter_mut().zip(added).for_each(|(number, added)| *number += added);
        }
        Ok(Matrix { rows, cols, data })
    }

    /// The heads side by side, `[classes, heads x hidden]`, each with its share of the logits' mean.
    pub(super) fn image_head(&self) -> Result<Matrix, CheckpointError> {
        let (_, names) = self.image()?;
        let (rows, cols) = (self.spec.vocabulary as usize, self.spec.hidden as usize);
        let share = 1.0 / names.heads.len() as f32;
        let read = |(weight, _): &(&str, &str)| self.tensors().tensor_f32(weight, &[rows, cols]);
        let heads: Vec<Vec<f32>> = names.heads.iter().map(read).collect::<Result<_, _>>()?;
        let mut data = Vec::with_capacity(heads.len() * rows * cols);
        for row in 0..rows {
            let of_row = heads.iter().flat_map(|head| &head[row * cols..(row + 1) * cols]);
            data.extend(of_row.map(|weight| weight * share));
        }
        Ok(Matrix { rows, cols: heads.len() * cols, data })
    }

    /// The bias of a classifier's head; `None` of what is no classifier.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn head_bias(&self) -> Result<Option<Vec<f32>>, CheckpointError> {
        let Some(names) = self.names().image else { return Ok(None) };
        let mut bias = vec![0.0; self.spec.vocabulary as usize];
        let share = 1.0 / names.heads.len() as f32;
        for (_, name) in names.heads {
            let of_head = self.tensors().tensor_f32(name, &[bias.len()])?;
            bias.iter_mut().zip(of_head).for_each(|(sum, number)| *sum += number * share);
        }
        Ok(Some(bias))
    }

    /// Name and shape of every tensor outside of the blocks, but for the norm behind them; none of what is no classifier.
    pub(super) fn image_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let Ok((image, names)) = self.image() else { return Vec::new() };
        let [hidden, classes, edge] =
            [self.spec.hidden, self.spec.vocabulary, image.patch].map(|size| size as usize);
        let inside = |name: &str, shape: Vec<usize>| (self.prefixed(name), shape);
        let mut all = vec![
            inside(self.names().embedding, vec![hidden, CHANNELS as usize, edge, edge]),
            inside(names.patch_bias, vec![hidden]),
            inside(self.names().positions.unwrap_or_default(), vec![1, image.tokens() as usize, hidden]),
        ];
        all.extend(names.tokens.iter().map(|name| inside(name, vec![1, 1, hidden])));
        for (weight, bias) in names.heads {
            all.push(((*weight).to_owned(), vec![classes, hidden]));
            all.push(((*bias).to_owned(), vec![classes]));
        }
        all
    }

    /// What the model reads, and how its tensors are called.
    fn image(&self) -> Result<(&ImageInput, &'static ImageNames), CheckpointError> {
        let of_classifier = self.spec.image().zip(self.names().image);
        of_classifier.ok_or_else(|| CheckpointError::Kind {
            path: self.path().to_owned(),
            architecture: self.spec.architecture.name(),
            kind: self.spec.architecture.kind(),
            expected: "a classifier of images",
        })
    }
}
