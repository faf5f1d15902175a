//! `rescomp check` of a classifier: runs the container's images and compares the logits of their classes with what the host recorded.
//!
//! The logits must be the host's bit for bit, so their digest decides; the other figures say how far off a machine is that misses it.

use std::time::Instant;

use rescomp_formats::check_images::CheckImages;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::manifest::ImageRecord;
use rescomp_runtime::eval_images::{MeasuredImages, measure_images};
use serde::Serialize;

use super::{Checked, Comparison, Measurements, digest_bound, share};
use crate::classifier;
use crate::error::Error;
use crate::flags::CheckFlags;
use crate::machine::Engine;
use crate::output::hex;

/// Figures over the embedded images.
#[derive(Debug, Serialize)]
pub(super) struct ImageFigures {
    mean_kl: f64,
    same_top1: u32,
    images: u32,
    logits_sha256: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ImageBounds {
    kl_difference: f64,
    same_top1_difference: f64,
    digest: &'static str,
}

/// Runs the images.
///
/// # Errors
/// Where the model does not run.
pub(super) fn check(
    flags: &CheckFlags,
    container: &CheckedContainer<'_>,
    engine: &Engine,
    images: &CheckImages<'_>,
    record: &ImageRecord,
) -> Result<Checked, Error> {
    let path = &flags.machine.container;
    let mut memory = classifier::memory(path, container)?;
    let mut classifier = classifier::classifier(path, container, engine, &mut memory)?;
    let start = Instant::now();
    let device =
        measure_images(&mut classifier, images, |_| ()).map_err(|error| Error::input(path, error))?;
    let seconds = start.elapsed().as_secs_f64();
    let host = ImageFigures {
        mean_kl: record.mean_kl,
        same_top1: record.same_top1,
        images: record.images,
        logits_sha256: hex(&record.logits_sha256),
    };
    let found = ImageFigures {
        mean_kl: device.mean_kl,
        same_top1: device.same_top1,
        images: device.images,
        logits_sha256: hex(&device.logits_sha256),
    };
    let bounds = ImageBounds {
        kl_difference: flags.max_kl_difference,
        same_top1_difference: flags.max_top1_difference,
        digest: digest_bound(flags),
    };
    let comparisons = compare(flags, record, &device);
    Ok(Checked { measured: Measurements::Images { host, device: found, bounds }, comparisons, seconds })
}

fn compare(flags: &CheckFlags, host: &ImageRecord, device: &MeasuredImages) -> Vec<Comparison> {
    let same = [share(host.same_top1, host.images), share(device.same_top1, device.images)];
    vec![
        Comparison::difference(
            "mean KL, nats an image",
            host.mean_kl,
            device.mean_kl,
            flags.max_kl_difference,
        ),
        Comparison::same_top1(same[0], same[1], flags.max_top1_difference),
        Comparison::count("images", host.images, device.images),
        Comparison::digest(flags, "logits, SHA-256", &host.logits_sha256, &device.logits_sha256),
    ]
}
