//! What packing gives: the container, and how it came about.

use crate::calibrate::MatrixReport;
use crate::evaluate_images::ImageEvaluation;
use crate::vocabulary::VocabularyReport;
use rescomp_formats::manifest::Check;
use rescomp_runtime::memory::AlignedBytes;
use serde::Serialize;

/// A container and how it came about.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The file.
    pub file: AlignedBytes,
    /// The report.
    pub report: PackReport,
}

/// How a container came about.
#[derive(Clone, Debug, Serialize)]
pub struct PackReport {
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Quantization method.
    pub method: &'static str,
    /// What was folded into the weights before.
    pub transform: &'static str,
    /// Bits of the blocks' matrices.
    pub bits: u8,
    /// Columns a group; 0 for whole rows.
    pub group_elems: u32,
    /// Bits of the head, which may be the embedding.
    pub head_bits: u8,
    /// Layout of every matrix.
    pub layout: &'static str,
    /// What keys and values are kept as; none of what is no decoder.
    pub kv_cache: Option<&'static str>,
    /// Parameters, a tied head counted once.
    pub parameters: u64,
    /// Bits that the weights take on average, everything counted.
    pub bits_per_weight: f64,
    /// Bytes of the container.
    pub file_bytes: u64,
    /// Tokens used for calibration.
    pub calibration_tokens: u64,
    /// What is doubtful about the calibration, each said once, and what of the chat template is missing.
    pub warnings: Vec<String>,
    /// The embedding, and the head where it is not the same.
    pub vocabulary: Vec<VocabularyReport>,
    /// The blocks' matrices.
    pub matrices: Vec<MatrixReport>,
    /// What the host measured on the check windows, texts or images.
    pub check: CheckFigures,
    /// What a classifier gives on all images that the calibration has not seen.
    pub held_out_images: Option<ImageEvaluation>,
}

/// A [`Check`] for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CheckFigures {
    /// Of a decoder.
    Windows(WindowFigures),
    /// Of an encoder.
    Embeddings(EmbeddingFigures),
    /// Of a classifier.
    Images(ImageFigures),
}

impl CheckFigures {
    /// The SHA-256 of what the model computed, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        match self {
            CheckFigures::Windows(figures) => &figures.logits_sha256,
            CheckFigures::Embeddings(figures) => &figures.embeddings_sha256,
            CheckFigures::Images(figures) => &figures.logits_sha256,
        }
    }

    /// The figures of a decoder.
    pub fn windows(&self) -> Option<&WindowFigures> {
        match self {
            CheckFigures::Windows(figures) => Some(figures),
            CheckFigures::Embeddings(_) | CheckFigures::Images(_) => None,
        }
    }
}

/// A [record of texts](rescomp_formats::manifest::EmbeddingRecord) for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddingFigures {
    /// Mean of one less the cosine with the full-precision model's vectors.
    pub mean_distance: f64,
    /// The largest of these.
    pub largest_distance: f64,
    /// Texts.
    pub texts: u32,
    /// SHA-256 of the vectors, in hexadecimal digits.
    pub embeddings_sha256: String,
}

/// A [record of images](rescomp_formats::manifest::ImageRecord) for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageFigures {
    /// Mean KL divergence from the full-precision model, nats an image.
    pub mean_kl: f64,
    /// Images whose most likely class is the full-precision model's.
    pub same_top1: u32,
    /// Images.
    pub images: u32,
    /// SHA-256 of the logits, in hexadecimal digits.
    pub logits_sha256: String,
}

/// A [record of windows](rescomp_formats::manifest::CheckRecord) for people and for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowFigures {
    /// Mean negative log-likelihood of the full-precision model, nats a token.
    pub reference_nll: f64,
    /// Mean negative log-likelihood of the quantized model, nats a token.
    pub nll: f64,
    /// Mean KL divergence from the full-precision model, nats a token.
    pub mean_kl: f64,
    /// Positions whose most likely token is the full-precision model's.
    pub same_top1: u32,
    /// Positions.
    pub positions: u32,
    /// SHA-256 of the logits, in hexadecimal digits.
    pub logits_sha256: String,
}

impl From<&Check> for CheckFigures {
    fn from(check: &Check) -> Self {
        let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        match check {
            Check::Windows(record) => CheckFigures::Windows(WindowFigures {
                reference_nll: record.reference_nll,
                nll: record.nll,
                mean_kl: record.mean_kl,
                same_top1: record.same_top1,
                positions: record.positions,
                logits_sha256: hex(&record.logits_sha256),
            }),
            Check::Embeddings(record) => CheckFigures::Embeddings(EmbeddingFigures {
                mean_distance: record.mean_distance,
                largest_distance: record.largest_distance,
                texts: record.texts,
                embeddings_sha256: hex(&record.embeddings_sha256),
            }),
            Check::Images(record) => CheckFigures::Images(ImageFigures {
                mean_kl: record.mean_kl,
                same_top1: record.same_top1,
                images: record.images,
                logits_sha256: hex(&record.logits_sha256),
            }),
        }
    }
}
