//! The accuracy check of an encoder: runs the container's texts and measures how far their vectors are from the full-precision model's.

use crate::encoder::Encoder;
use crate::error::RuntimeError;
use rescomp_formats::check_embeddings::CheckEmbeddings;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the texts gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MeasuredEmbeddings {
    /// Mean of one less the cosine with the full-precision model's vector.
    pub mean_distance: f64,
    /// The largest of these.
    pub largest_distance: f64,
    /// Texts.
    pub texts: u32,
    /// SHA-256 over the bits of the vectors.
    pub embeddings_sha256: [u8; 32],
}

/// Runs every text. `tokens` has room for the longest; `progress` hears of each finished text.
///
/// # Errors
/// [`RuntimeError`], for one [`RuntimeError::ContextFull`] where the encoder, or `tokens`, has less room than a text needs.
pub fn measure_embeddings(
    encoder: &mut Encoder<'_>,
    texts: &CheckEmbeddings<'_>,
    tokens: &mut [u32],
    mut progress: impl FnMut(usize),
) -> Result<MeasuredEmbeddings, RuntimeError> {
    let mut digest = Sha256::new();
    let (mut sum, mut largest) = (0.0, 0.0);
    for text in 0..texts.texts() {
        let all = texts.tokens(text);
        let (needed, context) = (all.len() as u64, tokens.len() as u64);
        let Some(room) = tokens.get_mut(..all.len()) else {
            return Err(RuntimeError::ContextFull { position: 0, tokens: needed, context });
        };
        room.iter_mut().zip(all).for_each(|(room, token)| *room = token);
        let vector = encoder.embed(room)?;
        vector.iter().for_each(|number| digest.update(number.to_le_bytes()));
        let distance = 1.0 - cosine(vector.iter().copied(), texts.vector(text));
        sum += distance;
        largest = if distance > largest { distance } else { largest };
        progress(text + 1);
    }
    Ok(MeasuredEmbeddings {
        mean_distance: sum / texts.texts() as f64,
        largest_distance: largest,
        texts: texts.texts() as u32,
        embeddings_sha256: digest.finalize().into(),
    })
}

/// The cosine of two vectors, in f64, in the order of their elements; 0 where one has no direction.
pub fn cosine(a: impl IntoIterator<Item = f32>, b: impl IntoIterator<Item = f32>) -> f64 {
    let (mut product, mut squares_a, mut squares_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.into_iter().zip(b) {
        let (a, b) = (f64::from(a), f64::from(b));
        product += a * b;
        squares_a += a * a;
        squares_b += b * b;
    }
    let lengths = libm::sqrt(squares_a) * libm::sqrt(squares_b);
    if lengths > 0.0 { product / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_of_known_angles() {
        assert_eq!(cosine([1.0, 0.0], [0.0, 2.0]), 0.0);
        assert_eq!(cosine([3.0, 4.0], [3.0, 4.0]), 1.0);
        assert_eq!(cosine([3.0, 4.0], [-6.0, -8.0]), -1.0);
        assert!((cosine([1.0, 0.0], [1.0, 1.0]) - core::f64::consts::FRAC_1_SQRT_2).abs() < 1e-15);
        assert_eq!(cosine([0.0, 0.0], [1.0, 1.0]), 0.0);
    }
}
