//! The manifest: the postcard message that describes a container.

use crate::cache_format::CacheFormat;
use crate::spec::{ModelKind, ModelSpec};
use core::fmt;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A short text in the manifest.
pub type Text = heapless::String<64>;

/// Whether a character may stand in a [`Text`]: reports print them, so that nothing may steer a terminal or turn text around
/// (control characters, line and paragraph separators, marks of direction).
pub fn is_printable(character: char) -> bool {
    let steers = matches!(character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !character.is_control() && !steers
}

/// Reads a digest in a loop: what serde has for arrays is a kilobyte of code.
fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = [u8; 32];

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("32 bytes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<[u8; 32], A::Error> {
            let mut digest = [0; 32];
            for (index, byte) in digest.iter_mut().enumerate() {
                *byte = bytes.next_element()?.ok_or_else(|| Error::invalid_length(index, &self))?;
            }
            Ok(digest)
        }
    }

    deserializer.deserialize_tuple(32, Bytes)
}

/// Where the weights come from. Nothing of it changes how the model runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Provenance {
    /// Name of the checkpoint: its folder.
    pub checkpoint: Text,
    /// SHA-256 of the checkpoint's weight files.
    #[serde(deserialize_with = "digest")]
    pub checkpoint_sha256: [u8; 32],
    /// Quantization method of the blocks' matrices.
    pub method: Text,
    /// What was folded into the weights before (`none`, `smooth`, `quarot`, ..).
    pub transform: Text,
    /// Bits of the blocks' matrices.
    pub bits: u8,
    /// Columns a group of the blocks' matrices; 0 for whole rows.
    pub group_elems: u32,
    /// Bits of the embedding and the head.
    pub head_bits: u8,
    /// SHA-256 of the calibration tokens (u32, little-endian); zeros where the method needs none.
    #[serde(deserialize_with = "digest")]
    pub calibration_sha256: [u8; 32],
    /// Number of calibration tokens.
    pub calibration_tokens: u64,
    /// Target that the container was packed for.
    pub target: Text,
    /// Version of the tool that wrote it.
    pub tool_version: Text,
}

/// What the host measured on a decoder's embedded windows.
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
    #[serde(deserialize_with = "digest")]
    pub logits_sha256: [u8; 32],
}

/// What the host measured on an encoder's embedded texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EmbeddingRecord {
    /// Mean of one less the cosine between the quantized and the full-precision model's vector of a text.
    pub mean_distance: f64,
    /// The largest of these.
    pub largest_distance: f64,
    /// Texts.
    pub texts: u32,
    /// SHA-256 over the bits of the quantized model's vectors.
    #[serde(deserialize_with = "digest")]
    pub embeddings_sha256: [u8; 32],
}

/// What the host measured on a classifier's embedded images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ImageRecord {
    /// Mean KL divergence of the quantized model's classes from the full-precision model's, nats an image, over the kept classes and the rest.
    pub mean_kl: f64,
    /// Images whose most likely class is the full-precision model's.
    pub same_top1: u32,
    /// Images.
    pub images: u32,
    /// SHA-256 over the bits of the quantized model's logits.
    #[serde(deserialize_with = "digest")]
    pub logits_sha256: [u8; 32],
}

/// What the host measured, by what the model computes. A variant is numbered by its place among those that are read, so only the last ones may be
/// left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Check {
    /// Of a decoder.
    Windows(CheckRecord),
    /// Of an encoder.
    #[cfg_attr(not(any(feature = "encoders", feature = "classifiers")), serde(skip_deserializing))]
    Embeddings(EmbeddingRecord),
    /// Of a classifier.
    #[cfg_attr(not(feature = "classifiers"), serde(skip_deserializing))]
    Images(ImageRecord),
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
    pub check: Check,
    /// What keys and values are kept as.
    pub cache: CacheFormat,
}

