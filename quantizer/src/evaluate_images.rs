//! Measuring a classifier on images: how far the probabilities of its classes are from the full-precision model's.

use crate::checkpoint::Checkpoint;
use crate::classes::dense_classes;
use crate::dense::DenseError;
use bytemuck::Zeroable;
use rayon::prelude::*;
use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::{argmax, log_sum_exp};
use rescomp_runtime::executor::Serial;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::models::vit::Pixels;
use serde::Serialize;

/// What images gave. Divergences are of all classes, nats an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageEvaluation {
    /// Mean KL divergence from the full-precision model.
    pub mean_kl: f64,
    /// The median.
    pub median_kl: f64,
    /// The largest.
    pub largest_kl: f64,
    /// Share of images with the full-precision model's most likely class.
    pub same_top1: f64,
    /// Images.
    pub images: u64,
    /// Bits that the weights take on average, everything counted.
    pub bits_per_weight: f64,
    /// Bytes of the container.
    pub file_bytes: u64,
    /// How the activations entered the matrix products.
    pub activations: &'static str,
    /// The kernel table.
    pub kernels: &'static str,
}

/// Why a measurement stopped.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The full-precision model could not run.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// The container could not run.
    #[error("container: {0}")]
    Container(#[from] RuntimeError),
    /// The two models tell other classes apart.
    #[error("the reference {reference} has {expected} classes, the model {found}")]
    Classes {
        /// The reference's name.
        reference: String,
        /// Its classes.
        expected: u32,
        /// The container's.
        found: u32,
    },
    /// Nothing to measure on.
    #[error("expected one image or more, found none")]
    NoImages,
}

/// Runs both models over images of the container's size. `progress` is called [`steps`] times.
///
/// # Errors
/// [`ImageError`].
pub fn evaluate_images(
    machine: Machine<'_>,
    container: &CheckedContainer<'_>,
    activations: ActivationFormat,
    reference: &Checkpoint,
    images: &[Vec<u8>],
    progress: &(dyn Fn() + Sync),
) -> Result<ImageEvaluation, ImageError> {
    let (expected, found) = (reference.spec.vocabulary, container.manifest().spec.vocabulary);
    if expected != found {
        return Err(ImageError::Classes { reference: reference.name(), expected, found });
    }
    if images.is_empty() {
        return Err(ImageError::NoImages);
    }
    let full = dense_classes(machine, reference, images, |_| progress())?;
    let blocks = ClassifierPlan::new(container)?.blocks() as usize;
    let memory = || vec![MemoryBlock::zeroed(); blocks];
    let classify = |memory: &mut Vec<MemoryBlock>, rgb: &Vec<u8>| -> Result<Vec<f32>, RuntimeError> {
        let serial = Machine { executor: &Serial, ..machine };
        let mut classifier = Classifier::new(container, serial, activations, memory)?;
        let logits = classifier.classify(Pixels::Bytes { rgb, repeat: 1 })?.to_vec();
        progress();
        Ok(logits)
    };
    let logits: Vec<Vec<f32>> =
        images.par_iter().map_init(memory, classify).collect::<Result<_, RuntimeError>>()?;
    let mut divergences: Vec<f64> = full.iter().zip(&logits).map(|(p, q)| divergence(p, q)).collect();
    divergences.sort_by(f64::total_cmp);
    let same = full.iter().zip(&logits).filter(|(p, q)| argmax(p) == argmax(q)).count();
    Ok(ImageEvaluation {
        mean_kl: divergences.iter().sum::<f64>() / divergences.len() as f64,
        median_kl: divergences[(divergences.len() - 1) / 2],
        largest_kl: divergences.last().copied().unwrap_or(0.0),
        same_top1: same as f64 / images.len() as f64,
        images: images.len() as u64,
        bits_per_weight: container.container().bits_per_weight(),
        file_bytes: container.container().file_bytes() as u64,
        activations: match activations {
            ActivationFormat::Int8 => "int8",
            ActivationFormat::F32 => "f32",
        },
        kernels: machine.kernels.name,
    })
}

/// How often [`evaluate_images`] calls `progress`.
pub fn steps(reference: &Checkpoint, images: usize) -> usize {
    reference.spec.layers as usize + images
}

/// KL divergence of the second's probabilities from the first's, of their logits.
fn divergence(full: &[f32], found: &[f32]) -> f64 {
    let (p_normalizer, q_normalizer) = (log_sum_exp(full), log_sum_exp(found));
    full.iter()
        .zip(found)
        .map(|(p, q)| {
            let (log_p, log_q) = (f64::from(*p) - p_normalizer, f64::from(*q) - q_normalizer);
            log_p.exp() * (log_p - log_q)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_of_known_probabilities() {
        let of = |probabilities: [f64; 2]| probabilities.map(|p| (p.ln() + 3.0) as f32);
        let expected = 0.75 * (0.75_f64 / 0.5).ln() + 0.25 * (0.25_f64 / 0.5).ln();
        assert!((divergence(&of([0.75, 0.25]), &of([0.5, 0.5])) - expected).abs() < 1e-6);
        assert_eq!(divergence(&of([0.75, 0.25]), &of([0.75, 0.25])), 0.0);
    }
}
