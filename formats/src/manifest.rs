//! The manifest: the postcard message that describes a container.

use crate::spec::ModelSpec;
use serde::{Deserialize, Serialize};

/// A short text in the manifest.
pub type Text = heapless::String<64>;

/// Where the weights come from. Nothing of it changes how the model runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Provenance {
    /// Name of the checkpoint: its folder.
    pub checkpoint: Text,
    /// SHA-256 of the checkpoint's weight files.
    pub checkpoint_sha256: [u8; 32],
    /// Quantization method of the blocks' matrices.
    pub method: Text,
    /// Bits of the blocks' matrices.
    pub bits: u8,
    /// Columns a group of the blocks' matrices; 0 for whole rows.
    pub group_elems: u32,
    /// Bits of the embedding and the head.
    pub head_bits: u8,
    /// SHA-256 of the calibration tokens (u32, little-endian); zeros where the method needs none.
    pub calibration_sha256: [u8; 32],
    /// Number of calibration tokens.
    pub calibration_tokens: u64,
    /// Target that the container was packed for.
    pub target: Text,
    /// Version of the tool that wrote it.
    pub tool_version: Text,
}

/// What the host measured on the embedded windows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CheckRecord {
    /// Mean negative log-likelihood of the full-precision model, nats a token.
    pub reference_nll: f64,
    /// Mean negative log-likelihood of the quantized model, nats a token.
    pub nll: f64,
    /// Mean KL divergence of the quantized from the full-precision model, nats a token, over the kept classes and the rest.
    pub mean_kl: f64,
    /// Positions whose most likely token is the full-precision model's.
    pub same_top1: u32,
    /// Positions in all windows.
    pub positions: u32,
    /// SHA-256 over the bits of the quantized model's logits.
    pub logits_sha256: [u8; 32],
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Manifest {
    /// The model's shape.
    pub spec: ModelSpec,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// The host's measurements.
    pub check: CheckRecord,
}