/// Why a manifest's record isn't one: a field with a value that it can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RecordError {
    /// The field.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
    /// Its value: a number, a character's code, or the bits of a float.
    pub found: u64,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {:#x}", self.field, self.expected, self.found)
    }
}

impl core::error::Error for RecordError {}

impl Manifest {
    /// Checks what is beside the model: texts that can be printed, and measurements that can have been measured.
    ///
    /// # Errors
    /// The first field that has a value that it can't have.
    #[inline(never)]
    pub fn check_record(&self) -> Result<(), RecordError> {
        let Provenance { checkpoint, method, transform, target, tool_version, .. } = &self.provenance;
        let texts = [
            ("checkpoint", checkpoint),
            ("method", method),
            ("transform", transform),
            ("target", target),
            ("tool_version", tool_version),
        ];
        for (field, text) in texts {
            if let Some(character) = text.chars().find(|&character| !is_printable(character)) {
                let found = u32::from(character).into();
                return Err(RecordError { field, expected: "characters that can be printed", found });
            }
        }
        let (kind, number) = match self.check {
            Check::Windows(_) => (ModelKind::Decoder, 0),
            Check::Embeddings(_) => (ModelKind::Encoder, 1),
            Check::Images(_) => (ModelKind::Classifier, 2),
        };
        if self.spec.architecture.kind() != kind {
            let expected =
                "0 (of windows) of a decoder, 1 (of embeddings) of an encoder, 2 (of images) of a classifier";
            return Err(RecordError { field: "check", expected, found: number });
        }
        if self.cache != CacheFormat::default() && kind != ModelKind::Decoder {
            let expected = "0 (binary16) of what is no decoder and keeps nothing";
            return Err(RecordError { field: "cache", expected, found: self.cache as u64 });
        }
        let finite =
            |fields: &[(&'static str, f64)]| match fields.iter().find(|(_, number)| !number.is_finite()) {
                Some(&(field, number)) => {
                    Err(RecordError { field, expected: "a finite number", found: number.to_bits() })
                }
                None => Ok(()),
            };
        let at_most = |same_top1: u32, most: u32, expected| match same_top1 > most {
            true => Err(RecordError { field: "same_top1", expected, found: same_top1.into() }),
            false => Ok(()),
        };
        match self.check {
            Check::Windows(CheckRecord { reference_nll, nll, mean_kl, same_top1, positions, .. }) => {
                finite(&[("reference_nll", reference_nll), ("nll", nll), ("mean_kl", mean_kl)])?;
                at_most(same_top1, positions, "no more than positions")
            }
            // The others are read where they are built.
            Check::Embeddings(EmbeddingRecord { mean_distance, largest_distance, .. })
                if cfg!(feature = "encoders") =>
            {
                finite(&[("mean_distance", mean_distance), ("largest_distance", largest_distance)])
            }
            Check::Images(ImageRecord { mean_kl, same_top1, images, .. })
                if cfg!(feature = "classifiers") =>
            {
                finite(&[("mean_kl", mean_kl)])?;
                at_most(same_top1, images, "no more than images")
            }
            Check::Embeddings(_) | Check::Images(_) => Ok(()),
        }
    }

    /// What the host measured of a decoder.
    pub fn windows_record(&self) -> Option<&CheckRecord> {
        match &self.check {
            Check::Windows(record) => Some(record),
            Check::Embeddings(_) | Check::Images(_) => None,
        }
    }

    /// What the host measured of an encoder.
    pub fn embedding_record(&self) -> Option<&EmbeddingRecord> {
        match &self.check {
            Check::Embeddings(record) => Some(record),
            Check::Windows(_) | Check::Images(_) => None,
        }
    }

    /// What the host measured of a classifier.
    pub fn image_record(&self) -> Option<&ImageRecord> {
        match &self.check {
            Check::Images(record) => Some(record),
            Check::Windows(_) | Check::Embeddings(_) => None,
        }
    }
}
