//! The accuracy check of a classifier: runs the container's images and measures how far the probabilities of their classes are from the
//! full-precision model's.
//!
//! Everything after the logits is f64 through `libm`, so the figures, too, are the same on every machine.

use crate::classifier::Classifier;
use crate::error::RuntimeError;
use crate::eval::{argmax, coarse_kl, log_sum_exp};
use crate::models::vit::Pixels;
use rescomp_formats::check_images::CheckImages;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the images gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MeasuredImages {
    /// Mean KL divergence from the full-precision model over the kept classes and the rest, nats an image.
    pub mean_kl: f64,
    /// Images whose most likely class is the full-precision model's.
    pub same_top1: u32,
    /// Images.
    pub images: u32,
    /// SHA-256 over the bits of the logits.
    pub logits_sha256: [u8; 32],
}

/// Runs every image. `progress` hears of each that is finished.
///
/// # Errors
/// [`RuntimeError`].
pub fn measure_images(
    classifier: &mut Classifier<'_>,
    images: &CheckImages<'_>,
    mut progress: impl FnMut(usize),
) -> Result<MeasuredImages, RuntimeError> {
    let mut digest = Sha256::new();
    let (mut kl, mut same_top1) = (0.0, 0);
    let (classes, repeat) = (images.classes(), images.repeat());
    for image in 0..images.images() {
        let logits = classifier.classify(Pixels::Bytes { rgb: images.pixels(image), repeat })?;
        logits.iter().for_each(|logit| digest.update(logit.to_le_bytes()));
        kl += coarse_kl(&classes, image, logits, log_sum_exp(logits));
        let reference = classes.kept(image).next().map(|(class, _)| class);
        same_top1 += u32::from(reference == Some(argmax(logits)));
        progress(image + 1);
    }
    Ok(MeasuredImages {
        mean_kl: kl / images.images() as f64,
        same_top1,
        images: images.images() as u32,
        logits_sha256: digest.finalize().into(),
    })
}
