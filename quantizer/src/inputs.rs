//! What calibration and the full-precision model run over: windows of tokens, or images.

use rescomp_formats::spec::ModelSpec;
use sha2::{Digest, Sha256};

/// Sequences of equal length that run together.
#[derive(Clone, Copy, Debug)]
pub enum Inputs<'a> {
    /// The first `positions` tokens of each window.
    Windows {
        /// The windows, of as many tokens or more.
        windows: &'a [Vec<u32>],
        /// How many of each are used.
        positions: usize,
    },
    /// Images of the model's size: rows from the top, red, green and blue a byte each.
    Images(&'a [Vec<u8>]),
}

impl Inputs<'_> {
    /// How many sequences there are.
    pub fn count(&self) -> usize {
        match self {
            Inputs::Windows { windows, .. } => windows.len(),
            Inputs::Images(images) => images.len(),
        }
    }

    /// Tokens of each sequence.
    pub fn tokens(&self, spec: &ModelSpec) -> usize {
        match self {
            Inputs::Windows { positions, .. } => *positions,
            Inputs::Images(_) => spec.context as usize,
        }
    }

    /// SHA-256 of what is used: tokens as u32, little-endian, or pixels.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        match self {
            Inputs::Windows { windows, positions } => {
                let used = windows.iter().flat_map(|window| window.iter().take(*positions));
                used.for_each(|token| digest.update(token.to_le_bytes()));
            }
            Inputs::Images(images) => images.iter().for_each(|image| digest.update(image)),
        }
        digest.finalize().into()
    }
}
